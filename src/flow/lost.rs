//! A filler that was lost among its neighbours.
//!
//! The markers of one request are appended one by one. When one of them fails and later ones don't
//! (an in-sync replica that left and came back meanwhile), the newest running number is ahead of the
//! count of fillers. By the counts alone that looks like replicas that lag, but it never ends. What
//! is missing lies at the log's end, or among what was on its way at once
//! ([`Partition::take_sendable`](super::partition::Partition::take_sendable)): there running numbers are missing.
//! Where records stand instead is another question (`relearn::parts_at`).

use kafka_protocol::ResponseError;

use super::error::Trouble;
use super::partition::STEPS_MAX;
use super::position::{Producers, Witness, newest_filler, witness};
use super::shared::Flow;
use super::sink::MARKERS_PER_REQUEST;
use super::tail;
use crate::batch::{self, RawBatch};
use crate::wire::{self, ProducerState, TopicPartition, WireError};

/// Offsets in which a filler is looked for that was lost among what was on its way.
const LOOKED_AT: i64 = 64 * STEPS_MAX as i64;

/// A partition whose counts are ahead of its log end.
#[derive(Clone, Copy)]
pub(super) struct Counted<'a> {
    /// The two producer ids that are ours there.
    pub producers: Producers,
    /// What the leader told of its producers.
    pub states: &'a [ProducerState],
    /// The first offset that is ours.
    pub base: i64,
    /// The high watermark.
    pub end: i64,
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
        high_watermark: counted.end,
        written: counted.written,
    };
    if !ends_at(flow, target, counted.end).await? {
        return Err(behind);
    }
    // All answers must be one leader's: a new one knows another log and other counts.
    let newest = newest_filler(counted.states, counted.producers);
    let lost = counted.written - counted.end;
    let ends_with = last_filler(flow, target, counted).await?;
    let are_fillers = match newest {
        Some(newest) if lost <= MARKERS_PER_REQUEST.min(newest.into()) => {
            ends_with == Some(newest) || gaps(flow, target, counted, newest).await? == lost
        }
        _ => false,
    };
    let asked = [target.clone()];
    let mut again = wire::describe_producers(&flow.target, &asked).await;
    let again = again.remove(target).transpose()?.unwrap_or_default();
    let same = newest_filler(&again, counted.producers) == newest
        && witness(&again, counted.producers, counted.end - counted.base)
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
            found: counted.end,
        }),
    }
}

/// How many running numbers are missing among the last fillers, up to the newest one.
async fn gaps(
    flow: &Flow,
    target: &TopicPartition,
    counted: Counted<'_>,
    newest: i32,
) -> Result<i64, Trouble> {
    let first = counted.base.max(counted.end - LOOKED_AT);
    let mut numbers = Vec::new();
    let take = |batch: RawBatch| {
        let header = &batch.header;
        if header.is_control() && counted.producers.is_filler(header.producer_id) {
            numbers.push(batch::coordinator_epoch(&batch)?);
        }
        Ok(())
    };
    tail::read(flow, target, first..counted.end, take).await?;
    numbers.push(newest);
    Ok(missing(&numbers))
}

/// How many running numbers are missing between these. The same one can be there twice (`sink::markers`).
fn missing(numbers: &[i32]) -> i64 {
    let between = |two: &[i32]| i64::from(two[1] - two[0] - 1).max(0);
    numbers.windows(2).map(between).sum()
}

/// The running number of the filler that the log ends with, if it ends with one.
async fn last_filler(
    flow: &Flow,
    target: &TopicPartition,
    counted: Counted<'_>,
) -> Result<Option<i32>, Trouble> {
    if counted.end <= counted.base {
        return Ok(None);
    }
    let last = tail::batch_at(flow, target, counted.end - 1).await?;
    let is_filler =
        last.header.is_control() && counted.producers.is_filler(last.header.producer_id);
    Ok(is_filler
        .then(|| batch::coordinator_epoch(&last))
        .transpose()?)
}

/// Whether the leader's log ends at the high watermark. A fetch between the two is answered with
/// nothing, one beyond the log's end is refused (`LocalLog.read`).
async fn ends_at(flow: &Flow, target: &TopicPartition, end: i64) -> Result<bool, Trouble> {
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
        assert_eq!(missing(&[4, 5, 6, 6]), 0, "the newest is the last one");
        assert_eq!(missing(&[4, 7, 8, 10]), 3);
        assert_eq!(missing(&[4, 4, 6]), 1, "one was written again");
        assert_eq!(missing(&[9]), 0);
    }
}
