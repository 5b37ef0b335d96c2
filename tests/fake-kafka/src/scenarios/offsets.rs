//! Committed offsets, and how they are kept (`OffsetMetadataManager`,
//! `GroupCoordinatorRecordHelpers`).

use std::collections::BTreeMap;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions,
};
use kafka_protocol::messages::{
    DeleteTopicsRequest, GroupId, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, TopicName,
};

use super::{Stage, Want, now_ms, text};
use crate::batch::{HEADER_BYTES, Header, Marker, read_records};
use crate::groups::coordinator::partition_for;
use crate::groups::records::{self, Key, OffsetValue};

const UNKNOWN_PARTITION: i16 = 3;
const METADATA_TOO_LARGE: i16 = 12;
const ILLEGAL_GENERATION: i16 = 22;
const NOT_FOUND: i16 = 69;
const UNSTABLE: i16 = 88;

const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// What is committed, as whom.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: String,
    pub(super) member: String,
    pub(super) generation: i32,
}

impl Commit {
    /// From outside of the group.
    pub(super) fn of(offset: i64) -> Self {
        Self {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            member: String::new(),
            generation: -1,
        }
    }

    fn request(&self, group: &str, topic: &str, partition: i32) -> OffsetCommitRequest {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(self.offset)
            .with_committed_leader_epoch(self.leader_epoch)
            .with_committed_metadata(Some(text(&self.metadata)));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_member_id(text(&self.member))
            .with_generation_id_or_member_epoch(self.generation)
            .with_topics(vec![topic])
    }
}

fn fetch_request(group: &str, topic: Option<&str>) -> OffsetFetchRequest {
    let topics = topic.map(|topic| {
        vec![
            OffsetFetchRequestTopics::default()
                .with_name(TopicName(text(topic)))
                .with_partition_indexes(vec![0]),
        ]
    });
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(topics);
    OffsetFetchRequest::default().with_groups(vec![group])
}

/// What `__consumer_offsets` says, in the order in which it does.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Offset(Option<OffsetValue>),
    Group(bool),
    InTransaction(Option<OffsetValue>),
    Marker(bool),
}

impl Stage {
    pub(super) fn commit(&mut self, group: &str, topic: &str, commit: &Commit) -> i16 {
        let answer = self.call(&commit.request(group, topic, 0), 9);
        answer.topics[0].partitions[0].error_code
    }

    /// A group's offset of a topic's first partition.
    pub(super) fn committed(&mut self, group: &str, topic: &str) -> OffsetFetchResponsePartitions {
        let mut answer = self.call(&fetch_request(group, Some(topic)), 8);
        assert_eq!(answer.groups[0].error_code, 0);
        answer.groups[0].topics[0].partitions.remove(0)
    }

    fn gone(&mut self, topic: &str) {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![TopicName(text(topic))])
            .with_timeout_ms(10_000);
        assert_eq!(self.call(&request, 5).responses[0].error_code, 0);
    }

    pub(super) fn all_committed(&mut self, group: &str) -> OffsetFetchResponseGroup {
        self.call(&fetch_request(group, None), 8).groups.remove(0)
    }

    /// Where the group's records are.
    pub(super) fn offsets_partition(&mut self, group: &str) -> i32 {
        let request = MetadataRequest::default().with_topics(None);
        let answer = self.call(&request, 9);
        let mut topics = answer.topics.iter();
        let topic = topics.find(|topic| {
            let name = topic.name.as_ref();
            name.is_some_and(|name| name.as_str() == OFFSETS_TOPIC)
        });
        let topic = topic.expect("the offsets' topic");
        assert!(topic.is_internal);
        partition_for(group, i32::try_from(topic.partitions.len()).expect("few"))
    }

    pub(super) fn offsets_end(&mut self, partition: i32) -> i64 {
        self.list(OFFSETS_TOPIC, partition, -1).offset
    }

    /// What was said of a group from an offset on.
    fn said(&mut self, group: &str, partition: i32, from: i64) -> Vec<Said> {
        let want = Want {
            partition,
            ..Want::from(from)
        };
        let answer = self.fetch(OFFSETS_TOPIC, want);
        let mut said = Vec::new();
        let bytes = answer.records.unwrap_or_default();
        for batch in crate::batch::split(&bytes) {
            let header = Header::read(&batch).expect("a batch");
            if header.is_control() {
                let marker = Marker::read(&batch).expect("a marker");
                said.push(Said::Marker(marker.commit));
                continue;
            }
            assert!(header.leader_epoch >= 0 && header.base_offset >= from);
            let read = read_records(batch.slice(HEADER_BYTES..), header.count);
            for record in read.expect("records") {
                let value = record.value;
                match records::read_key(record.key.expect("a key")) {
                    Some(Key::Offset { group: of, .. }) if of == group => {
                        let value = value.map(|it| records::read_offset(it).expect("an offset"));
                        said.push(match header.is_transactional() {
                            true => Said::InTransaction(value),
                            false => Said::Offset(value),
                        });
                    }
                    Some(Key::Group(of)) if of == group => said.push(Said::Group(value.is_some())),
                    _ => {}
                }
            }
        }
        said
    }

    pub(super) fn transactional_offsets_are(
        &mut self,
        group: &str,
        from: i64,
        offset: i64,
        commit: bool,
    ) {
        let partition = self.offsets_partition(group);
        let said = self.said(group, partition, from);
        let in_transaction = said.iter().any(|said| match said {
            Said::InTransaction(Some(value)) => value.offset == offset,
            _ => false,
        });
        assert!(in_transaction, "{said:?}");
        assert!(said.contains(&Said::Marker(commit)), "{said:?}");
    }

    pub(super) fn is_unstable(&mut self, group: &str, topic: &str) -> bool {
        let request = fetch_request(group, Some(topic)).with_require_stable(true);
        let answer = self.call(&request, 8);
        answer.groups[0].topics[0].partitions[0].error_code == UNSTABLE
    }
}

