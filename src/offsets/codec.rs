//! How an [`OffsetMap`] is written: compact bytes for the state topic, a plain document for serde.
//!
//! Bytes: `version: u8 = 1`, then unsigned LEB128 numbers: `source_start`, `target_start`, run
//! count, per run `(source gap, target gap, len)` from the end of the run before, then the gaps
//! from the last run to `source_end` and `target_end`; last a big-endian CRC-32C of all that. Gaps
//! instead of offsets keep a run at a few bytes, and cannot spell one that goes back.

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
    let mut bytes = Vec::with_capacity(16 + map.runs.len() * 8);
    bytes.push(VERSION);
    let (mut source, mut target) = (map.source_start.0, map.target_start.0);
    put(&mut bytes, source as u64);
    put(&mut bytes, target as u64);
    put(&mut bytes, map.runs.len() as u64);
    for run in &map.runs {
        put(&mut bytes, (run.source_start.0 - source) as u64);
        put(&mut bytes, (run.target_start.0 - target) as u64);
        put(&mut bytes, run.len);
        (source, target) = (run.source_end().0, run.target_end().0);
    }
    put(&mut bytes, (map.source_end.0 - source) as u64);
    put(&mut bytes, (map.target_end.0 - target) as u64);
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
    let mut runs = Vec::with_capacity(count as usize);
    let (mut source, mut target) = (source_start.0, target_start.0);
    for _ in 0..count {
        let source_at = after(source, take(rest)?)?;
        let target_at = after(target, take(rest)?)?;
        let len = take(rest)?;
        runs.push(Run {
            source_start: SourceOffset(source_at),
            target_start: TargetOffset(target_at),
            len,
        });
        (source, target) = (after(source_at, len)?, after(target_at, len)?);
    }
    let source_end = SourceOffset(after(source, take(rest)?)?);
    let target_end = TargetOffset(after(target, take(rest)?)?);
    if !rest.is_empty() {
        return Err(DecodeError::Malformed);
    }
    checked(OffsetMap {
        source_start,
        target_start,
        source_end,
        target_end,
        runs,
    })
}

fn checked(map: OffsetMap) -> Result<OffsetMap, DecodeError> {
    map.check().map_err(DecodeError::Invalid)?;
    Ok(map)
}

fn after(start: i64, gap: u64) -> Result<i64, DecodeError> {
    start
        .checked_add_unsigned(gap)
        .ok_or(DecodeError::Malformed)
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit; a last byte of zero would be a second spelling.
        if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
            return Err(DecodeError::Malformed);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DecodeError::Malformed)
}

/// The map as serde sees it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    version: u8,
    source_start: SourceOffset,
    target_start: TargetOffset,
    source_end: SourceOffset,
    target_end: TargetOffset,
    /// `[source_start, target_start, len]` each.
    runs: Vec<(SourceOffset, TargetOffset, u64)>,
}

impl From<OffsetMap> for Document {
    fn from(map: OffsetMap) -> Self {
        Self {
            version: VERSION,
            source_start: map.source_start,
            target_start: map.target_start,
            source_end: map.source_end,
            target_end: map.target_end,
            runs: map
                .runs
                .iter()
                .map(|run| (run.source_start, run.target_start, run.len))
                .collect(),
        }
    }
}

impl TryFrom<Document> for OffsetMap {
    type Error = DecodeError;

    fn try_from(document: Document) -> Result<Self, DecodeError> {
        if document.version != VERSION {
            return Err(DecodeError::Version(document.version));
        }
        checked(OffsetMap {
            source_start: document.source_start,
            target_start: document.target_start,
            source_end: document.source_end,
            target_end: document.target_end,
            runs: document
                .runs
                .into_iter()
                .map(|(source_start, target_start, len)| Run {
                    source_start,
                    target_start,
                    len,
                })
                .collect(),
        })
    }
}
