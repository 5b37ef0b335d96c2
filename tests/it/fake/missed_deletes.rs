//! Tombstones that the source's cleaner removes before they are copied: the copy keeps keys that the source has deleted.

use std::time::Duration;

use fake_kafka::cleaner::Cleaning;
use fake_kafka::faults::{Action, Fault};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use serde_json::Value;
use twinlog::state::{EndsRecord, keys};

use super::metadata_configs::alter;
use crate::support::failover::{failover, words};
use crate::support::fake::FakeCluster;
use crate::support::flow::{await_position, flow_config, partition_status, with_state};
use crate::support::verified::{assert_verified, verify};
use crate::support::{
    Isolation, Load, Twinlog, create_topic, end_offset, eventually, fake_pair, read_all,
};

const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const TOPIC: &str = "table";
/// Tombstones go as soon as they are cleaned.
const AT_ONCE: &str = "0";
/// Nobody is away for so long.
const DAY: &str = "86400000";

pub(crate) fn create_table(cluster: &str, delete_retention_ms: &str) {
    let configs = [
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", delete_retention_ms),
    ];
    create_topic(cluster, TOPIC, 1, &configs);
}

/// Records `first..first + count`, each with a key of its own.
pub(crate) fn write(cluster: &str, first: u64, count: u64) {
    let load = Load::new(TOPIC, count).first(first).keys(1_000_000);
    load.produce(cluster);
}

/// A tombstone for each of the keys `first..first + count`.
pub(crate) fn delete(cluster: &str, first: u64, count: u64) {
    let load = Load::new(TOPIC, count).first(first).keys(1_000_000);
    load.tombstone_every(1).produce(cluster);
}

/// Cleans all but the last record, tombstones included.
fn clean(cluster: &FakeCluster) {
    let end = end_offset(&cluster.bootstrap(), TOPIC, 0);
    let cleaning = Cleaning {
        drops_tombstones: true,
        below: end - 1,
    };
    cluster.control(|state| state.compact(TOPIC, 0, cleaning));
}

pub(crate) fn keys(cluster: &str) -> Vec<String> {
    let mut latest = std::collections::BTreeMap::new();
    for record in read_all(cluster, TOPIC, Isolation::ReadUncommitted) {
        let key = String::from_utf8(record.key.expect("a key")).expect("text");
        latest.insert(key, record.value.is_some());
    }
    let live = latest.into_iter().filter(|(_, is_live)| *is_live);
    live.map(|(key, _)| key).collect()
}

pub(crate) fn missed(status: &Value) -> &Value {
    &partition_status(status, TOPIC, 0)["missed_deletes"]
}

/// Copied are 10 keys; then, while nobody copies, some are deleted and cleaned away, and others come.
fn deleted_while_away(retention_ms: &str, lines: &str) -> (FakeCluster, FakeCluster, Twinlog) {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_table(&from, retention_ms);
    write(&from, 0, 10);
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, &from, &to, lines));
    await_position(&twinlog, TOPIC, 0, 10);
    twinlog.kill9();
    delete(&from, 3, 2);
    write(&from, 10, 5);
    clean(&source);
    twinlog.launch();
    await_position(&twinlog, TOPIC, 0, 17);
    (source, target, twinlog)
}

#[test]
fn deletes_that_were_missed_are_named_everywhere_and_stay_so() {
    named_everywhere("");
}

#[test]
fn deletes_that_a_mapped_copy_missed_are_named_as_well() {
    named_everywhere("offsets: mapped");
}

