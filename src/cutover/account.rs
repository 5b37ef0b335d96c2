//! The account of a flow's last plan, as it is by now.
//!
//! A producer that no ACL binds, or that was told of the fence late, may write to the old primary behind the proof, and
//! behind the look that the promotion takes. So the account is looked at again: here, and by whoever looks after the old
//! primary (`flow/restrain.rs`), whose count is used where that cluster doesn't answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::error::CutoverError;
use super::options::FenceMode;
use super::pairs::ends_or_why;
use super::report::{LATE_BROKERS, Report, UNASKED_BROKERS};
use super::steps::promote::{LATE_UNSEEN, WRITTEN_BEHIND};
use super::{SOURCE_FOR, journal};
use crate::config::{ClusterSection, FlowConfig};
use crate::connect::cluster;
use crate::flow::shown::{self, Shown};
use crate::flow::{filled, never_copied};
use crate::state::{
    CutoverKind, CutoverRecord, CutoverState, OrphansRecord, RoleRecord, StateStore, keys,
};
use crate::wire::{Cluster, OffsetSpec, TopicPartition};

/// How long each of its brokers may take to say whether it refuses writers.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);

/// Offsets of the old primary behind the proof: topic, partition, from, to.
type Behind = Vec<(String, i32, i64, i64)>;

/// What became of the flow's last failover. Changes nothing.
///
/// # Errors
/// When the target can't be asked, or there was none.
pub async fn last_report(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
) -> Result<Report, CutoverError> {
    let (source, target) = (cluster(source_section), cluster(target_section));
    let none = || CutoverError::failed(format!("flow {} has no plan so far", flow.name));
    let store = StateStore::open_existing(&target).await?;
    let store = store.ok_or_else(none)?;
    let record: Option<CutoverRecord> = store.get(&keys::cutover(&flow.name))?;
    let mut record = record.ok_or_else(none)?;
    let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
    if counts(&record, role.as_ref()) {
        let of = role.and_then(|role| role.source_cluster_id);
        let (looked, late) = tokio::join!(
            tokio::time::timeout(SOURCE_FOR, look(&source, flow, of.as_ref(), &record)),
            tokio::time::timeout(SOURCE_FOR, late(source_section, of.as_ref(), &record)),
        );
        let looked = looked.ok().flatten();
        if looked.is_some() {
            // What nobody could look for then is in this.
            record.facts.remove(LATE_UNSEEN);
        }
        let looked = looked.unwrap_or_default();
        let (late, unasked) = late.unwrap_or_else(|_| nobody_says("it didn't answer in time"));
        for (fact, lines) in [(LATE_BROKERS, late), (UNASKED_BROKERS, unasked)] {
            // Plain texts always encode.
            let lines = serde_json::to_value(lines).unwrap_or_default();
            record.facts.insert(fact.to_owned(), lines);
        }
        // What was counted there may be gone by now: the old primary may have come back with less.
        let counted = counted(&store, flow, &record)?.unwrap_or_default();
        let found = larger(counted, looked);
        let known: Behind = journal::fact(&record, WRITTEN_BEHIND).unwrap_or_default();
        if amount(&found) > amount(&known) {
            let value = serde_json::to_value(&found).unwrap_or_default();
            record.facts.insert(WRITTEN_BEHIND.to_owned(), value);
        }
    }
    Ok(Report::new(&flow.name, target.name(), &record))
}

/// Whether what the old primary has behind the proof is what its clients wrote: later it is mostly what was copied back.
fn counts(record: &CutoverRecord, role: Option<&RoleRecord>) -> bool {
    let is_done = record.kind == CutoverKind::Planned && record.state == CutoverState::Done;
    let is_of_it = |role: &RoleRecord| {
        role.plan == record.plan && !role.is_copied_back && !role.is_handed_back
    };
    is_done && role.is_some_and(is_of_it)
}

fn amount(behind: &Behind) -> u64 {
    behind
        .iter()
        .map(|(_, _, from, to)| to.abs_diff(*from))
        .sum()
}

/// Of each partition the one that has more.
fn larger(one: Behind, other: Behind) -> Behind {
    let mut all: BTreeMap<(String, i32), (i64, i64)> = BTreeMap::new();
    for (topic, partition, from, to) in one.into_iter().chain(other) {
        let most = all.entry((topic, partition)).or_insert((from, to));
        if to.abs_diff(from) > most.1.abs_diff(most.0) {
            *most = (from, to);
        }
    }
    let of_one = |((topic, partition), (from, to))| (topic, partition, from, to);
    all.into_iter().map(of_one).collect()
}

