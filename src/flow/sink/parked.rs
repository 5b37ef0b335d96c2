//! Partitions whose next offset is a hole while no filler may be sent.
//!
//! Whether one may is known from the state topic. Where that can't be read, the holes wait, and nothing
//! else does: the lane goes on with the other partitions. Soon what waits is closed, so that what it has
//! fetched isn't taken from the others' bytes in flight; it is opened again when fillers may be sent.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::flow::claim::Fence;
use crate::flow::error::Trouble;
use crate::flow::partition::Partition;
use crate::state::STATE_TOPIC;
use crate::wire::Cluster;

/// How long a hole waits while its partition stays open: a new leader of the state topic is mostly found
/// in that time.
const OPEN_FOR: Duration = Duration::from_secs(2);

/// What waits for the right to fill. None of it counts as sent.
#[derive(Default)]
pub(super) struct Parked {
    partitions: Vec<Arc<Partition>>,
    close_at: Option<Instant>,
}

impl Parked {
    /// Keeps a partition aside. It stays on the lane's list: new work of it wakes nobody.
    pub(super) fn push(&mut self, partition: Arc<Partition>) {
        self.partitions.retain(|parked| !parked.is_closed());
        self.close_at
            .get_or_insert_with(|| Instant::now() + OPEN_FOR);
        self.partitions.push(partition);
    }

    /// Resolves when fillers may be sent, or what waits for it is to be closed; never while nothing waits.
    pub(super) async fn ripe(&self, fence: &mut Fence) {
        match self.close_at {
            Some(close_at) => tokio::select! {
                () = fence.opened() => {}
                () = tokio::time::sleep_until(close_at) => {}
            },
            None => std::future::pending().await,
        }
    }

    /// Takes what waits, if fillers may be sent now, or closes it.
    pub(super) fn take(&mut self, fence: &Fence, target: &Cluster) -> Vec<Arc<Partition>> {
        self.close_at = None;
        let partitions = std::mem::take(&mut self.partitions);
        if fence.epoch().is_some() {
            return partitions;
        }
        let why = match target.cached().leader(STATE_TOPIC, 0) {
            Some(_) => fence.why_unseen(),
            None => "it has no leader".to_owned(),
        };
        for partition in partitions {
            partition.fail(Trouble::ClaimUnseen { why: why.clone() });
        }
        Vec::new()
    }
}
