//! The flow's groups, rehearsed: their positions go to copies of the groups by the same map, and
//! after the cut each copy's next record must be the source's next record.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::context::{Copied, Scene};
use super::error::DrillError;
use super::peek;
use super::production::{Followed, followed_groups, shorten};
use super::report::GroupsRehearsed;
use crate::cutover::pairs::{ends, on_target, translate};
use crate::wire::{self, GroupOffset, OffsetSpec, TopicPartition, WireError};

/// Positions whose next record is looked at.
const CHECKED_MAX: usize = 500;
const PEEK_WITHIN: Duration = Duration::from_secs(20);

/// A position that was brought to the copy of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    /// The copied group.
    pub group: String,
    /// The partition on the source.
    pub source: TopicPartition,
    /// The position there.
    pub position: i64,
    /// The partition on the target.
    pub target: TopicPartition,
}

/// Commits all positions in the copied topics to the copies of their groups.
///
/// # Errors
/// When a cluster doesn't answer. A group that can't be brought is named, and the others are.
pub async fn bring(
    scene: &Scene,
    copied: &Copied,
) -> Result<(Vec<Brought>, GroupsRehearsed), DrillError> {
    let Followed { names, unseen } = followed_groups(scene).await?;
    let targets = on_target(&copied.pairs);
    let (starts, there) = tokio::try_join!(
        ends(&scene.target, &targets, OffsetSpec::Earliest),
        ends(&scene.target, &targets, OffsetSpec::Latest),
    )?;
    let mut result = GroupsRehearsed {
        unseen,
        ..GroupsRehearsed::default()
    };
    let mut brought = Vec::new();
    let mut commits: HashMap<String, BTreeMap<TopicPartition, GroupOffset>> = HashMap::new();
    let answers = wire::fetch_group_offsets(&scene.source, &names).await;
    for (name, positions) in told(answers, &mut result) {
        let group = scene.names.copy_of(&name);
        for pair in &copied.pairs {
            let Some(position) = positions.get(&pair.source) else {
                continue;
            };
            let end = there.get(&pair.target).copied().unwrap_or(0);
            let start = starts.get(&pair.target).copied().unwrap_or(0);
            let Some(offset) = translate(pair, end, &copied.maps, position.offset) else {
                result.beyond += 1;
                continue;
            };
            let commit = GroupOffset {
                offset: offset.max(start),
                leader_epoch: -1,
                metadata: position.metadata.clone(),
            };
            let of_group = commits.entry(group.clone()).or_default();
            of_group.insert(pair.target.clone(), commit);
            brought.push(Brought {
                group: group.clone(),
                source: pair.source.clone(),
                position: position.offset,
                target: pair.target.clone(),
            });
        }
    }
    for (group, answers) in wire::commit_group_offsets(&scene.target, &commits).await {
        for (at, answer) in answers {
            if let Err(error) = answer {
                let why = format!(
                    "its position in {at}: {error}; grant READ on the groups of rehearsals, see docs/DRILL.md"
                );
                result.not_rehearsed.entry(group.clone()).or_insert(why);
            }
        }
    }
    brought.retain(|it: &Brought| !result.not_rehearsed.contains_key(&it.group));
    commits.retain(|group, _| !result.not_rehearsed.contains_key(group));
    result.groups = commits.len();
    result.positions = brought.len();
    brought.sort_by(|a, b| (&a.group, &a.source).cmp(&(&b.group, &b.source)));
    Ok((brought, result))
}

/// The answers of the source. One that it doesn't tell is no reason to leave the others, and none to fail: a flow may
/// follow groups that it may not ask for. What the standby refuses is.
fn told<P>(
    answers: impl IntoIterator<Item = (String, Result<P, WireError>)>,
    result: &mut GroupsRehearsed,
) -> Vec<(String, P)> {
    let mut told = Vec::new();
    for (name, answer) in answers {
        match answer {
            Ok(positions) => told.push((name, positions)),
            Err(error) => result.unseen.push(format!("{name}: {error}")),
        }
    }
    shorten(&mut result.unseen);
    told
}

