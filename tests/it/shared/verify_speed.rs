//! How fast `twinlog verify --full` reads, beside a consumer that only counts what it gets. Run by
//! hand: `cargo test --release --test it verify_speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use crate::support::admin::client;
use crate::support::flow::flow_config;
use crate::support::verified::assert_verified;
use crate::support::{Codec, KafkaVersion, Load, Twinlog, create_topic, pair};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

const TOPIC: &str = "speed";
const PARTITIONS: i32 = 4;
const RECORDS: u64 = 400_000;
const DEADLINE: Duration = Duration::from_secs(300);

/// Reads the topic from one cluster and gives the bytes of keys and values.
fn consume(bootstrap: &str) -> u64 {
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", "speed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .create()
        .expect("valid settings");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(TOPIC, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("an assignment");
    let (mut bytes, mut ended) = (0, 0);
    while ended < PARTITIONS {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                bytes += (message.key_len() + message.payload_len()) as u64;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            _ => {}
        }
    }
    bytes
}

#[test]
#[ignore = "a measurement"]
fn full_beside_plain_consuming() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, TOPIC, PARTITIONS, &[]);
    Load::new(TOPIC, RECORDS)
        .value_bytes(1_000)
        .codec(Codec::Lz4)
        .produce(&source);
    let mut twinlog = Twinlog::start(&flow_config("speed", TOPIC, &source, &target, ""));
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        status["flows"][0]["totals"]["records"] == RECORDS
    });
    assert!(twinlog.terminate().success());
    for _ in 0..2 {
        let started = Instant::now();
        // Both at once, as verify reads them.
        let bytes: u64 = std::thread::scope(|scope| {
            let one = scope.spawn(|| consume(&source));
            let other = scope.spawn(|| consume(&target));
            one.join().expect("read") + other.join().expect("read")
        });
        let plain = bytes as f64 / 1e6 / started.elapsed().as_secs_f64();
        let started = Instant::now();
        let report = assert_verified(&twinlog, &["--full"]);
        let whole = started.elapsed().as_secs_f64();
        assert_eq!(report["totals"]["records"], RECORDS);
        let verified = 2.0 * report["totals"]["bytes"].as_f64().expect("a number") / 1e6;
        let started = Instant::now();
        assert_verified(&twinlog, &["--quick"]);
        let quick = started.elapsed().as_secs_f64();
        println!(
            "both sides together: plain consuming {plain:.0} MB/s; verify --full {:.0} MB/s in \
             {whole:.1} s, of which --quick is {quick:.1} s: records alone {:.0} MB/s",
            verified / whole,
            verified / (whole - quick)
        );
    }
}

/// Where there is little in many partitions most of the time is waiting. `TWINLOG_SMALL_PARTITIONS` for another number.
#[test]
#[ignore = "a measurement"]
fn full_of_many_small_partitions() {
    let asked = std::env::var("TWINLOG_SMALL_PARTITIONS").ok();
    let partitions = asked.map_or(1_000, |it| it.parse().expect("a number"));
    for per_topic in [partitions, 1] {
        measure_small(partitions / per_topic, per_topic);
    }
}

fn measure_small(topics: i32, per_topic: i32) {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let per_topic_records = 5 * u64::try_from(per_topic).expect("some");
    for number in 0..topics {
        let topic = format!("{TOPIC}-{per_topic}-{number}");
        create_topic(&source, &topic, per_topic, &[]);
        Load::new(&topic, per_topic_records).produce(&source);
    }
    let pattern = format!("{TOPIC}-{per_topic}-.*");
    let records = per_topic_records * u64::try_from(topics).expect("some");
    let mut twinlog = Twinlog::start(&flow_config("speed", &pattern, &source, &target, ""));
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        status["flows"][0]["totals"]["records"] == records
    });
    assert!(twinlog.terminate().success());
    for depth in ["--quick", "--full", "--full"] {
        let started = Instant::now();
        assert_verified(&twinlog, &[depth]);
        let took = started.elapsed().as_secs_f64();
        println!("{topics} topics of {per_topic} partitions: verify {depth} {took:.1} s");
    }
}
