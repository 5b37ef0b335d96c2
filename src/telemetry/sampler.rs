//! Samples the registry once a second, so that rates and lag times are measured whether
//! or not somebody looks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::progress::{Registry, now_ms};

/// How often the registry is sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Samples until cancelled. Two of these on one registry do no harm.
pub async fn run(registry: Arc<Registry>, cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => registry.observe(now_ms()),
        }
    }
}
