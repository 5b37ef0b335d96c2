//! `check`: what stands in the way. It only reads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::error::{NO_TOPIC_ID_HINT, SAME_CLUSTER_HINT};
use super::protect;
use super::rights;
use super::sink::PRODUCE_VERSION_MIN;
use super::source::{self, FETCH_VERSION_MIN};
use super::state_topic;
use super::supervisor;
use super::topics;
use crate::config::{Config, FlowConfig, RATE_HINT};
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

/// The same of a whole cluster.
const SILENT_CLUSTER: &str =
    "it takes connections and doesn't answer: see whether its brokers hang, or are still starting";

/// What a bootstrap address that leads nowhere means.
const DEAD_ADDRESS: &str = "clients begin with the other addresses of bootstrap.servers: take this one out, or see why it leads nowhere";

pub(super) fn finding(level: Level, subject: &str, message: String, hint: Option<&str>) -> Finding {
    Finding {
        level,
        subject: subject.to_owned(),
        message,
        hint: hint.map(str::to_owned),
    }
}

/// What a cluster says, or why it says nothing and what can be done about it.
async fn metadata(cluster: &Cluster) -> Result<std::sync::Arc<Metadata>, (String, String)> {
    match cluster.metadata_if_there(ANSWER).await {
        Ok(Ok(metadata)) => Ok(metadata),
        Ok(Err(error)) => {
            // With one address there is one reason; who it is about is said already.
            let error = error.of_one();
            Err((error.without_hint(), error.cure().to_owned()))
        }
        Err(_) => {
            let message = format!("no answer within {} s", ANSWER.as_secs());
            Err((message, SILENT_CLUSTER.to_owned()))
        }
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
                        "{}, {}, {}",
                        counted(metadata.brokers.len(), "broker"),
                        counted(metadata.topics.len(), "topic"),
                        id_of(&metadata)
                    ),
                    None,
                ));
                check_connection(&access, &cluster, &subject, &mut findings).await;
                findings.extend(check_bootstrap(&cluster, &subject).await);
                check_brokers(&cluster, &metadata, &subject, &mut findings).await;
                findings.extend(check_buffers(&cluster, &metadata, &subject).await);
                seen.insert(name.clone(), (cluster, metadata));
            }
            Err((error, hint)) => {
                // Whose error it is stands before the line already, and where is in it.
                let own = format!("cluster {name}, ");
                let error = error.strip_prefix(&own).unwrap_or(&error);
                let message = match section.bootstrap.as_slice() {
                    [_] => format!("can't be reached: {error}"),
                    several => format!("can't be reached at {}: {error}", several.join(", ")),
                };
                findings.push(finding(Level::Error, &subject, message, Some(&hint)));
            }
        }
    }
    for flow in config.flows.values() {
        findings.extend(slow(flow));
        let (source, target) = (
            &config.clusters[&flow.source],
            &config.clusters[&flow.target],
        );
        findings.extend(connect::shared_endpoints(source, target));
        if let (Some(source), Some(target)) = (seen.get(&flow.source), seen.get(&flow.target)) {
            check_flow(flow, source, target, &mut findings);
            let has_rack = source.0.config().client_rack.is_some();
            findings.push(connections(flow, has_rack));
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

fn id_of(metadata: &Metadata) -> String {
    match &metadata.cluster_id {
        Some(id) => format!("cluster id {id}"),
        None => {
            "no cluster id: another cluster under its addresses wouldn't be told from it".to_owned()
        }
    }
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
            format!("up to {:.1} MB/s", bytes as f64 / seconds / 1e6)
        }
    };
    format!(
        "round trip {:.1} ms: one connection fetches {} ({SEND_BUFFER} {send}) and produces {} \
         ({RECEIVE_BUFFER} {receive}); limits.connections_per_broker says how many there may be",
        round_trip.as_secs_f64() * 1e3,
        carries(send),
        carries(receive),
    )
}

/// Each of the addresses that clients begin with: one that leads nowhere costs them time whenever they begin.
async fn check_bootstrap(cluster: &Cluster, subject: &str) -> Vec<Finding> {
    if cluster.config().bootstrap.len() < 2 {
        // It has answered.
        return Vec::new();
    }
    let problems = cluster.bootstrap_problems(ANSWER).await.into_iter();
    let problems = problems.map(|error| {
        let hint = error.hint().unwrap_or(DEAD_ADDRESS);
        finding(Level::Warning, subject, error.without_hint(), Some(hint))
    });
    problems.collect()
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
            Ok(Err(error)) => (Level::Warning, error.without_hint(), Some(error.cure())),
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
            Some(SAME_CLUSTER_HINT),
        ));
        return;
    }
    let topics = topics::selected(flow, &source.1);
    // Without any, the look at the rights says why.
    if !topics.is_empty() {
        let message = format!("{} selected", counted(topics.len(), "topic"));
        findings.push(finding(Level::Ok, &subject, message, None));
    }
    findings.extend(without_ids(flow, &source.1, &target.1));
}

