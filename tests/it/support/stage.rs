//! Where the tests under load play: two clusters that can both be fenced, one flow, applications,
//! and the judgement at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::admin::{create_topic, end_offset};
use super::apps::{Apps, GROUPS, PRODUCERS};
use super::book::{Pages, Partition};
use super::cluster::Cluster;
use super::failover::{
    answer, await_copying, await_failed_over, failback, failover, records, start_fenceable_both,
};
use super::groups::committed;
use super::laws::{self, Again, Log, OrphanRanges, assert_kept};
use super::twinlog::Twinlog;
use super::version::KafkaVersion;
use super::wait::eventually;

const DEADLINE: Duration = Duration::from_secs(120);
const PLAIN: [(&str, i32); 2] = [("orders", 3), ("events", 2)];
const TRANSACTIONAL: [(&str, i32); 1] = [("payments", 2)];
/// Every topic.
pub const TOPICS: [&str; 3] = ["orders", "events", "payments"];
/// Records a second of each producer.
const PER_SECOND: u32 = 150;

/// Two clusters that can both be fenced, and topics on the first.
pub fn clusters(version: KafkaVersion) -> (Cluster, Cluster) {
    let (source, target) = start_fenceable_both(version);
    for (topic, partitions) in PLAIN.into_iter().chain(TRANSACTIONAL) {
        create_topic(&source.bootstrap(), topic, partitions, &[]);
    }
    (source, target)
}

/// The applications, on this cluster.
pub fn apps(version: KafkaVersion, bootstrap: &str) -> Apps {
    Apps::start(version, bootstrap, &PLAIN, &TRANSACTIONAL, PER_SECOND)
}

fn partitions() -> impl Iterator<Item = Partition> {
    let topics = PLAIN.into_iter().chain(TRANSACTIONAL);
    topics.flat_map(|(topic, count)| (0..count).map(move |number| (topic.to_owned(), number)))
}

/// Every log's end.
pub fn ends(bootstrap: &str) -> BTreeMap<Partition, i64> {
    partitions()
        .map(|at| {
            let end = end_offset(bootstrap, &at.0, at.1);
            (at, end)
        })
        .collect()
}

/// Waits until every log ends at the same offset on both.
pub fn await_same_ends(one: &str, other: &str, deadline: Duration) {
    eventually(deadline, "the logs end alike", || {
        let (left, right) = (ends(one), ends(other));
        if left == right {
            Ok(())
        } else {
            Err((left, right))
        }
    });
}

/// Where a group stands.
pub fn positions(bootstrap: &str, group: &str) -> BTreeMap<Partition, i64> {
    let mut found = BTreeMap::new();
    for (topic, count) in PLAIN.into_iter().chain(TRANSACTIONAL) {
        let of_topic = committed(bootstrap, group, topic, count);
        for (number, position) in (0..).zip(of_topic) {
            if let Some(position) = position {
                found.insert((topic.to_owned(), number), position);
            }
        }
    }
    found
}

/// Waits until each producer was refused since `before`, as the fence must do.
pub fn await_refused(apps: &Apps, before: &[u64]) {
    eventually(DEADLINE, "every producer is refused", || {
        let now = refusals(apps);
        if now.iter().zip(before).all(|(now, before)| now > before) {
            Ok(())
        } else {
            Err(now)
        }
    });
}

/// How often each producer was refused so far.
pub fn refusals(apps: &Apps) -> Vec<u64> {
    apps.book.look(|pages| {
        PRODUCERS
            .iter()
            .map(|producer| pages.refused.get(*producer).copied().unwrap_or(0))
            .collect()
    })
}

/// A planned failover under load; the applications are moved as an operator does.
pub fn fail_over(apps: &mut Apps, twinlog: &Twinlog, target: &str) {
    let refused = refusals(apps);
    let report = answer(&failover(twinlog.config_file(), &["--yes", "--json"]), 0);
    assert_nothing_lost(&report);
    println!("failover: {} s", report["seconds"]);
    await_refused(apps, &refused);
    apps.switch(target);
    await_failed_over(twinlog);
}

/// A failback under load, and the applications are moved back to the source.
pub fn fail_back(apps: &mut Apps, twinlog: &Twinlog, source: &str, arguments: &[&str]) {
    let refused = refusals(apps);
    let arguments = [&["--yes", "--json"], arguments].concat();
    let report = answer(&failback(twinlog.config_file(), &arguments), 0);
    assert_nothing_lost(&report);
    println!("failback: {} s", report["seconds"]);
    await_refused(apps, &refused);
    apps.switch(source);
    await_copying(twinlog);
}

/// A planned cut-over's account.
pub fn assert_nothing_lost(report: &Value) {
    assert_eq!(report["state"], "done", "{report:#}");
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    assert_eq!(report["lost"]["records"], 0, "{report:#}");
    for problem in ["moving", "active_on_target", "kept", "beyond", "failed"] {
        let found = report["groups"][problem].as_array();
        assert!(found.is_some_and(Vec::is_empty), "{problem}: {report:#}");
    }
}

/// What an unplanned failover left on the new primary.
#[derive(Debug)]
pub struct Copied {
    /// What was copied.
    pub log: Log,
    /// What each group may read again.
    pub again: BTreeMap<&'static str, Again>,
    /// How many acknowledged records weren't copied.
    pub missing: u64,
    /// How many may be missing, as was said.
    pub bound: u64,
}

/// What had been copied at a moment well before the source was killed.
#[derive(Debug)]
pub struct Earlier {
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    /// Where the copies ended.
    pub ends: BTreeMap<Partition, i64>,
}

