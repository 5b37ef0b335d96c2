//! When a call is tried again, and for how long.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;

use crate::wire::backoff::Retry;
use crate::wire::{Cluster, Connection, ErrorContext, Role, WireError};

/// How long a call goes on asking.
pub(super) const BUDGET: Duration = Duration::from_secs(5);

/// How long a partition may be unknown: a topic that was just created reaches all brokers within
/// milliseconds, and one that doesn't exist shouldn't hold up the others for long.
pub(super) const UNKNOWN_BUDGET: Duration = Duration::from_secs(2);

/// How long a broker may take over a change that may be made twice, while another one can be asked.
const ANOTHER_AFTER: Duration = Duration::from_secs(5);
/// So many brokers may be silent about one change.
const SILENT_MAX: u32 = 2;
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
    at_controller(cluster, change, surely_not_done, None).await
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
    let another_after = cluster.or_longer(ANOTHER_AFTER);
    at_controller(
        cluster,
        change,
        WireError::is_retriable,
        Some(another_after),
    )
    .await
}

async fn at_controller<T, F, Fut>(
    cluster: &Cluster,
    change: F,
    may_repeat: fn(&WireError) -> bool,
    another_after: Option<Duration>,
) -> Result<T, WireError>
where
    F: Fn(Connection) -> Fut,
    Fut: Future<Output = Result<T, WireError>>,
{
    let mut retry = self::retry(BUDGET);
    let mut throttled = 0;
    let (mut silences, mut silent) = (0, Vec::new());
    loop {
        // A broker that passes changes on to the controller may be cut off from it: another one isn't.
        let has_others = silences < SILENT_MAX && cluster.cached().brokers.len() > 1;
        let patience = another_after.filter(|_| has_others);
        let (error, again) = match controller_but(cluster, &silent).await {
            // Nothing was sent.
            Err(error) => {
                let again = error.is_retriable();
                (error, again)
            }
            Ok(connection) => {
                let broker = connection.broker();
                match answer_of(cluster, change(connection), patience).await {
                    Ok(done) => return Ok(done),
                    Err(error) => {
                        if matches!(error, WireError::Timeout { .. }) && patience.is_some() {
                            silences += 1;
                            silent.push(broker);
                            retry = self::retry(BUDGET);
                        }
                        let again = may_repeat(&error);
                        (error, again)
                    }
                }
            }
        };
        let code = error.server_code();
        if code.is_none_or(|code| code == ResponseError::NotController) {
            cluster.forget_controller();
        }
        if code == Some(ResponseError::NotController) {
            // With ZooKeeper nobody stands in: whoever is named is asked, silent or not.
            silent.clear();
        }
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

/// Whoever is named as the controller, or another one where that one was silent before.
async fn controller_but(cluster: &Cluster, silent: &[i32]) -> Result<Connection, WireError> {
    let named = cluster.controller().await?;
    if !silent.contains(&named.broker()) {
        return Ok(named);
    }
    let brokers = cluster.cached();
    let mut others = brokers.brokers.keys().copied();
    match others.find(|id| !silent.contains(id)) {
        Some(other) => cluster.connection(other, Role::Admin).await,
        None => Ok(named),
    }
}

/// The answer, if it comes in time.
async fn answer_of<T>(
    cluster: &Cluster,
    answer: impl Future<Output = Result<T, WireError>>,
    patience: Option<Duration>,
) -> Result<T, WireError> {
    let Some(after) = patience else {
        return answer.await;
    };
    let answered = tokio::time::timeout(after, answer).await;
    answered.unwrap_or_else(|_| {
        Err(WireError::Timeout {
            context: Arc::new(ErrorContext::cluster(cluster.name())),
            after,
        })
    })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fake_kafka::faults::{Action, Fault};
    use fake_kafka::kafka_protocol::messages::ApiKey;
    use fake_kafka::state::Options;
    use fake_kafka::tcp::Server;
    use fake_kafka::topics::NewTopic;

    use super::*;
    use crate::wire::{ClusterConfig, TopicChanges, alter_topic_configs, denied_topics_at};

    fn addresses(server: &Server) -> Vec<String> {
        server.bootstrap().split(',').map(str::to_owned).collect()
    }

    /// Of two brokers each may be named as the controller, again and again.
    #[tokio::test]
    async fn a_change_goes_to_another_broker_than_the_one_that_was_silent() {
        let options = Options {
            brokers: 2,
            ..Options::default()
        };
        let new = NewTopic {
            partitions: 1,
            replication: 1,
            ..NewTopic::default()
        };
        let fake = fake_kafka::Cluster::new(options);
        let server = Server::start(&fake);
        let made = fake.control(|state| state.create_topic("t", &new));
        made.expect("it can be made");
        let cluster = Cluster::new(ClusterConfig::new("c", addresses(&server)));
        cluster.metadata(None).await.expect("an answer");
        let named = cluster.controller().await.expect("a connection").broker();
        let changes = Fault::on(ApiKey::IncrementalAlterConfigs);
        fake.fault(changes.broker(named), Action::Swallow);
        let change = TopicChanges {
            topic: "t".to_owned(),
            changes: [("retention.ms".to_owned(), Some("1000".to_owned()))].into(),
        };
        let began = tokio::time::Instant::now();
        let changed = alter_topic_configs(&cluster, &[change]).await;
        let took = began.elapsed();
        assert!(matches!(changed.as_deref(), Ok([Ok(())])), "{changed:?}");
        // A silent one has 30 s (`request.timeout.ms`).
        assert!(took < 4 * ANOTHER_AFTER, "asked again elsewhere: {took:?}");
    }

    /// A broker that is cut off from its controller answers what it knows by itself, though not behind a change.
    #[tokio::test]
    async fn a_broker_that_keeps_a_change_is_asked_beside_it() {
        let fake = fake_kafka::Cluster::new(Options::default());
        let server = Server::start(&fake);
        let cluster = Cluster::new(ClusterConfig::new("c", addresses(&server)));
        let broker = cluster.controller().await.expect("a connection").broker();
        fake.fault(Fault::on(ApiKey::IncrementalAlterConfigs), Action::Hold);
        let change = TopicChanges {
            topic: "t".to_owned(),
            changes: BTreeMap::new(),
        };
        let changing = alter_topic_configs(&cluster, std::slice::from_ref(&change));
        let given_up = tokio::time::timeout(Duration::from_millis(200), changing).await;
        assert!(given_up.is_err(), "it is kept: {given_up:?}");

        let asked = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let question = denied_topics_at(&cluster, broker);
                let answer = tokio::time::timeout(Duration::from_secs(1), question).await;
                if let Ok(answer) = answer {
                    return answer;
                }
            }
        });
        let answer = asked.await.expect("the connection isn't kept for ever");
        let code = answer.err().and_then(|error| error.server_code());
        assert_eq!(
            code,
            Some(ResponseError::SecurityDisabled),
            "it has no ACLs"
        );
    }
}
