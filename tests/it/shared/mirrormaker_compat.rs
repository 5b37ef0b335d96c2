//! MirrorMaker 2's own Java tools read what `CompatWriter` writes.

use crate::own::mirrormaker_compat::{
    CHECKPOINTS, DEADLINE, Running, await_made, checkpoint, written,
};
use crate::support::admin::partition_count;
use crate::support::ends::Ends;
use crate::support::flow::{block_on, wire_cluster};
use crate::support::mirror_tools;
use crate::support::pair;
use crate::support::wait::eventually;
use crate::support::{KafkaVersion, create_topic};
use twinlog::groups::mirrormaker::CompatTopics;
use twinlog::telemetry::progress::now_ms;
use twinlog::wire;

#[test]
fn the_java_tools_see_the_source_and_translate_offsets() {
    let version = KafkaVersion::V4_3;
    let (_, standby) = pair(version);
    let bootstrap = standby.bootstrap();
    create_topic(&bootstrap, "primary.orders", 1, &[]);
    let started_ms = now_ms();
    let running = Running::start(&bootstrap);
    running.note("billing", "orders", 0, 1, "");
    running.note("billing", "orders", 0, 4, "");
    running.note("billing", "orders", 1, i64::MAX - 7, "über");
    running.note("audit", "orders", 0, 0, "");
    eventually(
        DEADLINE,
        "the first checkpoints are written",
        || match partition_count(&bootstrap, CHECKPOINTS) {
            1 if written(&bootstrap).contains(&checkpoint("audit", "orders", 0, 0, "")) => Ok(()),
            count => Err(count),
        },
    );
    running.note("billing", "orders", 0, 9, "later");
    eventually(DEADLINE, "the newer checkpoint is written", || {
        let seen = written(&bootstrap);
        let newer = checkpoint("billing", "orders", 0, 9, "later");
        if seen.contains(&newer) {
            Ok(())
        } else {
            Err(seen)
        }
    });
    for topic in ["heartbeats", "primary.heartbeats"] {
        await_made(&bootstrap, topic);
        Ends::new(&bootstrap, topic, 1).await_above(1, DEADLINE);
    }

    let groups = ["billing", "audit", "unknown"];
    let expected = [
        "checkpoints-topic primary.checkpoints.internal",
        "heartbeat heartbeats primary standby",
        "heartbeat primary.heartbeats standby primary",
        "heartbeats-topic heartbeats",
        "heartbeats-topic primary.heartbeats",
        "hops nobody -1",
        "hops primary 1",
        "offset audit orders 0 0 =",
        "offset billing orders 0 9 6c61746572",
        "offset billing orders 1 9223372036854775800 c3bc626572",
        // Kafka counts mirrored heartbeats as remote, whatever `remoteTopics` says in its docs.
        "remote primary.heartbeats",
        "remote primary.orders",
        "upstream primary",
    ];
    for policy in ["default", "identity"] {
        let found = mirror_tools(version, &bootstrap, policy, "primary", &groups);
        let (times_ms, found) = without_times(found);
        assert_eq!(found, expected, "{policy}");
        let now_ms = now_ms();
        let plausible = |time: &i64| (started_ms..=now_ms).contains(time);
        assert!(times_ms.iter().all(plausible), "{times_ms:?} {started_ms}");
    }

    // Told to end, it writes what it has just been given.
    running.note("audit", "orders", 0, 5, "");
    running.end();
    let last = checkpoint("audit", "orders", 0, 5, "");
    assert_eq!(written(&bootstrap).last(), Some(&last));
    assert_topics_are_compacted(&bootstrap);
}

fn assert_topics_are_compacted(bootstrap: &str) {
    for topic in ["heartbeats", "primary.heartbeats", CHECKPOINTS] {
        assert!(CompatTopics::new("primary").contains(topic));
        let cluster = wire_cluster(bootstrap);
        let topics = [topic.to_owned()];
        let configs = block_on(wire::describe_topic_configs(&cluster, &topics));
        let configs = configs[topic].as_ref().expect("the topic is described");
        let policy = configs.get("cleanup.policy");
        let policy = policy.and_then(|value| value.value.as_deref());
        assert_eq!(policy, Some("compact"), "{topic}");
    }
}

/// Splits what the tools found into heartbeats' times and everything else.
fn without_times(found: Vec<String>) -> (Vec<i64>, Vec<String>) {
    let mut times = Vec::new();
    let rest = found.into_iter().map(|line| {
        let Some(beat) = line.strip_prefix("heartbeat ") else {
            return line;
        };
        let (names, time) = beat.rsplit_once(' ').expect("it ends with its time");
        times.push(time.parse().expect("a time in ms"));
        format!("heartbeat {names}")
    });
    let rest = rest.collect();
    (times, rest)
}
