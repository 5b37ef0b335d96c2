//! What is checked of a batch before it is appended (`ProduceRequest.validateRecords`, `UnifiedLog.append`, `LogValidator`).

use bytes::Bytes;

use super::{Batch, Stage, now_ms, produce};
use crate::batch::{HEADER_BYTES, Header, NO_SEQUENCE, write_records};
use crate::codec::Codec;

const UNKNOWN: i16 = -1;
const CORRUPT: i16 = 2;
const UNKNOWN_PARTITION: i16 = 3;
const TOO_LARGE: i16 = 10;
const WRONG_ACKS: i16 = 21;
const WRONG_TIME: i16 = 32;
const INVALID: i16 = 87;

const LOG_APPEND_TIME: i16 = 0x08;
const CONTROL: i16 = 0x20;
const GZIP: i16 = 1;

pub(super) fn broken(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let id = stage.producer();
    let good = Batch::of(2);
    let mut damaged = good.bytes().to_vec();
    *damaged.last_mut().expect("bytes") ^= 1;
    let mut old_magic = good.bytes().to_vec();
    old_magic[16] = 1;
    let two = [good.bytes(), good.bytes()].concat();
    let with = |change: fn(&mut Header)| good.clone().with(change).bytes();
    let refused: [(&str, Bytes, i16); 10] = [
        ("a damaged byte", damaged.into(), CORRUPT),
        ("an old format", old_magic.into(), INVALID),
        ("two batches", two.into(), INVALID),
        ("a base offset", with(|h| h.base_offset = 1), INVALID),
        ("too few records", with(|h| h.count = 1), INVALID),
        (
            "no records",
            with(|h| (h.count, h.last_offset_delta) = (0, -1)),
            INVALID,
        ),
        (
            "more records than bytes",
            with(|h| (h.count, h.last_offset_delta) = (3, 2)),
            INVALID,
        ),
        (
            "records left over",
            with(|h| (h.count, h.last_offset_delta) = (1, 0)),
            INVALID,
        ),
        (
            "a control batch",
            with(|h| h.attributes |= CONTROL),
            INVALID,
        ),
        (
            "no sequence",
            good.clone().by(id, 0, NO_SEQUENCE).bytes(),
            INVALID,
        ),
    ];
    for (what, batch, error) in refused {
        let answer = stage.produce(&topic, batch);
        assert_eq!(answer.error_code, error, "{what}: {answer:?}");
        assert_eq!(answer.base_offset, -1, "{what}");
    }
    let mut nothing = stage.call(&produce(&topic, 0, -1, Some(Bytes::new())), super::PRODUCE);
    let answer = nothing.responses[0].partition_responses.remove(0);
    assert_eq!(answer.error_code, INVALID, "no batch: {answer:?}");
    assert_eq!(stage.list(&topic, 0, -1).offset, 0, "nothing was appended");
    let elsewhere = stage.name("nowhere");
    let answer = stage.produce(&elsewhere, good.bytes());
    assert_eq!(answer.error_code, UNKNOWN_PARTITION);
    assert_eq!(
        stage.produce_to(&topic, 9, good.bytes()).error_code,
        UNKNOWN_PARTITION
    );
}

pub(super) fn against_rules(stage: &mut Stage) {
    let size = Batch::of(2).bytes().len();
    let small = stage.topic(
        "small",
        1,
        &[("max.message.bytes", &(size - 1).to_string())],
    );
    assert_eq!(
        stage.produce(&small, Batch::of(2).bytes()).error_code,
        TOO_LARGE
    );
    let right = stage.topic("right", 1, &[("max.message.bytes", &size.to_string())]);
    assert_eq!(stage.write(&right, Batch::of(2).bytes()), 0);

    let compacted = stage.topic("compacted", 1, &[("cleanup.policy", "compact")]);
    let mut keyless = Batch::of(3);
    keyless.records[1].key = None;
    for codec in [0, GZIP] {
        let batch = keyless.clone().with(|h| h.attributes = codec).bytes();
        let answer = stage.produce(&compacted, batch);
        assert_eq!(answer.error_code, INVALID);
        let errors: Vec<i32> = answer.record_errors.iter().map(|e| e.batch_index).collect();
        assert_eq!(errors, [1]);
    }
    let strict = stage.topic(
        "strict",
        1,
        &[
            ("message.timestamp.before.max.ms", "3600000"),
            ("message.timestamp.after.max.ms", "3600000"),
        ],
    );
    let hour = 3_600_000;
    for (age, error) in [
        (2 * hour, WRONG_TIME),
        (-2 * hour, WRONG_TIME),
        (hour / 2, 0),
        (-hour / 2, 0),
    ] {
        let answer = stage.produce(&strict, Batch::of(1).at(now_ms() - age).bytes());
        assert_eq!(answer.error_code, error, "{age} ms old");
    }
    // A record without a time is never too old.
    stage.write(&strict, Batch::of(1).at(-1).bytes());
}

