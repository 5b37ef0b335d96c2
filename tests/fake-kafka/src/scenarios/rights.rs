//! ACLs and what they do (`StandardAuthorizer`, `AclApis`), on a cluster with an authorizer whose
//! `allow.everyone.if.no.acl.found` is on and whose super users don't include the anonymous.

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeClusterRequest,
    DescribeGroupsRequest, GroupId, ListGroupsRequest, MetadataRequest, TopicName,
};

use super::offsets::Commit;
use super::{Batch, Stage, Want, text};

const UNKNOWN_SERVER_ERROR: i16 = -1;
const TOPIC_DENIED: i16 = 29;
const GROUP_DENIED: i16 = 30;
const CLUSTER_DENIED: i16 = 31;
const INVALID_REQUEST: i16 = 42;

const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const CLUSTER: i8 = 4;
const ANY: i8 = 1;
const MATCH: i8 = 2;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const READ: i8 = 3;
const WRITE: i8 = 4;
const ALTER: i8 = 7;
const DESCRIBE: i8 = 8;
const DENY: i8 = 2;
const ALLOW: i8 = 3;
const ANONYMOUS: &str = "User:ANONYMOUS";

/// Everybody may read the topic.
pub(super) fn read_acl(name: &str) -> AclCreation {
    acl(TOPIC, name, READ, ALLOW)
}

fn acl(kind: i8, name: &str, operation: i8, permission: i8) -> AclCreation {
    AclCreation::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_resource_pattern_type(LITERAL)
        .with_principal(text(ANONYMOUS))
        .with_host(text("*"))
        .with_operation(operation)
        .with_permission_type(permission)
}

fn exactly(acl: &AclCreation) -> DeleteAclsFilter {
    DeleteAclsFilter::default()
        .with_resource_type_filter(acl.resource_type)
        .with_resource_name_filter(Some(acl.resource_name.clone()))
        .with_pattern_type_filter(acl.resource_pattern_type)
        .with_principal_filter(Some(acl.principal.clone()))
        .with_host_filter(Some(acl.host.clone()))
        .with_operation(acl.operation)
        .with_permission_type(acl.permission_type)
}

impl Stage {
    pub(super) fn create_acls(&mut self, acls: &[&AclCreation]) -> Vec<i16> {
        let creations = acls.iter().map(|acl| (*acl).clone()).collect();
        let request = CreateAclsRequest::default().with_creations(creations);
        let results = self.call(&request, 3).results.into_iter();
        results.map(|result| result.error_code).collect()
    }

    /// Deletes exactly this one; says how many that were.
    pub(super) fn delete_acl(&mut self, acl: &AclCreation) -> usize {
        let request = DeleteAclsRequest::default().with_filters(vec![exactly(acl)]);
        let answer = self.call(&request, 3);
        assert_eq!(answer.filter_results[0].error_code, 0);
        answer.filter_results[0].matching_acls.len()
    }

    /// How many ACLs a filter finds.
    fn acls(&mut self, pattern_type: i8, name: &str) -> usize {
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(TOPIC)
            .with_resource_name_filter(Some(text(name)))
            .with_pattern_type_filter(pattern_type)
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(ANY)
            .with_permission_type(ANY);
        let answer = self.call(&request, 3);
        assert_eq!(answer.error_code, 0);
        answer.resources.iter().map(|it| it.acls.len()).sum()
    }

    fn topic_metadata(&mut self, name: Option<&str>) -> Vec<MetadataResponseTopic> {
        let topics = name.map(|name| {
            vec![MetadataRequestTopic::default().with_name(Some(TopicName(text(name))))]
        });
        let request = MetadataRequest::default()
            .with_topics(topics)
            .with_allow_auto_topic_creation(false)
            .with_include_topic_authorized_operations(true);
        self.call(&request, 9).topics
    }

    fn is_listed(&mut self, topic: &str) -> bool {
        let all = self.topic_metadata(None);
        let mut names = all.iter().filter_map(|topic| topic.name.as_ref());
        names.any(|name| name.as_str() == topic)
    }
}

pub(super) fn acls_come_and_go(stage: &mut Stage) {
    let name = stage.name("t");
    let read = acl(TOPIC, &name, READ, ALLOW);
    let prefixed =
        acl(TOPIC, &name[..name.len() - 1], WRITE, DENY).with_resource_pattern_type(PREFIXED);
    assert_eq!(stage.create_acls(&[&read, &read, &prefixed]), [0, 0, 0]);
    stage.until(|stage| stage.acls(MATCH, &name) == 2);
    assert_eq!(stage.acls(LITERAL, &name), 1, "made once");
    assert_eq!(stage.acls(ANY, &name), 1);
    assert_eq!(stage.acls(PREFIXED, &name[..name.len() - 1]), 1);
    for bad in [
        acl(TOPIC, "", READ, ALLOW),
        acl(CLUSTER, "other", DESCRIBE, ALLOW),
    ] {
        assert_eq!(
            stage.create_acls(&[&bad, &read]),
            [INVALID_REQUEST, 0],
            "{bad:?}"
        );
    }
    // What only filters may say is not expected at all, and all of the request fails.
    for bad in [
        acl(TOPIC, &name, READ, ALLOW).with_resource_pattern_type(MATCH),
        acl(TOPIC, &name, ANY, ALLOW),
        acl(TOPIC, &name, READ, ANY),
        acl(ANY, &name, READ, ALLOW),
    ] {
        let codes = stage.create_acls(&[&bad, &read]);
        assert_eq!(codes, [UNKNOWN_SERVER_ERROR; 2], "{bad:?}");
    }
    assert_eq!(stage.delete_acl(&read), 1);
    stage.until(|stage| stage.acls(MATCH, &name) == 1);
    assert_eq!(stage.delete_acl(&read), 0);
    assert_eq!(stage.delete_acl(&prefixed), 1);
}

