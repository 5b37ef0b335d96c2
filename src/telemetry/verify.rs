//! What comparing the target with the source has found, as it is shown and remembered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What kinds of differences there are, by their words.
pub const DIFFERENCE_KINDS: [&str; 14] = [
    "changed",
    "swapped",
    "missing",
    "added",
    "added_at_end",
    "partitions",
    "group",
    "config",
    "acl",
    "quota",
    "user",
    "held",
    "replicas",
    "made_anew",
];

/// How one comparison ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyResult {
    /// Milliseconds since the epoch.
    pub started_ms: i64,
    /// Milliseconds since the epoch.
    pub ended_ms: i64,
    /// `same`, `different` or `incomplete`.
    pub verdict: String,
    /// How much of the records was compared, 0 to 1.
    pub coverage: f64,
    /// Source records compared.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Differences by kind.
    pub differences: BTreeMap<String, u64>,
}

impl VerifyResult {
    /// How many differences of all kinds.
    pub fn count(&self) -> u64 {
        self.differences.values().sum()
    }
}

/// What is known of a flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifySummary {
    /// The last results by mode: `quick`, `sample`, `full`, `background`.
    pub last: BTreeMap<String, VerifyResult>,
    /// The round that goes on in the background; absent where that is off.
    #[serde(default)]
    pub background: Option<BackgroundRound>,
}

/// Comparing in the background.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackgroundRound {
    /// How much of this round is done, 0 to 1; 1 between rounds.
    pub ratio: f64,
    /// Bytes of keys, values and headers read since the process started, both sides together.
    pub bytes: u64,
    /// Why the last round could not be finished.
    #[serde(default)]
    pub problem: Option<String>,
}

impl VerifySummary {
    /// The newest result in which records were compared, and its mode.
    pub fn newest(&self) -> Option<(&str, &VerifyResult)> {
        let last = self.last.iter().filter(|(mode, _)| *mode != "quick");
        let newest = last.max_by_key(|(_, result)| result.ended_ms);
        newest.map(|(mode, result)| (mode.as_str(), result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_look_is_no_comparison_of_records() {
        let at = |ended_ms| VerifyResult {
            ended_ms,
            ..VerifyResult::default()
        };
        let mut summary = VerifySummary::default();
        assert_eq!(summary.newest(), None);
        for (mode, ended_ms) in [("quick", 9), ("sample", 2), ("full", 5)] {
            summary.last.insert(mode.to_owned(), at(ended_ms));
        }
        assert_eq!(summary.newest(), Some(("full", &at(5))));
    }
}
