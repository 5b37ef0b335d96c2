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
}

impl Options {
    /// The topics as the journal has them.
    pub fn topic_set(&self) -> TopicSet {
        if self.topics.is_empty() {
            TopicSet::All
        } else {
            TopicSet::List(self.topics.clone())
        }
    }
}
