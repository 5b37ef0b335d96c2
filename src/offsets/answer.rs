//! What a map answers, and what it refuses.

use super::{SourceOffset, TargetOffset};

/// What the map says about a position. `Asked` is the side asked about, `Answer` the other one:
/// plain `Translation` is source to target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation<Asked = SourceOffset, Answer = TargetOffset> {
    /// The position on the other side: reading on from here meets every record that reading on
    /// from the asked position would have met, and no earlier one.
    Exact(Answer),
    /// The position lies past what has been copied: no answer exists yet.
    NotYetCopied {
        /// The end of what has been copied, on the side asked about.
        copied_end: Asked,
    },
    /// The position lies before what the map knows (never copied, or trimmed away).
    BeforeStart {
        /// The first position that the map can answer for, on the side asked about.
        first: Asked,
    },
}

/// Why a push was refused. The map is unchanged then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The source offset was accounted for already.
    #[error("source offset {given} is before the map's source end {end}")]
    SourceNotMonotone {
        /// The offset that was pushed.
        given: SourceOffset,
        /// The lowest offset that could have been pushed.
        end: SourceOffset,
    },
    /// The target offset was taken already.
    #[error("target offset {given} is before the map's target end {end}")]
    TargetNotMonotone {
        /// The offset that was pushed.
        given: TargetOffset,
        /// The lowest offset that could have been pushed.
        end: TargetOffset,
    },
    /// The run would go past the largest offset that Kafka has.
    #[error("{len} offsets from {start} on exceed the largest offset")]
    TooLong {
        /// The first offset, on either side.
        start: i64,
        /// The length pushed.
        len: u64,
    },
}
