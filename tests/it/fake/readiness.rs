//! What a running flow says of a failover all the time: whether it could be done, what would be
//! lost, what would be read again, what stands in the way, and, after it, what the way back waits for.

use std::time::Duration;

use serde_json::Value;

use crate::support::failover::{Writer, answer, await_failed_over, failover, records, try_write};
use crate::support::fake::{fake_authorized_pair, fake_fenceable_pair};
use crate::support::flow::{flow_config, partition_status, with_state};
use crate::support::groups::{commit, committed, has_had_groups};
use crate::support::{
    Load, Twinlog, await_caught_up, create_topic, end_offset, eventually, fake_pair,
};
use twinlog::state::{GroupPositions, keys};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The first flow's readiness.
fn readiness(status: &Value) -> &Value {
    &status["flows"][0]["failover"]
}

/// The weight and the reason of the checks about something.
pub(crate) fn checks(found: &Value, subject: &str) -> Vec<(String, String)> {
    let list = found.as_array().into_iter().flatten();
    list.filter(|check| check["subject"] == subject)
        .map(|check| {
            let word = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            (word("weight"), word("reason"))
        })
        .collect()
}

pub(crate) fn says(found: &Value, subject: &str, weight: &str, part: &str) -> bool {
    let found = checks(found, subject);
    let mut found = found.iter();
    found.any(|(found, reason)| found == weight && reason.contains(part))
}

