//! Bytes that a flow sent to its clusters and got from them: a far side is billed by them.

use serde::{Deserialize, Serialize};

/// One count since the process started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// The cluster's name in the config.
    pub cluster: String,
    /// `sent` to it, or `received` from it.
    pub direction: String,
    /// What the connections were for: `fetch`, `produce`, `groups`, `state` or `other`.
    pub purpose: String,
    /// So many.
    pub bytes: u64,
}

/// Who counts a flow's bytes.
pub trait TrafficReporter: Send + Sync + std::fmt::Debug {
    /// What was counted so far.
    fn traffic(&self) -> Vec<TrafficStatus>;
}
