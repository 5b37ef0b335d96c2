//! No bytes whatever may panic, hang or eat memory.

use std::io::Write;

use bytes::Bytes;
use proptest::prelude::*;
use twinlog::batch::*;

use super::generate::*;

const RULES: Rules = Rules {
    target_log_append_time: false,
    target_compacted: true,
    source_compacted: false,
    max_batch_bytes: usize::MAX,
    wanted_offset: i64::MIN,
};

/// Everything that can be done to a batch.
fn exercise(batch: &RawBatch) {
    let _ = verify_crc(batch);
    let _ = marker(batch);
    let _ = classify(batch, &RULES);
    let _ = restamp(batch, Stamp::NONE);
    let _ = AbortedFilter::new([(batch.header.producer_id, i64::MIN)]).is_aborted(batch);
    let _ = coalesce(std::slice::from_ref(batch), Stamp::NONE, 1 << 20);
    let next = at_or(batch, batch.header.next_offset());
    let _ = coalesce(&[batch.clone(), next], Stamp::NONE, 1 << 20);
    if let Ok(records) = open(batch, 1 << 20) {
        if !batch.legacy {
            assert_eq!(records.len() as i32, batch.header.count);
        }
        assert!(records.is_sorted_by(|a, b| a.offset < b.offset));
        if !batch.legacy {
            assert!(
                records
                    .iter()
                    .all(|r| r.offset <= batch.header.last_offset())
            );
        }
        let _ = encode(&records, Codec::Lz4, Stamp::NONE);
    }
}

fn at_or(batch: &RawBatch, offset: i64) -> RawBatch {
    let mut moved = batch.clone();
    moved.header.base_offset = offset;
    moved
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn arbitrary_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = BatchHeader::parse(&bytes);
        for batch in split(bytes.into()).flatten() {
            exercise(&batch);
        }
    }

    /// Arbitrary bytes in a shape that gets further: right length and magic.
    #[test]
    fn arbitrary_batches_are_safe(
        magic in 0u8..3, mut bytes in prop::collection::vec(any::<u8>(), 26..400), small_attributes: bool,
    ) {
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = magic;
        if small_attributes && bytes.len() > 61 {
            bytes[21] = 0;
            // Counts near what fits.
            bytes[57..60].fill(0);
            bytes[23..26].fill(0);
        }
        for batch in split(bytes.into()).flatten() {
            exercise(&batch);
        }
    }

    #[test]
    fn arbitrary_payloads_are_safe(
        codec in any_codec(), count in prop_oneof![1i32..20, Just(i32::MAX)],
        payload in prop::collection::vec(any::<u8>(), 0..200), frame: bool,
    ) {
        let mut full: Vec<u8> = match codec {
            Codec::Gzip if frame => vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3],
            Codec::Snappy if frame => b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x20".to_vec(),
            Codec::Lz4 if frame => vec![0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0, 30, 0, 0, 0],
            Codec::Zstd if frame => vec![0x28, 0xb5, 0x2f, 0xfd],
            _ => vec![],
        };
        full.extend(payload);
        let v2 = V2 {
            attributes: codec.id().into(), count, last_offset_delta: count - 1, payload: full,
            ..V2::of(&[record(0, 0, b"")])
        };
        exercise(&v2.batch());
    }

    /// A few damaged bytes in a valid batch, CRC ignored.
    #[test]
    fn damaged_batches_are_safe(
        records in records_from(3, 1..8), codec in any_codec(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(&records, codec, Stamp::NONE).unwrap().to_vec();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        for batch in split(bytes.into()).flatten() {
            exercise(&batch);
        }
    }

    /// Any single changed bit in the covered range is seen.
    #[test]
    fn a_flipped_bit_is_seen(
        records in records_from(3, 1..5), codec in any_codec(), bit in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&records, codec, Stamp::NONE).unwrap().to_vec();
        let bit = 17 * 8 + bit.index((bytes.len() - 17) * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        match split(bytes.into()).next() {
            Some(Ok(batch)) => {
                let seen = verify_crc(&batch);
                prop_assert!(matches!(seen, Err(BatchError::CorruptCrc { .. })), "not seen");
            }
            other => prop_assert!(matches!(other, Some(Err(BatchError::Malformed { .. }))), "not seen"),
        }
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    let value = vec![0u8; 8 << 20];
    let records = [record(0, 0, &value)];
    let exact = V2::of(&records).payload.len();
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = one(encode(&records, codec, Stamp::NONE).unwrap());
        for limit in [0, 1, 100_000, exact - 1] {
            let stopped = BatchError::Bomb {
                offset: 0,
                limit_bytes: limit,
            };
            assert_eq!(
                open(&batch, limit),
                Err(stopped.clone()),
                "{codec:?} {limit}"
            );
            let merged = coalesce(std::slice::from_ref(&batch), Stamp::NONE, limit);
            assert_eq!(merged.map(|_| ()), Err(stopped), "{codec:?} {limit}");
        }
        assert_eq!(open(&batch, exact).unwrap(), records, "{codec:?} just fits");
    }
}

