//! What the target alone tells about groups, for when nothing else answers.

use std::collections::HashMap;

use serde::Serialize;

use super::table::Table;
use super::{ledger, share};
use crate::state::{StateError, StateStore};
use crate::telemetry::groups::GroupKind;
use crate::wire::{self, Cluster, TopicPartition, WireError};

/// One group, as the target remembers it.
#[derive(Clone, Debug, Serialize)]
pub struct RememberedGroup {
    /// The flow that followed it.
    pub flow: String,
    /// The group.
    pub group: String,
    /// `consumer` or `share`.
    pub kind: GroupKind,
    /// Its positions; a share group's are its start offsets.
    pub positions: Vec<RememberedPosition>,
    /// Why the target doesn't say where it is now, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
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
    let topics = ledger::target_topics(&store, flow)?;
    let mut all = consumer_groups(&store, flow, target, &topics).await?;
    all.extend(share_groups(&store, flow, target, &topics).await?);
    all.sort_by(|left, right| left.group.cmp(&right.group));
    Ok(all)
}

/// What each source topic is called on the target.
type Topics = HashMap<String, String>;

async fn consumer_groups(
    store: &StateStore,
    flow: &str,
    target: &Cluster,
    topics: &Topics,
) -> Result<Vec<RememberedGroup>, StateError> {
    let groups = ledger::read(store, flow, &mut Table::default())?;
    let names: Vec<String> = groups.iter().map(|(name, _)| name.to_string()).collect();
    let on_target = wire::fetch_group_offsets(target, &names).await;
    let all = groups.into_iter().map(|(name, remembered)| {
        let (offsets, unknown) = told(on_target.get(&*name));
        let positions = remembered.positions.iter();
        let positions = positions.map(|((topic, partition), (source, target))| {
            let at = target_partition(topics, topic, *partition);
            RememberedPosition {
                topic: topic.to_string(),
                partition: *partition,
                source_offset: *source,
                target_offset: *target,
                on_target: offsets.and_then(|offsets| Some(offsets.get(&at)?.offset)),
            }
        });
        RememberedGroup {
            flow: flow.to_owned(),
            group: name.to_string(),
            kind: GroupKind::Consumer,
            positions: positions.collect(),
            unknown,
        }
    });
    Ok(all.collect())
}

async fn share_groups(
    store: &StateStore,
    flow: &str,
    target: &Cluster,
    topics: &Topics,
) -> Result<Vec<RememberedGroup>, StateError> {
    let groups = share::remembered(store, flow)?;
    let names: Vec<String> = groups.iter().map(|(name, _)| name.clone()).collect();
    let on_target = wire::describe_share_group_offsets(target, &names).await;
    let all = groups.into_iter().map(|(group, remembered)| {
        let (offsets, unknown) = told(on_target.get(&group));
        let mut positions = Vec::new();
        for (topic, partitions) in remembered.topics {
            for set in partitions {
                let at = target_partition(topics, &topic, set.partition);
                let Some(target_offset) = set.target.or(set.sending) else {
                    continue;
                };
                positions.push(RememberedPosition {
                    topic: topic.clone(),
                    partition: set.partition,
                    source_offset: set.source,
                    target_offset,
                    on_target: offsets.and_then(|offsets| offsets.get(&at).copied()),
                });
            }
        }
        RememberedGroup {
            flow: flow.to_owned(),
            group,
            kind: GroupKind::Share,
            positions,
            unknown,
        }
    });
    Ok(all.collect())
}

/// What was told of a group, or why nothing was.
fn told<T>(answer: Option<&Result<T, WireError>>) -> (Option<&T>, Option<String>) {
    match answer {
        Some(Ok(offsets)) => (Some(offsets), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, Some("it was not answered".to_owned())),
    }
}

fn target_partition(topics: &Topics, topic: &str, partition: i32) -> TopicPartition {
    let name = topics.get(topic).map_or(topic, String::as_str);
    TopicPartition::new(name, partition)
}
