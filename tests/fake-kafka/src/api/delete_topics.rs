//! DeleteTopics, by name and by id (`ControllerApis.deleteTopics`).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use uuid::Uuid;

use super::{Asked, Reply, Served, Subject, text};
use crate::acls::Operation;
use crate::state::State;

impl Served for DeleteTopicsRequest {
    fn about(&self, state: &State) -> Vec<Subject> {
        let wanted = wanted(self).into_iter();
        wanted
            .filter_map(|(name, id)| name_of(state, name, id))
            .map(Subject::Topic)
            .collect()
    }
}

/// Each topic by name or by id.
fn wanted(request: &DeleteTopicsRequest) -> Vec<(Option<String>, Uuid)> {
    let names = request
        .topic_names
        .iter()
        .map(|name| (Some(name.to_string()), Uuid::nil()));
    let states = request.topics.iter().map(|topic| {
        (
            topic.name.as_ref().map(|name| name.to_string()),
            topic.topic_id,
        )
    });
    names.chain(states).collect()
}

fn name_of(state: &State, name: Option<String>, id: Uuid) -> Option<String> {
    name.or_else(|| state.topic_name(id).map(str::to_owned))
}

pub(crate) fn handle(state: &mut State, asked: &Asked<'_>, request: DeleteTopicsRequest) -> Reply {
    let mut results = Vec::new();
    for (name, id) in wanted(&request) {
        results.push(delete(state, asked, name, id));
    }
    asked.send(&DeleteTopicsResponse::default().with_responses(results))
}

fn delete(
    state: &mut State,
    asked: &Asked<'_>,
    name: Option<String>,
    id: Uuid,
) -> DeletableTopicResult {
    let by_id = name.is_none();
    let Some(name) = name_of(state, name, id) else {
        return failed(ResponseError::UnknownTopicId).with_topic_id(id);
    };
    let named = |result: DeletableTopicResult, id| {
        result
            .with_name(Some(TopicName(text(&name))))
            .with_topic_id(id)
    };
    if let Some(error) = asked.refused_topic(&name) {
        return named(failed(error), id);
    }
    if !state.allows_on_cluster(asked, Operation::Delete)
        && let Err(error) = state.check_topic(asked, Operation::Delete, &name)
    {
        let may_see = state.check_topic(asked, Operation::Describe, &name).is_ok();
        return match by_id && !may_see {
            true => failed(error).with_topic_id(id),
            false => named(failed(error), id),
        };
    }
    let Some(topic) = state.topics.get(&name) else {
        let error = if by_id {
            ResponseError::UnknownTopicId
        } else {
            ResponseError::UnknownTopicOrPartition
        };
        return named(failed(error), id);
    };
    let id = topic.id;
    state.delete_topic(&name);
    named(DeletableTopicResult::default(), id)
}

fn failed(error: ResponseError) -> DeletableTopicResult {
    DeletableTopicResult::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(error.to_string())))
}
