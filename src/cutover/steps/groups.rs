//! The last barrier for consumer groups: every position on the source is on the target.
//!
//! The rules are those of following (`groups`): a group with members on the target refuses our
//! commit; a position that a real client committed there stays, unless the config says otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::share_groups;
use crate::config::OnDiverged;
use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::group_facts::remembered;
use crate::cutover::pairs::{Maps, Offsets, Pair, ends_or_why, on_target, translate};
use crate::groups;
use crate::state::{GroupPositions, keys};
use crate::wire::{self, GroupOffset, ListedGroups, OffsetSpec, TopicPartition, WireError};

/// Between two looks at the source's positions.
const APART: Duration = Duration::from_millis(250);
/// Groups that move on for longer are named: their consumers still run on the source.
const LOOKS_FOR: Duration = Duration::from_secs(2);

/// A group with members that is about to come to the end is waited for: consumers commit every five
/// seconds (`auto.commit.interval.ms`), and what they have read and not committed would be read again.
const LAST_COMMIT_FOR: Duration = Duration::from_millis(5_500);
/// So close to the end it is about to come there: nothing new is written any more.
const NEAR: i64 = 10_000;

/// What became of the groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GroupsResult {
    /// Groups with a position in the topics that are cut over, share groups too.
    pub groups: usize,
    /// Their positions.
    pub positions: usize,
    /// Positions that were moved now; the others were there already.
    pub moved: usize,
    /// Groups that still moved on the source.
    pub moving: BTreeSet<String>,
    /// Groups with members on the target, which can't be moved.
    pub active_on_target: BTreeSet<String>,
    /// Groups with positions that a client committed on the target.
    pub kept: BTreeSet<String>,
    /// Positions beyond the end of the copy.
    pub beyond: BTreeSet<String>,
    /// Groups whose coordinator on one of the clusters couldn't be asked.
    #[serde(default)]
    pub unknown: BTreeSet<String>,
    /// Groups that may not be described on one of the clusters.
    #[serde(default)]
    pub refused: BTreeSet<String>,
    /// Why there may be more groups that nobody could name.
    #[serde(default)]
    pub unseen: Option<String>,
    /// What failed otherwise, a line each.
    pub failed: Vec<String>,
}

impl GroupsResult {
    /// Whether every group was asked for.
    pub fn knows_all(&self) -> bool {
        self.unknown.is_empty() && self.refused.is_empty() && self.unseen.is_none()
    }

    fn in_words(&self) -> String {
        let mut text = format!(
            "{} group(s) with {} position(s), {} of them moved now",
            self.groups, self.positions, self.moved
        );
        let unasked = self.unknown.union(&self.refused).count();
        if unasked > 0 {
            text += &format!("; {unasked} couldn't be asked for");
        }
        if self.unseen.is_some() {
            text += "; there may be others that can't be seen";
        }
        text
    }

    /// A group couldn't be asked for.
    pub(super) fn note_unasked(&mut self, group: String, error: &WireError) {
        tracing::warn!(group, %error, "the group's positions can't be asked for");
        match wire::is_refused_group(error) {
            true => self.refused.insert(group),
            false => self.unknown.insert(group),
        };
    }

    /// What failed in one look may fail in the next one, too. It is said once.
    pub(super) fn note_failed(&mut self, line: String) {
        if !self.failed.contains(&line) {
            self.failed.push(line);
        }
    }

    pub(super) fn is_unasked(&self, group: &String) -> bool {
        self.unknown.contains(group) || self.refused.contains(group)
    }
}

type Positions = HashMap<String, HashMap<TopicPartition, GroupOffset>>;

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    // What the copying process wrote last was read with its end.
    let scene = &it.scene;
    let pairs = scene.pairs();
    let mut result = GroupsResult::default();
    let place = Place::look(scene, &pairs, &mut result).await?;
    let by_source: HashMap<&TopicPartition, &Pair> =
        pairs.iter().map(|pair| (&pair.source, pair)).collect();
    let proven = it.proven_ends()?;
    let began = Instant::now();
    let mut before: Option<Positions> = None;
    loop {
        let Listed { names, live } = listed(scene, &mut result).await;
        let now = positions(
            &scene.source,
            &names,
            |at| by_source.contains_key(at),
            &mut result,
        )
        .await;
        result.groups = now.values().filter(|it| !it.is_empty()).count();
        result.positions = now.values().map(HashMap::len).sum();
        // Commits are noted first, and the broker takes that note from nobody who has lost the lease.
        bring(scene, &place, &by_source, &now, &mut result).await?;
        let moving: BTreeSet<String> = match &before {
            None => names.into_iter().collect(),
            Some(before) => now
                .iter()
                .filter(|(group, positions)| before.get(*group) != Some(*positions))
                .map(|(group, _)| group.clone())
                .collect(),
        };
        let is_waited_for =
            began.elapsed() < LAST_COMMIT_FOR && is_about_to_commit(&now, &live, &proven);
        let is_settled = before.is_some() && moving.is_empty() && !is_waited_for;
        let is_over = began.elapsed() >= LOOKS_FOR && !is_waited_for;
        if is_settled || result.positions == 0 || is_over {
            if before.is_some() {
                result.moving = moving;
            }
            break;
        }
        before = Some(now);
        tokio::time::sleep(APART).await;
    }
    share_groups::bring(scene, &place, &by_source, &mut result).await?;
    let text = result.in_words();
    it.journal.note("groups", &result);
    Ok(text)
}

