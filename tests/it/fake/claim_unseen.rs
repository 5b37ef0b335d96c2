//! The state topic can't be read, so nobody knows who may fill holes: these wait, and only these.

use std::time::Duration;

use crate::support::flow::{await_position, is_caught_up, partition_status, topic_status};
use crate::support::{
    FakeCluster, Load, Transactions, Twinlog, await_all_same, await_same, create_topic,
    delete_topic, eventually, fake_pair,
};
use serde_json::Value;
use twinlog::state::STATE_TOPIC;

const DEADLINE: Duration = Duration::from_secs(60);
/// Partitions with the same number share a lane: the names differ by an even number.
const PLAIN: &str = "lane-a";
const HOLES: &str = "lane-c";
const PARTITIONS: i32 = 2;
/// Much more than may be in flight.
const MANY: u64 = 8_000;

fn plain(source: &str, topic: &str, round: u64) {
    Load::new(topic, MANY)
        .first(round * MANY)
        .value_bytes(1_000)
        .produce(source);
}

/// Holes, with more records behind them than a partition may hold.
fn holes(source: &str, round: u64) {
    let load = Load::new(HOLES, 20).first(round * 10 * MANY);
    let mut aborted = Transactions::new(load, 4);
    aborted.abort_percent = 100;
    aborted.produce(source);
    plain(source, HOLES, round);
}

fn no_leader(target: &FakeCluster) {
    target.control(|state| {
        let partition = state.partition_mut(STATE_TOPIC, 0);
        partition.expect("the flow has begun").go_offline();
    });
}

fn a_leader(target: &FakeCluster) {
    target.control(|state| state.elect_where_needed());
}

/// A flow with a small window that has copied both topics.
fn started(from: &str, to: &str) -> Twinlog {
    for topic in [PLAIN, HOLES] {
        create_topic(from, topic, PARTITIONS, &[]);
    }
    plain(from, PLAIN, 0);
    holes(from, 0);
    let lines = "limits: { in_flight: 4MiB, partition_in_flight: 2MiB }";
    let twinlog = Twinlog::start(&Twinlog::config(from, to, lines));
    await_all_same(from, to, &[PLAIN, HOLES], DEADLINE);
    await_caught_up(&twinlog, PLAIN);
    await_caught_up(&twinlog, HOLES);
    twinlog
}

/// Whoever waits for the claim waits as long as nobody leads the state.
fn await_caught_up(twinlog: &Twinlog, topic: &str) {
    let what = format!("{topic} is caught up");
    twinlog.wait_until(DEADLINE, &what, |status| {
        (0..PARTITIONS).all(|partition| is_caught_up(status, topic, partition))
    });
}

/// Waits until the plain topic is copied up to its newest record, of so many rounds. Before these are seen it looks caught up.
fn await_copied(twinlog: &Twinlog, rounds: u64) {
    let each = rounds * MANY / u64::from(PARTITIONS.unsigned_abs());
    let end = i64::try_from(each).expect("few");
    for partition in 0..PARTITIONS {
        await_position(twinlog, PLAIN, partition, end);
    }
}

fn are_unseen(status: &Value) -> bool {
    (0..PARTITIONS).all(|partition| {
        let found = partition_status(status, HOLES, partition);
        found["state"] == "retrying" && found["reason"] == "claim_unseen"
    })
}

fn await_unseen(twinlog: &Twinlog) {
    let status = twinlog.wait_until(DEADLINE, "holes wait by name", are_unseen);
    let words = topic_status(&status, HOLES).to_string();
    assert!(words.contains("it has no leader"), "{words}");
    assert!(words.contains("brokers that have the replicas"), "{words}");
}

#[test]
fn holes_that_may_not_be_filled_stop_nothing_else() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let twinlog = started(&from, &to);
    no_leader(&target);
    for round in 1..5 {
        holes(&from, round);
        plain(&from, PLAIN, round);
        await_copied(&twinlog, round + 1);
    }
    await_unseen(&twinlog);
    a_leader(&target);
    await_all_same(&from, &to, &[PLAIN, HOLES], DEADLINE);
    twinlog.wait_until(DEADLINE, "all is caught up", |status| {
        (0..PARTITIONS).all(|partition| is_caught_up(status, HOLES, partition))
    });
}

#[test]
fn a_topic_whose_holes_wait_can_go_and_the_flow_ends_soon() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let mut twinlog = started(&from, &to);
    no_leader(&target);
    // What was seen last is believed for a moment.
    let mut round = 0;
    eventually(DEADLINE, "holes wait", || {
        round += 1;
        holes(&from, round);
        are_unseen(&twinlog.status())
            .then_some(())
            .ok_or("they are filled")
    });
    delete_topic(&from, HOLES);
    plain(&from, PLAIN, 1);
    await_copied(&twinlog, 2);
    a_leader(&target);
    twinlog.wait_until(DEADLINE, "the topic is gone", |status| {
        topic_status(status, HOLES).is_null()
    });
    no_leader(&target);
    plain(&from, PLAIN, 2);
    await_copied(&twinlog, 3);
    // What takes longer than service managers wait is cut off, which is no success.
    assert!(twinlog.terminate().success());
    // What ended so goes on so.
    a_leader(&target);
    plain(&from, PLAIN, 3);
    twinlog.launch();
    await_same(&from, &to, PLAIN, DEADLINE);
}
