//! Which partitions are copies of which, from the state topic.

use std::sync::Arc;

use crate::config::FlowConfig;
use crate::state::keys::{self, MapKeys};
use crate::state::{SeenRecord, StateError, StateStore, TopicRecord, maps, missed_by};
use crate::telemetry::up_to_date::MissedDeletes;

use super::board::Side;
use super::digest::Hasher;
use super::link::Link;

/// One copied partition.
#[derive(Clone, Debug)]
pub struct Place {
    /// The topic by its name on the source.
    pub topic: String,
    /// Its name on the target.
    pub target_topic: String,
    /// The partition.
    pub partition: i32,
    /// The source offset at which the copy begins.
    pub origin: i64,
    /// How offsets belong together.
    pub link: Link,
    /// Whether it was begun by going on with what was there: its beginning isn't the source's then.
    pub is_continued: bool,
    /// Offsets of records that only the source has, or only the target: what was stranded there by
    /// an unplanned failover, and stayed.
    pub strangers: Arc<Strangers>,
    /// The first source offset that wasn't copied when that was last stored.
    pub copied_to: Option<i64>,
    /// Deletes of the source that the copy may have missed.
    pub missed_deletes: Option<MissedDeletes>,
}

/// Offsets that one side alone has: the first one and the first one behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strangers {
    /// Source offsets.
    pub on_source: Vec<(i64, i64)>,
    /// Target offsets.
    pub on_target: Vec<(i64, i64)>,
}

impl Place {
    /// The topic's name on a side.
    pub(super) fn on(&self, side: Side) -> &str {
        match side {
            Side::Source => &self.topic,
            Side::Target => &self.target_topic,
        }
    }

    /// A number that tells partitions apart, the same in every run.
    pub(super) fn salt(&self) -> u64 {
        Hasher::new(0).bytes(Some(
            format!("{}-{}", self.topic, self.partition).as_bytes(),
        ))
    }
}

/// The copied partitions of the selected topics. Topics that the config no longer selects aren't
/// among them: nothing follows them any more.
pub(super) fn places(
    store: &StateStore,
    flow: &FlowConfig,
    is_selected: &dyn Fn(&str) -> bool,
) -> Result<Vec<Arc<Place>>, StateError> {
    let prefix = keys::topic(&flow.name, "");
    let mut places = Vec::new();
    for key in store.keys(&prefix) {
        let topic = &key[prefix.len()..];
        if !flow.topics.matches(topic) || !is_selected(topic) {
            continue;
        }
        let Some(record) = store.get::<TopicRecord>(&key)? else {
            continue;
        };
        let seen: Option<SeenRecord> = store.get(&keys::seen(&flow.name, topic))?;
        for (partition, origin) in (0_i32..).zip(&record.origins) {
            if *origin < 0 {
                // It has had no leader so far: nothing of it is copied.
                continue;
            }
            let link = if record.is_mapped(partition) {
                let map = maps::load(store, &MapKeys::new(&flow.name, topic, partition))?;
                // A partition that was never opened has no map yet: nothing of it is copied.
                let Some(map) = map else {
                    continue;
                };
                Link::Mapped(Arc::new(map))
            } else {
                Link::Identical
            };
            let index = partition as usize;
            let copied_to = seen
                .as_ref()
                .and_then(|seen| seen.positions.get(index).copied())
                .filter(|position| *position >= 0);
            places.push(Arc::new(Place {
                topic: topic.to_owned(),
                target_topic: record.target_topic.clone(),
                partition,
                origin: *origin,
                link,
                is_continued: record.continued.is_some(),
                strangers: Arc::new(strangers(&record, partition)),
                copied_to,
                missed_deletes: missed_by(store, &flow.name, topic, &record, partition)?,
            }));
        }
    }
    Ok(places)
}

fn strangers(record: &TopicRecord, partition: i32) -> Strangers {
    let continued = record.continued.as_ref();
    let mut on_target = continued.map_or_else(Vec::new, |it| it.only_on_target(partition).to_vec());
    on_target.extend(record.foreign(partition));
    Strangers {
        on_source: continued.map_or_else(Vec::new, |it| it.only_on_source(partition).to_vec()),
        on_target,
    }
}
