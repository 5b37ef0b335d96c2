//! What the old primary has in topics, and in partitions, that should be copied and never were: all of it is only there.

use std::collections::HashMap;

use super::topics::selected_topics;
use crate::config::FlowConfig;
use crate::state::TopicSet;
use crate::wire::{self, Cluster, Metadata, OffsetSpec, TopicPartition, WireError};

/// Those of the failed over topics that `is_known` doesn't know, as the old primary has them.
pub fn never_copied(
    flow: &FlowConfig,
    there: &Metadata,
    failed_over: &TopicSet,
    is_known: impl Fn(&TopicPartition) -> bool,
) -> Vec<TopicPartition> {
    let selected = selected_topics(flow, there).into_iter();
    selected
        .filter(|(name, _)| failed_over.contains(name))
        .flat_map(|(name, partitions)| {
            let numbers = (0..).take(partitions);
            numbers.map(move |number| TopicPartition::new(&*name, number))
        })
        .filter(|at| !is_known(at))
        .collect()
}

/// The offsets that these have, each within its patience; `None` where not all of them say so. Those without any are left out.
pub async fn filled(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    patience: std::time::Duration,
) -> Option<Vec<(TopicPartition, i64, i64)>> {
    if partitions.is_empty() {
        return Some(Vec::new());
    }
    let (starts, ends) = tokio::join!(
        wire::list_offsets_within(cluster, partitions, OffsetSpec::Earliest, patience),
        wire::list_offsets_within(cluster, partitions, OffsetSpec::Latest, patience),
    );
    let offset = |answers: &HashMap<TopicPartition, Result<i64, WireError>>, at| {
        let answer = answers.get(at)?;
        answer.as_ref().ok().copied()
    };
    let mut filled = Vec::new();
    for at in partitions {
        let (start, end) = (offset(&starts, at)?, offset(&ends, at)?);
        if end > start {
            filled.push((at.clone(), start, end));
        }
    }
    Some(filled)
}
