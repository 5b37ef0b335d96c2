//! Groups between real clusters: the record that each reads next is the same on both sides.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::groups::{commit, committed, next_values};
use support::{
    Codec, Dice, KafkaVersion, Load, Transactions, Twinlog, create_topic, delete_records,
    end_offset, eventually, two_clusters,
};

const DEADLINE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
const GROUPS: i64 = 20;
const TOPICS: [&str; 4] = ["plain", "transactions", "compacted", "shifted"];

fn write(bootstrap: &str) {
    create_topic(bootstrap, "plain", PARTITIONS, &[]);
    Load::new("plain", 4_000)
        .codec(Codec::Lz4)
        .produce(bootstrap);
    create_topic(bootstrap, "transactions", PARTITIONS, &[]);
    Transactions::new(Load::new("transactions", 10), 200).produce(bootstrap);
    let compacted = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    create_topic(bootstrap, "compacted", PARTITIONS, &compacted);
    Load::new("compacted", 4_000).keys(300).produce(bootstrap);
    create_topic(bootstrap, "shifted", PARTITIONS, &[]);
    Load::new("shifted", 2_000).produce(bootstrap);
    for partition in 0..PARTITIONS {
        delete_records(bootstrap, "shifted", partition, 100 + i64::from(partition));
    }
}

/// Commits a random position for every group, topic and partition.
fn scatter(bootstrap: &str, dice: &mut Dice) {
    for topic in TOPICS {
        let ends: Vec<i64> = (0..PARTITIONS)
            .map(|partition| end_offset(bootstrap, topic, partition))
            .collect();
        let first = if topic == "shifted" { 110 } else { 0 };
        for group in 0..GROUPS {
            let positions: Vec<(&str, i32, i64)> = (0..PARTITIONS)
                .zip(&ends)
                .map(|(partition, end)| (topic, partition, dice.number(first, *end)))
                .collect();
            commit(bootstrap, &format!("group-{group}"), &positions);
        }
    }
}

type Next = BTreeMap<(i64, &'static str), BTreeMap<i32, Option<Vec<u8>>>>;

fn read_next(bootstrap: &str) -> Next {
    let mut next = Next::new();
    for group in 0..GROUPS {
        for topic in TOPICS {
            let values = next_values(bootstrap, &format!("group-{group}"), topic, PARTITIONS);
            next.insert((group, topic), values);
        }
    }
    next
}

fn await_followed(twinlog: &Twinlog) {
    eventually(DEADLINE, "every group is followed", || {
        let report = twinlog.groups();
        let groups = report["groups"].as_array().cloned().unwrap_or_default();
        let settled = groups.len() >= GROUPS as usize
            && groups.iter().all(|group| {
                group["state"] == "followed"
                    && group["reread_records"] == 0
                    && group["unplaced_partitions"] == 0
            });
        if settled {
            Ok(())
        } else {
            Err(format!("{report:#}"))
        }
    });
}

/// The experiment: groups at random places, Twinlog killed meanwhile, the source gone.
fn every_group_goes_on_at_the_very_next_record(mode: &str) {
    let mut dice = Dice::new(&format!("groups {mode}"));
    let (mut source, target) = two_clusters(KafkaVersion::V4_3);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    write(&from);
    scatter(&from, &mut dice);
    let mut twinlog = Twinlog::start(&Twinlog::config(&from, &to, &format!("offsets: {mode}")));
    await_followed(&twinlog);

    // Moved forward and back while Twinlog is down, and on after its crash.
    twinlog.kill9();
    scatter(&from, &mut dice);
    Load::new("plain", 400).first(4_000).produce(&from);
    twinlog.launch();
    support::await_caught_up(&twinlog, DEADLINE);
    scatter(&from, &mut dice);
    let expected = read_next(&from);
    support::await_caught_up(&twinlog, DEADLINE);
    eventually(DEADLINE, "every position arrived", || {
        for topic in TOPICS {
            for group in 0..GROUPS {
                let found = committed(&to, &format!("group-{group}"), topic, PARTITIONS);
                if found.contains(&None) {
                    return Err(format!("{topic} {group} {found:?}"));
                }
            }
        }
        Ok(())
    });
    await_followed(&twinlog);
    source.stop(1);

    let found = read_next(&to);
    let mut wrong = Vec::new();
    for (at, expected) in &expected {
        for (partition, value) in expected {
            if found[at].get(partition) != Some(value) {
                let text = |value: Option<&Option<Vec<u8>>>| {
                    value.map(|v| v.as_ref().map(|v| v.escape_ascii().to_string()))
                };
                wrong.push(format!(
                    "{at:?}-{partition}: {:?} instead of {:?}",
                    text(found[at].get(partition)),
                    text(Some(value))
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} positions wrong:\n{}",
        wrong.len(),
        expected.len() * PARTITIONS as usize,
        wrong.join("\n")
    );
}

#[test]
fn every_group_goes_on_at_the_very_next_record_identical() {
    every_group_goes_on_at_the_very_next_record("identical");
}

#[test]
fn every_group_goes_on_at_the_very_next_record_mapped() {
    every_group_goes_on_at_the_very_next_record("mapped");
}
