//! A log line every few seconds while a flow's first copy is under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::format::{bytes, count, plural, seconds, short};
use crate::telemetry::progress::{Registry, now_ms};
use crate::telemetry::status::{FlowStatus, StatusReport};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Logs until cancelled. Says nothing about a flow whose copy didn't move since its last
/// line: what holds it up is logged where it happens.
pub(super) async fn log_progress(registry: Arc<Registry>, cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(LINE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut progress = Lines::default();
    let mut before = None;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // A report of thousands of partitions isn't made for nothing.
        let positions = Some(positions(&registry));
        if positions == before {
            continue;
        }
        before = positions;
        for (flow, line) in progress.next(&StatusReport::build(&registry, now_ms())) {
            info!(flow, "{line}");
        }
    }
}

/// How many partitions there are, and the sum of where they are: another one when any of them moved.
fn positions(registry: &Registry) -> (usize, i64) {
    let mut seen = (0, 0_i64);
    for flow in &*registry.flows {
        for partition in &flow.partitions {
            let position = partition.source_position.load(Ordering::Relaxed);
            seen = (seen.0 + 1, seen.1.wrapping_add(position));
        }
    }
    seen
}

/// Remembers what was said.
#[derive(Default)]
struct Lines {
    /// Offsets done at a flow's last line.
    said: BTreeMap<String, i64>,
}

impl Lines {
    /// The flows that have something new to say, with their lines.
    fn next(&mut self, report: &StatusReport) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        for flow in &report.flows {
            match &flow.first_copy {
                Some(first_copy) if first_copy.total_offsets > 0 => {
                    let before = self.said.insert(flow.name.clone(), first_copy.done_offsets);
                    if before != Some(first_copy.done_offsets) {
                        lines.push((flow.name.clone(), line(flow)));
                    }
                }
                Some(_) => {}
                None => {
                    if self.said.remove(&flow.name).is_some() {
                        let done = plural(flow.totals.partitions, "partition");
                        let text = format!("first copy done: {done} caught up");
                        lines.push((flow.name.clone(), text));
                    }
                }
            }
        }
        lines
    }
}

/// One flow's first copy in one line; empty when there is none.
pub(super) fn line(flow: &FlowStatus) -> String {
    let Some(first_copy) = &flow.first_copy else {
        return String::new();
    };
    let mut text = format!(
        "first copy {:.1} %, {} of {} offsets, {} records/s, {}/s",
        // Rounding up to 100 would say that it is done.
        first_copy.percent.min(99.9),
        count(first_copy.done_offsets),
        count(first_copy.total_offsets),
        short(flow.totals.records_per_second),
        bytes(flow.totals.bytes_per_second),
    );
    match first_copy.estimated_seconds {
        Some(left) => text.push_str(&format!(", about {} left", seconds(left.ceil()))),
        None => text.push_str(", no estimate yet"),
    }
    if first_copy.unknown_partitions > 0 {
        let unknown = plural(first_copy.unknown_partitions, "partition");
        text.push_str(&format!(" ({unknown} not opened yet)"));
    }
    text
}
