//! A broker hangs: it keeps its connections and answers nothing. Others go on.

use std::time::Duration;

use crate::support::fake::options;
use crate::support::flow::{
    block_on, is_caught_up, never_given_up, partition_status, wire_cluster,
};
use crate::support::{FakeCluster, Load, Twinlog, await_same, create_topic};
use fake_kafka::state::Options;
use twinlog::wire::describe_log_dirs;

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "spread";
const PARTITIONS: i32 = 6;
const RECORDS: u64 = 24_000;
/// Of each partition.
const EACH: u64 = 4_000;

fn brokers(cluster_id: &str, brokers: i32, default_replication: i16) -> FakeCluster {
    FakeCluster::start(Options {
        brokers,
        default_replication,
        ..options(cluster_id)
    })
}

/// The partitions that a broker leads.
fn led_by(cluster: &FakeCluster, broker: i32) -> Vec<i32> {
    cluster.look(|state| {
        let partitions = state.topics[TOPIC].partitions.iter();
        let led = partitions.filter(|(_, it)| it.leader == Some(broker));
        led.map(|(number, _)| *number).collect()
    })
}

fn load(source: &str, round: u64) {
    Load::new(TOPIC, RECORDS)
        .first(round * RECORDS)
        .value_bytes(1_000)
        .produce(source);
}

/// A flow of a small window that has copied something.
fn started(source: &FakeCluster, target: &FakeCluster) -> Twinlog {
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for cluster in [&from, &to] {
        create_topic(cluster, TOPIC, PARTITIONS, &[]);
    }
    load(&from, 0);
    let lines = "limits: { in_flight: 4MiB, partition_in_flight: 2MiB }";
    let config = Twinlog::config(&from, &to, lines);
    let twinlog = Twinlog::start(&never_given_up(&config));
    await_same(&from, &to, TOPIC, DEADLINE);
    twinlog
}

/// All but these have so many loads. Before a load is seen they look caught up without it.
fn await_copied(twinlog: &Twinlog, loads: u64, but: &[i32]) {
    let end = i64::try_from(loads * EACH).expect("few");
    twinlog.wait_until(DEADLINE, "the others are whole", |status| {
        let mut others = (0..PARTITIONS).filter(|partition| !but.contains(partition));
        others.all(|partition| {
            let found = partition_status(status, TOPIC, partition);
            is_caught_up(status, TOPIC, partition) && found["source_position"] == end
        })
    });
}

#[test]
fn a_target_broker_that_hangs_starves_nobody() {
    let (source, target) = (brokers("source", 1, 1), brokers("target", 3, 1));
    let twinlog = started(&source, &target);
    let hung = led_by(&target, 2);
    assert!(!hung.is_empty());
    target.control(|state| state.freeze_broker(2));
    for round in 1..4 {
        load(&source.bootstrap(), round);
        await_copied(&twinlog, round + 1, &hung);
    }
    target.control(|state| state.thaw_broker(2));
    await_same(&source.bootstrap(), &target.bootstrap(), TOPIC, DEADLINE);
}

#[test]
fn a_source_broker_that_hangs_starves_nobody() {
    let (source, target) = (brokers("source", 3, 1), brokers("target", 1, 1));
    let twinlog = started(&source, &target);
    let hung = led_by(&source, 2);
    let others: Vec<i32> = (0..PARTITIONS).filter(|it| !hung.contains(it)).collect();
    source.control(|state| state.freeze_broker(2));
    for round in 1..4 {
        for partition in &others {
            Load::new(TOPIC, EACH)
                .partition(*partition)
                .first(round * RECORDS)
                .value_bytes(1_000)
                .produce(&source.bootstrap());
        }
        await_copied(&twinlog, round + 1, &hung);
    }
    source.control(|state| state.thaw_broker(2));
    await_same(&source.bootstrap(), &target.bootstrap(), TOPIC, DEADLINE);
}

/// Others lead what it led: that is noticed although the one that was asked says nothing.
#[test]
fn partitions_of_a_broker_that_hangs_go_on_at_their_new_leaders() {
    for hangs in ["source", "target"] {
        let replication = |side| if side == hangs { (3, 2) } else { (1, 1) };
        let start = |side| {
            let (number, replication) = replication(side);
            brokers(side, number, replication)
        };
        let (source, target) = (start("source"), start("target"));
        let twinlog = started(&source, &target);
        let cluster = if hangs == "source" { &source } else { &target };
        assert!(!led_by(cluster, 2).is_empty());
        cluster.control(|state| state.freeze_broker(2));
        let mut loads = 2;
        if hangs == "target" {
            // Something is on its way to it, too.
            load(&source.bootstrap(), 1);
            loads += 1;
        }
        cluster.control(|state| state.fence_broker(2));
        load(&source.bootstrap(), 2);
        await_copied(&twinlog, loads, &[]);
        cluster.control(|state| state.thaw_broker(2));
        await_same(&source.bootstrap(), &target.bootstrap(), TOPIC, DEADLINE);
    }
}

#[test]
fn a_broker_that_hangs_hides_no_other_brokers_disks() {
    let target = brokers("target-with-disks", 3, 1);
    let bootstrap = target.bootstrap();
    block_on(async {
        let cluster = wire_cluster(&bootstrap);
        cluster.metadata(None).await.expect("all of them answer");
        target.control(|state| state.freeze_broker(1));
        let found = describe_log_dirs(&cluster, &[], Duration::from_secs(10)).await;
        let told = found.iter().map(|(broker, dirs)| (*broker, dirs.is_ok()));
        let expected = [(1, false), (2, true), (3, true)];
        assert!(told.eq(expected), "{found:?}");
    });
}
