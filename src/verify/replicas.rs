//! How many replicas partitions have on both sides.

use std::collections::BTreeMap;

use rdkafka::types::RDKafkaErrorCode;

use super::VerifyError;
use super::client;
use super::report::{Compared, Difference, DifferenceKind};
use crate::config::ClusterSection;

/// How many replicas each partition of a topic has, or why that isn't known.
pub(super) type Replicas = Result<Vec<usize>, String>;

/// What a cluster's brokers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub brokers: usize,
    pub topics: BTreeMap<String, Replicas>,
}

/// Asks a cluster for all of its topics.
pub(super) fn layout(section: &ClusterSection) -> Result<Layout, VerifyError> {
    let consumer = client::consumer(section, "twinlog-verify", &[])?;
    let metadata = client::metadata(section, &consumer, "asking for replicas")?;
    let topics = metadata.topics().iter().map(|topic| {
        let replicas = match topic.error() {
            None => Ok(topic
                .partitions()
                .iter()
                .map(|partition| partition.replicas().len())
                .collect()),
            Some(error) => Err(RDKafkaErrorCode::from(error).to_string()),
        };
        (topic.name().to_owned(), replicas)
    });
    Ok(Layout {
        brokers: metadata.brokers().len(),
        topics: topics.collect(),
    })
}

/// A copied topic: its name on the source, and on the target.
pub(super) type Names<'a> = (&'a str, &'a str);

/// The copies that have fewer replicas than they should: as many as on the source or as the flow asks
/// for, where the target has the brokers for them. More are somebody's choice.
pub(super) fn differences(
    asked: Option<i16>,
    topics: &[Names<'_>],
    (source, target): (&Layout, &Layout),
) -> (Compared, Vec<Difference>) {
    let (mut compared, mut found) = (Compared::default(), Vec::new());
    for (topic, target_topic) in topics {
        let (there, here) = (source.topics.get(*topic), target.topics.get(*target_topic));
        let (there, here) = match (there, here) {
            (Some(Ok(there)), Some(Ok(here))) => (there, here),
            (Some(Err(reason)), _) => {
                not_compared(&mut compared, topic, "source", reason);
                continue;
            }
            (_, Some(Err(reason))) => {
                not_compared(&mut compared, target_topic, "target", reason);
                continue;
            }
            // What is gone is told of with its partitions.
            (None, _) | (_, None) => continue,
        };
        compared.count += 1;
        let on_source = there.iter().max().copied().unwrap_or(0);
        let asked = asked.map(|asked| usize::from(asked.unsigned_abs()));
        let wanted = asked.unwrap_or(on_source).min(target.brokers);
        let fewest = here.iter().min().copied().unwrap_or(wanted);
        if fewest < wanted {
            let detail = format!("{target_topic} has {fewest} replica(s), it should have {wanted}");
            let mut difference = Difference::new(DifferenceKind::Replicas, detail);
            difference.topic = Some((*topic).to_owned());
            found.push(difference);
        }
    }
    (compared, found)
}

fn not_compared(compared: &mut Compared, topic: &str, side: &str, reason: &str) {
    let line = format!("{topic} on the {side}: {reason}");
    compared.not_compared.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(brokers: usize, replicas: &[usize]) -> Layout {
        let topics = [("t".to_owned(), Ok(replicas.to_vec()))];
        Layout {
            brokers,
            topics: topics.into(),
        }
    }

    fn details(asked: Option<i16>, source: &Layout, target: &Layout) -> Vec<String> {
        let (compared, found) = differences(asked, &[("t", "t")], (source, target));
        assert_eq!(compared.count, 1);
        found.into_iter().map(|it| it.detail).collect()
    }

    #[test]
    fn a_copy_with_fewer_replicas_differs() {
        let source = layout(3, &[3, 3]);
        let fewer = ["t has 1 replica(s), it should have 3"];
        assert_eq!(details(None, &source, &layout(3, &[3, 1])), fewer);
        assert!(details(None, &source, &layout(3, &[3, 3])).is_empty());
        assert!(details(None, &layout(1, &[1]), &layout(3, &[3])).is_empty());
        // More than there are brokers can't be had.
        assert!(details(None, &source, &layout(1, &[1, 1])).is_empty());
        // The flow's word counts more than the source.
        assert!(details(Some(2), &source, &layout(3, &[2, 2])).is_empty());
        let asked = ["t has 2 replica(s), it should have 3"];
        assert_eq!(details(Some(3), &layout(1, &[1]), &layout(3, &[2])), asked);
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let mut target = layout(3, &[]);
        target
            .topics
            .insert("t".to_owned(), Err("not authorized".to_owned()));
        let (compared, found) = differences(None, &[("t", "t")], (&layout(3, &[3]), &target));
        assert!(found.is_empty());
        assert_eq!(compared.not_compared, ["t on the target: not authorized"]);
    }
}
