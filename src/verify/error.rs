//! Why a comparison can't be made.

use crate::state::StateError;

/// Why nothing could be compared. What goes wrong with one partition is in its report instead.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is nothing that says what is a copy of what.
    #[error(
        "the target has no Twinlog state: `twinlog run` never ran, so there is no copy to verify"
    )]
    NoState,
    /// The selection leaves nothing.
    #[error("flow {0} copies no topic that is selected")]
    NothingSelected(String),
    /// The state can't be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A cluster doesn't answer, so nothing can be compared.
    #[error("the {side} {cluster} doesn't answer: {reason}")]
    Silent {
        /// `source` or `target`.
        side: &'static str,
        /// Its name in the config.
        cluster: String,
        /// What happened.
        reason: String,
    },
    /// A cluster can't be asked.
    #[error("cluster {cluster}: {doing} failed: {reason}")]
    Cluster {
        /// Its name in the config.
        cluster: String,
        /// What was tried.
        doing: &'static str,
        /// librdkafka's words.
        reason: String,
    },
    /// The run was ended from outside.
    #[error("stopped before the end")]
    Cancelled,
    /// A reader ended without an answer.
    #[error("a bug in Twinlog: {0}")]
    Bug(String),
}
