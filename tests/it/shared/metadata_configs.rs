//! Topic configs follow, between real clusters: the fake tells the truth, and a thousand are a moment's
//! work.

use std::sync::Arc;

use crate::fake::metadata_configs::{
    Copied, DEADLINE, Following, PROMISED, alter, await_override, batch_behind_a_raised_limit,
    changes_follow,
};
use crate::support::admin::client;
use crate::support::flow::block_on;
use crate::support::{KafkaVersion, pair};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use twinlog::telemetry::metadata::{Drift, DriftAction};

#[test]
fn a_change_an_addition_and_a_removal_arrive_in_time() {
    let (source, target) = pair(KafkaVersion::V4_3);
    changes_follow(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn a_batch_right_behind_a_raised_limit_goes_through() {
    let (source, target) = pair(KafkaVersion::V4_3);
    batch_behind_a_raised_limit(&source.bootstrap(), &target.bootstrap());
}

/// The same number of topics on both clusters, in requests of a hundred.
fn create_many(bootstrap: &str, topics: &[String], configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        client(bootstrap).create().expect("valid settings");
    for some in topics.chunks(100) {
        let new = some.iter().map(|topic| {
            let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
            configs
                .iter()
                .fold(new, |new, (key, value)| new.set(key, value))
        });
        let new: Vec<_> = new.collect();
        let results = block_on(admin.create_topics(&new, &AdminOptions::new()));
        for result in results.expect("an answer") {
            result.expect("created");
        }
    }
}

#[test]
fn a_thousand_topics_are_compared_in_a_moment_and_then_left_alone() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let topics: Vec<String> = (0..1_000).map(|number| format!("many.{number}")).collect();
    let set: [(&str, &str); 20] = [
        ("cleanup.policy", "compact"),
        ("compression.type", "zstd"),
        ("delete.retention.ms", "1000"),
        ("file.delete.delay.ms", "1000"),
        ("flush.messages", "1000000"),
        ("flush.ms", "1000000"),
        ("index.interval.bytes", "1000"),
        ("max.compaction.lag.ms", "1000000"),
        ("max.message.bytes", "2000000"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("min.compaction.lag.ms", "1000"),
        ("min.insync.replicas", "1"),
        ("retention.bytes", "1000000000"),
        ("retention.ms", "1000000000"),
        ("segment.bytes", "10000000"),
        ("segment.index.bytes", "1000000"),
        ("segment.jitter.ms", "1"),
        ("segment.ms", "1000000"),
        ("message.timestamp.type", "LogAppendTime"),
        ("unclean.leader.election.enable", "true"),
    ];
    create_many(&source, &topics, &set);
    create_many(&target, &topics, &[]);
    let copied = Arc::new(Copied::default());
    for topic in &topics {
        copied.add(topic, 1);
    }
    let lines = "metadata_interval: 500ms";
    let following = Following::with("many", &source, &target, lines, copied);
    for topic in [&topics[0], &topics[999]] {
        await_override(&target, topic, "segment.ms", Some("1000000"), DEADLINE);
    }
    let before = following.await_drift("all of it is taken in", |report| {
        let held = |drift: &Drift| drift.action == DriftAction::Hold;
        report.drift.len() == topics.len() && report.drift.iter().all(held)
    });
    let applied = following.applied();
    // 18 follow; of the enforced ones, the target's defaults already have all but one.
    assert_eq!(applied, 19_000);
    following.await_next_pass();
    // Not each is held up by a busy machine.
    let after = following.await_drift("it is compared again in a moment", |report| {
        report.compared_at_ms > before.compared_at_ms && report.took_ms < 5_000
    });
    eprintln!("comparing again took {} ms", after.took_ms);
    assert_eq!(
        (following.applied(), &after.drift),
        (applied, &before.drift)
    );
    // One change among all of them.
    alter(&source, &topics[500], &[("segment.ms", Some("2000000"))]);
    await_override(
        &target,
        &topics[500],
        "segment.ms",
        Some("2000000"),
        PROMISED,
    );
}
