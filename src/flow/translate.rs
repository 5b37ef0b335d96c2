//! Offsets of one partition on both clusters, from what is kept on the target alone.

use kafka_protocol::ResponseError;

use crate::config::{ClusterSection, FlowConfig};
use crate::connect::cluster;
use crate::offsets::{MapError, OffsetMap, SourceOffset, TargetOffset, Translation};
use crate::state::keys::{self, MapKeys};
use crate::state::{StateError, StateStore, TopicRecord, maps};
use crate::wire::{self, OffsetSpec, TopicPartition, WireError};

/// Why a partition's offsets can't be translated.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TranslateError {
    /// The target has no state of any flow.
    #[error("the target has no Twinlog state: `twinlog run` never ran")]
    NoState,
    /// This flow doesn't copy the topic.
    #[error("flow {flow} has never copied topic {topic} (use its name on the source)")]
    NoTopic {
        /// The flow.
        flow: String,
        /// The topic.
        topic: String,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has {partitions} partition(s), there is no partition {partition}")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
        /// How many there are.
        partitions: usize,
    },
    /// The partition's map is missing.
    #[error("the offset map of {0} is missing in the state")]
    NoMap(TopicPartition),
    /// The state can't be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The target didn't answer.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl TranslateError {
    /// What to look at, where the target isn't reached.
    pub fn cure_if_not_reached(&self) -> Option<&str> {
        match self {
            Self::State(error) => error.cure_if_not_reached(),
            Self::Wire(error) => error.cure_if_not_reached(),
            _ => None,
        }
    }
}

/// What is known about one partition's offsets.
#[derive(Clone, Debug)]
pub struct PositionMap {
    map: OffsetMap,
    mapped: bool,
}

/// A position on the other cluster, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translated {
    /// Reading on from here meets the same records.
    Exact(i64),
    /// Past the end of the copy, which is this, on the side asked about.
    NotYetCopied(i64),
    /// Before the beginning of the copy, which is this, on the side asked about.
    BeforeStart(i64),
}

impl PositionMap {
    /// Whether a map is kept; otherwise offsets are identical.
    pub fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// Translates a source offset, or with `reverse` a target offset.
    pub fn translate(&self, offset: i64, reverse: bool) -> Translated {
        if reverse {
            match self.map.reverse(TargetOffset(offset)) {
                Translation::Exact(SourceOffset(offset)) => Translated::Exact(offset),
                Translation::NotYetCopied { copied_end } => Translated::NotYetCopied(copied_end.0),
                Translation::BeforeStart { first } => Translated::BeforeStart(first.0),
            }
        } else {
            match self.map.translate(SourceOffset(offset)) {
                Translation::Exact(TargetOffset(offset)) => Translated::Exact(offset),
                Translation::NotYetCopied { copied_end } => Translated::NotYetCopied(copied_end.0),
                Translation::BeforeStart { first } => Translated::BeforeStart(first.0),
            }
        }
    }
}

/// Reads what the target knows about a partition, `topic` by its name on the source. Where offsets
/// are identical that is the log itself, as it is now; a map is as it was stored last (every 5 s
/// while a flow runs, and when it ends).
///
/// # Errors
/// When the flow never copied the partition, or the target can't be read.
pub async fn position_map(
    flow: &FlowConfig,
    target: &ClusterSection,
    topic: &str,
    partition: i32,
) -> Result<PositionMap, TranslateError> {
    let cluster = cluster(target);
    let map_keys = MapKeys::new(&flow.name, topic, partition);
    let store = StateStore::open_with_map(&cluster, &map_keys)
        .await?
        .ok_or(TranslateError::NoState)?;
    let record: TopicRecord =
        store
            .get(&keys::topic(&flow.name, topic))?
            .ok_or_else(|| TranslateError::NoTopic {
                flow: flow.name.clone(),
                topic: topic.to_owned(),
            })?;
    let origin = usize::try_from(partition)
        .ok()
        .and_then(|index| record.origins.get(index).copied())
        .ok_or_else(|| TranslateError::NoPartition {
            topic: topic.to_owned(),
            partition,
            partitions: record.origins.len(),
        })?;
    let place = TopicPartition::new(&*record.target_topic, partition);
    if record.is_mapped(partition) {
        let map = maps::load(&store, &map_keys)?.ok_or(TranslateError::NoMap(place))?;
        return Ok(PositionMap { map, mapped: true });
    }
    let asked = [place.clone()];
    let mut ends = wire::list_offsets(&cluster, &asked, OffsetSpec::Latest).await;
    let end = ends.remove(&place).unwrap_or_else(|| {
        let context = wire::ErrorContext::cluster(cluster.name());
        Err(WireError::server(
            context,
            ResponseError::LeaderNotAvailable,
            None,
        ))
    })?;
    let map =
        identity(&record, partition, origin.max(0), end).map_err(|error| StateError::Value {
            key: place.to_string(),
            reason: error.to_string(),
        })?;
    Ok(PositionMap { map, mapped: false })
}

/// The same offsets on both sides, but where only the target has something.
pub(super) fn identity(
    record: &TopicRecord,
    partition: i32,
    origin: i64,
    end: i64,
) -> Result<OffsetMap, MapError> {
    let mut map = OffsetMap::identity_from(SourceOffset(origin));
    let continued = record.continued.as_ref();
    let strangers = continued.map_or(&[][..], |it| it.only_on_target(partition));
    let advance_to = |map: &mut OffsetMap, to: i64| {
        // While a prefix is still being burned nothing of the source is copied yet.
        map.advance(u64::try_from(to - map.source_end().0).unwrap_or(0))
    };
    for (from, to) in strangers
        .iter()
        .filter(|(from, to)| origin <= *from && *to <= end)
    {
        advance_to(&mut map, *from)?;
        map.continue_at(SourceOffset(*to), TargetOffset(*to))?;
    }
    advance_to(&mut map, end)?;
    Ok(map)
}
