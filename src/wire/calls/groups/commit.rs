//! Committing positions for groups that have no members.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetCommitResponse};

use super::GroupOffset;
use super::coordinator::{Answers, Question, is_about_coordinator, server};
use crate::wire::calls::partition::{TopicPartition, by_topic, text};
use crate::wire::{Cluster, WireError};

/// The newest version that names topics.
const VERSION_MAX: i16 = 9;

/// What became of each position.
pub type Committed = HashMap<TopicPartition, Result<(), WireError>>;

/// Commits positions as a client without membership does: generation -1 and no member id.
///
/// The coordinator takes that for a group without members only, whatever its kind, and answers
/// UNKNOWN_MEMBER_ID (or ILLEGAL_GENERATION) otherwise: `ClassicGroup.validateOffsetCommit`,
/// `ConsumerGroup.validateOffsetCommit`. So a group that is active is never moved, without a race.
///
/// The result has an entry for each group and position. After a transport error the commit may or
/// may not have been made; it isn't sent again.
pub async fn commit_group_offsets(
    cluster: &Cluster,
    commits: &HashMap<String, BTreeMap<TopicPartition, GroupOffset>>,
) -> HashMap<String, Committed> {
    let question = Question {
        cluster,
        groups: commits.keys().cloned().collect(),
        at_once: 1,
        version_max: VERSION_MAX,
        request: &|asked: &[String]| {
            let group = asked.first().map(String::as_str).unwrap_or_default();
            request(group, commits.get(group))
        },
        // An answer doesn't name its group: that is why each is asked for alone.
        answers: &|asked, response| -> Answers<HashMap<TopicPartition, i16>> {
            asked
                .iter()
                .map(|group| (group.clone(), read(&response)))
                .collect()
        },
        may_repeat: false,
    };
    let answers = question.ask().await;
    answers
        .into_iter()
        .map(|(group, answer)| {
            let committed = commits
                .get(&group)
                .into_iter()
                .flat_map(BTreeMap::keys)
                .map(|at| {
                    let result = match &answer {
                        Err(error) => Err(error.clone()),
                        Ok(codes) => match codes.get(at) {
                            Some(0) => Ok(()),
                            Some(code) => {
                                Err(server::<OffsetCommitRequest>(cluster, &group, *code))
                            }
                            None => Err(server::<OffsetCommitRequest>(cluster, &group, -1)),
                        },
                    };
                    (at.clone(), result)
                })
                .collect();
            (group, committed)
        })
        .collect()
}

fn request(
    group: &str,
    offsets: Option<&BTreeMap<TopicPartition, GroupOffset>>,
) -> OffsetCommitRequest {
    let topics = by_topic(
        offsets.into_iter().flatten().collect::<Vec<_>>().iter(),
        |(at, _)| at,
        |(at, offset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(at.partition)
                .with_committed_offset(offset.offset)
                .with_committed_leader_epoch(offset.leader_epoch)
                .with_committed_metadata(Some(text(&offset.metadata)))
        },
    );
    let topics = topics.into_iter().map(|(name, partitions)| {
        OffsetCommitRequestTopic::default()
            .with_name(name)
            .with_partitions(partitions)
    });
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.collect())
}

/// Each position's code; the group's own error where another coordinator has to be asked.
fn read(response: &OffsetCommitResponse) -> Result<HashMap<TopicPartition, i16>, i16> {
    let mut codes = HashMap::new();
    for topic in &response.topics {
        for partition in &topic.partitions {
            let code = partition.error_code;
            if ResponseError::try_from_code(code).is_some_and(is_about_coordinator) {
                return Err(code);
            }
            let at = TopicPartition::new(topic.name.to_string(), partition.partition_index);
            codes.insert(at, code);
        }
    }
    Ok(codes)
}
