//! What is written reads back the same, here and elsewhere.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::RecordBatchDecoder;
use proptest::prelude::*;
use twinlog::batch::*;

use super::generate::*;

const STAMP: Stamp = Stamp {
    producer_id: 1234,
    producer_epoch: 5,
    base_sequence: 678,
};

prop_compose! {
    fn any_header()(
        (base_offset, length, leader_epoch, crc, attributes, last_offset_delta) in
            (any::<i64>(), 49..i32::MAX, any::<i32>(), any::<u32>(), any::<i16>(), 0..i32::MAX),
        (base_timestamp, max_timestamp, producer_id, producer_epoch, base_sequence, count) in
            (any::<i64>(), any::<i64>(), any::<i64>(), any::<i16>(), any::<i32>(), 0..i32::MAX),
    ) -> BatchHeader {
        BatchHeader {
            base_offset, length, leader_epoch, magic: 2, crc, attributes, last_offset_delta,
            base_timestamp, max_timestamp, producer_id, producer_epoch, base_sequence, count,
        }
    }
}

proptest! {
    #[test]
    fn a_header_round_trips(header in any_header()) {
        let mut bytes = [0; HEADER_BYTES];
        header.write(&mut bytes);
        prop_assert_eq!(BatchHeader::parse(&bytes).unwrap(), header);
    }

    #[test]
    fn records_round_trip(base in 0i64..1 << 40, records in records_from(0, 1..30), codec in any_codec()) {
        let records: Vec<_> =
            records.into_iter().map(|r| Record { offset: r.offset + base, ..r }).collect();
        let encoded = encode(&records, codec, STAMP).unwrap();
        let batch = at(base, &encoded);
        verify_crc(&batch).unwrap();
        prop_assert_eq!(batch.header.codec().unwrap(), codec);
        prop_assert_eq!(batch.header.producer_id, STAMP.producer_id);
        prop_assert_eq!(batch.header.producer_epoch, STAMP.producer_epoch);
        prop_assert_eq!(batch.header.base_sequence, STAMP.base_sequence);
        prop_assert_eq!(batch.header.leader_epoch, -1);
        prop_assert_eq!(BatchHeader::parse(&encoded).unwrap().base_offset, 0);
        prop_assert_eq!(batch.header.max_timestamp, records.iter().map(|r| r.timestamp).max().unwrap());
        prop_assert!(batch.header.is_gapless());
        prop_assert_eq!(batch.header.size_bytes(), encoded.len());
        prop_assert_eq!(open(&batch, LIMIT).unwrap(), records);
    }

    /// The uncompressed encoding is the one that the test builds by hand, byte for byte.
    #[test]
    fn the_encoding_is_canonical(records in records_from(77, 1..30)) {
        let by_hand = V2 {
            base_offset: 0, leader_epoch: -1, producer_id: STAMP.producer_id,
            producer_epoch: STAMP.producer_epoch, base_sequence: STAMP.base_sequence,
            ..V2::of(&records)
        };
        prop_assert_eq!(encode(&records, Codec::None, STAMP).unwrap(), by_hand.bytes());
    }

    #[test]
    fn a_restamped_batch_keeps_its_records_and_a_valid_checksum(
        records in records_from(500, 1..20), codec in any_codec(), flags in 0i16..16, length in 0usize..4,
    ) {
        let encoded = encode(&records, codec, Stamp::NONE).unwrap();
        // As in a source's log: any of the flags LogAppendTime, transactional, delete horizon, unused.
        let old = V2 {
            attributes: i16::from(codec.id()) | (flags & 3) << 3 | (flags & 4) << 4 | (flags & 8) << 4,
            payload: encoded[HEADER_BYTES..].to_vec(),
            ..V2::of(&records)
        };
        let old = old.batch();
        let header = restamp(&old, STAMP);
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(&old.bytes[HEADER_BYTES..]);
        let new = one(bytes.clone());
        verify_crc(&new).unwrap();
        prop_assert_eq!(new.header.attributes & 0x58, 0);
        prop_assert_eq!(new.header.attributes, old.header.attributes & !0x58);
        prop_assert_eq!(
            (new.header.base_offset, new.header.leader_epoch, new.header.producer_id,
             new.header.producer_epoch, new.header.base_sequence),
            (0, -1, STAMP.producer_id, STAMP.producer_epoch, STAMP.base_sequence)
        );
        prop_assert_eq!(new.header.count, old.header.count);
        prop_assert_eq!(open(&at(500, &bytes.clone().into()), LIMIT).unwrap(), records);
        // Damage after the check must not be blessed.
        let mut damaged = old.clone();
        let mut body = damaged.bytes.to_vec();
        let spot = HEADER_BYTES + length % (body.len() - HEADER_BYTES);
        body[spot] ^= 0x10;
        damaged.bytes = body.into();
        let mut bytes = restamp(&damaged, STAMP).to_vec();
        bytes.extend_from_slice(&damaged.bytes[HEADER_BYTES..]);
        prop_assert!(matches!(verify_crc(&one(bytes)), Err(BatchError::CorruptCrc { .. })), "blessed");
    }

    #[test]
    fn another_implementation_reads_ours(mut records in records_from(0, 1..12)) {
        for record in &mut records {
            // It cannot hold headers that repeat or are not UTF-8, and its sums overflow.
            (record.header_count, record.headers) = (0, Bytes::new());
            record.timestamp &= (1 << 50) - 1;
        }
        let mut encoded = BytesMut::from(&encode(&records, Codec::None, STAMP).unwrap()[..]);
        let set = RecordBatchDecoder::decode(&mut encoded).unwrap();
        let theirs: Vec<_> =
            set.records.iter().map(|r| (r.offset, r.timestamp, r.key.clone(), r.value.clone())).collect();
        let ours: Vec<_> =
            records.iter().map(|r| (r.offset, r.timestamp, r.key.clone(), r.value.clone())).collect();
        prop_assert_eq!(theirs, ours);
    }

    #[test]
    fn simple_batches_read_back(
        pairs in prop::collection::vec(
            (prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
             prop::option::of(prop::collection::vec(any::<u8>(), 0..300))), 1..20),
        timestamp in any::<i64>(),
    ) {
        let slices: Vec<_> = pairs.iter().map(|(k, v)| (k.as_deref(), v.as_deref())).collect();
        let batch = one(encode_simple(&slices, timestamp, Stamp::NONE));
        verify_crc(&batch).unwrap();
        prop_assert_eq!((batch.header.producer_id, batch.header.base_sequence), (-1, -1));
        let records = open(&batch, LIMIT).unwrap();
        prop_assert_eq!(records.len(), pairs.len());
        for (record, pair) in records.iter().zip(&slices) {
            prop_assert_eq!((record.key.as_deref(), record.value.as_deref()), *pair);
            prop_assert_eq!(record.timestamp, timestamp);
        }
    }
}

