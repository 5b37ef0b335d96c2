//! All flows of a config, in one process.

use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::error::FlowError;
use super::run::run_flow;
use crate::config::{Config, RATE_HINT};
use crate::tasks::Broken;
use crate::telemetry::logging::with_causes;
use crate::telemetry::progress::{FlowProgress, FlowState, Registry};

/// After cancellation, flows get this long to let answers under way arrive. What is cut off
/// is found again from the target log.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// How the flows of a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllEnded {
    /// Each when it was told to.
    AsTold,
    /// At least one by itself, or too late.
    OneFailed,
}

/// Runs every flow of a config until it is cancelled, or until none is left. They are seen in
/// `registry`.
///
/// # Errors
/// When a flow names a cluster that the config doesn't have.
pub async fn run_flows(
    config: Config,
    registry: &Registry,
    cancel: &CancellationToken,
) -> Result<AllEnded, String> {
    let mut flows = start_flows(config, registry, cancel)?;
    Ok(supervise(&mut flows, cancel).await)
}

/// One flow's name and how it ended.
type FlowEnd = (String, Result<(), String>);

fn start_flows(
    mut config: Config,
    registry: &Registry,
    cancel: &CancellationToken,
) -> Result<JoinSet<FlowEnd>, String> {
    let mut flows = JoinSet::new();
    for (name, flow_config) in std::mem::take(&mut config.flows) {
        let cluster = |cluster: &str| {
            config
                .clusters
                .get(cluster)
                .cloned()
                .ok_or_else(|| format!("flow {name}: no cluster {cluster} in the config"))
        };
        let (source, target) = (cluster(&flow_config.source)?, cluster(&flow_config.target)?);
        let progress = registry.flow(&name, &flow_config.source, &flow_config.target);
        info!(
            flow = name,
            "copying from {} to {}", flow_config.source, flow_config.target
        );
        if let Some(doubt) = flow_config.limits.doubt() {
            warn!(flow = name, "{doubt}; {RATE_HINT}");
        }
        let running = run_flow(
            flow_config,
            source,
            target,
            progress.clone(),
            cancel.child_token(),
        );
        // A task of its own, so that a panic in one flow is that flow's failure.
        let running = tokio::spawn(running);
        flows.spawn(async move {
            let result = ended(running.await);
            note_end(&progress, &result);
            (name, result.map_err(|error| with_causes(&error)))
        });
    }
    Ok(flows)
}

/// How a flow's task ended; a panic in it is a broken task as any other.
pub(super) fn ended(joined: Result<Result<(), FlowError>, JoinError>) -> Result<(), FlowError> {
    joined.unwrap_or_else(|crash| {
        let task = "task of the flow";
        let message = crash.to_string();
        Err(FlowError::Broken(Broken::Panicked { task, message }))
    })
}

/// A flow that has ended must not look alive, whatever state it ended in.
pub(super) fn note_end(progress: &FlowProgress, result: &Result<(), FlowError>) {
    let is_broken = matches!(result, Err(FlowError::Broken(_)));
    if !is_broken && matches!(progress.state(), FlowState::Stopped { .. }) {
        return;
    }
    let (reason, detail) = match result {
        Ok(()) => ("ended", "the flow has ended".to_owned()),
        Err(error) => (error.reason(), with_causes(error)),
    };
    progress.set_state(FlowState::Stopped { reason, detail });
}

/// Waits until every flow has ended; after cancellation no longer than [`DRAIN_WITHIN`].
/// One flow's failure leaves the others running.
async fn supervise(flows: &mut JoinSet<FlowEnd>, cancel: &CancellationToken) -> AllEnded {
    let mut exit = AllEnded::AsTold;
    let overdue = async {
        cancel.cancelled().await;
        tokio::time::sleep(DRAIN_WITHIN).await;
    };
    tokio::pin!(overdue);
    loop {
        let ended = tokio::select! {
            ended = flows.join_next() => ended,
            () = &mut overdue => {
                warn!(
                    "{} flow(s) did not finish within {} s and are cut off; the next start \
                     resumes from the target log",
                    flows.len(),
                    DRAIN_WITHIN.as_secs()
                );
                return AllEnded::OneFailed;
            }
        };
        match ended {
            None => return exit,
            Some(Ok((name, Ok(())))) => {
                if cancel.is_cancelled() {
                    info!(flow = name, "stopped");
                } else {
                    warn!(flow = name, "the flow has ended by itself");
                    exit = AllEnded::OneFailed;
                }
            }
            Some(Ok((name, Err(problem)))) => {
                error!(flow = name, "the flow has failed: {problem}");
                exit = AllEnded::OneFailed;
            }
            Some(Err(crash)) => {
                error!("a bug in Twinlog: {crash}");
                exit = AllEnded::OneFailed;
            }
        }
    }
}
