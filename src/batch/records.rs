//! Opening a batch: decompression and decoding into records, without loss.

use bytes::Bytes;

use super::compress::with_scratch;
use super::varint::{read_varint, read_varlong};
use super::{BatchError, BatchHeader, Codec, RawBatch, legacy};

/// The records of a batch, in order.
pub type Records = Vec<Record>;

/// One record. Key, value and headers are views into the batch's one decompressed buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Absolute offset.
    pub offset: i64,
    /// Milliseconds, -1 for none.
    pub timestamp: i64,
    /// The key; `None` is null, which is not the same as empty.
    pub key: Option<Bytes>,
    /// The value; `None` is null, a tombstone on compacted topics.
    pub value: Option<Bytes>,
    /// Number of headers.
    pub header_count: i32,
    /// The headers as encoded on the wire, without their count. Never decoded, so that duplicate, null and
    /// non-UTF-8 ones survive.
    pub headers: Bytes,
}

/// A header's key, which need not be UTF-8, and its value; `None` is null.
pub type Header = (Bytes, Option<Bytes>);

impl Record {
    /// The headers in order, duplicates kept.
    ///
    /// # Errors
    /// `Malformed` when they aren't what their count says; never for a record that [`open`] gave.
    pub fn header_list(&self) -> Result<Vec<Header>, BatchError> {
        let mut list = Vec::new();
        let mut at = 0;
        for _ in 0..self.header_count {
            let header = self.header_at(&mut at);
            list.push(header.map_err(|what| BatchError::Malformed {
                what,
                offset: self.offset,
            })?);
        }
        Ok(list)
    }

    fn header_at(&self, at: &mut usize) -> Result<Header, &'static str> {
        let all = &self.headers;
        let key = read_varint(all, at).ok_or("header is cut")?;
        let key = usize::try_from(key).map_err(|_| "negative header key length")?;
        let from = *at;
        skip(at, key, all.len())?;
        let key = all.slice(from..*at);
        let value = read_varint(all, at).ok_or("header is cut")?;
        let Ok(value) = usize::try_from(value) else {
            return Ok((key, None));
        };
        let from = *at;
        skip(at, value, all.len())?;
        Ok((key, Some(all.slice(from..*at))))
    }
}

/// Smallest encoded record: length, attributes, timestamp, offset, key, value and header count.
const RECORD_BYTES_MIN: usize = 7;

/// Decompresses and decodes a batch of any magic.
///
/// Under LogAppendTime every record gets the batch's `max_timestamp`, which is what consumers are shown.
/// The checksum is not verified here.
///
/// # Errors
/// `Bomb` when the records decompress to more than `max_decompressed_bytes`, `Compression` and
/// `UnknownCodec` from the codec, `Malformed` when the records contradict the header or themselves: another
/// number of records than declared, bytes left over, offsets that do not rise or lie outside of the batch.
pub fn open(batch: &RawBatch, max_decompressed_bytes: usize) -> Result<Records, BatchError> {
    if batch.legacy {
        return legacy::open(batch, max_decompressed_bytes);
    }
    let header = &batch.header;
    if header.count == 0 {
        return Ok(Vec::new());
    }
    let codec = header.codec()?;
    let body = decompressed(
        codec,
        batch.payload_bytes(),
        header.base_offset,
        max_decompressed_bytes,
    )?;
    decode(header, &body)
}

/// The payload decompressed, in a buffer of just its size; shared if it is not compressed.
pub(super) fn decompressed(
    codec: Codec,
    payload: Bytes,
    offset: i64,
    limit: usize,
) -> Result<Bytes, BatchError> {
    if codec == Codec::None {
        return Ok(payload);
    }
    with_scratch(|scratch| {
        scratch
            .decompressor
            .decompress(codec, &payload, limit)
            .map(Bytes::copy_from_slice)
            .map_err(|failure| failure.at(offset, codec, limit))
    })
}