/// Compares each position's next record on both clusters. `copied_ends` is where the copy ended on
/// the source.
///
/// # Errors
/// When a cluster doesn't answer.
pub async fn check(
    scene: &Scene,
    mut brought: Vec<Brought>,
    copied_ends: &HashMap<TopicPartition, i64>,
    result: &mut GroupsRehearsed,
) -> Result<(), DrillError> {
    let mut names: Vec<String> = brought.iter().map(|it| it.group.clone()).collect();
    names.dedup();
    // As a consumer would find it: what the standby's coordinators say.
    let found = wire::fetch_group_offsets(&scene.target, &names).await;
    result.not_checked += brought.len().saturating_sub(CHECKED_MAX);
    brought.truncate(CHECKED_MAX);
    let mut looks = Vec::new();
    for it in brought {
        let there = match found.get(&it.group) {
            Some(Err(error)) => {
                result.not_rehearsed.insert(it.group, error.to_string());
                continue;
            }
            Some(Ok(positions)) => positions.get(&it.target),
            None => None,
        };
        match there {
            Some(there) => looks.push((there.offset, it)),
            None => result
                .wrong
                .push(format!("{} {} (gone)", it.group, it.target)),
        }
    }
    looks.retain(|(_, it)| {
        let is_at_end = copied_ends
            .get(&it.source)
            .is_some_and(|end| it.position >= *end);
        result.at_end += usize::from(is_at_end);
        !is_at_end
    });
    let on_source: Vec<_> = looks
        .iter()
        .map(|(_, it)| (it.source.clone(), it.position))
        .collect();
    let on_standby: Vec<_> = looks
        .iter()
        .map(|(offset, it)| (it.target.clone(), *offset))
        .collect();
    let (expected, actual) = tokio::try_join!(
        peek_at(scene, true, on_source),
        peek_at(scene, false, on_standby)
    )?;
    for (offset, it) in looks {
        let expected = expected.get(&(it.source.clone(), it.position));
        let actual = actual.get(&(it.target.clone(), offset));
        let is_same = match (expected, actual) {
            (Some(a), Some(b)) => (a.timestamp_ms, a.digest) == (b.timestamp_ms, b.digest),
            _ => false,
        };
        // Cleaners and retention of two clusters don't work at the same moment.
        let is_there = expected.is_some_and(|record| record.offset == it.position);
        match (is_same, is_there) {
            (true, _) => result.exact += 1,
            (false, false) => result.not_checked += 1,
            (false, true) => result.wrong.push(format!("{} {}", it.group, it.source)),
        }
    }
    shorten(&mut result.wrong);
    Ok(())
}

async fn peek_at(
    scene: &Scene,
    is_source: bool,
    places: Vec<(TopicPartition, i64)>,
) -> Result<HashMap<(TopicPartition, i64), peek::Seen>, DrillError> {
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    let section = if is_source {
        scene.source_section.clone()
    } else {
        scene.target_section.clone()
    };
    let group = scene.names.root();
    let looking = tokio::task::spawn_blocking(move || {
        peek::next_records(&section, &group, &places, PEEK_WITHIN)
    });
    Ok(looking
        .await
        .map_err(|error| DrillError::failed(error.to_string()))??)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::wire::ErrorContext;

    #[test]
    fn what_the_source_does_not_tell_of_a_group_is_named_and_fails_nothing() {
        let silence = WireError::Timeout {
            context: Arc::new(ErrorContext::cluster("primary")),
            after: Duration::from_secs(1),
        };
        let answers = [
            ("billing".to_owned(), Ok(7)),
            ("hidden".to_owned(), Err(silence)),
        ];
        let mut result = GroupsRehearsed::default();
        assert_eq!(told(answers, &mut result), [("billing".to_owned(), 7)]);
        assert!(result.not_rehearsed.is_empty());
        assert!(result.unseen[0].starts_with("hidden: "), "{result:?}");
    }
}
