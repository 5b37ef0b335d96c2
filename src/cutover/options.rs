//! What the operator asked for.

use std::collections::BTreeSet;
use std::time::Duration;

pub use crate::telemetry::failover::AcceptedLoss;

use crate::state::{CutoverKind, TopicSet};

/// How writers are kept from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FenceMode {
    /// By ACLs that deny everybody to write to the copied topics.
    Acl,
    /// By the operator: the command waits until nothing is written any more.
    Manual,
}

impl FenceMode {
    /// What the journal's word means.
    pub fn named(word: &str) -> Self {
        match word {
            "manual" => Self::Manual,
            _ => Self::Acl,
        }
    }

    /// The word for the journal.
    pub fn word(self) -> &'static str {
        match self {
            Self::Acl => "acl",
            Self::Manual => "manual",
        }
    }
}

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Planned or unplanned.
    pub kind: CutoverKind,
    /// These topics, by their names on the source; empty for all.
    pub topics: BTreeSet<String>,
    /// The loss that is accepted (unplanned).
    pub accept_loss: AcceptedLoss,
    /// How writers are kept away (planned).
    pub fence: FenceMode,
    /// Offsets of padding per partition beyond twice the bound (unplanned).
    pub padding: u64,
    /// How long is waited for writers, transactions and the copy, each.
    pub wait: Duration,
    /// How long nothing may be written before it is proven that nothing is, where the operator says so.
    pub quiet_for: Option<Duration>,
}

/// Between the two looks at all log ends that must agree.
const QUIET_FOR: Duration = Duration::from_secs(1);
/// The same where nobody is refused: producers may pause.
const QUIET_FOR_MANUAL: Duration = Duration::from_secs(5);
/// `--quiet-for` is no longer than this, in seconds.
pub const QUIET_FOR_SECONDS_MAX: u64 = 600;

impl Options {
    /// How long nothing may be written before it is proven that nothing is.
    pub fn quiet_for(&self) -> Duration {
        match self.fence {
            FenceMode::Acl => QUIET_FOR,
            FenceMode::Manual => self.quiet_for.unwrap_or(QUIET_FOR_MANUAL),
        }
    }

    /// The topics as the journal has them.
    pub fn topic_set(&self) -> TopicSet {
        if self.topics.is_empty() {
            TopicSet::All
        } else {
            TopicSet::List(self.topics.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_operators_own_fence_has_another_proof_of_quiet() {
        let options = |fence, quiet_for: Option<u64>| Options {
            kind: CutoverKind::Planned,
            topics: BTreeSet::new(),
            accept_loss: AcceptedLoss::Records(0),
            fence,
            padding: 0,
            wait: Duration::from_secs(60),
            quiet_for: quiet_for.map(Duration::from_secs),
        };
        let seconds = |fence, quiet_for| options(fence, quiet_for).quiet_for().as_secs();
        assert_eq!(seconds(FenceMode::Acl, None), 1);
        assert_eq!(seconds(FenceMode::Acl, Some(0)), 1);
        assert_eq!(seconds(FenceMode::Manual, None), 5);
        assert_eq!(seconds(FenceMode::Manual, Some(0)), 0);
        assert_eq!(seconds(FenceMode::Manual, Some(30)), 30);
    }
}
