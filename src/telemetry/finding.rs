//! What `check` and `plan` report. Defined here because the flow code makes them and the
//! command line prints them.

use serde::{Deserialize, Serialize};

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

/// One thing that `twinlog run` would change on a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// The flow that would change it.
    pub flow: String,
    /// What would be done, such as `create topic`.
    pub action: String,
    /// What it would be done to, such as the topic's name.
    pub subject: String,
    /// How, in one line.
    pub detail: String,
}
