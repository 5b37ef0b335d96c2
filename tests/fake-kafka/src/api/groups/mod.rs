//! The APIs of groups (`KafkaApis`, `GroupCoordinatorService`).

pub(super) mod commit;
pub(super) mod delete;
pub(super) mod describe;
pub(super) mod fetch;
pub(super) mod find;
pub(super) mod heartbeat;
pub(super) mod join;
pub(super) mod leave;
pub(super) mod list;
pub(super) mod offset_delete;
pub(super) mod share;
pub(super) mod sync;

use kafka_protocol::ResponseError;

use super::{Asked, Body, Reply, Subject, text};
use crate::acls::{Operation, ResourceType};
use crate::groups::classic::Ticket;
use crate::groups::coordinator::{self, Written};
use crate::state::State;

fn group(name: impl Into<String>) -> Vec<Subject> {
    vec![Subject::Group(name.into())]
}

fn code(error: Option<ResponseError>) -> i16 {
    error.map_or(0, |error| error.code())
}

/// Whether whoever asks may do this with the group.
fn check(
    state: &State,
    asked: &Asked<'_>,
    operation: Operation,
    group: &str,
) -> Result<(), ResponseError> {
    match state.allows(asked, operation, ResourceType::Group, group) {
        true => Ok(()),
        false => Err(ResponseError::GroupAuthorizationFailed),
    }
}

/// Whether whoever asks may do this with the topic.
fn may_topic(state: &State, asked: &Asked<'_>, operation: Operation, topic: &str) -> bool {
    state.allows(asked, operation, ResourceType::Topic, topic)
}

/// A request that waits for other members, and who was asked.
struct Waits {
    ticket: Ticket,
    partition: i32,
    reign: Option<(i32, i32)>,
}

impl Waits {
    /// Whether another coordinator has taken over: it knows nothing of this request.
    fn is_over(&self, state: &State) -> bool {
        coordinator::reign(state, self.partition) != self.reign
    }
}

/// What a broker says of a partition that isn't there (`MetadataCache.getPartitionInfo`).
fn check_exists(state: &State, topic: &str, partition: i32) -> Result<(), ResponseError> {
    let topic = state.topics.get(topic);
    match topic.is_some_and(|topic| topic.partitions.contains_key(&partition)) {
        true => Ok(()),
        false => Err(ResponseError::UnknownTopicOrPartition),
    }
}

/// Answers once everything that was written is replicated, at the latest when the coordinators
/// give up on that.
fn once_replicated(
    state: &State,
    written: Vec<Written>,
    answer: impl Fn(Option<ResponseError>) -> Body + Send + 'static,
) -> Reply {
    Reply::Wait {
        until_ms: state.now_ms + state.groups.settings.commit_timeout_ms,
        ready: Box::new(move |state, timed_out| {
            let mut error = None;
            for one in &written {
                match coordinator::outcome(state, one, timed_out)? {
                    Ok(()) => {}
                    Err(failed) => error = Some(failed),
                }
            }
            Some(answer(error))
        }),
    }
}
