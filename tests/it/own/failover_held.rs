//! What was held for the failover is applied by it, taken back by an abort, and the fence on the
//! source is never copied.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::acls::{Acl, Operation, Resource, await_listed, listed};
use crate::support::failover::{answer, await_failed_over, failover, failover_exiting_at, words};
use crate::support::flow::{block_on, wire_cluster};
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, acls, await_caught_up, create_topic,
    eventually,
};
use twinlog::wire;

const DEADLINE: Duration = Duration::from_secs(60);

/// Brokers hear of a change of configs a moment after it was made.
fn await_timestamp_type(bootstrap: &str, topic: &str, wanted: &str) {
    eventually(
        DEADLINE,
        &format!("timestamps are {wanted}"),
        || match timestamp_type(bootstrap, topic) {
            Some(kind) if kind == wanted => Ok(()),
            other => Err(other),
        },
    );
}

fn timestamp_type(bootstrap: &str, topic: &str) -> Option<String> {
    let cluster = wire_cluster(bootstrap);
    let names = [topic.to_owned()];
    let mut configs = block_on(wire::describe_topic_configs(&cluster, &names));
    let values = configs.remove(topic)?.ok()?;
    values.get("message.timestamp.type")?.value.clone()
}

#[test]
fn what_is_held_is_released_and_the_fence_stays_where_it_is() {
    let options = |name: &str| ClusterOptions {
        authorizer: true,
        ..ClusterOptions::named(name)
    };
    let mut source = Cluster::launch(KafkaVersion::V4_3, options("source"));
    let mut target = Cluster::launch(KafkaVersion::V4_3, options("target"));
    source.await_ready();
    target.await_ready();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let append_time = [("message.timestamp.type", "LogAppendTime")];
    create_topic(&source, "orders", 2, &append_time);
    Load::new("orders", 100).produce(&source);
    let write = Acl::allow("User:bob", Operation::Write, Resource::topic("orders"));
    let read = Acl::allow("User:eve", Operation::Read, Resource::topic("orders"));
    acls::add(&source, &[write.clone(), read.clone()]);
    let before = listed(&source);
    let twinlog = Twinlog::start(&Twinlog::config(
        &source,
        &target,
        "metadata_interval: 100ms",
    ));
    await_caught_up(&twinlog, DEADLINE);
    let (write, read) = (format!("{write:?}"), format!("{read:?}"));
    eventually(DEADLINE, "eve may read there", || {
        let there = listed(&target);
        if there.contains(&read) {
            Ok(())
        } else {
            Err(there)
        }
    });
    assert!(!listed(&target).contains(&write), "bob must not write yet");
    assert_eq!(
        timestamp_type(&target, "orders").as_deref(),
        Some("CreateTime")
    );
    let config = twinlog.config_file().to_owned();

    // The fence stands while the flow goes on following ACLs.
    let crashed = failover_exiting_at(&config, &["--yes"], Some("drain:begun"));
    assert_eq!(crashed.status.code(), Some(137), "{}", words(&crashed));
    assert!(listed(&source).len() > before.len(), "the fence stands");
    let compared = |status: &serde_json::Value| {
        status["flows"][0]["metadata"]["compared_at_ms"]
            .as_i64()
            .unwrap_or_default()
    };
    let began = compared(&twinlog.status());
    twinlog.wait_until(DEADLINE, "ACLs are compared again and again", |status| {
        compared(status) > began + 1_500
    });
    assert_eq!(listed(&target), BTreeSet::from([read.clone()]));

    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    await_failed_over(&twinlog);
    await_listed(&target, &BTreeSet::from([read.clone(), write.clone()]));
    await_timestamp_type(&target, "orders", "LogAppendTime");

    let report = answer(&failover(&config, &["--abort", "--yes", "--json"]), 0);
    assert_eq!(report["state"], "aborted", "{report:#}");
    await_listed(&source, &before);
    await_listed(&target, &BTreeSet::from([read]));
    await_caught_up(&twinlog, DEADLINE);
    // It is a mirror again.
    await_timestamp_type(&target, "orders", "CreateTime");
}
