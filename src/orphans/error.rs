//! Why orphans can't be looked at, or what was asked for isn't done.

use std::fmt::Display;

use crate::state::StateError;
use crate::wire::WireError;

/// What the operator is told.
#[derive(Clone, Debug)]
pub struct OrphansError {
    /// One line, or several.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl OrphansError {
    /// A failure.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    /// A failure while something was done.
    pub fn doing(what: impl Display, error: impl Display) -> Self {
        Self::new(format!("{what}: {error}"))
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Display for OrphansError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for OrphansError {}

impl From<StateError> for OrphansError {
    fn from(error: StateError) -> Self {
        Self {
            hint: error.cure_if_not_reached().map(str::to_owned),
            ..Self::new(error.to_string())
        }
    }
}

impl From<WireError> for OrphansError {
    fn from(error: WireError) -> Self {
        Self {
            hint: error.cure_if_not_reached().map(str::to_owned),
            ..Self::new(error.to_string())
        }
    }
}
