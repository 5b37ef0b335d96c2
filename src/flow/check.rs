//! `check`: what stands in the way. It only reads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::protect;
use super::rights;
use super::sink::PRODUCE_VERSION_MIN;
use super::source::FETCH_VERSION_MIN;
use super::state_topic;
use super::topics;
use crate::config::{Config, FlowConfig};
use crate::connect;
use crate::metadata::{WHY_UNTIERED, is_untiered};
use crate::telemetry::finding::{Finding, Level, counted};
use crate::wire::{self, Cluster, Metadata, Role, WireError};
use tokio::task::JoinSet;

/// How long a cluster may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Settings of brokers that bound what may be on the way of one connection, from and to them.
const SEND_BUFFER: &str = "socket.send.buffer.bytes";
/// See [`SEND_BUFFER`].
const RECEIVE_BUFFER: &str = "socket.receive.buffer.bytes";

/// What can be done about a broker that takes a connection and says nothing.
const SILENT_BROKER: &str = "what it leads isn't copied meanwhile: see whether it hangs, and whether something between here and \
     its advertised address keeps packets back";

pub(super) fn finding(level: Level, subject: &str, message: String, hint: Option<&str>) -> Finding {
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
        Ok(Err(error)) => {
            // With one address there is one reason; who it is about is said already.
            let error = match error {
                WireError::Unreachable {
                    attempts: 1, last, ..
                } => *last,
                error => error,
            };
            Err((error.without_hint(), error.hint().map(str::to_owned)))
        }
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
                        "{}, {}, cluster id {}",
                        counted(metadata.brokers.len(), "broker"),
                        counted(metadata.topics.len(), "topic"),
                        metadata.cluster_id.as_deref().unwrap_or("unknown")
                    ),
                    None,
                ));
                check_connection(&access, &cluster, &subject, &mut findings).await;
                check_brokers(&cluster, &metadata, &subject, &mut findings).await;
                findings.extend(check_buffers(&cluster, &metadata, &subject).await);
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
            check_flow(flow, source, target, &mut findings);
            let (from, to) = ((&source.0, &*source.1), (&target.0, &*target.1));
            findings.extend(rights::check(config, flow, from, to).await);
            findings.extend(untiered(flow, source, target).await);
            findings.extend(unprotected(flow, &target.0).await);
        }
    }
    let targets: BTreeSet<&String> = config.flows.values().map(|flow| &flow.target).collect();
    for target in targets {
        if let Some((cluster, metadata)) = seen.get(target) {
            findings.extend(state_topic::check(cluster, metadata).await);
        }
    }
    findings
}

