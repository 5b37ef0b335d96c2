//! A closed piece of an offset map: many runs in a few bytes each, never changed again.
//!
//! Bytes: `version: u8 = 1`, then unsigned LEB128 numbers: the *base* (source, target), which is
//! the end of the run before the segment; then per run `source gap * 2 + (1 if there is a target
//! gap)`, the target gap if there is one, and `len`; last a big-endian CRC-32C of all that. A
//! transaction of up to 127 records is two bytes. The base chains the segments: one that is
//! missing, or was left by a process that divided the runs otherwise, can't pass for its
//! neighbour.

use std::sync::Arc;

use super::run::{Order, Pair};
use super::varint::{after, put, take};
use super::{DecodeError, Run, SourceOffset, TargetOffset};

const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;

/// Runs that are closed. 32 bytes and the encoded ones, which are shared by clones.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    source_end: SourceOffset,
    target_end: TargetOffset,
    /// Encoded and known to be valid.
    bytes: Arc<[u8]>,
}

impl Segment {
    /// Encodes runs that are in order and begin no earlier than `base`.
    pub(super) fn close(base: Pair, runs: &[Run]) -> Self {
        let mut bytes = Vec::with_capacity(32 + runs.len() * 4);
        bytes.push(VERSION);
        put(&mut bytes, base.0.0 as u64);
        put(&mut bytes, base.1.0 as u64);
        let mut end = base;
        for run in runs {
            let source_gap = (run.source_start.0 - end.0.0) as u64;
            let target_gap = (run.target_start.0 - end.1.0) as u64;
            // Offsets are below 2^63, so a gap can be doubled.
            put(&mut bytes, source_gap << 1 | u64::from(target_gap > 0));
            if target_gap > 0 {
                put(&mut bytes, target_gap);
            }
            put(&mut bytes, run.len);
            end = run.ends();
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        Self {
            source_end: end.0,
            target_end: end.1,
            bytes: bytes.into(),
        }
    }

    /// Reads what [`Segment::bytes`] gave, and checks every run.
    pub(super) fn decode(bytes: Arc<[u8]>) -> Result<Self, DecodeError> {
        let (body, checksum) = bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or(DecodeError::Truncated)?;
        let &version = body.first().ok_or(DecodeError::Truncated)?;
        // Before the checksum: a later version may end otherwise.
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        if crc32c::crc32c(body) != u32::from_be_bytes(*checksum) {
            return Err(DecodeError::Checksum);
        }
        let mut runs = Runs::new(&bytes)?;
        let mut order = Order::from(runs.end);
        while let Some(run) = runs.read()? {
            order.next(&run).map_err(DecodeError::Invalid)?;
        }
        let (source_end, target_end) = runs.end;
        if runs.begun {
            Ok(Self {
                source_end,
                target_end,
                bytes,
            })
        } else {
            Err(DecodeError::Invalid("a segment is empty"))
        }
    }

    /// The segment as it is stored.
    pub(super) fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The ends of the last run.
    pub(super) fn ends(&self) -> Pair {
        (self.source_end, self.target_end)
    }

    /// The ends of the run before the first one, or where the map began then.
    pub(super) fn base(&self) -> Pair {
        // Valid bytes have a base; if not, nothing joins this.
        Runs::new(&self.bytes).map_or((SourceOffset(-1), TargetOffset(-1)), |runs| runs.end)
    }

    /// The runs, oldest first.
    pub(super) fn runs(&self) -> Runs<'_> {
        Runs::new(&self.bytes).unwrap_or(Runs::NONE)
    }

    /// Bytes on the heap, with the two counts of an `Arc`.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.len() + 2 * size_of::<usize>()
    }
}

/// Decodes the runs of a segment one by one.
#[derive(Clone, Debug)]
pub(super) struct Runs<'a> {
    rest: &'a [u8],
    end: Pair,
    begun: bool,
}

impl<'a> Runs<'a> {
    const NONE: Self = Self {
        rest: &[],
        end: (SourceOffset(0), TargetOffset(0)),
        begun: false,
    };

    fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (body, _) = bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or(DecodeError::Truncated)?;
        let (_, mut rest) = body.split_first().ok_or(DecodeError::Truncated)?;
        let source = SourceOffset(after(0, take(&mut rest)?)?);
        let target = TargetOffset(after(0, take(&mut rest)?)?);
        Ok(Self {
            rest,
            end: (source, target),
            begun: false,
        })
    }

    fn read(&mut self) -> Result<Option<Run>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let rest = &mut self.rest;
        let first = take(rest)?;
        let target_gap = if first & 1 == 1 { take(rest)? } else { 0 };
        let len = take(rest)?;
        if first & 1 == 1 && target_gap == 0 {
            // A second spelling of "no gap".
            return Err(DecodeError::Malformed);
        }
        let run = Run {
            source_start: SourceOffset(after(self.end.0.0, first >> 1)?),
            target_start: TargetOffset(after(self.end.1.0, target_gap)?),
            len,
        };
        let source_end = SourceOffset(after(run.source_start.0, len)?);
        let target_end = TargetOffset(after(run.target_start.0, len)?);
        self.end = (source_end, target_end);
        self.begun = true;
        Ok(Some(run))
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    /// Ends at bytes that can't be read: a [`Segment`] has none.
    fn next(&mut self) -> Option<Run> {
        self.read().ok().flatten()
    }
}
