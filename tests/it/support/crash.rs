//! What the crash tests share: when to strike, and how the copy is judged afterwards.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::admin::{end_offset, partition_count};
use super::cluster::{Cluster, ClusterOptions};
use super::compare::await_same;
use super::twinlog::Twinlog;
use super::version::KafkaVersion;
use super::wait::eventually;

/// Random moments from a printed seed; `TWINLOG_SEED` repeats a run's choices.
#[derive(Debug)]
pub struct Dice(StdRng);

impl Dice {
    /// Seeded from the environment, or at random.
    pub fn new(test: &str) -> Self {
        let seed = std::env::var("TWINLOG_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(rand::random::<u64>);
        println!("{test}: TWINLOG_SEED={seed}");
        Self(StdRng::seed_from_u64(seed))
    }

    /// A number from `least` to `most`.
    pub fn number(&mut self, least: i64, most: i64) -> i64 {
        self.0.random_range(least..=most)
    }

    /// Sleeps for a random time. The one sleep of these tests: a crash has no condition.
    pub fn wait(&mut self, least_ms: u64, most_ms: u64) {
        let pause_ms = self.0.random_range(least_ms..=most_ms);
        std::thread::sleep(Duration::from_millis(pause_ms));
    }
}

/// Waits until Twinlog says that nothing is left to copy.
pub fn await_caught_up(twinlog: &Twinlog, deadline: Duration) {
    twinlog.wait_until(deadline, "everything is caught up", |status| {
        let flow = &status["flows"][0];
        flow["state"] == "running"
            && flow["totals"]["lag_records"] == 0
            && flow["totals"]["lag_unknown_partitions"] == 0
            && flow["topics_to_prepare"] == 0
            && flow["totals"]["partitions"].as_u64() > Some(0)
    });
}

/// Judges topics that nobody writes to any more: every record once, in order, at the same offset,
/// read in both isolation levels, and logs that end at the same offset.
pub fn await_all_same(source: &str, target: &str, topics: &[&str], deadline: Duration) {
    for topic in topics {
        let records = await_same(source, target, topic, deadline);
        assert!(!records.is_empty(), "{topic} is empty");
        for partition in 0..partition_count(source, topic) {
            let source_end = end_offset(source, topic, partition);
            let what = format!("{topic}-{partition} ends at {source_end}");
            eventually(deadline, &what, || {
                match end_offset(target, topic, partition) {
                    end if end == source_end => Ok(()),
                    end => Err(end),
                }
            });
        }
        println!("{topic}: {} records are the same", records.len());
    }
}

/// A source and a target of one node each that the test may break.
pub fn two_clusters(version: KafkaVersion) -> (Cluster, Cluster) {
    // Both JVMs boot at the same time.
    let mut source = Cluster::launch(version, ClusterOptions::named("source"));
    let mut target = Cluster::launch(version, ClusterOptions::named("target"));
    source.await_ready();
    target.await_ready();
    (source, target)
}