/// Whether a group with members is a little before the end that nothing comes behind any more.
fn is_about_to_commit(now: &Positions, live: &BTreeSet<String>, proven: &Offsets) -> bool {
    let of_live = now.iter().filter(|(group, _)| live.contains(*group));
    let mut positions = of_live.flat_map(|(_, positions)| positions);
    positions.any(|(at, position)| {
        let left = proven.get(at).map_or(0, |end| end - position.offset);
        (1..=NEAR).contains(&left)
    })
}

/// The consumer groups that the flow follows.
#[derive(Default)]
struct Listed {
    names: Vec<String>,
    /// Those with members.
    live: BTreeSet<String>,
}

/// Those whose coordinators can be asked, as far as that is known by now. Writers are kept away here and nothing is
/// copied any more: a list that can't be had doesn't keep those groups from being brought that are known.
async fn listed(scene: &Scene, result: &mut GroupsResult) -> Listed {
    if scene.flow.groups.include().is_empty() {
        return Listed::default();
    }
    let (listed, hidden) = tokio::join!(
        wire::list_groups(&scene.source),
        groups::hidden(&scene.source, &scene.flow.groups),
    );
    let in_words = |error: WireError| Some(error.to_string());
    let (listed, why) = match listed {
        Ok(listed) => {
            let why = listed.why_incomplete();
            (listed, why)
        }
        Err(error) => (ListedGroups::default(), in_words(error)),
    };
    result.unseen = why.or(hidden.unwrap_or_else(in_words));
    let followed = listed
        .groups
        .into_iter()
        .filter(|group| group.is_of_consumers() && scene.flow.groups.matches(&group.group_id));
    let mut live = BTreeSet::new();
    let mut names = BTreeSet::new();
    for group in followed {
        if !matches!(group.state.as_str(), "Empty" | "Dead") {
            live.insert(group.group_id.clone());
        }
        names.insert(group.group_id);
    }
    names.extend(remembered(scene));
    let names = names.into_iter();
    Listed {
        // Who couldn't be asked a moment ago would only hold up the others again.
        names: names.filter(|it| !result.is_unasked(it)).collect(),
        live,
    }
}

/// The positions of those that can be asked for; the others are named in `result`.
async fn positions(
    cluster: &wire::Cluster,
    groups: &[String],
    is_wanted: impl Fn(&TopicPartition) -> bool,
    result: &mut GroupsResult,
) -> Positions {
    let mut all = Positions::new();
    for (group, answer) in wire::fetch_group_offsets(cluster, groups).await {
        match answer {
            Ok(mut positions) => {
                positions.retain(|at, _| is_wanted(at));
                all.insert(group, positions);
            }
            Err(error) => result.note_unasked(group, &error),
        }
    }
    all
}

/// Where a position is on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    At(i64),
    /// Beyond the end of the copy.
    Beyond,
    /// The partition's leader didn't say where it begins and ends: named once, for all of its positions.
    Silent,
}

/// Where positions are on the target.
pub(super) struct Place {
    starts: Offsets,
    ends: Offsets,
    maps: Maps,
}

impl Place {
    /// A partition whose leader on the target doesn't answer keeps only its own positions from their place.
    async fn look(
        scene: &Scene,
        pairs: &[Pair],
        result: &mut GroupsResult,
    ) -> Result<Self, CutoverError> {
        let targets = on_target(pairs);
        let ((starts, mut silent), (ends, without_end)) = tokio::join!(
            ends_or_why(&scene.target, &targets, OffsetSpec::Earliest),
            ends_or_why(&scene.target, &targets, OffsetSpec::Latest),
        );
        silent.extend(without_end);
        for why in silent.values() {
            result.note_failed(format!("{why}: positions in it aren't moved"));
        }
        let maps = scene.maps(pairs)?;
        Ok(Self { starts, ends, maps })
    }

