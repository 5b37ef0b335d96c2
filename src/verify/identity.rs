//! Whether topics are still those that were copied: one that was deleted and made again has the old one's name, and
//! another id. librdkafka tells no ids, so they are asked for with our own client.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::report::{Difference, DifferenceKind};
use crate::state::TopicRecord;
use crate::wire::{Cluster, MostSay, is_other_topic};

/// Names that are listed one by one.
const NAMED_MAX: usize = 5;

/// What the brokers of one side say of topics, by their names there. A topic that nobody was asked about isn't in it.
pub(super) type Told = BTreeMap<String, MostSay>;

/// What more than half of the brokers say of these topics: one that is cut off from the others describes topics as they were.
pub(super) async fn ask(cluster: &Cluster, topics: &[String], within: Duration) -> Told {
    if topics.is_empty() {
        return Told::new();
    }
    // Each of its requests has a deadline of its own: how long all take goes by how many topics there are.
    let why = match tokio::time::timeout(within, cluster.metadata(Some(&[]))).await {
        Ok(Ok(_)) => match cluster.most_say(topics, within).await {
            Ok(told) => return told,
            Err(error) => error.to_string(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it isn't answered".to_owned(),
    };
    let untold = |topic: &String| (topic.clone(), MostSay::Untold(why.clone()));
    topics.iter().map(untold).collect()
}

/// What was found of topics' identity.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Topics that are others than those that were copied.
    pub others: Vec<Difference>,
    /// By the side and the reason, the topics of which that isn't known.
    untold: BTreeMap<(&'static str, String), Vec<String>>,
}

impl Found {
    /// What isn't known, a line for each reason.
    pub(super) fn untold(&self) -> Vec<String> {
        let lines = self.untold.iter().map(|((side, why), topics)| {
            let named = &topics[..topics.len().min(NAMED_MAX)];
            let more = match topics.len() - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let named = named.join(", ");
            format!("whether topics on the {side} were made anew: {why} ({named}{more})")
        });
        lines.collect()
    }

    /// The untold ones by a second look of some of them, besides those that it didn't look at.
    pub(super) fn take_untold(&mut self, first: Self, looked_again: impl Fn(&str) -> bool) {
        for (why, mut topics) in first.untold {
            topics.retain(|topic| !looked_again(topic));
            if !topics.is_empty() {
                self.untold.entry(why).or_default().extend(topics);
            }
        }
    }
}

/// The topics that are others than those that are known, by their names on the source.
pub(super) fn made_anew(
    known: &BTreeMap<String, TopicRecord>,
    (source, target): (&Told, &Told),
) -> Found {
    let mut found = Found::default();
    for (topic, record) in known {
        let copy = &record.target_topic;
        let sides: [(&'static str, &String, Uuid, Option<&MostSay>); 2] = [
            ("source", topic, record.source_topic_id, source.get(topic)),
            ("target", copy, record.target_topic_id, target.get(copy)),
        ];
        for (side, name, id, now) in sides {
            match now {
                Some(MostSay::There(now)) if is_other_topic(id, *now) => {
                    let detail = format!(
                        "{name} on the {side} was deleted and made again since it was copied"
                    );
                    let mut difference = Difference::new(DifferenceKind::MadeAnew, detail);
                    difference.topic = Some(topic.clone());
                    found.others.push(difference);
                }
                Some(MostSay::Untold(why)) => {
                    let topics = found.untold.entry((side, why.clone())).or_default();
                    topics.push(topic.clone());
                }
                // One that is gone is told of with its partitions.
                Some(MostSay::There(_) | MostSay::Gone) | None => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use fake_kafka::state::Options;
    use fake_kafka::tcp::Server;
    use fake_kafka::topics::NewTopic;

    use super::*;
    use crate::wire::ClusterConfig;

    const WITHIN: Duration = Duration::from_secs(30);

    /// So many brokers, and a topic that all of them keep.
    fn started(brokers: i16) -> (fake_kafka::Cluster, Server, NewTopic) {
        let fake = fake_kafka::Cluster::new(Options {
            brokers: brokers.into(),
            ..Options::default()
        });
        let server = Server::start(&fake);
        let new = NewTopic {
            partitions: 1,
            replication: brokers,
            ..NewTopic::default()
        };
        (fake, server, new)
    }

    fn connected(server: &Server) -> Cluster {
        let bootstrap = server.bootstrap();
        let bootstrap = bootstrap.split(',').map(str::to_owned).collect();
        Cluster::new(ClusterConfig::new("source", bootstrap))
    }

    #[tokio::test]
    async fn a_broker_that_is_cut_off_doesn_t_say_alone_which_topic_it_is() {
        let (fake, server, new) = started(3);
        let was = fake.control(|state| state.create_topic("t", &new));
        let was = was.expect("it can be made");
        let is = fake.control(|state| {
            state.isolate_broker(1);
            state.recreate_topic("t");
            state.topics["t"].id
        });
        assert_ne!(was, is);
        let bootstrap = server.bootstrap();
        let first = bootstrap.split(',').next().expect("an address").to_owned();
        let cluster = Cluster::new(ClusterConfig::new("source", vec![first]));
        let topics = ["t".to_owned(), "none".to_owned()];
        let told = ask(&cluster, &topics, WITHIN).await;
        assert_eq!(told["t"], MostSay::There(is));
        assert_eq!(told["none"], MostSay::Gone);
    }

    fn record(id: Uuid) -> TopicRecord {
        TopicRecord {
            v: 1,
            source_topic_id: id,
            target_topic: "t".to_owned(),
            target_topic_id: Uuid::nil(),
            created: true,
            mapped: false,
            reason: String::new(),
            origins: vec![0],
            continued: None,
            turned: BTreeMap::new(),
            begun_at_ms: None,
        }
    }

    /// One of two has the topic as it was: neither is more than half.
    #[tokio::test]
    async fn two_brokers_that_disagree_leave_it_untold() {
        let (fake, server, new) = started(2);
        let was = fake.control(|state| state.create_topic("t", &new));
        let was = was.expect("it can be made");
        fake.control(|state| {
            state.isolate_broker(1);
            state.recreate_topic("t");
        });
        let cluster = connected(&server);
        let told = ask(&cluster, &["t".to_owned()], WITHIN).await;
        let known = [("t".to_owned(), record(was))].into();
        let found = made_anew(&known, (&told, &Told::new()));
        assert!(found.others.is_empty(), "{found:?}");
        assert_eq!(found.untold().len(), 1, "{found:?}");
    }

    /// So many that asking about each by itself would take longer than anybody waits.
    #[tokio::test]
    async fn thousands_of_topics_that_were_made_anew_are_told_beside_a_broker_that_hangs() {
        const TOPICS: usize = 4_000;
        let (fake, server, new) = started(3);
        let topics: Vec<String> = (0..TOPICS).map(|number| format!("t{number}")).collect();
        fake.control(|state| {
            for topic in &topics {
                state.create_topic(topic, &new).expect("it can be made");
            }
        });
        let cluster = connected(&server);
        fake.control(|state| state.freeze_broker(3));
        let other = Uuid::from_u128(7);
        let known = topics
            .iter()
            .map(|it| (it.clone(), record(other)))
            .collect();
        let begun = std::time::Instant::now();
        let told = ask(&cluster, &topics, WITHIN).await;
        let found = made_anew(&known, (&told, &Told::new()));
        assert_eq!(found.others.len(), TOPICS, "{:?}", found.untold());
        assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    }
}
