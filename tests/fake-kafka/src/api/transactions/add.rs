//! AddPartitionsToTxn and AddOffsetsToTxn. Only brokers ask in later versions than these.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
};

use super::{Asked, Reply, Subject, check, code, code_of, subject};
use crate::acls::{Operation, ResourceType};
use crate::api::Served;
use crate::groups::{self, coordinator};
use crate::state::State;
use crate::transactions::{self, At};

impl Served for AddPartitionsToTxnRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        subject(&self.v3_and_below_transactional_id)
    }

    fn refuse(&self, error: ResponseError) -> Option<AddPartitionsToTxnResponse> {
        Some(answer(self, |_| error.code()))
    }
}

impl Served for AddOffsetsToTxnRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        let group = Subject::Group(self.group_id.to_string());
        let mut about = subject(&self.transactional_id);
        about.push(group);
        about
    }

    fn refuse(&self, error: ResponseError) -> Option<AddOffsetsToTxnResponse> {
        Some(AddOffsetsToTxnResponse::default().with_error_code(error.code()))
    }
}

fn partitions(request: &AddPartitionsToTxnRequest) -> impl Iterator<Item = At> {
    let topics = request.v3_and_below_topics.iter();
    topics.flat_map(|topic| {
        let numbers = topic.partitions.iter();
        numbers.map(|number| (topic.name.to_string(), *number))
    })
}

fn answer(
    request: &AddPartitionsToTxnRequest,
    code: impl Fn(&At) -> i16,
) -> AddPartitionsToTxnResponse {
    let topics = request.v3_and_below_topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|number| {
            let at = (topic.name.to_string(), *number);
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*number)
                .with_partition_error_code(code(&at))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics.collect())
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: AddPartitionsToTxnRequest,
) -> Reply {
    let id = request.v3_and_below_transactional_id.to_string();
    if let Err(error) = check(state, asked, Operation::Write, &id) {
        return asked.send(&answer(&request, |_| error.code()));
    }
    let wrong = |at: &At| wrong_with(state, asked, at);
    if partitions(&request).any(|at| wrong(&at).is_some()) {
        // One bad partition, and none is added.
        let answer = answer(&request, |at| {
            let error = wrong(at).unwrap_or(ResponseError::OperationNotAttempted);
            error.code()
        });
        return asked.send(&answer);
    }
    let producer = (
        request.v3_and_below_producer_id.0,
        request.v3_and_below_producer_epoch,
    );
    let added = transactions::add(state, asked.broker, &id, producer, partitions(&request));
    let code = code_of(&added, asked.api_version);
    asked.send(&answer(&request, |_| code))
}

fn wrong_with(state: &State, asked: &Asked<'_>, (topic, number): &At) -> Option<ResponseError> {
    let found = state.topics.get(topic);
    let is_internal = found.is_some_and(|topic| topic.internal);
    if is_internal || !state.allows(asked, Operation::Write, ResourceType::Topic, topic) {
        return Some(ResponseError::TopicAuthorizationFailed);
    }
    let exists = found.is_some_and(|topic| topic.partitions.contains_key(number));
    (!exists).then_some(ResponseError::UnknownTopicOrPartition)
}

pub(in crate::api) fn handle_offsets(
    state: &mut State,
    asked: &Asked<'_>,
    request: AddOffsetsToTxnRequest,
) -> Reply {
    let added = add_offsets(state, asked, &request);
    let code = match &added {
        // Not a matter of the producer, so not translated.
        Err(error @ ResponseError::GroupAuthorizationFailed) => code(Some(*error)),
        other => code_of(other, asked.api_version),
    };
    asked.send(&AddOffsetsToTxnResponse::default().with_error_code(code))
}

fn add_offsets(
    state: &mut State,
    asked: &Asked<'_>,
    request: &AddOffsetsToTxnRequest,
) -> Result<(), ResponseError> {
    let (id, group) = (&request.transactional_id, &request.group_id);
    check(state, asked, Operation::Write, id)?;
    if !state.allows(asked, Operation::Read, ResourceType::Group, group) {
        return Err(ResponseError::GroupAuthorizationFailed);
    }
    // Before the topic is there, a broker counts on its configuration.
    let count = coordinator::partitions(state).unwrap_or(state.groups.settings.topic_partitions);
    let number = coordinator::partition_for(group, count);
    let producer = (request.producer_id.0, request.producer_epoch);
    let at = (groups::TOPIC.to_owned(), number);
    transactions::add(state, asked.broker, id, producer, [at])
}
