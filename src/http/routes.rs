//! What is answered at which path.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::access::{self, Access};
use super::{changes, page};
use crate::telemetry::failover::{READINESS_VERSION, ReadinessReport};
use crate::telemetry::groups::{GROUPS_VERSION, GroupExplained, GroupReporter, GroupsReport};
use crate::telemetry::metadata::{METADATA_VERSION, MetadataReport};
use crate::telemetry::metrics;
use crate::telemetry::progress::{Registry, now_ms};
use crate::telemetry::status::StatusReport;

/// The path of the status report. `?partitions=troubled` leaves out partitions that
/// nobody needs to look at.
pub const STATUS_PATH: &str = "/api/v1/status";
/// The path of the report on consumer groups; with a name behind it, of that group in every
/// detail, once for each flow that follows it.
pub const GROUPS_PATH: &str = "/api/v1/groups";

/// The path of everything that differs between the clusters' configs, ACLs, quotas and users.
pub const METADATA_PATH: &str = "/api/v1/metadata";

/// The path of what a failover would meet now, with every topic and group that is concerned.
pub const READINESS_PATH: &str = "/api/v1/readiness";

/// All routes over one registry, behind the tokens.
pub(super) fn router(registry: Arc<Registry>, access: Access) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route(STATUS_PATH, get(status))
        .route(GROUPS_PATH, get(groups))
        .route(METADATA_PATH, get(metadata))
        .route(READINESS_PATH, get(readiness))
        .route("/api/v1/groups/{*group}", get(explain_group))
        .route(changes::LOOK_ROUTE, post(changes::look))
        .fallback(async |uri: Uri| {
            (
                StatusCode::NOT_FOUND,
                format!(
                    "nothing at {}; there are /, /metrics, /healthz, /readyz, {STATUS_PATH}, \
                     {GROUPS_PATH}, {METADATA_PATH} and {READINESS_PATH}\n",
                    uri.path()
                ),
            )
        })
        .layer(from_fn_with_state(Arc::new(access), access::guard))
        .with_state(registry)
}

fn report(registry: &Registry) -> StatusReport {
    StatusReport::build(registry, now_ms())
}

async fn metrics_text(State(registry): State<Arc<Registry>>) -> Response {
    let text = metrics::render(&report(&registry));
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn ready(State(registry): State<Arc<Registry>>) -> Response {
    let report = report(&registry);
    if report.ready {
        return "ready\n".into_response();
    }
    let mut body = String::from("not ready\n");
    for problem in &report.not_ready {
        // Writing to a string can't fail.
        let _ = writeln!(body, "- {problem}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn status(State(registry): State<Arc<Registry>>, uri: Uri) -> Response {
    let mut report = report(&registry);
    let mut parameters = uri.query().unwrap_or_default().split('&');
    if parameters.any(|parameter| parameter == "partitions=troubled") {
        report.keep_troubled_partitions();
    }
    Json(report).into_response()
}

async fn readiness(State(registry): State<Arc<Registry>>) -> Response {
    let report = report(&registry);
    let flows = report.flows.into_iter();
    Json(ReadinessReport {
        version: READINESS_VERSION,
        now_ms: report.now_ms,
        flows: flows.filter_map(|flow| flow.failover).collect(),
    })
    .into_response()
}

async fn groups(State(registry): State<Arc<Registry>>) -> Response {
    let mut report = GroupsReport {
        version: GROUPS_VERSION,
        now_ms: now_ms(),
        flows: reporters(&registry)
            .iter()
            .map(|reporter| reporter.report())
            .collect(),
    };
    report
        .flows
        .sort_by(|left, right| left.flow.cmp(&right.flow));
    Json(report).into_response()
}

/// Each flow's report, by the flow's name; flows that weren't compared yet are left out.
async fn metadata(State(registry): State<Arc<Registry>>) -> Response {
    let reports = registry.flows.iter().filter_map(|flow| flow.metadata());
    let mut reports: Vec<Arc<MetadataReport>> = reports.collect();
    reports.sort_by(|left, right| left.flow.cmp(&right.flow));
    let flows: Vec<&MetadataReport> = reports.iter().map(AsRef::as_ref).collect();
    let answer = serde_json::json!({
        "version": METADATA_VERSION,
        "now_ms": now_ms(),
        "flows": flows,
    });
    Json(answer).into_response()
}

async fn explain_group(
    State(registry): State<Arc<Registry>>,
    Path(group): Path<String>,
) -> Response {
    let explained: Vec<GroupExplained> = reporters(&registry)
        .iter()
        .filter_map(|reporter| reporter.explain(&group))
        .collect();
    if explained.is_empty() {
        let message = format!("no flow follows a group {group}\n");
        return (StatusCode::NOT_FOUND, message).into_response();
    }
    Json(explained).into_response()
}

fn reporters(registry: &Registry) -> Vec<Arc<dyn GroupReporter>> {
    registry
        .flows
        .iter()
        .filter_map(|flow| flow.groups())
        .collect()
}
