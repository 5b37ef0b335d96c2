//! One thing that was looked at, with its weight.

use serde::{Deserialize, Serialize};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Looked at and fine.
    Ok,
    /// The operator should know.
    Warning,
    /// The plan doesn't begin.
    Blocker,
    /// The plan doesn't begin, because it would lose data.
    LosesData,
}

impl Weight {
    /// All weights, the lightest first.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Blocker, Self::LosesData];

    /// The word for labels and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Blocker => "blocker",
            Self::LosesData => "loses_data",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What: a short, stable word.
    pub subject: String,
    /// How much it weighs.
    pub weight: Weight,
    /// What was found.
    pub reason: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    /// Without anything to do about it.
    pub fn new(subject: &str, weight: Weight, reason: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            weight,
            reason: reason.into(),
            hint: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The heaviest weight.
pub fn worst(checks: &[Check]) -> Weight {
    let weights = checks.iter().map(|check| check.weight);
    weights.max().unwrap_or(Weight::Ok)
}

/// More of one thing are counted, not named.
const NAMED_MAX: usize = 5;

/// The first few, and how many more.
pub(super) fn named(all: &[String]) -> String {
    named_up_to(NAMED_MAX, all)
}

/// The same with another limit.
pub(super) fn named_up_to(most: usize, all: &[String]) -> String {
    let first: Vec<&str> = all.iter().take(most).map(String::as_str).collect();
    let mut text = first.join(", ");
    if all.len() > most {
        text.push_str(&format!(" and {} more", all.len() - most));
    }
    text
}
