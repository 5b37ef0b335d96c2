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
use crate::cutover::group_facts::{has_members, remembered};
use crate::cutover::pairs::{
    Maps, Offsets, Pair, ends_or_why, on_target, one_of_each_leader, translate,
};
use crate::flow::claim;
use crate::groups::{self, Resting, Verdict};
use crate::state::{GroupPositions, Memory, keys};
use crate::wire::{self, GroupOffset, ListedGroups, OffsetSpec, TopicPartition, WireError};

/// Between two looks at the source's positions.
const APART: Duration = Duration::from_millis(250);
/// Groups that move on for longer are named: their consumers still run on the source.
const LOOKS_FOR: Duration = Duration::from_secs(2);

/// A group with members that is about to come to the end is waited for: consumers commit every five
/// seconds (`auto.commit.interval.ms`), and what they have read and not committed would be read again.
const LAST_COMMIT_FOR: Duration = Duration::from_millis(5_500);
/// So many partitions are named at once where it is asked for commits of transactions that don't count yet, for groups
/// without any position: those may be many that have nothing to do with the flow.
const NAMED_MAX: usize = 20_000;
/// So long it is asked for them in one look. Of which there was no time to ask, those are named.
const BARE_FOR: Duration = LOOKS_FOR;
/// So close to the end it is about to come there: nothing new is written any more.
const NEAR: i64 = 10_000;
/// So long a target may take until it has a quota for the last commits.
const QUOTA_WITHIN: Duration = Duration::from_secs(30);

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
    /// Groups of which a transaction has committed a position that didn't count by the end: it is open, or its marker is
    /// on the way.
    #[serde(default)]
    pub pending: BTreeSet<String>,
    /// Groups without any position, of which there was no time to ask whether a transaction has committed one that didn't
    /// count yet: there are many, or many partitions.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub maybe_pending: BTreeSet<String>,
    /// Groups with members on the source that had committed nothing by the end.
    #[serde(default)]
    pub uncommitted: BTreeSet<String>,
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
    /// Whether the last position of every group is known, and is where the group goes on.
    pub fn has_all_placed(&self) -> bool {
        let unsettled = [
            &self.unknown,
            &self.refused,
            &self.pending,
            &self.maybe_pending,
            &self.uncommitted,
            &self.moving,
            &self.active_on_target,
            &self.kept,
            &self.beyond,
        ];
        let is_settled = unsettled.iter().all(|groups| groups.is_empty());
        is_settled && self.failed.is_empty() && self.unseen.is_none()
    }

    /// Whether nothing is left that another try may bring.
    fn is_all_brought(&self, place: &Place) -> bool {
        // Who was silent is asked once.
        self.failed == place.silent && self.active_on_target.is_empty() && self.beyond.is_empty()
    }

    /// All positions are looked at again: what stood in the way of one may be over.
    fn begin_anew(&mut self, place: &Place) {
        self.active_on_target.clear();
        self.kept.clear();
        self.beyond.clear();
        self.failed.clone_from(&place.silent);
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
/// As the coordinators answer.
type Asked = HashMap<String, Result<HashMap<TopicPartition, GroupOffset>, WireError>>;

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    // What the copying process wrote last was read with its end.
    let scene = &it.scene;
    let pairs = scene.pairs();
    let mut result = GroupsResult::default();
    let place = Place::look(scene, &pairs).await?;
    let by_source: HashMap<&TopicPartition, &Pair> =
        pairs.iter().map(|pair| (&pair.source, pair)).collect();
    let mut by_topic = ByTopic::new();
    for pair in &pairs {
        let partitions = by_topic.entry(&pair.source.topic).or_default();
        partitions.push(pair.source.clone());
    }
    let proven = it.proven_ends()?;
    let plan = it.journal.record.plan;
    let memory = claim::memory(&scene.store, &scene.flow.name, Some(plan))?;
    let began = Instant::now();
    let mut before: Option<Positions> = None;
    let mut were_live = BTreeSet::new();
    let mut known: BTreeSet<String> = remembered(scene).collect();
    let mut unsettled = BTreeSet::new();
    let shares = loop {
        let is_wanted = |at: &TopicPartition| by_source.contains_key(at);
        let (
            listed,
            Told {
                positions: now,
                bare,
            },
        ) = look(scene, &known, is_wanted, &mut result).await;
        let Listed {
            names,
            live,
            shares,
        } = listed;
        known.extend(names.iter().cloned());
        result.groups = now.values().filter(|it| !it.is_empty()).count();
        result.positions = now.values().map(HashMap::len).sum();
        // Commits are noted first, and the broker takes that note from nobody who has lost the lease.
        let is_same = before.as_ref() == Some(&now) && result.is_all_brought(&place);
        if !is_same {
            bring(scene, (&place, memory), &by_source, &now, &mut result).await?;
        }
        let moving: BTreeSet<String> = match &before {
            None => names.into_iter().collect(),
            Some(before) => now
                .iter()
                .filter(|(group, positions)| before.get(*group) != Some(*positions))
                .map(|(group, _)| group.clone())
                .collect(),
        };
        // Who is live and where they are was asked side by side: who has left in between may have committed behind the
        // answer. The list before this one was there before that was asked.
        were_live.extend(live.iter().cloned());
        let uncommitted: BTreeSet<String> = bare.intersection(&were_live).cloned().collect();
        let may_commit = !uncommitted.is_empty() || is_about_to_commit(&now, &were_live, &proven);
        let is_waited_for = began.elapsed() < LAST_COMMIT_FOR && may_commit;
        were_live = live;
        let is_pending = !unsettled.is_empty() && began.elapsed() < it.options.wait;
        let is_settled = moving.is_empty() && unsettled.is_empty();
        let is_over = began.elapsed() >= LOOKS_FOR && !is_pending;
        // Behind the first look nobody knows whether anything moves, or is pending.
        let is_second = before.is_some();
        if now.is_empty() || (is_second && !is_waited_for && (is_settled || is_over)) {
            result.moving = moving.into_iter().filter(|_| is_second).collect();
            result.pending = unsettled;
            result.uncommitted = uncommitted.difference(&result.pending).cloned().collect();
            break shares;
        }
        // Where nobody is live nobody moves: the second look says so, and has nothing to wait for.
        let pause = match before.is_none() && were_live.is_empty() {
            true => Duration::ZERO,
            false => APART,
        };
        // Asked before the next positions: whose marker has come by then is where they say.
        let asked = pending(scene, (&now, &were_live), &by_topic, &mut result);
        (unsettled, _) = tokio::join!(asked, tokio::time::sleep(pause));
        before = Some(now);
    };
    share_groups::bring(scene, &place, &by_source, shares, &mut result).await?;
    let text = result.in_words();
    it.journal.note("groups", &result);
    Ok(text)
}