#[test]
fn the_limit_holds_for_a_whole_run() {
    let batch = encode(&[record(0, 0, &[0; 1000])], Codec::Zstd, Stamp::NONE).unwrap();
    let run: Vec<_> = (0..10).map(|offset| at(offset, &batch)).collect();
    assert!(coalesce(&run, Stamp::NONE, 10_200).is_ok());
    assert!(matches!(
        coalesce(&run, Stamp::NONE, 9_000),
        Err(BatchError::Bomb { .. })
    ));
}

#[test]
fn a_zstd_stream_without_a_size_is_read_and_bounded() {
    // As Java writes it, and with more zeros than any first guess makes room for.
    let records = [record(0, 0, &vec![7u8; 20 << 20])];
    let v2 = V2::of(&records);
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(&v2.payload).unwrap();
    let payload = encoder.finish().unwrap();
    let batch = V2 {
        attributes: 4,
        payload,
        ..v2
    }
    .batch();
    assert_eq!(open(&batch, LIMIT).unwrap(), records);
    assert!(matches!(
        open(&batch, 19 << 20),
        Err(BatchError::Bomb { .. })
    ));
}

#[test]
fn lying_counts_reserve_nothing() {
    for codec in CODECS {
        let records = [record(0, 0, b"x")];
        let payload = encode(&records, codec, Stamp::NONE)
            .unwrap()
            .slice(HEADER_BYTES..);
        let batch = V2 {
            attributes: codec.id().into(),
            count: i32::MAX,
            last_offset_delta: i32::MAX - 1,
            payload: payload.to_vec(),
            ..V2::of(&records)
        }
        .batch();
        assert!(matches!(
            open(&batch, LIMIT),
            Err(BatchError::Malformed { .. })
        ));
        assert!(coalesce(std::slice::from_ref(&batch), Stamp::NONE, LIMIT).is_err());
    }
}

#[test]
fn foreign_lz4_frames_are_read() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let values: Vec<u8> = (0..400_000u32).map(|i| (i % 7919 % 251) as u8).collect();
    let records = [record(0, 0, &values)];
    let v2 = V2::of(&records);
    for block_size in [
        BlockSize::Max64KB,
        BlockSize::Max256KB,
        BlockSize::Max1MB,
        BlockSize::Max4MB,
    ] {
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for extras in [false, true] {
                let info = FrameInfo::new()
                    .block_size(block_size)
                    .block_mode(mode)
                    .block_checksums(extras)
                    .content_checksum(extras)
                    .content_size(extras.then_some(v2.payload.len() as u64));
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(&v2.payload).unwrap();
                let payload = encoder.finish().unwrap();
                let batch = V2 {
                    attributes: 3,
                    payload,
                    ..v2.clone()
                }
                .batch();
                assert_eq!(
                    open(&batch, LIMIT).unwrap(),
                    records,
                    "{block_size:?} {mode:?} {extras}"
                );
            }
        }
    }
}

#[test]
fn our_lz4_frames_are_read_by_the_library() {
    use std::io::Read;
    let records: Vec<_> = (0..5000)
        .map(|i| record(i, i, b"some value of some length"))
        .collect();
    let encoded = encode(&records, Codec::Lz4, Stamp::NONE).unwrap();
    let mut decoded = Vec::new();
    // It verifies the header's checksum, a constant of ours.
    lz4_flex::frame::FrameDecoder::new(&encoded[HEADER_BYTES..])
        .read_to_end(&mut decoded)
        .unwrap();
    assert_eq!(decoded, V2::of(&records).payload);
}

#[test]
fn snappy_is_read_raw_and_joined_and_gzip_in_members() {
    let records: Vec<_> = (0..50).map(|i| record(i, i, b"value")).collect();
    let v2 = V2::of(&records);
    let raw = snap::raw::Encoder::new().compress_vec(&v2.payload).unwrap();
    let (left, right) = v2.payload.split_at(v2.payload.len() / 3);
    let mut joined = Vec::new();
    for part in [left, right] {
        let block = snap::raw::Encoder::new().compress_vec(part).unwrap();
        joined.extend(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        joined.extend((block.len() as i32).to_be_bytes());
        joined.extend(block);
    }
    let mut members = Vec::new();
    for part in [left, right] {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        members.extend(encoder.finish().unwrap());
    }
    for (attributes, payload) in [(2, raw), (2, joined), (1, members)] {
        let batch = V2 {
            attributes,
            payload,
            ..v2.clone()
        }
        .batch();
        assert_eq!(open(&batch, LIMIT).unwrap(), records);
    }
}

#[test]
fn unknown_codecs_are_named() {
    let batch = V2 {
        attributes: 5,
        ..V2::of(&[record(9, 0, b"")])
    }
    .batch();
    let unknown = BatchError::UnknownCodec {
        offset: 9,
        codec: 5,
    };
    assert_eq!(batch.header.codec(), Err(unknown.clone()));
    assert_eq!(open(&batch, LIMIT), Err(unknown.clone()));
    assert_eq!(classify(&batch, &RULES), Err(unknown));
}

#[test]
fn whole_batches_only() {
    let bytes = V2::of(&[record(9, 0, b"")]).bytes();
    assert!(RawBatch::parse(bytes.slice(..bytes.len() - 1)).is_err());
    assert!(RawBatch::parse(Bytes::new()).is_err());
    assert!(RawBatch::parse([&bytes[..], &[0]].concat().into()).is_err());
}
