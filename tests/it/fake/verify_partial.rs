//! What doesn't answer makes a comparison incomplete, by name. Everything else is compared.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::fake::{FakeCluster, options};
use crate::support::flow::{flow_config, is_caught_up, with_timeout};
use crate::support::groups::{commit, has_had_groups};
use crate::support::planted::{Piece, pieces, rebuild, records};
use crate::support::verified::{assert_verified, verify};
use crate::support::wait::Stopwatch;
use crate::support::{Load, Twinlog, await_same, create_topic, fake_pair};
use fake_kafka::acls::{Acl, Operation, ResourceType};
use fake_kafka::faults::{Action, Fault, Hook};
use fake_kafka::state::Options;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 6;

/// The partitions of which the report says why they aren't compared.
fn failures(report: &Value) -> BTreeSet<i64> {
    let partitions = report["partitions"].as_array().expect("a list").iter();
    let failed = partitions.filter(|it| it["failure"].is_string());
    failed.filter_map(|it| it["partition"].as_i64()).collect()
}

#[test]
fn a_broker_that_hangs_makes_only_what_it_leads_incomplete() {
    for hangs in ["source", "target"] {
        let start = |name: &str| {
            FakeCluster::start(Options {
                brokers: if name == hangs { 3 } else { 1 },
                default_replication: 1,
                ..options(name)
            })
        };
        let (source, target) = (start("source"), start("target"));
        let (from, to) = (source.bootstrap(), target.bootstrap());
        for cluster in [&from, &to] {
            create_topic(cluster, "spread", PARTITIONS, &[]);
        }
        Load::new("spread", 600).produce(&from);
        has_had_groups(&to);
        commit(&from, "reader", &[("spread", 0, 5)]);
        let config = with_timeout(&flow_config("dr", "spread", &from, &to, ""), 3_000);
        let mut twinlog = Twinlog::start(&config);
        twinlog.wait_until(DEADLINE, "all is copied", |status| {
            (0..PARTITIONS).all(|number| is_caught_up(status, "spread", number))
        });
        twinlog.await_followed("reader", 5, DEADLINE);
        assert!(twinlog.terminate().success());
        assert_verified(&twinlog, &["--full"]);

        let hung = if hangs == "source" { &source } else { &target };
        let state_leader =
            target.look(|state| state.topics["__twinlog_state"].partitions[&0].leader);
        let broker = if Some(2) == state_leader && hangs == "target" {
            3
        } else {
            2
        };
        let led: BTreeSet<i64> = hung.look(|state| {
            let partitions = state.topics["spread"].partitions.iter();
            let led = partitions.filter(|(_, it)| it.leader == Some(broker));
            led.map(|(number, _)| i64::from(*number)).collect()
        });
        assert!(!led.is_empty());
        hung.control(|state| state.freeze_broker(broker));
        let watch = Stopwatch::start();
        let (code, report) = verify(&twinlog, &["--full"]);
        assert_eq!(
            (code, &report["verdict"]),
            (1, &"incomplete".into()),
            "{report:#}"
        );
        assert_eq!(failures(&report), led, "{hangs}: {report:#}");
        assert_eq!(report["differences"], serde_json::json!([]), "{report:#}");
        let compared = report["partitions"].as_array().expect("a list").iter();
        let whole = compared
            .filter(|it| it["compared_offsets"].as_i64() == Some(100))
            .count();
        assert_eq!(whole, 6 - led.len(), "{report:#}");
        // Some silences of 3 s, one after the other.
        assert!(
            watch.counted() < Duration::from_secs(45),
            "{:?}",
            watch.counted()
        );
    }
}