fn decode(header: &BatchHeader, body: &Bytes) -> Result<Records, BatchError> {
    let malformed = |what| BatchError::Malformed {
        what,
        offset: header.base_offset,
    };
    let count = header.count.max(0) as usize;
    // Before anything is reserved: the count may be a lie.
    if count > body.len() / RECORD_BYTES_MIN {
        return Err(malformed("more records declared than there are bytes for"));
    }
    let mut records = Vec::with_capacity(count);
    let mut at = 0;
    let mut delta_min = 0;
    for _ in 0..count {
        let span = RecordSpan::read(body, &mut at).map_err(malformed)?;
        if span.offset_delta < delta_min {
            return Err(malformed("record offsets do not rise"));
        }
        if span.offset_delta > header.last_offset_delta {
            return Err(malformed("a record lies behind the batch's last offset"));
        }
        // At most i32::MAX, which ends the batch anyway.
        delta_min = span.offset_delta.saturating_add(1);
        let timestamp = if header.is_log_append_time() {
            header.max_timestamp
        } else {
            header.base_timestamp.wrapping_add(span.timestamp_delta)
        };
        let offset = header.base_offset.saturating_add(span.offset_delta.into());
        records.push(span.decode(body, offset, timestamp).map_err(malformed)?);
    }
    if at != body.len() {
        return Err(malformed("bytes after the last declared record"));
    }
    Ok(records)
}

/// Where a record's parts are, its varying fields decoded.
pub(super) struct RecordSpan {
    pub(super) attributes: u8,
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    /// Start of the key length.
    pub(super) rest_from: usize,
    /// End of the record.
    pub(super) end: usize,
}

impl RecordSpan {
    /// Reads the fields in front of the key and moves `at` behind the record. Does not look at the rest.
    #[inline]
    pub(super) fn read(body: &[u8], at: &mut usize) -> Result<Self, &'static str> {
        let length = read_varint(body, at).ok_or("record is cut")?;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| at.checked_add(length))
            .filter(|&end| end <= body.len())
            .ok_or("record length is negative or runs past the end")?;
        let record = &body[..end];
        let mut field = *at;
        let attributes = *record.get(field).ok_or("record is cut")?;
        field += 1;
        let timestamp_delta = read_varlong(record, &mut field).ok_or("record is cut")?;
        let offset_delta = read_varint(record, &mut field).ok_or("record is cut")?;
        *at = end;
        Ok(Self {
            attributes,
            timestamp_delta,
            offset_delta,
            rest_from: field,
            end,
        })
    }

    /// Whether the key is null.
    pub(super) fn has_null_key(&self, body: &[u8]) -> Result<bool, &'static str> {
        let mut at = self.rest_from;
        Ok(read_varint(&body[..self.end], &mut at).ok_or("record is cut")? < 0)
    }

    fn decode(&self, body: &Bytes, offset: i64, timestamp: i64) -> Result<Record, &'static str> {
        let mut at = self.rest_from;
        let key = self.nullable(body, &mut at)?;
        let value = self.nullable(body, &mut at)?;
        let record = &body[..self.end];
        let header_count = read_varint(record, &mut at).ok_or("record is cut")?;
        let headers = body.slice(at..self.end);
        if header_count < 0 {
            return Err("negative header count");
        }
        for _ in 0..header_count {
            let key = read_varint(record, &mut at).ok_or("header is cut")?;
            let key = usize::try_from(key).map_err(|_| "negative header key length")?;
            skip(&mut at, key, self.end)?;
            let value = read_varint(record, &mut at).ok_or("header is cut")?;
            // Negative is a null value.
            skip(&mut at, usize::try_from(value).unwrap_or(0), self.end)?;
        }
        if at != self.end {
            return Err("bytes after a record's headers");
        }
        Ok(Record {
            offset,
            timestamp,
            key,
            value,
            header_count,
            headers,
        })
    }

    fn nullable(&self, body: &Bytes, at: &mut usize) -> Result<Option<Bytes>, &'static str> {
        let length = read_varint(&body[..self.end], at).ok_or("record is cut")?;
        // Java takes any negative length for null.
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        let from = *at;
        skip(at, length, self.end)?;
        Ok(Some(body.slice(from..*at)))
    }
}

fn skip(at: &mut usize, bytes: usize, end: usize) -> Result<(), &'static str> {
    let to = at.checked_add(bytes).filter(|&to| to <= end);
    *at = to.ok_or("field runs past the record")?;
    Ok(())
}
