//! An unplanned failover: the source's broker is killed under load. What was acknowledged and copied
//! is there, what wasn't is bounded before and counted afterwards, and no offset means two records.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::failover::{
    Place, Writer, answer, assert_holds, assert_refused, await_failed_over, failover,
    failover_exiting_at, records, start_fenceable_pair, words,
};
use crate::support::flow::with_state;
use crate::support::groups::{commit, committed};
use crate::support::{
    Cluster, KafkaVersion, Load, Twinlog, await_caught_up, create_topic, end_offset, eventually,
};
use twinlog::state::{EndsRecord, keys};

const DEADLINE: Duration = Duration::from_secs(60);
const ORDERS: i32 = 3;
const QUIET: i32 = 2;
/// Records a second of a writer whose last ones are stranded.
const SLOWED_TO: u32 = 50;

fn ends(bootstrap: &str) -> Vec<i64> {
    (0..ORDERS)
        .map(|partition| end_offset(bootstrap, "orders", partition))
        .collect()
}

/// Waits until the standby knows how fast each partition of a topic grows, and that this is fast enough.
fn await_measured(target: &str, topic: &str, partitions: i32, per_second: u64) {
    let what = format!("{topic} was seen to grow by {per_second} a second and partition");
    eventually(DEADLINE, &what, || {
        let key = keys::ends("dr", topic);
        let seen: Option<EndsRecord> = with_state(target, |state| state.get(&key)).ok().flatten();
        let is_enough = seen.as_ref().is_some_and(|seen| {
            let rates = &seen.per_second;
            rates.len() == partitions as usize
                && seen.unmeasured.is_empty()
                && rates.iter().all(|rate| *rate >= per_second)
        });
        match is_enough {
            true => Ok(()),
            false => Err(seen.map(Box::new)),
        }
    });
}

/// Waits until each partition of `orders` was seen to grow as fast as it does when a writer is slowed down to so many records
/// a second. A busy machine may have slowed him down before, or have let nobody look twice.
fn await_faster_than(target: &str, per_second: u32) {
    let of_each = per_second.div_ceil(ORDERS.unsigned_abs());
    await_measured(target, "orders", ORDERS, of_each.into());
}

/// A copy under load whose source has just been killed; what was acknowledged there.
fn a_killed_source(
    source: &mut Cluster,
    target: &str,
    config: impl FnOnce(&str) -> String,
) -> (Twinlog, BTreeMap<Place, String>) {
    let bootstrap = source.bootstrap();
    create_topic(&bootstrap, "orders", ORDERS, &[]);
    create_topic(&bootstrap, "quiet", QUIET, &[]);
    Load::new("quiet", 50).produce(&bootstrap);
    let mut twinlog = Twinlog::start(&config(&bootstrap));
    let writer = Writer::start(&bootstrap, &["orders"], 400);
    eventually(DEADLINE, "records are copied", || {
        match ends(target).iter().sum::<i64>() {
            many if many > 400 => Ok(()),
            few => Err(few),
        }
    });
    let positions: Vec<(&str, i32, i64)> = (0..ORDERS)
        .map(|partition| ("orders", partition, 11 + i64::from(partition)))
        .collect();
    commit(&bootstrap, "billing", &positions);
    eventually(DEADLINE, "the group has followed", || {
        let there = committed(target, "billing", "orders", ORDERS);
        match there == [Some(11), Some(12), Some(13)] {
            true => Ok(()),
            false => Err(there),
        }
    });
    // The copy falls behind, so that something is stranded. Nobody writes faster than was seen.
    await_faster_than(target, SLOWED_TO);
    await_measured(target, "quiet", QUIET, 0);
    twinlog.signal("STOP");
    writer.slow_down(SLOWED_TO);
    let frozen_at = ends(&bootstrap).iter().sum::<i64>();
    eventually(DEADLINE, "the source is ahead", || {
        match ends(&bootstrap).iter().sum::<i64>() - frozen_at {
            many if many > 200 => Ok(()),
            few => Err(few),
        }
    });
    source.kill(1);
    twinlog.signal("CONT");
    let acknowledged = writer.stop().acknowledged();
    twinlog.wait_until(DEADLINE, "the source is missed", |status| {
        status["flows"][0]["state"] == "waiting"
    });
    // What was on its way arrives. What had come of partitions that can't be opened without the source doesn't.
    let mut before = ends(target);
    eventually(DEADLINE, "nothing is on its way any more", || {
        std::thread::sleep(Duration::from_secs(2));
        let now = ends(target);
        match std::mem::replace(&mut before, now.clone()) == now {
            true => Ok(()),
            false => Err(now),
        }
    });
    (twinlog, acknowledged)
}

