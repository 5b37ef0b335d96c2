//! `twinlog verify` on real clusters: nothing wrong with a healthy copy, and every planted fault
//! found where it was planted.

use std::time::Duration;

use crate::support::flow::flow_config;
use crate::support::planted::{Piece, await_end, pieces, rebuild, records};
use crate::support::verified::{assert_verified, verify};
use crate::support::{
    Codec, HeaderStyle, KafkaVersion, Load, Transactions, Twinlog, add_partitions, await_caught_up,
    await_same, create_topic, delete_records, end_offset, pair, topic_configs,
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_healthy_copy_is_the_same_in_every_mode() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "h-codecs", 3, &[]);
    for (codec, first) in Codec::ALL.into_iter().zip((0..).step_by(400)) {
        Load::new("h-codecs", 400)
            .first(first)
            .codec(codec)
            .headers(HeaderStyle::Every)
            .tombstone_every(7)
            .value_bytes(300)
            .timestamps_from(1_700_000_000_000)
            .produce(&source);
    }
    create_topic(&source, "h-transactions", 2, &[]);
    Transactions::new(Load::new("h-transactions", 10), 40).produce(&source);
    let append = ("message.timestamp.type", "LogAppendTime");
    create_topic(&source, "h-append-time", 1, &[append]);
    Load::new("h-append-time", 300).produce(&source);
    create_topic(&source, "h-shifted", 1, &[]);
    Load::new("h-shifted", 500).produce(&source);
    delete_records(&source, "h-shifted", 0, 321);
    create_topic(&source, "h-empty", 2, &[]);

    let mut twinlog = Twinlog::start(&flow_config("healthy", "h-.*", &source, &target, ""));
    for topic in [
        "h-codecs",
        "h-transactions",
        "h-append-time",
        "h-shifted",
        "h-empty",
    ] {
        await_same(&source, &target, topic, DEADLINE);
    }
    // What has no record behind the last one comes a moment later, and so does what is remembered of an empty topic.
    await_caught_up(&twinlog, DEADLINE);
    // While it runs and when it has ended.
    for is_running in [true, false] {
        let report = assert_verified(&twinlog, &["--full"]);
        let totals = &report["totals"];
        assert_eq!(totals["partitions"], 9, "{report:#}");
        assert_eq!(report["coverage"]["ratio"], 1.0, "{report:#}");
        // 280 of the 400 records in transactions were committed.
        assert_eq!(totals["records"], 2_000 + 280 + 300 + 179, "{report:#}");
        assert_eq!(totals["lag_offsets"], 0, "{report:#}");
        if is_running {
            assert!(twinlog.terminate().success());
        }
    }
    let report = assert_verified(&twinlog, &[]);
    assert_eq!(report["mode"], "quick");
    assert_eq!(report["totals"]["records"], 0);
    let report = assert_verified(&twinlog, &["--sample", "50%", "--seed", "7"]);
    assert_eq!(report["sample"]["seed"], 7);
    assert!(report["totals"]["records"].as_u64() > Some(0), "{report:#}");
}

/// What a value was changed to.
const CHANGED_TO: &str = "something else";

fn record(piece: &mut Piece) -> &mut crate::support::Seen {
    match piece {
        Piece::Record(record) => record,
        Piece::TwoHoles => panic!("there is no record"),
    }
}

