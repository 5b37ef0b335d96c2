//! Why a cut-over doesn't go on.

use crate::flow::deny::DenyError;
use crate::flow::fenced::FenceError;
use crate::state::StateError;
use crate::wire::WireError;

/// What the operator is told, and how the command ends.
#[derive(Clone, Debug)]
pub struct CutoverError {
    /// One line, or several.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Going on would lose data.
    pub loses_data: bool,
}

impl CutoverError {
    /// A failure.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            loses_data: false,
        }
    }

    /// A refusal, because going on would lose data.
    pub fn refused(message: impl Into<String>) -> Self {
        Self {
            loses_data: true,
            ..Self::failed(message)
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for CutoverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CutoverError {}

impl From<StateError> for CutoverError {
    fn from(error: StateError) -> Self {
        Self {
            hint: error.cure_if_not_reached().map(str::to_owned),
            ..Self::failed(error.to_string())
        }
    }
}

impl From<WireError> for CutoverError {
    fn from(error: WireError) -> Self {
        Self {
            hint: error.cure_if_not_reached().map(str::to_owned),
            ..Self::failed(error.to_string())
        }
    }
}

impl From<FenceError> for CutoverError {
    fn from(error: FenceError) -> Self {
        match error {
            FenceError::Deny(error) => error.into(),
            FenceError::State(error) => error.into(),
        }
    }
}

impl From<DenyError> for CutoverError {
    fn from(error: DenyError) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            loses_data: false,
        }
    }
}
