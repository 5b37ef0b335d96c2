//! Writing records as v2 batches, ready to be produced.

use bytes::Bytes;

use super::compress::with_scratch;
use super::header::{BatchHeader, CRC_FROM, HEADER_BYTES, LOG_OVERHEAD_BYTES};
use super::varint::{Head, push_varint, varint_bytes};
use super::{BatchError, Codec, Record, Stamp};

/// Encodes records as one batch: base offset 0, leader epoch -1, CreateTime, no transaction.
///
/// # Errors
/// `NotContiguous` if the offsets are not consecutive (a batch must have no holes), `TooLarge` if they do not
/// fit into one batch, `Malformed` for no records at all.
pub fn encode(records: &[Record], codec: Codec, stamp: Stamp) -> Result<Bytes, BatchError> {
    let Some(first) = records.first() else {
        return Err(BatchError::Malformed {
            what: "no records to encode",
            offset: -1,
        });
    };
    let too_large = || BatchError::TooLarge {
        offset: first.offset,
    };
    let count = i32::try_from(records.len()).map_err(|_| too_large())?;
    let mut max_timestamp = first.timestamp;
    with_scratch(|scratch| {
        let body = &mut scratch.records;
        body.clear();
        for (delta, record) in (0..count).zip(records) {
            let expected = first.offset.wrapping_add(delta.into());
            if record.offset != expected {
                return Err(BatchError::NotContiguous {
                    expected,
                    offset: record.offset,
                });
            }
            max_timestamp = max_timestamp.max(record.timestamp);
            let parts = Parts {
                timestamp_delta: record.timestamp.wrapping_sub(first.timestamp),
                offset_delta: delta,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                header_count: record.header_count,
                headers: &record.headers,
            };
            parts.write(body).ok_or_else(too_large)?;
        }
        let payload = scratch
            .compressor
            .compress(codec, body)
            .map_err(|failure| failure.at(first.offset, codec, usize::MAX))?;
        let summary = Summary {
            codec,
            count,
            base_timestamp: first.timestamp,
            max_timestamp,
        };
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.resize(HEADER_BYTES, 0);
        out.extend_from_slice(payload);
        seal(out, &summary, stamp).ok_or_else(too_large)
    })
}

/// A key and a value; `None` is null.
pub type KeyValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Encodes key-value pairs that all have one timestamp: uncompressed.
///
/// For our own state topics. The caller keeps the records within the topic's `max.message.bytes`; no records
/// give an empty batch, which brokers refuse.
pub fn encode_simple(records: &[KeyValue<'_>], timestamp_ms: i64, stamp: Stamp) -> Bytes {
    let mut out = vec![0; HEADER_BYTES];
    for (delta, &(key, value)) in (0..).zip(records) {
        let parts = Parts {
            key,
            value,
            ..Parts::empty(delta)
        };
        // A record of 2 GiB cannot be said in this format; the batch comes out short and brokers refuse it.
        if parts.write(&mut out).is_none() {
            break;
        }
    }
    let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
    let summary = Summary {
        codec: Codec::None,
        count,
        base_timestamp: timestamp_ms,
        max_timestamp: timestamp_ms,
    };
    seal(out, &summary, stamp).unwrap_or_default()
}

/// A batch of `count` records without key, value and headers, to burn offsets with.
///
/// 1,000,000 records are about 760 kB in zstd, and several MB in other codecs. `count` is at least
/// 1. Ten bytes per record are held while it is made.
pub fn empty_records_batch(codec: Codec, count: i32, timestamp_ms: i64, stamp: Stamp) -> Bytes {
    let count = count.max(1);
    with_scratch(|scratch| {
        let body = &mut scratch.records;
        body.clear();
        body.reserve(count as usize * 10);
        for delta in 0..count {
            // Always fits: the record has a handful of bytes.
            let _ = Parts::empty(delta).write(body);
        }
        let summary = Summary {
            codec,
            count,
            base_timestamp: timestamp_ms,
            max_timestamp: timestamp_ms,
        };
        let (codec, payload) = match scratch.compressor.compress(codec, body) {
            Ok(payload) => (codec, payload),
            // A codec fails only for want of memory; an uncompressed batch says the same.
            Err(_) => (Codec::None, body.as_slice()),
        };
        let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
        out.resize(HEADER_BYTES, 0);
        out.extend_from_slice(payload);
        seal(out, &Summary { codec, ..summary }, stamp).unwrap_or_default()
    })
}

/// A record's parts, to be written.
struct Parts<'a> {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    header_count: i32,
    headers: &'a [u8],
}

impl Parts<'_> {
    fn empty(offset_delta: i32) -> Self {
        Self {
            timestamp_delta: 0,
            offset_delta,
            key: None,
            value: None,
            header_count: 0,
            headers: &[],
        }
    }

    /// `None` if the record would be 2 GiB or more.
    fn write(&self, out: &mut Vec<u8>) -> Option<()> {
        let field = |field: Option<&[u8]>| match field {
            None => Some((-1, 1)),
            Some(bytes) => {
                let length = i32::try_from(bytes.len()).ok()?;
                Some((length, varint_bytes(length) + bytes.len()))
            }
        };
        let (key_length, key_bytes) = field(self.key)?;
        let (value_length, value_bytes) = field(self.value)?;
        let rest = key_bytes + value_bytes + varint_bytes(self.header_count) + self.headers.len();
        let head = Head::of_record(0, self.timestamp_delta, self.offset_delta, rest)?;
        out.extend_from_slice(head.as_slice());
        push_varint(out, key_length);
        out.extend_from_slice(self.key.unwrap_or_default());
        push_varint(out, value_length);
        out.extend_from_slice(self.value.unwrap_or_default());
        push_varint(out, self.header_count);
        out.extend_from_slice(self.headers);
        Some(())
    }
}

/// What a header has to say about the records.
pub(super) struct Summary {
    pub(super) codec: Codec,
    pub(super) count: i32,
    pub(super) base_timestamp: i64,
    pub(super) max_timestamp: i64,
}

/// Fills in the header of a batch whose records stand behind 61 spare bytes. `None` if it is 2 GiB or more.
pub(super) fn seal(mut out: Vec<u8>, summary: &Summary, stamp: Stamp) -> Option<Bytes> {
    let header = BatchHeader {
        base_offset: 0,
        length: i32::try_from(out.len() - LOG_OVERHEAD_BYTES).ok()?,
        leader_epoch: -1,
        magic: 2,
        crc: 0,
        attributes: summary.codec.id().into(),
        last_offset_delta: summary.count - 1,
        base_timestamp: summary.base_timestamp,
        max_timestamp: summary.max_timestamp,
        producer_id: stamp.producer_id,
        producer_epoch: stamp.producer_epoch,
        base_sequence: stamp.base_sequence,
        count: summary.count,
    };
    header.write(out.first_chunk_mut::<HEADER_BYTES>()?);
    let crc = crc32c::crc32c(&out[CRC_FROM..]);
    out[CRC_FROM - 4..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    Some(out.into())
}
