//! Records that were stranded on an old primary: listed, exported, replayed, dismissed or kept.
//!
//! After a failover the old primary may have records beyond the fork that were never copied. They
//! are never mixed in by themselves. [`list`] shows them, [`export()`] writes them to files, and one of
//! three decisions is made about them, which [`undecided()`] and a failback ask for.
//!
//! What is shown and counted is read with librdkafka; what is exported and replayed is read by our
//! own client, which alone can hand over batches as they are and header keys that aren't UTF-8.
//! Both counts must be the same.

mod client;
mod conflicts;
mod decide;
mod error;
mod export;
mod fetched;
mod json_line;
mod keys;
mod list;
mod manifest;
mod new_file;
mod position;
mod producer;
mod progress;
mod ranges;
mod replay;
mod scene;
mod survey;
mod undecided;

pub use conflicts::Conflicts;
pub use decide::{Decided, decide};
pub use error::OrphansError;
pub use export::{ExportOptions, export};
pub use json_line::{ORIGIN_HEADER, Text};
pub use list::{Listing, PartitionListing, Replayed, TopicListing, Totals, list};
pub use manifest::{BatchEntry, FileEntry, Manifest, PartitionEntry};
pub use progress::{Phase, Progress};
pub use replay::{ReplayOptions, ReplayResult, replay};
pub use scene::{LeftOut, Scene, Stranded};
pub use undecided::{Undecided, undecided, undecided_partitions};
