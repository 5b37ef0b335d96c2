//! Start offsets of share groups (KIP-932), asked of and given to their group coordinators.
//!
//! A broker before Kafka 4.1 doesn't know these calls; a newer one whose feature `share.version` is
//! 0 answers UNSUPPORTED_VERSION. [`is_unsupported`] is true of both.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseGroup;
use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse,
    DescribeShareGroupOffsetsRequest, GroupId,
};

use super::commit::Committed;
use super::coordinator::{Answers, Question, server};
use crate::wire::calls::partition::{TopicPartition, by_topic, text};
use crate::wire::{Cluster, WireError};

/// The newest version that only has what is needed here: Kafka 4.1.
const VERSION_MAX: i16 = 0;
/// Groups in one request.
const GROUPS_AT_ONCE: usize = 100;

/// The start offset (SPSO) of each partition that a group has state for: every record below it is
/// done with.
pub type StartOffsets = BTreeMap<TopicPartition, i64>;

/// Whether a cluster has no share groups at all.
pub fn is_unsupported(error: &WireError) -> bool {
    matches!(error, WireError::UnsupportedVersion { .. })
        || error.server_code() == Some(ResponseError::UnsupportedVersion)
}

/// The start offsets of each group. A group that the cluster doesn't know has none.
///
/// Topics that may not be seen (DESCRIBE) are left out by the broker.
pub async fn describe_share_group_offsets(
    cluster: &Cluster,
    groups: &[String],
) -> HashMap<String, Result<StartOffsets, WireError>> {
    let question = Question {
        cluster,
        groups: groups.to_vec(),
        at_once: GROUPS_AT_ONCE,
        version_max: VERSION_MAX,
        request: &|asked: &[String]| {
            let groups = asked.iter().map(|group| {
                DescribeShareGroupOffsetsRequestGroup::default()
                    .with_group_id(GroupId(text(group)))
                    .with_topics(None)
            });
            DescribeShareGroupOffsetsRequest::default().with_groups(groups.collect())
        },
        answers: &|_, response| -> Answers<StartOffsets> {
            let groups = response.groups.into_iter();
            groups
                .map(|group| (group.group_id.0.to_string(), described(&group)))
                .collect()
        },
        may_repeat: true,
    };
    question.ask().await
}

fn described(group: &DescribeShareGroupOffsetsResponseGroup) -> Result<StartOffsets, i16> {
    match group.error_code {
        0 => {}
        code if code == ResponseError::GroupIdNotFound.code() => return Ok(StartOffsets::new()),
        code => return Err(code),
    }
    let mut offsets = StartOffsets::new();
    for topic in &group.topics {
        for partition in &topic.partitions {
            if partition.error_code != 0 {
                return Err(partition.error_code);
            }
            // -1: the group has subscribed, but the partition's state isn't initialized yet.
            if partition.start_offset >= 0 {
                let at =
                    TopicPartition::new(topic.topic_name.to_string(), partition.partition_index);
                offsets.insert(at, partition.start_offset);
            }
        }
    }
    Ok(offsets)
}

/// Sets start offsets. What was acknowledged above them before is forgotten.
///
/// The coordinator takes that for a group without members only and answers NON_EMPTY_GROUP
/// otherwise (`ShareGroup.validateOffsetsAlterable`). Kafka 4.3 creates a group that isn't there;
/// without that the answer is GROUP_ID_NOT_FOUND.
///
/// The result has an entry for each group and partition. After a transport error the change may or
/// may not have been made; it isn't sent again.
pub async fn alter_share_group_offsets(
    cluster: &Cluster,
    changes: &HashMap<String, StartOffsets>,
) -> HashMap<String, Committed<()>> {
    let question = Question {
        cluster,
        groups: changes.keys().cloned().collect(),
        at_once: 1,
        version_max: VERSION_MAX,
        request: &|asked: &[String]| {
            let group = asked.first().map(String::as_str).unwrap_or_default();
            request(group, changes.get(group))
        },
        // An answer doesn't name its group: that is why each is asked for alone.
        answers: &|asked, response| -> Answers<HashMap<TopicPartition, i16>> {
            asked
                .iter()
                .map(|group| (group.clone(), altered(&response)))
                .collect()
        },
        may_repeat: false,
    };
    let answers = question.ask().await;
    answers
        .into_iter()
        .map(|(group, answer)| {
            let wanted = changes.get(&group).into_iter().flat_map(BTreeMap::keys);
            let results = wanted.map(|at| (at.clone(), result(cluster, &group, at, &answer)));
            let results = results.collect();
            (group, results)
        })
        .collect()
}

fn request(group: &str, offsets: Option<&StartOffsets>) -> AlterShareGroupOffsetsRequest {
    let topics = by_topic(
        offsets.into_iter().flatten().collect::<Vec<_>>().iter(),
        |(at, _)| at,
        |(at, offset)| {
            AlterShareGroupOffsetsRequestPartition::default()
                .with_partition_index(at.partition)
                .with_start_offset(**offset)
        },
    );
    let topics = topics.into_iter().map(|(name, partitions)| {
        AlterShareGroupOffsetsRequestTopic::default()
            .with_topic_name(name)
            .with_partitions(partitions)
    });
    AlterShareGroupOffsetsRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(topics.collect())
}

/// Each partition's code, or the group's.
fn altered(response: &AlterShareGroupOffsetsResponse) -> Result<HashMap<TopicPartition, i16>, i16> {
    if response.error_code != 0 {
        return Err(response.error_code);
    }
    let topics = response.responses.iter();
    let codes = topics.flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            let name = topic.topic_name.to_string();
            let at = TopicPartition::new(name, partition.partition_index);
            (at, partition.error_code)
        })
    });
    Ok(codes.collect())
}

fn result(
    cluster: &Cluster,
    group: &str,
    at: &TopicPartition,
    answer: &Result<HashMap<TopicPartition, i16>, WireError>,
) -> Result<(), WireError> {
    let codes = answer.as_ref().map_err(WireError::clone)?;
    match codes.get(at).copied().unwrap_or(-1) {
        0 => Ok(()),
        code => Err(server::<AlterShareGroupOffsetsRequest>(
            cluster, group, code,
        )),
    }
}
