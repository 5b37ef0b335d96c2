//! What `check` and `plan` report. Defined here because the flow code makes them and the
//! command line prints them.

use serde::{Deserialize, Serialize};

use super::metadata::{Drift, DriftKind, Obstacle};

/// The action where looking failed.
const NOT_COMPARED: &str = "not_compared";

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Checked and right.
    Ok,
    /// It works, but somebody should know.
    Warning,
    /// It will not work like this.
    Error,
}

/// One thing that `twinlog check` looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How serious it is.
    pub level: Level,
    /// What was looked at, such as `cluster primary`.
    pub subject: String,
    /// What was found, in one line.
    pub message: String,
    /// What to do about it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// Something that is right.
    pub fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, message)
    }

    /// Something that somebody should know.
    pub fn warning(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Warning, subject, message)
    }

    /// Something that will not work.
    pub fn error(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Error, subject, message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn new(level: Level, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            level,
            subject: subject.into(),
            message: message.into(),
            hint: None,
        }
    }
}

/// One thing on a target that isn't as the source has it, and what `twinlog run` would do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// The flow that would change it.
    pub flow: String,
    /// What kind of thing; absent in answers of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<DriftKind>,
    /// What would be done: `create`, `grow`, `adopt` or `refuse` for topics; else a
    /// [`DriftAction`](super::metadata::DriftAction), or `not_compared` where looking failed.
    pub action: String,
    /// What it would be done to, such as `topic orders`.
    pub subject: String,
    /// How, in one line.
    pub detail: String,
    /// What the source has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What the target has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why, where that isn't obvious, and what an operator must do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether somebody should act, or `run` would: what is only held or left alone isn't.
    #[serde(default)]
    pub counts: bool,
}

impl PlannedChange {
    /// A change to a topic as a whole.
    pub fn topic(flow: &str, action: &str, target_topic: &str, detail: String) -> Self {
        Self {
            flow: flow.to_owned(),
            kind: Some(DriftKind::Topic),
            action: action.to_owned(),
            subject: format!("topic {target_topic}"),
            detail,
            source: None,
            target: None,
            why: None,
            counts: true,
        }
    }

    /// What a comparison found.
    pub fn drift(flow: &str, drift: Drift) -> Self {
        let counts = drift.needs_attention();
        let why = match (drift.why, drift.failure) {
            (why, None) => why,
            (_, Some(failure)) => Some(failure.in_words()),
        };
        Self {
            flow: flow.to_owned(),
            kind: Some(drift.kind),
            action: drift.action.word().to_owned(),
            subject: drift.subject,
            detail: drift.detail,
            source: drift.source,
            target: drift.target,
            why,
            counts,
        }
    }

    /// Whether it says that something couldn't be compared.
    pub fn is_obstacle(&self) -> bool {
        self.action == NOT_COMPARED
    }

    /// What couldn't be compared.
    pub fn obstacle(flow: &str, obstacle: Obstacle) -> Self {
        Self {
            flow: flow.to_owned(),
            kind: Some(obstacle.kind),
            action: NOT_COMPARED.to_owned(),
            subject: format!("{} of the {}", obstacle.kind.plural(), obstacle.cluster),
            detail: obstacle.message,
            source: None,
            target: None,
            why: obstacle.hint,
            counts: obstacle.is_problem,
        }
    }
}

/// `1 topic`, `2 topics`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}
