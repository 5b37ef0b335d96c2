//! Merging a run of small batches into one, without making records of them.

use bytes::Bytes;

use super::compress::{Decompressor, with_scratch};
use super::encode::{Summary, seal};
use super::header::HEADER_BYTES;
use super::records::RecordSpan;
use super::varint::Head;
use super::{BatchError, Codec, RawBatch, Stamp};

/// A merged batch.
#[derive(Clone, Debug)]
pub struct Coalesced {
    /// The whole batch, stamped and ready to be produced.
    pub batch: Bytes,
    /// Number of records.
    pub count: i32,
    /// Largest timestamp, ms.
    pub max_timestamp: i64,
}

/// What a record's varying fields may grow by on average; more costs a reallocation, nothing else.
const GROWTH_BYTES: usize = 6;
/// Most that is reserved for growth.
const GROWTH_BYTES_MAX: usize = 1 << 20;

/// Merges batches that follow one another without a hole, have one codec and one timestamp type, and would
/// each be `Raw` but for being small.
///
/// Only the length, timestamp delta and offset delta of each record are rewritten, all else is copied as it
/// is and left for the target broker to validate. Under LogAppendTime each record gets its batch's append
/// time. The CRC is computed anew, so the caller must have verified the batches'.
///
/// # Errors
/// `NotMergeable` and `NotContiguous` for a run that breaks these rules, `Malformed` when records do not fit
/// their header, `Bomb` when the whole run decompresses to more than `max_decompressed_bytes`, `TooLarge`,
/// and the codec's errors.
pub fn coalesce(
    run: &[RawBatch],
    stamp: Stamp,
    max_decompressed_bytes: usize,
) -> Result<Coalesced, BatchError> {
    merge(run, stamp, max_decompressed_bytes, Holes::Refused)
}

/// As [`coalesce`], where holes between the batches are lost: for a target whose offsets are others.
///
/// # Errors
/// Those of [`coalesce`]; `NotContiguous` only for batches that don't rise.
pub fn coalesce_across_holes(
    run: &[RawBatch],
    stamp: Stamp,
    max_decompressed_bytes: usize,
) -> Result<Coalesced, BatchError> {
    merge(run, stamp, max_decompressed_bytes, Holes::Closed)
}

/// What becomes of the holes between two batches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holes {
    Refused,
    Closed,
}

fn merge(
    run: &[RawBatch],
    stamp: Stamp,
    max_decompressed_bytes: usize,
    holes: Holes,
) -> Result<Coalesced, BatchError> {
    let (codec, count) = check(run, holes)?;
    let first = &run[0].header;
    let offset = first.base_offset;
    // Where the records' times are known to be near, so that deltas are short.
    let base_timestamp = if first.is_log_append_time() {
        first.max_timestamp
    } else {
        first.base_timestamp
    };
    let mut merge = Merge {
        base_timestamp,
        max_timestamp: i64::MIN,
        count: 0,
        decompressed_bytes_left: max_decompressed_bytes,
        limit_bytes: max_decompressed_bytes,
    };
    // The count may be a lie: it must not decide alone over how much is reserved.
    let room = run.iter().map(|batch| batch.payload().len()).sum::<usize>()
        + (count as usize * GROWTH_BYTES).min(GROWTH_BYTES_MAX);
    let out = with_scratch(|scratch| {
        if codec == Codec::None {
            // Straight to where they stay.
            let mut out = Vec::with_capacity(HEADER_BYTES + room);
            out.resize(HEADER_BYTES, 0);
            for batch in run {
                merge.append(batch, codec, &mut scratch.decompressor, &mut out)?;
            }
            return Ok(out);
        }
        scratch.records.clear();
        scratch.records.reserve(room);
        for batch in run {
            merge.append(
                batch,
                codec,
                &mut scratch.decompressor,
                &mut scratch.records,
            )?;
        }
        let payload = scratch
            .compressor
            .compress(codec, &scratch.records)
            .map_err(|failure| failure.at(offset, codec, max_decompressed_bytes))?;
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.resize(HEADER_BYTES, 0);
        out.extend_from_slice(payload);
        Ok(out)
    })?;
    let max_timestamp = merge.max_timestamp;
    let summary = Summary {
        codec,
        count,
        base_timestamp,
        max_timestamp,
    };
    let batch = seal(out, &summary, stamp).ok_or(BatchError::TooLarge { offset })?;
    Ok(Coalesced {
        batch,
        count,
        max_timestamp,
    })
}

/// Checks the run by its headers; gives its codec and number of records.
fn check(run: &[RawBatch], holes: Holes) -> Result<(Codec, i32), BatchError> {
    let first = run.first().ok_or(BatchError::NotMergeable {
        what: "no batches",
        offset: -1,
    })?;
    let codec = first.header.codec()?;
    let mut expected = first.header.base_offset;
    let mut count = 0i32;
    for RawBatch { header, legacy, .. } in run {
        let offset = header.base_offset;
        let refused = |what| Err(BatchError::NotMergeable { what, offset });
        if *legacy {
            return refused("legacy format");
        }
        if header.is_control() {
            return refused("control batch");
        }
        if !header.is_gapless() {
            return refused("records are missing");
        }
        if header.codec()? != codec {
            return refused("another codec");
        }
        if header.is_log_append_time() != first.header.is_log_append_time() {
            return refused("another timestamp type");
        }
        let is_next = match holes {
            Holes::Refused => offset == expected,
            Holes::Closed => offset >= expected,
        };
        if !is_next {
            return Err(BatchError::NotContiguous { expected, offset });
        }
        expected = header.next_offset();
        count = count
            .checked_add(header.count)
            .ok_or(BatchError::TooLarge {
                offset: first.header.base_offset,
            })?;
    }
    Ok((codec, count))
}

/// The state of a merge.
struct Merge {
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    decompressed_bytes_left: usize,
    limit_bytes: usize,
}

impl Merge {
    fn append(
        &mut self,
        batch: &RawBatch,
        codec: Codec,
        decompressor: &mut Decompressor,
        out: &mut Vec<u8>,
    ) -> Result<(), BatchError> {
        let header = &batch.header;
        let offset = header.base_offset;
        let malformed = |what| BatchError::Malformed { what, offset };
        let body = decompressor
            .decompress(codec, batch.payload(), self.decompressed_bytes_left)
            .map_err(|failure| failure.at(offset, codec, self.limit_bytes))?;
        self.decompressed_bytes_left = self.decompressed_bytes_left.saturating_sub(body.len());
        let append_time = header.is_log_append_time().then_some(header.max_timestamp);
        let mut at = 0;
        for expected in 0..header.count {
            let span = RecordSpan::read(body, &mut at).map_err(malformed)?;
            if span.offset_delta != expected {
                return Err(malformed("record offsets are not consecutive"));
            }
            let timestamp = append_time
                .unwrap_or_else(|| header.base_timestamp.wrapping_add(span.timestamp_delta));
            self.max_timestamp = self.max_timestamp.max(timestamp);
            let rest = &body[span.rest_from..span.end];
            // Cannot overflow: the run's count was summed up before.
            let head = Head::of_record(
                span.attributes,
                timestamp.wrapping_sub(self.base_timestamp),
                self.count + expected,
                rest.len(),
            )
            .ok_or(BatchError::TooLarge { offset })?;
            out.extend_from_slice(head.as_slice());
            out.extend_from_slice(rest);
        }
        if at != body.len() {
            return Err(malformed("bytes after the last declared record"));
        }
        self.count += header.count;
        Ok(())
    }
}
