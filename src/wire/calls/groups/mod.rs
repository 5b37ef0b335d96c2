//! Calls about groups, each sent to the group's coordinator.

mod commit;
mod coordinator;
mod delete;
mod list;
mod offsets;
mod rights;
mod share;

pub use commit::{Taken, asks_for_patience, commit_group_offsets, commit_group_offsets_within};
pub use coordinator::{by_coordinator, coordinator_by, coordinator_partition};
pub use delete::delete_groups;
pub use list::{ListedGroup, ListedGroups, OFFSETS_TOPIC, is_refused_group, list_groups};
pub use offsets::{fetch_group_offsets, pending_group_offsets};
pub use rights::group_rights;
pub use share::{
    StartOffsets, alter_share_group_offsets, describe_share_group_offsets, is_unsupported,
};

/// A position of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record read, or -1.
    pub leader_epoch: i32,
    /// What the group wrote beside it; empty for none.
    pub metadata: String,
}
