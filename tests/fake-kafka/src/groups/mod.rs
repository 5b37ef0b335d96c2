//! Consumer groups: who coordinates them, who is in them, what they committed.
//!
//! `__consumer_offsets` is a topic as any other: the leader of a partition coordinates its groups,
//! and knows of them what is in its log. So a coordinator that is elected reads the log first, and
//! what was lost from it is forgotten.

pub mod classic;
pub mod coordinator;
mod journal;
pub mod offsets;
pub mod records;

pub use coordinator::Groups;
pub(crate) use journal::Producer;

/// The coordinators' topic.
pub const TOPIC: &str = "__consumer_offsets";
