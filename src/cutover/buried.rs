//! Records that clients wrote to a new primary while its logs were still being padded.
//!
//! They lie among the padding, where the old primary may have records of its own: a copy that goes
//! on behind those would pass them over. So the padding counts only up to the first of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::error::CutoverError;
use crate::batch;
use crate::state::ForkRecord;
use crate::tasks::brought;
use crate::wire::{self, Cluster, ResponseError, TopicPartition, WireError};

const FETCH_BYTES: i32 = 4 * 1024 * 1024;
/// Partitions that are read together.
const AT_ONCE: usize = 32;

/// Of a partition, why its log can't be read.
pub type Unread = (i32, CutoverError);

/// Forks, by topic, with their padding cut off before the first record in it; a topic of which a partition of
/// the new primary can't be read has the reason. With each fork come the old primary's ends: what its log doesn't
/// reach is copied in any case. All partitions are read side by side.
pub async fn clear(
    primary: &Cluster,
    forks: Vec<(String, ForkRecord, Vec<i64>)>,
) -> BTreeMap<String, Result<ForkRecord, Unread>> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut looks = JoinSet::new();
    for (topic, fork, ends) in &forks {
        for (number, (of_partition, end)) in (0..).zip(fork.partitions.iter().zip(ends)) {
            let (from, until) = (of_partition.target_end, of_partition.padded_end.min(*end));
            if from >= until {
                continue;
            }
            let at = TopicPartition::new(&*fork.target_topic, number);
            let (primary, room, topic) = (primary.clone(), room.clone(), topic.clone());
            looks.spawn(async move {
                let _permit = room.acquire().await;
                let first = first_record(&primary, &at, from, until).await;
                (topic, number, first)
            });
        }
    }
    let forks = forks.into_iter();
    let mut clear: BTreeMap<_, _> = forks.map(|(topic, fork, _)| (topic, Ok(fork))).collect();
    while let Some(looked) = looks.join_next().await {
        let (topic, number, first) = brought(looked);
        let Some(Ok(fork)) = clear.get_mut(&topic) else {
            continue;
        };
        match first {
            Ok(None) => {}
            Ok(Some(first)) => {
                let index = usize::try_from(number).unwrap_or(usize::MAX);
                if let Some(fork) = fork.partitions.get_mut(index) {
                    fork.padded_end = first;
                }
            }
            Err(error) => {
                clear.insert(topic, Err((number, error)));
            }
        }
    }
    clear
}

/// The first offset in a range that is no marker.
///
/// # Errors
/// When the log can't be read.
pub async fn first_record(
    cluster: &Cluster,
    at: &TopicPartition,
    from: i64,
    until: i64,
) -> Result<Option<i64>, CutoverError> {
    let mut next = from;
    while next < until {
        let fetched = match wire::fetch_one(cluster, at, next, FETCH_BYTES).await {
            // Retention has taken it, whatever it was.
            Err(WireError::Server {
                code: ResponseError::OffsetOutOfRange,
                ..
            }) => return Ok(None),
            other => other?,
        };
        let before = next;
        for batch in batch::split(fetched.records) {
            let header = batch
                .map_err(|error| CutoverError::failed(format!("{at}: {error}")))?
                .header;
            if header.base_offset >= until {
                return Ok(None);
            }
            if header.base_offset >= from && !header.is_control() {
                return Ok(Some(header.base_offset));
            }
            next = next.max(header.next_offset());
        }
        if next == before {
            return Ok(None);
        }
    }
    Ok(None)
}
