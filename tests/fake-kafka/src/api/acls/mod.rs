//! The APIs of ACLs (`AclApis`, `AclControlManager`).

pub(super) mod create;
pub(super) mod delete;
pub(super) mod describe;

use kafka_protocol::ResponseError;

use super::{Asked, Reply, text};
use crate::acls::Operation;
use crate::state::State;

/// Why nothing is done: the code, and words for people.
type Refused = (ResponseError, &'static str);

/// Whether whoever asks may do this with ACLs, and whether there are any
/// (`AuthHelper.authorizeClusterOperation`).
fn check(
    state: &State,
    asked: &Asked<'_>,
    operation: Operation,
    without_authorizer: &'static str,
) -> Result<(), Refused> {
    if !state.allows_on_cluster(asked, operation) {
        let error = ResponseError::ClusterAuthorizationFailed;
        return Err((error, "Cluster authorization failed."));
    }
    if !state.acls.is_on {
        return Err((ResponseError::SecurityDisabled, without_authorizer));
    }
    Ok(())
}
