//! Commits positions on the target, and says what became of each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;

use super::context::Follow;
use super::decide::Blocked;
use super::table::Key;
use crate::state::{GroupPositions, SourceIs, StateError};
use crate::wire::{self, GroupOffset, Operation, Taken, TopicPartition, WireError};

/// How long followed groups wait for the state topic: they go on while a replica of it keeps its records
/// waiting.
pub const STORE_WITHIN: Duration = Duration::from_secs(1);

/// One position on its way to the target.
#[derive(Debug)]
pub struct Sent {
    /// The source partition.
    pub key: Key,
    /// The target partition.
    pub target: TopicPartition,
    /// The position there.
    pub offset: i64,
    /// What the group wrote beside it.
    pub metadata: Arc<str>,
    /// The position on the source.
    pub source_offset: i64,
    /// When the source's coordinator took it, milliseconds since the epoch; -1 if unknown.
    pub committed_at_ms: i64,
    /// It puts back what a real client committed on the target.
    pub restores: bool,
}

/// The positions of one group that are committed in one request.
#[derive(Debug)]
pub struct GroupCommit {
    /// The group.
    pub group: Arc<str>,
    /// Its positions.
    pub sent: Vec<Sent>,
    /// What is remembered before this commit, where that isn't known any more or was never stored.
    pub record: Option<(String, GroupPositions)>,
}

/// Why a position wasn't committed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What stands in the way.
    pub blocked: Blocked,
    /// The request may have been carried out all the same.
    pub was_sent: bool,
}

impl Failure {
    /// A failed request.
    pub fn new(blocked: Blocked, error: &WireError) -> Self {
        Self {
            blocked,
            was_sent: !matches!(
                error,
                WireError::Server { .. }
                    | WireError::NoBroker { .. }
                    | WireError::Unreachable { .. }
                    | WireError::UnsupportedVersion { .. }
            ),
        }
    }

    /// An answer that leaves out what was asked.
    pub fn unmentioned() -> Self {
        Self {
            blocked: Blocked::Failed {
                reason: "the answer doesn't mention it".into(),
            },
            was_sent: true,
        }
    }
}

/// What became of one [`GroupCommit`].
#[derive(Debug)]
pub struct Attempt {
    /// The group.
    pub group: Arc<str>,
    /// Whether the group is remembered by now.
    pub is_stored: bool,
    /// Each position's fate.
    pub results: Vec<(Sent, Result<Taken, Failure>)>,
}

/// The very first commits of these groups: without its record a group isn't committed for. Always answers
/// for every group that it was given.
pub async fn send_first(context: Arc<Follow>, commits: Vec<GroupCommit>) -> Vec<Attempt> {
    if !context.may_write_soon().await {
        return commits.into_iter().map(not_ours).collect();
    }
    match store(&context, &commits).await {
        Ok(()) => commit(&context, commits).await,
        Err(error) => commits
            .into_iter()
            .map(|commit| not_stored(commit, &error))
            .collect(),
    }
}

/// Further commits of groups that are known. They go on without a new record: only a crash within
/// seconds would leave them unknown. Always answers for every group that it was given.
pub async fn send(context: Arc<Follow>, commits: Vec<GroupCommit>) -> Vec<Attempt> {
    if !context.may_write_soon().await {
        return commits.into_iter().map(not_ours).collect();
    }
    let _ = tokio::time::timeout(STORE_WITHIN, store(&context, &commits)).await;
    commit(&context, commits).await
}

async fn commit(context: &Follow, commits: Vec<GroupCommit>) -> Vec<Attempt> {
    // This process may have stood still since it was asked before.
    if !context.may_write_soon().await {
        return commits.into_iter().map(not_ours).collect();
    }
    let asked: HashMap<String, BTreeMap<TopicPartition, GroupOffset>> = commits
        .iter()
        .map(|commit| (commit.group.to_string(), offsets(&commit.sent)))
        .collect();
    let mut answers = wire::commit_group_offsets(&context.target, &asked).await;
    commits
        .into_iter()
        .map(|commit| {
            let mut answers = answers.remove(&*commit.group).unwrap_or_default();
            let results = commit.sent.into_iter().map(|sent| {
                let result = match answers.remove(&sent.target) {
                    Some(Ok(taken)) => Ok(taken),
                    Some(Err(error)) => Err(failure(&error)),
                    None => Err(Failure::unmentioned()),
                };
                (sent, result)
            });
            Attempt {
                is_stored: true,
                results: results.collect(),
                group: commit.group,
            }
        })
        .collect()
}

/// Stores the records that are to be there before these commits.
async fn store(context: &Follow, commits: &[GroupCommit]) -> Result<(), StateError> {
    let records: Vec<(String, GroupPositions)> = commits
        .iter()
        .filter_map(|commit| commit.record.clone())
        .collect();
    context.store.put_all(&records).await
}

fn not_stored(commit: GroupCommit, error: &StateError) -> Attempt {
    not_sent(commit, &error.to_string())
}

fn not_ours(commit: GroupCommit) -> Attempt {
    let why = "this process stood still, and hasn't seen since that it still has the flow";
    not_sent(commit, why)
}

fn not_sent(commit: GroupCommit, why: &str) -> Attempt {
    let failure = Failure {
        blocked: Blocked::Failed { reason: why.into() },
        was_sent: false,
    };
    Attempt {
        is_stored: false,
        results: fail_all(commit.sent, &failure),
        group: commit.group,
    }
}