/// Offsets in a batch that jump: harmless only by luck.
pub(super) fn holes(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let mut batch = Batch::of(2);
    batch.records[1].offset_delta = 5;
    let records = write_records(&batch.records);
    // Uncompressed, nobody looks, and the broker stores an offset beyond the batch's end.
    assert_eq!(stage.write(&topic, batch.header.seal(&records)), 0);
    assert_eq!(stage.list(&topic, 0, -1).offset, 2);
    // Compressed, the broker wants to write the batch anew, but has skipped the keys.
    let header = batch.header.with_codec(GZIP);
    let answer = stage.produce(&topic, header.seal(&Codec::Gzip.compress(&records)));
    assert_eq!(answer.error_code, UNKNOWN, "{answer:?}");
    // With another codec it does write it anew.
    let lz4 = stage.topic("lz4", 1, &[("compression.type", "lz4")]);
    assert_eq!(
        stage.write(&lz4, header.seal(&Codec::Gzip.compress(&records))),
        0
    );
    let (stored, _) = stage.read(&lz4, 0)[0];
    assert_eq!(
        (stored.last_offset(), stored.codec()),
        (1, Codec::Lz4.number())
    );
}

pub(super) fn append_time(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let before = now_ms();
    let answer = stage.produce(&topic, Batch::of(2).at(5).bytes());
    assert_eq!(answer.error_code, 0);
    assert!(answer.log_append_time_ms >= before - 1_000, "{answer:?}");
    let (stored, bytes) = stage.read(&topic, 0).remove(0);
    assert!(stored.is_log_append_time());
    assert_eq!(stored.max_timestamp, answer.log_append_time_ms);
    assert_eq!(stored.base_timestamp, 5, "what the producer said stays");
    assert!(crate::batch::is_valid(&bytes), "with a new checksum");
    let marked = Batch::of(1)
        .with(|h| h.attributes |= LOG_APPEND_TIME)
        .bytes();
    assert_eq!(stage.produce(&topic, marked.clone()).error_code, WRONG_TIME);
    // The other way round nobody minds, but then the times are the producer's.
    let plain = stage.topic("plain", 1, &[]);
    let answer = stage.produce(&plain, marked);
    assert_eq!((answer.error_code, answer.log_append_time_ms), (0, -1));
    let (stored, _) = stage.read(&plain, 0)[0];
    assert!(!stored.is_log_append_time());
}

pub(super) fn codec(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[("compression.type", "gzip")]);
    for (sent, offset) in [(0, 0), (Codec::Lz4.number(), 2), (GZIP, 4)] {
        let batch = Batch::of(2).with(|h| h.attributes = sent);
        assert_eq!(stage.write(&topic, batch.bytes()), offset);
    }
    for (stored, bytes) in stage.read(&topic, 0) {
        assert_eq!(stored.codec(), GZIP);
        let records = Codec::Gzip
            .decompress(&bytes.slice(HEADER_BYTES..))
            .expect("gzip");
        let records = crate::batch::read_records(records, 2).expect("two records");
        assert_eq!(records[1].offset_delta, 1);
    }
    let kept = stage.topic("kept", 1, &[]);
    for number in 0..5 {
        stage.write(&kept, Batch::of(1).with(|h| h.attributes = number).bytes());
    }
    let codecs: Vec<i16> = stage
        .read(&kept, 0)
        .iter()
        .map(|(h, _)| h.codec())
        .collect();
    assert_eq!(codecs, [0, 1, 2, 3, 4]);
}

pub(super) fn acks(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let mut one = stage.call(
        &produce(&topic, 0, 1, Some(Batch::of(1).bytes())),
        super::PRODUCE,
    );
    assert_eq!(
        one.responses[0].partition_responses.remove(0).base_offset,
        0
    );
    // No answer comes, so the next answer is the next request's.
    let request = produce(&topic, 0, 0, Some(Batch::of(1).bytes()));
    stage.client.send(&request, super::PRODUCE).expect("sent");
    assert_eq!(stage.write(&topic, Batch::of(1).bytes()), 2);
    let mut wrong = stage.call(
        &produce(&topic, 0, 2, Some(Batch::of(1).bytes())),
        super::PRODUCE,
    );
    let answer = wrong.responses[0].partition_responses.remove(0);
    assert_eq!((answer.error_code, answer.base_offset), (WRONG_ACKS, -1));
    // An error that can't be told closes the connection.
    let nowhere = stage.name("nowhere");
    let request = produce(&nowhere, 0, 0, Some(Batch::of(1).bytes()));
    let mut client = stage.another();
    client.send(&request, super::PRODUCE).expect("sent");
    let closed = client.receive::<kafka_protocol::messages::ProduceRequest>(super::PRODUCE);
    let error = closed.expect_err("closed");
    assert!(
        matches!(
            error.kind(),
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
        ),
        "{error}"
    );
}
