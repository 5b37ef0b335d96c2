//! `twinlog verify` beyond plain records: groups, configs, maps, cleaners, retention, clusters that
//! move meanwhile, and comparing in the background.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::flow::{block_on, flow_config, wire_cluster, with_state};
use crate::support::groups::{commit, committed};
use crate::support::planted::{Piece, pieces, rebuild, records};
use crate::support::verified::{assert_verified, only_difference, verify};
use crate::support::{
    KafkaVersion, Load, Transactions, Twinlog, await_same, create_topic, delete_records,
    eventually, pair,
};
use bytes::Bytes;
use serde_json::{Value, json};
use twinlog::batch::{self, Record, Stamp};
use twinlog::state::{VerifyRecord, keys};
use twinlog::wire::{self, TopicPartition};

const DEADLINE: Duration = Duration::from_secs(60);

fn addresses() -> (String, String) {
    let (source, target) = pair(KafkaVersion::V4_3);
    (source.bootstrap(), target.bootstrap())
}

#[test]
fn a_group_that_was_moved_is_found() {
    let (source, target) = addresses();
    create_topic(&source, "g-orders", 2, &[]);
    Load::new("g-orders", 300).produce(&source);
    for (group, first) in [("g-steady", 10), ("g-moved", 40)] {
        commit(
            &source,
            group,
            &[("g-orders", 0, first), ("g-orders", 1, first + 1)],
        );
    }
    let lines = "groups: { include: [\"g-.*\"] }";
    let mut twinlog = Twinlog::start(&flow_config("groups", "g-.*", &source, &target, lines));
    await_same(&source, &target, "g-orders", DEADLINE);
    eventually(DEADLINE, "the groups are on the target", || {
        let of = |group| committed(&target, group, "g-orders", 2);
        let found = (of("g-steady"), of("g-moved"));
        if found == (vec![Some(10), Some(11)], vec![Some(40), Some(41)]) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    let report = assert_verified(&twinlog, &[]);
    assert_eq!(report["groups"]["groups"], 2, "{report:#}");
    assert_eq!(report["groups"]["same"], 4, "{report:#}");
    assert!(twinlog.terminate().success());

    for (moved_to, word) in [(45, "ahead"), (30, "behind")] {
        commit(&target, "g-moved", &[("g-orders", 1, moved_to)]);
        let found = only_difference(&twinlog, &[]);
        assert_eq!(found["kind"], "group");
        assert_eq!(found["group"], "g-moved");
        assert_eq!(found["partition"], 1);
        assert_eq!(
            (&found["source_offset"], &found["target_offset"]),
            (&json!(41), &json!(moved_to))
        );
        assert!(found["detail"].to_string().contains(word), "{found:#}");
    }
    commit(&target, "g-moved", &[("g-orders", 1, 41)]);
    // Nobody follows any more: that is known, and no fault.
    commit(&source, "g-steady", &[("g-orders", 0, 50)]);
    let report = assert_verified(&twinlog, &[]);
    assert_eq!(
        report["groups"]["behind"],
        json!({ "not_followed_yet": 1 }),
        "{report:#}"
    );
}

#[test]
fn what_was_not_copied_or_is_set_otherwise_is_found() {
    let (source, target) = addresses();
    create_topic(&source, "c-orders", 1, &[("retention.ms", "86400000")]);
    Load::new("c-orders", 100).produce(&source);
    let mut twinlog = Twinlog::start(&flow_config("configs", "c-.*", &source, &target, ""));
    await_same(&source, &target, "c-orders", DEADLINE);
    assert!(twinlog.terminate().success());
    let report = assert_verified(&twinlog, &["--full"]);
    assert_eq!(report["configs"]["count"], 1, "{report:#}");

    rebuild(
        &target,
        "c-orders",
        &pieces(&records(&source, "c-orders")),
        &[("retention.ms", "86400001")],
    );
    let found = only_difference(&twinlog, &["--full"]);
    assert_eq!(
        (&found["kind"], &found["topic"]),
        (&json!("config"), &json!("c-orders"))
    );
    assert_eq!(
        found["detail"],
        "retention.ms is 86400001, it should be 86400000"
    );

    create_topic(&source, "c-new", 1, &[]);
    let (code, report) = verify(&twinlog, &["--topic", "c-new|c-orders"]);
    assert_eq!(code, 1);
    assert_eq!(report["topics_not_copied"], json!(["c-new"]), "{report:#}");

    // Lag is no difference.
    Load::new("c-orders", 50).produce(&source);
    let (_, report) = verify(&twinlog, &["--full", "--topic", "c-orders"]);
    assert_eq!(report["totals"]["lag_offsets"], 50, "{report:#}");
    assert_eq!(
        report["totals"]["differences"],
        json!({ "config": 1 }),
        "{report:#}"
    );

    crate::support::delete_topic(&target, "c-orders");
    let (code, report) = verify(&twinlog, &["--full", "--topic", "c-orders"]);
    assert_eq!(code, 1);
    assert_eq!(report["differences"][0]["kind"], "partitions", "{report:#}");
}

#[test]
fn a_mapped_copy_that_is_being_written_raises_no_alarm() {
    let (source, target) = addresses();
    create_topic(&source, "m-orders", 2, &[]);
    Load::new("m-orders", 400).produce(&source);
    delete_records(&source, "m-orders", 0, 123);
    Transactions::new(Load::new("m-orders", 7), 30).produce(&source);
    let config = flow_config("mapped", "m-.*", &source, &target, "offsets: mapped");
    let mut twinlog = Twinlog::start(&config);
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        let totals = &status["flows"][0]["totals"];
        totals["copying"] == 2 && totals["lag_records"] == 0
    });
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut first = 1_000;
            while !enough.load(Ordering::Relaxed) {
                Load::new("m-orders", 40).first(first).produce(&source);
                Transactions::new(Load::new("m-orders", 3).first(first + 40), 4).produce(&source);
                first += 100;
            }
        });
        for _ in 0..3 {
            let (code, report) = verify(&twinlog, &["--full"]);
            let fine = code == 0 && report["verdict"] == "same";
            if !fine {
                enough.store(true, Ordering::Relaxed);
            }
            assert!(fine, "{report:#}");
        }
        enough.store(true, Ordering::Relaxed);
    });
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        let flow = &status["flows"][0];
        flow["totals"]["lag_records"] == 0 && flow["in_flight_bytes"] == 0
    });
    assert!(twinlog.terminate().success());
    let report = assert_verified(&twinlog, &["--full"]);
    assert!(
        report["totals"]["records"].as_u64() > Some(400),
        "{report:#}"
    );
    assert_eq!(report["partitions"][0]["offsets"], "mapped");
    assert_eq!(report["partitions"][0]["from"], 123);

    Load::new("m-orders", 1).partition(1).produce(&target);
    let found = only_difference(&twinlog, &["--full"]);
    assert_eq!(
        (&found["kind"], &found["partition"]),
        (&json!("added_at_end"), &json!(1))
    );
}

