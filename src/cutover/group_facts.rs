//! What a planned failover should know of the groups: who still reads where, and how far.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::context::Scene;
use super::error::CutoverError;
use super::facts::Logs;
use super::pairs::{Pair, translate};
use super::steps::share_groups;
use crate::config::OnDiverged;
use crate::flow::claim;
use crate::groups::{self, Resting, Verdict};
use crate::state::{GroupPositions, Memory, keys};
use crate::telemetry::failover::GroupFacts;
use crate::wire::{
    self, GroupOffset, ListedGroup, ListedGroups, Operation, TopicPartition, WireError,
};

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
            if let Some(Err(error)) = answers.get(name) {
                note_untold(&mut facts, (name, side), error);
            }
        }
    }
    look_at_shares(scene, &followed, &mut facts).await;
    // Where the claims can't be read the last commits may be missing: that says less.
    let memory = claim::memory(&scene.store, &scene.flow.name, None);
    let memory = memory.unwrap_or_else(|error| {
        facts.failed.push(error.to_string());
        Memory::MayLackTheLast
    });
    let by_source: HashMap<&TopicPartition, &Pair> =
        pairs.iter().map(|pair| (&pair.source, pair)).collect();
    let (mut with_members, mut moved) = (0, Vec::new());
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
        moved.push(name.clone());
        with_members += usize::from(has_members(group));
        if active.contains(name) {
            facts.active_on_target.push(name.clone());
        }
        let there = match target.get(name) {
            Some(Err(_)) => continue,
            there => there.and_then(|there| there.as_ref().ok()),
        };
        if let Err(error) = of_group((scene, memory), name, &positions, there, logs, &mut facts) {
            facts.failed.push(format!("{name}: {error}"));
        }
    }
    let shares = followed.iter().filter(|it| it.group_type == "share");
    moved.extend(shares.map(|group| group.group_id.clone()));
    name_without_right(scene, &moved, &mut facts).await;
    facts.with_members = Some(with_members);
    facts.active_on_target.sort();
    facts.diverged.sort();
    facts
}

/// The groups that we may not commit for on the standby: behind the fence it would be too late to find that out.
async fn name_without_right(scene: &Scene, moved: &[String], facts: &mut GroupFacts) {
    let rights = wire::group_rights(&scene.target, moved).await;
    let mut without: Vec<String> = rights
        .into_iter()
        // Those that may not be described there are named already, as is who can't be asked.
        .filter(|(_, rights)| {
            let may = |operation| rights.as_ref().is_ok_and(|rights| rights.allow(operation));
            may(Operation::Describe) && !may(Operation::Read)
        })
        .map(|(name, _)| format!("{name} (no READ on it there)"))
        .collect();
    without.sort();
    facts.failed.extend(without);
}

/// The share groups whose start offsets one of the clusters doesn't tell. Those that it has are looked at behind the
/// fence.
async fn look_at_shares(scene: &Scene, followed: &[ListedGroup], facts: &mut GroupFacts) {
    let listed = followed.iter().filter(|it| it.group_type == "share");
    let mut names: BTreeSet<String> = listed.map(|group| group.group_id.clone()).collect();
    names.extend(share_groups::remembered(scene));
    let names: Vec<String> = names.into_iter().collect();
    if names.is_empty() {
        return;
    }
    let (source, target) = tokio::join!(
        wire::describe_share_group_offsets(&scene.source, &names),
        wire::describe_share_group_offsets(&scene.target, &names)
    );
    for name in &names {
        for (side, answers) in [("source", &source), ("standby", &target)] {
            match answers.get(name) {
                Some(Err(error)) if !wire::is_unsupported(error) => {
                    note_untold(facts, (name, side), error);
                }
                _ => {}
            }
        }
    }
}

/// A group whose positions one side doesn't tell. Each is named once where it isn't a right that is missing.
fn note_untold(facts: &mut GroupFacts, (name, side): (&String, &str), error: &WireError) {
    if wire::is_refused_group(error) {
        facts.refused.push(format!("{name} ({side})"));
    } else if facts.unknown.last() != Some(name) {
        facts.unknown.push(name.clone());
    }
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
    (scene, memory): (&Scene, Memory),
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
        let Some(there) = there.and_then(|there| there.get(&pair.target)) else {
            facts.unplaced_positions += 1;
            continue;
        };
        let wanted = translate(pair, logs.target_end(pair), &logs.maps, *position);
        let Some(wanted) = wanted else {
            facts.outdated_positions += 1;
            continue;
        };
        let resting = Resting {
            source: &pair.source,
            target: &pair.target,
            wanted: wanted.max(logs.target_start(pair)),
            overwrite: overwrites,
            memory,
            continued_at: pair.continued_at(),
        };
        match resting.verdict(&remembered, Some(there)) {
            Verdict::Current => {}
            Verdict::Commit { restores, .. } => {
                facts.outdated_positions += 1;
                is_diverged |= restores;
            }
            Verdict::Blocked(_) => {
                facts.outdated_positions += 1;
                is_diverged = true;
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
pub(super) fn has_members(group: &ListedGroup) -> bool {
    !matches!(group.state.as_str(), "" | "Empty" | "Dead")
}

fn count(groups: &[ListedGroup], is_one: impl Fn(&ListedGroup) -> bool) -> usize {
    groups.iter().filter(|group| is_one(group)).count()
}
