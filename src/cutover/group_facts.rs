//! What a planned failover should know of the groups: who still reads where, and how far.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::context::Scene;
use super::error::CutoverError;
use super::facts::Logs;
use super::pairs::{Pair, translate};
use crate::config::OnDiverged;
use crate::groups;
use crate::state::{GroupPositions, keys};
use crate::telemetry::failover::GroupFacts;
use crate::wire::{self, GroupOffset, ListedGroup, ListedGroups, TopicPartition, WireError};

/// Looks at the groups that the flow follows, on both clusters.
pub(super) async fn look(scene: &Scene, pairs: &[Pair], logs: &Logs) -> GroupFacts {
    let mut facts = GroupFacts::default();
    if scene.flow.groups.include().is_empty() {
        return facts;
    }
    let (listed, on_target, hidden) = tokio::join!(
        wire::list_groups(&scene.source),
        wire::list_groups(&scene.target),
        groups::hidden(&scene.source, &scene.flow.groups),
    );
    let listed = listed_or_why("source", listed, &mut facts.unwatched);
    let on_target = listed_or_why("standby", on_target, &mut facts.unwatched);
    let line = |why: String| format!("of the source: {why}");
    match hidden {
        Ok(hidden) => facts.hidden.extend(hidden.map(line)),
        Err(error) => facts.hidden.push(line(error.to_string())),
    }
    let types = groups::unknown_types(&listed, &scene.flow.groups).into_iter();
    let types = types.map(|(name, of_type)| format!("{name} ({of_type})"));
    facts.unknown_types = types.collect();
    let followed: Vec<ListedGroup> = listed
        .groups
        .into_iter()
        .filter(|group| scene.flow.groups.matches(&group.group_id))
        .collect();
    facts.share = count(&followed, |group| group.group_type == "share");
    facts.new_protocol = count(&followed, |group| group.group_type == "consumer");
    let active: HashSet<String> = on_target
        .groups
        .into_iter()
        .filter(has_members)
        .map(|group| group.group_id)
        .collect();
    let mut names: BTreeSet<String> = followed
        .iter()
        .filter(|group| group.is_of_consumers())
        .map(|group| group.group_id.clone())
        .collect();
    names.extend(remembered(scene));
    let names: Vec<String> = names.into_iter().collect();
    let (source, target) = tokio::join!(
        wire::fetch_group_offsets(&scene.source, &names),
        wire::fetch_group_offsets(&scene.target, &names)
    );
    for name in &names {
        for (side, answers) in [("source", &source), ("standby", &target)] {
            match answers.get(name) {
                Some(Err(error)) if wire::is_refused_group(error) => {
                    facts.refused.push(format!("{name} ({side})"));
                }
                Some(Err(_)) if facts.unknown.last() != Some(name) => {
                    facts.unknown.push(name.clone());
                }
                _ => {}
            }
        }
    }
    let by_source: HashMap<&TopicPartition, &Pair> =
        pairs.iter().map(|pair| (&pair.source, pair)).collect();
    let mut with_members = 0;
    for group in followed.iter().filter(|group| group.is_of_consumers()) {
        let name = &group.group_id;
        let Some(Ok(positions)) = source.get(name) else {
            continue;
        };
        let positions: Vec<(&Pair, i64)> = positions
            .iter()
            .filter_map(|(at, position)| Some((*by_source.get(at)?, position.offset)))
            .collect();
        if positions.is_empty() {
            continue;
        }
        facts.total += 1;
        with_members += usize::from(has_members(group));
        if active.contains(name) {
            facts.active_on_target.push(name.clone());
        }
        let there = match target.get(name) {
            Some(Err(_)) => continue,
            there => there.and_then(|there| there.as_ref().ok()),
        };
        if let Err(error) = of_group(scene, name, &positions, there, logs, &mut facts) {
            facts.failed.push(format!("{name}: {error}"));
        }
    }
    facts.with_members = Some(with_members);
    facts.active_on_target.sort();
    facts.diverged.sort();
    facts
}

/// The groups that a cluster lists; why some or all are missing goes to `unwatched`.
fn listed_or_why(
    side: &str,
    listed: Result<ListedGroups, WireError>,
    unwatched: &mut Vec<String>,
) -> ListedGroups {
    let (listed, why) = match listed {
        Ok(listed) => {
            let why = listed.why_incomplete();
            (listed, why)
        }
        Err(error) => (ListedGroups::default(), Some(error.to_string())),
    };
    unwatched.extend(why.map(|why| format!("of the {side}: {why}")));
    listed
}

/// The groups that the flow has followed. One whose coordinator on the source is away is in no list.
pub(super) fn remembered(scene: &Scene) -> impl Iterator<Item = String> {
    let prefix = keys::groups(&scene.flow.name);
    let keys = scene.store.keys(&prefix).into_iter();
    let names = keys.map(move |key| key[prefix.len()..].to_owned());
    names.filter(|name| scene.flow.groups.matches(name))
}

fn of_group(
    scene: &Scene,
    name: &str,
    positions: &[(&Pair, i64)],
    there: Option<&HashMap<TopicPartition, GroupOffset>>,
    logs: &Logs,
    facts: &mut GroupFacts,
) -> Result<(), CutoverError> {
    let remembered: GroupPositions = scene
        .store
        .get(&keys::group(&scene.flow.name, name))?
        .unwrap_or_default();
    let overwrites = scene.flow.group_rules.on_diverged == OnDiverged::Follow;
    let (mut behind, mut is_diverged) = (0, false);
    for (pair, position) in positions {
        behind += (logs.stable_end(pair) - position).max(0);
        let wanted = translate(pair, logs.target_end(pair), &logs.maps, *position);
        match there.and_then(|there| there.get(&pair.target)) {
            None => facts.unplaced_positions += 1,
            Some(there) if Some(there.offset) == wanted => {}
            Some(there) => {
                facts.outdated_positions += 1;
                let at = (pair.source.topic.as_str(), pair.source.partition);
                let commit = (there.offset, there.leader_epoch);
                is_diverged |= remembered.is_strangers(at, commit) && !overwrites;
            }
        }
    }
    facts.behind += usize::from(behind > 0);
    facts.behind_records = facts.behind_records.saturating_add(behind);
    if is_diverged {
        facts.diverged.push(name.to_owned());
    }
    Ok(())
}

/// Brokers before 2.6 tell no state.
fn has_members(group: &ListedGroup) -> bool {
    !matches!(group.state.as_str(), "" | "Empty" | "Dead")
}

fn count(groups: &[ListedGroup], is_one: impl Fn(&ListedGroup) -> bool) -> usize {
    groups.iter().filter(|group| is_one(group)).count()
}