/// What the old primary says itself, if it is that cluster; `None` where not all of it answers.
async fn look(
    source: &Cluster,
    flow: &FlowConfig,
    id: Option<&String>,
    record: &CutoverRecord,
) -> Option<Behind> {
    let proven: Vec<(String, i32, i64)> = journal::fact(record, "source_ends")?;
    // About all: what came later is in none of those that the proof names.
    let there = source.metadata(None).await.ok()?;
    if id.is_some() && there.cluster_id.as_ref() != id {
        return None;
    }
    let proven: BTreeMap<TopicPartition, i64> = proven
        .into_iter()
        .map(|(topic, partition, end)| (TopicPartition::new(topic, partition), end))
        .collect();
    let asked: Vec<TopicPartition> = proven.keys().cloned().collect();
    let before = record.role_before.as_ref();
    let elsewhere = before.and_then(RoleRecord::not_copied);
    let is_known = |at: &TopicPartition| {
        proven.contains_key(at) || elsewhere.is_some_and(|topics| topics.contains(&at.topic))
    };
    let late = never_copied(flow, &there, &record.topics, is_known);
    let ((ends, silent), late) = tokio::join!(
        ends_or_why(source, &asked, OffsetSpec::Latest),
        filled(source, &late, SOURCE_FOR),
    );
    let late = late?.into_iter();
    let late = late.map(|(at, from, to)| (at.topic, at.partition, from, to));
    let grown = proven.into_iter().filter_map(|(at, proven)| {
        let end = *ends.get(&at)?;
        (end > proven).then_some((at.topic, at.partition, proven, end))
    });
    silent.is_empty().then(|| grown.chain(late).collect())
}

/// Its brokers that would take records all the same, in words: what they take is lost, whatever its leaders have. And
/// those that don't say whether they would.
type Brokers = (Vec<String>, Vec<String>);

fn nobody_says(why: &str) -> Brokers {
    (Vec::new(), vec![why.to_owned()])
}

async fn late(section: &ClusterSection, id: Option<&String>, record: &CutoverRecord) -> Brokers {
    if record.fence != FenceMode::Acl.word() {
        return Brokers::default();
    }
    let proven: Vec<(String, i32, i64)> = journal::fact(record, "source_ends").unwrap_or_default();
    let topics: BTreeSet<String> = proven.into_iter().map(|(topic, ..)| topic).collect();
    let source = cluster(section);
    match source.metadata(Some(&[])).await {
        Err(error) => return nobody_says(&error.to_string()),
        Ok(there) if id.is_some() && there.cluster_id.as_ref() != id => {
            return nobody_says("another cluster answers at its addresses");
        }
        Ok(_) => {}
    }
    let patience = source.or_longer(SHOWN_WITHIN);
    let late = Shown::default().look(&source, &topics, patience).await;
    let silent = late.iter().filter(|(_, why)| !why.is_told());
    let silent = silent.map(|(broker, why)| format!("broker {broker}: {why}"));
    (shown::told(&late), silent.collect())
}

/// What was counted there while the flow ran.
fn counted(
    store: &StateStore,
    flow: &FlowConfig,
    record: &CutoverRecord,
) -> Result<Option<Behind>, CutoverError> {
    let orphans: Option<OrphansRecord> = store.get(&keys::orphans(&flow.name))?;
    let orphans = orphans.filter(|orphans| orphans.plan == record.plan);
    let behind = |orphans: OrphansRecord| {
        let topics = orphans.topics.into_iter();
        topics
            .flat_map(|(topic, partitions)| {
                let of_one = move |(partition, from, to)| (topic.clone(), partition, from, to);
                partitions.into_iter().map(of_one)
            })
            .collect()
    };
    Ok(orphans.map(behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_partition_the_larger_count_is_taken() {
        let of = |partition, to| ("t".to_owned(), partition, 10, to);
        let counted = vec![of(0, 15), of(1, 12)];
        let looked = vec![of(1, 19), of(2, 11)];
        let expected = [of(0, 15), of(1, 19), of(2, 11)];
        assert_eq!(larger(counted.clone(), looked.clone()), expected);
        assert_eq!(larger(looked, counted.clone()), expected);
        assert_eq!(larger(counted.clone(), Behind::new()), counted);
    }
}