/// Brokers leave out of their lists what may not be described: it isn't gone.
#[test]
fn a_topic_that_is_hidden_is_not_gone() {
    for hides in ["source", "target"] {
        let named = |side: &str| FakeCluster::named(&format!("{side}-that-hides-{hides}"));
        let (source, target) = (named("source"), named("target"));
        let (from, to) = (source.bootstrap(), target.bootstrap());
        for topic in ["h-seen", "h-hidden"] {
            create_topic(&from, topic, 1, &[]);
            Load::new(topic, 20).produce(&from);
        }
        let mut twinlog = Twinlog::start(&flow_config("dr", "h-.*", &from, &to, ""));
        twinlog.wait_until(DEADLINE, "all is copied", |status| {
            ["h-seen", "h-hidden"]
                .iter()
                .all(|topic| is_caught_up(status, topic, 0))
        });
        assert!(twinlog.terminate().success());
        let hiding = if hides == "source" { &source } else { &target };
        hiding.control(|state| {
            state.acls.is_on = true;
            state.acls.allow_if_no_acl_found = true;
            let all = Acl::allow(
                "User:ANONYMOUS",
                Operation::All,
                ResourceType::Topic,
                "h-hidden",
            );
            state.acls.all.insert(all.denied());
        });
        let (code, report) = verify(&twinlog, &["--full"]);
        assert_eq!(
            (code, &report["verdict"]),
            (1, &"incomplete".into()),
            "{report:#}"
        );
        let of_it = &report["partitions"].as_array().expect("a list")[0];
        assert_eq!(of_it["topic"], "h-hidden");
        let failure = of_it["failure"].as_str().unwrap_or_default();
        assert!(failure.contains(hides), "{report:#}");
        let unknown = report["not_compared"].to_string();
        let says_it = unknown.contains("whether h-hidden has more partitions");
        assert_eq!(says_it, hides == "source", "{report:#}");
    }
}

/// A broker that is cut off from the others hasn't heard of a topic that they have: it isn't gone.
#[test]
fn a_topic_that_one_broker_has_not_heard_of_is_not_gone() {
    for side in ["source", "target"] {
        let start = |name: &str| {
            let brokers = if name == side { 3 } else { 1 };
            FakeCluster::start(Options {
                brokers,
                default_replication: i16::try_from(brokers).expect("few"),
                ..options(&format!("{name}-beside-a-deaf-{side}"))
            })
        };
        let (source, target) = (start("source"), start("target"));
        let (from, to) = (source.bootstrap(), target.bootstrap());
        create_topic(&from, "known", 1, &[]);
        Load::new("known", 20).produce(&from);
        let mut twinlog = Twinlog::start(&flow_config("dr", "known", &from, &to, ""));
        await_same(&from, &to, "known", DEADLINE);
        assert!(twinlog.terminate().success());
        let (deaf, asked) = match side {
            "source" => (&source, &from),
            _ => (&target, &to),
        };
        deaf.control(|state| {
            state.isolate_broker(1);
            state.hide_on_island(1, "known");
        });
        // It is the first to be asked.
        let first = asked.split(',').next().expect("an address");
        let config = std::fs::read_to_string(twinlog.config_file()).expect("a config");
        let config = config.replace(asked, first);
        std::fs::write(twinlog.config_file(), config).expect("it can be written");
        let (code, report) = verify(&twinlog, &["--quick"]);
        assert_eq!(report["differences"], serde_json::json!([]), "{report:#}");
        let of_it = &report["partitions"][0];
        assert!(of_it["skipped"].is_null(), "{side}: {report:#}");
        // Where whoever else was asked has it, it is compared.
        if of_it["failure"].is_string() {
            assert_eq!(code, 1, "{side}: {report:#}");
        }
    }
}

/// What one broker doesn't tell another one does.
#[test]
fn configs_that_one_broker_does_not_tell_are_asked_of_another_one() {
    for lost in [1, 2] {
        let name = format!("answers-lost-{lost}");
        let source = FakeCluster::start(Options {
            brokers: 3,
            default_replication: 1,
            ..options(&format!("source-{name}"))
        });
        let target = FakeCluster::named(&format!("target-{name}"));
        let (from, to) = (source.bootstrap(), target.bootstrap());
        create_topic(&from, "orders", 1, &[("retention.ms", "86400000")]);
        Load::new("orders", 10).produce(&from);
        let config = with_timeout(&flow_config("dr", "orders", &from, &to, ""), 9_000);
        let mut twinlog = Twinlog::start(&config);
        await_same(&from, &to, "orders", DEADLINE);
        assert!(twinlog.terminate().success());
        assert_verified(&twinlog, &[]);
        let asked = Fault::on(ApiKey::DescribeConfigs).times(lost);
        source.fault(asked, Action::Swallow);
        let (code, report) = verify(&twinlog, &[]);
        assert_eq!(code, 0, "{name}: {report:#}");
        assert_eq!(report["configs"]["count"], 1, "{name}: {report:#}");
    }
}