/// Where each group stands.
pub fn all_positions(bootstrap: &str) -> BTreeMap<&'static str, BTreeMap<Partition, i64>> {
    let groups = GROUPS.into_iter();
    groups
        .map(|group| (group, positions(bootstrap, group)))
        .collect()
}

/// What groups had committed `earlier`, after `era` moves, and isn't among these positions yet.
pub fn not_followed(
    apps: &Apps,
    positions: &BTreeMap<&'static str, BTreeMap<Partition, i64>>,
    era: usize,
    earlier: &Earlier,
) -> Vec<String> {
    let (at_ms, ends) = (earlier.at_ms, &earlier.ends);
    apps.book.look(|pages| {
        let groups = positions.iter();
        groups
            .flat_map(|(group, positions)| {
                laws::positions_are_fresh(pages, group, era, positions, ends, at_ms)
            })
            .collect()
    })
}

/// An unplanned failover from a source that was killed. The applications, which had moved `era`
/// times, are still with the old primary afterwards. `orphans` are those of earlier failovers.
pub fn fail_over_unplanned(
    apps: &Apps,
    twinlog: &Twinlog,
    target: &str,
    era: usize,
    earlier: &Earlier,
    orphans: &OrphanRanges,
) -> Copied {
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let report = answer(&failover(twinlog.config_file(), &arguments), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    let log = records(target, &TOPICS);
    let missing = apps.book.look(|pages| {
        let acknowledged = pages.acknowledged.keys();
        acknowledged
            .filter(|place| !log.contains_key(*place) && !laws::is_orphan(orphans, place))
            .count()
    });
    println!(
        "unplanned: {missing} records missing, at most {} by the bound, {} s",
        report["lost"]["records"], report["seconds"]
    );
    let bound = report["lost"]["records"].as_u64().expect("a number");
    let positions = all_positions(target);
    let broken = not_followed(apps, &positions, era, earlier);
    assert_kept("positions are fresh", &broken);
    let again = positions.into_iter();
    let again = again.map(|(group, positions)| (group, Again::From(positions)));
    let again = again.collect();
    Copied {
        log,
        again,
        missing: missing as u64,
        bound,
    }
}

/// Waits until the old primary is back and fenced, and its orphans are counted; their ranges.
pub fn await_orphans(twinlog: &Twinlog) -> OrphanRanges {
    let status = twinlog.wait_until(DEADLINE, "the old primary is fenced", |status| {
        let role = &status["flows"][0]["role"];
        let ranges = ranges(role);
        let total: i64 = ranges.values().flatten().map(|(from, to)| to - from).sum();
        role["old_primary"] == "fenced" && role["orphan_offsets"].as_i64() == Some(total)
    });
    ranges(&status["flows"][0]["role"])
}

fn ranges(role: &Value) -> OrphanRanges {
    let listed = role["orphans"].as_array().into_iter().flatten();
    listed
        .filter_map(|it| {
            let topic = it["topic"].as_str()?.to_owned();
            let number = i32::try_from(it["partition"].as_i64()?).ok()?;
            Some((
                (topic, number),
                vec![(it["from"].as_i64()?, it["to"].as_i64()?)],
            ))
        })
        .collect()
}

/// The old primary's records, once no transaction hides any of what was acknowledged on either side:
/// a commit is acknowledged before its markers are written.
pub fn old_records(pages: &Pages, source: &str, target: &str) -> Log {
    eventually(DEADLINE, "both primaries show all", || {
        let (old, primary) = (records(source, &TOPICS), records(target, &TOPICS));
        let hidden = pages
            .acknowledged
            .keys()
            .find(|place| !old.contains_key(*place) && !primary.contains_key(*place));
        match hidden {
            None => Ok(old),
            Some(place) => Err(place.clone()),
        }
    })
}

/// Every law about what the applications told and the primary of the end holds. `moves` says of
/// each group what each of its moves lets it read again.
pub fn judge(
    pages: &Pages,
    primary: &Log,
    orphans: &OrphanRanges,
    moves: &BTreeMap<&str, Vec<Again>>,
) {
    for (group, commits) in &pages.commits {
        let eras: Vec<usize> = (0..=moves.get(group.as_str()).map_or(0, Vec::len))
            .map(|era| commits.iter().filter(|it| it.era == era).count())
            .collect();
        assert!(
            eras.iter().all(|commits| *commits > 0),
            "{group} committed {eras:?} times between its moves"
        );
    }
    assert_kept(
        "what was acknowledged is there once or an orphan",
        &laws::each_acknowledged_once_or_orphaned(pages, primary, orphans),
    );
    assert_kept("order", &laws::order_is_kept(pages, primary, orphans));
    assert_kept(
        "all is read",
        &laws::each_group_read_all(pages, primary, &GROUPS),
    );
    for (group, moves) in moves {
        assert_kept(
            "nothing is read again",
            &laws::nothing_is_read_again(pages, group, moves),
        );
    }
    let reads: usize = pages.reads.values().map(Vec::len).sum();
    println!(
        "{} records acknowledged, {} in doubt, {reads} read",
        pages.acknowledged.len(),
        pages.in_doubt.len()
    );
}

/// Moves of which none lets anything be read again.
pub fn planned_moves(count: usize) -> BTreeMap<&'static str, Vec<Again>> {
    GROUPS
        .into_iter()
        .map(|group| (group, vec![Again::Nothing; count]))
        .collect()
}
