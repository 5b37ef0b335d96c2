//! What a header does not tell, or tells wrong.

use twinlog::batch::*;

use super::generate::*;

const RULES: Rules = Rules {
    target_log_append_time: false,
    target_compacted: false,
    source_compacted: false,
    max_batch_bytes: 1 << 20,
    wanted_offset: 0,
};

fn three() -> Vec<Record> {
    (100..103)
        .map(|offset| record(offset, 1000 + offset, b"value"))
        .collect()
}

fn gaps() -> Vec<Record> {
    [100, 104, 109]
        .map(|offset| record(offset, 1000 + offset, b"value"))
        .to_vec()
}

fn compressed(v2: V2, codec: Codec) -> V2 {
    // Through the one door there is: encode contiguous records of the same bytes is not possible for gaps.
    let payload = match codec {
        Codec::Zstd => zstd::bulk::compress(&v2.payload, 1).unwrap(),
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(&v2.payload).unwrap(),
        _ => unreachable!("only these two are used here"),
    };
    V2 {
        attributes: v2.attributes | i16::from(codec.id()),
        payload,
        ..v2
    }
}

#[test]
fn an_ordinary_batch_is_raw() {
    assert_eq!(
        classify(&V2::of(&three()).batch(), &RULES),
        Ok(Passage::Raw)
    );
    let batch = compressed(V2::of(&three()), Codec::Zstd).batch();
    assert_eq!(classify(&batch, &RULES), Ok(Passage::Raw));
    // Transactional, but not aborted: the bit is cleared on the way.
    assert_eq!(
        classify(
            &V2 {
                attributes: 0x10,
                ..V2::of(&three())
            }
            .batch(),
            &RULES
        ),
        Ok(Passage::Raw)
    );
}

#[test]
fn gaps_are_opened_and_keep_their_offsets() {
    for v2 in [V2::of(&gaps()), compressed(V2::of(&gaps()), Codec::Zstd)] {
        let batch = v2.batch();
        assert_eq!(
            classify(&batch, &RULES),
            Ok(Passage::Open(OpenReason::Gaps))
        );
        assert_eq!(open(&batch, LIMIT).unwrap(), gaps());
        assert_eq!(
            (batch.header.last_offset(), batch.header.next_offset()),
            (109, 110)
        );
    }
    // The last record gone: the header still covers its offset.
    let batch = V2 {
        last_offset_delta: 3,
        ..V2::of(&three())
    }
    .batch();
    assert_eq!(
        classify(&batch, &RULES),
        Ok(Passage::Open(OpenReason::Gaps))
    );
    assert_eq!(open(&batch, LIMIT).unwrap(), three());
    assert_eq!(batch.header.next_offset(), 104);
}

/// Trap A: the broker would store this uncompressed batch with offsets beyond its end.
#[test]
fn an_uncompressed_batch_with_hidden_gaps_never_goes_raw() {
    let forged = V2 {
        last_offset_delta: 2,
        ..V2::of(&gaps())
    };
    let batch = forged.batch();
    assert!(
        batch.header.is_gapless(),
        "the header alone does not show it"
    );
    verify_crc(&batch).unwrap();
    assert_eq!(
        classify(&batch, &RULES),
        Ok(Passage::Open(OpenReason::UncompressedInnerOffsets))
    );
    assert!(matches!(
        open(&batch, LIMIT),
        Err(BatchError::Malformed { .. })
    ));
    assert!(matches!(
        coalesce(&[batch], Stamp::NONE, LIMIT),
        Err(BatchError::Malformed { .. })
    ));
}

/// Trap B: compressed, it can only be seen by opening; merging opens.
#[test]
fn a_compressed_batch_with_hidden_gaps_is_never_merged() {
    let batch = compressed(
        V2 {
            last_offset_delta: 2,
            ..V2::of(&gaps())
        },
        Codec::Snappy,
    )
    .batch();
    assert!(matches!(
        open(&batch, LIMIT),
        Err(BatchError::Malformed { .. })
    ));
    assert!(matches!(
        coalesce(&[batch], Stamp::NONE, LIMIT),
        Err(BatchError::Malformed { .. })
    ));
}

/// Trap C: raw, a LogAppendTime batch would get the producer's times on a CreateTime topic.
#[test]
fn append_times_are_kept_by_opening() {
    let v2 = V2 {
        attributes: 0x08,
        max_timestamp: 5000,
        ..V2::of(&three())
    };
    let batch = v2.batch();
    assert_eq!(
        classify(&batch, &RULES),
        Ok(Passage::Open(OpenReason::LogAppendTime))
    );
    let append_time_target = Rules {
        target_log_append_time: true,
        ..RULES
    };
    assert_eq!(classify(&batch, &append_time_target), Ok(Passage::Raw));
    let records = open(&batch, LIMIT).unwrap();
    assert!(records.iter().all(|r| r.timestamp == 5000));
    let again = at(100, &encode(&records, Codec::None, Stamp::NONE).unwrap());
    assert_eq!(again.header.attributes, 0);
    assert_eq!(open(&again, LIMIT).unwrap(), records);
}

