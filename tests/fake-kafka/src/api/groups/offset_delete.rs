//! OffsetDelete (`KafkaApis.handleOffsetDeleteRequest`, `OffsetMetadataManager.deleteOffsets`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::{
    Asked, Body, Reply, Subject, check, check_exists, code, group, may_topic, once_replicated,
};
use crate::acls::Operation;
use crate::api::Served;
use crate::groups::classic::Step;
use crate::groups::coordinator::{self, Shard};
use crate::groups::offsets::At;
use crate::groups::records;
use crate::state::State;

impl Served for OffsetDeleteRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        group(self.group_id.to_string())
    }

    fn refuse(&self, error: ResponseError) -> Option<OffsetDeleteResponse> {
        Some(OffsetDeleteResponse::default().with_error_code(error.code()))
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: OffsetDeleteRequest,
) -> Reply {
    let group = request.group_id.to_string();
    let refused = |error: ResponseError| {
        asked.send(&OffsetDeleteResponse::default().with_error_code(error.code()))
    };
    if let Err(error) = check(state, asked, Operation::Delete, &group) {
        return refused(error);
    }
    let mut results: Vec<(At, Option<ResponseError>)> = Vec::new();
    for topic in &request.topics {
        let may = may_topic(state, asked, Operation::Read, &topic.name);
        for partition in &topic.partitions {
            let at: At = (topic.name.to_string(), partition.partition_index);
            let error = match check_exists(state, &at.0, at.1) {
                _ if !may => Some(ResponseError::TopicAuthorizationFailed),
                Err(error) => Some(error),
                Ok(()) => None,
            };
            results.push((at, error));
        }
    }
    let deleted = coordinator::partition_of(state, &group).and_then(|partition| {
        coordinator::on_shard(state, asked.broker, partition, |shard, step| {
            delete(shard, &group, &mut results, step)
        })
    });
    let written = match deleted {
        Ok((Ok(()), written)) => written,
        Ok((Err(error), _)) | Err(error) => return refused(error),
    };
    let version = asked.api_version;
    once_replicated(state, written.into_iter().collect(), move |failed| {
        let topics = request.topics.iter().map(|topic| {
            let of_topic = results
                .iter()
                .filter(|((name, _), _)| name.as_str() == topic.name.as_str());
            let partitions = of_topic.map(|((_, number), error)| {
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(*number)
                    .with_error_code(code(error.or(failed)))
            });
            OffsetDeleteResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        let answer = OffsetDeleteResponse::default().with_topics(topics.collect());
        Body::of(&answer, version)
    })
}

fn delete(
    shard: &Shard,
    id: &str,
    results: &mut [(At, Option<ResponseError>)],
    step: &mut Step<'_>,
) -> Result<(), ResponseError> {
    let group = shard.groups.get(id).ok_or(ResponseError::GroupIdNotFound)?;
    group.check_offset_delete()?;
    for (at, error) in results.iter_mut().filter(|(_, error)| error.is_none()) {
        if group.is_subscribed_to(&at.0) {
            *error = Some(ResponseError::GroupSubscribedToTopic);
        } else if shard.offsets.get(id, at).is_some() || shard.offsets.is_pending(id, at) {
            step.records
                .push(records::offset_tombstone(id, &at.0, at.1));
        }
    }
    Ok(())
}
