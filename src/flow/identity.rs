//! Which cluster a flow's source is. Another one under its address has other records, whatever its topics
//! are called: nothing is continued from it, and nothing is deleted for what it lacks.

use crate::state::{self, StateError, StateStore};
use crate::wire::{Cluster, WireError};

/// Holds the source to the cluster that the flow, or its last cut-over, began with: a broker of another one isn't asked
/// anything from here on.
///
/// # Errors
/// When the state can't be read; [`WireError::OtherCluster`] when another one answered already.
pub fn expect_source(store: &StateStore, flow: &str, source: &Cluster) -> Result<(), StateError> {
    match state::source_id(store, flow)? {
        Some(id) => source.expect(&id).map_err(StateError::Wire),
        None => Ok(()),
    }
}

/// The word for a source that can't be asked.
pub(super) fn source_reason(error: &WireError) -> &'static str {
    match error.is_other_cluster() {
        true => "source_replaced",
        false => "source_unreachable",
    }
}

/// The word for a target that can't be asked.
pub(super) fn target_reason(error: &WireError) -> &'static str {
    match error.is_other_cluster() {
        true => "target_replaced",
        false => "target_unreachable",
    }
}
