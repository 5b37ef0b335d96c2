//! All positions of many groups.

use std::collections::HashMap;

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{GroupId, OffsetFetchRequest};

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
        answers: &|_, response| -> Answers<HashMap<TopicPartition, GroupOffset>> {
            let groups = response.groups.into_iter();
            groups
                .map(|group| (group.group_id.0.to_string(), read(group)))
                .collect()
        },
        may_repeat: true,
    };
    question.ask().await
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
