//! OffsetCommit (`KafkaApis.handleOffsetCommitRequest`, `OffsetMetadataManager.commitOffset`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::{
    Asked, Body, Reply, Subject, check, check_exists, code, group, may_topic, once_replicated,
};
use crate::acls::Operation;
use crate::api::Served;
use crate::groups::classic::Step;
use crate::groups::coordinator::{self, Shard};
use crate::groups::records::{self, OffsetValue};
use crate::state::State;

/// From here on a group that isn't there is called so; before, its generation is called wrong.
const NAMES_MISSING_GROUP_FROM: i16 = 9;

impl Served for OffsetCommitRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        let topics = self.topics.iter();
        let topics = topics.map(|topic| Subject::Topic(topic.name.to_string()));
        group(self.group_id.to_string())
            .into_iter()
            .chain(topics)
            .collect()
    }

    fn refuse(&self, error: ResponseError) -> Option<OffsetCommitResponse> {
        Some(answer(self, |_, _| Some(error)))
    }
}

/// The answer, given each partition's error.
fn answer(
    request: &OffsetCommitRequest,
    error: impl Fn(&str, i32) -> Option<ResponseError>,
) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let error = error(&topic.name, partition.partition_index);
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(error))
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: OffsetCommitRequest,
) -> Reply {
    let group = request.group_id.to_string();
    if let Err(error) = check(state, asked, Operation::Read, &group) {
        return asked.send(&answer(&request, |_, _| Some(error)));
    }
    let now_ms = state.now_ms;
    if state.groups.is_over_quota(&group, now_ms) {
        let error = ResponseError::ThrottlingQuotaExceeded;
        return asked.send(&answer(&request, |_, _| Some(error)));
    }
    let (good, bad) = sorted(state, asked, &request);
    if good.is_empty() {
        return asked.send(&answer(&request, |topic, number| bad.get(topic, number)));
    }
    let committed = commit(state, asked, &request, &group, &good);
    let (too_large, written) = match committed {
        Ok(committed) => committed,
        Err(error) => {
            return asked.send(&answer(&request, |topic, number| {
                bad.get(topic, number).or(Some(error))
            }));
        }
    };
    let version = asked.api_version;
    once_replicated(state, written.into_iter().collect(), move |failed| {
        let answer = answer(&request, |topic, number| {
            let own = bad.get(topic, number).or(too_large.get(topic, number));
            own.or(failed)
        });
        Body::of(&answer, version)
    })
}

/// Partitions with what is wrong with each.
#[derive(Default)]
struct Wrong(Vec<(String, i32, ResponseError)>);

impl Wrong {
    fn get(&self, topic: &str, number: i32) -> Option<ResponseError> {
        let mut all = self.0.iter();
        all.find(|(name, index, _)| name == topic && *index == number)
            .map(|(_, _, error)| *error)
    }
}

/// Partitions that may be committed for, and what is wrong with the others.
fn sorted(
    state: &State,
    asked: &Asked<'_>,
    request: &OffsetCommitRequest,
) -> (Vec<OffsetCommitRequestTopic>, Wrong) {
    let mut bad = Wrong::default();
    let mut good = Vec::new();
    for topic in &request.topics {
        let may = may_topic(state, asked, Operation::Read, &topic.name);
        let mut kept = topic.clone();
        if let Some(known) = state.topics.get(topic.name.as_str()) {
            kept.topic_id = known.id;
        }
        kept.partitions.retain(|partition| {
            let number = partition.partition_index;
            let error = match check_exists(state, &topic.name, number) {
                _ if !may => Some(ResponseError::TopicAuthorizationFailed),
                Err(error) => Some(error),
                Ok(()) => None,
            };
            bad.0
                .extend(error.map(|error| (topic.name.to_string(), number, error)));
            error.is_none()
        });
        if !kept.partitions.is_empty() {
            good.push(kept);
        }
    }
    (good, bad)
}

fn commit(
    state: &mut State,
    asked: &Asked<'_>,
    request: &OffsetCommitRequest,
    group: &str,
    topics: &[OffsetCommitRequestTopic],
) -> Result<(Wrong, Option<coordinator::Written>), ResponseError> {
    let partition = coordinator::partition_of(state, group)?;
    let clock_ms = state.clock_ms(asked.broker);
    let version = asked.api_version;
    let (checked, written) =
        coordinator::on_shard(state, asked.broker, partition, |shard, step| {
            check_group(shard, request, group, version, step)?;
            Ok(append(request, group, topics, clock_ms, step))
        })?;
    Ok((checked?, written))
}

/// `OffsetMetadataManager.validateOffsetCommit`. A commit is a member's sign of life, too.
fn check_group(
    shard: &mut Shard,
    request: &OffsetCommitRequest,
    group: &str,
    version: i16,
    step: &Step<'_>,
) -> Result<(), ResponseError> {
    let generation = request.generation_id_or_member_epoch;
    let Some(group) = shard.groups.get_mut(group) else {
        return match generation {
            ..0 => Ok(()),
            _ if version >= NAMES_MISSING_GROUP_FROM => Err(ResponseError::GroupIdNotFound),
            _ => Err(ResponseError::IllegalGeneration),
        };
    };
    let instance = request.group_instance_id.as_deref();
    group.check_commit(&request.member_id, instance, generation, false)?;
    group.note_commit(&request.member_id, step.now_ms);
    Ok(())
}

fn append(
    request: &OffsetCommitRequest,
    group: &str,
    topics: &[OffsetCommitRequestTopic],
    clock_ms: i64,
    step: &mut Step<'_>,
) -> Wrong {
    let retention_ms = Some(request.retention_time_ms).filter(|ms| *ms != -1);
    let mut too_large = Wrong::default();
    for topic in topics {
        for partition in &topic.partitions {
            let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
            let number = partition.partition_index;
            // Java counts UTF-16 units (`OffsetMetadataManager.isMetadataInvalid`).
            if metadata.encode_utf16().count() > step.settings.offset_metadata_max {
                let error = ResponseError::OffsetMetadataTooLarge;
                too_large.0.push((topic.name.to_string(), number, error));
                continue;
            }
            let value = OffsetValue {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: metadata.to_owned(),
                committed_at_ms: clock_ms,
                expires_at_ms: retention_ms.map(|ms| clock_ms + ms),
                topic_id: Some(topic.topic_id),
            };
            let record = records::offset(group, &topic.name, number, &value);
            step.records.push(record);
        }
    }
    too_large
}
