//! What each group reads again after an unplanned failover: nobody can be asked where it is on the
//! source, so what was seen of its commits, and remembered on the target, has to do.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::context::Scene;
use super::error::CutoverError;
use super::group_facts::remembered as followed;
use super::pairs::{Maps, Pair, copied_end, ends, on_target};
use super::steps::share_groups;
use crate::offsets::{TargetOffset, Translation};
use crate::state::{GroupPositions, ShareOffsets, keys};
use crate::telemetry::failover::{GroupFacts, GroupReread};
use crate::wire::{self, OffsetSpec, TopicPartition};

/// More groups are counted, not named.
const NAMED_MAX: usize = 20;

/// What the groups of the topics that are cut over read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RereadAccount {
    /// Groups with a position in these topics.
    pub groups_total: usize,
    /// Records, over all groups, as far as their commits were seen.
    pub records: i64,
    /// Those that read anything again or have unplaced positions, the worst first.
    pub groups: Vec<GroupReread>,
    /// Those whose coordinator on the standby can't be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

impl RereadAccount {
    /// Whether each position that is known of the source has its place on the standby.
    pub fn has_all_placed(&self) -> bool {
        let is_placed = |group: &GroupReread| group.unplaced_positions == 0;
        self.unknown.is_empty() && self.groups.iter().all(is_placed)
    }

    /// A group with so many positions in the topics that are cut over.
    fn note(&mut self, group: GroupReread, positions: usize) {
        if positions == 0 {
            return;
        }
        self.groups_total += 1;
        self.records = self.records.saturating_add(group.records);
        if group.records > 0 || group.unplaced_positions > 0 {
            self.groups.push(group);
        }
    }

    /// A line in all, then one for each group.
    pub fn in_words(&self) -> Vec<String> {
        let mut lines = vec![match (self.records, self.groups_total) {
            (_, 0) => "no group has a position in these topics".to_owned(),
            (0, groups) => format!(
                "nothing that is known: {groups} group(s) go on at the last commit that was seen of them"
            ),
            (records, groups) => format!(
                "{records} record(s), by the commits of {groups} group(s) that were seen last"
            ),
        }];
        for group in self.groups.iter().take(NAMED_MAX) {
            let mut line = format!("{}: {} record(s)", group.group, group.records);
            if group.unplaced_positions > 0 {
                // Writing to a string can't fail.
                let _ = write!(
                    line,
                    ", {} position(s) by auto.offset.reset",
                    group.unplaced_positions
                );
            }
            lines.push(line);
        }
        if self.groups.len() > NAMED_MAX {
            lines.push(format!(
                "and {} more group(s)",
                self.groups.len() - NAMED_MAX
            ));
        }
        if !self.unknown.is_empty() {
            lines.push(format!(
                "not known, for their coordinator on the standby can't be asked: {}",
                self.unknown.join(", ")
            ));
        }
        if self.groups_total > 0 {
            lines.push(
                "what they committed on the source in its last seconds may not have been seen"
                    .to_owned(),
            );
        }
        lines
    }
}