#[test]
fn a_partition_that_nobody_leads_is_named_at_once() {
    for side in ["source", "target"] {
        let start = |name: &str| {
            FakeCluster::start(Options {
                brokers: if name == side { 2 } else { 1 },
                default_replication: 1,
                ..options(&format!("{name}-led-by-nobody"))
            })
        };
        let (source, target) = (start("source"), start("target"));
        let (from, to) = (source.bootstrap(), target.bootstrap());
        for cluster in [&from, &to] {
            create_topic(cluster, "spread", PARTITIONS, &[]);
        }
        Load::new("spread", 60).produce(&from);
        let mut twinlog = Twinlog::start(&flow_config("dr", "spread", &from, &to, ""));
        twinlog.wait_until(DEADLINE, "all is copied", |status| {
            (0..PARTITIONS).all(|number| is_caught_up(status, "spread", number))
        });
        assert!(twinlog.terminate().success());
        let on = if side == "source" { &source } else { &target };
        let state_leader =
            target.look(|state| state.topics["__twinlog_state"].partitions[&0].leader);
        let broker = match (side, state_leader) {
            ("target", Some(2)) => 1,
            _ => 2,
        };
        let led: BTreeSet<i64> = on.look(|state| {
            let partitions = state.topics["spread"].partitions.iter();
            let led = partitions.filter(|(_, it)| it.leader == Some(broker));
            led.map(|(number, _)| i64::from(*number)).collect()
        });
        on.control(|state| state.stop_broker(broker));
        let watch = Stopwatch::start();
        let (code, report) = verify(&twinlog, &["--full"]);
        let verdict = (code, &report["verdict"]);
        assert_eq!(verdict, (1, &"incomplete".into()), "{side}: {report:#}");
        assert_eq!(failures(&report), led, "{side}: {report:#}");
        for one in report["partitions"].as_array().expect("a list") {
            let said = one["failure"].as_str();
            let is_named =
                said.is_none_or(|it| it.contains("no broker leads it") && it.contains(side));
            assert!(is_named, "{side}: {report:#}");
        }
        // Nobody waits for an answer that nobody can give.
        let took = watch.counted();
        assert!(took < Duration::from_secs(25), "{side}: {took:?}");
    }
}

#[test]
fn configs_and_groups_that_nobody_tells_do_not_end_a_comparison() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "orders", 1, &[]);
    Load::new("orders", 100).produce(&from);
    has_had_groups(&to);
    commit(&from, "reader", &[("orders", 0, 5)]);
    let config = with_timeout(&flow_config("dr", "orders", &from, &to, ""), 6_000);
    let mut twinlog = Twinlog::start(&config);
    twinlog.await_followed("reader", 5, DEADLINE);
    assert!(twinlog.terminate().success());
    source.fault(
        Fault::on(ApiKey::ListGroups),
        Action::Refuse(ResponseError::UnknownServerError),
    );
    source.fault(Fault::on(ApiKey::DescribeConfigs), Action::Swallow);
    let (code, report) = verify(&twinlog, &["--full"]);
    assert_eq!(
        (code, &report["verdict"]),
        (1, &"incomplete".into()),
        "{report:#}"
    );
    assert_eq!(report["totals"]["records"], 100, "{report:#}");
    // One that was followed is known without a list.
    assert_eq!(report["groups"]["same"], 1, "{report:#}");
    let said = report["groups"]["not_compared"].to_string();
    assert!(said.contains("there may be others"), "{report:#}");
    let said = report["configs"]["not_compared"].to_string();
    assert!(said.contains("orders"), "{report:#}");
}

/// The leader of a log that was cut within a batch gives nothing, and never says that there is nothing.
#[test]
fn a_log_that_was_cut_within_a_batch_is_incomplete_until_it_goes_on() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for topic in ["cut", "whole"] {
        create_topic(&from, topic, 1, &[]);
        Load::new(topic, 100).produce(&from);
    }
    let config = with_timeout(&flow_config("dr", ".*", &from, &to, ""), 2_000);
    let mut twinlog = Twinlog::start(&config);
    twinlog.wait_until(DEADLINE, "all is copied", |status| {
        ["cut", "whole"]
            .iter()
            .all(|topic| is_caught_up(status, topic, 0))
    });
    assert!(twinlog.terminate().success());
    source.control(|state| state.truncate("cut", 0, 80));
    let watch = Stopwatch::start();
    let (code, report) = verify(&twinlog, &["--full"]);
    assert_eq!(code, 1, "{report:#}");
    let partitions = report["partitions"].as_array().expect("a list");
    let failure = partitions[0]["failure"].as_str().unwrap_or_default();
    assert!(
        failure.contains("no record up to the log's end"),
        "{report:#}"
    );
    assert_eq!(partitions[1]["records"], 100, "{report:#}");
    assert!(
        watch.counted() < Duration::from_secs(30),
        "{:?}",
        watch.counted()
    );

    Load::new("cut", 7).first(100).produce(&from);
    let (_, report) = verify(&twinlog, &["--full"]);
    let of_it = &report["partitions"][0];
    assert_eq!(of_it["failure"], Value::Null, "{report:#}");
    assert_eq!(of_it["compared_offsets"], 87, "{report:#}");
}