/// Trap D: the delete horizon would survive the append.
#[test]
fn the_delete_horizon_is_cleared_and_times_stay() {
    let mut v2 = V2 {
        attributes: 0x40,
        ..V2::of(&three())
    };
    // As the cleaner writes it: the base is the horizon, the deltas are relative to that.
    v2.base_timestamp = 777;
    v2.payload.clear();
    for record in three() {
        wire_record(
            &mut v2.payload,
            record.timestamp - 777,
            record.offset - 100,
            &record,
        );
    }
    let batch = v2.batch();
    assert!(batch.header.has_delete_horizon());
    assert_eq!(classify(&batch, &RULES), Ok(Passage::Raw));
    let mut bytes = restamp(&batch, Stamp::NONE).to_vec();
    bytes.extend_from_slice(&batch.bytes[HEADER_BYTES..]);
    let again = at(100, &bytes.into());
    verify_crc(&again).unwrap();
    assert!(!again.header.has_delete_horizon());
    assert_eq!(open(&again, LIMIT).unwrap(), three());
}

#[test]
fn the_other_reasons() {
    let batch = V2::of(&three()).batch();
    let size = batch.bytes.len();
    let head = Rules {
        wanted_offset: 101,
        ..RULES
    };
    assert_eq!(classify(&batch, &head), Ok(Passage::Open(OpenReason::Head)));
    assert_eq!(
        classify(
            &batch,
            &Rules {
                wanted_offset: 100,
                ..RULES
            }
        ),
        Ok(Passage::Raw)
    );
    let tight = Rules {
        max_batch_bytes: size - 1,
        ..RULES
    };
    assert_eq!(
        classify(&batch, &tight),
        Ok(Passage::Open(OpenReason::TooLarge))
    );
    assert_eq!(
        classify(
            &batch,
            &Rules {
                max_batch_bytes: size,
                ..RULES
            }
        ),
        Ok(Passage::Raw)
    );

    let empty = V2 {
        count: 0,
        payload: vec![],
        last_offset_delta: 9,
        ..V2::of(&three())
    };
    assert_eq!(classify(&empty.batch(), &RULES), Ok(Passage::Empty));
    assert_eq!(empty.batch().header.next_offset(), 110);
    assert_eq!(open(&empty.batch(), LIMIT), Ok(vec![]));
    let emptied_marker = V2 {
        attributes: 0x30,
        ..empty
    };
    assert_eq!(
        classify(&emptied_marker.batch(), &RULES),
        Ok(Passage::Empty)
    );
    assert_eq!(
        classify(&V2::marker(5, 1, 0).batch(), &RULES),
        Ok(Passage::Control)
    );
}

#[test]
fn null_keys_are_looked_for_only_where_they_matter() {
    let mut nulls = three();
    nulls[1].key = None;
    let compacting = Rules {
        target_compacted: true,
        ..RULES
    };
    let both = Rules {
        source_compacted: true,
        ..compacting
    };
    let null_keys = Ok(Passage::Open(OpenReason::NullKeys));
    assert_eq!(classify(&V2::of(&nulls).batch(), &RULES), Ok(Passage::Raw));
    assert_eq!(classify(&V2::of(&nulls).batch(), &compacting), null_keys);
    assert_eq!(
        classify(&V2::of(&three()).batch(), &compacting),
        Ok(Passage::Raw)
    );
    // Cannot be known without opening.
    let packed = compressed(V2::of(&three()), Codec::Zstd).batch();
    assert_eq!(classify(&packed, &compacting), null_keys);
    assert_eq!(classify(&packed, &both), Ok(Passage::Raw));
}

#[test]
fn declared_counts_are_checked() {
    for (count, last_offset_delta) in [(2, 2), (4, 3), (2, 1)] {
        let batch = V2 {
            count,
            last_offset_delta,
            ..V2::of(&three())
        }
        .batch();
        assert!(
            matches!(open(&batch, LIMIT), Err(BatchError::Malformed { .. })),
            "{count}"
        );
    }
    for count in [2, 4] {
        let batch = V2 {
            count,
            last_offset_delta: count - 1,
            ..V2::of(&three())
        }
        .batch();
        assert!(
            matches!(classify(&batch, &RULES), Err(BatchError::Malformed { .. })),
            "{count}"
        );
        assert!(coalesce(&[batch], Stamp::NONE, LIMIT).is_err(), "{count}");
    }
}

#[test]
fn markers_are_read() {
    assert_eq!(marker(&V2::marker(5, 1, 0).batch()), Ok(Marker::Abort));
    assert_eq!(marker(&V2::marker(5, 1, 1).batch()), Ok(Marker::Commit));
    assert_eq!(marker(&V2::marker(5, 1, 6).batch()), Ok(Marker::Other(6)));
    assert!(
        marker(&V2::of(&three()).batch()).is_err(),
        "not a control batch"
    );
}
