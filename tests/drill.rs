//! A rehearsal on real clusters under load: the report is right, production is as before, and nothing
//! is left.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::failover::{Writer, answer, fenceable_pair, records, words};
use support::groups::{commit, committed};
use support::untouched::picture;
use support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, await_caught_up, create_topic,
    eventually, scratch,
};

const DEADLINE: Duration = Duration::from_secs(60);
const OURS: &str = "__twinlog_drill.";

fn command(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinlog"));
    command.arg("drill").arg("-c").arg(config).args(arguments);
    command
}

fn drill(config: &Path, arguments: &[&str]) -> Output {
    command(config, arguments).output().expect("the built binary runs")
}

/// Names of rehearsals on a cluster: topics and groups.
fn of_drills(bootstrap: &str) -> BTreeSet<String> {
    let found = picture(bootstrap, &[]);
    let names = found.topics.into_keys().chain(found.groups.into_keys());
    names.filter(|name| name.starts_with(OURS)).collect()
}

/// The newest value of each key of the state topic that has one.
fn state_keys(bootstrap: &str) -> BTreeSet<String> {
    let mut keys = std::collections::BTreeMap::new();
    for record in support::read_all(bootstrap, "__twinlog_state", support::Isolation::ReadCommitted)
    {
        let key = String::from_utf8(record.key.expect("a key")).expect("text");
        keys.insert(key, record.value.is_some());
    }
    keys.into_iter()
        .filter_map(|(key, is_there)| is_there.then_some(key))
        .collect()
}

fn rehearsal<'r>(report: &'r Value, kind: &str) -> &'r Value {
    let all = report["rehearsals"].as_array().expect("a list");
    all.iter()
        .find(|it| it["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind} rehearsal in {report:#}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn a_rehearsal_measures_proves_and_leaves_nothing() {
    let (source, target) = fenceable_pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 3, &[]);
    create_topic(&source, "quiet", 2, &[("retention.ms", "86400000")]);
    Load::new("quiet", 200).produce(&source);
    let positions = [("quiet", 0, 20), ("quiet", 1, 33)];
    commit(&source, "billing", &positions);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    eventually(DEADLINE, "the group has arrived", || {
        match committed(&target, "billing", "quiet", 2) {
            found if found == [Some(20), Some(33)] => Ok(()),
            found => Err(found),
        }
    });
    let config = twinlog.config_file().to_owned();
    let writer = Writer::start(&source, &["orders"], 300);
    eventually(DEADLINE, "production is under load", || {
        match writer.ledger.acknowledged().len() {
            many if many > 300 => Ok(()),
            few => Err(few),
        }
    });
    let before = (picture(&source, &["quiet"]), picture(&target, &["quiet"]));
    let keys_before = state_keys(&target);

    // Without --yes nothing is made.
    let shown = answer(&drill(&config, &["--json"]), 0);
    assert_eq!(shown["scope"]["topics_copied"], serde_json::json!(["orders", "quiet"]));
    assert_eq!(of_drills(&source), BTreeSet::new());
    assert_eq!(of_drills(&target), BTreeSet::new());

    let folder = scratch::folder("reports");
    let to = folder.to_str().expect("text");
    let output = drill(&config, &["--yes", "--json", "--report", to]);
    let report = answer(&output, 0);
    println!("{}", words(&output));
    assert_ne!(report["verdict"], "failed", "{report:#}");
    assert_eq!(report["failures"], serde_json::json!([]), "{report:#}");

    // What was rehearsed, and what came out.
    let planned = rehearsal(&report, "planned");
    assert_eq!(planned["fence"], "acl", "{planned:#}");
    assert!(number(&planned["fence_seconds"]) < 4.0, "{planned:#}");
    assert_eq!(planned["plan"]["lost"]["is_proven"], true, "{planned:#}");
    let account = &planned["account"];
    for (what, count) in [("lost", 0), ("doubled", 0), ("skipped", 0), ("read_again", 0)] {
        assert_eq!(account[what], count, "{planned:#}");
    }
    assert!(number(&account["acknowledged_before"]) >= 400.0, "{account:#}");
    let unplanned = rehearsal(&report, "unplanned");
    assert_eq!(unplanned["verify"]["verdict"], "same", "{unplanned:#}");
    assert!(number(&unplanned["verify"]["records"]) >= 500.0, "{unplanned:#}");
    assert_eq!(unplanned["groups"]["positions"], 2, "{unplanned:#}");
    assert_eq!(unplanned["groups"]["exact"], 2, "{unplanned:#}");
    let account = &unplanned["account"];
    for what in ["doubled", "skipped"] {
        assert_eq!(account[what], 0, "{unplanned:#}");
    }
    for kind in ["planned", "unplanned"] {
        let rto = number(&report["figures"][format!("rto_{kind}_seconds")]);
        assert!(rto > 0.0 && rto < 60.0, "{report:#}");
    }
    assert_eq!(report["figures"]["rpo_planned_seconds"], 0.0, "{report:#}");
    assert_eq!(report["production"]["verify"]["verdict"], "same", "{report:#}");
    assert_eq!(report["production"]["groups"]["exact"], 2, "{report:#}");
    assert!(!report["not_rehearsed"].as_array().expect("a list").is_empty());

    // Filed as it was printed, with its digest, and for people.
    let id = report["drill"].as_str().expect("an id");
    let file = folder.join(format!("twinlog-drill-dr-{id}.json"));
    let filed = std::fs::read(&file).expect("the report is filed");
    assert_eq!(filed, output.stdout);
    let sums = Command::new("sha256sum")
        .arg("-c")
        .arg(format!("twinlog-drill-dr-{id}.json.sha256"))
        .current_dir(&folder)
        .output()
        .expect("sha256sum runs");
    assert!(sums.status.success(), "{}", words(&sums));
    let markdown = std::fs::read_to_string(file.with_extension("md")).expect("Markdown");
    for part in ["# Failover drill of flow dr: PASSED", "RTO, unplanned", "says nothing about"] {
        assert!(markdown.contains(part), "{part} in\n{markdown}");
    }

    // Production is as before, and goes on.
    let ledger = writer.stop().acknowledged();
    await_caught_up(&twinlog, DEADLINE);
    assert_eq!(picture(&source, &["quiet"]), before.0);
    assert_eq!(picture(&target, &["quiet"]), before.1);
    support::failover::assert_holds(&records(&target, &["orders"]), &ledger);
    let more: BTreeSet<String> = state_keys(&target)
        .difference(&keys_before)
        .cloned()
        .collect();
    let expected = ["cutover-lease/dr/drill", "drill/dr"].map(str::to_owned);
    assert_eq!(more, BTreeSet::from(expected));
    assert_eq!(report["cleanup"]["left"], serde_json::json!([]), "{report:#}");
}