fn named_everywhere(lines: &str) {
    let (source, target, mut twinlog) = deleted_while_away(AT_ONCE, lines);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    assert_eq!(keys(&to).len(), keys(&from).len() + 2, "two live on");
    for round in 0..2 {
        let status = twinlog.wait_until(DEADLINE, "it is named", |status| {
            !missed(status).is_null() && partition_status(status, TOPIC, 0)["state"] == "copying"
        });
        assert_eq!(missed(&status)["from"], 10, "{round} {status:#}");
        assert_eq!(missed(&status)["until"], 17, "{round} {status:#}");
        let totals = &status["flows"][0]["totals"];
        assert_eq!(totals["missed_deletes_partitions"], 1, "{status:#}");
        let metrics = twinlog.metrics();
        assert!(
            metrics.contains("twinlog_flow_missed_deletes_partitions{flow=\"dr\"} 1"),
            "{metrics}"
        );
        let shown = twinlog.command("status", &[]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("table-0 missed deletes"), "{shown}");
        let plan = words(&failover(twinlog.config_file(), &[]));
        assert!(plan.contains("copies of table-0"), "{plan}");
        // It is no reason to stop: what comes is copied, also by the next process.
        write(&from, 100 + round, 1);
        await_position(&twinlog, TOPIC, 0, end_offset(&from, TOPIC, 0));
        twinlog.kill9();
        twinlog.launch();
    }
    let (_, report) = verify(&twinlog, &["--quick"]);
    assert_eq!(report["partitions"][0]["missed_deletes"]["from"], 10);
    assert_eq!(
        twinlog.log().matches("tombstones may have been").count(),
        1,
        "it is said once:\n{}",
        twinlog.log()
    );
    // A copy that is made anew has missed nothing.
    // It is made anew at once: nobody waits to see it gone.
    assert!(target.control(|state| state.delete_topic(TOPIC)));
    twinlog.wait_until(DEADLINE, "nothing is named", |status| {
        missed(status).is_null() && partition_status(status, TOPIC, 0)["state"] == "copying"
    });
    eventually(DEADLINE, "the new copy", || {
        match (keys(&to), keys(&from)) {
            (copied, there) if copied == there => Ok(()),
            other => Err(other),
        }
    });
    assert!(twinlog.terminate().success());
    twinlog.launch();
    await_position(&twinlog, TOPIC, 0, end_offset(&from, TOPIC, 0));
    assert!(missed(&twinlog.status()).is_null());
}

#[test]
fn holes_that_are_read_in_time_are_no_missed_deletes() {
    let (_source, _target, twinlog) = deleted_while_away(DAY, "");
    let status = twinlog.status();
    assert!(missed(&status).is_null(), "{status:#}");
    assert!(!twinlog.log().contains("missed_deletes"));
}

#[test]
fn a_copy_that_was_away_for_long_and_finds_no_hole_has_missed_nothing() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_table(&from, AT_ONCE);
    write(&from, 0, 10);
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, &from, &to, ""));
    await_position(&twinlog, TOPIC, 0, 10);
    twinlog.kill9();
    delete(&from, 3, 2);
    write(&from, 10, 5);
    // What was copied is cleaned, what wasn't isn't.
    let cleaning = Cleaning {
        drops_tombstones: true,
        below: 10,
    };
    source.control(|state| state.compact(TOPIC, 0, cleaning));
    twinlog.launch();
    let status = await_position(&twinlog, TOPIC, 0, 17);
    assert!(missed(&status).is_null(), "{status:#}");
    assert_eq!(keys(&to), keys(&from));
}

/// Twinlog runs all the time, and the target refuses what it writes: what counts is what the copy had.
#[test]
fn a_copy_that_was_held_while_it_ran_is_named_too() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_table(&from, AT_ONCE);
    write(&from, 0, 10);
    let twinlog = Twinlog::start(&flow_config("dr", TOPIC, &from, &to, ""));
    await_position(&twinlog, TOPIC, 0, 10);
    let held = target.fault(
        Fault::on(ApiKey::Produce).topic(TOPIC),
        Action::Refuse(ResponseError::NotEnoughReplicas),
    );
    delete(&from, 3, 2);
    write(&from, 10, 5);
    twinlog.wait_until(DEADLINE, "it is held", |status| {
        partition_status(status, TOPIC, 0)["state"] == "retrying"
    });
    clean(&source);
    // What was fetched before is refused once more; behind that nothing is left of it.
    let refused = target.fired(held);
    eventually(DEADLINE, "it is refused again", || {
        match target.fired(held) - refused {
            again if again > 1 => Ok(()),
            again => Err(again),
        }
    });
    target.clear(held);
    await_position(&twinlog, TOPIC, 0, 17);
    twinlog.wait_until(DEADLINE, "it is named", |status| {
        missed(status)["from"] == 10
    });
    // What comes from now on was never behind.
    delete(&from, 6, 1);
    write(&from, 20, 5);
    await_position(&twinlog, TOPIC, 0, 23);
    clean(&source);
    write(&from, 30, 1);
    let status = await_position(&twinlog, TOPIC, 0, 24);
    assert_eq!(missed(&status)["until"], 17, "{status:#}");
}

