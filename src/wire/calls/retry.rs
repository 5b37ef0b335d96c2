//! When a call is tried again, and for how long.

use std::future::Future;
use std::time::Duration;

use kafka_protocol::ResponseError;

use crate::wire::backoff::Retry;
use crate::wire::{Cluster, Connection, WireError};

/// How long a call goes on asking.
pub(super) const BUDGET: Duration = Duration::from_secs(5);

/// How long a partition may be unknown: a topic that was just created reaches all brokers within
/// milliseconds, and one that doesn't exist shouldn't hold up the others for long.
pub(super) const UNKNOWN_BUDGET: Duration = Duration::from_secs(2);

/// So often a broker may ask for patience.
const THROTTLED_MAX: u32 = 5;

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

pub(super) fn retry(budget: Duration) -> Retry {
    Retry::new(budget, BACKOFF_MIN, BACKOFF_MAX)
}

/// Whether a question may be asked again after `elapsed`.
pub(super) fn worth_asking_again(error: &WireError, elapsed: Duration) -> bool {
    match error.server_code() {
        Some(ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId) => {
            elapsed < UNKNOWN_BUDGET
        }
        // A broker that let a whole request timeout pass will not be better for it.
        None if matches!(error, WireError::Timeout { .. }) => false,
        // Nor is another cluster at that address ours a moment later.
        None if error.is_other_cluster() => false,
        _ => error.is_retriable(),
    }
}

/// Whether the broker surely did nothing, so that a change may be asked for again.
pub(super) fn surely_not_done(error: &WireError) -> bool {
    match error {
        WireError::NoBroker { .. } | WireError::Unreachable { .. } => true,
        WireError::Server { code, .. } => matches!(
            code,
            ResponseError::NotController
                | ResponseError::StaleControllerEpoch
                | ResponseError::BrokerNotAvailable
                | ResponseError::NotLeaderOrFollower
                | ResponseError::LeaderNotAvailable
                | ResponseError::FencedLeaderEpoch
                | ResponseError::UnknownLeaderEpoch
                | ResponseError::CoordinatorLoadInProgress
                | ResponseError::CoordinatorNotAvailable
                | ResponseError::ThrottlingQuotaExceeded
        ),
        _ => false,
    }
}

/// Asks the controller for a change, again only while it surely wasn't made.
pub(super) async fn change_at_controller<T, F, Fut>(
    cluster: &Cluster,
    change: F,
) -> Result<T, WireError>
where
    F: Fn(Connection) -> Fut,
    Fut: Future<Output = Result<T, WireError>>,
{
    at_controller(cluster, change, surely_not_done).await
}

/// The same for a change that may be made twice: an answer that was lost is asked for again.
pub(super) async fn repeat_at_controller<T, F, Fut>(
    cluster: &Cluster,
    change: F,
) -> Result<T, WireError>
where
    F: Fn(Connection) -> Fut,
    Fut: Future<Output = Result<T, WireError>>,
{
    at_controller(cluster, change, WireError::is_retriable).await
}

async fn at_controller<T, F, Fut>(
    cluster: &Cluster,
    change: F,
    may_repeat: fn(&WireError) -> bool,
) -> Result<T, WireError>
where
    F: Fn(Connection) -> Fut,
    Fut: Future<Output = Result<T, WireError>>,
{
    let mut retry = self::retry(BUDGET);
    let mut throttled = 0;
    loop {
        let (error, again) = match cluster.controller().await {
            // Nothing was sent.
            Err(error) => {
                let again = error.is_retriable();
                (error, again)
            }
            Ok(connection) => match change(connection).await {
                Ok(done) => return Ok(done),
                Err(error) => {
                    let again = may_repeat(&error);
                    (error, again)
                }
            },
        };
        // The time that the broker asked for has passed: what comes now is a new attempt.
        if error.server_code() == Some(ResponseError::ThrottlingQuotaExceeded)
            && throttled < THROTTLED_MAX
        {
            throttled += 1;
            retry = self::retry(BUDGET);
        }
        if !again || !retry.pause().await {
            return Err(error);
        }
        // Who the controller is may have changed. If nobody answers, the next round says so.
        let _ = cluster.metadata(Some(&[])).await;
    }
}

/// Asks any broker a question, again while it may help.
pub(super) async fn ask_anyone<T, F, Fut>(
    cluster: &Cluster,
    budget: Duration,
    question: F,
) -> Result<T, WireError>
where
    F: Fn(Connection) -> Fut,
    Fut: Future<Output = Result<T, WireError>>,
{
    let mut retry = retry(budget);
    loop {
        let outcome = match cluster.any_connection().await {
            Ok(connection) => question(connection).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                if !worth_asking_again(&error, retry.elapsed()) || !retry.pause().await {
                    return Err(error);
                }
            }
        }
    }
}
