//! Limits hold, clusters may come and go, and the end is orderly.

use std::time::{Duration, Instant};

use crate::support::admin::client;
use crate::support::flow::flow_config;
use crate::support::{KafkaVersion, Twinlog, await_same, create_topic, end_offset, pair};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// Then they kill.
pub(crate) const SERVICE_MANAGERS_WAIT: Duration = Duration::from_secs(10);
const MIB: u64 = 1024 * 1024;

/// Writes `count` records of 1 KiB to partition `partition`, in large uncompressed batches.
pub(crate) fn produce_kibs(bootstrap: &str, topic: &str, partition: i32, count: usize) {
    let producer: BaseProducer = client(bootstrap)
        .set("acks", "1")
        .set("linger.ms", "50")
        .set("batch.size", "900000")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.kbytes", "1048576")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .expect("valid settings");
    let value: Vec<u8> = (0..1024).map(|_| rand::random()).collect();
    for _ in 0..count {
        let record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(partition).payload(&value);
        producer.send(record).expect("the queue is large enough");
    }
    producer
        .flush(DEADLINE)
        .expect("everything is acknowledged");
    let wanted = i64::try_from(count).expect("small");
    assert!(end_offset(bootstrap, topic, partition) >= wanted);
}

pub(crate) fn bytes_of(status: &Value) -> u64 {
    status["flows"][0]["totals"]["bytes"].as_u64().unwrap_or(0)
}

pub(crate) fn in_flight(status: &Value) -> u64 {
    status["flows"][0]["in_flight_bytes"].as_u64().unwrap_or(0)
}

/// When this many bytes were first seen copied, and how many it were.
pub(crate) fn await_bytes(twinlog: &Twinlog, bytes: u64) -> (Instant, u64) {
    let status = twinlog.wait_until(DEADLINE, "it copies", |status| bytes_of(status) >= bytes);
    (Instant::now(), bytes_of(&status))
}

#[test]
fn bytes_per_second_caps_a_flow() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "capped", 2, &[]);
    for partition in 0..2 {
        produce_kibs(&source, "capped", partition, 20 * 1024);
    }
    let cap = 3 * MIB;
    let lines = "limits: { bytes_per_second: 3MiB }";
    let twinlog = Twinlog::start(&flow_config("capped", "capped", &source, &target, lines));
    // Past the first second's burst.
    let (began, before) = await_bytes(&twinlog, 6 * MIB);
    let (ended, after) = await_bytes(&twinlog, 30 * MIB);
    let seconds = ended.duration_since(began).as_secs_f64();
    let rate = (after - before) as f64 / seconds;
    println!("{:.2} MiB/s with a cap of 3 MiB/s", rate / MIB as f64);
    assert!(rate <= 1.3 * cap as f64, "{rate} B/s is over the cap");
    assert!(rate >= 0.5 * cap as f64, "{rate} B/s is far below the cap");
}

#[test]
fn a_termination_under_load_drains_and_exits_with_0() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "drained", 4, &[]);
    for partition in 0..4 {
        produce_kibs(&source, "drained", partition, 10_000);
    }
    let config = flow_config("drained", "drained", &source, &target, "");
    let mut twinlog = Twinlog::start(&config);
    await_bytes(&twinlog, MIB);
    let status = twinlog.terminate_within(SERVICE_MANAGERS_WAIT);
    assert_eq!(status.code(), Some(0));
    twinlog.launch();
    await_same(&source, &target, "drained", DEADLINE);
}
