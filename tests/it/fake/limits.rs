//! Limits hold, clusters may come and go, and the end is orderly.

use std::time::{Duration, Instant};

use crate::support::admin::client;
use crate::support::flow::{flow_config, is_caught_up};
use crate::support::wait::eventually_after;
use crate::support::{Load, Twinlog, await_same, create_topic, end_offset, eventually, fake_pair};
use fake_kafka::faults::{Action, Fault};
use kafka_protocol::messages::ApiKey;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(90);
/// Then they kill.
const SERVICE_MANAGERS_WAIT: Duration = Duration::from_secs(10);
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

fn in_flight(status: &Value) -> u64 {
    status["flows"][0]["in_flight_bytes"].as_u64().unwrap_or(0)
}

/// A look that saw enough bytes copied.
pub(crate) struct Copied {
    asked_at: Instant,
    pub(crate) told_at: Instant,
    pub(crate) bytes: u64,
    /// How long it was waited for, on a machine with a processor to spare.
    waited: Duration,
}

/// Waits until this many bytes are copied.
pub(crate) fn await_bytes(twinlog: &Twinlog, bytes: u64) -> Copied {
    let (copied, waited) = eventually_after(DEADLINE, "it copies", || {
        let asked_at = Instant::now();
        match bytes_of(&twinlog.status()) {
            found if found >= bytes => Ok((asked_at, found)),
            found => Err(found),
        }
    });
    let (asked_at, bytes) = copied;
    Copied {
        asked_at,
        told_at: Instant::now(),
        bytes,
        waited,
    }
}

#[test]
fn bytes_per_second_caps_a_flow() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "capped", 2, &[]);
    for partition in 0..2 {
        produce_kibs(&source, "capped", partition, 20 * 1024);
    }
    let cap = 3 * MIB;
    let lines = "limits: { bytes_per_second: 3MiB }";
    let twinlog = Twinlog::start(&flow_config("capped", "capped", &source, &target, lines));
    // Past the first second's burst.
    let before = await_bytes(&twinlog, 6 * MIB);
    let after = await_bytes(&twinlog, before.bytes + 18 * MIB);
    let bytes = (after.bytes - before.bytes) as f64;
    // Whenever within them both answers were made, no more time than this was in between; and a second's worth may come at
    // once, behind a time in which it was held up.
    let most = cap as f64 * (1.0 + 1.1 * (after.told_at - before.asked_at).as_secs_f64());
    println!("{bytes} B, {most} B at most");
    assert!(bytes <= most, "{bytes} B is over the cap: {most} B");
    let rate = bytes / after.waited.as_secs_f64();
    assert!(rate >= 0.5 * cap as f64, "{rate} B/s is far below the cap");
}

