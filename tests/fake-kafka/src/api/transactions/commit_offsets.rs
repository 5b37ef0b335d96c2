//! TxnOffsetCommit (`KafkaApis.handleTxnOffsetCommitRequest`,
//! `OffsetMetadataManager.commitTransactionalOffset`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::{Asked, Body, Reply, Subject, check, code, subject};
use crate::acls::{Operation, ResourceType};
use crate::api::Served;
use crate::groups::coordinator::{self, Written};
use crate::groups::offsets::At;
use crate::groups::records::{self, CoordinatorRecord, OffsetValue};
use crate::groups::{self, Producer};
use crate::state::State;
use crate::transactions;

/// The first version that knows TRANSACTION_ABORTABLE.
const KNOWS_ABORTABLE_FROM: i16 = 4;
/// The first version that puts the group into the transaction by itself (KIP-890).
const ADDS_FROM: i16 = 5;

type Errors = Vec<(At, Option<ResponseError>)>;

impl Served for TxnOffsetCommitRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        let mut about = subject(&self.transactional_id);
        about.push(Subject::Group(self.group_id.to_string()));
        about
    }

    fn refuse(&self, error: ResponseError) -> Option<TxnOffsetCommitResponse> {
        Some(answer(self, |_| Some(error)))
    }
}

fn answer(
    request: &TxnOffsetCommitRequest,
    error: impl Fn(&At) -> Option<ResponseError>,
) -> TxnOffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let at = (topic.name.to_string(), partition.partition_index);
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(error(&at)))
        });
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

fn error_of(errors: &Errors, at: &At) -> Option<ResponseError> {
    let found = errors.iter().find(|(other, _)| other == at);
    found.and_then(|(_, error)| *error)
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: TxnOffsetCommitRequest,
) -> Reply {
    let group = request.group_id.to_string();
    let allowed = check(state, asked, Operation::Write, &request.transactional_id);
    let allowed = allowed.and_then(|()| {
        let may = state.allows(asked, Operation::Read, ResourceType::Group, &group);
        may.then_some(())
            .ok_or(ResponseError::GroupAuthorizationFailed)
    });
    if let Err(error) = allowed {
        return asked.send(&answer(&request, |_| Some(error)));
    }
    let (records, errors) = sorted(state, asked, &request, &group);
    if records.is_empty() {
        return asked.send(&answer(&request, |at| error_of(&errors, at)));
    }
    let written = match commit(state, asked, &request, &group, &records) {
        Ok(written) => written,
        Err(error) => {
            let error = Some(error);
            return asked.send(&answer(&request, |at| error_of(&errors, at).or(error)));
        }
    };
    let version = asked.api_version;
    Reply::Wait {
        until_ms: state.now_ms + state.groups.settings.commit_timeout_ms,
        ready: Box::new(move |state, timed_out| {
            let failed = match &written {
                Some(written) => coordinator::outcome(state, written, timed_out)?.err(),
                None => None,
            };
            let answer = answer(&request, |at| error_of(&errors, at).or(failed));
            Some(Body::of(&answer, version))
        }),
    }
}

/// The records of what may be committed, and what is wrong with the rest.
fn sorted(
    state: &State,
    asked: &Asked<'_>,
    request: &TxnOffsetCommitRequest,
    group: &str,
) -> (Vec<CoordinatorRecord>, Errors) {
    let committed_at_ms = state.clock_ms(asked.broker);
    let mut records = Vec::new();
    let mut errors = Errors::new();
    for topic in &request.topics {
        let may = state.allows(asked, Operation::Read, ResourceType::Topic, &topic.name);
        let known = state.topics.get(topic.name.as_str());
        for partition in &topic.partitions {
            let number = partition.partition_index;
            let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
            let exists = known.is_some_and(|topic| topic.partitions.contains_key(&number));
            let error = if !may {
                Some(ResponseError::TopicAuthorizationFailed)
            } else if !exists {
                Some(ResponseError::UnknownTopicOrPartition)
            } else if metadata.encode_utf16().count() > state.groups.settings.offset_metadata_max {
                Some(ResponseError::OffsetMetadataTooLarge)
            } else {
                let value = OffsetValue {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: metadata.to_owned(),
                    committed_at_ms,
                    expires_at_ms: None,
                    topic_id: None,
                };
                records.push(records::offset(group, &topic.name, number, &value));
                None
            };
            errors.push(((topic.name.to_string(), number), error));
        }
    }
    (records, errors)
}

fn commit(
    state: &mut State,
    asked: &Asked<'_>,
    request: &TxnOffsetCommitRequest,
    group: &str,
    records: &[CoordinatorRecord],
) -> Result<Option<Written>, ResponseError> {
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let partition = coordinator::partition_of(state, group)?;
    verify(state, asked, request, partition)?;
    let (checked, _) =
        coordinator::on_shard(state, asked.broker, partition, |shard, _| {
            match shard.groups.get(group) {
                Some(group) => group.check_commit(
                    &request.member_id,
                    request.group_instance_id.as_deref(),
                    request.generation_id,
                    true,
                ),
                None if request.generation_id < 0 => Ok(()),
                None => Err(ResponseError::IllegalGeneration),
            }
        })?;
    checked?;
    let producer = Producer {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    coordinator::append_transactional(state, asked.broker, partition, records, producer)
}

/// The coordinator of the transaction must have the offsets' partition in it, as that of any other
/// record (`CoordinatorRuntime.scheduleTransactionalWriteOperation`).
fn verify(
    state: &mut State,
    asked: &Asked<'_>,
    request: &TxnOffsetCommitRequest,
    partition: i32,
) -> Result<(), ResponseError> {
    let producer = (request.producer_id.0, request.producer_epoch);
    let at = (groups::TOPIC.to_owned(), partition);
    let id = &request.transactional_id;
    let verified = match asked.api_version >= ADDS_FROM {
        true => transactions::add_for_broker(state, id, producer, at),
        false => transactions::verify(state, id, producer, &at),
    };
    verified.map_err(|error| match error {
        ResponseError::TransactionAbortable if asked.api_version < KNOWS_ABORTABLE_FROM => {
            ResponseError::InvalidTxnState
        }
        other => other,
    })
}
