//! `plan`: what differs on the targets, and what `run` would do about it. It only reads.

use std::collections::HashMap;
use std::sync::Arc;

use super::metadata::{context_for_plan, mirrored};
use super::needs::TopicNeeds;
use super::replication;
use super::topics;
use crate::config::{ClusterSection, Config, FlowConfig};
use crate::connect::cluster;
use crate::metadata;
use crate::state::{StateError, StateStore, TopicRecord, keys};
use crate::telemetry::finding::{PlannedChange, counted};
use crate::telemetry::metadata::{Drift, MetadataReport};
use crate::wire::{self, Cluster, Metadata};

/// What differs on the targets, by flow.
///
/// # Errors
/// When a cluster can't be reached or the state can't be read.
pub async fn plan(config: &Config) -> Result<Vec<PlannedChange>, StateError> {
    let mut changes = Vec::new();
    for flow in config.flows.values() {
        let sections = (
            config.clusters.get(&flow.source),
            config.clusters.get(&flow.target),
        );
        if let (Some(source), Some(target)) = sections {
            changes.extend(plan_flow(flow, source, target).await?);
        }
    }
    Ok(changes)
}

/// What of both clusters' metadata differs, for the topics that are copied. Only looks.
pub async fn metadata_report(
    flow: &FlowConfig,
    target_section: &ClusterSection,
    (source, target): (&Cluster, &Cluster),
    store: &Arc<StateStore>,
) -> MetadataReport {
    let (from, to) = (source.cached(), target.cached());
    let (mut copies, mut lacking) = (Vec::new(), Vec::new());
    let needs = TopicNeeds::remembered(store, &flow.name);
    for (name, _) in topics::selected(flow, &from) {
        let known: Option<TopicRecord> = store.get(&keys::topic(&flow.name, name)).ok().flatten();
        lacking.extend(lack(flow, name, &from, &to, known.as_ref()));
        let copied = known.map(|known| mirrored(name, &known, (&from, &to), needs.of(name)));
        copies.extend(copied.filter(|topic| topic.target_replicas.is_some()));
    }
    let store = Some(store.clone());
    let context = context_for_plan(
        flow,
        target_section,
        (source, target),
        store,
        (copies, lacking),
    );
    metadata::look_once(&context).await
}

async fn plan_flow(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
) -> Result<Vec<PlannedChange>, StateError> {
    let (source, target) = (cluster(source_section), cluster(target_section));
    let (from, to) = tokio::try_join!(source.metadata(None), target.metadata(None))?;
    let store = StateStore::open_existing(&target).await?.map(Arc::new);
    let mut changes = Vec::new();
    let (mut copies, mut lacking) = (Vec::new(), Vec::new());
    let needs = store.as_deref();
    let needs = needs.map(|store| TopicNeeds::remembered(store, &flow.name));
    let needs = needs.unwrap_or_default();
    let mut begins = Vec::new();
    for (name, topic) in topics::selected(flow, &from) {
        let known: Option<TopicRecord> = match &store {
            Some(store) => store.get(&keys::topic(&flow.name, name))?,
            None => None,
        };
        let change = plan_topic(flow, name, &from, &to, known.as_ref());
        if let (Some(_), None) = (&change, &known) {
            begins.push((changes.len(), name, topic.partitions.len()));
        }
        changes.extend(change);
        lacking.extend(lack(flow, name, &from, &to, known.as_ref()));
        let copied = known.map(|known| mirrored(name, &known, (&from, &to), needs.of(name)));
        copies.extend(copied.filter(|topic| topic.target_replicas.is_some()));
    }
    // How their offsets begin is said beside it.
    let names: Vec<String> = begins.iter().map(|(_, name, _)| (*name).clone()).collect();
    let configs = match names.is_empty() {
        true => HashMap::new(),
        false => wire::describe_topic_configs(&source, &names).await,
    };
    let asked = begins.iter().map(|(_, name, partitions)| {
        let configs = configs.get(*name).and_then(|it| it.as_ref().ok());
        (
            name.as_str(),
            *partitions,
            configs.is_some_and(topics::is_compacted),
        )
    });
    let asked: Vec<(&str, usize, bool)> = asked.collect();
    let foreseen = topics::foreseen(flow, &source, &asked).await;
    for ((index, ..), said) in begins.iter().zip(foreseen) {
        changes[*index].detail.push_str(&said);
    }
    let context = context_for_plan(
        flow,
        target_section,
        (&source, &target),
        store,
        (copies, lacking),
    );
    let report = metadata::look_once(&context).await;
    let name = &flow.name;
    let drift = report.drift.into_iter();
    changes.extend(drift.map(|drift| PlannedChange::drift(name, drift)));
    let obstacles = report.obstacles.into_iter();
    changes.extend(obstacles.map(|obstacle| PlannedChange::obstacle(name, obstacle)));
    Ok(changes)
}

fn lack(
    flow: &FlowConfig,
    name: &str,
    from: &Metadata,
    to: &Metadata,
    known: Option<&TopicRecord>,
) -> Option<Drift> {
    replication::lack(flow, known?, from.topics.get(name)?, to)
}

fn plan_topic(
    flow: &FlowConfig,
    name: &str,
    from: &Metadata,
    to: &Metadata,
    known: Option<&TopicRecord>,
) -> Option<PlannedChange> {
    let source = from.topics.get(name)?;
    let target_name = flow.rename.apply(&flow.source, name);
    let change = |action: &str, detail: String| {
        Some(PlannedChange::topic(
            &flow.name,
            action,
            &target_name,
            detail,
        ))
    };
    let wanted = source.partitions.len();
    match (to.topics.get(&target_name), known) {
        (None, _) => change(
            "create",
            format!(
                "{}, then copy from the source",
                counted(wanted, "partition")
            ),
        ),
        (Some(_), Some(known)) if known.source_topic_id != source.topic_id => change(
            "refuse",
            "the source topic was created again; see on_recreate".to_owned(),
        ),
        (Some(target), Some(known)) if known.target_topic_id != target.topic_id => change(
            "refuse",
            "the target topic was created again by someone else".to_owned(),
        ),
        (Some(target), _) if target.partitions.len() < wanted => change(
            "grow",
            format!("{} -> {wanted} partitions", target.partitions.len()),
        ),
        (Some(target), None) => change(
            "adopt",
            format!(
                "exists with {}; used only if it is empty",
                counted(target.partitions.len(), "partition")
            ),
        ),
        _ => None,
    }
}
