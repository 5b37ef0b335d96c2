//! A rehearsal on real clusters under load: the report is right, production is as before, and nothing
//! is left.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::failover::{Writer, answer, failover, failover_exiting_at, records, words};
use crate::support::groups::{commit, committed};
use crate::support::pair;
use crate::support::pool::fenceable_pair;
use crate::support::untouched::picture;
use crate::support::wait::Stopwatch;
use crate::support::{
    KafkaVersion, Load, Transactions, Twinlog, await_caught_up, create_topic, eventually, scratch,
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);
const OURS: &str = "__twinlog_drill.";

fn command(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinlog"));
    command.arg("drill").arg("-c").arg(config).args(arguments);
    command
}

fn drill(config: &Path, arguments: &[&str]) -> Output {
    command(config, arguments)
        .output()
        .expect("the built binary runs")
}

/// Names of rehearsals on a cluster: topics and groups.
fn of_drills(bootstrap: &str) -> BTreeSet<String> {
    let found = picture(bootstrap, &[]);
    let names = found.topics.into_keys().chain(found.groups.into_keys());
    names.filter(|name| name.starts_with(OURS)).collect()
}

/// The keys of the state topic that a rehearsal has written and not removed.
fn state_of_drills(bootstrap: &str) -> BTreeSet<String> {
    let mut keys = std::collections::BTreeMap::new();
    for record in crate::support::read_all(
        bootstrap,
        "__twinlog_state",
        crate::support::Isolation::ReadCommitted,
    ) {
        let key = String::from_utf8(record.key.expect("a key")).expect("text");
        keys.insert(key, record.value.is_some());
    }
    keys.into_iter()
        .filter_map(|(key, is_there)| (is_there && key.contains("drill")).then_some(key))
        .collect()
}

fn rehearsal<'r>(report: &'r Value, kind: &str) -> &'r Value {
    let all = report["rehearsals"].as_array().expect("a list");
    all.iter()
        .find(|it| it["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind} rehearsal in {report:#}"))
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
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

    // Without --yes nothing is made.
    let shown = answer(&drill(&config, &["--json"]), 0);
    assert_eq!(
        shown["scope"]["topics_copied"],
        serde_json::json!(["orders", "quiet"])
    );
    assert_eq!(of_drills(&source), BTreeSet::new());
    assert_eq!(of_drills(&target), BTreeSet::new());

    let folder = scratch::folder("reports");
    let to = folder.to_str().expect("text");
    let (began, watch) = (Instant::now(), Stopwatch::start());
    let output = drill(&config, &["--yes", "--json", "--report", to]);
    // Of what it tells of times, a busy machine has its share.
    let share = watch.counted().as_secs_f64() / began.elapsed().as_secs_f64();
    let counted = |seconds: &Value| number(seconds) * share;
    let report = answer(&output, 0);
    println!("{}", words(&output));
    assert_ne!(report["verdict"], "failed", "{report:#}");
    assert_eq!(report["failures"], serde_json::json!([]), "{report:#}");

    // What was rehearsed, and what came out.
    let planned = rehearsal(&report, "planned");
    assert_eq!(planned["fence"], "acl", "{planned:#}");
    assert!(counted(&planned["fence_seconds"]) < 4.0, "{planned:#}");
    assert_eq!(planned["plan"]["lost"]["is_proven"], true, "{planned:#}");
    let account = &planned["account"];
    for (what, count) in [
        ("lost", 0),
        ("doubled", 0),
        ("skipped", 0),
        ("read_again", 0),
    ] {
        assert_eq!(account[what], count, "{planned:#}");
    }
    assert!(
        number(&account["acknowledged_before"]) >= 400.0,
        "{account:#}"
    );
    let unplanned = rehearsal(&report, "unplanned");
    assert_eq!(unplanned["verify"]["verdict"], "same", "{unplanned:#}");
    assert!(
        number(&unplanned["verify"]["records"]) >= 500.0,
        "{unplanned:#}"
    );
    assert_eq!(unplanned["groups"]["positions"], 2, "{unplanned:#}");
    assert_eq!(unplanned["groups"]["exact"], 2, "{unplanned:#}");
    let account = &unplanned["account"];
    for what in ["doubled", "skipped"] {
        assert_eq!(account[what], 0, "{unplanned:#}");
    }
    for kind in ["planned", "unplanned"] {
        let rto = counted(&report["figures"][format!("rto_{kind}_seconds")]);
        assert!(rto > 0.0 && rto < 60.0, "{report:#}");
    }
    assert_eq!(report["figures"]["rpo_planned_seconds"], 0.0, "{report:#}");
    assert_eq!(
        report["production"]["verify"]["verdict"], "same",
        "{report:#}"
    );
    assert_eq!(report["production"]["groups"]["exact"], 2, "{report:#}");
    assert!(
        !report["not_rehearsed"]
            .as_array()
            .expect("a list")
            .is_empty()
    );

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
    for part in [
        "# Failover drill of flow dr: PASSED",
        "RTO, unplanned",
        "says nothing about",
    ] {
        assert!(markdown.contains(part), "{part} in\n{markdown}");
    }

    // Production is as before, and goes on.
    let ledger = writer.stop().acknowledged();
    await_caught_up(&twinlog, DEADLINE);
    assert_eq!(picture(&source, &["quiet"]), before.0);
    assert_eq!(picture(&target, &["quiet"]), before.1);
    crate::support::failover::assert_holds(&records(&target, &["orders"]), &ledger);
    let kept = ["cutover-lease/dr/drill", "drill/dr"].map(str::to_owned);
    assert_eq!(state_of_drills(&target), BTreeSet::from(kept));
    assert_eq!(
        report["cleanup"]["left"],
        serde_json::json!([]),
        "{report:#}"
    );
}

