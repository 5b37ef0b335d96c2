//! What a planned failover should know of the groups: who still reads where, and how far.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::context::Scene;
use super::error::CutoverError;
use super::facts::Logs;
use super::pairs::{Pair, translate};
use crate::config::OnDiverged;
use crate::state::{GroupPositions, keys};
use crate::telemetry::failover::GroupFacts;
use crate::wire::{self, GroupOffset, ListedGroup, TopicPartition, WireError};

/// Looks at the groups that the flow follows, on both clusters.
pub(super) async fn look(
    scene: &Scene,
    pairs: &[Pair],
    logs: &Logs,
) -> Result<GroupFacts, CutoverError> {
    let mut facts = GroupFacts::default();
    if scene.flow.groups.include().is_empty() {
        return Ok(facts);
    }
    let (listed, on_target) = tokio::try_join!(
        wire::list_groups(&scene.source),
        wire::list_groups(&scene.target)
    )?;
    let of_side = |side: &str, listed: &wire::ListedGroups| {
        let why = listed.why_incomplete();
        why.map(|why| format!("of the {side}: {why}"))
    };
    facts.unwatched.extend(of_side("source", &listed));
    facts.unwatched.extend(of_side("standby", &on_target));
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
        let failed = |answers: &HashMap<String, Result<_, WireError>>| {
            answers.get(name).is_some_and(Result::is_err)
        };
        if failed(&source) || failed(&target) {
            facts.unknown.push(name.clone());
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
        of_group(scene, name, &positions, there, logs, &mut facts)?;
    }
    facts.with_members = Some(with_members);
    facts.active_on_target.sort();
    facts.diverged.sort();
    Ok(facts)
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
