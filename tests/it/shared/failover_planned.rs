//! A planned failover: nothing acknowledged is lost, under load, and whatever crashes.

use std::time::Duration;

use crate::support::failover::{
    Writer, answer, assert_holds, await_failed_over, failover, failover_exiting_at, records, words,
};
use crate::support::groups::{commit, committed};
use crate::support::pair;
use crate::support::pool::fenceable_pair;
use crate::support::{
    KafkaVersion, Load, Transactions, Twinlog, await_caught_up, create_topic, end_offset,
    eventually,
};

const DEADLINE: Duration = Duration::from_secs(60);
const ORDERS: i32 = 3;

fn nothing_is_lost_under_load(version: KafkaVersion) {
    let (source, target) = fenceable_pair(version);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", ORDERS, &[]);
    create_topic(&source, "settled", 2, &[]);
    Transactions::new(Load::new("settled", 10), 20).produce(&source);
    let mut twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();

    // Without --yes nothing is changed.
    let shown = answer(&failover(&config, &["--json"]), 0);
    assert_eq!(shown["may_begin"], true, "{shown:#}");

    let writer = Writer::start(&source, &["orders"], 500);
    eventually(DEADLINE, "records are acknowledged", || {
        match writer.ledger.acknowledged().len() {
            many if many > 300 => Ok(()),
            few => Err(few),
        }
    });
    let positions: Vec<(&str, i32, i64)> = (0..ORDERS)
        .map(|partition| ("orders", partition, 20 + i64::from(partition)))
        .collect();
    commit(&source, "billing", &positions);

    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    assert_eq!(report["lost"]["records"], 0, "{report:#}");
    println!("{version:?}: planned failover took {} s", report["seconds"]);

    eventually(DEADLINE, "the writer is refused", || {
        match writer.ledger.refused() {
            0 => Err(writer.ledger.failed()),
            some => Ok(some),
        }
    });
    let ledger = writer.stop().acknowledged();
    assert!(ledger.len() > 300);
    assert_holds(&records(&target, &["orders"]), &ledger);
    for topic in ["orders", "settled"] {
        assert_eq!(records(&source, &[topic]), records(&target, &[topic]));
    }
    assert_eq!(
        committed(&target, "billing", "orders", ORDERS),
        committed(&source, "billing", "orders", ORDERS)
    );

    // Whoever starts again with the old config copies nothing.
    await_failed_over(&twinlog);
    twinlog.kill9();
    let before: Vec<i64> = (0..ORDERS)
        .map(|it| end_offset(&target, "orders", it))
        .collect();
    Load::new("orders", 30).produce(&target);
    twinlog.launch();
    let status = await_failed_over(&twinlog);
    assert_eq!(status["ready"], false, "{status:#}");
    twinlog.wait_until(DEADLINE, "the old primary is fenced", |status| {
        let role = &status["flows"][0]["role"];
        role["old_primary"] == "fenced" && role["orphan_offsets"] == 0
    });
    let after: Vec<i64> = (0..ORDERS)
        .map(|it| end_offset(&target, "orders", it))
        .collect();
    let written: i64 = after.iter().sum::<i64>() - before.iter().sum::<i64>();
    assert_eq!(written, 30, "only the clients' records were added");

    // It can't be done twice, nor undone: somebody has written.
    let again = failover(&config, &["--yes"]);
    assert_eq!(again.status.code(), Some(1), "{}", words(&again));
    assert!(
        words(&again).contains("primary already"),
        "{}",
        words(&again)
    );
    let abort = failover(&config, &["--abort", "--yes"]);
    assert_eq!(abort.status.code(), Some(3), "{}", words(&abort));
}

#[test]
fn nothing_is_lost_under_load_on_4_3() {
    nothing_is_lost_under_load(KafkaVersion::V4_3);
}

#[test]
fn nothing_is_lost_under_load_on_3_9() {
    nothing_is_lost_under_load(KafkaVersion::V3_9);
}

const STEPS: [&str; 8] = [
    "fence",
    "prove",
    "drain",
    "stop_copying",
    "groups",
    "forks",
    "release",
    "promote",
];

