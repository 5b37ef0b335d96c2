//! Two Twinlogs on the same flow: the older one waits, and takes over when the other is gone.

use std::time::Duration;

use crate::support::pair;
use crate::support::{
    Background, Ends, KafkaVersion, Twinlog, await_all_same, await_caught_up, create_topic,
    eventually,
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);

/// Whether it waits until another one is gone that has the flow.
fn waits(status: &Value) -> bool {
    let flow = &status["flows"][0];
    flow["state"] == "waiting" && flow["reason"] == "superseded"
}

/// The newer one has the flow while it lives, and the older one again when it is gone.
#[test]
fn the_older_of_two_waits_for_its_turn_and_nothing_is_doubled() {
    let (source_cluster, target_cluster) = pair(KafkaVersion::V4_3);
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    create_topic(&source, "plain", 3, &[]);
    create_topic(&source, "transactions", 2, &[]);
    let mut load = Background::new();
    load.plain(&source, "plain", 200);
    load.transactions(&source, "transactions");
    load.java_transactions(KafkaVersion::V4_3, &source, "transactions");

    let ends = Ends::new(&target, "transactions", 2);
    let older = Twinlog::between(&source, &target);
    for end in ["killed", "stopped", "frozen"] {
        // Holes are being filled while the next one starts.
        ends.await_above(ends.total(), DEADLINE);
        let mut newer = Twinlog::between(&source, &target);
        older.wait_until(DEADLINE, "the older one waits", waits);
        // What the newer one has taken over moves on, holes included.
        ends.await_above(ends.total(), DEADLINE);
        match end {
            "killed" => newer.kill9(),
            "stopped" => assert!(newer.terminate().success()),
            _ => newer.signal("STOP"),
        }
        older.wait_until(DEADLINE, "the older one goes on", |status| {
            status["flows"][0]["state"] == "running"
        });
        ends.await_above(ends.total(), DEADLINE);
        if end == "frozen" {
            newer.signal("CONT");
            newer.wait_until(DEADLINE, "the frozen one waits now", waits);
            assert!(newer.terminate().success());
        }
    }
    println!("{} records written", load.stop());
    await_caught_up(&older, DEADLINE);
    await_all_same(&source, &target, &["plain", "transactions"], DEADLINE);
}

/// Both at the very same moment, before the flow has any state.
#[test]
fn two_that_start_at_once_leave_one() {
    let (source_cluster, target_cluster) = pair(KafkaVersion::V4_3);
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    create_topic(&source, "transactions", 2, &[]);
    let mut load = Background::new();
    load.transactions(&source, "transactions");

    let pair = [
        Twinlog::between(&source, &target),
        Twinlog::between(&source, &target),
    ];
    let waiting = eventually(DEADLINE, "one of the two waits", || {
        let found = (0..2).find(|at| waits(&pair[*at].status()));
        found.ok_or("both run")
    });
    let owner = &pair[1 - waiting];
    let ends = Ends::new(&target, "transactions", 2);
    ends.await_above(ends.total(), DEADLINE);
    load.stop();
    await_caught_up(owner, DEADLINE);
    await_all_same(&source, &target, &["transactions"], DEADLINE);
}
