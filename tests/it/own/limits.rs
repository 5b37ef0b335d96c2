//! How fast a flow is whose source or target is far away, or behind a thin line, or throttles.

use crate::fake::limits::{await_bytes, bytes_of, produce_kibs};
use crate::support::flow::{await_position, flow_config};
use crate::support::groups::commit;
use crate::support::ports::Port;
use crate::support::proxy::{Proxy, Thin};
use crate::support::quotas;
use crate::support::steps::plant;
use crate::support::wait::Stopwatch;
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, await_same, create_topic, end_offset,
    pair,
};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;

#[test]
fn a_long_line_is_filled() {
    const RECORDS: usize = 160 * 1024;
    let entrance = Port::reserve();
    let options = ClusterOptions {
        proxy: Some(entrance.address()),
        ..ClusterOptions::named("far")
    };
    let source = Cluster::start(KafkaVersion::V4_3, options);
    let (_, target) = pair(KafkaVersion::V4_3);
    create_topic(&source.bootstrap(), "far", 1, &[]);
    produce_kibs(&source.bootstrap(), "far", 0, RECORDS);

    let _proxy = Proxy::start(
        &entrance.address(),
        &source.behind_proxy(),
        Duration::from_millis(50),
    );
    let config = flow_config("far", "far", &entrance.address(), &target.bootstrap(), "");
    let twinlog = Twinlog::start(&config);
    let before = await_bytes(&twinlog, 8 * MIB);
    let watch = Stopwatch::start();
    let end = i64::try_from(RECORDS).expect("small");
    let status = await_position(&twinlog, "far", 0, end);
    let seconds = watch.counted().as_secs_f64();
    let rate = (bytes_of(&status) - before.bytes) as f64 / seconds / 1e6;
    println!("{rate:.1} MB/s over a line with a round trip of 100 ms");
    assert!(rate > 15.0, "{rate:.1} MB/s: the line isn't filled");
}

/// A target behind a proxy.
fn behind_a_proxy() -> (Cluster, Proxy, String) {
    let entrance = Port::reserve();
    let options = ClusterOptions {
        proxy: Some(entrance.address()),
        ..ClusterOptions::named("far")
    };
    let target = Cluster::start(KafkaVersion::V4_3, options);
    let proxy = Proxy::start(
        &entrance.address(),
        &target.behind_proxy(),
        Duration::from_millis(1),
    );
    (target, proxy, entrance.address())
}

/// One record, larger than what a request may take until it is given up if nothing moves.
fn produce_large(bootstrap: &str, topic: &str, bytes: usize) {
    let producer: BaseProducer = crate::support::admin::client(bootstrap)
        .set("message.max.bytes", "8000000")
        .create()
        .expect("valid settings");
    let value: Vec<u8> = (0..bytes).map(|_| rand::random()).collect();
    let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).payload(&value);
    producer.send(record).expect("the queue is large enough");
    producer.flush(THIN_WITHIN).expect("it is acknowledged");
}

const THIN_WITHIN: Duration = Duration::from_secs(150);
const LARGE_BYTES: usize = 5_000_000;

#[test]
fn a_thin_line_carries_everything_once() {
    let (source, _) = pair(KafkaVersion::V4_3);
    let (_target, proxy, to) = behind_a_proxy();
    let from = source.bootstrap();
    create_topic(&from, "thin", 8, &[("max.message.bytes", "6000000")]);
    Load::new("thin", 80).produce(&from);
    let config = flow_config("thin", "thin", &from, &to, "");
    let twinlog = Twinlog::start(&config);
    await_same(&from, &to, "thin", THIN_WITHIN);

    proxy.delay(Duration::from_millis(100));
    proxy.make_thin(Thin {
        bytes_per_second: 150_000,
        in_flight_bytes: 102_400,
    });
    let before = proxy.traffic();
    let copied_before = bytes_of(&twinlog.status());
    produce_kibs(&from, "thin", 0, 800);
    produce_kibs(&from, "thin", 1, 800);
    produce_large(&from, "thin", LARGE_BYTES);
    let wanted = LARGE_BYTES as u64 + 2 * 800 * 1_024;
    let status = twinlog.wait_until(THIN_WITHIN, "all is copied", |status| {
        bytes_of(status) >= copied_before + wanted
    });
    let log = twinlog.log();
    assert!(!log.contains("no answer within"), "{log}");
    let (after, copied) = (proxy.traffic(), bytes_of(&status) - copied_before);
    let line = after.there - before.there;
    println!("{copied} bytes copied, {line} on the line; {before:?} to {after:?}");
    assert_eq!(after.connections, before.connections, "none is given up");
    assert!(line * 100 <= copied * 102, "{line} bytes for {copied}");
}

