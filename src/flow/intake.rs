//! Turns the record set of a fetch answer into work: pass, merge, open, fill. Pure.
//!
//! A batch moves through here without being decoded unless a rule of the broker or of the user
//! forces it (`batch::classify`). Whatever lies between two batches that are copied (transaction
//! markers, aborted data, what compaction removed) is one hole.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::budget::Meter;
use super::fill::FillRule;
use super::position::{Position, Producers};
use super::tombstones::Tombstones;
use super::work::{BatchWork, FillWork, Form, Work};
use crate::batch::{
    self, AbortedFilter, BatchError, OpenReason, Passage, RawBatch, Record, Rules, Stamp,
};

/// What a partition's target and source allow; fixed while a partition is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeRules {
    /// The two producer ids.
    pub producers: Producers,
    /// The target topic's `max.message.bytes`, or `segment.bytes` where that is smaller.
    pub max_batch_bytes: usize,
    /// The target topic's `min.insync.replicas`, if it is known.
    pub min_in_sync: Option<usize>,
    /// The target topic compacts.
    pub target_compacted: bool,
    /// The source topic compacts.
    pub source_compacted: bool,
    /// The source keeps a tombstone for so long after it was cleaned first.
    pub delete_retention_ms: i64,
    /// Batches of at most this many bytes are merged with their neighbours.
    pub coalesce_below_bytes: usize,
    /// Merged batches grow to about this many source bytes.
    pub coalesce_to_bytes: usize,
    /// A batch that unpacks to more than this is refused.
    pub max_decompressed_bytes: usize,
    /// Batches are merged only while their records have no more bytes than this, unpacked.
    pub max_merged_bytes: usize,
    /// How many offsets without a record are filled.
    pub fill: FillRule,
    /// What somebody else writes to the target is kept (`on_foreign_write: map`).
    pub keeps_foreign: bool,
}

/// One answer's way through the intake.
pub struct Intake<'a> {
    rules: &'a IntakeRules,
    meter: &'a Arc<Meter>,
    position: Position,
    high_watermark: i64,
    tombstones: &'a mut Tombstones,
    run: Vec<RawBatch>,
    run_bytes: usize,
    /// Where the hole behind the run ends, if there is one.
    run_hole_end: Option<i64>,
    out: Vec<Work>,
}

/// The part of a fetch answer that the intake works on.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The record set.
    pub records: &'a Bytes,
    /// Producer id and first offset of the aborted transactions in it.
    pub aborted: &'a [(i64, i64)],
    /// The partition's high watermark in the same answer. A base offset isn't covered by the CRC:
    /// a batch beyond this end is damaged, and its "hole" must not be filled.
    pub high_watermark: i64,
}

/// Turns an answer's records into work. The position moves past everything that the answer settles.
///
/// # Errors
/// A batch that can't be trusted. The work before it is returned all the same: `position` is
/// where it ends, so nothing is lost by fetching again from there.
pub fn take(
    rules: &IntakeRules,
    meter: &Arc<Meter>,
    position: &mut Position,
    tombstones: &mut Tombstones,
    answer: Answer<'_>,
) -> (Vec<Work>, Result<(), BatchError>) {
    if position.halted {
        return (Vec::new(), Ok(()));
    }
    let mut intake = Intake {
        rules,
        meter,
        position: *position,
        high_watermark: answer.high_watermark,
        tombstones,
        run: Vec::new(),
        run_bytes: 0,
        run_hole_end: None,
        out: Vec::new(),
    };
    let result = intake.take_all(answer);
    let flushed = intake.flush();
    *position = intake.position;
    (intake.out, result.and(flushed))
}

/// Passes what source retention took before it was copied: everything up to `source_next`.
pub fn pass_gap(position: &mut Position, source_next: i64) -> Vec<Work> {
    hole(position, source_next).into_iter().collect()
}

/// The work that moves past everything up to `source_next`, if that is ahead.
fn hole(position: &mut Position, source_next: i64) -> Option<Work> {
    let count = source_next - position.source;
    if count <= 0 {
        return None;
    }
    let before = *position;
    position.passed_hole(count);
    Some(if before.mapped {
        Work::Skip { source_next }
    } else {
        Work::Fill(FillWork {
            target_base: before.target,
            count,
            fillers_before: before.fillers,
            source_next,
        })
    })
}

