//! Where each partition's copy begins, as far as its leaders say.
//!
//! A partition without a leader stops only itself: its record says how its origin is to be found
//! (`TopicRecord::origins`), and that is done when it has a leader. Of a target topic that we didn't
//! make, every partition must have been empty before its copy begins: a partition that can't say so
//! waits in the same way.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::error::Trouble;
use super::shared::Flow;
use super::topics::{self, Found};
use crate::config::{OffsetsMode, Start};
use crate::state::TopicRecord;
use crate::wire::{self, Cluster, OffsetSpec, TopicMetadata, TopicPartition, WireError};

/// How long the others of a topic wait for a broker that doesn't answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a partition's copy can't begin yet.
pub(super) type Waiting = BTreeMap<i32, Trouble>;

/// The origins of a topic that is new to the flow, one for each partition.
///
/// # Errors
/// When no partition at all can begin, or the target topic isn't empty.
pub(super) async fn first(
    flow: &Flow,
    found: &Found<'_>,
    target: Option<(&str, &TopicMetadata)>,
) -> Result<(Vec<i64>, Waiting), Trouble> {
    let spec = match flow.config.start {
        Start::Latest if found.at_first_look => OffsetSpec::LatestStable,
        _ => OffsetSpec::Earliest,
    };
    let numbers: Vec<i32> = found.source.partitions.iter().map(|it| it.index).collect();
    let (starts, empty) = tokio::join!(
        ask(&flow.source, found.name, &numbers, spec),
        emptiness(flow, target, |_| true)
    );
    let answers: Vec<(i32, Result<i64, Trouble>)> = numbers
        .iter()
        .map(|&number| (number, both(&starts, &empty, number)))
        .collect();
    if let Some((_, Err(trouble))) = answers
        .iter()
        .find(|(_, answer)| matches!(answer, Err(Trouble::TargetNotEmpty)))
    {
        return Err(trouble.clone());
    }
    if let Some((_, Err(trouble))) = answers.first()
        && answers.iter().all(|(_, answer)| answer.is_err())
    {
        return Err(trouble.clone());
    }
    let mut waiting = Waiting::new();
    let origins = answers.into_iter().map(|(number, answer)| {
        answer.unwrap_or_else(|trouble| {
            waiting.insert(number, trouble);
            spec.timestamp()
        })
    });
    Ok((origins.collect(), waiting))
}

/// Finds origins that weren't known when the copy of the topic began. Returns why the others still
/// wait.
pub(super) async fn learn(flow: &Flow, found: &Found<'_>, record: &mut TopicRecord) -> Waiting {
    let mut waiting = Waiting::new();
    let unknown = record.unknown_origins();
    if unknown.is_empty() {
        return waiting;
    }
    let of = |spec: OffsetSpec| -> Vec<i32> {
        let asked = unknown.iter().filter(|it| it.1 == spec.timestamp());
        asked.map(|(number, _)| *number).collect()
    };
    let target = found.target.filter(|_| !record.created);
    let (earliest, latest) = (of(OffsetSpec::Earliest), of(OffsetSpec::LatestStable));
    let (mut starts, ends, empty) = tokio::join!(
        ask(&flow.source, found.name, &earliest, OffsetSpec::Earliest),
        ask(&flow.source, found.name, &latest, OffsetSpec::LatestStable),
        emptiness(
            flow,
            target.map(|it| (record.target_topic.as_str(), it)),
            |number| unknown.iter().any(|it| it.0 == number)
        )
    );
    starts.extend(ends);
    for (number, _) in unknown {
        let answer = both(&starts, &empty, number).and_then(|origin| within(flow, record, origin));
        match (answer, usize::try_from(number)) {
            (Ok((origin, why_mapped)), Ok(index)) => {
                record.origins[index] = origin;
                let turned = why_mapped.map(|reason| topics::begun_mapped(origin, reason));
                record.turned.extend(turned.map(|it| (number, it)));
            }
            (Err(trouble), _) => {
                waiting.insert(number, trouble);
            }
            (Ok(_), Err(_)) => {}
        }
    }
    waiting
}

/// A partition that begins too high is mapped by itself.
fn within(flow: &Flow, record: &TopicRecord, origin: i64) -> Result<Origin, Trouble> {
    let reason = topics::beyond_burn_limit(&flow.config, origin).filter(|_| !record.mapped);
    match reason {
        Some(_) if flow.config.offsets == OffsetsMode::Identical => Err(Trouble::BeyondBurnLimit {
            origin,
            limit: flow.config.burn_limit,
        }),
        reason => Ok((origin, reason)),
    }
}

/// Where a partition begins, and why it is mapped from there if the topic isn't.
type Origin = (i64, Option<String>);

type Answers = HashMap<i32, Result<i64, Trouble>>;

/// A partition's origin, if its counterpart is empty.
fn both(starts: &Answers, empty: &Answers, number: i32) -> Result<i64, Trouble> {
    match empty.get(&number) {
        Some(Ok(0)) | None => {}
        Some(Ok(_)) => return Err(Trouble::TargetNotEmpty),
        Some(Err(trouble)) => return Err(trouble.clone()),
    }
    let unheard = || Trouble::NoLeader {
        cluster: "source".to_owned(),
    };
    let answer = starts.get(&number).cloned();
    answer.unwrap_or_else(|| Err(unheard()))
}

/// The log ends of a target topic that was there before us.
async fn emptiness(
    flow: &Flow,
    target: Option<(&str, &TopicMetadata)>,
    is_asked: impl Fn(i32) -> bool,
) -> Answers {
    let Some((name, topic)) = target else {
        return Answers::new();
    };
    let numbers = topic.partitions.iter().map(|it| it.index);
    let numbers: Vec<i32> = numbers.filter(|number| is_asked(*number)).collect();
    ask(&flow.target, name, &numbers, OffsetSpec::Latest).await
}

async fn ask(cluster: &Cluster, topic: &str, numbers: &[i32], spec: OffsetSpec) -> Answers {
    let asked: Vec<TopicPartition> = numbers
        .iter()
        .map(|&number| TopicPartition::new(topic, number))
        .collect();
    let answers = wire::list_offsets_within(cluster, &asked, spec, PATIENCE).await;
    answers
        .into_iter()
        .map(|(at, answer)| {
            let answer = answer.map_err(|error| why(cluster, &at, error));
            (at.partition, answer)
        })
        .collect()
}

/// A partition without a leader is told from one whose leader doesn't answer.
fn why(cluster: &Cluster, at: &TopicPartition, error: WireError) -> Trouble {
    match cluster.cached().leader(&at.topic, at.partition) {
        None if error.is_retriable() => Trouble::NoLeader {
            cluster: cluster.name().to_owned(),
        },
        _ => Trouble::Wire(error),
    }
}