#[test]
fn every_planted_fault_is_found_where_it_was_planted() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let topics = [
        "f-good",
        "f-changed",
        "f-removed",
        "f-added",
        "f-swapped",
        "f-header",
        "f-timestamp",
        "f-cut",
        "f-longer",
    ];
    for topic in topics {
        create_topic(&source, topic, 1, &[]);
        let load = Load::new(topic, 400)
            .headers(HeaderStyle::Every)
            .timestamps_from(1_700_000_000_000);
        load.produce(&source);
        // Offsets 400 and 401 have no record.
        let mut aborted = Transactions::new(Load::new(topic, 1), 1);
        aborted.abort_percent = 100;
        aborted.produce(&source);
        await_end(&source, topic, 402);
        load.first(400).produce(&source);
    }
    let mut twinlog = Twinlog::start(&flow_config("faults", "f-.*", &source, &target, ""));
    for topic in topics {
        await_same(&source, &target, topic, DEADLINE);
    }
    assert!(twinlog.terminate().success());
    for topic in topics {
        let mut made = pieces(&records(&source, topic));
        // After the hole, which is one piece and two offsets, piece N is offset N + 1.
        match topic {
            "f-changed" => record(&mut made[300]).value = Some(CHANGED_TO.into()),
            "f-removed" => drop(made.splice(10..12, [Piece::TwoHoles])),
            "f-added" => {
                let (stray, other) = (made[7].clone(), made[9].clone());
                made.splice(400..401, [stray, other]);
            }
            "f-swapped" => made.swap(500, 777),
            "f-header" => record(&mut made[299]).headers.clear(),
            "f-timestamp" => *record(&mut made[799]).timestamp_ms.as_mut().expect("one") += 1,
            "f-cut" => made.truncate(700),
            "f-longer" => made.push(made[3].clone()),
            _ => {}
        }
        rebuild(&target, topic, &made, &[]);
    }
    assert_verified(&twinlog, &["--full", "--topic", "f-good"]);
    let (code, all) = verify(&twinlog, &["--full"]);
    assert_eq!((code, &all["verdict"]), (1, &"different".into()), "{all:#}");
    let counts = serde_json::json!({
        "added": 2, "added_at_end": 1, "changed": 3, "missing": 103, "swapped": 2,
    });
    assert_eq!(all["totals"]["differences"], counts, "{all:#}");
    // No more is listed than a partition's share.
    let listed = all["differences"].as_array().expect("a list");
    assert_eq!(listed.len(), 110);
    assert!(
        !all.to_string().contains(CHANGED_TO),
        "a record's content is shown: {all:#}"
    );
    let report = |topic: &str| -> Vec<&Value> {
        let of_topic = listed.iter().filter(|found| found["topic"] == topic);
        of_topic.collect()
    };
    let offsets = |report: &[&Value], kind: &str| -> Vec<i64> {
        let offset = |found: &&Value| {
            assert_eq!(found["kind"], kind, "{found:#}");
            found["target_offset"].as_i64().expect("an offset")
        };
        report.iter().map(offset).collect()
    };

    assert!(report("f-good").is_empty());
    let changed = report("f-changed");
    assert_eq!(offsets(&changed, "changed"), [300]);
    assert_eq!(changed[0]["source_offset"], 300);
    assert_eq!(changed[0]["parts"], serde_json::json!(["value"]));
    assert_eq!(changed[0]["target"]["value_bytes"], CHANGED_TO.len());
    assert_eq!(offsets(&report("f-removed"), "missing"), [10, 11]);
    assert_eq!(offsets(&report("f-added"), "added"), [400, 401]);
    assert_eq!(offsets(&report("f-swapped"), "swapped"), [501, 778]);
    let header = report("f-header");
    assert_eq!(offsets(&header, "changed"), [299]);
    assert_eq!(header[0]["parts"], serde_json::json!(["headers"]));
    let timestamp = report("f-timestamp");
    assert_eq!(offsets(&timestamp, "changed"), [800]);
    assert_eq!(timestamp[0]["parts"], serde_json::json!(["timestamp"]));
    // It was there when Twinlog ended, which is remembered.
    let cut: Vec<i64> = (701..801).collect();
    assert_eq!(offsets(&report("f-cut"), "missing"), cut);
    assert_eq!(offsets(&report("f-longer"), "added_at_end"), [802]);

    let refused = twinlog.command("verify", &["--full", "--sample", "3"]);
    assert_eq!(refused.status.code(), Some(2));
    let refused = twinlog.command("verify", &["--sample", "0"]);
    assert_eq!(refused.status.code(), Some(2));
    let refused = twinlog.command("verify", &["--flow", "none"]);
    assert_eq!(refused.status.code(), Some(2));
    let nothing = twinlog.command("verify", &["--topic", "none"]);
    assert_eq!(nothing.status.code(), Some(1));
}

/// What is lacking altogether is no part of any comparison, so it must be told by itself.
#[test]
fn what_is_lacking_altogether_is_told() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let topics = ["l-good", "l-wide", "l-head", "l-short", "l-clean"];
    for topic in topics {
        create_topic(&source, topic, 1, &[]);
        Load::new(topic, 200).produce(&source);
    }
    let mut twinlog = Twinlog::start(&flow_config("lacks", "l-.*", &source, &target, ""));
    for topic in topics {
        await_same(&source, &target, topic, DEADLINE);
    }
    assert!(twinlog.terminate().success());
    let whole = assert_verified(&twinlog, &["--full"]);
    assert_eq!(whole["totals"]["partitions"], 5, "{whole:#}");
    assert!(whole["believed"][0].is_string() && whole["not_looked_at"][0].is_string());

    // The head of the copy, which retention didn't take: incomplete, and the ratio shows it.
    let end = end_offset(&target, "l-head", 0);
    delete_records(&target, "l-head", 0, end - 10);
    let (code, report) = verify(&twinlog, &["--full", "--topic", "l-head"]);
    assert_eq!(
        (code, &report["verdict"]),
        (1, &"incomplete".into()),
        "{report:#}"
    );
    assert_eq!(report["totals"]["lost_offsets"], end - 10, "{report:#}");
    assert!(
        report["coverage"]["ratio"].as_f64() < Some(0.1),
        "{report:#}"
    );

    // Partitions that nobody added to the copy.
    add_partitions(&source, "l-wide", 3);
    Load::new("l-wide", 50).partition(2).produce(&source);
    let (code, report) = verify(&twinlog, &["--full", "--topic", "l-wide"]);
    assert_eq!(
        (code, &report["verdict"]),
        (1, &"different".into()),
        "{report:#}"
    );
    assert_eq!(
        report["totals"]["differences"],
        serde_json::json!({ "partitions": 2 })
    );
    assert_eq!(report["totals"]["lag_offsets"], 50, "{report:#}");

    // Configs that lose records of the copy, where the source goes by its brokers' defaults.
    for (topic, key, value) in [
        ("l-short", "retention.ms", "1000"),
        ("l-clean", "cleanup.policy", "compact"),
    ] {
        topic_configs::set(&target, topic, key, value);
        let (code, report) = verify(&twinlog, &["--topic", topic]);
        assert_eq!(
            (code, &report["verdict"]),
            (1, &"different".into()),
            "{report:#}"
        );
        assert_eq!(report["differences"][0]["kind"], "config", "{report:#}");
    }
    assert_verified(&twinlog, &["--full", "--topic", "l-good"]);
}
