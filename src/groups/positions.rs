//! What following groups needs to know of the copy.

use std::collections::HashSet;
use std::sync::Arc;

use crate::offsets::{SourceOffset, TargetOffset, Translation};
use crate::wire::TopicPartition;
use tokio::sync::Notify;
use uuid::Uuid;

/// Where a source position is on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The flow doesn't copy the topic.
    NotCopied,
    /// The copy of this partition isn't open, so its end (or its map) isn't known for the moment.
    Unknown,
    /// What the offset map says.
    Known {
        /// The partition on the target.
        target: TopicPartition,
        /// Exact, or why not.
        answer: Translation,
        /// The first position that a reader of the target can have.
        first: TargetOffset,
    },
}

/// The copy, as groups see it. Answers come from memory; nothing here waits.
pub trait Positions: Send + Sync {
    /// Where a position of a source partition is on the target.
    fn place(&self, topic: &str, partition: i32, committed: SourceOffset) -> Place;

    /// Where a position of the target is on the source; `None` while that isn't known.
    fn back(&self, topic: &str, partition: i32, committed: TargetOffset) -> Option<SourceOffset>;

    /// Source partitions in which committed positions have other places now; each is told once.
    fn take_moved(&self) -> Vec<(Arc<str>, i32)>;

    /// Source topics that the flow copies from now on; each is told once.
    fn take_noted(&self) -> HashSet<Arc<str>>;

    /// Told whenever there is something to take: [`take_moved`](Self::take_moved), [`take_noted`](Self::take_noted).
    fn told(&self) -> &Notify;

    /// Where the copy goes on in a log that was there before; 0 in any other. A position up to there
    /// is of the time when the target took the group's commits as the primary: whoever comes back
    /// late with one is no reason to leave the group behind.
    fn continued_at(&self, topic: &str, partition: i32) -> i64;

    /// What a source topic is called on the target; `None` if it isn't copied (yet).
    fn target_topic(&self, topic: &str) -> Option<Arc<str>>;

    /// The end of a source partition for readers, as it was seen last.
    fn source_end(&self, topic: &str, partition: i32) -> Option<i64>;

    /// The id of a source topic that is copied; nil where it isn't known.
    fn source_topic_id(&self, topic: &str) -> Uuid;

    /// The source topic whose copy a target topic is.
    fn source_topic(&self, target_topic: &str) -> Option<Arc<str>>;
}
