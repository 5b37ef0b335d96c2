//! `check` and `plan`: what stands in the way, and what `run` would do. Both only read.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sink::PRODUCE_VERSION_MIN;
use super::source::FETCH_VERSION_MIN;
use super::topics;
use crate::config::{Config, FlowConfig, OffsetsMode};
use crate::connect::{self, cluster};
use crate::groups::{self, Way};
use crate::state::{StateStore, TopicRecord, keys};
use crate::telemetry::finding::{Finding, Level, PlannedChange};
use crate::wire::{self, Cluster, Metadata, WireError};

/// How long a cluster may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

fn finding(level: Level, subject: &str, message: String, hint: Option<&str>) -> Finding {
    Finding {
        level,
        subject: subject.to_owned(),
        message,
        hint: hint.map(str::to_owned),
    }
}

/// What a cluster says, or why it says nothing and what can be done about it.
async fn metadata(cluster: &Cluster) -> Result<std::sync::Arc<Metadata>, (String, Option<String>)> {
    match tokio::time::timeout(ANSWER, cluster.metadata(None)).await {
        Ok(Ok(metadata)) => Ok(metadata),
        Ok(Err(error)) => Err((error.without_hint(), error.hint().map(str::to_owned))),
        Err(_) => Err((format!("no answer within {} s", ANSWER.as_secs()), None)),
    }
}

/// Looks at every cluster and flow of the config. Changes nothing.
pub async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeMap::new();
    for (name, section) in &config.clusters {
        let access = connect::Access::new(section);
        let cluster = access.cluster();
        let subject = format!("cluster {name}");
        findings.extend(connect::notes(section));
        match metadata(&cluster).await {
            Ok(metadata) => {
                findings.push(finding(
                    Level::Ok,
                    &subject,
                    format!(
                        "{} broker(s), {} topic(s), cluster id {}",
                        metadata.brokers.len(),
                        metadata.topics.len(),
                        metadata.cluster_id.as_deref().unwrap_or("unknown")
                    ),
                    None,
                ));
                check_connection(&access, &cluster, &subject, &mut findings).await;
                seen.insert(name.clone(), (cluster, metadata));
            }
            Err((error, hint)) => {
                let servers = section.bootstrap.join(", ");
                let message = format!("can't be reached at {servers}: {error}");
                let usual = "check bootstrap.servers and security.protocol, and that this machine may connect to it";
                let hint = hint.as_deref().unwrap_or(usual);
                findings.push(finding(Level::Error, &subject, message, Some(hint)));
            }
        }
    }
    for flow in config.flows.values() {
        if let (Some(source), Some(target)) = (seen.get(&flow.source), seen.get(&flow.target)) {
            check_flow(flow, source, target, &mut findings).await;
        }
    }
    findings
}

/// How the cluster is reached, by both clients, and the oldest protocol that the data path can use.
async fn check_connection(
    access: &connect::Access,
    cluster: &Cluster,
    subject: &str,
    findings: &mut Vec<Finding>,
) {
    let connection = match cluster.any_connection().await {
        Ok(connection) => connection,
        Err(error) => {
            findings.push(finding(Level::Error, subject, error.to_string(), None));
            return;
        }
    };
    findings.extend(connect::check(access, &connection).await);
    use kafka_protocol::messages::{FetchRequest, ProduceRequest};
    let fetch = connection.version::<FetchRequest>(i16::MAX).unwrap_or(-1);
    let produce = connection.version::<ProduceRequest>(i16::MAX).unwrap_or(-1);
    if fetch < FETCH_VERSION_MIN || produce < PRODUCE_VERSION_MIN {
        findings.push(finding(
            Level::Error,
            subject,
            format!(
                "speaks Fetch {fetch} and Produce {produce}; Fetch {FETCH_VERSION_MIN} and Produce {PRODUCE_VERSION_MIN} are needed"
            ),
            Some("Kafka 3.1 or later is needed"),
        ));
    }
}

type Seen = (Cluster, std::sync::Arc<Metadata>);

