//! `twinlog run`: every flow of the config, until told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::shutdown::Signals;
use super::{Exit, first_copy, output};
use crate::config::Config;
use crate::telemetry::progress::{FlowProgress, FlowState, Registry};
use crate::telemetry::sampler;
use crate::{flow, http};

/// After a signal, flows get this long to let answers under way arrive. What is cut off
/// is found again from the target log.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Runs until a signal, or until no flow is left.
pub(super) async fn run(config: Config) -> Exit {
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            return output::fail(Exit::Failed, &format!("can't handle signals: {error}"));
        }
    };
    let registry = Arc::new(Registry::default());
    let cancel = CancellationToken::new();
    // The HTTP server outlives the flows, so that the last moments can be watched too.
    let services_cancel = CancellationToken::new();
    let mut services = JoinSet::new();

    if let Some(listen) = config.http.listen {
        let door = match http::Door::open(&config.http) {
            Ok(door) => door,
            Err(error) => return output::fail(Exit::Usage, &error),
        };
        let listener = match http::bind(listen).await {
            Ok(listener) => listener,
            Err(error) => return output::fail(Exit::Failed, &error),
        };
        let address = listener.local_addr().unwrap_or(listen);
        info!(
            "status, metrics and health at {}://{address}/",
            door.scheme()
        );
        services.spawn(http::serve_on(
            listener,
            door,
            registry.clone(),
            services_cancel.clone(),
        ));
    } else {
        services.spawn(sampler::run(registry.clone(), services_cancel.clone()));
    }
    services.spawn(first_copy::log_progress(
        registry.clone(),
        services_cancel.clone(),
    ));
    let signals = tokio::spawn(signals.drive(cancel.clone()));

    let mut flows = match start_flows(config, &registry, &cancel) {
        Ok(flows) => flows,
        Err(problem) => return output::fail(Exit::Usage, &problem),
    };
    let exit = supervise(&mut flows, &cancel).await;

    services_cancel.cancel();
    while services.join_next().await.is_some() {}
    signals.abort();
    info!("ended");
    exit
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
        let running = flow::run_flow(
            flow_config,
            source,
            target,
            progress.clone(),
            cancel.child_token(),
        );
        // A task of its own, so that a panic in one flow is that flow's failure.
        let running = tokio::spawn(running);
        flows.spawn(async move {
            let result = match running.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(output::chain(&error)),
                Err(crash) => Err(format!("a bug in Twinlog: {crash}")),
            };
            note_end(&progress, &result);
            (name, result)
        });
    }
    Ok(flows)
}

/// A flow that has ended must not look alive, whatever state it ended in.
fn note_end(progress: &FlowProgress, result: &Result<(), String>) {
    if matches!(progress.state(), FlowState::Stopped { .. }) {
        return;
    }
    let (reason, detail) = match result {
        Ok(()) => ("ended", "the flow has ended".to_owned()),
        Err(error) => ("failed", error.clone()),
    };
    progress.set_state(FlowState::Stopped { reason, detail });
}

/// Waits until every flow has ended; after cancellation no longer than [`DRAIN_WITHIN`].
/// One flow's failure leaves the others running.
async fn supervise(flows: &mut JoinSet<FlowEnd>, cancel: &CancellationToken) -> Exit {
    let mut exit = Exit::Done;
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
                return Exit::Failed;
            }
        };
        match ended {
            None => return exit,
            Some(Ok((name, Ok(())))) => {
                if cancel.is_cancelled() {
                    info!(flow = name, "stopped");
                } else {
                    warn!(flow = name, "the flow has ended by itself");
                    exit = Exit::Failed;
                }
            }
            Some(Ok((name, Err(problem)))) => {
                error!(flow = name, "the flow has failed: {problem}");
                exit = Exit::Failed;
            }
            Some(Err(crash)) => {
                error!("a bug in Twinlog: {crash}");
                exit = Exit::Failed;
            }
        }
    }
}
