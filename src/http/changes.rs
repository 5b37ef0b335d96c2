//! The calls that change something. Who may make them is decided before ([`super::access`]).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tracing::info;

use crate::telemetry::progress::Registry;

/// The route of [`look_path`].
pub(super) const LOOK_ROUTE: &str = "/api/v1/flows/{flow}/look";

/// POST here makes the flow compare its clusters' metadata now instead of at the next interval.
/// A flow's name needs no escaping: the config allows letters, digits, `.`, `_` and `-`.
pub fn look_path(flow: &str) -> String {
    LOOK_ROUTE.replace("{flow}", flow)
}

/// 202: it is only asked for here. Asked twice before the look begins, it is done once.
pub(super) async fn look(
    State(registry): State<Arc<Registry>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    Path(name): Path<String>,
) -> Response {
    let Some(flow) = registry.flows.get(&name).map(|flow| flow.clone()) else {
        let message = format!("there is no flow {name}\n");
        return (StatusCode::NOT_FOUND, message).into_response();
    };
    flow.look_now.notify_one();
    // The name is one of the config's here, not what a caller made up.
    match peer {
        Some(Extension(ConnectInfo(peer))) => {
            info!(
                flow = name,
                "a look at the metadata was asked for by {peer}"
            );
        }
        None => info!(flow = name, "a look at the metadata was asked for"),
    }
    (StatusCode::ACCEPTED, "the flow looks now\n").into_response()
}
