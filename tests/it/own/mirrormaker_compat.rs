//! MirrorMaker 2's own Java tools read what `CompatWriter` writes.

use std::sync::Arc;
use std::time::Duration;

use crate::support::admin::partition_count;
use crate::support::ends::Ends;
use crate::support::flow::{block_on, wire_cluster};
use crate::support::mirror_tools;
use crate::support::wait::eventually;
use crate::support::{Cluster, ClusterOptions, Isolation, KafkaVersion, create_topic, read_all};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use twinlog::groups::mirrormaker::{Checkpoint, CompatTopics, CompatWriter};
use twinlog::telemetry::progress::now_ms;
use twinlog::wire;

const DEADLINE: Duration = Duration::from_secs(60);
const CHECKPOINTS: &str = "primary.checkpoints.internal";

fn checkpoint(group: &str, topic: &str, partition: i32, offset: i64, metadata: &str) -> Checkpoint {
    Checkpoint::new(group, topic, partition, offset + 7, offset, metadata).unwrap()
}

/// A writer at work, with a runtime of its own.
struct Running {
    writer: Arc<CompatWriter>,
    cancel: CancellationToken,
    runtime: tokio::runtime::Runtime,
    run: JoinHandle<()>,
}

impl Running {
    fn start(bootstrap: &str) -> Self {
        let cluster = wire_cluster(bootstrap);
        let writer = CompatWriter::new(cluster, "primary".to_owned(), "standby".to_owned());
        let writer = Arc::new(writer);
        let cancel = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let run = {
            let (writer, cancel) = (writer.clone(), cancel.clone());
            runtime.spawn(async move { writer.run(cancel).await })
        };
        Self {
            writer,
            cancel,
            runtime,
            run,
        }
    }

    fn note(&self, group: &str, topic: &str, partition: i32, offset: i64, metadata: &str) {
        let checkpoint = checkpoint(group, topic, partition, offset, metadata);
        self.writer.note(checkpoint);
    }

    /// Waits until the writer knows that everything noted is written: what the topic shows may
    /// still lack its answer, and without one it is written again.
    fn await_written(&self) {
        eventually(DEADLINE, "everything noted is written", || {
            match self.writer.unwritten() {
                0 => Ok(()),
                unwritten => Err(unwritten),
            }
        });
    }

    /// Cancels it and waits until it has ended, well within a request's timeout of 30 s.
    fn end(self) {
        self.cancel.cancel();
        self.runtime.block_on(async {
            let ended = tokio::time::timeout(Duration::from_secs(10), self.run).await;
            ended.expect("it ends in time").expect("it ends by itself");
        });
    }
}

/// Waits until a topic exists and has exactly this many records.
fn await_records(bootstrap: &str, topic: &str, records: i64) {
    await_made(bootstrap, topic);
    let ends = Ends::new(bootstrap, topic, 1);
    eventually(DEADLINE, &format!("{topic} has {records} records"), || {
        let total = ends.total();
        if total == records { Ok(()) } else { Err(total) }
    });
}

fn await_made(bootstrap: &str, topic: &str) {
    eventually(
        DEADLINE,
        &format!("{topic} exists"),
        || match partition_count(bootstrap, topic) {
            1 => Ok(()),
            count => Err(count),
        },
    );
}

/// Checkpoints in the order in which they were written.
fn written(bootstrap: &str) -> Vec<Checkpoint> {
    read_all(bootstrap, CHECKPOINTS, Isolation::ReadUncommitted)
        .iter()
        .map(|seen| {
            let (key, value) = (seen.key.as_deref(), seen.value.as_deref());
            Checkpoint::decode(key.expect("a key"), value.expect("no tombstone")).unwrap()
        })
        .collect()
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

#[test]
fn the_java_tools_see_the_source_and_translate_offsets() {
    let version = KafkaVersion::V4_3;
    let standby = Cluster::start(version, ClusterOptions::named("standby"));
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

#[test]
fn a_target_that_is_away_costs_no_checkpoint_and_holds_nobody_up() {
    let mut standby = Cluster::start(KafkaVersion::V4_3, ClusterOptions::named("away"));
    let bootstrap = standby.bootstrap();
    standby.kill(1);
    let running = Running::start(&bootstrap);
    running.note("billing", "orders", 0, 1, "");
    running.note("billing", "orders", 1, 1, "");
    running.note("billing", "orders", 0, 2, "");
    standby.restart(1);
    running.await_written();
    // Both heartbeats topics are made by now, and nothing is written a second time for that.
    for topic in ["heartbeats", "primary.heartbeats"] {
        await_made(&bootstrap, topic);
        Ends::new(&bootstrap, topic, 1).await_above(1, DEADLINE);
    }
    running.await_written();
    await_records(&bootstrap, CHECKPOINTS, 2);
    standby.kill(1);
    running.note("billing", "orders", 1, 3, "");
    standby.restart(1);
    await_records(&bootstrap, CHECKPOINTS, 3);
    let newest = checkpoint("billing", "orders", 1, 3, "");
    assert_eq!(written(&bootstrap).last(), Some(&newest));

    // Frozen, it answers nothing.
    standby.signal(1, "STOP");
    running.note("billing", "orders", 1, 4, "");
    running.end();
}