/// What a cleaner may have taken explains nothing where nobody tells whether there is one.
#[test]
fn a_lost_record_is_not_explained_by_a_cleaner_that_nobody_told_of() {
    for (name, configs) in [("followed", ""), ("left", "configs: { enabled: false }")] {
        let named = |side: &str| FakeCluster::named(&format!("{side}-configs-are-{name}"));
        let (source, target) = (named("source"), named("target"));
        let (from, to) = (source.bootstrap(), target.bootstrap());
        for topic in ["c-keys", "c-plain"] {
            create_topic(&from, topic, 1, &[]);
            for _ in 0..3 {
                Load::new(topic, 10).keys(10).produce(&from);
            }
        }
        let mut without_keys = pieces(&records(&from, "c-plain"));
        for piece in &mut without_keys {
            if let Piece::Record(record) = piece {
                record.key = None;
            }
        }
        rebuild(&from, "c-plain", &without_keys, &[]);
        let config = with_timeout(&flow_config("lost", "c-.*", &from, &to, configs), 6_000);
        let mut twinlog = Twinlog::start(&config);
        for topic in ["c-keys", "c-plain"] {
            await_same(&from, &to, topic, DEADLINE);
        }
        assert!(twinlog.terminate().success());
        for topic in ["c-keys", "c-plain"] {
            let mut made = pieces(&records(&from, topic));
            made.splice(2..4, [Piece::TwoHoles]);
            rebuild(&to, topic, &made, &[]);
        }
        source.fault(Fault::on(ApiKey::DescribeConfigs), Action::Swallow);
        let (code, report) = verify(&twinlog, &["--full"]);
        let verdict = (code, &report["verdict"]);
        assert_eq!(verdict, (1, &"incomplete".into()), "{name}: {report:#}");
        for partition in report["partitions"].as_array().expect("a list") {
            let failure = partition["failure"].as_str().unwrap_or_default();
            assert!(failure.contains("isn't known"), "{name}: {report:#}");
            assert_eq!(partition["is_compacted"], false, "{name}: {report:#}");
        }
    }
}

/// A source that goes away behind the comparison of records costs what was still to be asked, and not the hours before.
#[test]
fn what_is_asked_late_costs_its_own_answer_alone() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "late", 1, &[]);
    Load::new("late", 10).produce(&from);
    let config = with_timeout(&flow_config("dr", "late", &from, &to, ""), 6_000);
    let mut twinlog = Twinlog::start(&config);
    twinlog.wait_until(DEADLINE, "all is copied", |status| {
        is_caught_up(status, "late", 0)
    });
    assert!(twinlog.terminate().success());
    assert_verified(&twinlog, &["--full"]);

    let freeze: Hook = Box::new(|state, seen| state.freeze_broker(seen.broker));
    let groups = Fault::on(ApiKey::ListGroups).times(1);
    source.fault(groups, Action::Arrives(freeze));
    let (code, report) = verify(&twinlog, &["--full"]);
    let verdict = (code, &report["verdict"]);
    assert_eq!(verdict, (1, &"incomplete".into()), "{report:#}");
    assert_eq!(report["totals"]["records"], 10, "{report:#}");
    for what in ["groups", "replicas"] {
        let lines = report[what]["not_compared"].as_array().expect("a list");
        assert!(!lines.is_empty(), "{what}: {report:#}");
    }
    let lines = report["not_compared"].to_string();
    for what in ["partitions that aren't copied", "topics that aren't copied"] {
        assert!(lines.contains(what), "{report:#}");
    }
}
