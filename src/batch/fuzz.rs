//! Records as a hostile broker, or a broken disk, would send them.

use bytes::Bytes;

use super::compress::with_scratch;
use super::*;
use crate::fuzz::{Dice, Input, Target};

/// What may come out of a batch.
const LIMIT: usize = 256 << 10;

/// A record takes some hundred bytes of memory and seven of a batch, which is also merged and written again.
const BATCHES: Target = Target {
    name: "batches",
    rounds: 6_000,
    bytes_base: 96 * LIMIT,
    bytes_per_byte: 256,
};

const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];

#[test]
fn fuzz_batches() {
    let make = |dice: &mut Dice| {
        let good: Vec<u8> = (0..=dice.below(2)).flat_map(|_| set(dice)).collect();
        Input::new("", dice.damage(&good))
    };
    BATCHES.hunt(make, |input| {
        let batches = split(input.bytes.clone());
        let batches: Vec<RawBatch> = batches.map_while(Result::ok).collect();
        for batch in &batches {
            examine(batch);
        }
        let _ = coalesce(&batches, Stamp::NONE, LIMIT);
        let _ = coalesce_across_holes(&batches, Stamp::NONE, LIMIT);
    });
}

/// A batch or a message of any format.
fn set(dice: &mut Dice) -> Vec<u8> {
    match dice.below(4) {
        0 => legacy(dice),
        1 => {
            let count = i32::try_from(dice.below(5_000)).unwrap_or(1);
            empty_records_batch(*dice.one(&CODECS), count, 7, Stamp::NONE).to_vec()
        }
        2 => bomb(dice),
        _ => {
            let records = records(dice);
            let encoded = encode(&records, *dice.one(&CODECS), Stamp::NONE);
            let mut bytes = encoded.expect("good records").to_vec();
            if dice.percent(30) {
                // Transactional, of control, with a delete horizon, under LogAppendTime.
                bytes[22] |= *dice.one(&[0x08, 0x10, 0x20, 0x30, 0x40]);
            }
            bytes
        }
    }
}

fn records(dice: &mut Dice) -> Records {
    let count = 1 + dice.below(6);
    (0..count).map(|at| record(dice, at as i64)).collect()
}

fn record(dice: &mut Dice, offset: i64) -> Record {
    let field = |dice: &mut Dice| {
        let length = dice.below(40);
        (!dice.percent(20)).then(|| Bytes::from(dice.small_bytes(length)))
    };
    let (key, value) = (field(dice), field(dice));
    let headers: &[u8] = if dice.percent(50) {
        &[2, b'h', 2, b'v', 0, 1]
    } else {
        &[]
    };
    Record {
        offset,
        timestamp: 1_700_000_000_000 + offset,
        key,
        value,
        header_count: if headers.is_empty() { 0 } else { 2 },
        headers: Bytes::from_static(headers),
    }
}

/// Far more than may come out of it.
fn bomb(dice: &mut Dice) -> Vec<u8> {
    let record = Record {
        value: Some(vec![0; 8 * LIMIT].into()),
        ..record(dice, 0)
    };
    let codec = *dice.one(&CODECS[1..]);
    encode(&[record], codec, Stamp::NONE)
        .expect("a good record")
        .to_vec()
}

/// Messages of magic 0 or 1, or a compressed set of them.
fn legacy(dice: &mut Dice) -> Vec<u8> {
    let magic = *dice.one(&[0, 1]);
    let codec = *dice.one(&CODECS[..4]);
    let inner: Vec<u8> = (0..=dice.below(3) as i64)
        .flat_map(|offset| {
            let value = dice.small_bytes(20);
            message(magic, Codec::None, offset, &value)
        })
        .collect();
    if codec == Codec::None {
        return inner;
    }
    let packed = with_scratch(|scratch| {
        let packed = scratch.compressor.compress(codec, &inner);
        packed.map(<[u8]>::to_vec).unwrap_or_default()
    });
    message(magic, codec, 3, &packed)
}

fn message(magic: u8, codec: Codec, offset: i64, value: &[u8]) -> Vec<u8> {
    let mut covered = vec![magic, codec.id()];
    if magic > 0 {
        covered.extend(1_700_000_000_000_i64.to_be_bytes());
    }
    covered.extend((-1_i32).to_be_bytes());
    covered.extend((value.len() as i32).to_be_bytes());
    covered.extend(value);
    let length = covered.len() as i32 + 4;
    let crc = legacy::crc(&covered);
    let head = [
        &offset.to_be_bytes()[..],
        &length.to_be_bytes(),
        &crc.to_be_bytes(),
    ];
    [head.concat(), covered].concat()
}

/// Everything that is done with a batch.
fn examine(batch: &RawBatch) {
    const RULES: Rules = Rules {
        target_log_append_time: false,
        target_compacted: true,
        source_compacted: false,
        max_batch_bytes: LIMIT,
        wanted_offset: 1,
    };
    let _ = verify_crc(batch);
    let _ = marker(batch);
    let _ = coordinator_epoch(batch);
    let _ = classify(batch, &RULES);
    let _ = restamp(batch, Stamp::NONE);
    let _ = AbortedFilter::new([(batch.header.producer_id, i64::MIN)]).is_aborted(batch);
    let Ok(records) = open(batch, LIMIT) else {
        return;
    };
    assert!(records.is_sorted_by(|a, b| a.offset < b.offset));
    for record in &records {
        let _ = record.header_list();
    }
    let _ = encode(&records, Codec::None, Stamp::NONE);
}