pub(super) fn from_outside(stage: &mut Stage) {
    let topic = stage.topic("a", 2, &[]);
    let group = stage.group("g");
    assert_eq!(stage.committed(&group, &topic).committed_offset, -1);
    assert!(stage.all_committed(&group).topics.is_empty());
    let commit = Commit {
        leader_epoch: 3,
        metadata: "said".to_owned(),
        ..Commit::of(42)
    };
    assert_eq!(stage.commit(&group, &topic, &commit), 0);
    let found = stage.committed(&group, &topic);
    assert_eq!(
        (found.committed_offset, found.committed_leader_epoch),
        (42, 3)
    );
    assert_eq!(found.metadata.as_deref(), Some("said"));
    // Beyond the log's end, and back again: nobody minds.
    assert_eq!(stage.commit(&group, &topic, &Commit::of(1 << 40)), 0);
    assert_eq!(stage.commit(&group, &topic, &Commit::of(5)), 0);
    let found = stage.committed(&group, &topic);
    assert_eq!(
        (found.committed_offset, found.committed_leader_epoch),
        (5, -1)
    );
    assert_eq!(found.metadata.as_deref(), Some(""));

    let answer = stage.call(&Commit::of(1).request(&group, &topic, 2), 9);
    assert_eq!(answer.topics[0].partitions[0].error_code, UNKNOWN_PARTITION);
    let nowhere = stage.name("nowhere");
    let answer = stage.commit(&group, &nowhere, &Commit::of(1));
    assert_eq!(answer, UNKNOWN_PARTITION);
    let long = |letters| Commit {
        metadata: "x".repeat(letters),
        ..Commit::of(6)
    };
    assert_eq!(stage.commit(&group, &topic, &long(4_096)), 0);
    assert_eq!(
        stage.commit(&group, &topic, &long(4_097)),
        METADATA_TOO_LARGE
    );
    let all = stage.all_committed(&group);
    assert_eq!((all.error_code, all.topics.len()), (0, 1));
    assert_eq!(all.topics[0].partitions.len(), 1);
    // A generation without a group.
    let other = stage.group("other");
    let by_member = Commit {
        member: "m".to_owned(),
        generation: 1,
        ..Commit::of(1)
    };
    let missing = match stage.has_new_coordinator() {
        true => NOT_FOUND,
        false => ILLEGAL_GENERATION,
    };
    assert_eq!(stage.commit(&other, &topic, &by_member), missing);
    let answer = stage.call(&by_member.request(&other, &topic, 0), 8);
    assert_eq!(
        answer.topics[0].partitions[0].error_code,
        ILLEGAL_GENERATION
    );
}

