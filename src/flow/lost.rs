//! A filler that was lost among its neighbours.
//!
//! The markers of one request are appended one by one. When one of them fails and later ones don't
//! (an in-sync replica that left and came back meanwhile), the newest running number is ahead of the
//! count of fillers. By the counts alone that looks like replicas that lag, but it never ends. What
//! is missing lies at the log's end: nothing is sent before all markers are answered.

use kafka_protocol::ResponseError;

use super::error::Trouble;
use super::position::{Producers, Witness, newest_filler, witness};
use super::shared::Flow;
use super::sink::MARKERS_PER_REQUEST;
use crate::wire::{self, ProducerState, TopicPartition, WireError};

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

/// How many fillers there really are, if the log ends at the high watermark in truth; `None` while
/// replicas may lag.
pub(super) async fn fillers(
    flow: &Flow,
    target: &TopicPartition,
    counted: Counted<'_>,
) -> Result<Option<i64>, Trouble> {
    let newest = newest_filler(counted.states, counted.producers);
    let lost = counted.written - counted.end;
    let Some(newest) = newest.filter(|newest| lost <= MARKERS_PER_REQUEST.min((*newest).into()))
    else {
        return Ok(None);
    };
    if !ends_at(flow, target, counted.end).await? {
        return Ok(None);
    }
    // Both answers must be one leader's: a new one knows another log and other counts.
    let asked = [target.clone()];
    let mut again = wire::describe_producers(&flow.target, &asked).await;
    let again = again.remove(target).transpose()?.unwrap_or_default();
    let same = newest_filler(&again, counted.producers) == Some(newest)
        && witness(&again, counted.producers, counted.end - counted.base)
            == Witness::Behind {
                written: counted.written - counted.base,
            };
    if !same {
        return Ok(None);
    }
    tracing::info!(%target, lost, "fillers were lost on their way; they are written again");
    Ok(Some(i64::from(newest) - lost))
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
