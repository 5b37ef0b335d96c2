//! Limits that change while the flow runs: a night's backlog is copied by day as well, on a line that others need.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::shared::Flow;
use crate::telemetry::limits::LiveLimits;

/// Puts into force what is given, until cancelled.
pub async fn follow(flow: Arc<Flow>, cancel: CancellationToken) {
    let mut given = flow.progress.limits.subscribe();
    loop {
        let now = *given.borrow_and_update();
        put_into_force(&flow, now.unwrap_or_else(|| of_config(&flow)));
        let changed = cancel.run_until_cancelled(given.changed());
        // It ends with the progress that this flow holds itself.
        if !matches!(changed.await, Some(Ok(()))) {
            return;
        }
    }
}

fn of_config(flow: &Flow) -> LiveLimits {
    let limits = &flow.config.limits;
    LiveLimits {
        bytes_per_second: limits.bytes_per_second,
        in_flight_bytes: limits.in_flight_bytes,
        partition_in_flight_bytes: limits.partition_in_flight_bytes,
    }
}

fn put_into_force(flow: &Flow, limits: LiveLimits) {
    let rate = limits.bytes_per_second;
    flow.throttle.set(rate);
    flow.budget
        .set_limits(limits.in_flight_bytes, limits.partition_in_flight_bytes);
    let shown = &flow.progress.bytes_per_second_limit;
    shown.store(rate.unwrap_or(0), Ordering::Relaxed);
}
