//! MirrorMaker 2's checkpoints and heartbeats, so that its Java tools (`RemoteClusterUtils`,
//! `MirrorClient`) and what was built on them keep working against the standby.
//!
//! Only what those tools read is written. What tells MirrorMaker's own connectors where to go on
//! (`mm2-offset-syncs.*`, `mm2-offsets.*`) is not.

mod format;
mod notes;
mod topics;
mod writer;

pub use format::{Checkpoint, FormatError, Heartbeat};
pub use topics::CompatTopics;
pub use writer::CompatWriter;