impl Intake<'_> {
    fn take_all(&mut self, answer: Answer<'_>) -> Result<(), BatchError> {
        let mut filter = AbortedFilter::new(answer.aborted.iter().copied());
        for batch in batch::split(answer.records.clone()) {
            let batch = batch?;
            // A broker reads the high watermark first and the log then (`Partition.readRecords`), so
            // what was appended in between is in the answer, and it joins on. Anything else there
            // has a damaged offset, which no checksum covers: it would become an endless hole.
            let is_beyond = batch.header.next_offset() > answer.high_watermark;
            if is_beyond && batch.header.base_offset > self.wanted() {
                return Err(BatchError::Malformed {
                    what: "a batch far beyond the high watermark",
                    offset: batch.header.base_offset,
                });
            }
            self.take_one(batch, &mut filter)?;
            if self.position.halted {
                break;
            }
        }
        Ok(())
    }

    /// The offset that comes next.
    fn wanted(&self) -> i64 {
        let run_end = self.run.last().map(|last| last.header.next_offset());
        (self.run_hole_end.or(run_end)).unwrap_or(self.position.source)
    }

    fn take_one(&mut self, batch: RawBatch, filter: &mut AbortedFilter) -> Result<(), BatchError> {
        batch::verify_crc(&batch)?;
        // The filter must see every batch, also those before the wanted offset.
        let is_aborted = filter.is_aborted(&batch)?;
        let wanted = self.wanted();
        if batch.header.next_offset() <= wanted {
            return Ok(());
        }
        if is_aborted {
            return self.pass_hole(batch.header.next_offset());
        }
        let rules = Rules {
            target_log_append_time: false,
            target_compacted: self.rules.target_compacted,
            source_compacted: self.rules.source_compacted,
            max_batch_bytes: self.rules.max_batch_bytes,
            wanted_offset: wanted,
        };
        match batch::classify(&batch, &rules)? {
            Passage::Control | Passage::Empty => self.pass_hole(batch.header.next_offset()),
            Passage::Raw => self.take_raw(batch),
            Passage::Open(reason) => {
                self.flush()?;
                self.open(&batch, reason)
            }
        }
    }

    fn take_raw(&mut self, batch: RawBatch) -> Result<(), BatchError> {
        let small = batch.bytes.len() <= self.rules.coalesce_below_bytes;
        let fits = self.run.last().is_none_or(|last| {
            let joins = last.header.next_offset() == batch.header.base_offset;
            (joins || self.passes_holes())
                && last.header.attributes & 0x7 == batch.header.attributes & 0x7
                && self.run_bytes + batch.bytes.len() <= self.rules.coalesce_to_bytes
        });
        if !small || !fits {
            self.flush()?;
        }
        if small {
            self.run_hole_end = None;
            self.run_bytes += batch.bytes.len();
            self.run.push(batch);
            return Ok(());
        }
        self.pass(&batch);
        Ok(())
    }

    /// Everything up to `source_next` has no record on the target.
    fn pass_hole(&mut self, source_next: i64) -> Result<(), BatchError> {
        if self.passes_holes() && !self.run.is_empty() {
            self.run_hole_end = Some(source_next);
            return Ok(());
        }
        self.flush()?;
        self.hole_until(source_next);
        Ok(())
    }

    /// Whether a hole changes nothing on the target: what is around it may be one batch there.
    fn passes_holes(&self) -> bool {
        self.position.mapped && self.tombstones.is_empty()
    }

    /// Moves past a hole, if there is one. `false` when it isn't to be filled: then nothing behind it
    /// moves either.
    fn hole_until(&mut self, source_next: i64) -> bool {
        if self.position.halted
            || !self.place_tombstones(source_next)
            || self.halts_before(source_next)
        {
            return false;
        }
        match (hole(&mut self.position, source_next), self.out.last_mut()) {
            // Adjacent holes are one: a marker after an aborted batch, for example.
            (Some(Work::Fill(hole)), Some(Work::Fill(last))) => {
                last.count += hole.count;
                last.source_next = source_next;
            }
            (Some(work), _) => self.out.push(work),
            (None, _) => {}
        }
        true
    }

    /// Gives the first offsets of a hole to keys that the source has no more. `false` when that fails: nothing moves then.
    fn place_tombstones(&mut self, source_next: i64) -> bool {
        let bytes = self
            .rules
            .max_batch_bytes
            .saturating_sub(batch::HEADER_BYTES);
        loop {
            let hole = (self.position.source, source_next);
            let records = self.tombstones.place(hole, bytes);
            let (Some(first), Some(last)) = (records.first(), records.last()) else {
                return true;
            };
            // Their keys come from batches that were as large: this can't fail.
            let Ok(encoded) = batch::encode(&records, batch::Codec::None, self.stamp()) else {
                return false;
            };
            self.emit(Piece {
                body: Bytes::new(),
                count: i64::try_from(records.len()).unwrap_or(i64::MAX),
                source_base: first.offset,
                source_next: last.offset + 1,
                source_runs: Vec::new(),
                max_timestamp_ms: first.timestamp,
                form: Form::Opened,
                held_bytes: encoded.len(),
                head: encoded,
            });
        }
    }

    /// Whether the hole up to `source_next` costs more than it is worth.
    fn halts_before(&mut self, source_next: i64) -> bool {
        let position = &mut self.position;
        let count = source_next - position.source;
        if count <= 0 || position.mapped || position.halted {
            return position.halted;
        }
        let left = self.high_watermark - position.source;
        let rule = &self.rules.fill;
        if let Some(hole) = rule.judge(position.source, count, position.debt, left) {
            position.halted = true;
            self.out.push(Work::Dear(hole));
        }
        position.halted
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            producer_id: self.rules.producers.data_id,
            producer_epoch: 0,
            base_sequence: self.position.sequence(),
        }
    }

    /// The hot path: five header fields change, the payload is a slice of the fetch answer.
    fn pass(&mut self, batch: &RawBatch) {
        if !self.hole_until(batch.header.base_offset) {
            return;
        }
        let head = Bytes::copy_from_slice(&batch::restamp(batch, self.stamp()));
        let body = batch.bytes.slice(batch::HEADER_BYTES..);
        let header = &batch.header;
        self.emit(Piece {
            head,
            body,
            count: i64::from(header.count),
            source_base: header.base_offset,
            source_next: header.next_offset(),
            source_runs: Vec::new(),
            max_timestamp_ms: header.max_timestamp,
            form: Form::Passed,
            held_bytes: batch.bytes.len(),
        });
    }

    /// Ends the present run of small batches, and the hole behind it.
    fn flush(&mut self) -> Result<(), BatchError> {
        let hole_end = self.run_hole_end.take();
        self.flush_run()?;
        if let Some(source_next) = hole_end {
            self.hole_until(source_next);
        }
        Ok(())
    }

    fn flush_run(&mut self) -> Result<(), BatchError> {
        let run = std::mem::take(&mut self.run);
        let run_bytes = std::mem::take(&mut self.run_bytes);
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(());
        };
        if run.len() == 1 {
            self.pass(first);
            return Ok(());
        }
        if !self.hole_until(first.header.base_offset) {
            return Ok(());
        }
        let source_runs = match self.position.mapped {
            true => runs_of(
                run.iter()
                    .map(|it| it.header.base_offset..it.header.next_offset()),
            ),
            false => Vec::new(),
        };
        let merge = match source_runs.is_empty() {
            true => batch::coalesce,
            false => batch::coalesce_across_holes,
        };
        // What can't be merged may still pass as it is: the target's broker judges it.
        let merged = match merge(&run, self.stamp(), self.rules.max_merged_bytes) {
            Ok(merged) if merged.batch.len() <= self.rules.max_batch_bytes => merged,
            _ => {
                run.iter().for_each(|batch| self.pass(batch));
                return Ok(());
            }
        };
        self.emit(Piece {
            head: merged.batch,
            body: Bytes::new(),
            count: i64::from(merged.count),
            source_base: first.header.base_offset,
            source_next: last.header.next_offset(),
            source_runs,
            max_timestamp_ms: merged.max_timestamp,
            form: Form::Coalesced {
                batches: u32::try_from(run.len()).unwrap_or(u32::MAX),
            },
            held_bytes: run_bytes,
        });
        Ok(())
    }

    /// Decodes a batch and writes its records again, split where its offsets have gaps that are to be kept.
    fn open(&mut self, batch: &RawBatch, reason: OpenReason) -> Result<(), BatchError> {
        let records = batch::open(batch, self.rules.max_decompressed_bytes)?;
        let wanted = self.position.source;
        let mut records: Vec<Record> = records
            .into_iter()
            .filter(|record| record.offset >= wanted)
            .collect();
        let codec = if batch.legacy && reason == OpenReason::Legacy {
            batch::Codec::None
        } else {
            batch.header.codec()?
        };
        let total = records.len().max(1);
        let closes_gaps = self.passes_holes();
        for piece in pieces(&mut records, self.rules.max_batch_bytes, closes_gaps) {
            let (Some(first), Some(last)) = (piece.first(), piece.last()) else {
                continue;
            };
            let (source_base, source_next) = (first.offset, last.offset + 1);
            if !self.hole_until(source_base) {
                return Ok(());
            }
            let source_runs = close_gaps(piece);
            let encoded = batch::encode(piece, codec, self.stamp())?;
            let max_timestamp_ms = piece
                .iter()
                .map(|record| record.timestamp)
                .max()
                .unwrap_or(-1);
            self.emit(Piece {
                head: encoded,
                body: Bytes::new(),
                count: i64::try_from(piece.len()).unwrap_or(i64::MAX),
                source_base,
                source_next,
                source_runs,
                max_timestamp_ms,
                form: Form::Opened,
                held_bytes: batch.bytes.len() * piece.len() / total,
            });
        }
        self.hole_until(batch.header.next_offset());
        Ok(())
    }

    fn emit(&mut self, piece: Piece) {
        let target_base = self.position.target;
        self.position.copied(piece.source_next, piece.count);
        self.out.push(Work::Batch(BatchWork {
            head: piece.head,
            body: piece.body,
            target_base,
            count: piece.count,
            source_base: piece.source_base,
            source_next: piece.source_next,
            source_runs: piece.source_runs,
            max_timestamp_ms: piece.max_timestamp_ms,
            form: piece.form,
            _hold: self.meter.hold(piece.held_bytes as u64),
        }));
    }
}

