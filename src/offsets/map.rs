//! The offset map of one partition.
//!
//! # Definition
//!
//! A map knows the source offsets `[source_start, source_end)` and the target offsets
//! `[target_start, target_end)`. Inside them it is a list of runs `(source_start, target_start,
//! len)`: source offset `source_start + i` is at target offset `target_start + i` for every
//! `i < len`. Both sides strictly increase from run to run.
//!
//! - A *source hole* (source offsets between two runs, or after the last one) holds nothing that
//!   was given a place on the target: transaction markers, aborted data, what compaction removed.
//! - A *target gap* (target offsets between two runs) holds what did not come from the source:
//!   fillers, or a record that somebody else wrote.
//! - A source offset without a record whose place is kept by a filler **at the same shift** is not
//!   a hole: it is mapped, and pushed as copied. That is why an identical partition stays one run
//!   for ever, however many fillers it has.
//!
//! # Laws (property-tested in `tests/offsets_map.rs`)
//!
//! 1. *Monotone*: `a <= b` implies `translate(a) <= translate(b)`.
//! 2. *Inverse*: for every mapped offset, `reverse(translate(c)) == c`.
//! 3. *Nothing skipped, nothing repeated*: `translate(c)` is the target offset of the first mapped
//!    source offset `>= c`, or the target end if there is none yet.
//! 4. *Bounded*: an exact answer is within `[target_start, target_end]`.

use super::{DecodeError, SourceOffset, TargetOffset, codec};

/// `len` consecutive source offsets at `len` consecutive target offsets. 24 bytes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first source offset of the run.
    pub source_start: SourceOffset,
    /// Where that offset is on the target.
    pub target_start: TargetOffset,
    /// How many offsets the run covers; never 0.
    pub len: u64,
}

const _: () = assert!(size_of::<Run>() == 24, "the memory bound in the docs");

impl Run {
    /// The source offset just past the run.
    pub fn source_end(&self) -> SourceOffset {
        SourceOffset(self.source_start.0 + self.len as i64)
    }

    /// The target offset just past the run.
    pub fn target_end(&self) -> TargetOffset {
        TargetOffset(self.target_start.0 + self.len as i64)
    }

    /// Target offset minus source offset, the same for every offset of the run.
    pub fn shift(&self) -> i64 {
        self.target_start.0 - self.source_start.0
    }
}

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

/// The run-length, monotone map between the offsets of one partition on two clusters.
///
/// Identity over `[a, inf)` is one run that grows in place; memory is 24 bytes a run, and
/// [`trim`](Self::trim) drops what both logs have forgotten.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "codec::Document", into = "codec::Document")]
pub struct OffsetMap {
    pub(super) source_start: SourceOffset,
    pub(super) target_start: TargetOffset,
    pub(super) source_end: SourceOffset,
    pub(super) target_end: TargetOffset,
    pub(super) runs: Vec<Run>,
}

impl OffsetMap {
    /// An empty map whose first copied offset is to be the same on both sides.
    ///
    /// # Panics
    /// If `start` is negative: such an offset does not exist, and a wire sentinel (-1 latest, -2
    /// earliest) must be resolved first.
    pub fn identity_from(start: SourceOffset) -> Self {
        Self::starting_at(start, TargetOffset(start.0))
    }

    /// An empty map whose first copied offset `source` is to be at `target`.
    ///
    /// # Panics
    /// If an offset is negative, as in [`identity_from`](Self::identity_from).
    pub fn starting_at(source: SourceOffset, target: TargetOffset) -> Self {
        assert!(source.0 >= 0 && target.0 >= 0, "offsets are not negative");
        Self {
            source_start: source,
            target_start: target,
            source_end: source,
            target_end: target,
            runs: Vec::new(),
        }
    }

    /// The first source offset that the map can answer for.
    pub fn source_start(&self) -> SourceOffset {
        self.source_start
    }

    /// The first target offset that the map can answer for.
    pub fn target_start(&self) -> TargetOffset {
        self.target_start
    }