/// A metric's value.
fn metric(twinlog: &Twinlog, series: &str) -> Option<f64> {
    let text = twinlog.metrics();
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

fn status_text(twinlog: &Twinlog) -> String {
    let output = twinlog.command("status", &[]);
    // Lines are broken to fit a terminal.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A group that is at 45 on the source and, by a client's own commit, at 10 on the standby.
fn a_group_that_is_behind(twinlog: &Twinlog, source: &str, target: &str) {
    commit(source, "billing", &[("orders", 0, 30)]);
    eventually(DEADLINE, "the group has followed", || {
        match committed(target, "billing", "orders", 1) {
            found if found == [Some(30)] => Ok(()),
            found => Err(found),
        }
    });
    commit(target, "billing", &[("orders", 0, 10)]);
    // Before it is seen the group may be moved on, and put back a moment later.
    twinlog.await_group("billing", "diverged", DEADLINE);
    commit(source, "billing", &[("orders", 0, 45)]);
    twinlog.wait_until(DEADLINE, "the re-read is known", |status| {
        readiness(status)["reread"]["records"] == 35
    });
}

#[test]
fn a_lost_source_costs_no_more_than_it_says_and_the_way_back_is_told() {
    let (source, target) = fake_fenceable_pair();
    has_had_groups(&target.bootstrap());
    let (bootstrap, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&bootstrap, "orders", 1, &[]);
    let mut twinlog = Twinlog::between(&bootstrap, &target);
    let writer = Writer::start(&bootstrap, &["orders"], 300);
    eventually(DEADLINE, "records are copied", || {
        match end_offset(&target, "orders", 0) {
            many if many > 300 => Ok(()),
            few => Err(few),
        }
    });
    a_group_that_is_behind(&twinlog, &bootstrap, &target);
    eventually(DEADLINE, "the group is remembered", || {
        let key = keys::group("dr", "billing");
        let stored = with_state(&target, |store| store.get::<GroupPositions>(&key));
        match stored.expect("it can be read") {
            Some(stored) if stored.ahead.contains_key("orders") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    twinlog.wait_until(DEADLINE, "the source's rate is known", |status| {
        partition_status(status, "orders", 0)["source_rate_unknown"] == false
    });
    // Twinlog stands still, and the source goes on for a while before it dies.
    twinlog.signal("STOP");
    let frozen_at = end_offset(&bootstrap, "orders", 0);
    eventually(DEADLINE, "the source is ahead", || {
        match end_offset(&bootstrap, "orders", 0) - frozen_at {
            many if many > 200 => Ok(()),
            few => Err(few),
        }
    });
    source.control(|state| state.stop_broker(1));
    twinlog.signal("CONT");
    let acknowledged = writer.stop().acknowledged();
    let status = twinlog.wait_until(DEADLINE, "it would lose something", |status| {
        readiness(status)["can_fail_over"] == "with_loss"
    });
    let copied = records(&target, &["orders"]);
    let missing = acknowledged.keys().filter(|at| !copied.contains_key(*at));
    let missing = missing.count() as u64;
    let found = readiness(&status);
    assert!(missing > 0, "nothing was stranded");
    assert!(
        found["loss"]["records"].as_u64() >= Some(missing),
        "{missing}: {found:#}"
    );
    assert!(
        found["loss"]["oldest_seconds"].as_u64() > Some(0),
        "{found:#}"
    );
    assert_eq!(found["kind"], "unplanned");
    assert!(
        says(&found["checks"], "source", "warning", "doesn't answer"),
        "{found:#}"
    );
    assert!(
        says(
            &found["checks"],
            "loss",
            "loses_data",
            "as far as was observed"
        ),
        "{found:#}"
    );
    let text = status_text(&twinlog);
    assert!(
        text.contains("failover now: with loss (unplanned)"),
        "{text}"
    );

    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let output = failover(twinlog.config_file(), &arguments);
    let report = answer(&output, 0);
    assert!(
        report["lost"]["records"].as_u64() >= Some(missing),
        "{report:#}"
    );
    assert_eq!(report["reread"]["records"], 35, "{report:#}");
    assert_eq!(
        report["reread"]["groups"][0]["group"], "billing",
        "{report:#}"
    );

    let status = await_failed_over(&twinlog);
    let over = readiness(&status);
    assert_eq!(over["can_fail_over"], "failed_over", "{over:#}");
    assert_eq!(over["primary"], "target");
    let waits_for = &over["failback"]["waits_for"];
    assert!(
        says(waits_for, "old_primary", "blocker", "doesn't answer"),
        "{over:#}"
    );
    for (series, value) in [
        (r#"twinlog_primary{flow="dr",side="target"}"#, Some(1.0)),
        (r#"twinlog_failover_ready{flow="dr"}"#, Some(0.0)),
        (r#"twinlog_orphan_offsets{flow="dr"}"#, None),
    ] {
        assert_eq!(metric(&twinlog, series), value, "{series}");
    }

    source.control(|state| state.start_broker(1));
    let status = twinlog.wait_until(DEADLINE, "the orphans are counted", |status| {
        readiness(status)["failback"]["orphan_offsets"].is_number()
    });
    // What was on its way to the standby when these were counted is there by now.
    let copied = records(&target, &["orders"]).len();
    let stranded = end_offset(&bootstrap, "orders", 0) - i64::try_from(copied).expect("few");
    let failback = &readiness(&status)["failback"];
    assert_eq!(failback["orphan_offsets"], stranded, "{failback:#}");
    assert!(
        says(
            &failback["waits_for"],
            "orphans",
            "loses_data",
            "never copied"
        ),
        "{failback:#}"
    );
    assert!(
        says(&failback["waits_for"], "old_primary", "ok", "refused"),
        "{failback:#}"
    );
    let orphans = metric(&twinlog, r#"twinlog_orphan_offsets{flow="dr"}"#);
    assert_eq!(orphans, Some(stranded as f64));
    let text = status_text(&twinlog);
    assert!(text.contains("failback waits for orphans"), "{text}");
}

#[test]
fn it_is_ready_until_something_stands_in_the_way() {
    let (source, target) = fake_authorized_pair();
    has_had_groups(&target.bootstrap());
    ready_until_something_stands_in_the_way(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn ready_until_something_stands_in_the_way(source: &str, target: &str) {
    create_topic(source, "orders", 1, &[]);
    create_topic(source, "quiet", 1, &[]);
    Load::new("orders", 200).produce(source);
    Load::new("quiet", 20).produce(source);
    let twinlog = Twinlog::between(source, target);
    await_caught_up(&twinlog, DEADLINE);
    let status = twinlog.wait_until(DEADLINE, "it is ready", |status| {
        readiness(status)["can_fail_over"] == "yes" && readiness(status)["loss"]["records"] == 0
    });
    let ready = readiness(&status);
    assert_eq!(ready["kind"], "planned", "{ready:#}");
    assert_eq!(ready["primary"], "source");
    assert!(
        says(&ready["checks"], "source", "ok", "answers"),
        "{ready:#}"
    );
    assert!(
        says(&ready["checks"], "copy", "ok", "2 topic(s)"),
        "{ready:#}"
    );
    assert!(ready.get("failback").is_none());
    assert_eq!(
        metric(&twinlog, r#"twinlog_failover_ready{flow="dr"}"#),
        Some(1.0)
    );

    a_group_that_is_behind(&twinlog, source, target);
    let (code, body) = twinlog.get("/api/v1/readiness").expect("it answers");
    assert_eq!(code, 200);
    let report: Value = serde_json::from_str(&body).expect("JSON");
    let ready = &report["flows"][0];
    assert_eq!(ready["can_fail_over"], "yes", "{ready:#}");
    assert_eq!(ready["reread"]["groups"][0]["group"], "billing");
    assert_eq!(ready["reread"]["groups"][0]["records"], 35);
    assert!(
        says(&ready["checks"], "groups", "warning", "billing"),
        "{ready:#}"
    );
    for (series, value) in [
        (r#"twinlog_group_reread_records{flow="dr"}"#, 35.0),
        (r#"twinlog_failover_reread_records_max{flow="dr"}"#, 35.0),
        (r#"twinlog_failover_loss_records{flow="dr"}"#, 0.0),
        (
            r#"twinlog_failover_checks{flow="dr",weight="blocker"}"#,
            0.0,
        ),
        (r#"twinlog_primary{flow="dr",side="source"}"#, 1.0),
        (r#"twinlog_primary{flow="dr",side="target"}"#, 0.0),
    ] {
        assert_eq!(metric(&twinlog, series), Some(value), "{series}");
    }
    let text = status_text(&twinlog);
    assert!(text.contains("failover now: yes (planned)"), "{text}");
    assert!(text.contains("billing 35"), "{text}");

    // The preflight says the same, and what it has to ask for.
    let shown = answer(
        &failover(twinlog.config_file(), &["--json", "--fence", "manual"]),
        0,
    );
    assert_eq!(shown["may_begin"], true, "{shown:#}");
    let found = &shown["checks"];
    assert!(says(found, "source", "ok", "answers"), "{found:#}");
    assert!(says(found, "versions", "ok", "both"), "{found:#}");
    for part in ["1 group(s) are followed, 0 with members", "1 position(s)"] {
        assert!(says(found, "groups", "ok", part), "{part}: {found:#}");
    }
    let capacity = checks(found, "capacity");
    assert!(
        capacity.len() == 1 && capacity[0].1.contains("free on"),
        "{found:#}"
    );

    // A stranger writes to the copy: it stops, and the source grows on.
    try_write(target, "quiet").expect("the target takes it");
    twinlog.wait_until(DEADLINE, "it says no, and why", |status| {
        let (no, reason) = (readiness(status), "quiet-0 (foreign_write)");
        no["can_fail_over"] == "no" && says(&no["checks"], "stopped", "loses_data", reason)
    });
    Load::new("quiet", 40).produce(source);
    let status = twinlog.wait_until(DEADLINE, "the loss is known", |status| {
        readiness(status)["loss"]["topics"]["quiet"]["seen_records"] == 40
    });
    let no = readiness(&status);
    assert!(no["loss"]["records"].as_u64() >= Some(40), "{no:#}");
    assert!(no["loss"]["bytes"].as_u64() > Some(0), "{no:#}");
    assert!(no["loss"]["topics"].get("orders").is_none(), "{no:#}");
    assert_eq!(
        metric(&twinlog, r#"twinlog_failover_ready{flow="dr"}"#),
        Some(0.0)
    );
    let series = r#"twinlog_failover_checks{flow="dr",weight="loses_data"}"#;
    assert_eq!(metric(&twinlog, series), Some(1.0));
    let text = status_text(&twinlog);
    assert!(text.contains("failover now: no"), "{text}");
    assert!(text.contains("stopped (LOSS)"), "{text}");
}

#[test]
fn it_says_as_the_command_does_that_nobody_can_be_kept_away() {
    let (source, target) = fake_pair();
    create_topic(&source.bootstrap(), "orders", 1, &[]);
    Load::new("orders", 20).produce(&source.bootstrap());
    let twinlog = Twinlog::between(&source.bootstrap(), &target.bootstrap());
    await_caught_up(&twinlog, DEADLINE);
    let in_the_way = |found: &Value| -> Vec<Value> {
        let found = found.as_array().into_iter().flatten();
        found
            .filter(|it| it["subject"] == "fence")
            .cloned()
            .collect()
    };
    let status = twinlog.wait_until(DEADLINE, "it says no for it", |status| {
        let found = readiness(status);
        found["can_fail_over"] == "no" && !in_the_way(&found["checks"]).is_empty()
    });
    let shown = answer(&failover(twinlog.config_file(), &["--json"]), 1);
    let of_the_command = in_the_way(&shown["checks"]);
    assert_eq!(of_the_command.len(), 1, "{shown:#}");
    let hint = of_the_command[0]["hint"].as_str().expect("a way out");
    assert!(hint.contains("--fence manual"), "{hint}");
    assert_eq!(in_the_way(&readiness(&status)["checks"]), of_the_command);
}

/// MirrorMaker 2's way to write a list: it is one pattern, which no name matches.
#[test]
fn a_list_with_commas_that_selects_nothing_is_a_problem_by_name() {
    let (source, target) = fake_fenceable_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    for topic in ["orders", "payments"] {
        create_topic(&source, topic, 1, &[]);
    }
    for (name, topics, is_well) in [("bad", "orders,payments", false), ("good", ".*", true)] {
        let twinlog = Twinlog::start(&flow_config(name, topics, &source, &target, ""));
        let status = twinlog.wait_until(DEADLINE, "it has looked", |status| {
            let flow = &status["flows"][0];
            match is_well {
                true => status["ready"] == true && readiness(status)["can_fail_over"] == "yes",
                false => !flow["nothing_selected"].is_null(),
            }
        });
        let reasons = status["not_ready"].to_string();
        let is_named = reasons.contains("none of the 2 topic(s)") && reasons.contains("[a, b]");
        assert_eq!(is_named, !is_well, "{status:#}");
        let code = |arguments: &[&str]| twinlog.command("status", arguments).status.code();
        assert_eq!(code(&[]), Some(0));
        assert_eq!(code(&["--exit-code"]), Some(i32::from(!is_well)));
    }
}

#[test]
fn a_source_that_is_frozen_and_not_dead_is_named() {
    let (source, target) = fake_fenceable_pair();
    let bootstrap = source.bootstrap();
    create_topic(&bootstrap, "orders", 1, &[]);
    Load::new("orders", 10).produce(&bootstrap);
    let twinlog = Twinlog::between(&bootstrap, &target.bootstrap());
    await_caught_up(&twinlog, DEADLINE);
    source.control(|state| state.freeze_broker(1));
    let is_named = |status: &Value| {
        status["not_ready"]
            .to_string()
            .contains("hasn't answered for")
    };
    twinlog.wait_until(DEADLINE, "the frozen source is named", is_named);
    source.control(|state| state.thaw_broker(1));
    twinlog.wait_until(DEADLINE, "it is ready again", |status| {
        status["ready"] == true
    });
}
