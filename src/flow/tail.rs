//! The end of a target log whose producer states don't tell enough: are its last batches ours?
//!
//! Asked where the broker no longer knows the counts (a new partition, or one that was idle for a
//! day), and where it knows of no fillers but the log is longer than our records. That the very
//! last batch is ours proves nothing: when a stranger wrote under load, the batches that were on
//! their way behind him are ours again. So the walk goes back further than those can reach.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::error::Trouble;
use super::partition::ON_THE_WAY_OFFSETS;
use super::position::Producers;
use super::shared::Flow;
use crate::batch::{self, BatchHeader, RawBatch};
use crate::wire::{self, OffsetSpec, Role, TopicPartition, WireError};

/// Batches looked at, from the end. A partition has at most one batch in each of the 32 requests
/// that a lane keeps on the way; this is twice that. Where there are fillers it is looked at all offsets that steps
/// may have on the way.
const BATCHES: usize = 64;
/// The pause between two looks at a log end that nothing else vouches for.
const SETTLED_AFTER: Duration = Duration::from_millis(300);
/// What one fetch may bring: the batches of a busy partition in one or two of them.
const FETCH_BYTES: i32 = 1 << 20;
/// A fetch of one byte is answered with one whole batch (KIP-74).
const ONE_BATCH_BYTES: i32 = 1;

/// Walks back from the log end, down to the first offset that is ours. `known`: what somebody else wrote,
/// and what was kept.
///
/// # Errors
/// [`Trouble::ForeignWrite`] at the first batch that isn't ours.
pub(super) async fn check(
    flow: &Flow,
    target: &TopicPartition,
    producers: Producers,
    Range { start, end }: Range<i64>,
    known: &[(i64, i64)],
) -> Result<(), Trouble> {
    let (mut seen, mut below, mut has_fillers) = (0, end, false);
    // So many offsets can't be more batches than are looked at.
    let mut span = BATCHES as i64;
    while below > start && (seen < BATCHES || (has_fillers && end - below < ON_THE_WAY_OFFSETS)) {
        let from = below.saturating_sub(span).max(start);
        let found = batches(flow, target, from..below).await?;
        for header in found.iter().rev() {
            let is_known = known
                .iter()
                .any(|it| (it.0..it.1).contains(&header.base_offset));
            if !producers.is_ours(header.producer_id) && !is_known {
                return Err(Trouble::ForeignWrite {
                    expected: header.base_offset,
                    found: end,
                });
            }
        }
        seen += found.len();
        has_fillers |= found.iter().any(BatchHeader::is_control);
        let left = BATCHES.saturating_sub(seen);
        let on_the_way = match has_fillers {
            true => ON_THE_WAY_OFFSETS - (end - from),
            false => 0,
        };
        span = next_span(below - from, found.len(), left, on_the_way);
        below = found.first().map_or(from, |it| it.base_offset.min(from));
    }
    settled(flow, target, end).await
}

/// How many offsets are looked at next, behind so many that had these batches: `left` are still to be seen, and
/// `on_the_way` offsets whatever they have.
fn next_span(offsets: i64, found: usize, left: usize, on_the_way: i64) -> i64 {
    let count = |batches: usize| i64::try_from(batches).unwrap_or(i64::MAX);
    match found {
        0 => offsets.saturating_mul(8),
        _ if on_the_way > 0 => on_the_way,
        // As many offsets as the batches that are left have, by those seen now.
        found => (offsets / count(found) + 1).saturating_mul(count(left.max(1))),
    }
}

/// Without counts nothing tells whether replicas lag behind what was written before a crash (the
/// end that is read is the high watermark). A lag ends within moments; a second look sees it.
pub(super) async fn settled(flow: &Flow, target: &TopicPartition, end: i64) -> Result<(), Trouble> {
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

/// The batch of the target's log that has this offset.
pub(super) async fn batch_at(
    flow: &Flow,
    target: &TopicPartition,
    offset: i64,
) -> Result<RawBatch, Trouble> {
    let fetched = fetch(flow, target, offset, ONE_BATCH_BYTES).await?;
    match batch::split(fetched).next() {
        Some(batch) => Ok(batch?),
        None => Err(moved(flow)),
    }
}

/// The headers of the batches that hold these offsets. Where compaction made a hole there are none.
pub(super) async fn batches(
    flow: &Flow,
    target: &TopicPartition,
    Range { start, end }: Range<i64>,
) -> Result<Vec<BatchHeader>, Trouble> {
    let mut headers = Vec::new();
    let take = |batch: RawBatch| {
        if batch.header.base_offset < end {
            headers.push(batch.header);
        }
        Ok(())
    };
    read(flow, target, start..end, take).await?;
    Ok(headers)
}

/// Shows `take` the batches that hold these offsets.
pub(super) async fn read(
    flow: &Flow,
    target: &TopicPartition,
    Range { start, end }: Range<i64>,
    mut take: impl FnMut(RawBatch) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut next = start;
    while next < end {
        let before = next;
        for batch in batch::split(fetch(flow, target, next, FETCH_BYTES).await?) {
            let batch = batch?;
            next = next.max(batch.header.next_offset());
            take(batch)?;
        }
        if next == before {
            return Err(moved(flow));
        }
    }
    Ok(())
}

async fn fetch(
    flow: &Flow,
    target: &TopicPartition,
    offset: i64,
    bytes: i32,
) -> Result<Bytes, Trouble> {
    let reader = flow.target.apart(Role::Read);
    match wire::fetch_one(&reader, target, offset, bytes).await {
        // What is asked for was trimmed in between; the next try sees the new start.
        Err(WireError::Server {
            code: ResponseError::OffsetOutOfRange,
            ..
        }) => Err(moved(flow)),
        fetched => Ok(fetched?.records),
    }
}

fn moved(flow: &Flow) -> Trouble {
    Trouble::LeaderMoved {
        cluster: flow.target.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_batches_among_fillers_are_not_asked_for_one_by_one() {
        // All that was on the way is seen, and it was few batches.
        assert_eq!(next_span(32_704, 40, 23, -5), 818 * 23);
        assert_eq!(next_span(1_000, 1, 22, -1_005), 1_001 * 22);
        assert_eq!(next_span(64, 2, 62, 32_704), 32_704, "the rest of it first");
        assert_eq!(next_span(64, 2, 62, 0), 33 * 62, "no fillers");
        assert_eq!(next_span(64, 0, 62, 32_704), 512, "a cleaner took all");
    }
}
