//! Unplanned failovers under the load of real applications, librdkafka and Java, whose broker is
//! killed, and the way back: what was copied is there, the orphans are exactly what is missing, and
//! nothing is read again but what hadn't been committed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::apps::{Apps, GROUPS};
use crate::support::book::{Pages, now_ms};
use crate::support::failover::{answer, await_copying, await_failed_over, records};
use crate::support::laws::{
    self, Again, Log, OrphanRanges, assert_kept, orphans_are_what_is_missing, same_offsets,
};
use crate::support::stage::{
    Earlier, TOPICS, all_positions, apps, await_orphans, await_same_ends, clusters, ends,
    fail_back, fail_over_unplanned, judge, not_followed, old_records,
};
use crate::support::{Cluster, KafkaVersion, Twinlog, eventually};

const DEADLINE: Duration = Duration::from_secs(120);
/// A flow that copies less than is written, also where a busy machine slows the writers down.
const SLOW: &str = "limits: { bytes_per_second: 4KiB }";
const FAST: &str = "limits: { bytes_per_second: unlimited }";

/// How the source dies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    /// All of a sudden, while everything is being copied.
    Sudden,
    /// After the copy has fallen behind.
    Behind,
}

/// Restarts Twinlog with another line in its config.
fn exchange(twinlog: &mut Twinlog, line: &str, by: &str) {
    let config = std::fs::read_to_string(twinlog.config_file()).expect("our file");
    assert!(config.contains(line), "{config}");
    twinlog.kill9();
    let config = config.replace(line, by);
    std::fs::write(twinlog.config_file(), config).expect("our folder is writable");
    twinlog.launch();
}

/// Kills the source's broker; what had been copied some time before.
fn kill(
    source: &mut Cluster,
    target: &str,
    twinlog: &mut Twinlog,
    death: Death,
    (apps, era): (&Apps, usize),
) -> Earlier {
    // What was committed a moment ago has followed, or will soon.
    let earlier = Earlier {
        at_ms: now_ms() - 1_000,
        ends: ends(target),
    };
    if death == Death::Behind {
        exchange(twinlog, FAST, SLOW);
        await_copying(twinlog);
    }
    let bootstrap = source.bootstrap();
    eventually(DEADLINE, "the kill is due", || {
        let (from, to) = (ends(&bootstrap), ends(target));
        let ahead = from.values().sum::<i64>() - to.values().sum::<i64>();
        let open = not_followed(apps, &all_positions(target), era, &earlier);
        match open.is_empty() && (death == Death::Sudden || ahead > 800) {
            true => Ok(()),
            false => Err((ahead, open)),
        }
    });
    source.kill(1);
    twinlog.wait_until(DEADLINE, "the source is missed", |status| {
        status["flows"][0]["state"] == "waiting"
    });
    earlier
}

/// Deaths of the source, and after each the way back with the orphans left where they are.
fn there_and_back(version: KafkaVersion, deaths: &[Death]) {
    let (mut source, target) = clusters(version);
    let target = target.bootstrap();
    let bootstrap = source.bootstrap();
    let mut twinlog = Twinlog::start(&Twinlog::config(&bootstrap, &target, FAST));
    let mut apps = apps(version, &bootstrap);
    let mut orphans = OrphanRanges::new();
    let mut moves: BTreeMap<&str, Vec<Again>> = GROUPS
        .into_iter()
        .map(|group| (group, Vec::new()))
        .collect();
    let mut bounds = Vec::new();
    for (round, death) in deaths.iter().enumerate() {
        apps.await_flowing(200);
        let era = 2 * round;
        let earlier = kill(&mut source, &target, &mut twinlog, *death, (&apps, era));
        let copied = fail_over_unplanned(&apps, &twinlog, &target, era, &earlier, &orphans);
        apps.switch(&target);
        if *death == Death::Behind {
            exchange(&mut twinlog, SLOW, FAST);
        }
        apps.await_flowing(100);
        await_failed_over(&twinlog);
        source.restart(1);
        let stranded = await_orphans(&twinlog);
        if *death == Death::Behind {
            assert!(!stranded.is_empty(), "nothing was stranded");
        }
        for (partition, ranges) in &stranded {
            let all = orphans.entry(partition.clone()).or_default();
            all.extend(ranges);
        }
        let pages = apps.book.copy();
        let old = judge_orphans(&pages, &bootstrap, &target, &copied.log, &orphans);
        let records = old.len() - laws::without_orphans(&old, &stranded).len();
        decide(&twinlog, records, round);
        fail_back(&mut apps, &twinlog, &bootstrap, &["--accept-orphans"]);
        bounds.push((copied.missing, copied.bound));
        for (group, again) in copied.again {
            let of_group = moves.entry(group).or_default();
            of_group.extend([again, Again::Nothing]);
        }
    }
    apps.await_flowing(100);
    apps.quiet();
    let with_orphans = records(&bootstrap, &TOPICS);
    let primary = laws::without_orphans(&with_orphans, &orphans);
    apps.await_read(primary.keys());
    let pages = apps.stop();
    // The orphans are where they were: left alone, and not lost.
    let all = laws::each_acknowledged_once_or_orphaned(&pages, &with_orphans, &OrphanRanges::new());
    assert_kept("the old primary has all that was acknowledged", &all);
    judge(&pages, &primary, &orphans, &moves);
    await_same_ends(&bootstrap, &target, DEADLINE);
    let standby = records(&target, &TOPICS);
    assert_kept("offsets", &same_offsets(&with_orphans, &standby, &orphans));
    assert_eq!(standby, primary);
    // The bound is that of producers that go on as they were seen; on a busy machine they can't quite.
    let is_true = |(missing, bound): &(u64, u64)| *missing <= bound + bound / 4;
    assert!(
        bounds.iter().all(is_true),
        "missing and the bound that was told: {bounds:?}"
    );
}

/// The orphans that Twinlog counts are what the returned primary has and the copy hasn't.
fn judge_orphans(
    pages: &Pages,
    source: &str,
    target: &str,
    copied: &Log,
    orphans: &OrphanRanges,
) -> Log {
    let old = old_records(pages, source, target);
    let missing = orphans_are_what_is_missing(pages, &old, copied, orphans);
    assert_kept("orphans", &missing);
    old
}

/// Finds these orphans listed, and keeps or dismisses them in turn: they stay where they are.
fn decide(twinlog: &Twinlog, records: usize, round: usize) {
    let list = answer(&twinlog.command("orphans", &["--json"]), 0);
    assert_eq!(list["totals"]["records"], records, "{list:#}");
    if records > 0 {
        let choice = ["--keep", "--dismiss"][round % 2];
        let decided = answer(&twinlog.command("orphans", &[choice, "--yes", "--json"]), 0);
        assert_eq!(decided["applied"], true, "{decided:#}");
    }
    println!("round {round}: {records} orphans decided");
}

#[test]
fn killed_with_a_copy_that_is_behind_and_then_all_of_a_sudden() {
    there_and_back(KafkaVersion::V4_3, &[Death::Behind, Death::Sudden]);
}

#[test]
fn killed_with_a_copy_that_is_behind_on_3_9() {
    there_and_back(KafkaVersion::V3_9, &[Death::Behind]);
}
