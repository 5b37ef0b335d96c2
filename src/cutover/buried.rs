//! Records that clients wrote to a new primary while its logs were still being padded.
//!
//! They lie among the padding, where the old primary may have records of its own: a copy that goes
//! on behind those would pass them over. So the padding counts only up to the first of them.

use super::error::CutoverError;
use crate::batch;
use crate::state::ForkRecord;
use crate::wire::{self, Cluster, ResponseError, TopicPartition, WireError};

const FETCH_BYTES: i32 = 4 * 1024 * 1024;

/// The fork of a topic with its padding cut off before the first record in it. `ends` are the old
/// primary's: what its log doesn't reach is copied in any case.
///
/// # Errors
/// When the new primary's log can't be read: of which partition, and why.
pub async fn clear(
    primary: &Cluster,
    fork: &ForkRecord,
    ends: &[i64],
) -> Result<ForkRecord, (i32, CutoverError)> {
    let mut clear = fork.clone();
    for (number, (fork, end)) in (0..).zip(clear.partitions.iter_mut().zip(ends)) {
        let until = fork.padded_end.min(*end);
        if fork.target_end >= until {
            continue;
        }
        let at = TopicPartition::new(&*clear.target_topic, number);
        match first_record(primary, &at, fork.target_end, until).await {
            Ok(None) => {}
            Ok(Some(first)) => fork.padded_end = first,
            Err(error) => return Err((number, error)),
        }
    }
    Ok(clear)
}

/// The first offset in a range that is no marker.
async fn first_record(
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