pub(super) fn a_topic_that_may_not_be_seen(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    stage.write(&topic, Batch::of(1).bytes());
    let everything = stage.topic_metadata(Some(&topic))[0].topic_authorized_operations;
    assert_eq!(everything, 0b1101_1111_1000);
    // Somebody else's ACL, and the topic isn't everybody's any longer.
    let other = acl(TOPIC, &topic, READ, ALLOW).with_principal(text("User:somebody"));
    assert_eq!(stage.create_acls(&[&other]), [0]);
    stage.until(|stage| !stage.is_listed(&topic));
    let asked_for = stage.topic_metadata(Some(&topic)).remove(0);
    assert_eq!(asked_for.error_code, TOPIC_DENIED);
    assert!(asked_for.topic_id.is_nil() && asked_for.partitions.is_empty());
    assert_eq!(asked_for.topic_authorized_operations, i32::MIN);
    let nowhere = stage.name("nowhere");
    let missing = acl(TOPIC, &nowhere, READ, ALLOW).with_principal(text("User:somebody"));
    assert_eq!(stage.create_acls(&[&missing]), [0]);
    stage.until(|stage| stage.topic_metadata(Some(&nowhere))[0].error_code == TOPIC_DENIED);
    let answer = stage.produce(&topic, Batch::of(1).bytes());
    assert_eq!(answer.error_code, TOPIC_DENIED);
    assert_eq!(stage.fetch(&topic, Want::from(0)).error_code, TOPIC_DENIED);
    assert_eq!(stage.list(&topic, 0, -1).error_code, TOPIC_DENIED);
    let group = stage.group("g");
    let code = stage.commit(&group, &topic, &Commit::of(1));
    assert_eq!(code, TOPIC_DENIED);

    // READ shows it, too, but lets nothing in.
    let read = acl(TOPIC, &topic, READ, ALLOW);
    assert_eq!(stage.create_acls(&[&read]), [0]);
    stage.until(|stage| stage.is_listed(&topic));
    let rights = stage.topic_metadata(Some(&topic))[0].topic_authorized_operations;
    assert_eq!(rights, 1 << READ | 1 << DESCRIBE);
    assert_eq!(stage.fetch(&topic, Want::from(0)).error_code, 0);
    let answer = stage.produce(&topic, Batch::of(1).bytes());
    assert_eq!(answer.error_code, TOPIC_DENIED);
    // A denial wins over it, but not over what it implied.
    let denied = acl(TOPIC, &topic, READ, DENY);
    assert_eq!(stage.create_acls(&[&denied]), [0]);
    stage.until(|stage| stage.fetch(&topic, Want::from(0)).error_code == TOPIC_DENIED);
    assert!(stage.is_listed(&topic));
    for acl in [&other, &missing, &read, &denied] {
        assert_eq!(stage.delete_acl(acl), 1);
    }
}

pub(super) fn a_group_that_may_not_be_seen(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let group = stage.group("g");
    assert_eq!(stage.commit(&group, &topic, &Commit::of(1)), 0);
    let other = acl(GROUP, &group, READ, ALLOW).with_principal(text("User:somebody"));
    assert_eq!(stage.create_acls(&[&other]), [0]);
    stage.until(|stage| stage.commit(&group, &topic, &Commit::of(2)) == GROUP_DENIED);
    assert_eq!(stage.delete_group(&group), GROUP_DENIED);
    let request = DescribeGroupsRequest::default()
        .with_groups(vec![GroupId(text(&group))])
        .with_include_authorized_operations(true);
    let described = stage.call(&request, 5).groups.remove(0);
    assert_eq!(described.error_code, GROUP_DENIED);
    assert_eq!(described.authorized_operations, i32::MIN);
    // With DESCRIBE on the cluster, the list is whole.
    let is_listed = |stage: &mut Stage| {
        let answer = stage.call(&ListGroupsRequest::default(), 5);
        let mut groups = answer.groups.iter();
        groups.any(|listed| listed.group_id.as_str() == group)
    };
    assert!(is_listed(stage));
    let alter = acl(CLUSTER, "kafka-cluster", ALTER, ALLOW);
    let denied = acl(CLUSTER, "kafka-cluster", DESCRIBE, DENY);
    assert_eq!(stage.create_acls(&[&alter, &denied]), [0, 0]);
    stage.until(|stage| !is_listed(stage));
    let rights = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    assert_eq!(stage.call(&rights, 0).cluster_authorized_operations, 0);
    let request = DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    assert_eq!(stage.call(&request, 3).error_code, CLUSTER_DENIED);
    // Both at once: without ALTER nobody takes anything back.
    let filters = vec![exactly(&alter), exactly(&denied), exactly(&other)];
    let answer = stage.call(&DeleteAclsRequest::default().with_filters(filters), 3);
    let gone = answer
        .filter_results
        .iter()
        .map(|it| it.matching_acls.len());
    assert_eq!(gone.collect::<Vec<_>>(), [1, 1, 1]);
    stage.until(is_listed);
    let everything = stage.call(&rights, 0).cluster_authorized_operations;
    assert_eq!(everything, 0b1_1111_1010_0000);
}