/// Runs a rehearsal until it says this, and kills it (SIGKILL).
fn kill_at(config: &Path, arguments: &[&str], said: &str) {
    let mut child = command(config, arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built binary runs");
    let stderr = child.stderr.take().expect("a pipe");
    let mut heard = Vec::new();
    let mut has_said = false;
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        has_said = line.starts_with(said);
        heard.push(line);
        if has_said {
            break;
        }
    }
    // One that has ended by itself is judged below.
    let _ = child.kill();
    child.wait().expect("an end");
    assert!(has_said, "it never said {said:?}:\n{}", heard.join("\n"));
}

/// The processes that copy for a rehearsal with this config.
fn copiers(config: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("Linux");
    processes
        .flatten()
        .filter_map(|process| {
            let line = std::fs::read(process.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let is_one = line.contains("drill-copy") && line.contains(config.to_str()?);
            is_one.then_some(line)
        })
        .collect()
}

/// Killed at whatever moment, a rehearsal leaves nothing that isn't known: the next one removes it.
#[test]
fn a_killed_rehearsal_is_cleaned_up_by_the_next() {
    let (source, target) = fenceable_pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 2, &[]);
    Load::new("orders", 300).produce(&source);
    commit(&source, "billing", &[("orders", 0, 17)]);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    eventually(DEADLINE, "the group has arrived", || {
        match committed(&target, "billing", "orders", 2) {
            found if found[0] == Some(17) => Ok(()),
            found => Err(found),
        }
    });
    let config = twinlog.config_file().to_owned();
    let before = (picture(&source, &["orders"]), picture(&target, &["orders"]));
    for (said, is_cleaned_by_a_drill) in [
        ("prove:", false),
        ("promote:", true),
        ("unplanned: the copies are compared", false),
        ("pad:", true),
    ] {
        kill_at(&config, &["--yes"], said);
        assert_ne!(of_drills(&target), BTreeSet::new(), "killed at {said}");
        eventually(DEADLINE, "its copying process is gone", || {
            match copiers(&config) {
                none if none.is_empty() => Ok(()),
                some => Err(some),
            }
        });
        if is_cleaned_by_a_drill {
            let next = ["--yes", "--json", "--kind", "unplanned", "--no-source"];
            let report = answer(&drill(&config, &next), 0);
            let drills = report["cleanup"]["drills"].as_array().map(Vec::len);
            assert_eq!(drills, Some(2), "{report:#}");
        } else {
            let cleaned = drill(&config, &["--cleanup", "--yes"]);
            assert_eq!(cleaned.status.code(), Some(0), "{}", words(&cleaned));
        }
        assert_eq!(picture(&source, &["orders"]), before.0, "killed at {said}");
        assert_eq!(picture(&target, &["orders"]), before.1, "killed at {said}");
        let mut kept = state_of_drills(&target);
        kept.remove("drill/dr");
        let lease = BTreeSet::from(["cutover-lease/dr/drill".to_owned()]);
        assert_eq!(kept, lease, "killed at {said}");
    }
}