#[test]
fn a_termination_under_load_drains_and_exits_with_0() {
    let (source, target) = fake_pair();
    ends_under_load(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn ends_under_load(source: &str, target: &str) {
    create_topic(source, "drained", 4, &[]);
    for partition in 0..4 {
        produce_kibs(source, "drained", partition, 10_000);
    }
    let config = flow_config("drained", "drained", source, target, "");
    let mut twinlog = Twinlog::start(&config);
    await_bytes(&twinlog, MIB);
    let status = twinlog.terminate_within(SERVICE_MANAGERS_WAIT);
    assert_eq!(status.code(), Some(0));
    twinlog.launch();
    await_same(source, target, "drained", DEADLINE);
}

#[test]
fn bytes_in_flight_stay_within_their_limit_while_the_target_hangs() {
    const PARTITIONS: i32 = 6;
    let (source, target) = fake_pair();
    let source = source.bootstrap();
    create_topic(&source, "hanging", PARTITIONS, &[]);
    Load::new("hanging", 60).produce(&source);
    let lines = "limits: { in_flight: 8MiB, partition_in_flight: 2MiB }";
    let config = flow_config("hanging", "hanging", &source, &target.bootstrap(), lines);
    let mut twinlog = Twinlog::start(&config);
    twinlog.wait_until(DEADLINE, "the flow runs", |status| {
        (0..PARTITIONS).all(|partition| is_caught_up(status, "hanging", partition))
    });

    target.control(|state| state.freeze_broker(1));
    for partition in 0..PARTITIONS {
        produce_kibs(&source, "hanging", partition, 4 * 1024);
    }
    // One batch per partition may come on top (KIP-74 never cuts one).
    let bound = 8 * MIB + u64::try_from(PARTITIONS).expect("small") * MIB;
    let mut highest = 0;
    let mut seen_at_the_top = 0;
    // A slow machine looks less often.
    twinlog.wait_until(2 * DEADLINE, "the limit is reached", |status| {
        highest = highest.max(in_flight(status));
        seen_at_the_top += u32::from(in_flight(status) >= 6 * MIB);
        seen_at_the_top >= 60
    });
    println!("at most {:.2} MiB in flight", highest as f64 / MIB as f64);
    assert!(
        highest <= bound,
        "{highest} B in flight, the limit is 8 MiB"
    );
    let gauge = "twinlog_flow_in_flight_bytes{flow=\"hanging\"} ";
    let metrics = twinlog.metrics();
    let shown = metrics.lines().find_map(|line| line.strip_prefix(gauge));
    let shown: f64 = shown.and_then(|shown| shown.parse().ok()).expect("a gauge");
    assert!(shown <= bound as f64);

    // An end while the target hangs is orderly too, and loses nothing.
    let asked_at = Instant::now();
    let status = twinlog.terminate_within(SERVICE_MANAGERS_WAIT);
    println!("ended after {:?} while the target hung", asked_at.elapsed());
    assert!(status.success(), "{status}");
    target.control(|state| state.thaw_broker(1));
    twinlog.launch();
    await_same(&source, &target.bootstrap(), "hanging", DEADLINE);
    twinlog.wait_until(DEADLINE, "nothing is in flight", |status| {
        in_flight(status) == 0
    });
}

#[test]
fn clusters_that_cannot_be_reached_are_waited_for() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "late", 2, &[]);
    Load::new("late", 100).produce(&from);

    source.control(|state| state.stop_broker(1));
    let mut twinlog = Twinlog::start(&flow_config("late", "late", &from, &to, ""));
    await_waiting(&twinlog, 0, "source_unreachable");
    source.control(|state| state.start_broker(1));
    await_same(&from, &to, "late", DEADLINE);
    assert!(twinlog.terminate().success());

    Load::new("late", 100).first(100).produce(&from);
    target.control(|state| state.stop_broker(1));
    twinlog.launch();
    await_waiting(&twinlog, 0, "target_unreachable");
    target.control(|state| state.start_broker(1));
    await_same(&from, &to, "late", DEADLINE);

    // The same under its hands.
    let logged = twinlog.log().len();
    source.control(|state| state.stop_broker(1));
    await_waiting(&twinlog, logged, "source_unreachable");
    source.control(|state| state.start_broker(1));
    Load::new("late", 100).first(200).produce(&from);
    await_same(&from, &to, "late", DEADLINE);
    twinlog.wait_until(DEADLINE, "the flow runs again", |status| {
        status["flows"][0]["state"] == "running" && status["ready"] == true
    });
    assert!(twinlog.ended().is_none());
}

/// Waits until it waits for a cluster, and says so behind what was `logged` before.
fn await_waiting(twinlog: &Twinlog, logged: usize, reason: &str) {
    let status = twinlog.wait_until(DEADLINE, reason, |status| {
        let flow = &status["flows"][0];
        flow["state"] == "waiting" && flow["reason"] == reason
    });
    assert_eq!(status["ready"], false);
    let (code, _) = twinlog.get("/healthz").expect("an answer");
    assert_eq!(
        code, 200,
        "a cluster that is away is no reason to restart Twinlog"
    );
    twinlog.await_log("the log names it", |log| log[logged..].contains(reason));
}

/// A broker looks at every partition of a fetch session again for each fetch. So one partition that the
/// target doesn't take doesn't make all others be asked for a hundred times a second.
#[test]
fn a_partition_without_room_leaves_the_others_to_their_long_poll() {
    const PARTITIONS: i32 = 6;
    const FETCHES: u64 = 8;
    let (source, target) = fake_pair();
    let from = source.bootstrap();
    create_topic(&from, "crowded", PARTITIONS, &[]);
    Load::new("crowded", 60).produce(&from);
    let lines = "limits: { in_flight: 8MiB, partition_in_flight: 2MiB }";
    let config = flow_config("crowded", "crowded", &from, &target.bootstrap(), lines);
    let twinlog = Twinlog::start(&config);
    twinlog.wait_until(DEADLINE, "the flow runs", |status| {
        (0..PARTITIONS).all(|partition| is_caught_up(status, "crowded", partition))
    });
    target.control(|state| state.freeze_broker(1));
    produce_kibs(&from, "crowded", 0, 4 * 1024);
    twinlog.wait_until(DEADLINE, "it has no room", |status| {
        in_flight(status) > 3 * MIB / 2
    });

    // What changes nothing counts.
    let counted = source.fault(Fault::on(ApiKey::Fetch), Action::Delay(0));
    let began_at = Instant::now();
    eventually(DEADLINE, "it is asked for the others", || {
        match source.fired(counted) {
            fetches if fetches >= FETCHES => Ok(()),
            fetches => Err(fetches),
        }
    });
    let took = began_at.elapsed();
    println!("{FETCHES} fetches in {took:?}");
    assert!(took > Duration::from_secs(2), "{took:?}");
    target.control(|state| state.thaw_broker(1));
    await_same(&from, &target.bootstrap(), "crowded", DEADLINE);
}