    pub(super) fn of(&self, pair: &Pair, position: i64) -> Placed {
        let of_target = |offsets: &Offsets| offsets.get(&pair.target).copied();
        let (Some(start), Some(end)) = (of_target(&self.starts), of_target(&self.ends)) else {
            return Placed::Silent;
        };
        match translate(pair, end, &self.maps, position) {
            Some(offset) => Placed::At(offset.max(start)),
            None => Placed::Beyond,
        }
    }
}

/// Commits what differs on the target.
async fn bring(
    scene: &Scene,
    place: &Place,
    by_source: &HashMap<&TopicPartition, &Pair>,
    now: &Positions,
    result: &mut GroupsResult,
) -> Result<(), CutoverError> {
    let groups: Vec<String> = now.keys().cloned().collect();
    let on_target = positions(&scene.target, &groups, |_| true, result).await;
    let overwrites = scene.flow.group_rules.on_diverged == OnDiverged::Follow;
    let mut commits: HashMap<String, BTreeMap<TopicPartition, GroupOffset>> = HashMap::new();
    let mut remember: Vec<(String, GroupPositions)> = Vec::new();
    for (group, positions) in now {
        let key = keys::group(&scene.flow.name, group);
        // What it has there may be a client's.
        let Some(known) = on_target.get(group) else {
            continue;
        };
        let mut record: GroupPositions = match scene.store.get(&key) {
            Ok(record) => record.unwrap_or_default(),
            Err(error) => {
                result.note_failed(format!("{group}: {error}"));
                continue;
            }
        };
        let mut wanted = BTreeMap::new();
        for (at, position) in positions {
            let Some(pair) = by_source.get(at) else {
                continue;
            };
            let offset = match place.of(pair, position.offset) {
                Placed::At(offset) => offset,
                Placed::Beyond => {
                    result.beyond.insert(format!("{group} {at}"));
                    continue;
                }
                Placed::Silent => continue,
            };
            let there = known.get(&pair.target);
            if there.is_some_and(|there| there.offset == offset) {
                continue;
            }
            let named = (at.topic.as_str(), at.partition);
            let is_foreign = there.is_some_and(|there| {
                record.is_strangers(named, (there.offset, there.leader_epoch))
                    && !pair.is_before_the_copy(there.offset)
            });
            if is_foreign && !overwrites {
                result.kept.insert(group.clone());
                continue;
            }
            let commit = GroupOffset {
                offset,
                // The epoch of one cluster means nothing on another.
                leader_epoch: -1,
                metadata: position.metadata.clone(),
            };
            wanted.insert(pair.target.clone(), commit);
            record.note(named, position.offset, offset);
        }
        if !wanted.is_empty() {
            record.v = 1;
            remember.push((key, record));
            commits.insert(group.clone(), wanted);
        }
    }
    // Before they are committed: else a restart would take them for somebody else's.
    scene.store.put_all(&remember).await?;
    for (group, answers) in wire::commit_group_offsets(&scene.target, &commits).await {
        for (at, answer) in answers {
            match answer {
                Ok(_) => result.moved += 1,
                Err(error) if is_active(&error) => {
                    result.active_on_target.insert(group.clone());
                }
                Err(error) => result.note_failed(format!("{group} {at}: {error}")),
            }
        }
    }
    Ok(())
}

/// The answers of a coordinator whose group has members.
pub(super) fn is_active(error: &WireError) -> bool {
    use wire::ResponseError as E;
    matches!(
        error.server_code(),
        Some(
            E::UnknownMemberId
                | E::IllegalGeneration
                | E::RebalanceInProgress
                | E::FencedInstanceId
                | E::StaleMemberEpoch
                | E::FencedMemberEpoch
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_beyond_the_copy_only_where_the_copy_s_ends_are_known() {
        let at = TopicPartition::new("t", 0);
        let pair = Pair {
            source: at.clone(),
            target: at.clone(),
            origin: 0,
            begun: true,
            mapped: false,
            continued: None,
        };
        let known = |offset| Offsets::from([(at.clone(), offset)]);
        let place = |starts: Offsets, ends: Offsets| Place {
            starts,
            ends,
            maps: Maps::new(),
        };
        let both = place(known(10), known(20));
        assert_eq!(both.of(&pair, 15), Placed::At(15));
        assert_eq!(both.of(&pair, 5), Placed::At(10));
        assert_eq!(both.of(&pair, 25), Placed::Beyond);
        for one in [
            place(known(10), Offsets::new()),
            place(Offsets::new(), known(20)),
        ] {
            assert_eq!(one.of(&pair, 25), Placed::Silent);
        }
    }
}