    /// The source offset of the next record or hole.
    pub fn source_end(&self) -> SourceOffset {
        self.source_end
    }

    /// The lowest target offset that the next record can have.
    pub fn target_end(&self) -> TargetOffset {
        self.target_end
    }

    /// The runs, oldest first.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Adds `len` offsets at the two ends: the usual step of a copy without holes.
    ///
    /// # Errors
    /// [`MapError::TooLong`].
    pub fn advance(&mut self, len: u64) -> Result<(), MapError> {
        self.push_copied(self.source_end, self.target_end, len)
    }

    /// Says that source offsets `source .. source + len` are at `target .. target + len`.
    ///
    /// An offset without a record whose place is kept by a filler at the same shift counts as
    /// copied. Source offsets skipped since the last push become a hole, target offsets skipped
    /// become a gap. A run that continues the last one on both sides is merged into it. `len` 0
    /// changes nothing.
    ///
    /// # Errors
    /// [`MapError`] if either side goes back or past the largest offset; nothing changes then.
    pub fn push_copied(
        &mut self,
        source: SourceOffset,
        target: TargetOffset,
        len: u64,
    ) -> Result<(), MapError> {
        self.refuse_source_before_end(source)?;
        if target < self.target_end {
            let (given, end) = (target, self.target_end);
            return Err(MapError::TargetNotMonotone { given, end });
        }
        let source_end = SourceOffset(end_of(source.0, len)?);
        let target_end = TargetOffset(end_of(target.0, len)?);
        if len == 0 {
            return Ok(());
        }
        match self.runs.last_mut() {
            Some(last) if last.source_end() == source && last.target_end() == target => {
                last.len += len;
            }
            _ => self.runs.push(Run {
                source_start: source,
                target_start: target,
                len,
            }),
        }
        self.source_end = source_end;
        self.target_end = target_end;
        debug_assert_eq!(self.runs.last().map(Run::source_end), Some(source_end));
        debug_assert_eq!(self.runs.last().map(Run::target_end), Some(target_end));
        Ok(())
    }

    /// Says that source offsets up to `source + len` have no place on the target. `len` 0 changes
    /// nothing.
    ///
    /// # Errors
    /// [`MapError`] if `source` goes back or the hole past the largest offset.
    pub fn push_hole(&mut self, source: SourceOffset, len: u64) -> Result<(), MapError> {
        self.refuse_source_before_end(source)?;
        let end = SourceOffset(end_of(source.0, len)?);
        if len > 0 {
            self.source_end = end;
        }
        Ok(())
    }

    fn refuse_source_before_end(&self, given: SourceOffset) -> Result<(), MapError> {
        let end = self.source_end;
        if given < end {
            return Err(MapError::SourceNotMonotone { given, end });
        }
        Ok(())
    }

    /// Where a reader goes on on the target that would read `committed` next on the source (what a
    /// consumer group commits).
    ///
    /// In a source hole that is the next copied record. Where none follows yet, `committed` being
    /// at most [`source_end`](Self::source_end), it is [`target_end`](Self::target_end).
    pub fn translate(&self, committed: SourceOffset) -> Translation {
        if committed < self.source_start {
            let first = self.source_start;
            return Translation::BeforeStart { first };
        }
        if committed > self.source_end {
            let copied_end = self.source_end;
            return Translation::NotYetCopied { copied_end };
        }
        let next = self
            .runs
            .partition_point(|run| run.source_end() <= committed);
        Translation::Exact(match self.runs.get(next) {
            // `max`: inside the run its place, in the hole before it the run's start.
            Some(run) => {
                TargetOffset(run.target_start.0 + (committed.0 - run.source_start.0).max(0))
            }
            None => self.target_end,
        })
    }

