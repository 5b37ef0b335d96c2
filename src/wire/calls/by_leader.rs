//! One question about many partitions, each asked of its leader.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::Request;
use tokio::task::JoinSet;

use super::partition::TopicPartition;
use super::retry::{BUDGET, retry, worth_asking_again};
use crate::tasks::brought;
use crate::wire::versions::api_name;
use crate::wire::{Cluster, Connection, ErrorContext, RawAnswer, Role, WireError};

/// What a broker said about each partition: the value, or an error code with its explanation.
pub(super) type Answers<T> = Vec<(TopicPartition, Result<T, (i16, Option<String>)>)>;

/// A partition to ask about, and the leader epoch that we know for it.
pub(super) struct Asked<'a> {
    pub(super) partition: &'a TopicPartition,
    pub(super) leader_epoch: i32,
}

/// Asks the leader of each partition, all leaders at once, until every partition has an answer or a
/// lasting error. The result has an entry for each of `partitions`.
pub(super) async fn ask_leaders<R, T>(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    version_max: i16,
    request: impl Fn(&[Asked<'_>]) -> R,
    answers: impl Fn(R::Response) -> Answers<T>,
) -> HashMap<TopicPartition, Result<T, WireError>>
where
    R: Request,
{
    let read = |connection: &Connection, answer| connection.decode::<R>(answer).map(&answers);
    ask_leaders_undecoded(
        cluster,
        partitions,
        version_max,
        request,
        read,
        worth_asking_again,
    )
    .await
}

/// The same, where an answer is read as it came, and a failure is asked about again where it is `worth` it.
pub(super) async fn ask_leaders_undecoded<R, T>(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    version_max: i16,
    request: impl Fn(&[Asked<'_>]) -> R,
    read: impl Fn(&Connection, RawAnswer) -> Result<Answers<T>, WireError>,
    worth: impl Fn(&WireError, Duration) -> bool,
) -> HashMap<TopicPartition, Result<T, WireError>>
where
    R: Request,
{
    let mut done = HashMap::with_capacity(partitions.len());
    let mut open: BTreeSet<TopicPartition> = partitions.iter().cloned().collect();
    let mut retry = retry(BUDGET);
    let mut stale = open
        .iter()
        .any(|p| cluster.cached().leader(&p.topic, p.partition).is_none());
    loop {
        if stale {
            let topics: BTreeSet<&String> = open.iter().map(|p| &p.topic).collect();
            let topics: Vec<String> = topics.into_iter().cloned().collect();
            if let Err(error) = cluster.metadata(Some(&topics)).await
                && !error.is_retriable()
            {
                done.extend(open.into_iter().map(|p| (p, Err(error.clone()))));
                return done;
            }
        }
        let mut failed =
            one_round::<R, T>(cluster, &open, version_max, &request, &read, &mut done).await;
        // A broker that forgot to mention a partition didn't answer for it.
        for partition in &open {
            if !done.contains_key(partition) && !failed.contains_key(partition) {
                let context = context::<R>(cluster, None, partition);
                let detail = "the answer doesn't mention it".to_owned();
                failed.insert(
                    partition.clone(),
                    WireError::Decode {
                        context: Arc::new(context),
                        detail,
                    },
                );
            }
        }
        let elapsed = retry.elapsed();
        open.clear();
        for (partition, error) in &failed {
            if worth(error, elapsed) {
                open.insert(partition.clone());
            } else {
                done.insert(partition.clone(), Err(error.clone()));
            }
        }
        if open.is_empty() {
            return done;
        }
        if !retry.pause().await {
            done.extend(
                failed
                    .into_iter()
                    .filter(|(p, _)| open.contains(p))
                    .map(|(p, e)| (p, Err(e))),
            );
            return done;
        }
        stale = true;
    }
}

/// Asks each leader apart, so that one holds up the partitions of nobody else, and may itself take
/// `patience`, or longer where the line needs it. Partitions without a leader aren't asked for.
pub(super) async fn ask_apart<R, T, F>(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    patience: Duration,
    question: impl Fn(Cluster, Vec<TopicPartition>) -> F,
) -> HashMap<TopicPartition, Result<T, WireError>>
where
    R: Request,
    T: Send + 'static,
    F: Future<Output = HashMap<TopicPartition, Result<T, WireError>>> + Send + 'static,
{
    let metadata = cluster.cached();
    let patience = cluster.or_longer(patience);
    let mut answers = HashMap::with_capacity(partitions.len());
    let mut by_broker: HashMap<i32, Vec<TopicPartition>> = HashMap::new();
    for partition in partitions {
        match metadata.leader(&partition.topic, partition.partition) {
            Some((broker, _)) => by_broker.entry(broker).or_default().push(partition.clone()),
            None => {
                let error = no_leader::<R>(cluster, partition);
                answers.insert(partition.clone(), Err(error));
            }
        }
    }
    let mut tasks = JoinSet::new();
    for (broker, asked) in by_broker {
        let asking = question(cluster.clone(), asked.clone());
        let cluster = cluster.clone();
        tasks.spawn(async move {
            match tokio::time::timeout(patience, asking).await {
                Ok(answers) => answers,
                Err(_) => {
                    let late = |partition| late::<R, T>(&cluster, broker, partition, patience);
                    asked.into_iter().map(late).collect()
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        answers.extend(brought(done));
    }
    answers
}

fn late<R: Request, T>(
    cluster: &Cluster,
    broker: i32,
    partition: TopicPartition,
    after: Duration,
) -> (TopicPartition, Result<T, WireError>) {
    let context = Arc::new(context::<R>(cluster, Some(broker), &partition));
    (partition, Err(WireError::Timeout { context, after }))
}

/// Asks each leader once. Values go to `done`, errors are returned.
async fn one_round<R: Request, T>(
    cluster: &Cluster,
    open: &BTreeSet<TopicPartition>,
    version_max: i16,
    request: &impl Fn(&[Asked<'_>]) -> R,
    read: &impl Fn(&Connection, RawAnswer) -> Result<Answers<T>, WireError>,
    done: &mut HashMap<TopicPartition, Result<T, WireError>>,
) -> BTreeMap<TopicPartition, WireError> {
    let metadata = cluster.cached();
    let mut failed = BTreeMap::new();
    let mut leaders: BTreeMap<i32, Vec<Asked<'_>>> = BTreeMap::new();
    for partition in open {
        match metadata.leader(&partition.topic, partition.partition) {
            Some((leader, leader_epoch)) => {
                leaders.entry(leader).or_default().push(Asked {
                    partition,
                    leader_epoch,
                });
            }
            None => {
                failed.insert(partition.clone(), no_leader::<R>(cluster, partition));
            }
        }
    }
    // First everyone is asked, then everyone is listened to: brokers work at the same time.
    let mut pending = Vec::with_capacity(leaders.len());
    for (leader, asked) in leaders {
        let started = match cluster.connection(leader, Role::Admin).await {
            Ok(connection) => connection
                .start_undecoded(&request(&asked), version_max)
                .map(|answer| (connection, answer)),
            Err(error) => Err(error),
        };
        match started {
            Ok(answer) => pending.push((leader, asked, answer)),
            Err(error) => {
                failed.extend(
                    asked
                        .iter()
                        .map(|a| (a.partition.clone(), about::<R>(&error, a))),
                );
            }
        }
    }
    for (leader, asked, (connection, answer)) in pending {
        let answer = answer.await;
        match answer.and_then(|answer| read(&connection, answer)) {
            Ok(answers) => {
                for (partition, outcome) in answers {
                    if !open.contains(&partition) {
                        continue;
                    }
                    match outcome {
                        Ok(value) => {
                            done.insert(partition, Ok(value));
                        }
                        Err((code, message)) => {
                            let code = ResponseError::try_from_code(code)
                                .unwrap_or(ResponseError::UnknownServerError);
                            let context = context::<R>(cluster, Some(leader), &partition);
                            failed.insert(partition, WireError::server(context, code, message));
                        }
                    }
                }
            }
            Err(error) => {
                failed.extend(
                    asked
                        .iter()
                        .map(|a| (a.partition.clone(), about::<R>(&error, a))),
                );
            }
        }
    }
    failed
}

fn about<R: Request>(error: &WireError, asked: &Asked<'_>) -> WireError {
    error
        .clone()
        .about(api_name::<R>(), Some(asked.partition.to_string()))
}

fn context<R: Request>(
    cluster: &Cluster,
    broker: Option<i32>,
    partition: &TopicPartition,
) -> ErrorContext {
    ErrorContext {
        broker,
        api: Some(api_name::<R>()),
        subject: Some(partition.to_string()),
        ..ErrorContext::cluster(cluster.name())
    }
}

/// Why there is nobody to ask: the topic's or the partition's own error if it has one.
pub(super) fn no_leader<R: Request>(cluster: &Cluster, partition: &TopicPartition) -> WireError {
    let metadata = cluster.cached();
    let context = context::<R>(cluster, None, partition);
    if let Some(code) = metadata.error_of(&partition.topic) {
        return WireError::server(context, code, None);
    }
    let Some(topic) = metadata.topics.get(&partition.topic) else {
        let detail = "nothing is known about the topic".to_owned();
        return WireError::NoBroker {
            context: Arc::new(context),
            detail,
        };
    };
    let described = topic
        .partitions
        .iter()
        .find(|p| p.index == partition.partition);
    let code = match described {
        Some(described) => described.error.unwrap_or(ResponseError::LeaderNotAvailable),
        None => ResponseError::UnknownTopicOrPartition,
    };
    WireError::server(context, code, None)
}

/// The one outcome of a question about a single partition.
pub(super) async fn ask_leader<R, T>(
    cluster: &Cluster,
    partition: &TopicPartition,
    version_max: i16,
    request: impl Fn(&[Asked<'_>]) -> R,
    answers: impl Fn(R::Response) -> Answers<T>,
) -> Result<T, WireError>
where
    R: Request,
{
    let asked = std::slice::from_ref(partition);
    ask_leaders(cluster, asked, version_max, request, answers)
        .await
        .remove(partition)
        .unwrap_or_else(|| Err(no_leader::<R>(cluster, partition)))
}

#[cfg(test)]
mod tests {
    use fake_kafka::faults::{Action, Fault};
    use fake_kafka::state::Options;
    use fake_kafka::tcp::Server;
    use fake_kafka::topics::NewTopic;

    use super::*;
    use crate::wire::ClusterConfig;
    use crate::wire::calls::{OffsetSpec, list_offsets_within};

    /// A cluster of one broker with a topic, so far away that each question takes so long.
    async fn far(each_ms: i64) -> (fake_kafka::Cluster, Server, Cluster) {
        let fake = fake_kafka::Cluster::new(Options::default());
        let server = Server::start(&fake);
        let new = NewTopic {
            partitions: 1,
            replication: 1,
            ..NewTopic::default()
        };
        let made = fake.control(|state| state.create_topic("t", &new));
        made.expect("it can be made");
        fake.fault(Fault::on_anything(), Action::AnswerLate(each_ms));
        let config = ClusterConfig::new("far", vec![server.bootstrap()]);
        let cluster = Cluster::new(config);
        cluster.metadata(None).await.expect("an answer");
        (fake, server, cluster)
    }

    #[tokio::test]
    async fn a_far_leader_has_the_time_that_its_line_needs() {
        let (_fake, _server, cluster) = far(150).await;
        let at = [TopicPartition::new("t", 0)];
        let soon = Duration::from_millis(100);
        // A machine that stands still keeps one waiting, and not all.
        for left in (0..5).rev() {
            let told = list_offsets_within(&cluster, &at, OffsetSpec::Latest, soon).await;
            if told.values().all(Result::is_ok) {
                break;
            }
            assert!(left > 0, "{told:?}");
        }
    }
}
