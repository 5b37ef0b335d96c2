//! Who coordinates a group, and asking them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::protocol::Request;

use super::list::OFFSETS_TOPIC;
use crate::wire::calls::partition::text;
use crate::wire::calls::retry::{BUDGET, ask_anyone, retry};
use crate::wire::versions::api_name;
use crate::wire::{Cluster, ErrorContext, Metadata, Role, WireError};

/// The partition of `__consumer_offsets` that holds a group, of so many: its leader coordinates the
/// group (`GroupCoordinatorService.partitionFor`; Java's hash of the name, `Utils.abs` of it).
pub fn coordinator_partition(group: &str, count: i32) -> i32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    hash.checked_abs().unwrap_or(0) % count.max(1)
}

/// The broker that coordinates a group, by what is known of the coordinators' topic.
pub fn coordinator_by(metadata: &Metadata, group: &str) -> Option<i32> {
    let count = metadata.topics.get(OFFSETS_TOPIC)?.partitions.len();
    let partition = coordinator_partition(group, i32::try_from(count).unwrap_or(i32::MAX));
    metadata
        .leader(OFFSETS_TOPIC, partition)
        .map(|(broker, _)| broker)
}

/// Groups by the broker that coordinates them, as far as the metadata that is known of the coordinators' topic tells.
/// These are asked first: a broker that hangs then keeps nobody else's groups from being found.
pub fn by_coordinator(
    cluster: &Cluster,
    groups: impl IntoIterator<Item = String>,
) -> BTreeMap<Option<i32>, Vec<String>> {
    let metadata = cluster.cached();
    let mut found: BTreeMap<Option<i32>, Vec<String>> = BTreeMap::new();
    for group in groups {
        let broker = coordinator_by(&metadata, &group);
        if let Some(broker) = broker {
            cluster.set_coordinator(&group, broker);
        }
        found.entry(broker).or_default().push(group);
    }
    found
}

/// The first version that asks about many groups at once (KIP-699, Kafka 3.0).
const FIND_VERSION_MIN: i16 = 4;
/// The next one is about share groups.
const FIND_VERSION_MAX: i16 = 5;
/// Groups in one request.
const FIND_AT_ONCE: usize = 1_000;

/// What a coordinator said about each group.
pub(super) type Answers<T> = Vec<(String, Result<T, i16>)>;

/// Reads an answer, given the groups that were asked about.
type ReadAnswer<'a, R, T> =
    dyn Fn(&[String], <R as Request>::Response) -> Answers<T> + Send + Sync + 'a;

/// One question about many groups.
pub(super) struct Question<'a, R: Request, T> {
    pub(super) cluster: &'a Cluster,
    pub(super) groups: Vec<String>,
    /// Groups in one request.
    pub(super) at_once: usize,
    pub(super) version_max: i16,
    pub(super) request: &'a (dyn Fn(&[String]) -> R + Send + Sync),
    pub(super) answers: &'a ReadAnswer<'a, R, T>,
    /// Whether it may be asked again after a broken connection, when it may have been answered.
    pub(super) may_repeat: bool,
}

