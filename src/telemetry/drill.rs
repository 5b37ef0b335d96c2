//! How the last rehearsal of a failover ended, as it is shown and remembered.

use serde::{Deserialize, Serialize};

/// How one rehearsal ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DrillResult {
    /// Its id, which begins with its date.
    pub id: String,
    /// When it ended, milliseconds since the epoch.
    pub ended_ms: i64,
    /// `passed`, `passed_with_remarks` or `failed`.
    pub verdict: String,
    /// The longest recovery time that was measured, seconds.
    pub rto_seconds: Option<f64>,
    /// The largest loss that was measured, seconds.
    pub rpo_seconds: Option<f64>,
    /// The digest of its report's JSON, SHA-256 in hexadecimal.
    pub report_sha256: String,
}