/// Topics that can't be told from others of the same name: the source's aren't fetched then, and what becomes of copies
/// that somebody makes anew isn't noticed at once.
fn without_ids(flow: &FlowConfig, source: &Metadata, target: &Metadata) -> Vec<Finding> {
    let has_none = |metadata: &Metadata, name: &String| {
        let topic = metadata.topics.get(name);
        topic.is_some_and(|it| it.error.is_none() && it.topic_id.is_nil())
    };
    let names = topics::selected_topics(flow, source).into_iter();
    let names: Vec<String> = names.map(|(name, _)| name).collect();
    let copies: Vec<String> = names
        .iter()
        .map(|name| flow.rename.apply(&flow.source, name))
        .collect();
    let sides = [
        (
            Level::Error,
            &flow.source,
            source,
            names,
            "nothing of them is copied",
        ),
        (
            Level::Warning,
            &flow.target,
            target,
            copies,
            "one that is deleted and made again is found by its log's end only",
        ),
    ];
    let subject = format!("flow {}", flow.name);
    let found = sides
        .into_iter()
        .filter_map(|(level, cluster, metadata, names, so)| {
            let count = names.iter().filter(|name| has_none(metadata, name)).count();
            let message = format!("{cluster} tells no id of {}: {so}", counted(count, "topic"));
            (count > 0).then(|| finding(level, &subject, message, Some(NO_TOPIC_ID_HINT)))
        });
    found.collect()
}

/// A rate at which hardly anything is copied.
fn slow(flow: &FlowConfig) -> Option<Finding> {
    let doubt = flow.limits.doubt()?;
    let subject = format!("flow {}", flow.name);
    Some(finding(Level::Warning, &subject, doubt, Some(RATE_HINT)))
}

/// How many connections there may be: brokers and their providers have limits, and who is turned away for one often hears
/// something else.
fn connections(flow: &FlowConfig, has_rack: bool) -> Finding {
    let subject = format!("flow {}", flow.name);
    let most = usize::from(flow.limits.connections_per_broker);
    // Sessions that want the leader although a rack is told are others than those that read from the nearest replica.
    let kinds = if has_rack { 2 } else { 1 };
    let source = kinds * (most + source::SPECIAL.len()) + Role::asking_source();
    let twice = if has_rack {
        ", and as many from the leader beside client.rack"
    } else {
        ""
    };
    let target = most + supervisor::LANES_BESIDE.len() + Role::asking_target();
    let message = format!(
        "at most {source} connections to each broker of {}, and {target} to each of {}: {most} copy \
         (limits.connections_per_broker{}), the others ask questions, or copy partitions that need one of their own",
        flow.source, flow.target, twice
    );
    finding(Level::Ok, &subject, message, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_are_counted() {
        let text = "clusters:\n  a: { bootstrap.servers: 'h:1' }\n  b: { bootstrap.servers: 'h:2' }\n\
                    flows:\n  dr: { source: a, target: b, limits: { connections_per_broker: 8 } }\n";
        let config = crate::config::parse(text, "t.yaml").unwrap_or_else(|e| panic!("{e}"));
        let said = connections(&config.flows["dr"], false).message;
        // Six that ask, those out of room and remote storage; nine that ask and slow replicas.
        assert!(said.contains("at most 16 connections"), "{said}");
        assert!(said.contains("and 18 to each of b"), "{said}");
        // All that copy, for the nearest replica and for the leader.
        let said = connections(&config.flows["dr"], true).message;
        assert!(said.contains("at most 26 connections"), "{said}");
    }

    #[test]
    fn buffers_and_distance_make_a_ceiling() {
        let far = buffers(102_400, 65_536, Duration::from_millis(200));
        assert!(far.contains("round trip 200.0 ms"), "{far}");
        assert!(
            far.contains("fetches up to 0.5 MB/s (socket.send.buffer.bytes 102400)"),
            "{far}"
        );
        assert!(
            far.contains("produces up to 0.3 MB/s (socket.receive.buffer.bytes 65536)"),
            "{far}"
        );
        let tuned = buffers(-1, -1, Duration::from_millis(200));
        assert!(
            tuned.contains("fetches as much as the line does"),
            "{tuned}"
        );
    }
}
