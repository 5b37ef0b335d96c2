//! What a leader has and readers may not see yet.
//!
//! `ListOffsets` answers with the high watermark. While an in-sync replica lags the log is longer,
//! and what lies between comes to light later: behind a proof that nothing is written, or behind a
//! base that was taken for the log's end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::CutoverError;
use super::pairs::Offsets;
use crate::wire::{self, Cluster, FetchFrom, ResponseError, TopicPartition};

/// Partitions in one fetch.
const AT_ONCE: usize = 200;
const BYTES: i32 = 1;

/// The partitions whose logs don't end at `ends`, or about which their leader doesn't say. A fetch
/// between the two ends is answered with nothing, one beyond the log's is refused
/// (`LocalLog.read`).
///
/// # Errors
/// When a leader doesn't answer.
pub async fn hidden(
    cluster: &Cluster,
    ends: &Offsets,
) -> Result<Vec<TopicPartition>, CutoverError> {
    let metadata = cluster.cached();
    let mut by_leader: BTreeMap<i32, Vec<FetchFrom>> = BTreeMap::new();
    let mut hidden = Vec::new();
    for (at, end) in ends {
        match metadata.leader(&at.topic, at.partition) {
            Some((leader, epoch)) => {
                let from = (at.clone(), end + 1, epoch);
                by_leader.entry(leader).or_default().push(from);
            }
            None => hidden.push(at.clone()),
        }
    }
    for (leader, asked) in by_leader {
        for chunk in asked.chunks(AT_ONCE) {
            let answers = wire::fetch_many(cluster, leader, chunk, Duration::ZERO, BYTES).await?;
            let ends_there = |at: &TopicPartition| {
                let answer = answers.get(at).and_then(|answer| answer.as_ref().err());
                answer.and_then(|error| error.server_code())
                    == Some(ResponseError::OffsetOutOfRange)
            };
            let others = chunk.iter().filter(|(at, _, _)| !ends_there(at));
            hidden.extend(others.map(|(at, _, _)| at.clone()));
        }
    }
    if !hidden.is_empty() {
        // A leader may have moved.
        cluster.metadata(None).await?;
    }
    hidden.sort();
    Ok(hidden)
}
