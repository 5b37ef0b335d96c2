//! A filler that was lost among its neighbours.
//!
//! The markers of one request are appended one by one. When one of them fails and later ones don't
//! (an in-sync replica that left and came back meanwhile), the newest running number is ahead of the
//! count of fillers. By the counts alone that looks like replicas that lag, but it never ends. What
//! is missing lies at the log's end, or among what was on its way at once
//! ([`Partition::take_sendable`](super::partition::Partition::take_sendable)): there running numbers are missing.
//! Where records stand instead is another question (`relearn::parts_at`).

use std::ops::Range;

use kafka_protocol::ResponseError;

use super::error::Trouble;
use super::partition::ON_THE_WAY_OFFSETS;
use super::position::{Producers, Witness, newest_filler, witness};
use super::shared::Flow;
use super::tail;
use crate::batch::{self, RawBatch};
use crate::wire::{self, ProducerState, TopicPartition, WireError};

/// Offsets in which the filler before what was on the way is looked for: long runs without one may be before it.
const LOOKED_AT: i64 = 8 * ON_THE_WAY_OFFSETS;

/// A partition whose counts are ahead of its log end.
#[derive(Clone)]
pub(super) struct Counted<'a> {
    /// The two producer ids that are ours there.
    pub producers: Producers,
    /// What the leader told of its producers.
    pub states: &'a [ProducerState],
    /// The first offset that is ours.
    pub base: i64,
    /// From where its log begins to the high watermark.
    pub log: Range<i64>,
    /// The log end that the counts imply.
    pub written: i64,
}

/// How many fillers there really are.
///
/// # Errors
/// [`Trouble::TargetBehind`] while replicas may lag, and [`Trouble::Overtaken`] where the log ends in
/// truth before what was written, and not because of fillers: then a batch was refused and the one
/// behind it taken, by a broker that had forgotten the data producer. Lost fillers leave the newest one at the
/// log's end, or a gap in the running numbers; neither is the proof of the contrary.
pub(super) async fn fillers(
    flow: &Flow,
    target: &TopicPartition,
    counted: Counted<'_>,
) -> Result<i64, Trouble> {
    let behind = Trouble::TargetBehind {
        high_watermark: counted.log.end,
        written: counted.written,
    };
    if !ends_at(flow, target, counted.log.end).await? {
        return Err(behind);
    }
    // All answers must be one leader's: a new one knows another log and other counts.
    let newest = newest_filler(counted.states, counted.producers);
    let lost = counted.written - counted.log.end;
    let ends_with = last_filler(flow, target, &counted).await?;
    let are_fillers = match newest {
        Some(newest) if lost <= ON_THE_WAY_OFFSETS.min(newest.into()) => {
            ends_with == Some(newest) || are_missing(flow, target, &counted, newest, lost).await?
        }
        _ => false,
    };
    let asked = [target.clone()];
    let ours = counted.producers;
    let is_ours = move |_: &TopicPartition, it: &ProducerState| ours.is_ours(it.producer_id);
    let mut again = wire::describe_producers(&flow.target, &asked, is_ours).await;
    let again = again.remove(target).transpose()?.unwrap_or_default();
    let same = newest_filler(&again, counted.producers) == newest
        && witness(&again, counted.producers, counted.log.end - counted.base)
            == Witness::Behind {
                written: counted.written - counted.base,
            };
    if !same {
        return Err(behind);
    }
    match newest {
        Some(newest) if are_fillers => {
            tracing::info!(%target, lost, "fillers were lost on their way; they are written again");
            Ok(i64::from(newest) - lost)
        }
        _ => Err(Trouble::Overtaken {
            expected: counted.written,
            found: counted.log.end,
        }),
    }
}

/// Whether so many running numbers are missing among the last fillers, up to the newest one. The first of them counts by
/// the filler before it, wherever that is.
async fn are_missing(
    flow: &Flow,
    target: &TopicPartition,
    counted: &Counted<'_>,
    newest: i32,
    lost: i64,
) -> Result<bool, Trouble> {
    let start = counted.base.max(counted.log.start);
    let mut span = ON_THE_WAY_OFFSETS;
    loop {
        let first = start.max(counted.log.end - span);
        let mut numbers = numbers(flow, target, counted, first).await?;
        if first == counted.base {
            // None was before it.
            numbers.insert(0, 0);
        }
        if missing(&numbers, newest) == lost {
            return Ok(true);
        }
        if first == start || span >= LOOKED_AT {
            return Ok(false);
        }
        span *= 8;
    }
}

/// The running numbers of the fillers from that offset on.
async fn numbers(
    flow: &Flow,
    target: &TopicPartition,
    counted: &Counted<'_>,
    first: i64,
) -> Result<Vec<i32>, Trouble> {
    let mut numbers = Vec::new();
    let take = |batch: RawBatch| {
        let header = &batch.header;
        if header.is_control() && counted.producers.is_filler(header.producer_id) {
            numbers.push(batch::coordinator_epoch(&batch)?);
        }
        Ok(())
    };
    tail::read(flow, target, first..counted.log.end, take).await?;
    Ok(numbers)
}

/// How many fillers are missing between the first of these and the newest one, in the order of the log. A number that is
/// there twice (`sink::markers`) stands for one that was missing before.
fn missing(numbers: &[i32], newest: i32) -> i64 {
    let Some((first, rest)) = numbers.split_first() else {
        return 0;
    };
    let there = i64::try_from(rest.len()).unwrap_or(i64::MAX);
    i64::from(newest - first) - there
}

/// The running number of the filler that the log ends with, if it ends with one.
async fn last_filler(
    flow: &Flow,
    target: &TopicPartition,
    counted: &Counted<'_>,
) -> Result<Option<i32>, Trouble> {
    if counted.log.end <= counted.base.max(counted.log.start) {
        return Ok(None);
    }
    let last = tail::batch_at(flow, target, counted.log.end - 1).await?;
    let is_filler =
        last.header.is_control() && counted.producers.is_filler(last.header.producer_id);
    Ok(is_filler
        .then(|| batch::coordinator_epoch(&last))
        .transpose()?)
}

/// Whether the leader's log ends at the high watermark. A fetch between the two is answered with
/// nothing, one beyond the log's end is refused (`LocalLog.read`).
pub(super) async fn ends_at(
    flow: &Flow,
    target: &TopicPartition,
    end: i64,
) -> Result<bool, Trouble> {
    match wire::fetch_one(&flow.target, target, end + 1, 1).await {
        Ok(_) => Ok(false),
        Err(WireError::Server {
            code: ResponseError::OffsetOutOfRange,
            ..
        }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_among_running_numbers_is_counted() {
        assert_eq!(missing(&[4, 5, 6], 6), 0, "the newest is the last one");
        assert_eq!(missing(&[4, 7, 8, 10], 10), 3);
        assert_eq!(missing(&[0, 2, 3], 3), 1, "the first of all");
        assert_eq!(missing(&[9], 9), 0);
        // One was lost before, and its number is there twice: what is lost now is one.
        assert_eq!(missing(&[2, 4, 4, 6], 6), 1);
        assert_eq!(missing(&[], 6), 0, "none is in sight");
    }
}
