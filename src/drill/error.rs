//! Why there is no rehearsal.

use crate::cutover::CutoverError;
use crate::state::StateError;
use crate::wire::WireError;

/// What the operator is told, and how the command ends.
#[derive(Clone, Debug)]
pub struct DrillError {
    /// One line, or several.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// It isn't the time for a rehearsal: another one runs, or a real cut-over.
    pub is_refusal: bool,
}

impl DrillError {
    /// A failure.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            is_refusal: false,
        }
    }

    /// A refusal.
    pub fn refused(message: impl Into<String>) -> Self {
        Self {
            is_refusal: true,
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

impl std::fmt::Display for DrillError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DrillError {}

impl From<CutoverError> for DrillError {
    fn from(error: CutoverError) -> Self {
        Self {
            message: error.message,
            hint: error.hint,
            is_refusal: error.loses_data,
        }
    }
}

impl From<StateError> for DrillError {
    fn from(error: StateError) -> Self {
        CutoverError::from(error).into()
    }
}

impl From<WireError> for DrillError {
    fn from(error: WireError) -> Self {
        CutoverError::from(error).into()
    }
}

impl From<rdkafka::error::KafkaError> for DrillError {
    fn from(error: rdkafka::error::KafkaError) -> Self {
        Self::failed(error.to_string())
    }
}
