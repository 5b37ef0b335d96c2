//! The record batch of version 2: its header, its records, and control batches. Written anew here: tests must not inherit the bugs of
//! what they test.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// Bytes before what the length counts.
const BEFORE_LENGTH: usize = 12;
/// The checksum covers everything from here.
const CRC_FROM: usize = 21;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// No producer.
pub const NO_PRODUCER: i64 = -1;
/// No sequence.
pub const NO_SEQUENCE: i32 = -1;
/// No timestamp.
pub const NO_TIMESTAMP: i64 = -1;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The first record's offset.
    pub base_offset: i64,
    /// Of everything after this field.
    pub length: i32,
    /// Of the leader that appended it.
    pub leader_epoch: i32,
    /// The format's version.
    pub magic: i8,
    /// CRC-32C of everything after this field.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control.
    pub attributes: i16,
    /// The last offset less the first.
    pub last_offset_delta: i32,
    /// Records' timestamps are relative to it.
    pub base_timestamp: i64,
    /// The largest of its records.
    pub max_timestamp: i64,
    /// Who wrote it.
    pub producer_id: i64,
    /// In which epoch.
    pub producer_epoch: i16,
    /// Of the first record.
    pub base_sequence: i32,
    /// How many records it has.
    pub count: i32,
}

impl Header {
    /// Reads the header. `None` if there are too few bytes.
    pub fn read(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES {
            return None;
        }
        Some(Self {
            base_offset: bytes.get_i64(),
            length: bytes.get_i32(),
            leader_epoch: bytes.get_i32(),
            magic: bytes.get_i8(),
            crc: bytes.get_u32(),
            attributes: bytes.get_i16(),
            last_offset_delta: bytes.get_i32(),
            base_timestamp: bytes.get_i64(),
            max_timestamp: bytes.get_i64(),
            producer_id: bytes.get_i64(),
            producer_epoch: bytes.get_i16(),
            base_sequence: bytes.get_i32(),
            count: bytes.get_i32(),
        })
    }

    /// Header and records in one, with the right length and checksum.
    pub fn seal(&self, records: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + records.len());
        bytes.put_i64(self.base_offset);
        bytes.put_i32(i32::try_from(HEADER_BYTES - BEFORE_LENGTH + records.len()).expect("fits"));
        bytes.put_i32(self.leader_epoch);
        bytes.put_i8(2);
        bytes.put_u32(0);
        bytes.put_i16(self.attributes);
        bytes.put_i32(self.last_offset_delta);
        bytes.put_i64(self.base_timestamp);
        bytes.put_i64(self.max_timestamp);
        bytes.put_i64(self.producer_id);
        bytes.put_i16(self.producer_epoch);
        bytes.put_i32(self.base_sequence);
        bytes.put_i32(self.count);
        bytes.put_slice(records);
        let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[CRC_FROM - 4..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        bytes.freeze()
    }

    /// Of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The number of the codec: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn codec(&self) -> i16 {
        self.attributes & CODEC_MASK
    }

    /// Whether its timestamps are the broker's.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Holds a marker, not data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Written by an idempotent producer.
    pub fn has_producer(&self) -> bool {
        self.producer_id > NO_PRODUCER
    }

    /// Of the last record (`DefaultRecordBatch.incrementSequence`).
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        add_to_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// The bit of `message.timestamp.type=LogAppendTime`.
    #[must_use]
    pub fn with_log_append_time(mut self, set: bool) -> Self {
        self.attributes &= !LOG_APPEND_TIME;
        if set {
            self.attributes |= LOG_APPEND_TIME;
        }
        self
    }

    /// The number of the codec.
    #[must_use]
    pub fn with_codec(mut self, codec: i16) -> Self {
        self.attributes = self.attributes & !CODEC_MASK | codec;
        self
    }
}

/// Sequences wrap from the largest number to zero.
pub fn add_to_sequence(sequence: i32, count: i32) -> i32 {
    i32::try_from((i64::from(sequence) + i64::from(count)) % (1 << 31)).expect("31 bits")
}

/// The first sequence of a batch whose last one is `sequence` (`DefaultRecordBatch.decrementSequence`).
pub fn subtract_from_sequence(sequence: i32, count: i32) -> i32 {
    i32::try_from((i64::from(sequence) - i64::from(count)).rem_euclid(1 << 31)).expect("31 bits")
}

