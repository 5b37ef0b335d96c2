//! What a cluster's brokers must be able to do for a flow and its failover.

use kafka_protocol::messages::{
    FetchRequest, IncrementalAlterConfigsRequest, OffsetCommitRequest, ProduceRequest,
    WriteTxnMarkersRequest,
};
use kafka_protocol::protocol::Request;

use super::sink::PRODUCE_VERSION_MIN;
use super::source::FETCH_VERSION_MIN;
use crate::telemetry::failover::Abilities;
use crate::wire::{Cluster, Connection, WireError};

/// What the copy asks of its source.
///
/// # Errors
/// When no broker can be asked.
pub async fn source_abilities(cluster: &Cluster) -> Result<Abilities, WireError> {
    let connection = cluster.any_connection().await?;
    let mut abilities = features(&connection);
    let missing = &mut abilities.missing;
    need::<FetchRequest>(&connection, "Fetch", FETCH_VERSION_MIN, "3.1", missing);
    Ok(abilities)
}

/// What the copy and a promotion ask of the standby.
///
/// # Errors
/// When no broker can be asked.
pub async fn standby_abilities(cluster: &Cluster) -> Result<Abilities, WireError> {
    let connection = cluster.any_connection().await?;
    let mut abilities = features(&connection);
    let missing = &mut abilities.missing;
    need::<ProduceRequest>(&connection, "Produce", PRODUCE_VERSION_MIN, "2.8", missing);
    need::<WriteTxnMarkersRequest>(&connection, "WriteTxnMarkers", 1, "2.8", missing);
    let configs = "IncrementalAlterConfigs";
    need::<IncrementalAlterConfigsRequest>(&connection, configs, 0, "2.3", missing);
    need::<OffsetCommitRequest>(&connection, "OffsetCommit", 2, "0.9", missing);
    Ok(abilities)
}

fn features(connection: &Connection) -> Abilities {
    Abilities {
        missing: Vec::new(),
        features: connection.features().clone(),
    }
}

fn need<R: Request>(
    connection: &Connection,
    call: &str,
    least: i16,
    since: &str,
    missing: &mut Vec<String>,
) {
    if connection.version::<R>(i16::MAX).unwrap_or(-1) < least {
        missing.push(format!("{call} {least} (Kafka {since})"));
    }
}