/// Leader epoch -1: the epoch of one cluster means nothing on another, and a consumer that is
/// given one checks it (KIP-320).
fn offsets(sent: &[Sent]) -> BTreeMap<TopicPartition, GroupOffset> {
    sent.iter()
        .map(|sent| {
            let offset = GroupOffset {
                offset: sent.offset,
                leader_epoch: -1,
                metadata: sent.metadata.to_string(),
            };
            (sent.target.clone(), offset)
        })
        .collect()
}

fn fail_all(sent: Vec<Sent>, failure: &Failure) -> Vec<(Sent, Result<Taken, Failure>)> {
    sent.into_iter()
        .map(|sent| (sent, Err(failure.clone())))
        .collect()
}

/// A group with members refuses commits that come from none of them: the coordinator itself keeps
/// us from moving it (`ClassicGroup.validateOffsetCommit`, `ConsumerGroup.validateOffsetCommit`).
fn failure(error: &WireError) -> Failure {
    let blocked = match error.server_code() {
        Some(
            ResponseError::UnknownMemberId
            | ResponseError::IllegalGeneration
            | ResponseError::RebalanceInProgress
            | ResponseError::FencedInstanceId
            | ResponseError::StaleMemberEpoch
            | ResponseError::FencedMemberEpoch,
        ) => Blocked::ActiveOnTarget,
        _ if wire::asks_for_patience(error) => Blocked::Throttled,
        _ => Blocked::Failed {
            reason: error.to_string().into(),
        },
    };
    Failure::new(blocked, error)
}

/// Says once that a position can't be committed.
pub fn log_failure(group: &str, partition: &TopicPartition, blocked: &Blocked) {
    match blocked {
        Blocked::Failed { reason } => {
            tracing::warn!(group, %partition, %reason, "a group's position can't be committed on the target; it is tried again");
        }
        Blocked::Throttled => {
            tracing::debug!(group, %partition, "the target has no quota for a group's commit; its newest position is committed a little later");
        }
        _ => {
            tracing::info!(group, %partition, reason = blocked.word(), "a group's position waits");
        }
    }
}

/// What became of groups that were to be deleted on the target.
#[derive(Debug, Default)]
pub struct Deletion {
    /// Those that are gone.
    pub gone: Vec<Arc<str>>,
    /// Those whose coordinator didn't answer.
    pub again: Vec<Arc<str>>,
    /// Those that stay.
    pub refused: Vec<Arc<str>>,
}

/// Why a coordinator on the target may leave out positions that a group has there, without a word: those on topics that may
/// not be described (`KafkaApis.fetchAllOffsetsForGroup`). Rights are on names and on beginnings of names, so one on a name
/// that nobody has tells the same as one on all topics.
async fn hides_positions(target: &wire::Cluster) -> Result<Option<String>, WireError> {
    let any = [super::ANY.to_owned()];
    let rights = wire::topic_rights(target, &any).await?;
    let rights = rights.get(super::ANY);
    let may_see_all = rights.is_some_and(|rights| rights.allow(Operation::Describe));
    let why = "positions on topics there that may not be described can't be seen, and would be deleted with the \
               groups: grant DESCRIBE on all topics there, or READ on __consumer_offsets";
    Ok((!may_see_all).then(|| why.to_owned()))
}

/// Deletes groups on the target. One with members stays; and where the target `is_polled` and may hide some of what groups
/// have there, all of them do.
pub async fn delete(context: Arc<Follow>, groups: Vec<Arc<str>>, is_polled: bool) -> Deletion {
    let mut deletion = Deletion::default();
    if is_polled {
        match hides_positions(&context.target).await {
            Ok(None) => {}
            Ok(Some(why)) => {
                tracing::warn!(flow = %context.flow, groups = groups.len(), "no group is deleted on the target: {why}");
                deletion.refused = groups;
                return deletion;
            }
            Err(error) => {
                tracing::debug!(flow = %context.flow, %error, "it can't be told what the target hides: no group is deleted yet");
                deletion.again = groups;
                return deletion;
            }
        }
    }
    match SourceIs::ask(&context.store, &context.flow, &context.source).await {
        Ok(Ok(SourceIs::Known)) => {}
        Ok(Ok(SourceIs::Untold { .. } | SourceIs::Other { .. } | SourceIs::BuiltAnew { .. })) => {
            tracing::warn!(flow = %context.flow, groups = groups.len(), "the source isn't known to be the cluster that the flow began with: no group is deleted for what it lacks");
            deletion.refused = groups;
            return deletion;
        }
        Ok(Err(error)) => {
            tracing::debug!(flow = %context.flow, %error, "nobody answers for the source: no group is deleted yet");
            deletion.again = groups;
            return deletion;
        }
        Err(error) => {
            tracing::warn!(flow = %context.flow, %error, "no group is deleted");
            deletion.refused = groups;
            return deletion;
        }
    }
    // What the source said before this process stood still is old, and another one may have the flow.
    if !context.may_write_soon().await {
        deletion.again = groups;
        return deletion;
    }
    let names: Vec<String> = groups.iter().map(|group| group.to_string()).collect();
    for (name, result) in wire::delete_groups(&context.target, &names).await {
        let key = crate::state::keys::group(&context.flow, &name);
        let is_unanswered = result.as_ref().is_err_and(WireError::is_retriable);
        let removed = match result {
            Ok(()) => context.store.remove(&key).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match removed {
            Ok(()) => {
                tracing::info!(group = name, "deleted on the target, as on the source");
                deletion.gone.push(name.into());
            }
            Err(error) => {
                tracing::warn!(group = name, %error, "can't be deleted on the target");
                match is_unanswered {
                    true => deletion.again.push(name.into()),
                    false => deletion.refused.push(name.into()),
                }
            }
        }
    }
    deletion
}