/// Asks what this step asks, for the connections and the coordinators alone.
pub(super) async fn connect(scene: &Scene) {
    if scene.flow.groups.include().is_empty() {
        return;
    }
    let known: Vec<String> = remembered(scene).collect();
    let targets = one_of_each_leader(&scene.target, on_target(&scene.pairs()));
    let mut unused = GroupsResult::default();
    tokio::join!(
        listed(scene, &mut unused),
        wire::fetch_group_offsets(&scene.source, &known),
        wire::fetch_group_offsets(&scene.target, &known),
        ends_or_why(&scene.target, &targets, OffsetSpec::Earliest),
    );
}

/// The copied partitions of each topic of the source.
type ByTopic<'a> = HashMap<&'a str, Vec<TopicPartition>>;

/// The groups of which a transaction has committed a position that doesn't count yet. That is where they are as soon as its
/// marker is in the log of groups, which isn't among the logs whose ends were proven.
async fn pending(
    scene: &Scene,
    (before, live): (&Positions, &BTreeSet<String>),
    by_topic: &ByTopic<'_>,
    result: &mut GroupsResult,
) -> BTreeSet<String> {
    let began = Instant::now();
    let (bare, others): (Vec<_>, Vec<_>) = before.iter().partition(|(_, at)| at.is_empty());
    let mut asked = HashMap::new();
    for (group, positions) in others {
        let topics: BTreeSet<&str> = positions.keys().map(|at| &*at.topic).collect();
        let of_topics = topics.iter().filter_map(|topic| by_topic.get(topic));
        let named: BTreeSet<TopicPartition> = of_topics.flatten().cloned().collect();
        asked.insert(group.clone(), named);
    }
    let bare = bare.into_iter().map(|(group, _)| group);
    let partitions = by_topic.values().flatten().collect();
    let mut bare = Bare::new(bare.collect(), live, partitions);
    asked.extend(bare.next(NAMED_MAX));
    let mut pending = BTreeSet::new();
    while !asked.is_empty() {
        for (group, answer) in wire::pending_group_offsets(&scene.source, &asked).await {
            match answer {
                Ok(partitions) if partitions.is_empty() => {}
                Ok(_) => {
                    pending.insert(group);
                }
                Err(error) => result.note_unasked(group, &error),
            }
        }
        asked = match began.elapsed() < BARE_FOR {
            true => bare.next(NAMED_MAX).into_iter().collect(),
            false => HashMap::new(),
        };
    }
    result.maybe_pending = bare.left().cloned().collect();
    pending
}

