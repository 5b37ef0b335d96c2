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
//! # Laws (property-tested in `tests/it/pure/offsets_map.rs`)
//!
//! 1. *Monotone*: `a <= b` implies `translate(a) <= translate(b)`.
//! 2. *Inverse*: for every mapped offset, `reverse(translate(c)) == c`.
//! 3. *Nothing skipped, nothing repeated*: `translate(c)` is the target offset of the first mapped
//!    source offset `>= c`, or the target end if there is none yet.
//! 4. *Bounded*: an exact answer is within `[target_start, target_end]`.
//!
//! # In memory
//!
//! The newest runs are plain; when there are [`DEFAULT_SEGMENT_RUNS`] of them they are closed into
//! an encoded segment, which is never changed again. A lookup finds the segment by its ends
//! and decodes it. Segments are numbered, so that each is stored once: [`MapHead`] is the rest.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::builder::Builder;
use super::document::{Document, MapHead};
use super::run::{Pair, split};
use super::segment::Segment;
use super::{DecodeError, MapError, Run, SourceOffset, TargetOffset, Translation, codec};

/// How many runs a segment has. More would make lookups and the head longer, fewer would make more
/// records in the state topic.
pub(super) const DEFAULT_SEGMENT_RUNS: usize = 1_024;

/// The run-length, monotone map between the offsets of one partition on two clusters.
///
/// Identity over `[a, inf)` is one run that grows in place. A hole is about two bytes of memory
/// where transactions are short (at most 24 while it is new), and [`trim`](Self::trim) drops what
/// both logs have forgotten. A clone shares the closed segments.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub struct OffsetMap {
    pub(super) source_start: SourceOffset,
    pub(super) target_start: TargetOffset,
    pub(super) source_end: SourceOffset,
    pub(super) target_end: TargetOffset,
    /// The number of the first closed segment, or of the next one to be closed.
    pub(super) first_segment: u64,
    /// The oldest one may begin before the map's start: what lies there isn't seen any more.
    pub(super) closed: VecDeque<Segment>,
    /// Never empty behind closed segments: the last run may still grow.
    pub(super) open: Vec<Run>,
    pub(super) segment_runs: usize,
}

impl PartialEq for OffsetMap {
    /// The same ends and runs, wherever segments end.
    fn eq(&self, other: &Self) -> bool {
        self.start() == other.start() && self.end() == other.end() && self.runs().eq(other.runs())
    }
}

