//! `offsets: mapped`: other offsets, the same records, and a map that is exact for every one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::flow::{flow_config, topic_status};
use crate::support::mapped::{assert_map_is_exact, assert_same_sequence, stored_map, translate};
use crate::support::{
    Cluster, ClusterOptions, HeaderStyle, Isolation, KafkaVersion, Load, Transactions, Twinlog,
    await_same, create_topic, delete_records, read_all,
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(90);
const TOPIC: &str = "mapped";

#[test]
fn a_mapped_topic_survives_crashes_and_its_map_is_exact() {
    let version = KafkaVersion::V4_3;
    let mut source = Cluster::launch(version, ClusterOptions::named("source"));
    let mut target = Cluster::launch(version, ClusterOptions::named("target"));
    source.await_ready();
    target.await_ready();
    let (from, to) = (source.bootstrap(), target.bootstrap());

    create_topic(&from, TOPIC, 3, &[]);
    Load::new(TOPIC, 500).partition(0).produce(&from);
    delete_records(&from, TOPIC, 0, 123);
    Transactions::new(Load::new(TOPIC, 7).partition(1), 30).produce(&from);
    create_topic(&from, "same", 1, &[]);
    Load::new("same", 300).produce(&from);
    delete_records(&from, "same", 0, 50);

    let same = Twinlog::start(&flow_config("same", "same", &from, &to, ""));
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, &from, &to, "offsets: mapped"));
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for first in (1_000..).step_by(100) {
                if enough.load(Ordering::Relaxed) {
                    break;
                }
                let load = Load::new(TOPIC, 60)
                    .first(first)
                    .headers(HeaderStyle::Every)
                    .with("batch.num.messages", if first % 200 == 0 { 1 } else { 40 });
                load.produce(&from);
                Transactions::new(Load::new(TOPIC, 5).first(first + 60).partition(2), 4)
                    .produce(&from);
            }
        });
        for round in 1..=6 {
            let before = records_of(&twinlog.status());
            twinlog.wait_until(DEADLINE, "it copies", |status| {
                records_of(status) >= before.max(50) + 150
            });
            twinlog.kill9();
            if round == 6 {
                enough.store(true, Ordering::Relaxed);
            }
            twinlog.launch();
        }
    });
    await_caught_up(&twinlog);
    let status = twinlog.status();
    let topic = topic_status(&status, TOPIC);
    assert_eq!(topic["offsets"], "mapped");
    assert!(topic["offsets_reason"].to_string().contains("mapped"));

    // Stored by a crash's successor, and stored at an orderly end.
    twinlog.kill9();
    twinlog.launch();
    await_caught_up(&twinlog);
    assert!(twinlog.terminate().success());
    let (records, copies) = (
        read_all(&from, TOPIC, Isolation::ReadCommitted),
        read_all(&to, TOPIC, Isolation::ReadUncommitted),
    );
    assert_same_sequence(&records, &copies);
    let moved = records
        .iter()
        .zip(&copies)
        .filter(|(record, copy)| record.offset != copy.offset);
    assert!(
        moved.count() > 300,
        "the offsets are the same: nothing was tested"
    );
    for partition in 0..3 {
        let (map, _) = stored_map(&to, TOPIC, partition);
        let count = assert_map_is_exact(&map, partition, &records, &copies);
        assert!(count > 50, "partition {partition} has {count} records");
    }

    await_same(&from, &to, "same", DEADLINE);
    drop(same);
    // All that translate needs is on the target.
    source.stop(1);
    for (record, copy) in records.iter().zip(&copies).step_by(97) {
        let answer = translate(&twinlog, TOPIC, record.partition, record.offset, &[]);
        assert_eq!(
            (&answer["answer"], &answer["offset"]),
            (&"exact".into(), &copy.offset.into())
        );
        let back = translate(&twinlog, TOPIC, copy.partition, copy.offset, &["--reverse"]);
        assert_eq!(back["offset"], record.offset);
    }
    let below = translate(&twinlog, TOPIC, 0, 5, &[]);
    assert_eq!(
        (&below["answer"], &below["limit"]),
        (&"before_start".into(), &123.into())
    );
    let beyond = translate(&twinlog, TOPIC, 0, 1_000_000, &[]);
    assert_eq!(beyond["answer"], "not_yet_copied");

    let same = Twinlog::prepare(&flow_config("same", "same", &from, &to, ""));
    for (asked, answer, offset) in [
        (0, "before_start", None),
        (49, "before_start", None),
        (50, "exact", Some(50)),
        (300, "exact", Some(300)),
        (301, "not_yet_copied", None),
    ] {
        for way in [&[][..], &["--reverse"]] {
            let given = translate(&same, "same", 0, asked, way);
            assert_eq!(given["answer"], answer, "{given}");
            assert_eq!(given["offset"].as_i64(), offset, "{given}");
            assert_eq!(given["offsets"], "identical");
        }
    }
    let arguments = ["--topic", "none", "--partition", "0", "--offset", "0"];
    let refused = same.command("translate", &arguments);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("has never copied topic none"));
}

fn records_of(status: &Value) -> i64 {
    status["flows"][0]["totals"]["records"]
        .as_i64()
        .unwrap_or(0)
}

/// Waits until nothing is left to copy, as the clusters and not only Twinlog see it.
fn await_caught_up(twinlog: &Twinlog) {
    twinlog.wait_until(DEADLINE, "everything is copied", |status| {
        let totals = &topic_status(status, TOPIC)["totals"];
        totals["copying"] == 3
            && totals["lag_records"] == 0
            && totals["lag_unknown_partitions"] == 0
            && status["flows"][0]["in_flight_bytes"] == 0
    });
}