/// How long a tombstone stays is shortened while Twinlog runs: it counts from then on, not from the next start.
#[test]
fn a_shorter_life_of_tombstones_counts_while_it_runs() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_table(&from, DAY);
    write(&from, 0, 1_000);
    let twinlog = Twinlog::start(&flow_config("dr", TOPIC, &from, &to, ""));
    await_position(&twinlog, TOPIC, 0, 1_000);
    alter(&from, TOPIC, &[("delete.retention.ms", Some(AT_ONCE))]);
    let mut first: u64 = 0;
    // It isn't shown which of both a copy goes by: each round has a delete that is missed.
    eventually(DEADLINE, "a missed delete is named", || {
        let held = target.fault(
            Fault::on(ApiKey::Produce).topic(TOPIC),
            Action::Refuse(ResponseError::NotEnoughReplicas),
        );
        delete(&from, first, 2);
        write(&from, 1_000 + first, 5);
        twinlog.wait_until(DEADLINE, "it is held", |status| {
            partition_status(status, TOPIC, 0)["state"] == "retrying"
        });
        clean(&source);
        target.clear(held);
        first += 5;
        let end = end_offset(&from, TOPIC, 0);
        let status = await_position(&twinlog, TOPIC, 0, end);
        match missed(&status).is_null() {
            false => Ok(()),
            true => Err(format!("{status:#}")),
        }
    });
}

/// Copied are 10 keys by one setting. While nobody copies, another one comes, before or behind the cleaner.
fn named_by_another_setting(before: &str, change: impl Fn(&str, &str)) {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_table(&from, before);
    write(&from, 0, 10);
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, &from, &to, MEND));
    await_position(&twinlog, TOPIC, 0, 10);
    eventually(DEADLINE, "it is remembered which one held", || {
        let stored = with_state(&to, |store| {
            store.get::<EndsRecord>(&keys::ends("dr", TOPIC))
        });
        let ends = stored.expect("readable").ok_or("nothing")?;
        ends.delete_retention_ms.map(|_| ()).ok_or("no setting")
    });
    assert!(twinlog.terminate().success());
    delete(&from, 3, 2);
    write(&from, 10, 5);
    clean(&source);
    change(&from, &to);
    twinlog.launch();
    await_position(&twinlog, TOPIC, 0, 17);
    assert_mended(&twinlog, &from, &to, true);
    assert!(twinlog.log().contains("missed_deletes"), "it was noticed");
}

fn set_retention(cluster: &str, ms: &str) {
    alter(cluster, TOPIC, &[("delete.retention.ms", Some(ms))]);
}

/// By what holds now nothing could be gone, but it is.
#[test]
fn a_longer_life_of_tombstones_set_while_it_is_away_brings_none_back() {
    named_by_another_setting(AT_ONCE, |from, to| {
        set_retention(from, DAY);
        set_retention(to, DAY);
    });
}

#[test]
fn a_shorter_life_of_tombstones_set_while_it_is_away_counts() {
    named_by_another_setting(DAY, |from, _| set_retention(from, AT_ONCE));
}

const MEND: &str = "on_missed_deletes: mend";

/// What the source has is on the target at its offset, and nothing is named any more.
fn assert_mended(twinlog: &Twinlog, from: &str, to: &str, is_identical: bool) {
    // A partition that isn't opened yet says nothing of what it has missed.
    twinlog.wait_until(DEADLINE, "it is mended", |status| {
        missed(status).is_null() && partition_status(status, TOPIC, 0)["state"] == "copying"
    });
    assert_eq!(keys(to), keys(from));
    assert_verified(twinlog, &["--full"]);
    if is_identical {
        assert_eq!(end_offset(to, TOPIC, 0), end_offset(from, TOPIC, 0));
        let copies = read_all(to, TOPIC, Isolation::ReadUncommitted);
        for record in read_all(from, TOPIC, Isolation::ReadCommitted) {
            assert!(copies.contains(&record), "{record:?} in {copies:?}");
        }
    }
}