async fn check_flow(flow: &FlowConfig, source: &Seen, target: &Seen, findings: &mut Vec<Finding>) {
    let subject = format!("flow {}", flow.name);
    if source.1.cluster_id.is_some() && source.1.cluster_id == target.1.cluster_id {
        let message = "source and target are the same cluster".to_owned();
        findings.push(finding(
            Level::Error,
            &subject,
            message,
            Some("check the bootstrap addresses"),
        ));
        return;
    }
    let topics = topics::selected(flow, &source.1);
    let (level, hint) = if topics.is_empty() {
        (
            Level::Warning,
            Some(
                "check topics.include, and DESCRIBE on the topics for Twinlog's principal on the source",
            ),
        )
    } else {
        (Level::Ok, None)
    };
    findings.push(finding(
        level,
        &subject,
        format!("{} topic(s) selected", topics.len()),
        hint,
    ));
    match wire::probe_marker_right(&target.0).await {
        Ok(true) => {
            findings.push(finding(
                Level::Ok,
                &subject,
                "holes can be filled: offsets can be identical".to_owned(),
                None,
            ));
        }
        Ok(false) => {
            let level = if flow.offsets == OffsetsMode::Identical {
                Level::Error
            } else {
                Level::Warning
            };
            findings.push(finding(
                level,
                &subject,
                "holes can't be filled on the target, so offsets will be mapped, not identical"
                    .to_owned(),
                Some("grant CLUSTER_ACTION on the target cluster to Twinlog's principal"),
            ));
        }
        Err(error) => findings.push(finding(Level::Error, &subject, error.to_string(), None)),
    }
    if !flow.groups.include().is_empty() {
        for (cluster, side) in [(&source.0, "source"), (&target.0, "target")] {
            findings.push(check_groups(&subject, cluster, side).await);
        }
    }
}

/// How the groups of one cluster would be watched.
async fn check_groups(subject: &str, cluster: &Cluster, side: &str) -> Finding {
    match groups::way(cluster).await {
        Ok(Way::Tail) => finding(
            Level::Ok,
            subject,
            format!("groups on the {side} are followed as they commit"),
            None,
        ),
        Ok(Way::Poll) => finding(
            Level::Warning,
            subject,
            format!(
                "groups on the {side} ({}) are asked for every 0.25 to 5 s, since \
                 __consumer_offsets may not be read: commits take longer to be seen",
                cluster.name()
            ),
            Some(
                "grant READ and DESCRIBE on topic __consumer_offsets to Twinlog's principal there",
            ),
        ),
        Err(error) => finding(Level::Error, subject, error.to_string(), None),
    }
}

/// What `run` would create or change on the targets, by flow.
///
/// # Errors
/// When a cluster can't be reached or the state can't be read.
pub async fn plan(config: &Config) -> Result<Vec<PlannedChange>, WireError> {
    let mut changes = Vec::new();
    for flow in config.flows.values() {
        let (Some(source), Some(target)) = (
            config.clusters.get(&flow.source),
            config.clusters.get(&flow.target),
        ) else {
            continue;
        };
        let (source, target) = (cluster(source), cluster(target));
        let (from, to) = (source.metadata(None).await?, target.metadata(None).await?);
        let store = StateStore::open_existing(&target).await.ok().flatten();
        for (name, _) in topics::selected(flow, &from) {
            let known: Option<TopicRecord> = store
                .as_ref()
                .and_then(|store| store.get(&keys::topic(&flow.name, name)).ok().flatten());
            if let Some(change) = plan_topic(flow, name, &from, &to, known.as_ref()) {
                changes.push(change);
            }
        }
    }
    Ok(changes)
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
        Some(PlannedChange {
            flow: flow.name.clone(),
            action: action.to_owned(),
            subject: format!("topic {target_name}"),
            detail,
        })
    };
    let wanted = source.partitions.len();
    match (to.topics.get(&target_name), known) {
        (None, _) => change(
            "create",
            format!("{wanted} partition(s), then copy from the source"),
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
                "exists with {} partition(s); used only if it is empty",
                target.partitions.len()
            ),
        ),
        _ => None,
    }
}
