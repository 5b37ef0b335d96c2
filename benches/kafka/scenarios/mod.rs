//! One file per scenario.

mod crash;
mod failover;
mod groups;
mod idle;
mod latency;
mod longline;
mod metadata;
mod start;
mod throughput;
mod transactions;

use std::time::{Duration, Instant};

use crate::contestant::Running;
use crate::options::Options;
use crate::report::Outcome;
use crate::support::eventually;
use crate::usage::{self, Usage};
use crate::watch::Watch;

/// The names of all copied topics begin like this.
pub const PREFIX: &str = "bench-";

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// 1 KiB JSON records in large lz4 batches.
    Throughput,
    /// 100 B records in batches of a few.
    Small,
    /// Delay under a steady load.
    Latency,
    /// Process start to first record.
    Start,
    /// kill -9 under load.
    Crash,
    /// Many partitions without traffic.
    Idle,
    /// The source 50 ms away.
    Longline,
    /// Consumer groups' positions.
    Groups,
    /// Configs and ACLs.
    Metadata,
    /// Failovers and a failback of many partitions and groups.
    Failover,
    /// Many short transactions.
    Transactions,
    /// The same with the target 10 ms away.
    TransactionsFar,
}

impl Scenario {
    /// In the order in which they run.
    pub const ALL: [Self; 12] = [
        Self::Throughput,
        Self::Small,
        Self::Latency,
        Self::Start,
        Self::Crash,
        Self::Idle,
        Self::Longline,
        Self::Groups,
        Self::Metadata,
        Self::Failover,
        Self::Transactions,
        Self::TransactionsFar,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Small => "small",
            Self::Latency => "latency",
            Self::Start => "start",
            Self::Crash => "crash",
            Self::Idle => "idle",
            Self::Longline => "longline",
            Self::Groups => "groups",
            Self::Metadata => "metadata",
            Self::Failover => "failover",
            Self::Transactions => "transactions",
            Self::TransactionsFar => "transactions-far",
        }
    }

    /// The reverse of [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|found| found.name() == name)
    }

    /// Runs it for every contestant.
    pub fn run(self, options: &Options) -> Outcome {
        match self {
            Self::Throughput => throughput::large(options),
            Self::Small => throughput::small(options),
            Self::Latency => latency::run(options),
            Self::Start => start::run(options),
            Self::Crash => crash::run(options),
            Self::Idle => idle::run(options),
            Self::Longline => longline::run(options),
            Self::Groups => groups::run(options),
            Self::Metadata => metadata::run(options),
            Self::Failover => failover::run(options),
            Self::Transactions => transactions::near(options),
            Self::TransactionsFar => transactions::far(options),
        }
    }
}

/// Waits until the contestant has made the topic on the target.
fn await_topic(watch: &Watch, running: &Running) {
    eventually(
        Duration::from_secs(120),
        "the topic is on the target",
        || {
            watch
                .exists()
                .then_some(())
                .ok_or_else(|| running.log_tail())
        },
    );
}

/// A copy from its first record to its last.
struct Copied {
    /// What the contestant had used, and how many offsets were there, at the first look that saw any.
    first: (Usage, i64),
    /// What it has used at the end.
    last: Usage,
}

/// Looks every `pause` until all is copied.
fn await_complete(
    watch: &mut Watch,
    running: &Running,
    (pause, deadline): (Duration, Duration),
) -> Copied {
    let mut first = (usage::of(running.id()), 0);
    let started = Instant::now();
    while !watch.is_complete() {
        let seen = watch.look();
        if first.1 == 0 {
            first = (usage::of(running.id()), seen);
        }
        assert!(
            started.elapsed() < deadline,
            "{seen} offsets are copied, not all:\n{}",
            running.log_tail()
        );
        std::thread::sleep(pause);
    }
    Copied {
        first,
        last: usage::of(running.id()),
    }
}

/// The middle of sorted numbers.
fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
