//! The account of a flow's last plan, as it is by now.
//!
//! A producer that no ACL binds, or that was told of the fence late, may write to the old primary behind the proof, and
//! behind the look that the promotion takes. So the account is looked at again: here, and by whoever looks after the old
//! primary (`flow/restrain.rs`), whose count is used where that cluster doesn't answer.

use std::collections::BTreeMap;

use super::error::CutoverError;
use super::pairs::ends_or_why;
use super::report::Report;
use super::steps::promote::WRITTEN_BEHIND;
use super::{SOURCE_FOR, journal};
use crate::config::{ClusterSection, FlowConfig};
use crate::connect::cluster;
use crate::state::{
    CutoverKind, CutoverRecord, CutoverState, OrphansRecord, RoleRecord, STATE_TOPIC, StateStore,
    keys,
};
use crate::wire::{Cluster, OffsetSpec, TopicPartition};

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
    if !target.metadata(None).await?.has_topic(STATE_TOPIC) {
        return Err(none());
    }
    let store = StateStore::open(&target, &flow.name).await?;
    let record: Option<CutoverRecord> = store.get(&keys::cutover(&flow.name))?;
    let mut record = record.ok_or_else(none)?;
    let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
    if counts(&record, role.as_ref()) {
        let found = match tokio::time::timeout(SOURCE_FOR, look(&source, &record)).await {
            Ok(Some(found)) => Some(found),
            _ => counted(&store, flow, &record)?,
        };
        let known: Behind = journal::fact(&record, WRITTEN_BEHIND).unwrap_or_default();
        if let Some(found) = found.filter(|found| amount(found) > amount(&known)) {
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

/// What the old primary says itself; `None` where not all of it answers.
async fn look(source: &Cluster, record: &CutoverRecord) -> Option<Behind> {
    let proven: Vec<(String, i32, i64)> = journal::fact(record, "source_ends")?;
    source.metadata(None).await.ok()?;
    let proven: BTreeMap<TopicPartition, i64> = proven
        .into_iter()
        .map(|(topic, partition, end)| (TopicPartition::new(topic, partition), end))
        .collect();
    let asked: Vec<TopicPartition> = proven.keys().cloned().collect();
    let (ends, silent) = ends_or_why(source, &asked, OffsetSpec::Latest).await;
    let grown = proven.into_iter().filter_map(|(at, proven)| {
        let end = *ends.get(&at)?;
        (end > proven).then_some((at.topic, at.partition, proven, end))
    });
    silent.is_empty().then(|| grown.collect())
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
