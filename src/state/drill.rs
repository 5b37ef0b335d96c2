//! What is remembered of rehearsals.

use serde::{Deserialize, Serialize};

use super::Operator;

/// `drill-open/<flow>/<id>`: a rehearsal that may have left something. Written before anything is
/// made, removed when nothing of it is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenDrill {
    /// Format version, 1.
    pub v: u32,
    /// What the name of everything that it makes begins with, on both clusters.
    pub root: String,
    /// When it began, milliseconds since the epoch.
    pub began_ms: i64,
    /// Who began it.
    pub operator: Operator,
}

/// `drill/<flow>`: the last rehearsal that came to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// Format version, 1.
    pub v: u32,
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