/// Cuts whole batches off the front of `bytes`; stops at one that is not all there, or too short to be one.
pub fn split(bytes: &Bytes) -> Vec<Bytes> {
    let mut rest = bytes.clone();
    let mut batches = Vec::new();
    while rest.len() >= HEADER_BYTES {
        let length = (&rest[8..12]).get_i32();
        let Ok(length) = usize::try_from(length) else {
            break;
        };
        let size = BEFORE_LENGTH + length;
        if size < HEADER_BYTES || size > rest.len() {
            break;
        }
        batches.push(rest.split_to(size));
    }
    batches
}

/// Whether the checksum is right.
pub fn is_valid(batch: &[u8]) -> bool {
    Header::read(batch).is_some_and(|header| crc32c::crc32c(&batch[CRC_FROM..]) == header.crc)
}

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Unused by Kafka.
    pub attributes: i8,
    /// Less the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Less the batch's base offset.
    pub offset_delta: i32,
    /// May be null.
    pub key: Option<Bytes>,
    /// May be null: a tombstone.
    pub value: Option<Bytes>,
    /// Their number and they, as they are encoded.
    pub headers: Bytes,
}

impl Record {
    /// A record without headers.
    pub fn new(key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Self {
            attributes: 0,
            timestamp_delta: 0,
            offset_delta: 0,
            key: key.map(Bytes::copy_from_slice),
            value: value.map(Bytes::copy_from_slice),
            headers: Bytes::from_static(&[0]),
        }
    }
}

/// A record that isn't one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Reads `count` records that fill the bytes exactly (`DefaultRecordBatch.RecordIterator`).
pub fn read_records(mut bytes: Bytes, count: i32) -> Result<Vec<Record>, Malformed> {
    let mut records = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(get_varint(&mut bytes)?).map_err(|_| Malformed)?;
        if length > bytes.len() {
            return Err(Malformed);
        }
        records.push(read_record(bytes.split_to(length))?);
    }
    if bytes.is_empty() {
        Ok(records)
    } else {
        Err(Malformed)
    }
}

fn read_record(mut bytes: Bytes) -> Result<Record, Malformed> {
    let attributes = bytes.try_get_i8().map_err(|_| Malformed)?;
    let timestamp_delta = get_varint(&mut bytes)?;
    let offset_delta = i32::try_from(get_varint(&mut bytes)?).map_err(|_| Malformed)?;
    let key = get_bytes(&mut bytes)?;
    let value = get_bytes(&mut bytes)?;
    check_headers(bytes.clone())?;
    Ok(Record {
        attributes,
        timestamp_delta,
        offset_delta,
        key,
        value,
        headers: bytes,
    })
}

fn check_headers(mut bytes: Bytes) -> Result<(), Malformed> {
    for _ in 0..get_varint(&mut bytes)? {
        get_bytes(&mut bytes)?.ok_or(Malformed)?;
        get_bytes(&mut bytes)?;
    }
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(Malformed)
    }
}

/// Records as they are in a batch, uncompressed.
pub fn write_records(records: &[Record]) -> Bytes {
    let mut bytes = BytesMut::new();
    for record in records {
        let mut one = BytesMut::new();
        one.put_i8(record.attributes);
        put_varint(&mut one, record.timestamp_delta);
        put_varint(&mut one, i64::from(record.offset_delta));
        put_bytes(&mut one, record.key.as_ref());
        put_bytes(&mut one, record.value.as_ref());
        one.put_slice(&record.headers);
        put_varint(&mut bytes, i64::try_from(one.len()).expect("fits"));
        bytes.put_slice(&one);
    }
    bytes.freeze()
}

fn get_varint(bytes: &mut Bytes) -> Result<i64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let byte = bytes.try_get_u8().map_err(|_| Malformed)?;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            #[expect(clippy::cast_possible_wrap, reason = "zigzag")]
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(Malformed)
}

fn put_varint(bytes: &mut BytesMut, value: i64) {
    #[expect(clippy::cast_sign_loss, reason = "zigzag")]
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.put_u8(rest as u8);
}

fn get_bytes(bytes: &mut Bytes) -> Result<Option<Bytes>, Malformed> {
    let length = get_varint(bytes)?;
    if length < 0 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    if length > bytes.len() {
        return Err(Malformed);
    }
    Ok(Some(bytes.split_to(length)))
}

