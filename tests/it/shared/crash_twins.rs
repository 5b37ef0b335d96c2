//! Two Twinlogs started by mistake on the same flow: the older one ends, the copy is unharmed.

use std::time::Duration;

use crate::support::pair;
use crate::support::{
    Background, Ends, KafkaVersion, Twinlog, await_all_same, await_caught_up, create_topic,
    eventually,
};

const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn the_older_of_two_ends_itself_and_nothing_is_doubled() {
    let (source_cluster, target_cluster) = pair(KafkaVersion::V4_3);
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    create_topic(&source, "plain", 3, &[]);
    create_topic(&source, "transactions", 2, &[]);
    let mut load = Background::new();
    load.plain(&source, "plain", 200);
    load.transactions(&source, "transactions");
    load.java_transactions(KafkaVersion::V4_3, &source, "transactions");

    let ends = Ends::new(&target, "transactions", 2);
    let mut older = Twinlog::between(&source, &target);
    for _ in 0..3 {
        // Holes are being filled while the next one starts.
        ends.await_above(ends.total(), DEADLINE);
        let newer = Twinlog::between(&source, &target);
        let exit = eventually(DEADLINE, "the older one has ended", || {
            older.ended().ok_or("it runs")
        });
        assert!(!exit.success(), "superseded is a failure: {exit}");
        let log = older.log();
        assert!(log.contains("another Twinlog took over"), "{log}");
        // What the newer one has taken over moves on, holes included.
        ends.await_above(ends.total(), DEADLINE);
        older = newer;
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

    let mut pair = [
        Twinlog::between(&source, &target),
        Twinlog::between(&source, &target),
    ];
    let ended = eventually(DEADLINE, "one of the two has ended", || {
        (0..2)
            .find(|index| pair[*index].ended().is_some())
            .ok_or("both run")
    });
    let survivor = &pair[1 - ended];
    let ends = Ends::new(&target, "transactions", 2);
    ends.await_above(ends.total(), DEADLINE);
    load.stop();
    await_caught_up(survivor, DEADLINE);
    await_all_same(&source, &target, &["transactions"], DEADLINE);
}
