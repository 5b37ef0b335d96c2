//! How many replicas a copy should have. Pure.

use crate::config::FlowConfig;
use crate::state::TopicRecord;
use crate::telemetry::metadata::{Drift, DriftAction, DriftKind};
use crate::wire::{Metadata, TopicMetadata, is_other_topic};

/// The replicas that managed clusters ask for, if they ask for a number.
const USUAL: i16 = 3;

/// How many replicas a topic's partitions have: those of the best one.
pub(super) fn of(topic: &TopicMetadata) -> usize {
    let replicas = topic.partitions.iter().map(|it| it.replicas.len());
    replicas.max().unwrap_or(1).max(1)
}

/// With how many replicas a copy is made, the best first: as many as on the source, or by
/// `replication_factor`. The brokers judge whether that can be: one that is away for a moment is no
/// reason for fewer while they count it (`StripedReplicaPlacer` counts fenced ones). Then as many as
/// answer; then what a policy may ask for, which is the brokers' default (-1) or the usual number.
pub(super) fn at_creation(asked: Option<i16>, on_source: usize, brokers: usize) -> Vec<i16> {
    if let Some(asked) = asked {
        return vec![asked];
    }
    let count = |replicas: usize| i16::try_from(replicas.max(1)).unwrap_or(i16::MAX);
    let mut counts = vec![count(on_source), count(on_source.min(brokers)), -1];
    if brokers >= usize::from(USUAL.unsigned_abs()) {
        counts.push(USUAL);
    }
    let all = counts.clone();
    let mut index = 0;
    counts.retain(|one| {
        index += 1;
        !all[..index - 1].contains(one)
    });
    counts
}

/// What a copy lacks of the replicas that it should have, where the brokers for them are there. One
/// that was made while some of them were away keeps what it got; nobody but an operator adds to it.
pub(super) fn lack(
    flow: &FlowConfig,
    record: &TopicRecord,
    source: &TopicMetadata,
    target: &Metadata,
) -> Option<Drift> {
    let copy = target.topics.get(&record.target_topic)?;
    // What was there before the copy has its owner's replicas.
    if is_other_topic(record.target_topic_id, copy.topic_id) || record.continued.is_some() {
        return None;
    }
    let asked = flow
        .replication_factor
        .map(|asked| usize::from(asked.unsigned_abs()));
    let wanted = asked
        .unwrap_or_else(|| of(source))
        .min(target.brokers.len());
    let there = copy.partitions.iter().map(|it| it.replicas.len()).min()?;
    (there < wanted).then(|| Drift {
        kind: DriftKind::Topic,
        action: DriftAction::Operator,
        subject: format!("topic {}", record.target_topic),
        detail: "replicas".to_owned(),
        source: Some(wanted.to_string()),
        target: Some(there.to_string()),
        why: Some(
            "it was made while fewer of the target's brokers were there: \
             kafka-reassign-partitions.sh adds replicas"
                .to_owned(),
        ),
        failure: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_sources_replicas_if_it_can() {
        assert_eq!(at_creation(None, 3, 3), [3, -1]);
        assert_eq!(at_creation(None, 3, 2), [3, 2, -1]);
        assert_eq!(at_creation(None, 1, 3), [1, -1, 3]);
        assert_eq!(at_creation(None, 2, 1), [2, 1, -1]);
        assert_eq!(at_creation(None, 0, 0), [1, -1]);
        assert_eq!(at_creation(Some(5), 3, 3), [5]);
    }
}