/// Looks at what is remembered, and at where the groups are on the target.
pub(super) async fn look(scene: &Scene, pairs: &[Pair]) -> Result<RereadAccount, CutoverError> {
    let mut remembered: Vec<(String, GroupPositions)> = Vec::new();
    // Those that the config doesn't follow any more are nobody's concern here, as in every other look at groups.
    for name in followed(scene) {
        if let Some(record) = scene.store.get(&keys::group(&scene.flow.name, &name))? {
            remembered.push((name, record));
        }
    }
    let names: Vec<String> = remembered.iter().map(|(name, _)| name.clone()).collect();
    let targets = on_target(pairs);
    let (there, target_ends) = tokio::join!(
        wire::fetch_group_offsets(&scene.target, &names),
        ends(&scene.target, &targets, OffsetSpec::Latest)
    );
    let target_ends = target_ends?;
    let maps = scene.maps(pairs)?;
    let by_source: HashMap<&TopicPartition, &Pair> =
        pairs.iter().map(|pair| (&pair.source, pair)).collect();
    let mut account = RereadAccount::default();
    for (name, record) in &remembered {
        let there = match there.get(name) {
            Some(Err(_)) => {
                account.unknown.push(name.clone());
                continue;
            }
            there => there.and_then(|there| there.as_ref().ok()),
        };
        let known = record.known_on_source();
        let mut group = GroupReread {
            group: name.clone(),
            ..GroupReread::default()
        };
        let mut positions = 0;
        for (at, source) in known {
            let Some(pair) = by_source.get(&at) else {
                continue;
            };
            positions += 1;
            let end = target_ends.get(&pair.target).copied().unwrap_or(0);
            let committed = there.and_then(|there| there.get(&pair.target));
            match committed {
                None => group.unplaced_positions += 1,
                Some(committed) => {
                    let ours = record.pair(&at.topic, at.partition);
                    let back = back(pair, &maps, committed.offset, ours);
                    // What wasn't copied can't be read again.
                    let until = source.min(copied_end(pair, end, &maps));
                    group.records += back.map_or(0, |back| (until - back).max(0));
                }
            }
        }
        account.note(group, positions);
    }
    look_at_shares(scene, &by_source, &maps, &mut account).await?;
    let badness = |group: &GroupReread| (group.records, group.unplaced_positions);
    account
        .groups
        .sort_by_key(|group| std::cmp::Reverse(badness(group)));
    Ok(account)
}

/// The same for share groups: their start offsets.
async fn look_at_shares(
    scene: &Scene,
    by_source: &HashMap<&TopicPartition, &Pair>,
    maps: &Maps,
    account: &mut RereadAccount,
) -> Result<(), CutoverError> {
    let mut remembered: Vec<(String, ShareOffsets)> = Vec::new();
    for name in share_groups::remembered(scene) {
        if let Some(record) = scene.store.get(&keys::share(&scene.flow.name, &name))? {
            remembered.push((name, record));
        }
    }
    if remembered.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = remembered.iter().map(|(name, _)| name.clone()).collect();
    let there = wire::describe_share_group_offsets(&scene.target, &names).await;
    for (name, record) in remembered {
        let there = match there.get(&name) {
            Some(Err(error)) if wire::is_unsupported(error) => None,
            Some(Err(_)) => {
                account.unknown.push(name);
                continue;
            }
            there => there.and_then(|there| there.as_ref().ok()),
        };
        let mut group = GroupReread {
            group: name,
            ..GroupReread::default()
        };
        let mut positions = 0;
        for (topic, offsets) in &record.topics {
            for known in offsets {
                let at = TopicPartition::new(topic.as_str(), known.partition);
                let Some(pair) = by_source.get(&at) else {
                    continue;
                };
                positions += 1;
                let Some(start) = there.and_then(|there| there.get(&pair.target)) else {
                    group.unplaced_positions += 1;
                    continue;
                };
                let ours = known.sending.or(known.target);
                let ours = ours.map(|target| (known.source, target));
                let back = back(pair, maps, *start, ours);
                group.records += back.map_or(0, |back| (known.source - back).max(0));
            }
        }
        account.note(group, positions);
    }
    Ok(())
}

/// The source position that a position on the target stands for.
fn back(pair: &Pair, maps: &Maps, committed: i64, ours: Option<(i64, i64)>) -> Option<i64> {
    // Of our own commits it is remembered.
    if let Some((source, target)) = ours
        && target == committed
    {
        return Some(source);
    }
    match maps.get(&pair.source) {
        None => Some(committed),
        Some(map) => match map.reverse(TargetOffset(committed)) {
            Translation::Exact(offset) => Some(offset.0),
            _ => None,
        },
    }
}

/// The same for the preflight.
pub(super) fn facts(account: &RereadAccount) -> GroupFacts {
    let unplaced = account.groups.iter().map(|group| group.unplaced_positions);
    GroupFacts {
        total: account.groups_total,
        rereading: account.groups.iter().filter(|it| it.records > 0).count(),
        reread_records: account.records,
        unplaced_positions: unplaced.sum(),
        unknown: account.unknown.clone(),
        ..GroupFacts::default()
    }
}
