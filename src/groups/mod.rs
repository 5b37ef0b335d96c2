//! Groups: followed on the source, translated, committed on the target.
//!
//! ```text
//! source: __consumer_offsets ── observe ──┐            ┌── commit ──> target's coordinators
//!                                         v            │
//!                                      follow: decide ─┘ <── positions of the copy
//!                                         ^
//! target: __consumer_offsets ── observe ──┘
//! ```
//!
//! That is so for consumer groups, classic ones and those of KIP-848. Share groups have start offsets
//! in place of positions, which no log shows: see `share`.
//!
//! The target's log is read as well: it tells our own commits from those of real clients, which
//! are never overwritten, and shows the moment when a position there expires or is deleted.

mod assemble;
mod at_rest;
mod commit;
mod context;
mod decide;
mod follow;
mod kinds;
mod ledger;
pub mod mirrormaker;
mod observe;
mod poll;
mod positions;
mod record;
mod remembered;
mod report;
mod seen;
mod share;
mod sight;
mod table;
mod tail;
mod unseen;
mod waiting;

pub use at_rest::Resting;
pub use context::{Follow, MayWrite};
pub use decide::{Blocked, Verdict, is_from_before};
pub use follow::follow;
pub use kinds::Views;
pub use observe::way;
pub use positions::{Place, Positions};
pub use record::{GroupRecord, RecordError, StoredOffset, parse as parse_record};
pub use remembered::{RememberedGroup, RememberedPosition, remembered};
pub use report::View;
pub use seen::Way;
pub use share::follow_share_groups;
pub(crate) use sight::{ANY, one_of};
pub use sight::{hidden, hidden_of_all, listed_of_consumers, unknown_types, watch_sight};
