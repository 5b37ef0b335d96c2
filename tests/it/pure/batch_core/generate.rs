//! Building blocks: generated records, and batches built by other code than the code under test.

use bytes::Bytes;
use proptest::prelude::*;
use twinlog::batch::{Codec, RawBatch, Record, split};

/// Room for every batch of these tests.
pub const LIMIT: usize = 64 << 20;

pub const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];

pub fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(&CODECS)
}

/// What a zigzag varint is by definition, bit by bit.
pub fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value as u64) << 1;
    if value < 0 {
        rest = !rest;
    }
    loop {
        let low = (rest & 0x7f) as u8;
        rest >>= 7;
        if rest == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    varint(out, field.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(field.unwrap_or_default());
}

fn some_bytes() -> impl Strategy<Value = Option<Bytes>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Bytes::new())),
        6 => prop::collection::vec(any::<u8>(), 1..60).prop_map(|v| Some(v.into())),
        2 => (any::<u8>(), 60usize..9000).prop_map(|(b, n)| Some(vec![b; n].into())),
    ]
}

/// Headers as encoded: keys that repeat, are empty or not UTF-8; null values.
fn some_headers() -> impl Strategy<Value = (i32, Bytes)> {
    let key = prop_oneof![
        Just(vec![]),
        Just(b"same".to_vec()),
        prop::collection::vec(any::<u8>(), 1..9)
    ];
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    prop::collection::vec((key, value), 0..4).prop_map(|headers| {
        let mut out = Vec::new();
        for (key, value) in &headers {
            nullable(&mut out, Some(key));
            nullable(&mut out, value.as_deref());
        }
        (headers.len() as i32, out.into())
    })
}

/// Consecutive records from `base` on.
pub fn records_from(
    base: i64,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Record>> {
    let timestamp = prop_oneof![
        6 => 1_700_000_000_000i64..1_700_000_100_000,
        1 => Just(-1),
        1 => any::<i64>(),
    ];
    prop::collection::vec(
        (timestamp, some_bytes(), some_bytes(), some_headers()),
        count,
    )
    .prop_map(move |records| {
        let records = (base..).zip(records);
        records
            .map(
                |(offset, (timestamp, key, value, (header_count, headers)))| Record {
                    offset,
                    timestamp,
                    key,
                    value,
                    header_count,
                    headers,
                },
            )
            .collect()
    })
}

/// A record in wire format.
pub fn wire_record(out: &mut Vec<u8>, timestamp_delta: i64, offset_delta: i64, record: &Record) {
    let mut body = vec![0];
    varint(&mut body, timestamp_delta);
    varint(&mut body, offset_delta);
    nullable(&mut body, record.key.as_deref());
    nullable(&mut body, record.value.as_deref());
    varint(&mut body, record.header_count.into());
    body.extend_from_slice(&record.headers);
    varint(out, body.len() as i64);
    out.extend_from_slice(&body);
}

/// A plain record with a value.
pub fn record(offset: i64, timestamp: i64, value: &[u8]) -> Record {
    Record {
        offset,
        timestamp,
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::copy_from_slice(value)),
        header_count: 0,
        headers: Bytes::new(),
    }
}

/// A v2 batch with every header field free.
#[derive(Clone, Debug)]
pub struct V2 {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
    pub payload: Vec<u8>,
}

impl V2 {
    /// An uncompressed batch of these records, as it is in a source's log.
    pub fn of(records: &[Record]) -> Self {
        let first = &records[0];
        let mut payload = Vec::new();
        for record in records {
            let timestamp_delta = record.timestamp.wrapping_sub(first.timestamp);
            wire_record(
                &mut payload,
                timestamp_delta,
                record.offset - first.offset,
                record,
            );
        }
        Self {
            base_offset: first.offset,
            leader_epoch: 7,
            attributes: 0,
            last_offset_delta: (records[records.len() - 1].offset - first.offset) as i32,
            base_timestamp: first.timestamp,
            max_timestamp: records.iter().map(|r| r.timestamp).max().unwrap_or(-1),
            producer_id: 4711,
            producer_epoch: 3,
            base_sequence: 99,
            count: records.len() as i32,
            payload,
        }
    }

    /// A transaction marker: 0 aborts, 1 commits.
    pub fn marker(offset: i64, producer_id: i64, kind: i16) -> Self {
        let [high, low] = kind.to_be_bytes();
        let record = Record {
            key: Some(Bytes::from(vec![0, 0, high, low])),
            ..record(offset, 5, &[0, 0, 0, 0, 0, 0])
        };
        Self {
            attributes: 0x30,
            producer_id,
            base_sequence: -1,
            ..Self::of(&[record])
        }
    }

    pub fn bytes(&self) -> Bytes {
        let mut covered = Vec::new();
        covered.extend(self.attributes.to_be_bytes());
        covered.extend(self.last_offset_delta.to_be_bytes());
        covered.extend(self.base_timestamp.to_be_bytes());
        covered.extend(self.max_timestamp.to_be_bytes());
        covered.extend(self.producer_id.to_be_bytes());
        covered.extend(self.producer_epoch.to_be_bytes());
        covered.extend(self.base_sequence.to_be_bytes());
        covered.extend(self.count.to_be_bytes());
        covered.extend(&self.payload);
        let mut out = Vec::new();
        out.extend(self.base_offset.to_be_bytes());
        out.extend((covered.len() as i32 + 9).to_be_bytes());
        out.extend(self.leader_epoch.to_be_bytes());
        out.push(2);
        out.extend(crc32c::crc32c(&covered).to_be_bytes());
        out.extend(covered);
        out.into()
    }

    pub fn batch(&self) -> RawBatch {
        one(self.bytes())
    }
}

/// The only batch in these bytes.
pub fn one(bytes: impl Into<Bytes>) -> RawBatch {
    RawBatch::parse(bytes.into()).expect("one whole batch")
}

/// All batches in these bytes.
pub fn all(bytes: impl Into<Bytes>) -> Vec<RawBatch> {
    split(bytes.into())
        .collect::<Result<_, _>>()
        .expect("only whole batches")
}

/// The batch as it would be in a log at this offset (which the CRC does not cover).
pub fn at(offset: i64, batch: &Bytes) -> RawBatch {
    let mut bytes = batch.to_vec();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    one(bytes)
}
