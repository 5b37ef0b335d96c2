//! The partitions that are cut over, and their ends on both clusters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::CutoverError;
use crate::offsets::{OffsetMap, SourceOffset, TargetOffset, Translation};
use crate::state::keys::MapKeys;
use crate::state::{ContinuedLog, StateStore, TopicRecord, maps};
use crate::wire::{self, Cluster, Metadata, OffsetSpec, TopicPartition, WireError};

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
    /// Where the copy goes on in a log that was there before; 0 in any other.
    pub fn continued_at(&self) -> i64 {
        let base = |it: &Arc<ContinuedLog>| it.base(self.source.partition);
        self.continued.as_ref().map_or(0, base)
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

/// A partition that isn't served is asked for again so soon.
const AGAIN: Duration = Duration::from_millis(200);

/// Asks for one offset of each partition. One that isn't served, as right behind its creation or while its
/// leader moves, is asked for again: it would end a command that waits for its records anyway.
///
/// # Errors
/// When one of them isn't served for eight seconds, or doesn't answer within as many: it is named.
pub async fn ends(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
) -> Result<Offsets, CutoverError> {
    let began = Instant::now();
    let mut offsets = Offsets::with_capacity(partitions.len());
    let mut asked = partitions.to_vec();
    loop {
        let answers = wire::list_offsets_within(cluster, &asked, spec, PATIENCE).await;
        let may_wait = began.elapsed() < PATIENCE;
        asked.clear();
        for (partition, answer) in answers {
            match answer {
                Ok(offset) => {
                    offsets.insert(partition, offset);
                }
                Err(error) if may_wait && is_unserved(&error) => asked.push(partition),
                Err(error) => {
                    return Err(CutoverError::failed(format!(
                        "{partition} on {}: {error}",
                        cluster.name()
                    )));
                }
            }
        }
        if asked.is_empty() {
            return Ok(offsets);
        }
        tokio::time::sleep(AGAIN).await;
        // Where its leader isn't known it isn't asked for: only metadata tell. Without them, the next round says why.
        let within = PATIENCE.saturating_sub(began.elapsed());
        let topics = topics_of(&asked);
        let _ = timeout(cluster.or_longer(within), cluster.metadata(Some(&topics))).await;
    }
}

/// Whether a partition has no leader at this moment, or its leader doesn't know it yet.
fn is_unserved(error: &WireError) -> bool {
    use wire::ResponseError as E;
    matches!(
        error.server_code(),
        Some(E::UnknownTopicOrPartition | E::LeaderNotAvailable | E::NotLeaderOrFollower)
    )
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
    let answers = wire::list_offsets_within(cluster, partitions, spec, PATIENCE).await;
    let mut offsets = HashMap::with_capacity(answers.len());
    for (partition, answer) in answers {
        let offset = match answer {
            Ok(offset) => Some(offset),
            Err(error) if is_unserved(&error) => None,
            Err(error) => {
                let cluster = cluster.name();
                return Err(CutoverError::failed(format!(
                    "{partition} on {cluster}: {error}"
                )));
            }
        };
        offsets.insert(partition, offset);
    }
    Ok(offsets)
}

/// Who leads each of these, and since which epoch, as far as is known.
pub fn leaders(cluster: &Cluster, partitions: &[TopicPartition]) -> Vec<Option<(i32, i32)>> {
    let known = cluster.cached();
    let of = |at: &TopicPartition| known.leader(&at.topic, at.partition);
    partitions.iter().map(of).collect()
}

/// The first of the partitions that each broker leads.
pub fn one_of_each_leader(
    cluster: &Cluster,
    mut partitions: Vec<TopicPartition>,
) -> Vec<TopicPartition> {
    let known = cluster.cached();
    let mut leaders = std::collections::BTreeSet::new();
    partitions.retain(|at| {
        let leader = known.leader(&at.topic, at.partition);
        leader.is_some_and(|(leader, _)| leaders.insert(leader))
    });
    partitions
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

/// The topics of these partitions, each once.
pub fn topics_of(partitions: &[TopicPartition]) -> Vec<String> {
    let names: BTreeSet<&String> = partitions.iter().map(|at| &at.topic).collect();
    names.into_iter().cloned().collect()
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
