//! What a flow does when its clusters hang, are late or are far away.

use crate::shared::limits::{DEADLINE, SERVICE_MANAGERS_WAIT};
use crate::shared::limits::{await_bytes, bytes_of, in_flight, produce_kibs};
use crate::support::flow::{await_position, flow_config, is_caught_up};
use crate::support::ports::Port;
use crate::support::proxy::Proxy;
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, await_same, create_topic, pair,
};
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;

#[test]
fn bytes_in_flight_stay_within_their_limit_while_the_target_hangs() {
    const PARTITIONS: i32 = 6;
    let (source, _) = pair(KafkaVersion::V4_3);
    let source = source.bootstrap();
    let mut target = Cluster::start(KafkaVersion::V4_3, ClusterOptions::named("hanging"));
    create_topic(&source, "hanging", PARTITIONS, &[]);
    Load::new("hanging", 60).produce(&source);
    let lines = "limits: { in_flight: 8MiB, partition_in_flight: 2MiB }";
    let config = flow_config("hanging", "hanging", &source, &target.bootstrap(), lines);
    let mut twinlog = Twinlog::start(&config);
    twinlog.wait_until(DEADLINE, "the flow runs", |status| {
        (0..PARTITIONS).all(|partition| is_caught_up(status, "hanging", partition))
    });

    target.signal(1, "STOP");
    for partition in 0..PARTITIONS {
        produce_kibs(&source, "hanging", partition, 4 * 1024);
    }
    // One batch per partition may come on top (KIP-74 never cuts one).
    let bound = 8 * MIB + u64::try_from(PARTITIONS).expect("small") * MIB;
    let mut highest = 0;
    let mut seen_at_the_top = 0;
    twinlog.wait_until(DEADLINE, "the limit is reached", |status| {
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
    target.signal(1, "CONT");
    twinlog.launch();
    await_same(&source, &target.bootstrap(), "hanging", DEADLINE);
    twinlog.wait_until(DEADLINE, "nothing is in flight", |status| {
        in_flight(status) == 0
    });
}

#[test]
fn clusters_that_cannot_be_reached_are_waited_for() {
    // A killed node may register again once its session is over.
    let quick = |name| {
        ClusterOptions::named(name)
            .with("broker.session.timeout.ms", 2_000)
            .with("broker.heartbeat.interval.ms", 500)
    };
    let mut source = Cluster::launch(KafkaVersion::V4_3, quick("late-source"));
    let mut target = Cluster::launch(KafkaVersion::V4_3, quick("late-target"));
    source.await_ready();
    target.await_ready();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "late", 2, &[]);
    Load::new("late", 100).produce(&from);

    source.kill(1);
    let mut twinlog = Twinlog::start(&flow_config("late", "late", &from, &to, ""));
    await_waiting(&twinlog, "source_unreachable");
    source.restart(1);
    await_same(&from, &to, "late", DEADLINE);
    assert!(twinlog.terminate().success());

    Load::new("late", 100).first(100).produce(&from);
    target.kill(1);
    twinlog.launch();
    await_waiting(&twinlog, "target_unreachable");
    target.restart(1);
    await_same(&from, &to, "late", DEADLINE);

    // The same under its hands.
    source.kill(1);
    await_waiting(&twinlog, "source_unreachable");
    source.restart(1);
    Load::new("late", 100).first(200).produce(&from);
    await_same(&from, &to, "late", DEADLINE);
    twinlog.wait_until(DEADLINE, "the flow runs again", |status| {
        status["flows"][0]["state"] == "running" && status["ready"] == true
    });
    assert!(twinlog.ended().is_none());
}

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
    let (began, before) = await_bytes(&twinlog, 8 * MIB);
    let end = i64::try_from(RECORDS).expect("small");
    let status = await_position(&twinlog, "far", 0, end);
    let seconds = began.elapsed().as_secs_f64();
    let rate = (bytes_of(&status) - before) as f64 / seconds / 1e6;
    println!("{rate:.1} MB/s over a line with a round trip of 100 ms");
    assert!(rate > 15.0, "{rate:.1} MB/s: the line isn't filled");
}

fn await_waiting(twinlog: &Twinlog, reason: &str) {
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
    assert!(twinlog.log().contains(reason), "{}", twinlog.log());
}
