//! One file per scenario.

mod throughput;

use crate::options::Options;
use crate::report::Outcome;

/// The names of all copied topics begin like this.
pub const PREFIX: &str = "bench-";

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// 1 KiB JSON records in large lz4 batches.
    Throughput,
    /// 100 B records in batches of a few.
    Small,
}

impl Scenario {
    /// In the order in which they run.
    pub const ALL: [Self; 2] = [Self::Throughput, Self::Small];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Small => "small",
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
        }
    }
}
