//! What is remembered of rehearsals.

use serde::{Deserialize, Serialize};

use super::Operator;
use crate::telemetry::drill::DrillResult;

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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// Format version, 1.
    pub v: u32,
    /// How it ended.
    #[serde(flatten)]
    pub result: DrillResult,
}
