//! What following groups needs: both clusters, what is remembered, the copy, the rules.

use std::sync::Arc;

use super::decide::Commit;
use super::mirrormaker::{Checkpoint, CompatWriter};
use super::positions::Positions;
use crate::config::Selector;
use crate::state::StateStore;
use crate::wire::{Cluster, TopicPartition};

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
    /// Another Twinlog followed them, and may not know yet that it has lost the flow.
    pub may_have_rival: bool,
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
}

impl Follow {
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