#[test]
fn keys_that_were_deleted_get_a_tombstone_in_the_hole() {
    let (source, target, mut twinlog) = deleted_while_away(AT_ONCE, MEND);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    assert_mended(&twinlog, &from, &to, true);
    let copies = read_all(&to, TOPIC, Isolation::ReadUncommitted);
    let mended = copies.iter().filter(|it| it.value.is_none());
    let mended: Vec<_> = mended.map(|it| (it.offset, it.key.clone())).collect();
    let key = |number: u64| Some(format!("key-{number}").into_bytes());
    assert_eq!(mended, [(10, key(3)), (11, key(4))]);
    // The counts of both producers still agree with the log.
    twinlog.kill9();
    write(&from, 40, 5);
    twinlog.launch();
    await_position(&twinlog, TOPIC, 0, 22);
    assert_mended(&twinlog, &from, &to, true);
}

#[test]
fn a_mapped_copy_is_mended_as_well() {
    let lines = format!("offsets: mapped\n{MEND}");
    let (source, target, mut twinlog) = deleted_while_away(AT_ONCE, &lines);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    assert_mended(&twinlog, &from, &to, false);
    twinlog.kill9();
    write(&from, 40, 5);
    twinlog.launch();
    await_position(&twinlog, TOPIC, 0, 22);
    assert_mended(&twinlog, &from, &to, false);
}

/// Keys that were only written again leave holes, too: none of them is deleted.
#[test]
fn a_hole_that_hides_no_delete_is_found_to_be_none() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_table(&from, AT_ONCE);
    write(&from, 0, 10);
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, &from, &to, MEND));
    await_position(&twinlog, TOPIC, 0, 10);
    twinlog.kill9();
    write(&from, 0, 5);
    write(&from, 0, 5);
    write(&from, 10, 1);
    clean(&source);
    twinlog.launch();
    await_position(&twinlog, TOPIC, 0, 21);
    assert_mended(&twinlog, &from, &to, true);
    let copies = read_all(&to, TOPIC, Isolation::ReadUncommitted);
    assert!(copies.iter().all(|it| it.value.is_some()), "{copies:?}");
    assert!(twinlog.log().contains("missed_deletes"), "it was noticed");
}

/// Killed again and again while it compares and writes: what is lost is looked for again.
#[test]
fn a_crash_at_any_moment_of_the_mending_loses_nothing_of_it() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_table(&from, AT_ONCE);
    write(&from, 0, 40);
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, &from, &to, MEND));
    await_position(&twinlog, TOPIC, 0, 40);
    twinlog.kill9();
    // Holes of one offset between records.
    for number in 0..10 {
        delete(&from, number, 1);
        write(&from, 100 + number, 1);
    }
    write(&from, 200, 1);
    clean(&source);
    // Each process gets one more produce request through than the one before.
    for passes in 0..4_u64 {
        let held = target.fault(
            Fault::on(ApiKey::Produce).topic(TOPIC).nth(passes + 1),
            Action::Swallow,
        );
        twinlog.launch();
        // How much a request carries depends on what has come by then: the last ones may be through before.
        eventually(DEADLINE, "it has come so far", || {
            let is_through = passes > 1 && end_offset(&to, TOPIC, 0) == 61;
            match target.fired(held) {
                0 if !is_through => Err(0),
                _ => Ok(()),
            }
        });
        twinlog.kill9();
        target.clear(held);
    }
    twinlog.launch();
    await_position(&twinlog, TOPIC, 0, 61);
    assert_mended(&twinlog, &from, &to, true);
}

/// What was passed before has no hole any more: it is counted, and stays named.
#[test]
fn what_can_not_be_mended_any_more_is_counted() {
    let (source, target, mut twinlog) = deleted_while_away(AT_ONCE, "");
    let (from, to) = (source.bootstrap(), target.bootstrap());
    twinlog.wait_until(DEADLINE, "it is named", |status| !missed(status).is_null());
    twinlog.terminate();
    let config = std::fs::read_to_string(twinlog.config_file()).expect("our file");
    let config = config.replacen("    target:", &format!("    {MEND}\n    target:"), 1);
    std::fs::write(twinlog.config_file(), config).expect("our folder");
    twinlog.launch();
    twinlog.wait_until(DEADLINE, "they are counted", |status| {
        missed(status)["keys"] == 2 && partition_status(status, TOPIC, 0)["state"] == "copying"
    });
    // They come back on the source: then nothing is wrong with them any more.
    write(&from, 3, 2);
    await_position(&twinlog, TOPIC, 0, 19);
    twinlog.kill9();
    twinlog.launch();
    assert_mended(&twinlog, &from, &to, true);
}
