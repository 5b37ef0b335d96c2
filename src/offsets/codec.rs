//! How a whole [`OffsetMap`] is written as compact bytes, wherever its segments end.
//!
//! Bytes: `version: u8 = 1`, then unsigned LEB128 numbers: `source_start`, `target_start`, run
//! count, per run `(source gap, target gap, len)` from the end of the run before, then the gaps
//! from the last run to `source_end` and `target_end`; last a big-endian CRC-32C of all that. Gaps
//! instead of offsets keep a run at a few bytes, and cannot spell one that goes back.

use super::builder::Builder;
use super::map::DEFAULT_SEGMENT_RUNS;
use super::varint::{after, put, take};
use super::{OffsetMap, Run, SourceOffset, TargetOffset};

const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;
/// Three numbers of at least one byte: bounds what a run count may make us allocate.
const RUN_LEN_MIN: usize = 3;

/// Why bytes or a document are not a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than were promised.
    #[error("offset map: truncated")]
    Truncated,
    /// Written by a later version.
    #[error("offset map: version {0} is not known to this version")]
    Version(u8),
    /// The checksum does not match: the bytes were changed.
    #[error("offset map: checksum mismatch")]
    Checksum,
    /// A number is not in its shortest form or too large, or bytes follow the end.
    #[error("offset map: malformed")]
    Malformed,
    /// The numbers are readable and break a promise of the type.
    #[error("offset map: {0}")]
    Invalid(&'static str),
}

pub(super) fn encode(map: &OffsetMap) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let (mut source, mut target) = (map.source_start().0, map.target_start().0);
    put(&mut bytes, source as u64);
    put(&mut bytes, target as u64);
    put(&mut bytes, map.runs().count() as u64);
    for run in map.runs() {
        put(&mut bytes, (run.source_start.0 - source) as u64);
        put(&mut bytes, (run.target_start.0 - target) as u64);
        put(&mut bytes, run.len);
        (source, target) = (run.source_end().0, run.target_end().0);
    }
    put(&mut bytes, (map.source_end().0 - source) as u64);
    put(&mut bytes, (map.target_end().0 - target) as u64);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_be_bytes());
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<OffsetMap, DecodeError> {
    let (body, checksum) = bytes
        .split_last_chunk::<CHECKSUM_LEN>()
        .ok_or(DecodeError::Truncated)?;
    let (&version, mut rest) = body.split_first().ok_or(DecodeError::Truncated)?;
    // Before the checksum: a later version may end otherwise.
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    if crc32c::crc32c(body) != u32::from_be_bytes(*checksum) {
        return Err(DecodeError::Checksum);
    }
    let rest = &mut rest;
    let source_start = SourceOffset(after(0, take(rest)?)?);
    let target_start = TargetOffset(after(0, take(rest)?)?);
    let count = take(rest)?;
    if count > (rest.len() / RUN_LEN_MIN) as u64 {
        return Err(DecodeError::Truncated);
    }
    let start = (source_start, target_start);
    let mut map = Builder::new(start, DEFAULT_SEGMENT_RUNS);
    let (mut source, mut target) = (source_start.0, target_start.0);
    for _ in 0..count {
        let source_at = after(source, take(rest)?)?;
        let target_at = after(target, take(rest)?)?;
        let len = take(rest)?;
        let run = Run {
            source_start: SourceOffset(source_at),
            target_start: TargetOffset(target_at),
            len,
        };
        map.push(run).map_err(DecodeError::Invalid)?;
        (source, target) = (after(source_at, len)?, after(target_at, len)?);
    }
    let source_end = SourceOffset(after(source, take(rest)?)?);
    let target_end = TargetOffset(after(target, take(rest)?)?);
    if !rest.is_empty() {
        return Err(DecodeError::Malformed);
    }
    map.finish((source_end, target_end))
        .map_err(DecodeError::Invalid)
}
