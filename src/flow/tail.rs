//! The end of a target log whose producer states don't tell enough: are its last batches ours?
//!
//! Asked where the broker no longer knows the counts (a new partition, or one that was idle for a
//! day), and where it knows of no fillers but the log is longer than our records. That the very
//! last batch is ours proves nothing: when a stranger wrote under load, the batches that were on
//! their way behind him are ours again. So the walk goes back further than those can reach.

use std::ops::Range;
use std::time::Duration;

use kafka_protocol::ResponseError;

use super::error::Trouble;
use super::position::Producers;
use super::shared::Flow;
use crate::batch::{self, RawBatch};
use crate::wire::{self, OffsetSpec, TopicPartition, WireError};

/// Batches looked at, from the end. A partition has at most one batch in each of the 32 requests
/// that a lane keeps on the way; this is twice that.
const BATCHES: usize = 64;
/// The pause between two looks at a log end that nothing else vouches for.
const SETTLED_AFTER: Duration = Duration::from_millis(300);
/// A fetch of one byte is answered with one whole batch (KIP-74).
const ONE_BATCH_BYTES: i32 = 1;

/// Walks back from the log end, down to the first offset that is ours.
///
/// # Errors
/// [`Trouble::ForeignWrite`] at the first batch that isn't ours.
pub(super) async fn check(
    flow: &Flow,
    target: &TopicPartition,
    producers: Producers,
    Range { start, end }: Range<i64>,
) -> Result<(), Trouble> {
    let ours = [producers.data_id, producers.filler_id];
    let mut next = end;
    for _ in 0..BATCHES {
        if next <= start {
            break;
        }
        let header = batch_at(flow, target, next - 1).await?.header;
        if !ours.contains(&header.producer_id) {
            return Err(Trouble::ForeignWrite {
                expected: header.base_offset,
                found: end,
            });
        }
        // Where compaction made a hole, the batch that follows it is answered.
        next = header.base_offset.min(next - 1);
    }
    settled(flow, target, end).await
}

/// Without counts nothing tells whether replicas lag behind what was written before a crash (the
/// end that is read is the high watermark). A lag ends within moments; a second look sees it.
async fn settled(flow: &Flow, target: &TopicPartition, end: i64) -> Result<(), Trouble> {
    if end == 0 {
        return Ok(());
    }
    tokio::time::sleep(SETTLED_AFTER).await;
    let asked = [target.clone()];
    let mut ends = wire::list_offsets(&flow.target, &asked, OffsetSpec::Latest).await;
    match ends.remove(target).transpose()? {
        Some(now) if now == end => Ok(()),
        Some(now) => Err(Trouble::LogEndDiffers {
            expected: end,
            found: now,
        }),
        None => Err(Trouble::LeaderMoved {
            cluster: flow.target.name().to_owned(),
        }),
    }
}

/// The batch of the target's log that has this offset, or the next one where compaction made a hole.
pub(super) async fn batch_at(
    flow: &Flow,
    target: &TopicPartition,
    offset: i64,
) -> Result<RawBatch, Trouble> {
    let moved = || Trouble::LeaderMoved {
        cluster: flow.target.name().to_owned(),
    };
    let fetched = match wire::fetch_one(&flow.target, target, offset, ONE_BATCH_BYTES).await {
        // What is asked for was trimmed in between; the next try sees the new start.
        Err(WireError::Server {
            code: ResponseError::OffsetOutOfRange,
            ..
        }) => return Err(moved()),
        other => other?,
    };
    match batch::split(fetched.records).next() {
        Some(batch) => Ok(batch?),
        None => Err(moved()),
    }
}