impl<R: Request, T> Question<'_, R, T> {
    /// Asks each group's coordinator, all of them at once, again while coordinators move. The
    /// result has an entry for each group.
    pub(super) async fn ask(mut self) -> HashMap<String, Result<T, WireError>> {
        let mut done = HashMap::with_capacity(self.groups.len());
        let mut retry = retry(BUDGET);
        loop {
            let mut failed = self.round(&mut done).await;
            let groups = std::mem::take(&mut self.groups);
            for group in groups {
                if done.contains_key(&group) {
                    continue;
                }
                let error = failed
                    .remove(&group)
                    .unwrap_or_else(|| self.missing(&group));
                if self.worth_asking_again(&error) {
                    self.cluster.forget_coordinator(&group);
                    failed.insert(group.clone(), error);
                    self.groups.push(group);
                } else {
                    done.insert(group, Err(error));
                }
            }
            if self.groups.is_empty() {
                return done;
            }
            if !retry.pause().await {
                done.extend(failed.into_iter().map(|(group, error)| (group, Err(error))));
                return done;
            }
        }
    }

    fn worth_asking_again(&self, error: &WireError) -> bool {
        match error {
            WireError::Server { code, .. } => is_about_coordinator(*code),
            WireError::NoBroker { .. } | WireError::Unreachable { .. } => true,
            _ => self.may_repeat && error.is_transport(),
        }
    }

    /// One round: values go to `done`, errors are returned.
    async fn round(
        &self,
        done: &mut HashMap<String, Result<T, WireError>>,
    ) -> HashMap<String, WireError> {
        let mut failed = HashMap::new();
        if let Err(error) = find(self.cluster, &self.groups, &mut failed).await {
            let all = self.groups.iter();
            return all.map(|group| (group.clone(), error.clone())).collect();
        }
        let mut brokers: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for group in &self.groups {
            if let Some(broker) = self.cluster.coordinator(group) {
                brokers.entry(broker).or_default().push(group.clone());
            }
        }
        let mut pending = Vec::new();
        for (broker, groups) in brokers {
            let connection = self.cluster.connection(broker, Role::Coordinator).await;
            for asked in groups.chunks(self.at_once) {
                let started = match &connection {
                    Ok(connection) => connection.start(&(self.request)(asked), self.version_max),
                    // Nothing was sent: safe to try elsewhere, whatever the question.
                    Err(error) => Err(unreachable(error)),
                };
                pending.push((asked.to_vec(), started));
            }
        }
        for (asked, started) in pending {
            let answer = match started {
                Ok(answer) => answer.await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(response) => {
                    let known: HashSet<&String> = asked.iter().collect();
                    for (group, outcome) in (self.answers)(&asked, response) {
                        if !known.contains(&group) {
                            continue;
                        }
                        match outcome {
                            Ok(value) => {
                                done.insert(group, Ok(value));
                            }
                            Err(code) => {
                                let error = server::<R>(self.cluster, &group, code);
                                failed.insert(group, error);
                            }
                        }
                    }
                }
                Err(error) => {
                    let error = error.about(api_name::<R>(), None);
                    failed.extend(asked.into_iter().map(|group| (group, error.clone())));
                }
            }
        }
        failed
    }

    fn missing(&self, group: &str) -> WireError {
        WireError::Decode {
            context: Arc::new(context::<R>(self.cluster, group)),
            detail: "the answer doesn't mention it".to_owned(),
        }
    }
}

/// Before anything was sent, a failed connection is nobody to ask.
fn unreachable(error: &WireError) -> WireError {
    if !error.is_transport() {
        return error.clone();
    }
    WireError::Unreachable {
        context: Arc::new(error.context().clone()),
        attempts: 1,
        last: Box::new(error.clone()),
    }
}

/// Whether another broker may be the coordinator, or the same one a moment later.
pub(super) fn is_about_coordinator(code: ResponseError) -> bool {
    matches!(
        code,
        ResponseError::NotCoordinator
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::CoordinatorLoadInProgress
    )
}

fn context<R: Request>(cluster: &Cluster, group: &str) -> ErrorContext {
    ErrorContext {
        api: Some(api_name::<R>()),
        subject: Some(format!("group {group}")),
        ..ErrorContext::cluster(cluster.name())
    }
}

/// A coordinator's error code as an error.
pub(super) fn server<R: Request>(cluster: &Cluster, group: &str, code: i16) -> WireError {
    let code = ResponseError::try_from_code(code).unwrap_or(ResponseError::UnknownServerError);
    WireError::server(context::<R>(cluster, group), code, None)
}

/// Finds the coordinators that aren't known. What a broker said about single groups goes to
/// `failed`.
async fn find(
    cluster: &Cluster,
    groups: &[String],
    failed: &mut HashMap<String, WireError>,
) -> Result<(), WireError> {
    let unknown: Vec<String> = groups
        .iter()
        .filter(|group| cluster.coordinator(group).is_none())
        .cloned()
        .collect();
    for asked in unknown.chunks(FIND_AT_ONCE) {
        let response = ask_anyone(cluster, BUDGET, |connection| async move {
            connection
                .version_at_least::<FindCoordinatorRequest>(FIND_VERSION_MIN, FIND_VERSION_MAX)?;
            let keys = asked.iter().map(|group| text(group)).collect();
            let request = FindCoordinatorRequest::default()
                .with_key_type(0)
                .with_coordinator_keys(keys);
            connection.call(request, FIND_VERSION_MAX).await
        })
        .await?;
        for found in response.coordinators {
            let group = found.key.to_string();
            if found.error_code == 0 {
                cluster.set_coordinator(&group, found.node_id.0);
            } else {
                let error = server::<FindCoordinatorRequest>(cluster, &group, found.error_code);
                failed.insert(group, error);
            }
        }
    }
    Ok(())
}
