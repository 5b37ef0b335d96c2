//! The way back: only what is new is copied, at the same offsets, and the roles are as before.

mod support;

use std::time::Duration;

use support::failover::{
    Writer, answer, assert_holds, await_copying, await_failed_over, failback, failover,
    fenceable_both, records, words,
};
use support::groups::{commit, committed};
use support::{KafkaVersion, Load, Twinlog, await_caught_up, create_topic, end_offset, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const ORDERS: i32 = 3;

fn ends(bootstrap: &str, topic: &str) -> Vec<i64> {
    (0..ORDERS)
        .map(|partition| end_offset(bootstrap, topic, partition))
        .collect()
}

fn await_same_ends(one: &str, other: &str, topic: &str) {
    eventually(DEADLINE, &format!("{topic} ends alike"), || {
        let (left, right) = (ends(one, topic), ends(other, topic));
        if left == right {
            Ok(())
        } else {
            Err((left, right))
        }
    });
}

fn under_load(
    bootstrap: &str,
    work: impl FnOnce(),
) -> std::collections::BTreeMap<support::failover::Place, String> {
    let writer = Writer::start(bootstrap, &["orders"], 400);
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
    let (source, target) = fenceable_both(version);
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
        ledger.extend(under_load(&target, || {
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
        // The roles are as before: the old primary takes writes, and they are copied.
        await_copying(&twinlog);
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
