//! Notes for status that a cut-over of the flow isn't finished, and whether anybody carries it out.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::haste::Haste;
use crate::config::forth_name;
use crate::cutover::stands_at;
use crate::state::{CutoverRecord, CutoverState, StateStore, keys};
use crate::telemetry::cut_over::OpenCutOver;
use crate::telemetry::progress::FlowProgress;

/// How often it is looked at what others have read of the state topic.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at the plan that is open, again and again.
#[derive(Debug, Default)]
pub(super) struct OpenPlan {
    haste: Haste,
}

impl OpenPlan {
    /// Publishes the plan that is open, by what was read of the state topic last.
    pub(super) fn note(&mut self, flow: &str, store: &StateStore, progress: &FlowProgress) {
        let is_carried_out = self.haste.is_under_way(store, flow);
        // What can't be read is none that anybody could name.
        let record = store
            .get::<CutoverRecord>(&keys::cutover(flow))
            .ok()
            .flatten();
        let is_open =
            |it: &CutoverRecord| matches!(it.state, CutoverState::Open | CutoverState::Aborting);
        let open = record.filter(is_open).map(|record| {
            let (kind, step) = stands_at(&record);
            OpenCutOver {
                plan: record.plan.to_string(),
                kind: kind.to_owned(),
                began_ms: record.began_ms,
                step,
                is_aborting: record.state == CutoverState::Aborting,
                is_carried_out,
                flow: forth_name(flow).to_owned(),
            }
        });
        progress.set_cut_over(open);
    }
}

/// The same again and again beside a flow that copies, until cancelled.
pub(super) async fn keep(
    flow: String,
    store: Arc<StateStore>,
    progress: Arc<FlowProgress>,
    cancel: CancellationToken,
) {
    let mut open = OpenPlan::default();
    loop {
        open.note(&flow, &store, &progress);
        let pause = cancel.run_until_cancelled(tokio::time::sleep(LOOK_EVERY));
        if pause.await.is_none() {
            return;
        }
    }
}
