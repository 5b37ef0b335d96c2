//! What the target alone tells about groups, for when nothing else answers.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::ledger::{self, Remembered};
use super::table::Table;
use crate::state::{StateError, StateStore};
use crate::wire::{self, Cluster, GroupOffset, TopicPartition};

/// One group, as the target remembers it.
#[derive(Clone, Debug, Serialize)]
pub struct RememberedGroup {
    /// The flow that followed it.
    pub flow: String,
    /// The group.
    pub group: String,
    /// Its positions.
    pub positions: Vec<RememberedPosition>,
}

/// One position.
#[derive(Clone, Debug, Serialize)]
pub struct RememberedPosition {
    /// The source topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The position on the source that was last applied.
    pub source_offset: i64,
    /// What was committed for it on the target.
    pub target_offset: i64,
    /// What the target has now; `None` if it has none or doesn't say.
    pub on_target: Option<i64>,
}

/// Reads the state topic and asks the target's coordinators. The source isn't needed. Positions are
/// as they were stored last, every five seconds while a flow runs.
///
/// # Errors
/// When the state can't be read.
pub async fn remembered(flow: &str, target: &Cluster) -> Result<Vec<RememberedGroup>, StateError> {
    let Some(store) = StateStore::open_existing(target).await? else {
        return Ok(Vec::new());
    };
    let groups = ledger::read(&store, flow, &mut Table::default())?;
    let names: Vec<String> = groups.iter().map(|(name, _)| name.to_string()).collect();
    let on_target: HashMap<String, HashMap<TopicPartition, GroupOffset>> =
        wire::fetch_group_offsets(target, &names)
            .await
            .into_iter()
            .filter_map(|(group, offsets)| Some((group, offsets.ok()?)))
            .collect();
    let topics = ledger::target_topics(&store, flow)?;
    let mut all: Vec<RememberedGroup> = groups
        .into_iter()
        .map(|(name, remembered)| {
            let offsets = on_target.get(&*name);
            one(flow, &name, &remembered, offsets, &topics)
        })
        .collect();
    all.sort_by(|left, right| left.group.cmp(&right.group));
    Ok(all)
}

fn one(
    flow: &str,
    name: &Arc<str>,
    remembered: &Remembered,
    on_target: Option<&HashMap<TopicPartition, GroupOffset>>,
    topics: &HashMap<String, String>,
) -> RememberedGroup {
    let positions = remembered.positions.iter();
    let positions = positions.map(|((topic, partition), (source, target))| {
        let target_topic = topics.get(&**topic).map_or(&**topic, String::as_str);
        let at = TopicPartition::new(target_topic, *partition);
        RememberedPosition {
            topic: topic.to_string(),
            partition: *partition,
            source_offset: *source,
            target_offset: *target,
            on_target: on_target.and_then(|offsets| Some(offsets.get(&at)?.offset)),
        }
    });
    RememberedGroup {
        flow: flow.to_owned(),
        group: name.to_string(),
        positions: positions.collect(),
    }
}
