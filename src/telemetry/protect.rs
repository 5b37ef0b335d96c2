//! Whether others are kept from the copies, as `status` shows it.

use serde::{Deserialize, Serialize};

/// The protection of a flow's copies (`protect: true`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectStatus {
    /// Copies that only Twinlog and super users may write to.
    pub topics: usize,
    /// Why that isn't so, or not sure; absent where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When the ACLs were compared last, milliseconds since the epoch.
    pub looked_at_ms: i64,
}

impl ProtectStatus {
    /// In one line.
    pub fn in_words(&self) -> String {
        match &self.problem {
            None => format!(
                "protected: only Twinlog and super users may write to {} topic(s)",
                self.topics
            ),
            Some(problem) => format!("NOT protected: {problem}"),
        }
    }
}