/// 200 ms there and back to each side: everything works as next door.
#[test]
fn a_distance_costs_round_trips_and_nothing_fails_for_it() {
    const ONE_WAY: Duration = Duration::from_millis(100);
    const GROUPS: usize = 20;
    let (near_source, source_line, from) = behind_a_proxy();
    let (_target, target_line, to) = behind_a_proxy();
    let near = near_source.bootstrap();
    create_topic(&near, "distant", 4, &[]);
    Load::new("distant", 400).produce(&near);
    for number in 0..GROUPS {
        commit(&near, &format!("group-{number}"), &[("distant", 0, 5)]);
    }
    source_line.delay(ONE_WAY);
    target_line.delay(ONE_WAY);
    let mut twinlog = Twinlog::prepare(&flow_config("distant", "distant", &from, &to, ""));
    for command in ["check", "plan"] {
        let began = Instant::now();
        let output = twinlog.command(command, &[]);
        println!("{command}: {:.1} s", began.elapsed().as_secs_f64());
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{command}: {said}");
    }
    let began = Instant::now();
    twinlog.launch();
    await_position(&twinlog, "distant", 0, 100);
    println!("the first records: {:.1} s", began.elapsed().as_secs_f64());
    for number in 0..GROUPS {
        twinlog.await_group(&format!("group-{number}"), "followed", THIN_WITHIN);
    }
    println!("{GROUPS} groups: {:.1} s", began.elapsed().as_secs_f64());
}

/// Copies so much while a quota holds our client, on either side.
fn under_a_quota(of_target: bool, key: &str, value: f64, kibs: usize) {
    let (source, standby) = pair(KafkaVersion::V4_3);
    let (behind, proxy, address) = behind_a_proxy();
    let (from, to) = match of_target {
        true => (source.bootstrap(), address),
        false => (address, standby.bootstrap()),
    };
    let near = match of_target {
        true => from.clone(),
        false => behind.bootstrap(),
    };
    create_topic(&near, "held", 2, &[]);
    Load::new("held", 80).produce(&near);
    let config = flow_config("held", "held", &from, &to, "");
    let twinlog = Twinlog::start(&config);
    await_same(&from, &to, "held", THIN_WITHIN);
    let whom = quotas::entity(&[("client-id", Some("twinlog"))]);
    quotas::set(&behind.bootstrap(), &whom, &[(key, Some(value))]);
    let before = proxy.traffic();
    let copied = bytes_of(&twinlog.status());
    produce_kibs(&near, "held", 0, kibs);
    let wanted = copied + (kibs * 1_024) as u64;
    twinlog.wait_until(THIN_WITHIN, "all is copied", |status| {
        bytes_of(status) >= wanted
    });
    let after = proxy.traffic();
    println!("{key} {value}: {before:?} to {after:?}");
    let more = after.connections - before.connections;
    assert_eq!(more, 0, "{key}: no connection is given up");
    quotas::set(&behind.bootstrap(), &whom, &[(key, None)]);
}

#[test]
fn a_quota_of_producers_gives_no_connection_up() {
    under_a_quota(true, "producer_byte_rate", 100_000.0, 6 * 1_024);
}

/// Batches of transactions are sent with acks 0: no answer tells for how long the broker mutes the connection.
#[test]
fn a_small_quota_of_producers_stops_no_transactions() {
    const PARTITIONS: i32 = 4;
    const RATE: f64 = 20_000.0;
    /// Of some 115 bytes each: four partitions' share a request, for which the broker mutes for 40 s.
    const RECORDS: u64 = 2_000;
    let (source, _) = pair(KafkaVersion::V4_3);
    let (target, proxy, to) = behind_a_proxy();
    let from = source.bootstrap();
    create_topic(&from, "held", PARTITIONS, &[]);
    for records in [1, 1, 400] {
        plant(&from, "held", PARTITIONS, 3, records);
    }
    let lines = "offsets: identical";
    let twinlog = Twinlog::start(&flow_config("held", "held", &from, &to, lines));
    await_same(&from, &to, "held", THIN_WITHIN);
    let whom = quotas::entity(&[("client-id", Some("twinlog"))]);
    let rate = [("producer_byte_rate", Some(RATE))];
    quotas::set(&target.bootstrap(), &whom, &rate);
    let before = proxy.traffic();
    let copied_before = bytes_of(&twinlog.status());
    plant(&from, "held", PARTITIONS, 1, RECORDS);
    plant(&from, "held", PARTITIONS, 40, 5);
    // Whoever looks at the target would be counted.
    for partition in 0..PARTITIONS {
        let end = end_offset(&from, "held", partition);
        await_position(&twinlog, "held", partition, end);
    }
    let after = proxy.traffic();
    let log = twinlog.log();
    assert!(!log.contains("no answer within"), "{log}");
    let (line, copied) = (
        after.there - before.there,
        bytes_of(&twinlog.status()) - copied_before,
    );
    println!("{copied} bytes copied, {line} on the line; {before:?} to {after:?}");
    // One that asks for the quota.
    assert!(
        after.connections <= before.connections + 1,
        "none is given up"
    );
    // What is written and asked beside it, for a minute.
    assert!(
        line <= copied * 102 / 100 + 200_000,
        "{line} bytes for {copied}"
    );
    for partition in 0..PARTITIONS {
        let end = end_offset(&from, "held", partition);
        assert_eq!(end_offset(&to, "held", partition), end);
    }
    await_same(&from, &to, "held", THIN_WITHIN);
    quotas::set(&target.bootstrap(), &whom, &[("producer_byte_rate", None)]);
}

#[test]
fn a_quota_of_consumers_gives_no_connection_up() {
    under_a_quota(false, "consumer_byte_rate", 100_000.0, 6 * 1_024);
}

#[test]
fn a_quota_of_requests_gives_no_connection_up() {
    under_a_quota(true, "request_percentage", 1.0, 8 * 1_024);
    under_a_quota(false, "request_percentage", 1.0, 8 * 1_024);
}