struct Piece {
    head: Bytes,
    body: Bytes,
    count: i64,
    source_base: i64,
    source_next: i64,
    source_runs: Vec<Range<i64>>,
    max_timestamp_ms: i64,
    form: Form,
    held_bytes: usize,
}

/// Joins what is consecutive; nothing is left of a single run.
fn runs_of(parts: impl Iterator<Item = Range<i64>>) -> Vec<Range<i64>> {
    let mut runs: Vec<Range<i64>> = Vec::new();
    for part in parts {
        match runs.last_mut() {
            Some(last) if last.end == part.start => last.end = part.end,
            _ => runs.push(part),
        }
    }
    match runs.len() {
        1 => Vec::new(),
        _ => runs,
    }
}

/// Gives records consecutive offsets; returns those that they had, if they were others.
fn close_gaps(records: &mut [Record]) -> Vec<Range<i64>> {
    let runs = runs_of(records.iter().map(|it| it.offset..it.offset + 1));
    let first = records.first().map_or(0, |it| it.offset);
    for (offset, record) in (first..).zip(records) {
        record.offset = offset;
    }
    runs
}

/// Cuts records into pieces, each small enough uncompressed, and where their offsets have gaps unless
/// these are closed.
fn pieces(
    records: &mut [Record],
    max_batch_bytes: usize,
    closes_gaps: bool,
) -> impl Iterator<Item = &mut [Record]> {
    // Length, deltas and attributes of a record take at most 36 bytes beside its fields.
    const RECORD_OVERHEAD_BYTES: usize = 36;
    let limit = max_batch_bytes.saturating_sub(batch::HEADER_BYTES);
    let size = |record: &Record| {
        RECORD_OVERHEAD_BYTES
            + record.key.as_ref().map_or(0, Bytes::len)
            + record.value.as_ref().map_or(0, Bytes::len)
            + record.headers.len()
    };
    let mut bytes = 0;
    records.chunk_by_mut(move |last, record| {
        bytes += size(last);
        let breaks = !closes_gaps && last.offset + 1 != record.offset;
        let full = bytes + size(record) > limit;
        if breaks || full {
            bytes = 0;
        }
        !breaks && !full
    })
}

#[cfg(test)]
mod tests;
