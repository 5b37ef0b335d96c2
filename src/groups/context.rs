//! What following groups needs: both clusters, what is remembered, the copy, the rules.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;

use super::decide::Commit;
use super::mirrormaker::{Checkpoint, CompatWriter};
use super::positions::Positions;
use crate::config::Selector;
use crate::state::{Memory, StateStore};
use crate::wire::{Cluster, TopicPartition};

/// Whether this process may write now. Not one that stood still (`SIGSTOP`) and hasn't looked at its claim since, nor one that
/// knows that another has the flow: what it would commit, or note of commits, is older than what that one did.
pub type MayWrite = Arc<dyn Fn() -> bool + Send + Sync>;

/// How long a commit waits for the look at the claim.
const LOOKED_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a follower needs.
#[derive(Clone)]
pub struct Follow {
    /// The flow's name.
    pub flow: String,
    /// Which groups.
    pub groups: Selector,
    /// Whether positions of others on the target are overwritten.
    pub overwrite: bool,
    /// Whether a group that is deleted on the source is deleted on the target.
    pub delete: bool,
    /// Another Twinlog followed them, and didn't end in order: a commit of it may still come.
    pub may_have_rival: bool,
    /// Of this process' claim: what is stored of groups names it.
    pub generation: u64,
    /// Whether all that was committed for them before is remembered. Where it is, anything else is a client's.
    pub memory: Memory,
    /// Whether that is so now, with what is committed by us.
    pub is_remembered: Arc<AtomicBool>,
    /// Where groups are followed.
    pub source: Cluster,
    /// Where they are to be ready.
    pub target: Cluster,
    /// What is remembered.
    pub store: Arc<StateStore>,
    /// The copy.
    pub positions: Arc<dyn Positions>,
    /// MirrorMaker 2's topics, where its tools are to keep working.
    pub mirrormaker: Option<Arc<CompatWriter>>,
    /// Asked before anything is committed or stored.
    pub may_write: MayWrite,
}

impl Follow {
    /// Whether this process may write. Who stood still waits a moment for the look at its claim.
    pub(super) async fn may_write_soon(&self) -> bool {
        let deadline = Instant::now() + LOOKED_WITHIN;
        while !(self.may_write)() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    /// Tells MirrorMaker 2's tools where a group is.
    pub(super) fn note_checkpoint(
        &self,
        group: &str,
        target: &TopicPartition,
        source: &Commit,
        target_offset: i64,
    ) {
        let Some(writer) = &self.mirrormaker else {
            return;
        };
        let checkpoint = Checkpoint::new(
            group,
            target.topic.as_str(),
            target.partition,
            source.offset,
            target_offset,
            &*source.metadata,
        );
        match checkpoint {
            Ok(checkpoint) => writer.note(checkpoint),
            Err(error) => {
                tracing::debug!(group, partition = %target, %error, "no checkpoint for MirrorMaker 2's tools");
            }
        }
    }
}
