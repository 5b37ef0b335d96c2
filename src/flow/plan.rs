//! `plan`: what differs on the targets, and what `run` would do about it. It only reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::deleted::gone_topics;
use super::error::SAME_CLUSTER_HINT;
use super::metadata::{context_for_plan, mirrored};
use super::needs::TopicNeeds;
use super::replication;
use super::topics;
use crate::config::{ClusterSection, Config, FlowConfig};
use crate::connect::cluster;
use crate::metadata::{self, Held};
use crate::state::{Primary, RoleRecord, StateError, StateStore, TopicRecord, keys};
use crate::telemetry::finding::{PlannedChange, counted};
use crate::telemetry::metadata::{Drift, DriftAction, DriftKind, MetadataReport, Obstacle};
use crate::telemetry::progress::now_ms;
use crate::telemetry::utc::to_the_second;
use crate::wire::{self, Cluster, Metadata, WireError};

/// A cluster that is silent for so long doesn't answer: somebody waits in front of the screen. One that is
/// slow sends something meanwhile.
const SILENT: Duration = Duration::from_secs(10);

/// What differs on the targets, by flow. What can't be asked is among it: a flow's cluster that doesn't
/// answer keeps nothing of the other flows back, nor what its target tells.
pub async fn plan(config: &Config) -> Vec<PlannedChange> {
    let mut changes = Vec::new();
    for flow in config.flows.values() {
        let sections = (
            config.clusters.get(&flow.source),
            config.clusters.get(&flow.target),
        );
        if let (Some(source), Some(target)) = sections {
            let (source, target) = (impatient(source), impatient(target));
            let planned = plan_flow(flow, &source, &target).await;
            changes.extend(planned.unwrap_or_else(|error| vec![unread(flow, &error)]));
        }
    }
    changes
}

/// The same cluster, which isn't waited for as long as a copy would.
fn impatient(section: &ClusterSection) -> ClusterSection {
    ClusterSection {
        request_timeout: section.request_timeout.min(SILENT),
        ..section.clone()
    }
}

/// That a cluster of a flow tells nothing.
fn silent(flow: &FlowConfig, side: &str, error: WireError) -> PlannedChange {
    let error = error.of_one();
    let name = match side {
        "source" => &flow.source,
        _ => &flow.target,
    };
    let said = error.without_hint();
    let hint = error.hint().or(error.cure_if_not_reached());
    let message = match error.kind() {
        "timeout" | "io" | "disconnected" | "unreachable" => {
            format!("{name} doesn't answer: {said}")
        }
        _ => format!("{name} can't be asked: {said}"),
    };
    not_told(flow, side, error.kind(), message, hint)
}

/// That what Twinlog remembers on a flow's target can't be read.
fn unread(flow: &FlowConfig, error: &StateError) -> PlannedChange {
    not_told(flow, "target", "state", error.to_string(), None)
}

fn not_told(
    flow: &FlowConfig,
    side: &str,
    reason: &str,
    message: String,
    hint: Option<&str>,
) -> PlannedChange {
    let obstacle = Obstacle {
        kind: DriftKind::Topic,
        cluster: side.to_owned(),
        reason: reason.to_owned(),
        message,
        hint: hint.map(str::to_owned),
        is_problem: true,
        since_ms: 0,
    };
    PlannedChange::obstacle(&flow.name, obstacle)
}

/// What can be told without the source: what waits on the target for the failover, and what became of
/// copies whose topics were gone before.
async fn target_alone(
    flow: &FlowConfig,
    target: &Cluster,
) -> Result<Vec<PlannedChange>, StateError> {
    let Some(store) = StateStore::open_existing(target).await? else {
        return Ok(Vec::new());
    };
    if let Some(over) = failed_over(flow, &store)? {
        return Ok(vec![over]);
    }
    let on_delete = flow.metadata.on_delete;
    let gone = gone_topics(&store, &flow.name, on_delete, now_ms());
    let gone = gone.into_iter().map(|(_, drift)| drift);
    let held = metadata::held(&store, &flow.name)?;
    let held = held.into_iter().filter_map(waiting);
    let all = gone.chain(held);
    Ok(all
        .map(|drift| PlannedChange::drift(&flow.name, drift))
        .collect())
}

/// That a flow copies nothing, since its target isn't a standby: what differs there isn't to be undone.
fn failed_over(flow: &FlowConfig, store: &StateStore) -> Result<Option<PlannedChange>, StateError> {
    let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
    let Some(role) = role.filter(RoleRecord::stops_all) else {
        return Ok(None);
    };
    let since = to_the_second(role.since_ms);
    let detail = match role.primary {
        Primary::Target => format!("{} is the primary since {since}", flow.target),
        Primary::Promoting | Primary::Source => {
            format!("a cut-over is under way since {since}")
        }
    };
    Ok(Some(PlannedChange {
        kind: None,
        subject: "the whole flow".to_owned(),
        action: DriftAction::Leave.word().to_owned(),
        why: Some(format!(
            "nothing is copied to {}, and nothing is compared",
            flow.target
        )),
        counts: false,
        ..PlannedChange::topic(&flow.name, "", "", detail)
    }))
}

