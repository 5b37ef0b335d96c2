//! Comparing a copy with its source, independently of what made it.
//!
//! Records, log ends, configs and groups are read with librdkafka on both sides: no line of the
//! wire client, the batch codec or the copier takes part, so what they get wrong is found. The
//! offset map and the list of copied topics come from the state topic.
//!
//! ```text
//!  state topic ──> places ──> ranges that both sides should have
//!                               |
//!   source reader ──> digests ──┤ sweep: 65,536 offsets at a time, halved down to 256
//!   target reader ──> digests ──┘
//!                               |
//!                            suspects ── pause, fresh ends ──> second look: record by record
//!                                                                |
//!                                     report <── judge: changed, missing, added, swapped, cleaned
//! ```

pub mod digest;
pub mod judge;
pub mod link;

mod background;
mod board;
mod client;
mod configs;
mod error;
mod groups;
mod headers;
mod identity;
mod limiter;
mod listed;
mod logs;
mod metadata;
mod partitions;
mod progress;
mod reach;
mod reader;
mod records;
mod remember;
mod replicas;
mod report;
mod run;
mod sample;
mod scope;
mod second_look;
mod sizes;
mod span;
mod standby;
mod sweep;

pub use background::{Background, run as run_background};
pub use board::OPEN_MAX as PARTITIONS_AT_ONCE;
pub use error::VerifyError;
pub use metadata::MetadataFound;
pub use progress::{Phase, Progress};
pub use reach::reach;
pub use remember::{last, remember};
pub use report::{
    Compared, Coverage, Difference, DifferenceKind, GroupsReport, Mode, PartitionReport,
    REPORT_VERSION, RecordShape, Report, SampleReport, Totals, Verdict,
};
pub use run::{AGAIN_WITHIN, Request, again_after, verify};
pub use sample::Sampling;
pub use standby::why_no_standby;
