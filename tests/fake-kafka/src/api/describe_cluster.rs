//! DescribeCluster (`KafkaApis.handleDescribeCluster`).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::{Asked, Reply, Served, text};
use crate::acls::{CLUSTER_NAME, Operation, ResourceType};
use crate::state::State;

/// Brokers, not controllers.
const BROKERS: i8 = 1;

impl Served for DescribeClusterRequest {
    fn refuse(&self, error: ResponseError) -> Option<DescribeClusterResponse> {
        Some(failed(error))
    }
}

fn failed(error: ResponseError) -> DescribeClusterResponse {
    DescribeClusterResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(error.to_string())))
}

pub(crate) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: DescribeClusterRequest,
) -> Reply {
    if asked.api_version > 0 && request.endpoint_type != BROKERS {
        return asked.send(&failed(ResponseError::MismatchedEndpointType));
    }
    let controller = state.controller();
    let brokers = state.brokers.iter().filter(|(id, _)| state.is_alive(**id));
    let brokers = brokers.map(|(&id, broker)| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(id))
            .with_host(text(&broker.host))
            .with_port(i32::from(broker.port))
            .with_rack(broker.rack.as_ref().map(text))
    });
    let operations = match request.include_cluster_authorized_operations {
        false => i32::MIN,
        true if !state.allows_on_cluster(asked, Operation::Describe) => 0,
        true => {
            let kind = ResourceType::Cluster;
            state.acls.operations(asked.principal, kind, CLUSTER_NAME)
        }
    };
    asked.send(
        &DescribeClusterResponse::default()
            .with_error_message(None)
            .with_endpoint_type(BROKERS)
            .with_cluster_id(text(asked.cluster_id.unwrap_or(&state.cluster_id)))
            .with_controller_id(BrokerId(controller))
            .with_brokers(brokers.collect())
            .with_cluster_authorized_operations(operations),
    )
}
