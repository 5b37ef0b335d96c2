//! Every version of every API of groups, transactions, ACLs, quotas and users is answered, in good
//! times and bad ones.

#![allow(clippy::expect_used, reason = "tests")]

use fake_kafka::client::Direct;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::topics::NewTopic;
use fake_kafka::{Cluster, Options};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;

fn each<R: Request>(direct: &mut Direct, versions: std::ops::RangeInclusive<i16>, request: &R) {
    for version in versions {
        direct.call(request, version);
    }
}

fn ask_everything(direct: &mut Direct) {
    let group = || GroupId("g".into());
    let id = || TransactionalId("t".into());
    let topic = || TopicName("topic".into());
    let partition = offset_commit_request::OffsetCommitRequestPartition::default();
    let topics = vec![
        offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(topic())
            .with_partitions(vec![partition]),
    ];
    let commit = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics);
    each(direct, 2..=9, &commit);
    let one = OffsetFetchRequest::default().with_group_id(group());
    each(direct, 2..=7, &one.clone().with_topics(None));
    each(direct, 1..=7, &one.with_topics(Some(Vec::new())));
    let fetched = offset_fetch_request::OffsetFetchRequestGroup::default();
    let groups = vec![fetched.with_group_id(group()).with_topics(None)];
    let many = OffsetFetchRequest::default().with_groups(groups);
    each(direct, 8..=9, &many);
    let find = FindCoordinatorRequest::default();
    each(direct, 0..=3, &find.clone().with_key("g".into()));
    let keys = vec!["g".into()];
    each(direct, 4..=6, &find.with_coordinator_keys(keys));
    let join = JoinGroupRequest::default().with_group_id(group());
    each(direct, 0..=9, &join);
    each(direct, 0..=9, &join.with_session_timeout_ms(10_000));
    let sync = SyncGroupRequest::default().with_group_id(group());
    each(direct, 0..=5, &sync);
    let beat = HeartbeatRequest::default().with_group_id(group());
    each(direct, 0..=4, &beat);
    let leave = LeaveGroupRequest::default().with_group_id(group());
    each(direct, 0..=5, &leave);
    each(direct, 0..=5, &ListGroupsRequest::default());
    let describe = DescribeGroupsRequest::default().with_groups(vec![group()]);
    each(direct, 0..=6, &describe);
    let consumers = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group()]);
    each(direct, 0..=1, &consumers);
    let shares =
        describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup::default();
    let shares = vec![shares.with_group_id(group())];
    let shares = DescribeShareGroupOffsetsRequest::default().with_groups(shares);
    each(direct, 0..=0, &shares);
    let start = AlterShareGroupOffsetsRequest::default().with_group_id(group());
    each(direct, 0..=0, &start);
    let offsets = OffsetDeleteRequest::default().with_group_id(group());
    each(direct, 0..=0, &offsets);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    each(direct, 0..=2, &delete);

    let init = InitProducerIdRequest::default()
        .with_transactional_id(Some(id()))
        .with_transaction_timeout_ms(60_000);
    each(direct, 0..=5, &init);
    let partitions = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
        .with_name(topic())
        .with_partitions(vec![0]);
    let add = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id())
        .with_v3_and_below_topics(vec![partitions]);
    each(direct, 0..=3, &add);
    let add = AddOffsetsToTxnRequest::default().with_transactional_id(id());
    each(direct, 0..=4, &add.with_group_id(group()));
    let partition = txn_offset_commit_request::TxnOffsetCommitRequestPartition::default();
    let topics = vec![
        txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
            .with_name(topic())
            .with_partitions(vec![partition]),
    ];
    let commit = TxnOffsetCommitRequest::default()
        .with_transactional_id(id())
        .with_group_id(group())
        .with_topics(topics);
    each(direct, 0..=5, &commit);
    let end = EndTxnRequest::default().with_transactional_id(id());
    each(direct, 0..=5, &end);
    each(direct, 0..=1, &ListTransactionsRequest::default());
    let describe = DescribeTransactionsRequest::default().with_transactional_ids(vec![id()]);
    each(direct, 0..=0, &describe);

    let acls = DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    each(direct, 1..=3, &acls);
    let creation = create_acls_request::AclCreation::default();
    let create = CreateAclsRequest::default().with_creations(vec![creation]);
    each(direct, 1..=3, &create);
    let filter = delete_acls_request::DeleteAclsFilter::default();
    let delete = DeleteAclsRequest::default().with_filters(vec![filter]);
    each(direct, 1..=3, &delete);
    each(direct, 0..=1, &DescribeClientQuotasRequest::default());
    let entry = alter_client_quotas_request::EntryData::default();
    let alter = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    each(direct, 0..=1, &alter);
    let users = DescribeUserScramCredentialsRequest::default().with_users(Some(Vec::new()));
    each(direct, 0..=0, &users);
    let deletion = alter_user_scram_credentials_request::ScramCredentialDeletion::default();
    let alter = AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]);
    each(direct, 0..=0, &alter);
    each(direct, 1..=1, &SaslHandshakeRequest::default());
    each(direct, 0..=2, &SaslAuthenticateRequest::default());
}

fn cluster() -> Cluster {
    let cluster = Cluster::new(Options::default());
    cluster.control(|state| {
        state.create_offsets_topic();
        state.create_transactions_topic();
        let one = NewTopic {
            partitions: 1,
            replication: 1,
            ..NewTopic::default()
        };
        state.create_topic("topic", &one).expect("a topic");
    });
    cluster
}

#[test]
fn by_a_cluster_that_works() {
    ask_everything(&mut Direct::connect(&cluster(), 1));
}

#[test]
fn by_a_cluster_without_coordinators() {
    let cluster = Cluster::new(Options::default());
    ask_everything(&mut Direct::connect(&cluster, 1));
}

#[test]
fn by_a_cluster_that_forbids_everything() {
    let cluster = cluster();
    cluster.control(|state| state.acls.is_on = true);
    ask_everything(&mut Direct::connect(&cluster, 1));
}

#[test]
fn by_a_cluster_that_refuses_everything() {
    let cluster = cluster();
    cluster.control(|state| {
        let refuse = Action::Refuse(ResponseError::UnknownServerError);
        state.faults.add(Fault::on_anything(), refuse);
    });
    ask_everything(&mut Direct::connect(&cluster, 1));
}
