//! Moves groups that stand at the fork behind the padding.
//!
//! To a client that is there nothing is left but markers. Most pass over them; some hang before a stretch that has
//! nothing else, some hand them to the application, and whoever counts offsets shows a lag that never ends. Behind
//! the padding is the same place: no record lies between. A group that stands before a record isn't touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::groups::is_active;
use crate::cutover::buried;
use crate::cutover::context::Scene;
use crate::cutover::group_facts::remembered;
use crate::wire::{self, Cluster, GroupOffset, TopicPartition};

/// A coordinator that doesn't answer for so long leaves its groups where they are.
const PATIENCE: Duration = Duration::from_secs(8);
/// Logs that are read at once.
const AT_ONCE: usize = 32;

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Groups of which a position was moved.
    pub groups: usize,
    /// The positions.
    pub positions: usize,
    /// Groups that stay at the fork, as they have members or couldn't be moved.
    pub left: BTreeSet<String>,
}

impl Behind {
    /// For the operator; nothing where no group stood there.
    pub fn in_words(&self) -> Option<String> {
        let moved = format!(
            "{} position(s) of {} group(s) stood at the end of the copy and were moved behind the padding: nothing but \
             markers lies between",
            self.positions, self.groups
        );
        let names: Vec<&str> = self.left.iter().map(String::as_str).collect();
        let left = format!(
            "groups that stay before the padding, as they have members or couldn't be moved: {}",
            names.join(", ")
        );
        match (self.positions, self.left.is_empty()) {
            (0, true) => None,
            (0, false) => Some(left),
            (_, true) => Some(moved),
            (_, false) => Some(format!("{moved}; {left}")),
        }
    }
}

/// A padded log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Padded {
    pub fork: i64,
    pub end: i64,
}

/// Moves those that stand at a fork. What can't be had leaves groups where they are: the padding stands all the same.
pub(super) async fn bring(scene: &Scene, padded: &HashMap<TopicPartition, Padded>) -> Behind {
    let positions = match timeout(PATIENCE, at_forks(scene, padded)).await {
        Ok(positions) => positions,
        Err(_) => {
            tracing::warn!("the standby's groups can't be asked where they stand");
            return Behind::default();
        }
    };
    let logs: BTreeSet<TopicPartition> = positions
        .values()
        .flat_map(|positions| positions.keys().cloned())
        .collect();
    let places = behind(&scene.target, logs, padded).await;
    let mut commits: HashMap<String, BTreeMap<TopicPartition, GroupOffset>> = HashMap::new();
    for (group, positions) in positions {
        let moved = positions.into_iter().filter_map(|(at, position)| {
            let offset = *places.get(&at).filter(|place| **place > position.offset)?;
            let commit = GroupOffset {
                offset,
                // The epoch of one cluster means nothing on another.
                leader_epoch: -1,
                ..position
            };
            Some((at, commit))
        });
        let moved: BTreeMap<TopicPartition, GroupOffset> = moved.collect();
        if !moved.is_empty() {
            commits.insert(group, moved);
        }
    }
    commit(&scene.target, &commits).await
}

type AtForks = HashMap<String, BTreeMap<TopicPartition, GroupOffset>>;

/// The positions that stand at a fork, by group.
async fn at_forks(scene: &Scene, padded: &HashMap<TopicPartition, Padded>) -> AtForks {
    let mut names: BTreeSet<String> = remembered(scene).collect();
    if let Ok(listed) = wire::list_groups(&scene.target).await {
        let followed = listed.groups.into_iter().filter(|group| {
            group.group_type != "share"
                && matches!(group.protocol_type.as_str(), "" | "consumer")
                && scene.flow.groups.matches(&group.group_id)
        });
        names.extend(followed.map(|group| group.group_id));
    }
    let names: Vec<String> = names.into_iter().collect();
    let mut found = AtForks::new();
    for (group, answer) in wire::fetch_group_offsets(&scene.target, &names).await {
        let positions = answer.unwrap_or_default().into_iter();
        let at_fork = positions.filter(|(at, position)| {
            let padded = padded.get(at);
            padded.is_some_and(|it| it.fork == position.offset && it.fork < it.end)
        });
        let at_fork: BTreeMap<TopicPartition, GroupOffset> = at_fork.collect();
        if !at_fork.is_empty() {
            found.insert(group, at_fork);
        }
    }
    found
}

/// Where the next record of these logs is, or will be, as far as that can be read.
async fn behind(
    target: &Cluster,
    logs: BTreeSet<TopicPartition>,
    padded: &HashMap<TopicPartition, Padded>,
) -> HashMap<TopicPartition, i64> {
    let mut places = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut open = logs.into_iter();
    loop {
        while tasks.len() < AT_ONCE
            && let Some(at) = open.next()
        {
            let (target, Padded { fork, end }) = (target.clone(), padded[&at]);
            tasks.spawn(async move {
                let first = timeout(PATIENCE, buried::first_record(&target, &at, fork, end)).await;
                // A client was quick: its record is what comes next.
                let first = first.ok()?.ok()?;
                Some((at, first.unwrap_or(end)))
            });
        }
        match tasks.join_next().await {
            Some(found) => places.extend(found.ok().flatten()),
            None => return places,
        }
    }
}

async fn commit(
    target: &Cluster,
    commits: &HashMap<String, BTreeMap<TopicPartition, GroupOffset>>,
) -> Behind {
    let mut done = Behind::default();
    let mut moved = BTreeSet::new();
    let Ok(answers) = timeout(PATIENCE, wire::commit_group_offsets(target, commits)).await else {
        done.left = commits.keys().cloned().collect();
        return done;
    };
    for (group, answers) in answers {
        for (at, answer) in answers {
            match answer {
                Ok(_) => {
                    done.positions += 1;
                    moved.insert(group.clone());
                }
                Err(error) => {
                    if !is_active(&error) {
                        tracing::warn!(group, %at, %error, "the group can't be moved behind the padding");
                    }
                    done.left.insert(group.clone());
                }
            }
        }
    }
    done.groups = moved.len();
    done
}
