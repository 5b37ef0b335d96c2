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
use crate::groups;
use crate::tasks::brought;
use crate::wire::{self, Cluster, GroupOffset, TopicPartition, WireError};

/// A coordinator that doesn't answer for so long leaves its groups where they are.
const PATIENCE: Duration = Duration::from_secs(8);
/// Logs that are read at once.
const AT_ONCE: usize = 32;

/// More groups are counted, not named.
const NAMED_MAX: usize = 20;

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Groups of which a position was moved.
    pub groups: usize,
    /// The positions.
    pub positions: usize,
    /// Groups that stay at the fork, as they have members, or of which nobody said that they were moved.
    pub left: BTreeSet<String>,
    /// Groups whose coordinator didn't say where they stand.
    pub unasked: BTreeSet<String>,
    /// Why not all groups of the standby are known.
    pub unlisted: Option<String>,
}

impl Behind {
    /// For the operator; nothing where no group stood there.
    pub fn in_words(&self) -> Option<String> {
        let mut lines = Vec::new();
        if self.positions > 0 {
            lines.push(format!(
                "{} position(s) of {} group(s) stood at the end of the copy and were moved behind the padding: nothing \
                 but markers lies between",
                self.positions, self.groups
            ));
        }
        for (what, groups) in [
            (
                "groups that stay before the padding, as they have members or couldn't be moved",
                &self.left,
            ),
            (
                "groups that couldn't be asked whether they stand before the padding, and stay where they are",
                &self.unasked,
            ),
        ] {
            if !groups.is_empty() {
                lines.push(format!("{what}: {}", named(groups)));
            }
        }
        if let Some(why) = &self.unlisted {
            lines.push(format!(
                "not all groups of the standby could be listed, so more may stay before the padding: {why}"
            ));
        }
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    fn take(&mut self, group: String, answers: Committed) {
        let mut is_moved = false;
        for (at, answer) in answers {
            match answer {
                Ok(_) => {
                    self.positions += 1;
                    is_moved = true;
                }
                Err(error) => {
                    if !is_active(&error) {
                        tracing::warn!(group, %at, %error, "the group can't be moved behind the padding");
                    }
                    self.left.insert(group.clone());
                }
            }
        }
        self.groups += usize::from(is_moved);
    }
}

fn named(groups: &BTreeSet<String>) -> String {
    let names: Vec<&str> = groups.iter().take(NAMED_MAX).map(String::as_str).collect();
    match groups.len().saturating_sub(NAMED_MAX) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// A padded log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Padded {
    pub fork: i64,
    pub end: i64,
}

/// Moves those that stand at a fork. What can't be had leaves groups where they are, and is told: the padding stands
/// all the same.
pub(super) async fn bring(scene: &Scene, padded: &HashMap<TopicPartition, Padded>) -> Behind {
    let mut done = Behind::default();
    let names = names(scene, &mut done.unlisted).await;
    let positions = at_forks(&scene.target, names, padded, &mut done.unasked).await;
    let logs: BTreeSet<TopicPartition> = positions
        .values()
        .flat_map(|positions| positions.keys().cloned())
        .collect();
    let places = behind(&scene.target, logs, padded).await;
    let mut commits = Commits::new();
    for (group, positions) in positions {
        let mut moved = BTreeMap::new();
        for (at, position) in positions {
            let Some(offset) = places.get(&at).copied() else {
                done.left.insert(group.clone());
                continue;
            };
            if offset > position.offset {
                let commit = GroupOffset {
                    offset,
                    // The epoch of one cluster means nothing on another.
                    leader_epoch: -1,
                    ..position
                };
                moved.insert(at, commit);
            }
        }
        if !moved.is_empty() {
            commits.insert(group, moved);
        }
    }
    commit(&scene.target, commits, &mut done).await;
    done
}

type Commits = HashMap<String, BTreeMap<TopicPartition, GroupOffset>>;
type Committed = HashMap<TopicPartition, Result<wire::Taken, WireError>>;

/// The groups that may stand at a fork, and why that isn't all of them.
async fn names(scene: &Scene, unlisted: &mut Option<String>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = remembered(scene).collect();
    if scene.flow.groups.include().is_empty() {
        return names;
    }
    let looks = async {
        tokio::join!(
            wire::list_groups(&scene.target),
            groups::hidden(&scene.target, &scene.flow.groups),
        )
    };
    match timeout(PATIENCE, looks).await {
        Ok((Ok(listed), hidden)) => {
            let hidden = hidden.unwrap_or_else(|error| Some(error.to_string()));
            *unlisted = listed.why_incomplete().or(hidden);
            let followed = listed.groups.into_iter().filter(|group| {
                group.is_of_consumers() && scene.flow.groups.matches(&group.group_id)
            });
            names.extend(followed.map(|group| group.group_id));
        }
        Ok((Err(error), _)) => *unlisted = Some(error.to_string()),
        Err(_) => *unlisted = Some(format!("no answer within {} s", PATIENCE.as_secs())),
    }
    names
}

/// The positions that stand at a fork, by group. Each coordinator is asked for its own: one that hangs leaves nobody
/// else's groups where they are.
async fn at_forks(
    target: &Cluster,
    names: BTreeSet<String>,
    padded: &HashMap<TopicPartition, Padded>,
    unasked: &mut BTreeSet<String>,
) -> Commits {
    let mut tasks = JoinSet::new();
    for names in wire::by_coordinator(target, names).into_values() {
        let target = target.clone();
        tasks.spawn(async move {
            let answers = timeout(PATIENCE, wire::fetch_group_offsets(&target, &names)).await;
            (names, answers.unwrap_or_default())
        });
    }
    let mut found = Commits::new();
    while let Some(answered) = tasks.join_next().await {
        let (names, mut answers) = brought(answered);
        for group in names {
            let positions = match answers.remove(&group) {
                Some(Ok(positions)) => positions,
                answer => {
                    tracing::warn!(group, ?answer, "the group can't be asked where it stands");
                    unasked.insert(group);
                    continue;
                }
            };
            let at_fork = positions.into_iter().filter(|(at, position)| {
                let padded = padded.get(at);
                padded.is_some_and(|it| it.fork == position.offset && it.fork < it.end)
            });
            let at_fork: BTreeMap<TopicPartition, GroupOffset> = at_fork.collect();
            if !at_fork.is_empty() {
                found.insert(group, at_fork);
            }
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
            Some(found) => places.extend(brought(found)),
            None => return places,
        }
    }
}

/// Moves them. The groups of a coordinator that doesn't say so in time aren't known to be.
async fn commit(target: &Cluster, mut commits: Commits, done: &mut Behind) {
    let mut tasks = JoinSet::new();
    let names: Vec<String> = commits.keys().cloned().collect();
    for names in wire::by_coordinator(target, names).into_values() {
        let share: Commits = names
            .iter()
            .filter_map(|group| commits.remove_entry(group))
            .collect();
        let target = target.clone();
        tasks.spawn(async move {
            let committing = wire::commit_group_offsets_within(&target, &share, PATIENCE / 2);
            let answers = timeout(PATIENCE, committing).await;
            (names, answers.unwrap_or_default())
        });
    }
    while let Some(answered) = tasks.join_next().await {
        let (names, mut answers) = brought(answered);
        for group in names {
            match answers.remove(&group) {
                Some(answers) => done.take(group, answers),
                None => drop(done.left.insert(group)),
            }
        }
    }
}
