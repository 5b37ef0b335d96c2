//! A target that doesn't let Twinlog write markers: offsets are mapped, and the reason is shown.

mod support;

use std::time::Duration;

use kafka_protocol::messages::CreateAclsRequest;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::protocol::StrBytes;
use support::flow::{block_on, flow_config, is_caught_up, topic_status, wire_cluster};
use support::{
    Cluster, ClusterOptions, Isolation, KafkaVersion, Load, Transactions, Twinlog, create_topic,
    read_all,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// A cluster whose brokers are somebody (SASL between themselves), so that anonymous clients
/// aren't. Where a resource has no ACL at all, everybody may do everything.
fn strict_cluster() -> Cluster {
    let login = "org.apache.kafka.common.security.plain.PlainLoginModule required \
                 username=\"broker\" password=\"only-here\" user_broker=\"only-here\";";
    let options = ClusterOptions {
        authorizer: true,
        ..ClusterOptions::named("strict")
    }
    .with("super.users", "User:broker")
    .with("allow.everyone.if.no.acl.found", true)
    .with(
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
    )
    .with("sasl.mechanism.controller.protocol", "PLAIN")
    .with("listener.name.controller.sasl.enabled.mechanisms", "PLAIN")
    .with("listener.name.controller.plain.sasl.jaas.config", login);
    Cluster::start(KafkaVersion::V4_3, options)
}

/// Gives somebody else a right on the cluster: from then on nobody without one has any.
fn take_cluster_rights(bootstrap: &str) {
    const CLUSTER: i8 = 4;
    const LITERAL: i8 = 3;
    const ALTER_CONFIGS: i8 = 11;
    const ALLOW: i8 = 3;
    let acl = AclCreation::default()
        .with_resource_type(CLUSTER)
        .with_resource_name(StrBytes::from_static_str("kafka-cluster"))
        .with_resource_pattern_type(LITERAL)
        .with_principal(StrBytes::from_static_str("User:somebody"))
        .with_host(StrBytes::from_static_str("*"))
        .with_operation(ALTER_CONFIGS)
        .with_permission_type(ALLOW);
    let request = CreateAclsRequest::default().with_creations(vec![acl]);
    let cluster = wire_cluster(bootstrap);
    let response = block_on(async {
        cluster.metadata(None).await.expect("the cluster answers");
        let connection = cluster.any_connection().await.expect("a broker answers");
        connection.call(request, 3).await
    });
    let results = response.expect("an answer").results;
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].error_code, 0, "{results:?}");
}

#[test]
fn without_the_right_to_write_markers_offsets_are_mapped_and_say_why() {
    let (source, _) = support::pair(KafkaVersion::V4_3);
    let source = source.bootstrap();
    let target = strict_cluster();
    let target = target.bootstrap();
    create_topic(&source, "rights", 1, &[]);
    Transactions::new(Load::new("rights", 10), 6).produce(&source);
    let full = flow_config(
        "full",
        "rights",
        &source,
        &target,
        "rename: \"full.{topic}\"",
    );
    let full = Twinlog::start(&full);
    full.wait_until(DEADLINE, "the topic is copied", |status| {
        is_caught_up(status, "rights", 0)
    });
    assert_eq!(
        topic_status(&full.status(), "rights")["offsets"],
        "identical"
    );
    drop(full);

    take_cluster_rights(&target);
    let auto = Twinlog::start(&flow_config("auto", "rights", &source, &target, ""));
    let status = auto.wait_until(DEADLINE, "the topic is copied", |status| {
        is_caught_up(status, "rights", 0)
    });
    let topic = topic_status(&status, "rights");
    assert_eq!(topic["offsets"], "mapped", "{topic:#}");
    let reason = topic["offsets_reason"].to_string();
    assert!(reason.contains("CLUSTER_ACTION"), "{reason}");
    assert!(auto.log().contains("CLUSTER_ACTION"), "{}", auto.log());
    let (records, copies) = (
        read_all(&source, "rights", Isolation::ReadCommitted),
        read_all(&target, "rights", Isolation::ReadUncommitted),
    );
    let values = |seen: &[support::Seen]| -> Vec<_> {
        seen.iter()
            .map(|record| (record.key.clone(), record.value.clone()))
            .collect()
    };
    assert_eq!(values(&records), values(&copies));

    let lines = "offsets: identical\nrename: \"same.{topic}\"";
    let identical = Twinlog::start(&flow_config("same", "rights", &source, &target, lines));
    let status = support::flow::await_stopped(&identical, "rights", 0, "not_identical");
    assert_eq!(status["ready"], false);
    let check = identical.command("check", &[]);
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("CLUSTER_ACTION"), "{said}");
    assert_eq!(check.status.code(), Some(1), "{said}");
}
