//! All positions of many groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::GroupOffset;
use super::coordinator::{Answers, Question};
use crate::wire::calls::partition::{TopicPartition, text};
use crate::wire::{Cluster, WireError};

/// The newest version that names topics; 8 is the first that asks for many groups (KIP-709).
const VERSION_MAX: i16 = 9;
/// Groups in one request.
const GROUPS_AT_ONCE: usize = 100;

/// The positions of each group, open transactions' left out. A group that the cluster doesn't
/// know has none.
pub async fn fetch_group_offsets(
    cluster: &Cluster,
    groups: &[String],
) -> HashMap<String, Result<HashMap<TopicPartition, GroupOffset>, WireError>> {
    let question = Question {
        cluster,
        groups: groups.to_vec(),
        at_once: GROUPS_AT_ONCE,
        version_max: VERSION_MAX,
        request: &|asked: &[String]| {
            let groups = asked.iter().map(|group| {
                OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(text(group)))
                    .with_topics(None)
            });
            OffsetFetchRequest::default()
                .with_groups(groups.collect())
                .with_require_stable(false)
        },
        answers: &|_, response| by_group(response, read),
        may_repeat: true,
    };
    question.ask().await
}

/// Those of these partitions in which a transaction has committed a position of the group that doesn't count yet: it is
/// open, or has ended and its marker is on the way (KIP-447).
///
/// Partitions are named: asked for all, a coordinator leaves out those in which a group has nothing but such a position
/// (`OffsetMetadataManager.fetchAllOffsets`).
pub async fn pending_group_offsets(
    cluster: &Cluster,
    partitions: &HashMap<String, BTreeSet<TopicPartition>>,
) -> HashMap<String, Result<BTreeSet<TopicPartition>, WireError>> {
    let question = Question {
        cluster,
        groups: partitions.keys().cloned().collect(),
        at_once: GROUPS_AT_ONCE,
        version_max: VERSION_MAX,
        request: &|asked: &[String]| {
            let groups = asked.iter().map(|group| {
                OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(text(group)))
                    .with_topics(partitions.get(group).map(by_topic))
            });
            OffsetFetchRequest::default()
                .with_groups(groups.collect())
                .with_require_stable(true)
        },
        answers: &|_, response| by_group(response, read_pending),
        may_repeat: true,
    };
    question.ask().await
}

fn by_group<T>(
    response: OffsetFetchResponse,
    read: fn(OffsetFetchResponseGroup) -> Result<T, i16>,
) -> Answers<T> {
    let groups = response.groups.into_iter();
    groups
        .map(|group| (group.group_id.0.to_string(), read(group)))
        .collect()
}

fn by_topic(partitions: &BTreeSet<TopicPartition>) -> Vec<OffsetFetchRequestTopics> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for at in partitions {
        topics.entry(&at.topic).or_default().push(at.partition);
    }
    let named = topics.into_iter().map(|(topic, partitions)| {
        OffsetFetchRequestTopics::default()
            .with_name(TopicName(text(topic)))
            .with_partition_indexes(partitions)
    });
    named.collect()
}

fn read_pending(group: OffsetFetchResponseGroup) -> Result<BTreeSet<TopicPartition>, i16> {
    if group.error_code != 0 {
        return Err(group.error_code);
    }
    let mut pending = BTreeSet::new();
    for topic in group.topics {
        for partition in topic.partitions {
            match ResponseError::try_from_code(partition.error_code) {
                None => {}
                Some(ResponseError::UnstableOffsetCommit) => {
                    let name = topic.name.to_string();
                    pending.insert(TopicPartition::new(name, partition.partition_index));
                }
                Some(_) => return Err(partition.error_code),
            }
        }
    }
    Ok(pending)
}

fn read(group: OffsetFetchResponseGroup) -> Result<HashMap<TopicPartition, GroupOffset>, i16> {
    if group.error_code != 0 {
        return Err(group.error_code);
    }
    let mut offsets = HashMap::new();
    for topic in group.topics {
        for partition in topic.partitions {
            if partition.error_code != 0 {
                return Err(partition.error_code);
            }
            if partition.committed_offset < 0 {
                continue;
            }
            let at = TopicPartition::new(topic.name.to_string(), partition.partition_index);
            let offset = GroupOffset {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata.unwrap_or_default().to_string(),
            };
            offsets.insert(at, offset);
        }
    }
    Ok(offsets)
}