/// What is wrong with production is in the report, and it fails.
#[test]
fn faults_of_production_fail_the_rehearsal() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    create_topic(&source, "strange", 1, &[]);
    Load::new("orders", 100).produce(&source);
    Load::new("strange", 100).produce(&source);
    let quick = ["--yes", "--json", "--kind", "unplanned", "--no-source"];

    // Nothing was ever copied: no rehearsal.
    let twinlog = Twinlog::prepare(&Twinlog::config(&source, &target, ""));
    let config = twinlog.config_file().to_owned();
    let nothing = drill(&config, &["--yes"]);
    assert_eq!(nothing.status.code(), Some(3), "{}", words(&nothing));

    let mut twinlog = twinlog;
    twinlog.launch();
    await_caught_up(&twinlog, DEADLINE);
    let good = answer(&drill(&config, &quick), 0);
    assert_eq!(good["failures"], serde_json::json!([]), "{good:#}");
    assert_eq!(good["scope"]["used_source"], false);

    // An objective that can't be kept.
    let objective = [&quick[..], &["--rto", "0.001"]].concat();
    let failed = answer(&drill(&config, &objective), 1);
    let text = failed["failures"].to_string();
    assert!(text.contains("recovery time"), "{failed:#}");

    // A group that stands further on the standby than its source allows.
    commit(&source, "billing", &[("orders", 0, 10)]);
    eventually(DEADLINE, "the group has arrived", || {
        match committed(&target, "billing", "orders", 1) {
            found if found == [Some(10)] => Ok(()),
            found => Err(found),
        }
    });
    commit(&target, "billing", &[("orders", 0, 50)]);
    // Records of somebody else in a copy: it stops.
    Load::new("strange", 5).produce(&target);
    twinlog.wait_until(DEADLINE, "the partition is stopped", |status| {
        crate::support::flow::is_stopped(status, "strange", 0, "foreign_write")
    });
    let failed = eventually(DEADLINE, "the standby knows it too", || {
        let output = drill(&config, &quick);
        match words(&output) {
            text if text.contains("strange-0 (foreign_write)") => Ok(answer(&output, 1)),
            text => Err(text),
        }
    });
    assert_eq!(failed["verdict"], "failed");
    let text = failed["failures"].to_string();
    for what in [
        "would be refused now: stopped",
        "skip records: billing orders-0",
        "differs",
    ] {
        assert!(text.contains(what), "{what} in {text}");
    }
    // The rehearsal itself worked.
    assert_eq!(
        failed["rehearsals"][0]["failure"],
        Value::Null,
        "{failed:#}"
    );
    assert_eq!(of_drills(&target), BTreeSet::new());
}