#[test]
fn a_cleaner_may_take_what_was_written_again_and_nothing_else() {
    let (source, target) = addresses();
    create_topic(&source, "k-table", 1, &[("cleanup.policy", "compact")]);
    // Small enough for one segment, which no cleaner touches: 300 to 399 are their keys' last.
    Load::new("k-table", 400).produce(&source);
    let mut twinlog = Twinlog::start(&flow_config("cleaned", "k-.*", &source, &target, ""));
    await_same(&source, &target, "k-table", DEADLINE);
    assert!(twinlog.terminate().success());
    let mut made = pieces(&records(&source, "k-table"));
    made.splice(50..52, [Piece::TwoHoles]);
    rebuild(&target, "k-table", &made, &[("cleanup.policy", "compact")]);
    let report = assert_verified(&twinlog, &["--full"]);
    assert_eq!(report["totals"]["compacted"], 2, "{report:#}");
    assert_eq!(report["partitions"][0]["is_compacted"], true);

    let mut made = pieces(&records(&source, "k-table"));
    made.splice(350..352, [Piece::TwoHoles]);
    if let Piece::Record(record) = &mut made[7] {
        record.value = Some(b"other".to_vec());
    }
    rebuild(&target, "k-table", &made, &[("cleanup.policy", "compact")]);
    let (code, report) = verify(&twinlog, &["--full"]);
    assert_eq!(code, 1);
    let found: Vec<(&Value, &Value)> = report["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| (&found["kind"], &found["source_offset"]))
        .collect();
    let (changed, missing) = (json!("changed"), json!("missing"));
    let offsets = [json!(7), json!(350), json!(351)];
    assert_eq!(
        found,
        [
            (&changed, &offsets[0]),
            (&missing, &offsets[1]),
            (&missing, &offsets[2])
        ],
        "{report:#}"
    );
    assert_eq!(report["totals"]["compacted"], 0);
}

#[test]
fn what_was_deleted_on_the_source_is_no_fault_and_on_the_copy_alone_is_told() {
    let (source, target) = addresses();
    for topic in ["r-source", "r-target"] {
        create_topic(&source, topic, 1, &[]);
        Load::new(topic, 500).produce(&source);
    }
    let mut twinlog = Twinlog::start(&flow_config("retention", "r-.*", &source, &target, ""));
    await_same(&source, &target, "r-source", DEADLINE);
    await_same(&source, &target, "r-target", DEADLINE);
    assert!(twinlog.terminate().success());
    delete_records(&source, "r-source", 0, 200);
    delete_records(&target, "r-target", 0, 300);
    let (code, report) = verify(&twinlog, &["--full"]);
    assert_eq!(
        (code, &report["verdict"], &report["differences"]),
        (1, &"incomplete".into(), &serde_json::json!([])),
        "{report:#}"
    );
    assert_eq!(report["totals"]["lost_offsets"], 300, "{report:#}");
    assert_eq!(
        report["totals"]["not_comparable_offsets"], 500,
        "{report:#}"
    );
    assert_eq!(report["totals"]["records"], 300 + 200, "{report:#}");
}

#[test]
fn a_header_key_that_is_not_text_is_counted_and_harms_nothing() {
    let (source, target) = addresses();
    create_topic(&source, "u-odd", 1, &[]);
    Load::new("u-odd", 10).produce(&source);
    let place = TopicPartition::new("u-odd", 0);
    // Two headers: the key is one byte that is no UTF-8, and then "a"; both have no value.
    let record = Record {
        offset: 0,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(Bytes::from_static(b"odd")),
        header_count: 2,
        headers: Bytes::from_static(&[2, 0xff, 1, 2, b'a', 1]),
    };
    let encoded = batch::encode(&[record], batch::Codec::None, Stamp::NONE);
    let encoded = encoded.expect("a record");
    block_on(wire::produce_one(
        &wire_cluster(&source),
        &place,
        encoded,
        -1,
    ))
    .expect("appended");
    let mut twinlog = Twinlog::start(&flow_config("odd", "u-.*", &source, &target, ""));
    twinlog.wait_until(DEADLINE, "it is copied", |status| {
        let flow = &status["flows"][0];
        flow["totals"]["records"] == 11
    });
    let output = twinlog.command("verify", &["--full", "--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["verdict"], "same", "{report:#}");
    assert_eq!(report["totals"]["unreadable_headers"], 1, "{report:#}");
    assert_eq!(report["totals"]["records"], 11, "{report:#}");
    assert!(twinlog.terminate().success());
}

#[test]
fn the_background_goes_round_and_says_what_it_found() {
    let (source, target) = addresses();
    create_topic(&source, "b-orders", 2, &[]);
    Load::new("b-orders", 2_000)
        .value_bytes(500)
        .produce(&source);
    let lines = "verify: { background: on, interval: 1s, bytes_per_second: 2MiB }";
    let mut twinlog = Twinlog::start(&flow_config("back", "b-.*", &source, &target, lines));
    let verified = |status: &Value| {
        let flow = &status["flows"][0];
        let last = &flow["verify"]["last"]["background"];
        last["records"] == 2_000 && last["verdict"] == "same"
    };
    let status = twinlog.wait_until(DEADLINE, "a round has ended", verified);
    let result = &status["flows"][0]["verify"]["last"]["background"];
    assert_eq!(result["coverage"], 1.0, "{status:#}");
    // Two million bytes on both sides together, at 2 MiB a second.
    let took = result["ended_ms"].as_i64().expect("a time")
        - result["started_ms"].as_i64().expect("a time");
    assert!(took >= 800, "the rate was not kept: {took} ms");
    let metrics = twinlog.metrics();
    for line in [
        "twinlog_verify_coverage_ratio{flow=\"back\"} 1",
        "twinlog_verify_differences{flow=\"back\",kind=\"changed\"} 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in\n{metrics}"
        );
    }
    let bytes = metrics
        .lines()
        .find(|line| line.starts_with("twinlog_verify_bytes_total"));
    let bytes: u64 = bytes
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .expect("a count");
    assert!(bytes >= 2_000_000, "{bytes}");
    let said = twinlog.command("status", &[]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("verified 100.0 %"), "{said}");
    // One that was run by hand is remembered beside it. Who stores his at the same moment may not have seen it yet, and
    // leaves it out.
    eventually(DEADLINE, "both are remembered", || {
        assert_verified(&twinlog, &["--full"]);
        let record = with_state(&target, |store| {
            store.get::<VerifyRecord>(&keys::verify("back"))
        });
        let last = record.expect("readable").expect("stored").last;
        match last.contains_key("full") && last.contains_key("background") {
            true => Ok(()),
            false => Err(last),
        }
    });
    assert!(twinlog.terminate().success());
    twinlog.assert_quiet(&[]);
}