/// Groups without any position. A coordinator tells of a commit that doesn't count yet only where its partition is named, so
/// all partitions are named for each.
struct Bare<'a> {
    groups: Vec<&'a String>,
    partitions: Vec<&'a TopicPartition>,
    /// How many groups were asked for, and how many partitions were named for the next one.
    asked: usize,
    named: usize,
}

impl<'a> Bare<'a> {
    /// Those with members come first: they are the ones that commit.
    fn new(
        mut groups: Vec<&'a String>,
        live: &BTreeSet<String>,
        partitions: Vec<&'a TopicPartition>,
    ) -> Self {
        groups.sort_by_key(|group| (!live.contains(*group), *group));
        Self {
            groups,
            partitions,
            asked: 0,
            named: 0,
        }
    }

    /// What to ask for next, with no more than so many partitions named.
    fn next(&mut self, most: usize) -> Vec<(String, BTreeSet<TopicPartition>)> {
        let (mut round, mut room) = (Vec::new(), most);
        while room > 0
            && let Some(group) = self.groups.get(self.asked)
        {
            let left = self.partitions[self.named..].iter().take(room);
            let named: BTreeSet<TopicPartition> = left.map(|at| (*at).clone()).collect();
            self.named += named.len();
            room -= named.len();
            if self.named == self.partitions.len() {
                (self.asked, self.named) = (self.asked + 1, 0);
            }
            if !named.is_empty() {
                round.push(((*group).clone(), named));
            }
        }
        round
    }

    /// The groups that weren't asked for, or not for all partitions.
    fn left(&self) -> impl Iterator<Item = &'a String> {
        self.groups[self.asked..].iter().copied()
    }
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
    /// The share groups that are followed.
    shares: BTreeSet<String>,
}