/// What waits for the failover, as a comparison would show it.
fn waiting(held: Held) -> Option<Drift> {
    let (kind, subject, detail, source, why) = match held {
        Held::Acl(acl) if acl.released => return None,
        Held::Acl(acl) => (
            DriftKind::Acl,
            acl.subject,
            acl.acl,
            acl.source,
            Some(acl.why),
        ),
        Held::Quota {
            subject,
            key,
            value,
            ..
        } => (DriftKind::Quota, subject, key, value.to_string(), None),
        Held::TopicConfig {
            subject,
            key,
            value,
            ..
        } => (DriftKind::TopicConfig, subject, key, value, None),
    };
    Some(Drift {
        kind,
        action: DriftAction::Hold,
        subject,
        detail,
        source: Some(source),
        target: None,
        why,
        failure: None,
    })
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

/// The copied topics that the source's list leaves out since they may not be described: nothing of them is compared.
async fn hidden(flow: &FlowConfig, source: &Cluster, unlisted: Vec<String>) -> Vec<PlannedChange> {
    if unlisted.is_empty() {
        return Vec::new();
    }
    let by_name = match source.metadata(Some(&unlisted)).await {
        Ok(by_name) => by_name,
        Err(error) => return vec![silent(flow, "source", error)],
    };
    let cluster = format!("source ({})", source.name());
    let hidden = unlisted.iter().filter_map(|topic| {
        let trouble = topics::is_gone(&by_name, &cluster, topic).err()?;
        let obstacle = Obstacle {
            kind: DriftKind::TopicConfig,
            cluster: "source".to_owned(),
            reason: trouble.reason().to_owned(),
            message: format!("topic {topic} is copied, and can't be seen: {trouble}"),
            hint: Some(trouble.hint().to_owned()),
            is_problem: true,
            since_ms: 0,
        };
        Some(PlannedChange::obstacle(&flow.name, obstacle))
    });
    hidden.collect()
}

async fn plan_flow(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
) -> Result<Vec<PlannedChange>, StateError> {
    let (source, target) = (cluster(source_section), cluster(target_section));
    let (from, to) = tokio::join!(source.metadata(None), target.metadata(None));
    let (from, to) = match (from, to) {
        (Ok(from), Ok(to)) => (from, to),
        (from, to) => {
            let source = from.err().map(|error| silent(flow, "source", error));
            let mut changes: Vec<PlannedChange> = source.into_iter().collect();
            match to {
                Ok(_) => changes.extend(target_alone(flow, &target).await?),
                Err(error) => changes.push(silent(flow, "target", error)),
            }
            return Ok(changes);
        }
    };
    if let Some(shared) = from.shared_with(&to) {
        let message = format!("source and target are the same cluster ({shared})");
        let same = not_told(
            flow,
            "target",
            "same_cluster",
            message,
            Some(SAME_CLUSTER_HINT),
        );
        return Ok(vec![same]);
    }
    let store = StateStore::open_existing(&target).await?.map(Arc::new);
    let role: Option<RoleRecord> = match &store {
        Some(store) => {
            if let Some(over) = failed_over(flow, store)? {
                return Ok(vec![over]);
            }
            store.get(&keys::role(&flow.name))?
        }
        None => None,
    };
    let is_copied = |topic: &str| {
        let not_copied = role.as_ref().and_then(RoleRecord::not_copied);
        not_copied.is_none_or(|topics| !topics.contains(topic))
    };
    let mut changes = Vec::new();
    let (mut copies, mut lacking) = (Vec::new(), Vec::new());
    let needs = store.as_deref();
    let needs = needs.map(|store| TopicNeeds::remembered(store, &flow.name));
    let needs = needs.unwrap_or_default();
    let mut begins = Vec::new();
    for (name, topic) in topics::selected(flow, &from) {
        if !is_copied(name) {
            continue;
        }
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
    if let Some(store) = &store {
        let prefix = keys::topic(&flow.name, "");
        let copied = store.keys(&prefix);
        let copied = copied.iter().filter_map(|key| key.strip_prefix(&*prefix));
        let unlisted = copied
            .map(str::to_owned)
            .filter(|name| flow.topics.matches(name) && is_copied(name) && !from.has_topic(name));
        changes.extend(hidden(flow, &source, unlisted.collect()).await);
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
        (Some(_), Some(known)) if wire::is_other_topic(known.source_topic_id, source.topic_id) => {
            change(
                "refuse",
                "the source topic was created again; see on_recreate".to_owned(),
            )
        }
        (Some(target), Some(known))
            if wire::is_other_topic(known.target_topic_id, target.topic_id) =>
        {
            change(
                "refuse",
                "the target topic was created again by someone else".to_owned(),
            )
        }
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
