//! The way back: only what is new is copied, at the same offsets, and the roles are as before.

use std::time::Duration;

use crate::support::failover::{
    Writer, answer, assert_holds, await_copying, await_failed_over, failback, failover, records,
    start_fenceable_both, words,
};
use crate::support::groups::{commit, committed};
use crate::support::{
    KafkaVersion, Load, Twinlog, await_caught_up, create_topic, end_offset, eventually,
};

const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const ORDERS: i32 = 3;

fn ends(bootstrap: &str, topic: &str) -> Vec<i64> {
    (0..ORDERS)
        .map(|partition| end_offset(bootstrap, topic, partition))
        .collect()
}

pub(crate) fn await_same_ends(one: &str, other: &str, topic: &str) {
    eventually(DEADLINE, &format!("{topic} ends alike"), || {
        let (left, right) = (ends(one, topic), ends(other, topic));
        if left == right {
            Ok(())
        } else {
            Err((left, right))
        }
    });
}

type Acknowledged = std::collections::BTreeMap<crate::support::failover::Place, String>;

fn under_load(bootstrap: &str, work: impl FnOnce()) -> Acknowledged {
    under_load_of(Writer::start(bootstrap, &["orders"], 400), work)
}

/// The standby's clients end when the fence refuses them, and aren't there when it falls.
fn under_load_until_refused(bootstrap: &str, work: impl FnOnce()) -> Acknowledged {
    let writer = Writer::start_until_refused(bootstrap, &["orders"], 400);
    let ledger = writer.ledger.clone();
    let acknowledged = under_load_of(writer, work);
    assert!(ledger.refused() > 0, "no fence was in its way");
    acknowledged
}

fn under_load_of(writer: Writer, work: impl FnOnce()) -> Acknowledged {
    eventually(DEADLINE, "records are acknowledged", || {
        match writer.ledger.acknowledged().len() {
            many if many > 200 => Ok(()),
            few => Err((few, writer.ledger.refused(), writer.ledger.failed())),
        }
    });
    work();
    writer.stop().acknowledged()
}

fn there_and_back(version: KafkaVersion) {
    let (source, target) = start_fenceable_both(version);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", ORDERS, &[]);
    create_topic(&source, "quiet", ORDERS, &[]);
    Load::new("quiet", 30).produce(&source);
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    let early = failback(&config, &["--yes"]);
    assert_eq!(early.status.code(), Some(1), "{}", words(&early));
    assert!(
        words(&early).contains("nothing to go back from"),
        "{}",
        words(&early)
    );

    let mut ledger = std::collections::BTreeMap::new();
    for round in 0..2 {
        ledger.extend(under_load(&source, || {
            let report = answer(&failover(&config, &["--yes", "--json"]), 0);
            assert_eq!(report["lost"]["is_proven"], true, "{round}: {report:#}");
        }));
        await_failed_over(&twinlog);
        assert_holds(&records(&target, &["orders"]), &ledger);
        let at = ends(&target, "orders");
        let positions: Vec<(&str, i32, i64)> = (0..)
            .zip(&at)
            .map(|(partition, end)| ("orders", partition, *end + 5))
            .collect();
        ledger.extend(under_load_until_refused(&target, || {
            eventually(DEADLINE, "the group's records are there", || {
                let now = ends(&target, "orders");
                match now.iter().zip(&at).all(|(now, at)| now - at > 10) {
                    true => Ok(()),
                    false => Err(now),
                }
            });
            commit(&target, "billing", &positions);
            let shown = answer(&failback(&config, &["--json"]), 0);
            assert_eq!(shown["may_begin"], true, "{round}: {shown:#}");
            let report = answer(&failback(&config, &["--yes", "--json"]), 0);
            println!("{version:?}: {report:#}");
            assert_eq!(report["state"], "done", "{round}: {report:#}");
            assert_eq!(report["kind"], "failback", "{round}: {report:#}");
            assert_eq!(report["primary"], "primary", "{round}: {report:#}");
            assert_eq!(report["lost"]["is_proven"], true, "{round}: {report:#}");
            assert_eq!(report["lost"]["records"], 0, "{round}: {report:#}");
        }));
        for topic in ["orders", "quiet"] {
            assert_eq!(
                records(&source, &[topic]),
                records(&target, &[topic]),
                "{round}"
            );
        }
        assert_holds(&records(&source, &["orders"]), &ledger);
        assert_eq!(
            committed(&source, "billing", "orders", ORDERS),
            committed(&target, "billing", "orders", ORDERS),
            "{round}"
        );
        // A consumer that leaves the standby late commits once more where it was: that is no reason
        // to leave the group there.
        commit(&target, "billing", &[("orders", 0, at[0] + 3)]);
        // The roles are as before: the old primary takes writes, and they are copied.
        await_copying(&twinlog);
        commit(&target, "billing", &[("orders", 1, at[1] + 3)]);
        Load::new("orders", 60)
            .first(1_000 * (round + 1))
            .produce(&source);
        await_same_ends(&source, &target, "orders");
        assert_eq!(
            records(&source, &["orders"]),
            records(&target, &["orders"]),
            "{round}"
        );
        let end = ends(&source, "orders");
        let positions: Vec<(&str, i32, i64)> = (0..)
            .zip(&end)
            .map(|(partition, end)| ("orders", partition, *end))
            .collect();
        commit(&source, "billing", &positions);
        eventually(DEADLINE, "the group follows again", || {
            let there = committed(&target, "billing", "orders", ORDERS);
            match there
                .iter()
                .zip(&end)
                .all(|(there, end)| *there == Some(*end))
            {
                true => Ok(()),
                false => Err(there),
            }
        });
        let again = failback(&config, &["--yes"]);
        assert_eq!(again.status.code(), Some(1), "{}", words(&again));
    }
    let verified = twinlog.command("verify", &["--full", "--json"]);
    assert_eq!(verified.status.code(), Some(0), "{}", words(&verified));
}