pub(super) fn in_old_versions(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let group = stage.group("g");
    for version in 2..=9 {
        let offset = i64::from(version);
        let answer = stage.call(&Commit::of(offset).request(&group, &topic, 0), version);
        assert_eq!(answer.topics[0].partitions[0].error_code, 0, "{version}");
        assert_eq!(stage.committed(&group, &topic).committed_offset, offset);
    }
    for version in 1..=7 {
        let wanted = OffsetFetchRequestTopic::default()
            .with_name(TopicName(text(&topic)))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text(&group)))
            .with_topics(Some(vec![wanted]));
        let answer = stage.call(&request, version);
        let found = &answer.topics[0].partitions[0];
        assert_eq!(
            (found.committed_offset, found.error_code),
            (9, 0),
            "{version}"
        );
    }
}

pub(super) fn taken_back(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let group = stage.group("g");
    let delete = |stage: &mut Stage, group: &str, topic: &str| {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        let request = OffsetDeleteRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(vec![topic]);
        let answer = stage.call(&request, 0);
        let mut topics = answer.topics.iter();
        let code = topics.next().map(|topic| topic.partitions[0].error_code);
        (answer.error_code, code.unwrap_or(0))
    };
    assert_eq!(delete(stage, &group, &topic).0, NOT_FOUND);
    assert_eq!(stage.commit(&group, &topic, &Commit::of(1)), 0);
    let nowhere = stage.name("nowhere");
    assert_eq!(delete(stage, &group, &nowhere), (0, UNKNOWN_PARTITION));
    assert_eq!(delete(stage, &group, &topic), (0, 0));
    if stage.has_new_coordinator() {
        assert_eq!(delete(stage, &group, &topic), (0, 0), "again");
    }
    assert_eq!(stage.committed(&group, &topic).committed_offset, -1);
}

pub(super) fn in_the_log(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let group = stage.group("g");
    let partition = stage.offsets_partition(&group);
    let from = stage.offsets_end(partition);
    let commit = Commit {
        leader_epoch: 3,
        metadata: "said".to_owned(),
        ..Commit::of(42)
    };
    let before_ms = now_ms() - 60_000;
    assert_eq!(stage.commit(&group, &topic, &commit), 0);
    let said = stage.said(&group, partition, from);
    let [Said::Offset(Some(value))] = &said[..] else {
        panic!("{said:?}");
    };
    assert!(value.committed_at_ms >= before_ms);
    let expected = OffsetValue {
        offset: 42,
        leader_epoch: 3,
        metadata: "said".to_owned(),
        committed_at_ms: value.committed_at_ms,
        expires_at_ms: None,
        // Brokers before 4.1 don't write it.
        topic_id: value.topic_id,
    };
    assert_eq!(*value, expected);
    // With a retention of its own.
    let from = stage.offsets_end(partition);
    let request = commit
        .request(&group, &topic, 0)
        .with_retention_time_ms(60_000);
    stage.call(&request, 4);
    let said = stage.said(&group, partition, from);
    let [Said::Offset(Some(value))] = &said[..] else {
        panic!("{said:?}");
    };
    assert_eq!(value.expires_at_ms, Some(value.committed_at_ms + 60_000));
    // A group that is deleted takes back its offsets, then itself.
    let from = stage.offsets_end(partition);
    assert_eq!(stage.delete_group(&group), 0);
    let said = stage.said(&group, partition, from);
    // The old coordinator wrote nothing of a group that nobody was ever in.
    assert_eq!(said[0], Said::Offset(None));
    let rest = if stage.has_new_coordinator() {
        &[Said::Group(false)][..]
    } else {
        &[]
    };
    assert_eq!(said[1..], *rest);
}

pub(super) fn go_with_their_topic(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let kept = stage.topic("b", 1, &[]);
    let group = stage.group("g");
    assert_eq!(stage.commit(&group, &topic, &Commit::of(1)), 0);
    assert_eq!(stage.commit(&group, &kept, &Commit::of(2)), 0);
    let partition = stage.offsets_partition(&group);
    let from = stage.offsets_end(partition);
    stage.gone(&topic);
    stage.until(|stage| stage.all_committed(&group).topics.len() == 1);
    assert_eq!(stage.said(&group, partition, from), [Said::Offset(None)]);
    let left: BTreeMap<String, usize> = stage
        .all_committed(&group)
        .topics
        .iter()
        .map(|topic| (topic.name.to_string(), topic.partitions.len()))
        .collect();
    assert_eq!(left, BTreeMap::from([(kept, 1)]));
}
