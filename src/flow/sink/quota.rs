//! Whether a broker that is silent keeps us waiting because of a quota.
//!
//! Batches of steps are sent with acks 0, which nothing is answered for, also not for how long the broker mutes the
//! connection (`KafkaApis.handleProduceRequest` throttles the channel all the same, KIP-219): a large request under a
//! small quota is minutes of silence, which look like a broker's end. Who gives the connection up then sends all of it
//! again, and what lies in the broker's buffers lands later still: a marker among it takes an offset that isn't its own.
//!
//! So the broker is asked, on a connection of its own. A quota is one of all connections of a user and client, a
//! Produce request without partitions is weighed as any other, and its answer comes at once and tells the time of the
//! throttle. That is the one that the silent connection was given, or more: both are what the bytes of the last
//! seconds take.
//!
//! Where other connections keep the user at its quota every question is told a time, also when the silent connection's
//! broker, or the way to it, is dead. So the oldest request is excused a few times only: once for each request before it
//! that may have muted the connection, and once because the broker may not have read it when it was asked first. Behind that
//! the ordinary time-out runs.

use std::pin::Pin;
use std::time::Duration;

use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use tokio::time::Instant;

use super::SILENT_AFTER;
use super::produce::{PRODUCE_VERSION_MAX, PRODUCE_VERSION_MIN, encode_empty};
use crate::wire::{Cluster, Connection, Role, WireError};

/// How often the oldest request was excused, by how many were answered before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Excused {
    oldest: u64,
    times: u32,
}

impl Excused {
    /// Whether the oldest request may be excused, before which so many were sent that may have muted the connection.
    pub(super) fn may_be(&self, oldest: u64, mutes: u32) -> bool {
        self.oldest != oldest || self.times <= mutes
    }

    /// It was.
    pub(super) fn note(&mut self, oldest: u64) {
        let before = match self.oldest == oldest {
            true => self.times,
            false => 0,
        };
        *self = Self {
            oldest,
            times: before.saturating_add(1),
        };
    }
}

/// A question under way, and the connection that it is asked for.
pub(super) struct Asked {
    silent: Connection,
    answer: Pin<Box<dyn Future<Output = Option<Duration>> + Send>>,
}

impl Asked {
    /// Asks for that connection's sake.
    pub(super) fn start(cluster: &Cluster, silent: Connection) -> Self {
        let (cluster, broker) = (cluster.clone(), silent.broker());
        let answer = Box::pin(async move {
            let asked = tokio::time::timeout(2 * SILENT_AFTER, ask(&cluster, broker));
            asked.await.ok()?.ok().flatten()
        });
        Self { silent, answer }
    }
}

/// Resolves when the question under way is answered: then the silent connection waits as long as the broker wants it to.
/// Whether it wants that.
pub(super) async fn answered(asked: &mut Option<Asked>) -> bool {
    let Some(question) = asked else {
        return std::future::pending().await;
    };
    let time = (&mut question.answer).await;
    if let Some(time) = time {
        tracing::debug!(
            broker = question.silent.broker(),
            ?time,
            "a quota of producers holds the broker's answers back"
        );
        question.silent.stay_quiet_for(time);
    }
    *asked = None;
    time.is_some()
}

/// For how long a request is throttled now, if it is.
async fn ask(cluster: &Cluster, broker: i32) -> Result<Option<Duration>, WireError> {
    let connection = cluster.connection(broker, Role::Quota).await?;
    // Somebody else has asked, and this one is muted for it, too.
    if let Some(until) = connection.quiet_until() {
        return Ok(Some(until - Instant::now()));
    }
    let version =
        connection.version_at_least::<ProduceRequest>(PRODUCE_VERSION_MIN, PRODUCE_VERSION_MAX)?;
    let answer: ProduceResponse = connection
        .start_raw::<ProduceRequest>(version, encode_empty())?
        .await?;
    let ms = u64::try_from(answer.throttle_time_ms).unwrap_or(0);
    Ok((ms > 0).then(|| Duration::from_millis(ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_connection_is_not_excused_for_ever_under_a_quota_that_others_fill() {
        let mut excused = Excused::default();
        let mutes = 3;
        let mut times = 0;
        while excused.may_be(7, mutes) {
            excused.note(7);
            times += 1;
            assert!(times < 100, "there is an end");
        }
        assert_eq!(times, mutes + 1);
        assert!(excused.may_be(8, 0), "the next one is another");
        excused.note(8);
        assert!(!excused.may_be(8, 0));
        assert!(excused.may_be(8, 1));
    }
}
