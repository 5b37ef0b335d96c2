//! Exactly once under `kill -9` of Twinlog, at any moment, under load.

use std::time::{Duration, Instant};

use crate::support::pair;
use crate::support::{
    Background, Dice, Ends, KafkaVersion, Load, Twinlog, await_all_same, await_caught_up,
    await_compacted_same, create_topic, end_offset, eventually, read_all,
};

const DEADLINE: Duration = Duration::from_secs(120);
const KILLS: usize = 16;
const PLAIN_PARTITIONS: i32 = 4;

/// Segments that roll and are cleaned at once, so that gaps appear while they are copied.
const COMPACT_FAST: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "300"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("max.compaction.lag.ms", "500"),
];

fn killed_again_and_again(version: KafkaVersion) {
    let mut dice = Dice::new("killed_again_and_again");
    let (source, target) = pair(version);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "plain", PLAIN_PARTITIONS, &[]);
    create_topic(&source, "transactions", 2, &[]);
    create_topic(&source, "compacted", 2, &COMPACT_FAST);
    await_gaps(&source);

    let mut load = Background::new();
    load.plain(&source, "plain", 200);
    load.transactions(&source, "transactions");
    load.java_transactions(version, &source, "transactions");
    load.few_keys(&source, "compacted");

    let mut twinlog = Twinlog::between(&source, &target);
    let ends = Ends::new(&target, "plain", PLAIN_PARTITIONS);
    ends.await_above(0, DEADLINE);
    let mut restarts = Vec::new();
    for kill in 0..KILLS {
        // Every other one is killed while it starts, the rest after it has begun to copy.
        dice.wait(50, 1_500);
        twinlog.kill9();
        let before = ends.total();
        twinlog.launch();
        if kill % 2 == 1 {
            restarts.push(ends.await_above(before, DEADLINE));
        }
    }
    println!("restart to first new record: {restarts:?}");
    let written = load.stop();
    println!("{written} records written");

    let stopped = Instant::now();
    await_caught_up(&twinlog, DEADLINE);
    println!("caught up after {:?}", stopped.elapsed());
    await_all_same(&source, &target, &["plain", "transactions"], DEADLINE);
    let gaps = await_compacted_same(&source, &target, "compacted", DEADLINE);
    assert!(gaps > 0, "the source was not compacted");
    await_caught_up(&twinlog, DEADLINE);
}

/// Fills the compacted topic until its log has gaps, so that a copy has to pass them for certain.
fn await_gaps(source: &str) {
    Load::new("compacted", 500).keys(11).produce(source);
    let mut first = 500;
    eventually(DEADLINE, "the source's log has gaps", || {
        // A segment rolls when something is appended to it.
        Load::new("compacted", 10)
            .first(first)
            .keys(11)
            .produce(source);
        first += 10;
        let records = read_all(
            source,
            "compacted",
            crate::support::Isolation::ReadCommitted,
        )
        .len();
        let ends: i64 = (0..2)
            .map(|partition| end_offset(source, "compacted", partition))
            .sum();
        if i64::try_from(records).expect("few") < ends / 2 {
            Ok(())
        } else {
            Err((records, ends))
        }
    });
}

#[test]
fn killed_again_and_again_on_4_3() {
    killed_again_and_again(KafkaVersion::V4_3);
}

#[test]
fn killed_again_and_again_on_3_9() {
    killed_again_and_again(KafkaVersion::V3_9);
}