/// Which groups there are, and where they are on the source. Those that are `known` already are asked for while the
/// others are looked for.
async fn look(
    scene: &Scene,
    known: &BTreeSet<String>,
    is_wanted: impl Fn(&TopicPartition) -> bool,
    result: &mut GroupsResult,
) -> (Listed, Told) {
    let known: Vec<String> = match scene.flow.groups.include().is_empty() {
        true => Vec::new(),
        // Who couldn't be asked a moment ago would only hold up the others again.
        false => known
            .iter()
            .filter(|it| !result.is_unasked(it))
            .cloned()
            .collect(),
    };
    let (listed, asked) = tokio::join!(
        listed(scene, result),
        wire::fetch_group_offsets(&scene.source, &known)
    );
    let rest: Vec<String> = listed
        .names
        .iter()
        .filter(|name| !asked.contains_key(*name))
        .cloned()
        .collect();
    let mut told = sorted(asked, &is_wanted, result);
    if !rest.is_empty() {
        let more = ask(&scene.source, &rest, &is_wanted, result).await;
        told.positions.extend(more.positions);
        told.bare.extend(more.bare);
    }
    let names: BTreeSet<&String> = listed.names.iter().collect();
    told.positions.retain(|group, _| names.contains(group));
    told.bare.retain(|group| names.contains(group));
    (listed, told)
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
    let is_share = |group: &&wire::ListedGroup| {
        group.group_type == "share" && scene.flow.groups.matches(&group.group_id)
    };
    let shares = listed.groups.iter().filter(is_share);
    let shares = shares.map(|group| group.group_id.clone()).collect();
    let followed = listed
        .groups
        .into_iter()
        .filter(|group| group.is_of_consumers() && scene.flow.groups.matches(&group.group_id));
    let (mut live, mut names) = (BTreeSet::new(), BTreeSet::new());
    for group in followed {
        if has_members(&group) {
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
        shares,
    }
}

/// What the coordinators told.
struct Told {
    /// The positions that are wanted, an entry for each group that was told of.
    positions: Positions,
    /// Groups without any position, wanted or not.
    bare: BTreeSet<String>,
}

/// The positions of those that can be asked for; the others are named in `result`.
async fn ask(
    cluster: &wire::Cluster,
    groups: &[String],
    is_wanted: impl Fn(&TopicPartition) -> bool,
    result: &mut GroupsResult,
) -> Told {
    let asked = wire::fetch_group_offsets(cluster, groups).await;
    sorted(asked, is_wanted, result)
}

/// Those that were told; the others are named in `result`.
fn sorted(
    asked: Asked,
    is_wanted: impl Fn(&TopicPartition) -> bool,
    result: &mut GroupsResult,
) -> Told {
    let (mut all, mut bare) = (Positions::new(), BTreeSet::new());
    for (group, answer) in asked {
        match answer {
            Ok(mut positions) => {
                if positions.is_empty() {
                    bare.insert(group.clone());
                }
                positions.retain(|at, _| is_wanted(at));
                all.insert(group, positions);
            }
            Err(error) => result.note_unasked(group, &error),
        }
    }
    let positions = all;
    Told { positions, bare }
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
    /// The partitions whose leader didn't say, a line each.
    silent: Vec<String>,
}

impl Place {
    /// A partition whose leader on the target doesn't answer keeps only its own positions from their place.
    async fn look(scene: &Scene, pairs: &[Pair]) -> Result<Self, CutoverError> {
        let targets = on_target(pairs);
        let ((starts, mut silent), (ends, without_end)) = tokio::join!(
            ends_or_why(&scene.target, &targets, OffsetSpec::Earliest),
            ends_or_why(&scene.target, &targets, OffsetSpec::Latest),
        );
        silent.extend(without_end);
        let in_words = |why: &String| format!("{why}: positions in it aren't moved");
        let mut lines: Vec<String> = silent.values().map(in_words).collect();
        lines.dedup();
        Ok(Self {
            starts,
            ends,
            maps: scene.maps(pairs)?,
            silent: lines,
        })
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
    (place, memory): (&Place, Memory),
    by_source: &HashMap<&TopicPartition, &Pair>,
    now: &Positions,
    result: &mut GroupsResult,
) -> Result<(), CutoverError> {
    result.begin_anew(place);
    let groups: Vec<String> = now.keys().cloned().collect();
    let told = ask(&scene.target, &groups, |_| true, result).await;
    let on_target = told.positions;
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
            let resting = Resting {
                source: at,
                target: &pair.target,
                wanted: offset,
                overwrite: overwrites,
                memory,
                continued_at: pair.continued_at(),
            };
            let there = known.get(&pair.target);
            let (offset, restores) = match resting.verdict(&record, there) {
                Verdict::Current => continue,
                Verdict::Blocked(_) => {
                    result.kept.insert(group.clone());
                    continue;
                }
                Verdict::Commit {
                    offset, restores, ..
                } => (offset, restores),
            };
            let named = (at.topic.as_str(), at.partition);
            let mut commit = GroupOffset {
                offset,
                // The epoch of one cluster means nothing on another.
                leader_epoch: -1,
                metadata: position.metadata.clone(),
            };
            if restores {
                // A commit of ours has covered theirs, and nobody came to put it back.
                commit.metadata.clear();
                result.kept.insert(group.clone());
                record.give_back(named);
            } else {
                record.note(named, position.offset, offset);
            }
            wanted.insert(pair.target.clone(), commit);
        }
        if !wanted.is_empty() {
            record.v = 1;
            remember.push((key, record));
            commits.insert(group.clone(), wanted);
        }
    }
    // Before they are committed: else a restart would take them for somebody else's.
    scene.store.put_all(&remember).await?;
    let committed = wire::commit_group_offsets_within(&scene.target, &commits, QUOTA_WITHIN);
    for (group, answers) in committed.await {
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

    fn place_without_an_answer() -> Place {
        Place {
            starts: Offsets::new(),
            ends: Offsets::new(),
            maps: Maps::new(),
            silent: vec!["t-0 on standby: silent".to_owned()],
        }
    }

    /// Each of them is a group that doesn't go on where it should, or a position that may be somewhere else.
    #[test]
    fn nothing_is_all_in_its_place_while_a_group_is_named() {
        assert!(GroupsResult::default().has_all_placed());
        let named = || BTreeSet::from(["g".to_owned()]);
        let fill: [fn(&mut GroupsResult) -> &mut BTreeSet<String>; 8] = [
            |it| &mut it.unknown,
            |it| &mut it.refused,
            |it| &mut it.pending,
            |it| &mut it.uncommitted,
            |it| &mut it.moving,
            |it| &mut it.active_on_target,
            |it| &mut it.kept,
            |it| &mut it.beyond,
        ];
        for of in fill {
            let mut result = GroupsResult::default();
            *of(&mut result) = named();
            assert!(!result.has_all_placed(), "{result:?}");
        }
        let failed = GroupsResult {
            failed: vec!["g: refused".to_owned()],
            ..GroupsResult::default()
        };
        assert!(!failed.has_all_placed());
    }

    /// What stood in the way of the look before isn't said of a position that this one brings.
    #[test]
    fn a_look_begins_without_the_troubles_of_the_one_before() {
        let place = place_without_an_answer();
        let named = || BTreeSet::from(["g".to_owned()]);
        let mut result = GroupsResult {
            active_on_target: named(),
            kept: named(),
            beyond: named(),
            unknown: named(),
            failed: vec!["g: not the coordinator".to_owned()],
            ..GroupsResult::default()
        };
        result.begin_anew(&place);
        assert_eq!(result.failed, place.silent, "nobody asks it again");
        assert_eq!(result.unknown, named(), "nor this one");
        assert!(result.is_all_brought(&place), "{result:?}");
    }

    #[test]
    fn groups_without_a_position_are_all_asked_for_or_named() {
        let groups: Vec<String> = ["a", "b", "live"].map(str::to_owned).into();
        let partitions: Vec<_> = (0..50).map(|it| TopicPartition::new("t", it)).collect();
        let live = BTreeSet::from(["live".to_owned()]);
        let bare = || Bare::new(groups.iter().collect(), &live, partitions.iter().collect());
        // Of a group that alone is more than may be named at once as well.
        for most in [1, 20, 50, 70, 1_000] {
            let mut bare = bare();
            let mut named: BTreeMap<String, Vec<TopicPartition>> = BTreeMap::new();
            loop {
                let round = bare.next(most);
                let count: usize = round.iter().map(|(_, partitions)| partitions.len()).sum();
                assert!(count <= most, "{count} of {most}");
                if round.is_empty() {
                    break;
                }
                for (group, partitions) in round {
                    named.entry(group).or_default().extend(partitions);
                }
            }
            assert_eq!(named.len(), groups.len());
            assert!(named.values().all(|it| *it == partitions), "{most}");
            assert_eq!(bare.left().count(), 0);
        }
        let mut bare = bare();
        let first = bare.next(70);
        let first: Vec<&str> = first.iter().map(|(group, _)| &**group).collect();
        assert_eq!(first, ["live", "a"]);
        let left: Vec<&String> = bare.left().collect();
        assert_eq!(left, ["a", "b"], "the one with a part only is left, too");
    }

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
            silent: Vec::new(),
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