fn put_bytes(bytes: &mut BytesMut, value: Option<&Bytes>) {
    match value {
        None => put_varint(bytes, -1),
        Some(value) => {
            put_varint(bytes, i64::try_from(value.len()).expect("fits"));
            bytes.put_slice(value);
        }
    }
}

/// The end of a transaction, as its control record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Or abort.
    pub commit: bool,
    /// Of the coordinator that wrote it.
    pub coordinator_epoch: i32,
}

impl Marker {
    /// A control batch with the marker (`MemoryRecords.withEndTransactionMarker`).
    pub fn batch(
        self,
        producer_id: i64,
        producer_epoch: i16,
        timestamp: i64,
        leader_epoch: i32,
    ) -> Bytes {
        let mut key = BytesMut::new();
        key.put_i16(0);
        key.put_i16(i16::from(self.commit));
        let mut value = BytesMut::new();
        value.put_i16(0);
        value.put_i32(self.coordinator_epoch);
        let header = Header {
            base_offset: 0,
            length: 0,
            leader_epoch,
            magic: 2,
            crc: 0,
            attributes: TRANSACTIONAL | CONTROL,
            last_offset_delta: 0,
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            producer_id,
            producer_epoch,
            base_sequence: NO_SEQUENCE,
            count: 1,
        };
        header.seal(&write_records(&[Record::new(Some(&key), Some(&value))]))
    }

    /// Reads a control batch. `None` if the marker was cleaned away, or is no end of a transaction.
    pub fn read(batch: &Bytes) -> Option<Self> {
        let header = Header::read(batch)?;
        let records = read_records(batch.slice(HEADER_BYTES..), header.count).ok()?;
        let record = records.first()?;
        let mut key = record.key.clone()?;
        let mut value = record.value.clone()?;
        key.try_get_i16().ok()?;
        let kind = key.try_get_i16().ok()?;
        value.try_get_i16().ok()?;
        Some(Self {
            commit: kind == 1,
            coordinator_epoch: value.try_get_i32().ok()?,
        })
    }
}

/// An uncompressed batch as a producer sends it.
pub fn produced(records: &[Record], base_timestamp: i64) -> (Header, Bytes) {
    let numbered: Vec<Record> = records
        .iter()
        .zip(0..)
        .map(|(record, offset_delta)| Record {
            offset_delta,
            ..record.clone()
        })
        .collect();
    let max_delta = records.iter().map(|r| r.timestamp_delta).max().unwrap_or(0);
    let count = i32::try_from(records.len()).expect("fits");
    let header = Header {
        base_offset: 0,
        length: 0,
        leader_epoch: -1,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp,
        max_timestamp: base_timestamp + max_delta,
        producer_id: NO_PRODUCER,
        producer_epoch: -1,
        base_sequence: NO_SEQUENCE,
        count,
    };
    (header, write_records(&numbered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written() {
        let mut record = Record::new(Some(b"key"), None);
        record.timestamp_delta = -5_000_000_000;
        let records = [record, Record::new(None, Some(&[7; 300]))];
        let (header, bytes) = produced(&records, 1_000);
        let batch = header.seal(&bytes);
        assert!(is_valid(&batch));
        let header = Header::read(&batch).expect("a header");
        let read = read_records(batch.slice(HEADER_BYTES..), header.count).expect("records");
        assert_eq!(read[0], records[0]);
        assert_eq!(
            (read[1].offset_delta, &read[1].value),
            (1, &records[1].value)
        );
        assert_eq!(read_records(batch.slice(HEADER_BYTES..), 1), Err(Malformed));
    }

    #[test]
    fn a_damaged_byte_is_seen() {
        let (header, bytes) = produced(&[Record::new(None, Some(b"value"))], 0);
        let mut batch = header.seal(&bytes).to_vec();
        *batch.last_mut().expect("bytes") ^= 1;
        assert!(!is_valid(&batch));
    }

    #[test]
    fn a_marker_comes_back_as_it_was_written() {
        let marker = Marker {
            commit: true,
            coordinator_epoch: 9,
        };
        let batch = marker.batch(4, 2, 77, 3);
        let header = Header::read(&batch).expect("a header");
        assert!(header.is_control() && header.is_transactional());
        assert_eq!((header.producer_id, header.producer_epoch), (4, 2));
        assert_eq!(Marker::read(&batch), Some(marker));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(add_to_sequence(i32::MAX, 1), 0);
        assert_eq!(subtract_from_sequence(0, 1), i32::MAX);
        assert_eq!(add_to_sequence(5, 4), 9);
    }
}
