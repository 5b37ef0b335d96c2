//! `twinlog run`: every flow of the config, until told to stop.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::shutdown::{Hangups, Signals};
use super::{Exit, first_copy, output, reload};
use crate::config::Config;
use crate::flow::{self, AllEnded};
use crate::http;
use crate::telemetry::progress::Registry;
use crate::telemetry::sampler;

/// Runs until a signal, or until no flow is left.
pub(super) async fn run(config: Config, path: &Path) -> Exit {
    let installed = Signals::install().and_then(|ends| Ok((ends, Hangups::install()?)));
    let (signals, hangups) = match installed {
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
    // Whoever asks is told of every flow, from the first answer on.
    for (name, flow) in &config.flows {
        registry.flow(name, &flow.source, &flow.target);
    }

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
    let reloading = {
        let (path, mut running, registry) = (path.to_owned(), config.clone(), registry.clone());
        tokio::spawn(hangups.each(move || reload::reload(&path, &mut running, &registry)))
    };
    let signals = tokio::spawn(signals.drive(cancel.clone()));

    let exit = match flow::run_flows(config, &registry, &cancel).await {
        Ok(AllEnded::AsTold) => Exit::Done,
        Ok(AllEnded::OneFailed) => Exit::Failed,
        Err(problem) => return output::fail(Exit::Usage, &problem),
    };

    services_cancel.cancel();
    while services.join_next().await.is_some() {}
    signals.abort();
    reloading.abort();
    info!("ended");
    exit
}
