//! All groups of a cluster.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ListGroupsRequest;

use crate::wire::calls::coordinators::{Leaderless, ask_all, context};
use crate::wire::{Cluster, Role, WireError};

/// The coordinators' topic.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// 5 tells a group's type (KIP-848), 4 its state.
const VERSION_MAX: i16 = 5;
const API: &str = "ListGroups";

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

impl ListedGroup {
    /// Whether what it has read are committed positions: one of consumers, of Kafka Streams (KIP-1071), one that was
    /// only committed for, or one of a type that is newer than this. Connect's workers and the like have a group
    /// to agree in, and no positions.
    pub fn is_of_consumers(&self) -> bool {
        let speaks = matches!(self.protocol_type.as_str(), "" | "consumer" | "streams");
        self.group_type != "share" && (speaks || self.unknown_type().is_some())
    }

    /// Its type, where this version doesn't know it (`Group.GroupType`): whatever else than positions it has isn't followed.
    pub fn unknown_type(&self) -> Option<&str> {
        match self.group_type.as_str() {
            // "unknown" is what a coordinator says of a type that it doesn't tell.
            "" | "unknown" | "classic" | "consumer" | "share" | "streams" => None,
            other => Some(other),
        }
    }
}

/// The groups of a cluster, as far as its brokers told them. Whether one that isn't among them is gone
/// is only known when its coordinator says so.
#[derive(Clone, Debug, Default)]
pub struct ListedGroups {
    /// What was told.
    pub groups: Vec<ListedGroup>,
    /// The brokers that didn't tell their groups, and why.
    pub silent: Vec<WireError>,
    /// What of [`OFFSETS_TOPIC`] has no leader: nobody coordinates those groups.
    pub leaderless: Leaderless,
}

impl ListedGroups {
    /// Why groups may be missing.
    pub fn why_incomplete(&self) -> Option<String> {
        self.why_unanswered()
            .or_else(|| self.leaderless.unknown(OFFSETS_TOPIC))
    }

    /// Why groups are missing, if some are known to be.
    pub fn why_unanswered(&self) -> Option<String> {
        let silent = self.silent.first().map(ToString::to_string);
        silent.or_else(|| self.leaderless.known(OFFSETS_TOPIC))
    }
}

/// Lists every group that may be seen (DESCRIBE on it).
///
/// # Errors
/// When no broker at all told its groups.
pub async fn list_groups(cluster: &Cluster) -> Result<ListedGroups, WireError> {
    let told = ask_all(
        cluster,
        (OFFSETS_TOPIC, API),
        |cluster, broker| async move { of_broker(&cluster, broker).await },
    );
    let told = told.await?;
    match told.silent.first() {
        Some(error) if told.answers.is_empty() => Err(error.clone()),
        _ => Ok(ListedGroups {
            groups: told.answers.into_iter().flatten().collect(),
            silent: told.silent,
            leaderless: told.leaderless,
        }),
    }
}

async fn of_broker(cluster: &Cluster, broker: i32) -> Result<Vec<ListedGroup>, WireError> {
    let connection = cluster.connection(broker, Role::Coordinator).await?;
    let response = connection
        .call(ListGroupsRequest::default(), VERSION_MAX)
        .await?;
    // A coordinator that still loads its partitions says so, and lists the others only.
    if let Some(code) = ResponseError::try_from_code(response.error_code) {
        return Err(WireError::server(context(cluster, broker, API), code, None));
    }
    let groups = response.groups.into_iter().map(|group| ListedGroup {
        group_id: group.group_id.0.to_string(),
        group_type: group.group_type.to_string().to_lowercase(),
        protocol_type: group.protocol_type.to_string(),
        state: group.group_state.to_string(),
    });
    Ok(groups.collect())
}

/// Whether the answer about a group is that we may not see it, or a topic that it reads.
pub fn is_refused_group(error: &WireError) -> bool {
    matches!(
        error.server_code(),
        Some(
            ResponseError::GroupAuthorizationFailed
                | ResponseError::TopicAuthorizationFailed
                | ResponseError::ClusterAuthorizationFailed
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(group_type: &str, protocol_type: &str) -> ListedGroup {
        ListedGroup {
            group_id: "g".to_owned(),
            group_type: group_type.to_owned(),
            protocol_type: protocol_type.to_owned(),
            state: "Stable".to_owned(),
        }
    }

    /// As Kafka 4.3 lists them (`Group.asListedGroup`), and older ones without a type.
    #[test]
    fn every_kind_of_group_with_positions_is_asked_for_them() {
        for (group_type, protocol_type) in [
            ("classic", "consumer"),
            ("classic", ""),
            ("consumer", "consumer"),
            ("streams", "streams"),
            ("", "consumer"),
            ("", ""),
        ] {
            let group = listed(group_type, protocol_type);
            assert!(group.is_of_consumers() && group.unknown_type().is_none());
        }
        for (group_type, protocol_type) in [
            ("share", "share"),
            ("classic", "connect"),
            ("classic", "sr"),
            ("", "connect"),
        ] {
            assert!(!listed(group_type, protocol_type).is_of_consumers());
        }
        let newer = listed("queue", "queue");
        assert!(newer.is_of_consumers() && newer.unknown_type() == Some("queue"));
    }
}
