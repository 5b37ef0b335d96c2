//! Offsets of the two clusters as distinct types, and the exact map between them.
//!
//! Pure: no I/O, no async, nothing else of this crate. [`OffsetMap`] is the only place that knows
//! where a source record went; whoever needs a position asks it and never assumes identity.

mod answer;
mod builder;
mod codec;
mod document;
#[cfg(test)]
mod fuzz;
mod map;
mod pairing;
mod run;
mod segment;
mod turn;
mod varint;

use std::fmt;

pub use answer::{MapError, Translation};
pub use codec::DecodeError;
pub use document::MapHead;
pub use map::OffsetMap;
pub use pairing::{Paired, Pairing, Print};
pub use run::Run;

/// An offset in the source cluster's partition.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct SourceOffset(pub i64);

/// An offset in the target cluster's partition.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct TargetOffset(pub i64);

impl fmt::Display for SourceOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TargetOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
