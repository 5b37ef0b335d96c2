//! The partitions that are cut over, and their ends on both clusters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::error::CutoverError;
use crate::offsets::{OffsetMap, SourceOffset, TargetOffset, Translation};
use crate::state::keys::MapKeys;
use crate::state::{ContinuedLog, StateStore, TopicRecord, maps};
use crate::wire::{self, Cluster, Metadata, OffsetSpec, TopicPartition};

/// A topic that is cut over.
#[derive(Clone, Debug)]
pub struct CutTopic {
    /// Its name on the source.
    pub name: String,
    /// What is remembered of it.
    pub record: TopicRecord,
}

/// One of its partitions.
#[derive(Clone, Debug)]
pub struct Pair {
    /// On the source.
    pub source: TopicPartition,
    /// On the target.
    pub target: TopicPartition,
    /// Where the copy begins.
    pub origin: i64,
    /// Whether it has begun. Of a partition that has had no leader so far nothing is copied.
    pub begun: bool,
    /// Whether a map tells the offsets.
    pub mapped: bool,
    /// Where the target's log was continued, if it was.
    pub continued: Option<Arc<ContinuedLog>>,
}

impl Pair {
    /// Whether a target offset is no further than where the copy goes on in a log that was there
    /// before: a position up to there is of the time when the target was the primary.
    pub fn is_before_the_copy(&self, target: i64) -> bool {
        let base = |it: &Arc<ContinuedLog>| it.base(self.source.partition);
        let base = self.continued.as_ref().map_or(0, base);
        base > 0 && target <= base
    }
}

/// All partitions of these topics.
pub fn pairs(topics: &[CutTopic]) -> Vec<Pair> {
    topics
        .iter()
        .flat_map(|topic| {
            let continued = topic.record.continued.clone().map(Arc::new);
            (0..)
                .zip(&topic.record.origins)
                .map(move |(number, origin)| Pair {
                    source: TopicPartition::new(&*topic.name, number),
                    target: TopicPartition::new(&*topic.record.target_topic, number),
                    origin: (*origin).max(0),
                    begun: *origin >= 0,
                    mapped: topic.record.is_mapped(number),
                    continued: continued.clone(),
                })
        })
        .collect()
}

/// How long a leader that doesn't answer is waited for: it holds up everybody else's cut-over.
const PATIENCE: Duration = Duration::from_secs(8);

/// Offsets by partition.
pub type Offsets = HashMap<TopicPartition, i64>;

/// Asks for one offset of each partition.
///
/// # Errors
/// When one of them doesn't answer: it is named.
pub async fn ends(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
) -> Result<Offsets, CutoverError> {
    let answers = wire::list_offsets_within(cluster, partitions, spec, PATIENCE).await;
    let mut offsets = Offsets::with_capacity(answers.len());
    for (partition, answer) in answers {
        let offset = answer.map_err(|error| {
            CutoverError::failed(format!("{partition} on {}: {error}", cluster.name()))
        })?;
        offsets.insert(partition, offset);
    }
    Ok(offsets)
}

/// The same, each partition with its own answer: who can't say stops nobody else.
pub async fn ends_or_why(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
) -> (Offsets, BTreeMap<TopicPartition, String>) {
    let answers = wire::list_offsets_within(cluster, partitions, spec, PATIENCE).await;
    let (mut offsets, mut silent) = (Offsets::with_capacity(answers.len()), BTreeMap::new());
    for (partition, answer) in answers {
        match answer {
            Ok(offset) => {
                offsets.insert(partition, offset);
            }
            Err(error) => {
                let why = format!("{partition} on {}: {error}", cluster.name());
                silent.insert(partition, why);
            }
        }
    }
    (offsets, silent)
}

/// The same; `None` for partitions that no broker serves at this moment, as right behind their creation.
pub async fn ends_if_served(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
) -> Result<HashMap<TopicPartition, Option<i64>>, CutoverError> {
    use wire::ResponseError as E;
    let answers = wire::list_offsets_within(cluster, partitions, spec, PATIENCE).await;
    let mut offsets = HashMap::with_capacity(answers.len());
    for (partition, answer) in answers {
        let offset = match answer {
            Ok(offset) => Some(offset),
            Err(error) => match error.server_code() {
                Some(
                    E::UnknownTopicOrPartition | E::LeaderNotAvailable | E::NotLeaderOrFollower,
                ) => None,
                _ => {
                    let cluster = cluster.name();
                    return Err(CutoverError::failed(format!(
                        "{partition} on {cluster}: {error}"
                    )));
                }
            },
        };
        offsets.insert(partition, offset);
    }
    Ok(offsets)
}

/// The first `most` partitions of a topic, as far as the cluster has them: who asks for others is
/// refused.
pub fn present(metadata: &Metadata, topic: &str, most: usize) -> Vec<TopicPartition> {
    let there = metadata.topics.get(topic);
    let count = there.map_or(0, |topic| topic.partitions.len().min(most));
    (0..)
        .take(count)
        .map(|number| TopicPartition::new(topic, number))
        .collect()
}

/// The source's names of these partitions.
pub fn on_source(pairs: &[Pair]) -> Vec<TopicPartition> {
    pairs.iter().map(|pair| pair.source.clone()).collect()
}

/// The target's names of these partitions.
pub fn on_target(pairs: &[Pair]) -> Vec<TopicPartition> {
    pairs.iter().map(|pair| pair.target.clone()).collect()
}

/// The stored maps of the mapped partitions, by source partition.
pub type Maps = HashMap<TopicPartition, OffsetMap>;

/// Loads the maps of those that have one.
///
/// # Errors
/// When one can't be read.
pub fn load_maps(store: &StateStore, flow: &str, pairs: &[Pair]) -> Result<Maps, CutoverError> {
    let mut loaded = Maps::new();
    for pair in pairs.iter().filter(|pair| pair.mapped) {
        if !pair.begun {
            let empty = OffsetMap::starting_at(SourceOffset(0), TargetOffset(0));
            loaded.insert(pair.source.clone(), empty);
            continue;
        }
        let keys = MapKeys::new(flow, &pair.source.topic, pair.source.partition);
        let map = maps::load(store, &keys)?.ok_or_else(|| {
            CutoverError::failed(format!("the offset map of {} is missing", pair.source))
        })?;
        loaded.insert(pair.source.clone(), map);
    }
    Ok(loaded)
}

/// The first source offset that isn't on the target, given the target's log end.
pub fn copied_end(pair: &Pair, target_end: i64, maps: &Maps) -> i64 {
    match maps.get(&pair.source) {
        Some(map) => map.source_end().0,
        // While a prefix is being burned nothing of the source is copied.
        None => target_end.max(pair.origin),
    }
}

/// Where a source position is on the target; `None` where nothing exact can be said.
pub fn translate(pair: &Pair, target_end: i64, maps: &Maps, position: i64) -> Option<i64> {
    match maps.get(&pair.source) {
        Some(map) => match map.translate(SourceOffset(position)) {
            Translation::Exact(offset) => Some(offset.0),
            // Before the copy's beginning its beginning is the next record.
            Translation::BeforeStart { .. } => Some(map.target_start().0),
            Translation::NotYetCopied { .. } => None,
        },
        None if position > target_end => None,
        None => {
            let position = position.max(pair.origin);
            let continued = pair.continued.as_ref();
            let past = |it: &Arc<ContinuedLog>| it.past_strangers(pair.source.partition, position);
            Some(continued.map_or(position, past))
        }
    }
}