    /// Where a reader goes on on the source that would read `target` next on the target: the way
    /// back of [`translate`](Self::translate), by the same rules.
    pub fn reverse(&self, target: TargetOffset) -> Translation<TargetOffset, SourceOffset> {
        if target < self.target_start {
            let first = self.target_start;
            return Translation::BeforeStart { first };
        }
        if target > self.target_end {
            let copied_end = self.target_end;
            return Translation::NotYetCopied { copied_end };
        }
        let next = self.runs.partition_point(|run| run.target_end() <= target);
        Translation::Exact(match self.runs.get(next) {
            Some(run) => SourceOffset(run.source_start.0 + (target.0 - run.target_start.0).max(0)),
            None => self.source_end,
        })
    }

    /// Forgets what lies before the log start on either side, so that every later answer is within
    /// both logs. Offsets past the ends are taken as the ends; going back changes nothing.
    pub fn trim(&mut self, source_log_start: SourceOffset, target_log_start: TargetOffset) {
        let mut source_start = self.source_start.max(source_log_start.min(self.source_end));
        let mut target_start = self.target_start.max(target_log_start.min(self.target_end));
        let dropped = self
            .runs
            .iter()
            .take_while(|run| run.source_end() <= source_start || run.target_end() <= target_start)
            .count();
        // A record gone from one side is gone from the map on both: its offset on the other side
        // has no counterpart any more.
        if let Some(last) = self.runs[..dropped].last() {
            source_start = source_start.max(last.source_end());
            target_start = target_start.max(last.target_end());
        }
        self.runs.drain(..dropped);
        if let Some(first) = self.runs.first_mut() {
            let cut = (source_start.0 - first.source_start.0)
                .max(target_start.0 - first.target_start.0)
                .max(0);
            debug_assert!((cut as u64) < first.len, "else it was dropped above");
            first.source_start.0 += cut;
            first.target_start.0 += cut;
            first.len -= cut as u64;
            if cut > 0 {
                source_start = first.source_start;
                target_start = first.target_start;
            }
        }
        self.source_start = source_start;
        self.target_start = target_start;
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// Whether every offset that the map knows is itself on the other side, the ends included.
    pub fn is_identity(&self) -> bool {
        self.constant_shift() == Some(0)
    }

    /// Target minus source offset, if that is one number for all that the map knows, the ends
    /// included. A map with a hole or a gap has none.
    pub fn constant_shift(&self) -> Option<i64> {
        let shift = self.target_end.0 - self.source_end.0;
        let whole = match self.runs.as_slice() {
            [] => self.source_start == self.source_end && self.target_start == self.target_end,
            [run] => {
                run.source_start == self.source_start
                    && run.target_start == self.target_start
                    && run.source_end() == self.source_end
                    && run.target_end() == self.target_end
            }
            _ => false,
        };
        whole.then_some(shift)
    }

    /// The map as compact, versioned bytes with a checksum. Format: see the source of `codec`.
    pub fn encode(&self) -> Vec<u8> {
        // Paired with the same check in `decode`: neither side trusts the other.
        debug_assert_eq!(self.check(), Ok(()));
        codec::encode(self)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for any bytes that are not exactly an encoded, valid map.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }

    /// Checks all that the type promises, without trusting any field.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.source_start.0 < 0 || self.target_start.0 < 0 {
            return Err("an offset is negative");
        }
        let (mut source, mut target) = (self.source_start.0, self.target_start.0);
        for (index, run) in self.runs.iter().enumerate() {
            if run.len == 0 {
                return Err("a run is empty");
            }
            if run.source_start.0 < source || run.target_start.0 < target {
                return Err("runs are not monotone");
            }
            if index > 0 && run.source_start.0 == source && run.target_start.0 == target {
                return Err("two runs should be one");
            }
            source = end_of(run.source_start.0, run.len).map_err(|_| "a run is too long")?;
            target = end_of(run.target_start.0, run.len).map_err(|_| "a run is too long")?;
        }
        if self.source_end.0 < source || self.target_end.0 < target {
            return Err("the end is before the last run");
        }
        Ok(())
    }
}

/// `start + len`, if that is still an offset.
fn end_of(start: i64, len: u64) -> Result<i64, MapError> {
    start
        .checked_add_unsigned(len)
        .ok_or(MapError::TooLong { start, len })
}