/// Whether copies can be protected where that is asked for.
async fn unprotected(flow: &FlowConfig, target: &Cluster) -> Option<Finding> {
    if !flow.protect {
        return None;
    }
    let subject = format!("flow {}", flow.name);
    let found = tokio::time::timeout(ANSWER, protect::obstacle(target)).await;
    let problem = found.unwrap_or_else(|_| Some("the target doesn't tell its ACLs".to_owned()))?;
    let hint = "without it `protect: true` does nothing; set it to false to go without";
    let message = format!("copies can't be protected: {problem}");
    Some(finding(Level::Error, &subject, message, Some(hint)))
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

/// What one connection to the cluster carries over that distance. A broker that tells no settings needs no word.
async fn check_buffers(cluster: &Cluster, metadata: &Metadata, subject: &str) -> Option<Finding> {
    let broker = *metadata.brokers.keys().min()?;
    let asked = async {
        let connection = cluster.connection(broker, Role::Admin).await?;
        let values = wire::describe_broker_config(cluster, broker).await?;
        Ok::<_, WireError>((connection.round_trip(), values))
    };
    let (round_trip, values) = tokio::time::timeout(ANSWER, asked).await.ok()?.ok()?;
    let of = |key: &str| {
        let value = values.get(key).and_then(|it| it.value.as_ref());
        value.and_then(|it| it.parse::<i64>().ok())
    };
    let (send, receive) = (of(SEND_BUFFER)?, of(RECEIVE_BUFFER)?);
    let message = buffers(send, receive, round_trip);
    Some(finding(Level::Ok, subject, message, None))
}

/// What a broker's socket buffers mean at this distance, in words.
fn buffers(send: i64, receive: i64, round_trip: Duration) -> String {
    let carries = |bytes: i64| match u64::try_from(bytes) {
        // -1: the system's own tuning.
        Err(_) | Ok(0) => "as much as the line does".to_owned(),
        Ok(bytes) => {
            let seconds = round_trip.as_secs_f64().max(1e-4);
            format!("{:.1} MB/s", bytes as f64 / seconds / 1e6)
        }
    };
    format!(
        "{:.1} ms there and back: fetching, one connection carries {} ({SEND_BUFFER} {send}), producing {} \
         ({RECEIVE_BUFFER} {receive}); limits.connections_per_broker says how many there may be",
        round_trip.as_secs_f64() * 1e3,
        carries(send),
        carries(receive),
    )
}

/// Each broker at the address that it advertises: clients are sent there, and it may lead nowhere, or to
/// another cluster.
async fn check_brokers(
    cluster: &Cluster,
    metadata: &Metadata,
    subject: &str,
    findings: &mut Vec<Finding>,
) {
    let mut tasks = JoinSet::new();
    for (id, broker) in &metadata.brokers {
        let (cluster, id, address) = (cluster.clone(), *id, broker.address());
        tasks.spawn(async move {
            let connecting = cluster.connection(id, Role::Admin);
            let answer = tokio::time::timeout(ANSWER, connecting).await;
            (id, address, answer)
        });
    }
    let mut answers = tasks.join_all().await;
    answers.sort_unstable_by_key(|(id, ..)| *id);
    for (id, address, answer) in answers {
        let (level, message, hint) = match &answer {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) if error.is_other_cluster() => {
                (Level::Error, error.without_hint(), error.hint())
            }
            Ok(Err(error)) => (Level::Warning, error.without_hint(), error.hint()),
            Err(_) => {
                let seconds = ANSWER.as_secs();
                let message = format!("broker {id} ({address}) doesn't answer within {seconds} s");
                (Level::Warning, message, Some(SILENT_BROKER))
            }
        };
        findings.push(finding(level, subject, message, hint));
    }
}

/// Topics whose old records the source has in tiered storage, and the target will have on its disks.
async fn untiered(flow: &FlowConfig, source: &Seen, target: &Seen) -> Option<Finding> {
    let selected = topics::selected_topics(flow, &source.1).into_iter();
    let (names, copies): (Vec<String>, Vec<String>) = selected
        .map(|(name, _)| {
            let copy = flow.rename.apply(&flow.source, &name);
            (name, copy)
        })
        .unzip();
    let there: Vec<String> = copies
        .iter()
        .filter(|copy| target.1.has_topic(copy))
        .cloned()
        .collect();
    let (on_source, on_target) = tokio::join!(
        wire::describe_topic_configs(&source.0, &names),
        wire::describe_topic_configs(&target.0, &there),
    );
    let rules = &flow.metadata.configs;
    let found = names.iter().zip(&copies).filter(|(name, copy)| {
        let from = on_source.get(*name).and_then(|it| it.as_ref().ok());
        let to = on_target.get(*copy).and_then(|it| it.as_ref().ok());
        from.is_some_and(|from| is_untiered(from, to, rules))
    });
    let found: Vec<&str> = found.map(|(name, _)| name.as_str()).collect();
    let first = found.first()?;
    let others = match found.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let message = format!("{first}{others}: {WHY_UNTIERED}");
    let subject = format!("flow {}", flow.name);
    Some(finding(Level::Warning, &subject, message, None))
}

type Seen = (Cluster, std::sync::Arc<Metadata>);

fn check_flow(flow: &FlowConfig, source: &Seen, target: &Seen, findings: &mut Vec<Finding>) {
    let subject = format!("flow {}", flow.name);
    if source.1.shared_with(&target.1).is_some() {
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
    // Without any, the look at the rights says why.
    if !topics.is_empty() {
        let message = format!("{} selected", counted(topics.len(), "topic"));
        findings.push(finding(Level::Ok, &subject, message, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_and_distance_make_a_ceiling() {
        let far = buffers(102_400, 65_536, Duration::from_millis(200));
        assert!(far.contains("200.0 ms there and back"), "{far}");
        assert!(
            far.contains("carries 0.5 MB/s (socket.send.buffer.bytes 102400)"),
            "{far}"
        );
        assert!(
            far.contains("producing 0.3 MB/s (socket.receive.buffer.bytes 65536)"),
            "{far}"
        );
        let tuned = buffers(-1, -1, Duration::from_millis(200));
        assert!(
            tuned.contains("carries as much as the line does"),
            "{tuned}"
        );
    }
}
