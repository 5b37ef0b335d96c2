//! `twinlog failback` dies at every step: run again it ends as if nothing had happened; aborted,
//! the standby is the primary as before.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::acls::{self, Acl, Operation, Resource};
use support::failover::{
    Writer, answer, assert_holds, assert_refused, await_copying, await_failed_over,
    cutover_exiting_at, failback, failover, fenceable_both, records, try_write, words,
};
use support::groups::{commit, committed};
use support::{
    Cluster, KafkaVersion, Load, Twinlog, await_caught_up, create_topic, end_offset, eventually,
};

const DEADLINE: Duration = Duration::from_secs(60);
const STEPS: [&str; 12] = [
    "copy_back",
    "catch_up",
    "fence",
    "prove",
    "drain",
    "stop_copying",
    "groups",
    "forks",
    "release",
    "unfence",
    "promote",
    "resume",
];
/// From here on the old primary is the primary again.
const NO_WAY_BACK: &str = "promote";
const MOMENTS: [&str; 2] = ["begun", "worked"];

/// A flow that was failed over, with a group.
fn failed_over() -> (Cluster, Cluster, Twinlog) {
    let (source, target) = fenceable_both(KafkaVersion::V4_3);
    create_topic(&source.bootstrap(), "orders", 2, &[]);
    Load::new("orders", 100).produce(&source.bootstrap());
    let twinlog = Twinlog::between(&source.bootstrap(), &target.bootstrap());
    await_caught_up(&twinlog, DEADLINE);
    let report = answer(&failover(twinlog.config_file(), &["--yes", "--json"]), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    await_failed_over(&twinlog);
    (source, target, twinlog)
}

fn crash(twinlog: &Twinlog, step: &str, moment: &str) {
    let at = format!("{step}:{moment}");
    let config = twinlog.config_file();
    let crashed = cutover_exiting_at("failback", config, &["--yes"], Some(&at));
    assert_eq!(
        crashed.status.code(),
        Some(137),
        "{at}: {}",
        words(&crashed)
    );
}

/// It dies at every moment of one and the same plan, under load.
#[test]
fn a_failback_that_dies_at_every_step_ends_at_the_same_place() {
    let (source, target, twinlog) = failed_over();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let writer = Writer::start(&target, &["orders"], 200);
    eventually(DEADLINE, "the standby takes writes", || {
        match writer.ledger.acknowledged().len() {
            many if many > 100 => Ok(()),
            few => Err(few),
        }
    });
    commit(&target, "billing", &[("orders", 0, 61), ("orders", 1, 62)]);
    let mut plans = Vec::new();
    let mut ledger = BTreeMap::new();
    let mut writer = Some(writer);
    for step in STEPS {
        if step == NO_WAY_BACK {
            // Its time on the standby is over. Nothing keeps it away later: no ACL could, that
            // doesn't keep Twinlog away as well, who is nobody else here.
            assert_refused(&target, "orders");
            ledger.extend(
                writer
                    .take()
                    .into_iter()
                    .flat_map(|it| it.stop().acknowledged()),
            );
        }
        for moment in MOMENTS {
            crash(&twinlog, step, moment);
            let shown = answer(&failback(twinlog.config_file(), &["--json"]), 0);
            plans.push(shown["continues"].clone());
        }
    }
    let report = answer(&failback(twinlog.config_file(), &["--yes", "--json"]), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    plans.push(report["plan"].clone());
    plans.dedup();
    assert_eq!(plans.len(), 1, "one plan all the time: {plans:?}");

    assert!(ledger.len() > 100);
    assert_holds(&records(&source, &["orders"]), &ledger);
    assert_eq!(
        committed(&source, "billing", "orders", 2),
        [Some(61), Some(62)]
    );
    eventually(DEADLINE, "the old primary takes writes", || {
        try_write(&source, "orders")
    });
    await_copying(&twinlog);
    await_same_records(&source, &target);
}

/// It dies at any step and is undone: the standby takes writes as before, and at the end the
/// way back is open all the same.
#[test]
fn a_failback_that_dies_at_any_step_is_undone() {
    let (source, target, twinlog) = failed_over();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let config = twinlog.config_file().to_owned();
    let fence = Acl::deny("User:*", Operation::Write, Resource::topic("orders"));
    let mut first = 100;
    for step in STEPS.into_iter().take_while(|step| *step != NO_WAY_BACK) {
        // Where nothing is changed, one moment is as good as the other.
        let only_looks = matches!(step, "catch_up" | "prove" | "drain");
        let moments = &MOMENTS[usize::from(only_looks)..];
        for moment in moments {
            let at = format!("{step}:{moment}");
            Load::new("orders", 10).first(first).produce(&target);
            first += 10;
            crash(&twinlog, step, moment);
            let report = answer(&failback(&config, &["--abort", "--yes", "--json"]), 0);
            assert_eq!(report["state"], "aborted", "{at}: {report:#}");
            eventually(DEADLINE, &format!("{at}: the standby takes writes"), || {
                try_write(&target, "orders")
            });
            // Nobody may try to write before: Twinlog is nobody else here, and was let in.
            eventually(
                DEADLINE,
                &format!("{at}: the old primary is fenced"),
                || {
                    let found = acls::list(&source);
                    match found.contains(&fence) {
                        true => Ok(()),
                        false => Err(found),
                    }
                },
            );
            assert_refused(&source, "orders");
            await_failed_over(&twinlog);
        }
    }
    let report = answer(&failback(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    await_copying(&twinlog);
    Load::new("orders", 10).first(first).produce(&source);
    await_same_records(&source, &target);
    assert!(records(&source, &["orders"]).len() > usize::try_from(first).expect("small"));
    let again = failback(&config, &["--abort", "--yes"]);
    assert_eq!(again.status.code(), Some(3), "{}", words(&again));
}

fn await_same_records(source: &str, target: &str) {
    eventually(DEADLINE, "both hold the same", || {
        let ends = |cluster: &str| [0, 1].map(|it| end_offset(cluster, "orders", it));
        let (wanted, found) = (ends(source), ends(target));
        if wanted == found {
            Ok(())
        } else {
            Err((wanted, found))
        }
    });
    assert_eq!(records(source, &["orders"]), records(target, &["orders"]));
}