impl Eq for OffsetMap {}

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
            first_segment: 0,
            closed: VecDeque::new(),
            open: Vec::new(),
            segment_runs: DEFAULT_SEGMENT_RUNS,
        }
    }

    /// Closes segments at `runs` runs from now on (at least one), for tests.
    #[doc(hidden)]
    pub fn with_segment_runs(mut self, runs: usize) -> Self {
        self.segment_runs = runs.max(1);
        self
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
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let start = self.start();
        self.stored_runs()
            .skip_while(move |run| run.before(start) == run.len)
            .map(move |run| run.without(run.before(start)))
    }

    /// The runs, those too that the oldest segment has before the map's start.
    fn stored_runs(&self) -> impl Iterator<Item = Run> + '_ {
        let closed = self.closed.iter().flat_map(Segment::runs);
        closed.chain(self.open.iter().copied())
    }

    /// The runs that belong to no segment yet.
    pub(super) fn open_runs(&self) -> &[Run] {
        &self.open
    }

    pub(super) fn start(&self) -> Pair {
        (self.source_start, self.target_start)
    }

    fn end(&self) -> Pair {
        (self.source_end, self.target_end)
    }

    /// Where the last closed segment ends; without one, where the map begins.
    pub(super) fn closed_end(&self) -> Pair {
        self.closed.back().map_or(self.start(), Segment::ends)
    }

    /// The part that changes, to be stored behind the segments that it names.
    pub fn head(&self) -> MapHead {
        MapHead::of(self)
    }

    /// The numbers of the closed segments.
    pub fn segment_numbers(&self) -> Range<u64> {
        self.first_segment..self.first_segment + self.closed.len() as u64
    }

    /// The closed segments and their numbers, newest first. A segment that has a number keeps its
    /// bytes. Format: see the source of `segment`.
    pub fn segments_newest_first(&self) -> impl Iterator<Item = (u64, &Arc<[u8]>)> {
        let newest_first = self.closed.iter().rev().map(Segment::bytes);
        self.segment_numbers().rev().zip(newest_first)
    }

    /// The map of a head and all the segments that it names, in order.
    ///
    /// # Errors
    /// [`DecodeError`] if they aren't those segments, or anything in them breaks a promise.
    pub fn assemble(head: MapHead, segments: Vec<Arc<[u8]>>) -> Result<Self, DecodeError> {
        head.assemble(segments)
    }

    /// Bytes that the map holds on the heap, as far as it knows: the allocator's own aren't
    /// counted, and segments that are shared are.
    pub fn heap_bytes(&self) -> usize {
        let segments: usize = self.closed.iter().map(Segment::heap_bytes).sum();
        segments
            + self.closed.capacity() * size_of::<Segment>()
            + self.open.capacity() * size_of::<Run>()
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
        match self.open.last_mut() {
            Some(last) if last.ends() == (source, target) => last.len += len,
            _ => self.append(Run {
                source_start: source,
                target_start: target,
                len,
            }),
        }
        self.source_end = source_end;
        self.target_end = target_end;
        debug_assert_eq!(self.open.last().map(Run::ends), Some(self.end()));
        Ok(())
    }

    /// Adds a run that can't be merged: none before it grows any more.
    pub(super) fn append(&mut self, run: Run) {
        if self.open.len() >= self.segment_runs {
            let segment = Segment::close(self.closed_end(), &self.open);
            self.closed.push_back(segment);
            self.open.clear();
        }
        self.open.push(run);
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

    /// Says that target offsets up to `target` hold nothing that the source still has. Going back
    /// changes nothing.
    pub fn push_gap(&mut self, target: TargetOffset) {
        self.target_end = self.target_end.max(target);
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
        let next = self.first_run(|(source_end, _)| source_end <= committed);
        Translation::Exact(match next {
            // `max`: inside the run its place, in the hole before it the run's start.
            Some(run) => {
                TargetOffset(run.target_start.0 + (committed.0 - run.source_start.0).max(0))
            }
            None => self.target_end,
        })
    }

    /// The first run that isn't over yet by this measure of its ends.
    fn first_run(&self, is_over: impl Fn(Pair) -> bool) -> Option<Run> {
        let segment = self
            .closed
            .partition_point(|segment| is_over(segment.ends()));
        match self.closed.get(segment) {
            Some(segment) => segment.runs().find(|run| !is_over(run.ends())),
            None => {
                let next = self.open.partition_point(|run| is_over(run.ends()));
                self.open.get(next).copied()
            }
        }
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
        let next = self.first_run(|(_, target_end)| target_end <= target);
        Translation::Exact(match next {
            Some(run) => SourceOffset(run.source_start.0 + (target.0 - run.target_start.0).max(0)),
            None => self.source_end,
        })
    }

    /// Forgets what lies before the log start on either side, so that every later answer is within
    /// both logs. Offsets past the ends are taken as the ends; going back changes nothing.
    pub fn trim(&mut self, source_log_start: SourceOffset, target_log_start: TargetOffset) {
        let mut start = (
            self.source_start.max(source_log_start.min(self.source_end)),
            self.target_start.max(target_log_start.min(self.target_end)),
        );
        if start == self.start() {
            return;
        }
        let is_gone = |ends: Pair| ends.0 <= start.0 || ends.1 <= start.1;
        let segments = self
            .closed
            .partition_point(|segment| is_gone(segment.ends()));
        let mut last_gone = segments.checked_sub(1).map(|last| self.closed[last].ends());
        self.closed.drain(..segments);
        self.first_segment += segments as u64;
        let first_left = match self.closed.front() {
            // A segment stays as it is until all of it is gone.
            Some(segment) => {
                let (gone, left) = split(segment.runs(), is_gone);
                last_gone = gone.or(last_gone);
                left
            }
            None => {
                let runs = self.open.partition_point(|run| is_gone(run.ends()));
                last_gone = self.open[..runs].last().map(Run::ends).or(last_gone);
                self.open.drain(..runs);
                self.open.first().copied()
            }
        };
        // A record gone from one side is gone from the map on both: its offset on the other side
        // has no counterpart any more.
        if let Some((source_end, target_end)) = last_gone {
            start = (start.0.max(source_end), start.1.max(target_end));
        }
        if let Some(run) = first_left {
            let cut = run.before(start);
            debug_assert!(cut < run.len, "else it was dropped above");
            let rest = run.without(cut);
            if cut > 0 {
                start = (rest.source_start, rest.target_start);
            }
            if self.closed.is_empty()
                && let Some(first) = self.open.first_mut()
            {
                *first = rest;
            }
        }
        (self.source_start, self.target_start) = start;
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// The map as it was when the target's log ended at `end`; `None` where it begins behind that. What the target
    /// has there no more has no place on the source either: the copy goes on behind the last record that is left.
    ///
    /// Its segments get numbers that were never used, so what is stored stays whole until the new head is.
    pub fn cut_back(&self, end: TargetOffset) -> Option<Self> {
        if end < self.target_start {
            return None;
        }
        let mut cut = Self {
            first_segment: self.segment_numbers().end,
            ..Self::starting_at(self.source_start, self.target_start)
                .with_segment_runs(self.segment_runs)
        };
        for run in self.runs().take_while(|run| run.target_start < end) {
            let left = (end.0 - run.target_start.0).unsigned_abs().min(run.len);
            cut.push_copied(run.source_start, run.target_start, left)
                .ok()?;
        }
        cut.push_gap(end.min(self.target_end));
        Some(cut)
    }

    /// Whether every offset that the map knows is itself on the other side, the ends included.
    pub fn is_identity(&self) -> bool {
        self.constant_shift() == Some(0)
    }

    /// Target minus source offset, if that is one number for all that the map knows, the ends
    /// included. A map with a hole or a gap has none.
    pub fn constant_shift(&self) -> Option<i64> {
        let shift = self.target_end.0 - self.source_end.0;
        // Behind a closed segment there is another run.
        let whole = match self.open.as_slice() {
            _ if !self.closed.is_empty() => false,
            [] => self.start() == self.end(),
            [run] => {
                (run.source_start, run.target_start) == self.start() && run.ends() == self.end()
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

    /// Checks all that the type promises, without trusting any field but a segment's bytes.
    fn check(&self) -> Result<(), &'static str> {
        let mut map = Builder::new(self.start(), self.segment_runs);
        map.close(self.first_segment, self.closed.clone())?;
        if self.open.is_empty() && !self.closed.is_empty() {
            return Err("there are segments and no open run");
        }
        for run in &self.open {
            map.push(*run)?;
        }
        map.finish(self.end()).map(|_| ())
    }
}

/// `start + len`, if that is still an offset.
fn end_of(start: i64, len: u64) -> Result<i64, MapError> {
    start
        .checked_add_unsigned(len)
        .ok_or(MapError::TooLong { start, len })
}
