//! Message formats v0 and v1, read only: old logs are fetched as stored, and written to the target as v2.
//!
//! A message is `offset:8 length:4 crc:4 magic:1 attributes:1 [timestamp:8 in v1] key value`, key and value
//! with a 4-byte length. A compressed set is a message whose value holds messages; its offset is that of the
//! last one. Inside a v1 set offsets are relative, in v0 absolute. Rules as in Java's
//! `AbstractLegacyRecordBatch.DeepRecordsIterator`.

use bytes::Bytes;

use super::header::{CODEC_MASK, LOG_APPEND_TIME_BIT, LOG_OVERHEAD_BYTES, MAGIC_AT};
use super::records::decompressed;
use super::{BatchError, BatchHeader, Codec, RawBatch, Record, Records};

/// Length field of a v0 message with neither key nor value.
pub(super) const SMALLEST_LENGTH: i32 = 14;
/// The CRC covers a message from its magic on.
pub(super) const CRC_FROM: usize = MAGIC_AT;

/// CRC-32 (the IEEE one).
pub(super) fn crc(covered: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(covered);
    crc.sum()
}

/// The v2 header that comes nearest, see [`RawBatch`]. `message` is one whole message.
pub(super) fn header(message: &[u8]) -> Result<BatchHeader, BatchError> {
    let fields = Fields::read(message)?;
    let compressed = fields.attributes & CODEC_MASK != 0;
    Ok(BatchHeader {
        base_offset: fields.offset,
        length: fields.length,
        leader_epoch: -1,
        magic: fields.magic,
        crc: fields.crc,
        attributes: fields.attributes & (CODEC_MASK | fields.log_append_time()),
        last_offset_delta: 0,
        base_timestamp: fields.timestamp,
        max_timestamp: fields.timestamp,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        count: if compressed { -1 } else { 1 },
    })
}

/// Decodes a message or a compressed set of them.
pub(super) fn open(batch: &RawBatch, limit: usize) -> Result<Records, BatchError> {
    let outer = Message::read(&batch.bytes)?;
    let offset = outer.fields.offset;
    let malformed = |what| BatchError::Malformed { what, offset };
    let codec = outer.fields.codec()?;
    if codec == Codec::None {
        return Ok(vec![outer.record(offset, outer.fields.timestamp)]);
    }
    if codec == Codec::Zstd {
        return Err(BatchError::UnknownCodec {
            offset,
            codec: codec.id(),
        });
    }
    let append_time = (outer.fields.log_append_time() != 0).then_some(outer.fields.timestamp);
    let set = outer
        .value
        .ok_or_else(|| malformed("compressed set with a null value"))?;
    let mut rest = decompressed(codec, set, offset, limit)?;
    let mut records = Vec::new();
    // A cut tail ends the set silently, as for every consumer.
    while let Some(size) = size_of_next(&rest)? {
        if rest.len() < size {
            break;
        }
        let inner = Message::read(&rest.split_to(size))?;
        if inner.fields.codec()? != Codec::None {
            return Err(malformed("compressed message inside a compressed set"));
        }
        let timestamp = match append_time {
            Some(time) if inner.fields.magic == 1 => time,
            _ => inner.fields.timestamp,
        };
        records.push(inner.record(inner.fields.offset, timestamp));
    }
    let last = records
        .last()
        .ok_or_else(|| malformed("compressed set without messages"))?
        .offset;
    // Old librdkafka versions left the outer offset at 0; then the inner ones count from 0.
    if outer.fields.magic == 1 && offset != 0 {
        let base = offset.checked_sub(last).filter(|&base| base >= 0);
        let base = base.ok_or_else(|| malformed("set's offset is below its last message's"))?;
        for record in &mut records {
            record.offset = record.offset.saturating_add(base);
        }
    }
    let rising = records.is_sorted_by(|a, b| a.offset < b.offset);
    if !rising || records[0].offset < 0 {
        return Err(malformed("offsets inside the set do not rise"));
    }
    Ok(records)
}

