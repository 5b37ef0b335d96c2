//! Exactly once while brokers are killed, restarted and frozen under load.

use std::time::Duration;

use crate::support::{
    Background, Dice, Ends, KafkaVersion, Twinlog, await_all_same, await_caught_up, create_topic,
    two_clusters,
};

const DEADLINE: Duration = Duration::from_secs(120);
const TOPICS: [&str; 2] = ["plain", "transactions"];

fn create_topics(source: &str) {
    create_topic(source, "plain", 3, &[]);
    create_topic(source, "transactions", 2, &[]);
}

fn load_on(source: &str) -> Background {
    let mut load = Background::new();
    load.plain(source, "plain", 200);
    load.transactions(source, "transactions");
    load
}

#[test]
fn brokers_are_killed_and_restarted() {
    let mut dice = Dice::new("brokers_are_killed_and_restarted");
    let (mut source_cluster, mut target_cluster) = two_clusters(KafkaVersion::V4_3);
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    create_topics(&source);
    let load = load_on(&source);
    let mut twinlog = Twinlog::between(&source, &target);
    let ends = Ends::new(&target, "transactions", 2);
    let mut reached = 0;

    for _ in 0..2 {
        ends.await_above(reached, DEADLINE);
        dice.wait(100, 1_000);
        target_cluster.restart(1);
        reached = ends.total();
    }
    // Both at once.
    ends.await_above(reached, DEADLINE);
    dice.wait(100, 1_000);
    target_cluster.kill(1);
    twinlog.kill9();
    twinlog.launch();
    target_cluster.restart(1);
    reached = ends.total();
    // And the source, which its producers survive as well.
    ends.await_above(reached, DEADLINE);
    dice.wait(100, 1_000);
    source_cluster.restart(1);
    reached = ends.total();
    let took = ends.await_above(reached, DEADLINE);
    println!("the first new record {took:?} after the source was back");

    println!("{} records written", load.stop());
    await_caught_up(&twinlog, DEADLINE);
    await_all_same(&source, &target, &TOPICS, DEADLINE);
}

/// A frozen broker keeps what was sent to it. Twinlog dies meanwhile, and what its dead
/// connections left is worked on after the next one has come.
#[test]
fn what_a_dead_twinlog_left_in_a_frozen_broker_does_no_harm() {
    let mut dice = Dice::new("what_a_dead_twinlog_left");
    let (source_cluster, mut target_cluster) = two_clusters(KafkaVersion::V4_3);
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    create_topics(&source);
    let load = load_on(&source);
    let mut twinlog = Twinlog::between(&source, &target);
    let ends = Ends::new(&target, "transactions", 2);
    let mut reached = 0;

    for _ in 0..12 {
        ends.await_above(reached, DEADLINE);
        dice.wait(50, 400);
        target_cluster.signal(1, "STOP");
        dice.wait(0, 200);
        twinlog.kill9();
        twinlog.launch();
        dice.wait(0, 600);
        target_cluster.signal(1, "CONT");
        reached = ends.total();
    }
    println!("{} records written", load.stop());
    await_caught_up(&twinlog, DEADLINE);
    await_all_same(&source, &target, &TOPICS, DEADLINE);
}