/// Flows in both directions take every name: a rehearsal's are internal, so none of them is copied
/// anywhere. With `--no-source` nothing is made there at all. Offsets that are mapped, too.
#[test]
fn other_flows_take_nothing_of_a_rehearsal() {
    let (source, target) = pair(KafkaVersion::V3_9);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 2, &[]);
    create_topic(&target, "local", 1, &[]);
    Transactions::new(Load::new("orders", 200), 20).produce(&source);
    commit(&source, "billing", &[("orders", 0, 11)]);
    let mut text = Twinlog::config(
        &source,
        &target,
        "offsets: mapped\ntopics: { include: [\"orders\"] }",
    );
    text.push_str(
        "  back:
    source: standby
    target: primary
    topics: { include: [\".*\"], exclude: [\"orders\"] }
    groups: { include: [\".*\"] }
",
    );
    let twinlog = Twinlog::start(&text);
    twinlog.wait_until(DEADLINE, "both directions are copied", |status| {
        let flows = status["flows"].as_array();
        flows.is_some_and(|flows| {
            flows.len() == 2
                && flows.iter().all(|flow| {
                    flow["totals"]["lag_records"] == 0 && flow["totals"]["partitions"] != 0
                })
        })
    });
    let config = twinlog.config_file().to_owned();
    let is_over = AtomicBool::new(false);
    let arguments = ["--flow", "dr", "--yes", "--json"];
    let untouched = [&arguments[..], &["--kind", "unplanned", "--no-source"]].concat();
    let (report, seen) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.extend(of_drills(&source));
            }
            seen
        });
        let report = eventually(DEADLINE, "the maps are stored", || {
            let output = drill(&config, &untouched);
            match output.status.code() {
                Some(0) => Ok(output),
                _ => Err(words(&output)),
            }
        });
        is_over.store(true, Ordering::Relaxed);
        (answer(&report, 0), watching.join().expect("no panic"))
    });
    assert_eq!(
        rehearsal(&report, "unplanned")["groups"]["exact"],
        1,
        "{report:#}"
    );
    assert_eq!(seen, BTreeSet::new(), "nothing is made on the source");

    // With clients: without an authorizer the rehearsal stops its writer itself.
    let report = answer(&drill(&config, &arguments), 0);
    assert_eq!(
        rehearsal(&report, "planned")["fence"],
        "manual",
        "{report:#}"
    );
    assert_eq!(report["verdict"], "passed_with_remarks", "{report:#}");
    for kind in ["planned", "unplanned"] {
        assert_eq!(
            rehearsal(&report, kind)["failure"],
            Value::Null,
            "{report:#}"
        );
    }
    for bootstrap in [&source, &target] {
        assert_eq!(of_drills(bootstrap), BTreeSet::new());
        assert!(
            state_of_drills(bootstrap)
                .iter()
                .all(|key| !key.contains(OURS))
        );
    }
    let status = twinlog.status().to_string();
    assert!(!status.contains(OURS), "{status}");
}

/// One at a time; not while a failover is open, nor after one; SIGINT ends one in order.
#[test]
fn it_is_refused_when_it_is_not_the_time() {
    let (source, target) = fenceable_pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    Load::new("orders", 100).produce(&source);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    let refused = |why: &str| {
        let output = drill(&config, &["--yes"]);
        assert_eq!(output.status.code(), Some(3), "{}", words(&output));
        assert!(words(&output).contains(why), "{why} in {}", words(&output));
    };

    let mut first = command(&config, &["--yes", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built binary runs");
    let stderr = first.stderr.take().expect("a pipe");
    let mut lines = BufReader::new(stderr).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.starts_with("planned: clients write"))));
    refused("another rehearsal of this flow runs");
    let interrupt = Command::new("kill")
        .arg("-INT")
        .arg(first.id().to_string())
        .status();
    assert!(interrupt.expect("kill runs").success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let ended = first.wait().expect("an end");
    assert_eq!(ended.code(), Some(1), "{rest:#?}");
    assert!(
        rest.iter().any(|line| line.contains("interrupted")),
        "{rest:#?}"
    );
    assert_eq!(of_drills(&source), BTreeSet::new());
    assert_eq!(of_drills(&target), BTreeSet::new());

    let crashed = failover_exiting_at(&config, &["--yes"], Some("prove:begun"));
    assert_eq!(crashed.status.code(), Some(137), "{}", words(&crashed));
    refused("this is no rehearsal");
    answer(&failover(&config, &["--yes", "--json"]), 0);
    refused("primary already");
}