fn the_source_is_killed(version: KafkaVersion) {
    let (mut source, target) = start_fenceable_pair(version);
    let target = target.bootstrap();
    let (mut twinlog, acknowledged) = a_killed_source(&mut source, &target, |bootstrap| {
        Twinlog::config(bootstrap, &target, "failover: { padding: 500 }")
    });
    let config = twinlog.config_file().to_owned();
    let copied = records(&target, &["orders"]);
    let copied_ends = ends(&target);

    // A planned one can't be, and something may be missing: refused, nothing changed.
    let planned = failover(&config, &["--yes"]);
    assert_eq!(planned.status.code(), Some(1), "{}", words(&planned));
    assert!(
        words(&planned).contains("--unplanned"),
        "{}",
        words(&planned)
    );
    let refused = failover(&config, &["--unplanned", "--yes"]);
    assert_eq!(refused.status.code(), Some(3), "{}", words(&refused));
    assert!(
        words(&refused).contains("--accept-loss"),
        "{}",
        words(&refused)
    );
    assert_eq!(ends(&target), copied_ends);
    let shown = failover(&config, &["--unplanned", "--json", "--accept-loss", "any"]);
    assert_eq!(answer(&shown, 0)["may_begin"], true);

    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "1000000"];
    let report = answer(&failover(&config, &arguments), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    assert_eq!(report["lost"]["is_proven"], false, "{report:#}");
    let bound = report["lost"]["records"].as_u64().expect("a number");
    let lost = acknowledged
        .keys()
        .filter(|place| !copied.contains_key(*place));
    let lost = lost.count() as u64;
    println!(
        "{version:?}: {lost} of {} lost, at most {bound} by the bound, {} s",
        acknowledged.len(),
        report["seconds"]
    );
    assert!(lost > 0, "nothing was stranded");
    assert!(bound >= lost, "{report:#}");
    assert!(
        report["lost"]["topics"].get("quiet").is_none(),
        "a quiet topic lacks nothing: {report:#}"
    );

    // All that was copied is there, and the group where it was.
    let there = records(&target, &["orders"]);
    assert_eq!(there, copied, "padding can't be seen");
    assert_eq!(
        committed(&target, "billing", "orders", ORDERS),
        [Some(11), Some(12), Some(13)]
    );
    let padded = ends(&target);
    for (padded, copied) in padded.iter().zip(&copied_ends) {
        assert!(padded - copied >= 500, "{padded} after {copied}");
    }
    // A restart with the source gone copies nothing and says so.
    await_failed_over(&twinlog);
    twinlog.kill9();
    twinlog.launch();
    let status = await_failed_over(&twinlog);
    assert_eq!(
        status["flows"][0]["role"]["old_primary"], "away",
        "{status:#}"
    );

    let writer = Writer::start(&target, &["orders"], 400);
    eventually(DEADLINE, "the standby takes writes", || {
        match writer.ledger.acknowledged().len() {
            many if many > 100 => Ok(()),
            few => Err(few),
        }
    });
    let new = writer.stop().acknowledged();

    // The old primary comes back.
    source.restart(1);
    let source = source.bootstrap();
    let status = twinlog.wait_until(DEADLINE, "the old primary is fenced", |status| {
        let role = &status["flows"][0]["role"];
        role["old_primary"] == "fenced" && role["orphan_offsets"].is_number()
    });
    assert_refused(&source, "orders");
    let stranded: i64 = ends(&source)
        .iter()
        .zip(&copied_ends)
        .map(|(end, copied)| end - copied)
        .sum();
    let orphans = &status["flows"][0]["role"]["orphan_offsets"];
    assert_eq!(orphans.as_i64(), Some(stranded), "{status:#}");
    let on_source = records(&source, &["orders"]);
    assert_holds(&on_source, &acknowledged);
    for place in new.keys() {
        assert!(!on_source.contains_key(place), "{place:?} is two records");
    }
    let after = records(&target, &["orders"]);
    assert_holds(&after, &new);
    assert_holds(&after, &copied);
    let mut known = copied;
    let mut stranded = on_source;
    stranded.retain(|place, _| !known.contains_key(place));
    known.extend(new);
    assert_none_is_mixed_in(&after, &known, &stranded);
}

/// Nothing that is stranded on the old primary is among the records of the new one. What a writer gave up waiting for may be
/// there, too.
fn assert_none_is_mixed_in(
    after: &BTreeMap<Place, String>,
    known: &BTreeMap<Place, String>,
    stranded: &BTreeMap<Place, String>,
) {
    let stranded: BTreeSet<&String> = stranded.values().collect();
    for (place, value) in after {
        assert!(
            known.contains_key(place) || !stranded.contains(value),
            "{place:?}: {value} is stranded"
        );
    }
}

#[test]
fn the_source_is_killed_on_4_3() {
    the_source_is_killed(KafkaVersion::V4_3);
}

#[test]
fn the_source_is_killed_on_3_9() {
    the_source_is_killed(KafkaVersion::V3_9);
}

