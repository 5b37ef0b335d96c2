//! What a test does to a cluster as its operator: requests by Kafka's own names, sent to the
//! listener where anybody is a super user.

use std::time::Duration;

use kafka_protocol::protocol::{Request, StrBytes};
use twinlog::wire::{self, ClusterConfig};

use super::flow::block_on;
use super::logins;
use super::wait::eventually;

/// How long the cluster may take to do what was asked.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Sends a request to the controller, or to the broker that stands in for it, and waits for the
/// answer. It is sent again while nobody answers.
///
/// # Panics
/// When nobody answers.
pub fn call<R: Request + Clone>(bootstrap: &str, request: R, version_max: i16) -> R::Response {
    let internal = logins::internal(bootstrap);
    let addresses = internal.split(',').map(str::to_owned).collect();
    let cluster = wire::Cluster::new(ClusterConfig::new("operator", addresses));
    eventually(DEADLINE, "the cluster answers its operator", || {
        block_on(async {
            let connection = cluster.controller().await?;
            connection.call(request.clone(), version_max).await
        })
        .map_err(|error: wire::WireError| error.to_string())
    })
}

/// A text of a request.
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