#[test]
fn large_batches_of_every_codec_round_trip() {
    // Several LZ4 and xerial blocks, compressible and not.
    let mut state = 1u64;
    let records: Vec<_> = (0..3000)
        .map(|i| {
            let noise: Vec<u8> = (0..i as usize % 400)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    if i % 3 == 0 {
                        (state >> 56) as u8
                    } else {
                        (state >> 62) as u8
                    }
                })
                .collect();
            record(i, 1_700_000_000_000 + i, &noise)
        })
        .collect();
    for codec in CODECS {
        let batch = one(encode(&records, codec, STAMP).unwrap());
        verify_crc(&batch).unwrap();
        assert_eq!(open(&batch, LIMIT).unwrap(), records, "{codec:?}");
    }
}

#[test]
fn holes_are_refused() {
    let records = [record(5, 1, b"a"), record(7, 1, b"b")];
    assert_eq!(
        encode(&records, Codec::None, STAMP),
        Err(BatchError::NotContiguous {
            expected: 6,
            offset: 7
        })
    );
    assert!(matches!(
        encode(&[], Codec::None, STAMP),
        Err(BatchError::Malformed { .. })
    ));
}

#[test]
fn a_million_empty_records_are_small() {
    let bytes = empty_records_batch(Codec::Zstd, 1_000_000, 1_700_000_000_000, STAMP);
    assert!(
        bytes.len() < 1_048_000,
        "{} bytes exceed the default max.message.bytes",
        bytes.len()
    );
    let batch = one(bytes);
    verify_crc(&batch).unwrap();
    assert!(batch.header.is_gapless());
    let records = open(&batch, LIMIT).unwrap();
    assert_eq!(records.len(), 1_000_000);
    assert!(
        records
            .iter()
            .all(|r| r.key.is_none() && r.value.is_none() && r.header_count == 0)
    );
    assert!(records.iter().all(|r| r.timestamp == 1_700_000_000_000));
    let one_record = one(empty_records_batch(Codec::Zstd, 1, 5, STAMP));
    assert_eq!(open(&one_record, LIMIT).unwrap().len(), 1);
}

#[test]
fn a_cut_tail_ends_silently_and_garbage_does_not() {
    let first = V2::of(&[record(10, 1, b"first")]).bytes();
    let second = V2::of(&[record(11, 1, b"second")]).bytes();
    let both = [&first[..], &second[..]].concat();
    for cut in first.len()..both.len() {
        let mut batches = split(Bytes::copy_from_slice(&both[..cut]));
        assert_eq!(batches.next().unwrap().unwrap().header.base_offset, 10);
        assert!(batches.next().is_none(), "cut at {cut}");
        assert_eq!(batches.rest_bytes(), cut - first.len());
    }
    assert_eq!(all(both.clone()).len(), 2);

    let mut bad_length = both.clone();
    bad_length[first.len() + 8] = 0xff;
    let mut bad_magic = both.clone();
    bad_magic[first.len() + 16] = 3;
    let mut short = both;
    short[first.len() + 8..first.len() + 12].copy_from_slice(&48i32.to_be_bytes());
    for (bytes, is_expected) in [
        (
            bad_length,
            (|e| matches!(e, BatchError::BadLength { offset: 11, .. })) as fn(_) -> bool,
        ),
        (bad_magic, |e| {
            matches!(
                e,
                BatchError::UnknownMagic {
                    offset: 11,
                    magic: 3
                }
            )
        }),
        (short, |e| {
            matches!(
                e,
                BatchError::BadLength {
                    offset: 11,
                    length: 48
                }
            )
        }),
    ] {
        let mut batches = split(bytes.into());
        assert!(batches.next().unwrap().is_ok());
        assert!(is_expected(batches.next().unwrap().unwrap_err()));
        assert!(
            batches.next().is_none(),
            "nothing can be found after an error"
        );
    }
}
