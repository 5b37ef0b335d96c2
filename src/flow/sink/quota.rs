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

use std::pin::Pin;
use std::time::Duration;

use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use tokio::time::Instant;

use super::SILENT_AFTER;
use super::produce::{PRODUCE_VERSION_MAX, PRODUCE_VERSION_MIN, encode_empty};
use crate::wire::{Cluster, Connection, Role, WireError};

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
pub(super) async fn answered(asked: &mut Option<Asked>) {
    let Some(question) = asked else {
        return std::future::pending().await;
    };
    if let Some(time) = (&mut question.answer).await {
        tracing::debug!(
            broker = question.silent.broker(),
            ?time,
            "a quota of producers holds the broker's answers back"
        );
        question.silent.stay_quiet_for(time);
    }
    *asked = None;
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