#[test]
fn there_and_back_twice_under_load() {
    there_and_back(KafkaVersion::V4_3);
}

/// The source dies under load with records that were never copied. After the way back they are
/// where they were, nothing new has their offsets, and no group is sent into them.
#[test]
fn back_after_a_crash_with_stranded_records() {
    let (mut source, target) = start_fenceable_both(KafkaVersion::V4_3);
    let (bootstrap, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&bootstrap, "orders", ORDERS, &[]);
    create_topic(&bootstrap, "quiet", ORDERS, &[]);
    Load::new("quiet", 30).produce(&bootstrap);
    let mut twinlog = Twinlog::between(&bootstrap, &target);
    let config = twinlog.config_file().to_owned();
    let mut copied = std::collections::BTreeMap::new();
    let mut stranded = std::collections::BTreeMap::new();
    for round in 0..2 {
        await_copying(&twinlog);
        let writer = Writer::start(&bootstrap, &["orders"], 400);
        let before = ends(&target, "orders").iter().sum::<i64>();
        eventually(DEADLINE, "records are copied", || {
            match ends(&target, "orders").iter().sum::<i64>() - before {
                many if many > 300 => Ok(()),
                few => Err(few),
            }
        });
        // The group stands at the end of the copy: what comes next there is stranded.
        twinlog.signal("STOP");
        let frozen_at = ends(&target, "orders");
        eventually(DEADLINE, "the source is ahead", || {
            let ahead = ends(&bootstrap, "orders").iter().sum::<i64>();
            match ahead - frozen_at.iter().sum::<i64>() {
                many if many > 200 => Ok(()),
                few => Err(few),
            }
        });
        source.kill(1);
        twinlog.signal("CONT");
        let acknowledged = writer.stop().acknowledged();
        let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
        let report = answer(&failover(&config, &arguments), 0);
        assert_eq!(report["state"], "done", "{round}: {report:#}");
        let there = records(&target, &["orders"]);
        for (place, value) in &acknowledged {
            match there.contains_key(place) {
                true => copied.insert(place.clone(), value.clone()),
                false => stranded.insert(place.clone(), value.clone()),
            };
        }
        let forks: Vec<i64> = (0..ORDERS)
            .map(|partition| {
                let of = |place: &&crate::support::failover::Place| place.1 == partition;
                there
                    .keys()
                    .filter(of)
                    .map(|place| place.2 + 1)
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let positions: Vec<(&str, i32, i64)> = (0..)
            .zip(&forks)
            .map(|(partition, end)| ("orders", partition, *end))
            .collect();
        commit(&target, "at-the-fork", &positions);

        // Without the old primary there is no way back.
        let away = failback(&config, &["--yes"]);
        assert_eq!(away.status.code(), Some(1), "{}", words(&away));
        assert!(words(&away).contains("has to be back"), "{}", words(&away));
        source.restart(1);
        twinlog.wait_until(DEADLINE, "the old primary is fenced", |status| {
            status["flows"][0]["role"]["old_primary"] == "fenced"
        });
        let undecided = failback(&config, &["--yes"]);
        assert_eq!(undecided.status.code(), Some(3), "{}", words(&undecided));
        let arguments: &[&str] = match round {
            0 => {
                let kept = twinlog.command("orphans", &["--keep", "--yes"]);
                assert_eq!(kept.status.code(), Some(0), "{}", words(&kept));
                &["--yes", "--json"]
            }
            _ => &["--yes", "--json", "--accept-orphans"],
        };
        copied.extend(under_load_until_refused(&target, || {
            let report = answer(&failback(&config, arguments), 0);
            assert_eq!(report["state"], "done", "{round}: {report:#}");
            assert_eq!(report["lost"]["is_proven"], true, "{round}: {report:#}");
        }));
        let (here, there) = (
            records(&bootstrap, &["orders"]),
            records(&target, &["orders"]),
        );
        assert_holds(&there, &copied);
        assert_holds(&here, &copied);
        assert_holds(&here, &stranded);
        // The broker may have taken a record that it could no longer acknowledge.
        assert!(here.len() >= there.len() + stranded.len(), "{round}");
        let only_here = here.keys().filter(|place| !there.contains_key(*place));
        assert!(only_here.count() >= stranded.len(), "{round}");
        assert!(
            there.keys().all(|place| here.contains_key(place)),
            "{round}"
        );
        assert!(!stranded.is_empty());
        assert_eq!(
            records(&bootstrap, &["quiet"]),
            records(&target, &["quiet"])
        );
        // Where the group goes on, nothing stranded comes any more.
        for (partition, position) in
            (0..).zip(committed(&bootstrap, "at-the-fork", "orders", ORDERS))
        {
            let position = position.expect("it has come back");
            let next = there
                .keys()
                .filter(|place| place.1 == partition && place.2 >= forks[partition as usize])
                .map(|place| place.2)
                .min();
            let next_here = here
                .keys()
                .filter(|place| place.1 == partition && place.2 >= position)
                .map(|place| place.2)
                .min();
            assert_eq!(
                next_here, next,
                "{round}: partition {partition} at {position}"
            );
        }
        await_copying(&twinlog);
        Load::new("orders", 60)
            .first(1_000 * (round + 1))
            .produce(&bootstrap);
        await_same_ends(&bootstrap, &target, "orders");
        copied = records(&target, &["orders"]);
    }
    let verified = twinlog.command("verify", &["--full", "--json"]);
    assert_eq!(verified.status.code(), Some(0), "{}", words(&verified));
}
