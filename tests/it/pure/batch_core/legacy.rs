//! Message formats v0 and v1, built here by hand.

use bytes::Bytes;
use proptest::prelude::*;
use twinlog::batch::*;

use super::generate::*;

/// One message; `value` may be a compressed set.
fn message(
    magic: u8,
    offset: i64,
    attributes: u8,
    timestamp: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Vec<u8> {
    let mut covered = vec![magic, attributes];
    if magic == 1 {
        covered.extend(timestamp.to_be_bytes());
    }
    for field in [key, value] {
        covered.extend(field.map_or(-1, |f| f.len() as i32).to_be_bytes());
        covered.extend(field.unwrap_or_default());
    }
    let mut crc = flate2::Crc::new();
    crc.update(&covered);
    let mut out = offset.to_be_bytes().to_vec();
    out.extend((covered.len() as i32 + 4).to_be_bytes());
    out.extend(crc.sum().to_be_bytes());
    out.extend(covered);
    out
}

/// A compressed set of consecutive records that ends at `wrapper_offset`.
fn set(
    magic: u8,
    codec: Codec,
    records: &[Record],
    wrapper_offset: i64,
    append_time: Option<i64>,
) -> Vec<u8> {
    let mut inner = Vec::new();
    for (relative, record) in (0..).zip(records) {
        let offset = if magic == 1 { relative } else { record.offset };
        inner.extend(message(
            magic,
            offset,
            0,
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
        ));
    }
    let value = match codec {
        Codec::Gzip => {
            use std::io::Write;
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&inner).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(&inner).unwrap(),
        Codec::Lz4 => {
            let block = lz4_flex::block::compress(&inner);
            // The header checksum of KAFKA-3160, wrong by today's rules.
            let mut frame = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x00];
            frame.extend((block.len() as u32).to_le_bytes());
            frame.extend(block);
            frame.extend([0; 4]);
            frame
        }
        _ => unreachable!("not in these formats"),
    };
    let attributes = codec.id() | if append_time.is_some() { 8 } else { 0 };
    let timestamp =
        append_time.unwrap_or_else(|| records.iter().map(|r| r.timestamp).max().unwrap());
    message(
        magic,
        wrapper_offset,
        attributes,
        timestamp,
        None,
        Some(&value),
    )
}

fn plain(records: Vec<Record>, magic: u8) -> Vec<Record> {
    records
        .into_iter()
        .map(|r| Record {
            header_count: 0,
            headers: Bytes::new(),
            timestamp: if magic == 0 { -1 } else { r.timestamp },
            ..r
        })
        .collect()
}

proptest! {
    #[test]
    fn messages_are_batches_of_one(records in records_from(42, 1..8), magic in 0u8..2) {
        let records = plain(records, magic);
        let mut bytes = Vec::new();
        for r in &records {
            bytes.extend(message(magic, r.offset, 0, r.timestamp, r.key.as_deref(), r.value.as_deref()));
        }
        let batches = all(bytes);
        prop_assert_eq!(batches.len(), records.len());
        for (batch, record) in batches.iter().zip(&records) {
            prop_assert!(batch.legacy);
            prop_assert_eq!(batch.header.magic, magic as i8);
            prop_assert_eq!(batch.header.next_offset(), record.offset + 1);
            prop_assert_eq!(batch.header.size_bytes(), batch.bytes.len());
            verify_crc(batch).unwrap();
            let opened = open(batch, LIMIT).unwrap();
            prop_assert_eq!(std::slice::from_ref(record), &opened[..]);
        }
    }

    #[test]
    fn sets_are_unwrapped(
        records in records_from(1000, 1..12), magic in 0u8..2,
        codec in prop::sample::select(&[Codec::Gzip, Codec::Snappy, Codec::Lz4][..]), append_time: bool,
    ) {
        let mut records = plain(records, magic);
        let last = records[records.len() - 1].offset;
        let append_time = (append_time && magic == 1).then_some(99_999);
        let batch = one(set(magic, codec, &records, last, append_time));
        verify_crc(&batch).unwrap();
        prop_assert_eq!(batch.header.codec().unwrap(), codec);
        prop_assert_eq!(batch.header.next_offset(), last + 1);
        if let Some(time) = append_time {
            for record in &mut records { record.timestamp = time; }
        }
        prop_assert_eq!(open(&batch, LIMIT).unwrap(), records);
    }
}

#[test]
fn they_are_opened_and_never_merged_or_marked() {
    let rules = Rules {
        target_log_append_time: true,
        target_compacted: false,
        source_compacted: false,
        max_batch_bytes: usize::MAX,
        wanted_offset: 0,
    };
    let batch = one(message(1, 5, 0, 7, Some(b"k"), Some(b"v")));
    assert_eq!(
        classify(&batch, &rules),
        Ok(Passage::Open(OpenReason::Legacy))
    );
    assert!(matches!(
        coalesce(std::slice::from_ref(&batch), Stamp::NONE, LIMIT),
        Err(BatchError::NotMergeable { .. })
    ));
    assert!(marker(&batch).is_err());
    let records = open(&batch, LIMIT).unwrap();
    assert_eq!(
        open(
            &at(5, &encode(&records, Codec::None, Stamp::NONE).unwrap()),
            LIMIT
        )
        .unwrap(),
        records
    );
}

#[test]
fn a_v1_set_with_compaction_gaps_keeps_its_offsets() {
    // Relative offsets 0, 3: the last inner one is the wrapper's.
    let mut inner = message(1, 0, 0, 1, None, Some(b"a"));
    inner.extend(message(1, 3, 0, 2, None, Some(b"b")));
    let value = snap::raw::Encoder::new().compress_vec(&inner).unwrap();
    let offsets = |wrapper| {
        let batch = one(message(1, wrapper, 2, 2, None, Some(&value)));
        open(&batch, LIMIT).map(|records| records.iter().map(|r| r.offset).collect::<Vec<_>>())
    };
    assert_eq!(offsets(53), Ok(vec![50, 53]));
    assert_eq!(offsets(0), Ok(vec![0, 3]), "as old librdkafka wrote it");
    assert!(offsets(2).is_err(), "below the last inner offset");
}

#[test]
fn broken_sets_are_errors() {
    let nested = set(1, Codec::Snappy, &[record(0, 0, b"x")], 0, None);
    let value = snap::raw::Encoder::new().compress_vec(&nested).unwrap();
    for bytes in [
        message(1, 5, 2, 0, None, Some(&value)),
        message(1, 5, 2, 0, None, None),
        message(
            1,
            5,
            4,
            0,
            None,
            Some(&zstd::bulk::compress(&nested, 1).unwrap()),
        ),
        message(
            1,
            5,
            2,
            0,
            None,
            Some(&snap::raw::Encoder::new().compress_vec(b"").unwrap()),
        ),
    ] {
        assert!(open(&one(bytes), LIMIT).is_err());
    }
    let zeros = message(1, 0, 0, 0, None, Some(&vec![0; 1 << 20]));
    let value = snap::raw::Encoder::new().compress_vec(&zeros).unwrap();
    let bomb = one(message(1, 5, 2, 0, None, Some(&value)));
    assert!(matches!(open(&bomb, 1000), Err(BatchError::Bomb { .. })));
    let mut corrupt = message(1, 5, 0, 0, None, Some(b"value"));
    *corrupt.last_mut().unwrap() ^= 1;
    assert!(matches!(
        verify_crc(&one(corrupt)),
        Err(BatchError::CorruptCrc { .. })
    ));
}