/// A process is frozen while clients write on, and the source dies before it wakes up. All that it was
/// told is old by then, and a log that it has only begun to copy is no quiet one: also without any
/// margin no new record gets an offset of a stranded one.
#[test]
fn a_process_that_was_frozen_knows_that_it_was() {
    let (mut source, target) = start_fenceable_pair(KafkaVersion::V4_3);
    let (bootstrap, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&bootstrap, "orders", ORDERS, &[]);
    let config = Twinlog::config(&bootstrap, &target, "failover: { padding: 0 }");
    let mut twinlog = Twinlog::start(&config);
    await_caught_up(&twinlog, DEADLINE);
    let writer = Writer::start(&bootstrap, &["orders"], 400);
    eventually(DEADLINE, "records are copied", || {
        match ends(&target).iter().min() {
            Some(few) if *few > 200 => Ok(()),
            few => Err(few.copied()),
        }
    });
    // Nobody writes faster than was seen.
    await_faster_than(&target, SLOWED_TO);
    twinlog.signal("STOP");
    writer.slow_down(SLOWED_TO);
    let copied = ends(&target);
    eventually(DEADLINE, "the source is far ahead", || {
        let ahead = ends(&bootstrap).iter().sum::<i64>() - copied.iter().sum::<i64>();
        match ahead {
            many if many > 600 => Ok(()),
            few => Err(few),
        }
    });
    source.kill(1);
    writer.stop();
    twinlog.signal("CONT");
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let report = answer(&failover(twinlog.config_file(), &arguments), 0);
    let padded = ends(&target);
    source.restart(1);
    let stranded = ends(&bootstrap);
    let bound = report["lost"]["records"].as_i64().expect("a number");
    let lost: i64 = stranded.iter().sum::<i64>() - copied.iter().sum::<i64>();
    assert!(bound >= lost, "{lost} are stranded: {report:#}");
    for (padded, stranded) in padded.iter().zip(&stranded) {
        assert!(
            padded >= stranded,
            "{padded:?} and {stranded:?}: {report:#}"
        );
    }
}

const STEPS: [&str; 6] = [
    "stop_copying",
    "bound_loss",
    "forks",
    "pad",
    "release",
    "promote",
];

/// The command dies at every step, one after the other, of one and the same plan.
#[test]
fn a_command_that_dies_at_every_step_ends_at_the_same_place() {
    let (mut source, target) = start_fenceable_pair(KafkaVersion::V4_3);
    let target = target.bootstrap();
    let (twinlog, acknowledged) = a_killed_source(&mut source, &target, |bootstrap| {
        Twinlog::config(bootstrap, &target, "failover: { padding: 300 }")
    });
    let config = twinlog.config_file().to_owned();
    let copied = records(&target, &["orders"]);
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let mut plans = Vec::new();
    for step in STEPS {
        for moment in ["begun", "worked"] {
            let at = format!("{step}:{moment}");
            let crashed = failover_exiting_at(&config, &arguments, Some(&at));
            assert_eq!(
                crashed.status.code(),
                Some(137),
                "{at}: {}",
                words(&crashed)
            );
            let shown = failover(&config, &["--unplanned", "--json", "--accept-loss", "any"]);
            plans.push(answer(&shown, 0)["continues"].clone());
        }
    }
    let report = answer(&failover(&config, &arguments), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    plans.push(report["plan"].clone());
    plans.dedup();
    assert_eq!(plans.len(), 1, "one plan all the time: {plans:?}");
    await_failed_over(&twinlog);
    assert_eq!(records(&target, &["orders"]), copied);

    // Padded logs can't be copied to again: it can't be undone.
    let abort = failover(&config, &["--abort", "--yes"]);
    assert_eq!(abort.status.code(), Some(3), "{}", words(&abort));
    assert!(words(&abort).contains("padded"), "{}", words(&abort));

    let writer = Writer::start(&target, &["orders"], 200);
    eventually(DEADLINE, "the standby takes writes", || {
        match writer.ledger.acknowledged().len() {
            many if many > 50 => Ok(()),
            few => Err(few),
        }
    });
    let new = writer.stop().acknowledged();
    for place in new.keys() {
        assert!(
            !acknowledged.contains_key(place),
            "{place:?} is two records"
        );
    }
}

/// The source dies in the middle of a planned failover: the same operator goes on without it.
#[test]
fn a_planned_failover_whose_source_dies_goes_on_unplanned() {
    let (mut source, target) = start_fenceable_pair(KafkaVersion::V4_3);
    let (bootstrap, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&bootstrap, "orders", ORDERS, &[]);
    Load::new("orders", 300).produce(&bootstrap);
    let twinlog = Twinlog::between(&bootstrap, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    let crashed = failover_exiting_at(&config, &["--yes"], Some("drain:begun"));
    assert_eq!(crashed.status.code(), Some(137), "{}", words(&crashed));
    source.kill(1);
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let report = answer(&failover(&config, &arguments), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    assert_eq!(records(&target, &["orders"]).len(), 300);
    await_failed_over(&twinlog);
    source.restart(1);
    twinlog.wait_until(DEADLINE, "the old primary is fenced", |status| {
        let role = &status["flows"][0]["role"];
        role["old_primary"] == "fenced" && role["orphan_offsets"] == 0
    });
    assert_refused(&bootstrap, "orders");
}
