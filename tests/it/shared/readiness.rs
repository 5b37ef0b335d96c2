//! Whether the standby could take over now, while both clusters run.

use crate::own::readiness::{
    DEADLINE, a_group_that_is_behind, checks, metric, readiness, says, status_text,
};
use crate::support::failover::{answer, failover, try_write};
use crate::support::{KafkaVersion, Load, Twinlog, await_caught_up, create_topic, pair};
use serde_json::Value;

#[test]
fn it_is_ready_until_something_stands_in_the_way() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    create_topic(&source, "quiet", 1, &[]);
    Load::new("orders", 200).produce(&source);
    Load::new("quiet", 20).produce(&source);
    let twinlog = Twinlog::between(&source, &target);
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

    a_group_that_is_behind(&twinlog, &source, &target);
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
    let shown = answer(&failover(twinlog.config_file(), &["--json"]), 0);
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
    try_write(&target, "quiet").expect("the target takes it");
    let status = twinlog.wait_until(DEADLINE, "it says no", |status| {
        readiness(status)["can_fail_over"] == "no"
    });
    let no = readiness(&status);
    let reason = "quiet-0 (foreign_write)";
    assert!(
        says(&no["checks"], "stopped", "loses_data", reason),
        "{no:#}"
    );
    Load::new("quiet", 40).produce(&source);
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
fn a_standby_that_is_older_is_told_before_a_failover() {
    let (source, _) = pair(KafkaVersion::V4_3);
    let (_, target) = pair(KafkaVersion::V3_9);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    Load::new("orders", 20).produce(&source);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let shown = answer(&failover(twinlog.config_file(), &["--json"]), 0);
    let found = &shown["checks"];
    assert_eq!(shown["may_begin"], true, "{shown:#}");
    assert!(
        says(found, "versions", "warning", "metadata.version"),
        "{found:#}"
    );
    assert!(!checks(found, "capacity").is_empty(), "{found:#}");
}
