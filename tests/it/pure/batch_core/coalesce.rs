//! A merged run holds exactly the records of its batches.

use proptest::prelude::*;
use twinlog::batch::*;

use super::generate::*;

const STAMP: Stamp = Stamp {
    producer_id: 8,
    producer_epoch: 1,
    base_sequence: 100,
};

proptest! {
    #[test]
    fn merging_equals_opening_and_encoding(
        base in 0i64..1 << 40, runs in prop::collection::vec(records_from(0, 1..9), 1..12),
        codec in any_codec(), append_time: bool,
    ) {
        let mut next = base;
        let mut batches = Vec::new();
        for records in runs {
            let records: Vec<_> =
                records.into_iter().map(|r| Record { offset: r.offset + next, ..r }).collect();
            let payload = encode(&records, codec, Stamp::NONE).unwrap().slice(HEADER_BYTES..).to_vec();
            let attributes = i16::from(codec.id()) | if append_time { 8 } else { 0 };
            let v2 = V2 { attributes, payload, ..V2::of(&records) };
            let max_timestamp = if append_time { 1_700_000_000_000 + next } else { v2.max_timestamp };
            batches.push(V2 { max_timestamp, ..v2 }.batch());
            next += records.len() as i64;
        }
        let mut expected = Vec::new();
        for batch in &batches {
            expected.extend(open(batch, LIMIT).unwrap());
        }
        let merged = coalesce(&batches, STAMP, LIMIT).unwrap();
        let batch = at(base, &merged.batch);
        verify_crc(&batch).unwrap();
        prop_assert_eq!(open(&batch, LIMIT).unwrap(), expected.clone());
        prop_assert_eq!(merged.count, expected.len() as i32);
        prop_assert_eq!(merged.max_timestamp, expected.iter().map(|r| r.timestamp).max().unwrap());
        prop_assert_eq!(batch.header.max_timestamp, merged.max_timestamp);
        prop_assert!(batch.header.is_gapless());
        prop_assert_eq!(batch.header.attributes, i16::from(codec.id()));
        prop_assert_eq!((batch.header.producer_id, batch.header.base_sequence), (8, 100));
        // Also the same bytes, as both are canonical and start from the same time.
        prop_assert_eq!(merged.batch, encode(&expected, codec, STAMP).unwrap());
    }
}

fn simple(offset: i64) -> V2 {
    V2::of(&[
        record(offset, offset, b"a"),
        record(offset + 1, offset, b"b"),
    ])
}

#[test]
fn runs_that_do_not_fit_are_refused() {
    let merge = |second: V2| {
        coalesce(&[simple(10).batch(), second.batch()], STAMP, LIMIT).map(|merged| merged.count)
    };
    assert_eq!(merge(simple(12)), Ok(4));
    assert_eq!(
        merge(simple(13)),
        Err(BatchError::NotContiguous {
            expected: 12,
            offset: 13
        })
    );
    assert_eq!(
        merge(simple(11)),
        Err(BatchError::NotContiguous {
            expected: 12,
            offset: 11
        })
    );
    for refused in [
        V2 {
            attributes: 8,
            ..simple(12)
        },
        V2 {
            attributes: 3,
            ..simple(12)
        },
        V2 {
            attributes: 0x20,
            ..simple(12)
        },
        V2 {
            last_offset_delta: 2,
            ..simple(12)
        },
        V2 {
            count: 0,
            payload: vec![],
            ..simple(12)
        },
    ] {
        assert!(matches!(
            merge(refused),
            Err(BatchError::NotMergeable { offset: 12, .. })
        ));
    }
    assert!(matches!(
        coalesce(&[], STAMP, LIMIT),
        Err(BatchError::NotMergeable { .. })
    ));
}

#[test]
fn a_cut_record_is_refused_wherever_it_is_cut() {
    let whole = simple(0);
    for cut in 0..whole.payload.len() {
        let payload = whole.payload[..cut].to_vec();
        let batch = V2 {
            payload,
            ..whole.clone()
        }
        .batch();
        assert!(
            coalesce(std::slice::from_ref(&batch), STAMP, LIMIT).is_err(),
            "cut at {cut}"
        );
        assert!(open(&batch, LIMIT).is_err(), "cut at {cut}");
    }
}
