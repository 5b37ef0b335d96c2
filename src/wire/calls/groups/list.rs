//! All groups of a cluster.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ListGroupsRequest;

use crate::wire::{Cluster, ErrorContext, Role, WireError};

/// 5 tells a group's type (KIP-848), 4 its state.
const VERSION_MAX: i16 = 5;

/// A group as its coordinator lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its name.
    pub group_id: String,
    /// `classic`, `consumer`, `share`, `streams`; empty from brokers before 3.8.
    pub group_type: String,
    /// `consumer` for consumers; empty for a group that was only committed for.
    pub protocol_type: String,
    /// `Stable`, `Empty`, ...
    pub state: String,
}

/// Lists every group that may be seen (DESCRIBE on it).
///
/// # Errors
/// When a broker can't be asked: its groups would be missing.
pub async fn list_groups(cluster: &Cluster) -> Result<Vec<ListedGroup>, WireError> {
    let metadata = cluster.metadata(Some(&[])).await?;
    let mut listed = Vec::new();
    for broker in metadata.brokers.keys() {
        let connection = cluster.connection(*broker, Role::Coordinator).await?;
        let request = ListGroupsRequest::default();
        let response = connection.call(request, VERSION_MAX).await?;
        if let Some(code) = ResponseError::try_from_code(response.error_code) {
            let context = ErrorContext {
                broker: Some(*broker),
                api: Some("ListGroups"),
                ..ErrorContext::cluster(cluster.name())
            };
            return Err(WireError::server(context, code, None));
        }
        listed.extend(response.groups.into_iter().map(|group| ListedGroup {
            group_id: group.group_id.0.to_string(),
            group_type: group.group_type.to_string().to_lowercase(),
            protocol_type: group.protocol_type.to_string(),
            state: group.group_state.to_string(),
        }));
    }
    Ok(listed)
}