/// Size of the message at the front, overhead included; `None` if not even that can be read.
fn size_of_next(rest: &[u8]) -> Result<Option<usize>, BatchError> {
    let Some(overhead) = rest.first_chunk::<LOG_OVERHEAD_BYTES>() else {
        return Ok(None);
    };
    let (offset, length) = overhead.split_at(8);
    let offset = offset.try_into().map_or(-1, i64::from_be_bytes);
    let length = length.try_into().map_or(-1, i32::from_be_bytes);
    if length < SMALLEST_LENGTH {
        return Err(BatchError::BadLength { offset, length });
    }
    Ok(Some(LOG_OVERHEAD_BYTES + length as usize))
}

/// The fixed fields of a message.
struct Fields {
    offset: i64,
    length: i32,
    crc: u32,
    magic: i8,
    attributes: i16,
    timestamp: i64,
    /// Start of the key's length.
    key_from: usize,
}

impl Fields {
    fn read(message: &[u8]) -> Result<Self, BatchError> {
        let have = message.len();
        let mut from = 0;
        let offset = take(message, &mut from).map_or(-1, i64::from_be_bytes);
        let cut = |need| BatchError::Truncated { offset, need, have };
        let length = take(message, &mut from)
            .map(i32::from_be_bytes)
            .ok_or(cut(26))?;
        let crc = take(message, &mut from)
            .map(u32::from_be_bytes)
            .ok_or(cut(26))?;
        let magic = take(message, &mut from)
            .map(i8::from_be_bytes)
            .ok_or(cut(26))?;
        let attributes = take(message, &mut from)
            .map(u8::from_be_bytes)
            .ok_or(cut(26))?;
        let timestamp = match magic {
            0 => -1,
            1 => take(message, &mut from)
                .map(i64::from_be_bytes)
                .ok_or(cut(34))?,
            _ => return Err(BatchError::UnknownMagic { offset, magic }),
        };
        Ok(Self {
            offset,
            length,
            crc,
            magic,
            attributes: attributes.into(),
            timestamp,
            key_from: from,
        })
    }

    /// The LogAppendTime bit; v0 has no timestamps.
    fn log_append_time(&self) -> i16 {
        if self.magic == 1 {
            self.attributes & LOG_APPEND_TIME_BIT
        } else {
            0
        }
    }

    fn codec(&self) -> Result<Codec, BatchError> {
        Codec::from_attributes(self.attributes, self.offset)
    }
}

/// A message and its parts.
struct Message {
    fields: Fields,
    key: Option<Bytes>,
    value: Option<Bytes>,
}

impl Message {
    fn read(message: &Bytes) -> Result<Self, BatchError> {
        let fields = Fields::read(message)?;
        let malformed = |what| BatchError::Malformed {
            what,
            offset: fields.offset,
        };
        let mut from = fields.key_from;
        let cut = "field runs past the message";
        let key = nullable(message, &mut from).ok_or_else(|| malformed(cut))?;
        let value = nullable(message, &mut from).ok_or_else(|| malformed(cut))?;
        Ok(Self { fields, key, value })
    }

    fn record(&self, offset: i64, timestamp: i64) -> Record {
        Record {
            offset,
            timestamp,
            key: self.key.clone(),
            value: self.value.clone(),
            header_count: 0,
            headers: Bytes::new(),
        }
    }
}

fn take<const N: usize>(bytes: &[u8], from: &mut usize) -> Option<[u8; N]> {
    let field = *bytes.get(*from..)?.first_chunk::<N>()?;
    *from += N;
    Some(field)
}

/// A length and as many bytes; negative is null. The outer `None` means cut.
fn nullable(message: &Bytes, from: &mut usize) -> Option<Option<Bytes>> {
    let length = i32::from_be_bytes(take(message, from)?);
    let Ok(length) = usize::try_from(length) else {
        return Some(None);
    };
    let end = from
        .checked_add(length)
        .filter(|&end| end <= message.len())?;
    let field = message.slice(*from..end);
    *from = end;
    Some(Some(field))
}
