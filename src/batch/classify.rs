//! How a fetched batch gets to the target.

use super::records::RecordSpan;
use super::{BatchError, Codec, RawBatch};

/// What the target's topic and our position demand of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The target topic has `message.timestamp.type=LogAppendTime`.
    pub target_log_append_time: bool,
    /// The target topic is compacted: it refuses null keys.
    pub target_compacted: bool,
    /// The source topic has been compacted since its creation, so it has no null keys.
    pub source_compacted: bool,
    /// The target topic's `max.message.bytes`.
    pub max_batch_bytes: usize,
    /// The first offset we want; a fetch into the middle of a batch returns all of it.
    pub wanted_offset: i64,
}

/// How a batch gets to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// As it is, under a new header.
    Raw,
    /// It has to be opened and encoded again.
    Open(OpenReason),
    /// No records (left by the cleaner): only its offsets count. Also for emptied control batches.
    Empty,
    /// A marker: only its offsets count.
    Control,
}

/// Why a batch cannot pass unopened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenReason {
    /// Compaction removed records; the broker refuses the header's offset range, or worse, takes it.
    Gaps,
    /// It begins before the wanted offset.
    Head,
    /// Sent as it is, consumers would see the producer's times instead of the append time.
    LogAppendTime,
    /// Magic 0 or 1, which produce requests no longer take.
    Legacy,
    /// Larger than the target topic takes.
    TooLarge,
    /// There are, or in a compressed batch may be, null keys for a compacted target.
    NullKeys,
    /// An uncompressed batch whose inner offsets are not 0, 1, 2...: the broker would store it corrupt.
    /// Opening it will fail.
    UncompressedInnerOffsets,
}

impl OpenReason {
    /// A short, stable word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gaps => "gaps",
            Self::Head => "head",
            Self::LogAppendTime => "log_append_time",
            Self::Legacy => "legacy",
            Self::TooLarge => "too_large",
            Self::NullKeys => "null_keys",
            Self::UncompressedInnerOffsets => "inner_offsets",
        }
    }
}

/// Decides by the header alone, except for uncompressed batches: the broker does not check their inner
/// offsets, so they are walked (no copy, no allocation).
///
/// # Errors
/// `UnknownCodec`, or `Malformed` when an uncompressed batch's records do not fit its header.
pub fn classify(batch: &RawBatch, rules: &Rules) -> Result<Passage, BatchError> {
    let header = &batch.header;
    if batch.legacy {
        return Ok(Passage::Open(OpenReason::Legacy));
    }
    // Before the control bit: there is no marker to read in it.
    if header.count == 0 {
        return Ok(Passage::Empty);
    }
    if header.is_control() {
        return Ok(Passage::Control);
    }
    let codec = header.codec()?;
    if !header.is_gapless() {
        return Ok(Passage::Open(OpenReason::Gaps));
    }
    if header.base_offset < rules.wanted_offset {
        return Ok(Passage::Open(OpenReason::Head));
    }
    if header.is_log_append_time() && !rules.target_log_append_time {
        return Ok(Passage::Open(OpenReason::LogAppendTime));
    }
    if batch.bytes.len() > rules.max_batch_bytes {
        return Ok(Passage::Open(OpenReason::TooLarge));
    }
    let keys_matter = rules.target_compacted && !rules.source_compacted;
    if codec == Codec::None {
        return walk(batch, keys_matter);
    }
    Ok(if keys_matter {
        Passage::Open(OpenReason::NullKeys)
    } else {
        Passage::Raw
    })
}

fn walk(batch: &RawBatch, keys_matter: bool) -> Result<Passage, BatchError> {
    let malformed = |what| BatchError::Malformed {
        what,
        offset: batch.header.base_offset,
    };
    let body = batch.payload();
    let mut at = 0;
    for expected in 0..batch.header.count {
        let span = RecordSpan::read(body, &mut at).map_err(malformed)?;
        if span.offset_delta != expected {
            return Ok(Passage::Open(OpenReason::UncompressedInnerOffsets));
        }
        if keys_matter && span.has_null_key(body).map_err(malformed)? {
            return Ok(Passage::Open(OpenReason::NullKeys));
        }
    }
    if at != body.len() {
        return Err(malformed("bytes after the last declared record"));
    }
    Ok(Passage::Raw)
}
