//! `CompatWriter` while its cluster is away.

use std::sync::Arc;
use std::time::Duration;

use crate::support::admin::partition_count;
use crate::support::ends::Ends;
use crate::support::flow::wire_cluster;
use crate::support::wait::eventually;
use crate::support::{Cluster, ClusterOptions, Isolation, KafkaVersion, read_all};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use twinlog::groups::mirrormaker::{Checkpoint, CompatWriter};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const CHECKPOINTS: &str = "primary.checkpoints.internal";

pub(crate) fn checkpoint(
    group: &str,
    topic: &str,
    partition: i32,
    offset: i64,
    metadata: &str,
) -> Checkpoint {
    Checkpoint::new(group, topic, partition, offset + 7, offset, metadata).unwrap()
}

/// A writer at work, with a runtime of its own.
pub(crate) struct Running {
    writer: Arc<CompatWriter>,
    cancel: CancellationToken,
    runtime: tokio::runtime::Runtime,
    run: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(bootstrap: &str) -> Self {
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

    pub(crate) fn note(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
        metadata: &str,
    ) {
        let checkpoint = checkpoint(group, topic, partition, offset, metadata);
        self.writer.note(checkpoint);
    }

    /// Waits until the writer knows that everything noted is written: what the topic shows may
    /// still lack its answer, and without one it is written again.
    pub(crate) fn await_written(&self) {
        eventually(DEADLINE, "everything noted is written", || {
            match self.writer.unwritten() {
                0 => Ok(()),
                unwritten => Err(unwritten),
            }
        });
    }

    /// Cancels it and waits until it has ended, well within a request's timeout of 30 s.
    pub(crate) fn end(self) {
        self.cancel.cancel();
        self.runtime.block_on(async {
            let ended = tokio::time::timeout(Duration::from_secs(20), self.run).await;
            ended.expect("it ends in time").expect("it ends by itself");
        });
    }
}

/// Waits until a topic exists and has exactly this many records.
pub(crate) fn await_records(bootstrap: &str, topic: &str, records: i64) {
    await_made(bootstrap, topic);
    let ends = Ends::new(bootstrap, topic, 1);
    eventually(DEADLINE, &format!("{topic} has {records} records"), || {
        let total = ends.total();
        if total == records { Ok(()) } else { Err(total) }
    });
}

pub(crate) fn await_made(bootstrap: &str, topic: &str) {
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
pub(crate) fn written(bootstrap: &str) -> Vec<Checkpoint> {
    read_all(bootstrap, CHECKPOINTS, Isolation::ReadUncommitted)
        .iter()
        .map(|seen| {
            let (key, value) = (seen.key.as_deref(), seen.value.as_deref());
            Checkpoint::decode(key.expect("a key"), value.expect("no tombstone")).unwrap()
        })
        .collect()
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