/// The command dies at every step, before and after its work. Run again it ends as if nothing had
/// happened; aborted, everything is as before, down to the ACLs.
#[test]
fn a_command_that_dies_at_any_step_is_continued_or_undone() {
    let (source, target) = fenceable_pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 2, &[]);
    Load::new("orders", 100).produce(&source);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    let mut first = 100;
    for (number, step) in STEPS.iter().enumerate() {
        for moment in ["begun", "worked"] {
            let at = format!("{step}:{moment}");
            let crashed = failover_exiting_at(&config, &["--yes"], Some(&at));
            assert_eq!(
                crashed.status.code(),
                Some(137),
                "{at}: {}",
                words(&crashed)
            );
            // Every other one is continued first.
            if (number + usize::from(moment == "begun")) % 2 == 0 {
                let report = answer(&failover(&config, &["--yes", "--json"]), 0);
                assert_eq!(report["state"], "done", "{at}: {report:#}");
                assert_eq!(report["lost"]["is_proven"], true, "{at}: {report:#}");
                await_failed_over(&twinlog);
                crate::support::failover::assert_refused(&source, "orders");
            }
            let report = answer(&failover(&config, &["--abort", "--yes", "--json"]), 0);
            assert_eq!(report["state"], "aborted", "{at}: {report:#}");
            // The writers are back, and so is the copy.
            eventually(DEADLINE, &format!("{at}: the source takes writes"), || {
                crate::support::failover::try_write(&source, "orders")
            });
            Load::new("orders", 10).first(first).produce(&source);
            first += 10;
            eventually(DEADLINE, &format!("{at}: the copy goes on"), || {
                let ends = |cluster: &str| [0, 1].map(|it| end_offset(cluster, "orders", it));
                let (wanted, found) = (ends(&source), ends(&target));
                if wanted == found {
                    Ok(())
                } else {
                    Err((wanted, found))
                }
            });
        }
    }
    assert_eq!(records(&source, &["orders"]), records(&target, &["orders"]));
}

/// Nobody runs: the command copies the rest itself. One topic moves, the other goes on.
#[test]
fn one_topic_is_failed_over_alone_and_without_anybody_running() {
    let (source, target) = fenceable_pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    for topic in ["moves", "stays"] {
        create_topic(&source, topic, 2, &[]);
        Load::new(topic, 100).produce(&source);
    }
    let mut twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    twinlog.kill9();
    Load::new("moves", 100).first(100).produce(&source);
    let config = twinlog.config_file().to_owned();

    let unknown = failover(&config, &["--topic", "nothing", "--yes"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", words(&unknown));
    let report = answer(
        &failover(&config, &["--topic", "moves", "--yes", "--json"]),
        0,
    );
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    assert_eq!(records(&source, &["moves"]), records(&target, &["moves"]));

    crate::support::failover::assert_refused(&source, "moves");
    Load::new("stays", 50).first(100).produce(&source);
    twinlog.launch();
    eventually(DEADLINE, "the other topic goes on", || {
        let (wanted, found) = (records(&source, &["stays"]), records(&target, &["stays"]));
        if wanted == found {
            Ok(())
        } else {
            Err(found.len())
        }
    });
    Load::new("moves", 20).first(500).produce(&target);
    let status = twinlog.wait_until(DEADLINE, "the role is shown", |status| {
        status["flows"][0]["role"]["old_primary"] == "fenced"
    });
    assert_eq!(
        status["flows"][0]["role"]["topics"][0], "moves",
        "{status:#}"
    );
    assert_eq!(status["flows"][0]["state"], "running", "{status:#}");
    // The rest follows later.
    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    await_failed_over(&twinlog);
}

/// Without an authorizer, ACLs keep nobody away: the operator does, and the command waits for it.
#[test]
fn writers_that_no_acl_binds_are_waited_for() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    let twinlog = Twinlog::between(&source, &target);
    let config = twinlog.config_file().to_owned();
    let writer = Writer::start(&source, &["orders"], 100);
    await_running(&twinlog);

    let refused = failover(&config, &["--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    assert!(
        words(&refused).contains("--fence manual"),
        "{}",
        words(&refused)
    );
    // Longer than this machine stands still with all that is on it.
    let watched = ["--wait", "2", "--quiet-for", "15"];
    let moving = [&["--yes", "--fence", "manual"][..], &watched].concat();
    let moving = failover(&config, &moving);
    assert_eq!(moving.status.code(), Some(1), "{}", words(&moving));
    assert!(
        words(&moving).contains("still writes"),
        "{}",
        words(&moving)
    );

    let ledger = writer.stop().acknowledged();
    let report = answer(
        &failover(&config, &["--yes", "--fence", "manual", "--json"]),
        0,
    );
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    assert_holds(&records(&target, &["orders"]), &ledger);
}

fn await_running(twinlog: &Twinlog) {
    twinlog.wait_until(DEADLINE, "it copies", |status| {
        let flow = &status["flows"][0];
        flow["state"] == "running" && flow["totals"]["records"].as_u64() > Some(0)
    });
}
