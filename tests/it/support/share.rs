//! Share groups: Kafka's own share consumer, through `tests/java/ShareGroups.java`, and what an operator asks of
//! their coordinator. The clusters have one node each, which is that.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequest, FindCoordinatorRequest,
    GroupId, IncrementalAlterConfigsRequest, TopicName,
};
use kafka_protocol::protocol::Request;

use super::java::{self, compiled};
use super::logins;
use super::operator::{DEADLINE, call, text};
use super::version::KafkaVersion;
use super::wait::eventually;

const SOURCE: &str = include_str!("../../java/ShareGroups.java");
/// Kafka's number for a group as a resource of configs.
const GROUP: i8 = 32;

/// Lets a group that is new to a partition begin at its first record.
///
/// # Panics
/// When the cluster doesn't take it.
pub fn begin_at_earliest(bootstrap: &str, group: &str) {
    let earliest = AlterableConfig::default()
        .with_name(text("share.auto.offset.reset"))
        .with_value(Some(text("earliest")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(GROUP)
        .with_resource_name(text(group))
        .with_configs(vec![earliest]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let responses = call(bootstrap, request, 1).responses;
    assert_eq!(responses[0].error_code, 0, "{responses:?}");
}

/// Asks a group's coordinator, and again while there is none: whoever asks for it has the topic made that it leads.
fn ask<R: Request + Clone>(
    bootstrap: &str,
    group: &str,
    request: &R,
    code: impl Fn(&R::Response) -> i16,
) -> R::Response {
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    eventually(DEADLINE, "the group's coordinator answers", || {
        call(bootstrap, find.clone(), 4);
        let response = call(bootstrap, request.clone(), 0);
        match ResponseError::try_from_code(code(&response)) {
            Some(
                error @ (ResponseError::CoordinatorLoadInProgress
                | ResponseError::CoordinatorNotAvailable
                | ResponseError::NotCoordinator),
            ) => Err(error),
            _ => Ok(response),
        }
    })
}

/// A consumer of the group joins, accepts this many records and leaves. Returns their offsets and
/// the first word of their values: what [`Load`](super::Load) numbers them by.
///
/// The broker stores a start offset with a later acknowledgement than the one that moved it: what
/// is described afterwards may not show this one yet.
pub fn read_as_share(
    bootstrap: &str,
    group: &str,
    topic: &str,
    count: usize,
) -> Vec<(i64, String)> {
    run(&["read", bootstrap, group, topic, &count.to_string()])
        .lines()
        .map(|line| {
            let mut fields = line.split(' ').skip(1);
            let offset = fields.next().and_then(|offset| offset.parse().ok());
            let offset = offset.unwrap_or_else(|| panic!("not a record: {line}"));
            (offset, fields.next().unwrap_or_default().to_owned())
        })
        .collect()
}

/// A group's start offsets by topic and partition, as the broker describes them.
///
/// # Panics
/// When it doesn't.
pub fn start_offsets(bootstrap: &str, group: &str) -> BTreeMap<(String, i32), i64> {
    let asked = DescribeShareGroupOffsetsRequestGroup::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(None);
    let request = DescribeShareGroupOffsetsRequest::default().with_groups(vec![asked]);
    let response = ask(bootstrap, group, &request, |response| {
        response.groups.first().map_or(-1, |group| group.error_code)
    });
    let found = &response.groups[0];
    if found.error_code == ResponseError::GroupIdNotFound.code() {
        return BTreeMap::new();
    }
    assert_eq!(found.error_code, 0, "{found:?}");
    let of_topics = found.topics.iter().flat_map(|topic| {
        let name = topic.topic_name.to_string();
        let partitions = topic.partitions.iter();
        partitions.map(move |it| ((name.clone(), it.partition_index), it.start_offset))
    });
    // -1 where there is none yet.
    of_topics.filter(|(_, offset)| *offset >= 0).collect()
}

/// Sets a start offset as an operator does.
///
/// # Panics
/// When the coordinator doesn't take it.
pub fn set_start_offset(bootstrap: &str, group: &str, topic: &str, partition: i32, offset: i64) {
    let partition = AlterShareGroupOffsetsRequestPartition::default()
        .with_partition_index(partition)
        .with_start_offset(offset);
    let topic = AlterShareGroupOffsetsRequestTopic::default()
        .with_topic_name(TopicName(text(topic)))
        .with_partitions(vec![partition]);
    let request = AlterShareGroupOffsetsRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(vec![topic]);
    let code = |response: &<AlterShareGroupOffsetsRequest as Request>::Response| {
        let topics = response.responses.iter();
        let partitions = topics.flat_map(|topic| topic.partitions.iter().map(|it| it.error_code));
        let mut all = std::iter::once(response.error_code).chain(partitions);
        all.find(|code| *code != 0).unwrap_or(0)
    };
    let response = ask(bootstrap, group, &request, code);
    assert_eq!(code(&response), 0, "{response:?}");
}

/// A member of a share group that takes no records. It leaves by [`Self::leave`], and ends by
/// itself after three minutes.
pub struct ShareMember(Child);

impl ShareMember {
    /// Joins; `topic` is to be empty.
    ///
    /// # Panics
    /// When it doesn't get in.
    pub fn join(bootstrap: &str, group: &str, topic: &str) -> Self {
        let mut command = java(&["hold", bootstrap, group, topic]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("java is installed");
        let output = child.stdout.take().expect("its output is piped");
        let member = Self(child);
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        assert!(read.is_ok() && line == "joined\n", "not a member: {line}");
        member
    }

    /// Leaves in order.
    ///
    /// # Panics
    /// When it failed.
    pub fn leave(mut self) {
        let mut input = self.0.stdin.take().expect("its input is piped");
        input.write_all(b"leave\n").expect("it listens");
        assert!(self.0.wait().expect("our child").success());
    }
}

impl Drop for ShareMember {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Only 4.3's clients know share groups in all that is asked here.
fn java(arguments: &[&str]) -> Command {
    let version = KafkaVersion::V4_3;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "java"])
        .args(java::arguments(
            version,
            &compiled(version, "ShareGroups", SOURCE),
        ))
        // Every mode has the address in the second place.
        .args(logins::java_argument(arguments[1]))
        .arg("ShareGroups")
        .args(arguments);
    command
}

fn run(arguments: &[&str]) -> String {
    let output = java(arguments).output().expect("java is installed");
    assert!(
        output.status.success(),
        "ShareGroups {arguments:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("names and values are UTF-8")
}
