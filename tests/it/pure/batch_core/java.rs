//! Bytes that Kafka's Java client wrote (`MemoryRecords` of 3.9.1, the last that writes v0 and v1).
//!
//! 40 records from offset 1000 on: every fifth key and every seventh value null; in v2 every fourth record
//! has the headers `same=x`, `same=null` and an empty one, and the batch is transactional.

use twinlog::batch::*;

use super::generate::*;

fn expected(magic: i64) -> Vec<Record> {
    let headers: &[u8] = b"\x08same\x02x\x08same\x01\x00\x00";
    (0..40)
        .map(|i| Record {
            offset: 1000 + i,
            timestamp: if magic == 0 {
                -1
            } else {
                1_700_000_000_000 + i * 37 - i % 3 * 100
            },
            key: (i % 5 != 0).then(|| format!("key-{i}").into()),
            value: (i % 7 != 0).then(|| format!("value value value {i}").into()),
            header_count: if magic == 2 && i % 4 == 0 { 3 } else { 0 },
            headers: if magic == 2 && i % 4 == 0 {
                headers
            } else {
                b""
            }
            .into(),
        })
        .collect()
}

fn check(magic: i64, codec: Codec, bytes: &'static [u8]) {
    let batches = all(bytes);
    let mut records = Vec::new();
    for batch in &batches {
        verify_crc(batch).unwrap();
        assert_eq!(batch.header.codec(), Ok(codec));
        assert_eq!(batch.legacy, magic < 2);
        records.extend(open(batch, LIMIT).unwrap());
    }
    assert_eq!(records, expected(magic), "v{magic} {codec:?}");
    let [batch] = &batches[..] else { return };
    assert_eq!(batch.header.next_offset(), 1040);
    if magic == 2 {
        let stamp = Stamp {
            producer_id: 77,
            producer_epoch: 3,
            base_sequence: 11,
        };
        let merged = coalesce(&batches, stamp, LIMIT).unwrap();
        assert_eq!(open(&at(1000, &merged.batch), LIMIT).unwrap(), records);
        if codec == Codec::None {
            // What Java encodes is what we encode.
            let encoded = encode(&records, codec, stamp).unwrap();
            assert_eq!(encoded[HEADER_BYTES..], batch.bytes[HEADER_BYTES..]);
            let mut raw = restamp(batch, stamp).to_vec();
            raw.extend_from_slice(&batch.bytes[HEADER_BYTES..]);
            assert_eq!(encoded, raw);
        }
    }
}

#[test]
fn v2_of_every_codec() {
    check(2, Codec::None, include_bytes!("java/v2-none.bin"));
    check(2, Codec::Gzip, include_bytes!("java/v2-gzip.bin"));
    check(2, Codec::Snappy, include_bytes!("java/v2-snappy.bin"));
    check(2, Codec::Lz4, include_bytes!("java/v2-lz4.bin"));
    check(2, Codec::Zstd, include_bytes!("java/v2-zstd.bin"));
}

#[test]
fn v1_of_every_codec() {
    check(1, Codec::None, include_bytes!("java/v1-none.bin"));
    check(1, Codec::Gzip, include_bytes!("java/v1-gzip.bin"));
    check(1, Codec::Snappy, include_bytes!("java/v1-snappy.bin"));
    check(1, Codec::Lz4, include_bytes!("java/v1-lz4.bin"));
}

#[test]
fn v0_of_every_codec() {
    check(0, Codec::None, include_bytes!("java/v0-none.bin"));
    check(0, Codec::Gzip, include_bytes!("java/v0-gzip.bin"));
    check(0, Codec::Snappy, include_bytes!("java/v0-snappy.bin"));
    // With the wrong header checksum of KAFKA-3160.
    check(0, Codec::Lz4, include_bytes!("java/v0-lz4.bin"));
}

#[test]
fn transaction_markers() {
    let batches = all(&include_bytes!("java/v2-markers.bin")[..]);
    let kinds: Vec<_> = batches
        .iter()
        .map(|b| (b.header.producer_id, marker(b).unwrap()))
        .collect();
    assert_eq!(kinds, [(77, Marker::Abort), (78, Marker::Commit)]);
}
