//! What is known of every group's positions on both clusters. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::commit::Sent;
use super::decide::{Blocked, Commit};
use super::record::{GroupRecord, StoredOffset};
use super::unseen::Unseen;
use crate::wire::TopicPartition;

/// A partition, by its topic's name on one of the clusters.
pub type Key = (Arc<str>, i32);

/// So many commits of ours are remembered until the target's log shows them. It shows them within
/// milliseconds; more pile up only while it can't be read, and then it is read anew.
const UNCONFIRMED_MAX: usize = 1_024;

/// A commit of ours as the target's log showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    offset: i64,
    committed_at_ms: i64,
}

impl Shown {
    fn of(commit: &Commit) -> Self {
        Self {
            offset: commit.offset,
            committed_at_ms: commit.committed_at_ms,
        }
    }
}

/// One position of one group: what the source says, and what became of it.
#[derive(Debug, Default)]
pub struct Row {
    /// The position on the source; `None` when the group gave it up there.
    pub source: Option<Commit>,
    /// The id that the source's topic had when it was committed; nil where that isn't told.
    source_topic_id: Uuid,
    /// A position of another topic of this name than the one that is copied. It counts again when that one is copied:
    /// what is known of the topic may be older than the commit.
    set_aside: Option<Commit>,
    /// What we committed on the target last, by its offset there.
    pub applied: Option<i64>,
    /// The source position that `applied` stands for.
    pub applied_source: i64,
    /// What we sent and haven't seen in the target's log, oldest first.
    pub unconfirmed: VecDeque<i64>,
    /// The last of ours that was sent and passed over: its connection broke, and it may still be
    /// carried out late.
    passed_over: Option<i64>,
    /// The last of ours that wasn't answered, or refused by who may have written it: the target's log may show it
    /// at any time, and again.
    unanswered: Option<i64>,
    /// The last of ours that the target's log showed. Its answer may be lost, and then `applied` never
    /// is it: a coordinator that is killed or frozen has written it all the same.
    shown: Option<Shown>,
    /// What the group wrote beside a position, and what is too large for the target.
    refused_metadata: Option<Arc<str>>,
    /// What somebody else committed on the target, while it counts.
    pub foreign: Option<Commit>,
    /// Why the position isn't followed now.
    pub blocked: Option<Blocked>,
    /// When `blocked` changed, milliseconds since the epoch.
    pub since_ms: i64,
    /// The source position that waits for the copy: the first one that it hasn't reached. Later ones
    /// don't take its place, or behind a copy that lags nothing would ever be committed.
    pub waiting: Option<Commit>,
    /// The reading of the source's log that showed it last.
    generation: u32,
}

impl Row {
    /// Whether a position on the target is one that we wrote.
    pub fn is_ours(&self, offset: i64) -> bool {
        self.applied == Some(offset)
            || self.passed_over == Some(offset)
            || self.shown.is_some_and(|shown| shown.offset == offset)
            || self.unconfirmed.contains(&offset)
    }

    /// Whether the source's position is of another topic than the one that is copied, which has this id: of one that was
    /// deleted since, or of one that took its place and isn't copied yet.
    pub fn is_of_other_topic(&self, topic_id: Uuid) -> bool {
        !self.source_topic_id.is_nil() && !topic_id.is_nil() && self.source_topic_id != topic_id
    }

    /// The id of the topic that the source's position is of; nil where that isn't told.
    pub fn source_topic_id(&self) -> Uuid {
        self.source_topic_id
    }

    /// The position is of a topic that was deleted. The coordinator hides such a position from its group
    /// (`OffsetMetadataManager.isMismatchedTopicId`).
    pub fn set_aside(&mut self) {
        self.set_aside = self.source.take().or(self.set_aside.take());
    }

    /// The topic with this id is copied now: a position of it that was set aside counts again.
    pub fn take_back(&mut self, topic_id: Uuid) {
        if self.source.is_none() && self.source_topic_id == topic_id {
            self.source = self.set_aside.take();
        }
    }

    /// Whether the source has no position here, of whatever topic.
    fn is_given_up(&self) -> bool {
        self.source.is_none() && self.set_aside.is_none()
    }

    /// A position was taken without what the group wrote beside it. Said once.
    pub fn note_refused_metadata(&mut self, group: &str, sent: &Sent) {
        if self.refused_metadata.is_none() {
            tracing::warn!(group, partition = %sent.target, bytes = sent.metadata.len(), "what a group wrote beside its position is too large for the target (offset.metadata.max.bytes): the position is committed without it");
        }
        self.refused_metadata = Some(sent.metadata.clone());
    }

    /// Whether the target has refused this.
    pub fn is_refused_metadata(&self, metadata: &Arc<str>) -> bool {
        !metadata.is_empty() && self.refused_metadata.as_ref() == Some(metadata)
    }

    /// A position is on its way to the target.
    pub fn note_sent(&mut self, offset: i64) {
        if self.unconfirmed.back() == Some(&offset) {
            return;
        }
        if self.unconfirmed.len() >= UNCONFIRMED_MAX {
            self.unconfirmed.pop_front();
        }
        self.unconfirmed.push_back(offset);
    }

    /// What is ours on the target, and what is sent now goes on from. It is ours until the target's log shows what
    /// came behind it: the answer to what is sent may be here before that, and the group may have moved on.
    pub fn note_moved_from(&mut self, stands: &Commit) {
        self.shown = Some(Shown::of(stands));
    }

    /// A position that was sent wasn't taken. It may be written all the same, also where a coordinator says that
    /// it isn't one any more: so it answers for what it has appended when the partition gets another leader
    /// (`CoordinatorOperationExceptionHelper`). Only who refuses it for the group's members has written nothing.
    pub fn note_failed(&mut self, offset: i64, blocked: &Blocked) {
        if *blocked == Blocked::ActiveOnTarget {
            self.unconfirmed.retain(|sent| *sent != offset);
        } else {
            self.unanswered = Some(offset);
        }
    }

    /// Whether a position on the target may be one of ours that arrives only now.
    pub fn is_on_its_way(&self, offset: i64) -> bool {
        self.passed_over == Some(offset)
            || self.unanswered == Some(offset)
            || self.unconfirmed.contains(&offset)
    }

    /// Whether somebody else committed this behind another commit of theirs that counts. It may be where we had
    /// put the group ourselves: that is how an operator takes back what a client did there.
    fn is_newer_word(&self, offset: i64) -> bool {
        let differs = |kept: &Commit| kept.offset != offset;
        self.foreign.as_ref().is_some_and(differs) && !self.is_on_its_way(offset)
    }

    /// A position showed up in the target's log. Ours arrive in the order in which they were sent;
    /// what isn't ours is somebody else's, and counts from now on.
    pub fn note_on_target(&mut self, commit: &Commit) {
        let offset = commit.offset;
        if let Some(at) = self.unconfirmed.iter().position(|sent| *sent == offset) {
            let shown = self.unconfirmed.drain(..=at);
            self.passed_over = shown.rev().nth(1).or(self.passed_over);
            self.shown = Some(Shown::of(commit));
        } else if !self.is_ours(offset) || self.is_newer_word(offset) {
            self.take_word(commit);
        }
    }

    /// Somebody else's newest word counts. Who puts the group back to where we had it wants it followed from there.
    fn take_word(&mut self, commit: &Commit) {
        let is_put_back = self.applied == Some(commit.offset);
        self.foreign = (!is_put_back).then(|| commit.clone());
    }

    /// The target's log was read, and the position stood there (or nowhere) at some moment of that.
    ///
    /// What we sent before the one that stands there never shows up: compaction leaves the last one. What
    /// we sent behind it does: the end to which the log was read may have been asked for before the
    /// commit came, also when its answer is here by now. Forgetting it would make it a client's.
    ///
    /// One that stands there where somebody else's did is their newer word, unless it may be ours
    /// (`may_be_ours`) from before this process.
    pub(super) fn settle(&mut self, told: Option<&Commit>, may_be_ours: impl Fn(&Commit) -> bool) {
        let is_news = |told: &&Commit| {
            // Ours may have covered theirs, and couldn't be taken back yet.
            let is_shown = self.shown == Some(Shown::of(told));
            self.is_newer_word(told.offset) && !is_shown && !may_be_ours(told)
        };
        if let Some(told) = told.filter(is_news) {
            self.take_word(told);
        }
        let at = self
            .unconfirmed
            .iter()
            .rposition(|sent| told.is_some_and(|told| told.offset == *sent));
        if let Some(at) = at {
            self.unconfirmed.drain(..=at);
            self.shown = told.map(Shown::of);
        }
    }

    /// A position on the target that may be ours from before this process is taken for ours, and remembered as such:
    /// whoever comes later couldn't tell any more.
    /// True when that is news.
    pub fn adopt(&mut self, told: Option<&Commit>, may_be_ours: impl Fn(&Commit) -> bool) -> bool {
        let told = told.filter(|told| self.foreign.is_none() && !self.is_ours(told.offset));
        let told = told.filter(|told| may_be_ours(told));
        if let Some(told) = told {
            self.shown = Some(Shown::of(told));
        }
        told.is_some()
    }

    /// What is ours on the target, if it stands there, besides what was committed last: what was sent and wasn't shown,
    /// and what was shown and is no longer known by its answer. Oldest first.
    pub fn also_ours(&self) -> impl Iterator<Item = i64> {
        let shown = self.shown.map(|shown| shown.offset);
        let sent = self.unconfirmed.iter().copied();
        let ours = shown.into_iter().chain(sent);
        // What was put back is theirs.
        let theirs = self.foreign.as_ref().map(|commit| commit.offset);
        ours.filter(move |offset| self.applied != Some(*offset) && theirs != Some(*offset))
    }

    /// Sets why the position isn't followed; `None` when it is. True when that is news.
    pub fn set_blocked(&mut self, blocked: Option<Blocked>, now_ms: i64) -> bool {
        let word = |blocked: &Option<Blocked>| blocked.as_ref().map(Blocked::word);
        let changed = word(&self.blocked) != word(&blocked) || self.since_ms == 0;
        if changed {
            self.since_ms = now_ms;
        }
        self.blocked = blocked;
        changed
    }
}

/// One group that the source knows, or knew.
#[derive(Debug, Default)]
pub struct Group {
    /// Positions by source topic and partition.
    pub rows: BTreeMap<Key, Row>,
    /// When a commit of it was last made on the target, milliseconds since the epoch.
    pub followed_at_ms: i64,
    /// From the source's commit to ours, the last time, milliseconds.
    pub delay_ms: Option<i64>,
    /// Whether the state topic knows that this group is committed for.
    pub is_stored: bool,
    /// A commit of ours until then would be known as ours after a crash; see [`ledger`](super::ledger).
    pub known_until: Option<Instant>,
    /// A commit of this group is on its way.
    pub is_sending: bool,
    /// The target had no quota for its last commit: until when, and how long it rests.
    rest: Option<(Instant, Duration)>,
}

/// How long a group rests for which the target has no quota. The connection is quiet for as long as the broker says anyway.
const REST_FIRST: Duration = Duration::from_millis(250);
/// See [`REST_FIRST`].
const REST_LAST: Duration = Duration::from_secs(4);

impl Group {
    /// Notes whether the target had no quota for a commit: the next one rests longer each time. What the group commits
    /// meanwhile is one commit afterwards.
    pub fn note_quota(&mut self, is_throttled: bool, now: Instant) {
        self.rest = is_throttled.then(|| {
            let last = self.rest.map(|(_, last)| last * 2);
            let rest = last.unwrap_or(REST_FIRST).min(REST_LAST);
            (now + rest, rest)
        });
    }

    /// Whether it rests.
    pub fn rests(&self, now: Instant) -> bool {
        self.rest.is_some_and(|(until, _)| now < until)
    }

    /// Whether anything was committed for it on the target, or is about to be.
    pub fn is_touched(&self) -> bool {
        let is_ours = |row: &Row| row.applied.is_some() || row.also_ours().next().is_some();
        self.is_stored || self.is_sending || self.rows.values().any(is_ours)
    }

    /// Whether the source has given up every position and the target has ours only.
    pub fn is_emptied(&self) -> bool {
        let mut rows = self.rows.values();
        rows.clone().any(|row| row.applied.is_some())
            && rows.all(|row| row.is_given_up() && row.foreign.is_none())
    }
}

/// All groups.
#[derive(Debug, Default)]
pub struct Table {
    /// By name.
    pub groups: HashMap<Arc<str>, Group>,
    /// Positions on the target, by the target topic's name.
    on_target: HashMap<Arc<str>, HashMap<Key, Commit>>,
    /// So far are the clocks of the target's coordinators ahead of ours, as the last commit told that was seen as it
    /// happened: of each broker, since one whose clock is wrong says nothing of the others.
    target_ahead_ms: HashMap<Option<i32>, i64>,
    names: HashSet<Arc<str>>,
    source_generation: u32,
}

impl Table {
    /// One shared copy of a name.
    pub fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let shared: Arc<str> = name.into();
        self.names.insert(shared.clone());
        shared
    }

    /// A group's position on the target.
    pub fn on_target(&self, group: &str, topic: &str, partition: i32) -> Option<&Commit> {
        self.on_target
            .get(group)?
            .get(&(Arc::from(topic), partition))
    }

    /// The time for a group on the target, milliseconds since the epoch by the clock of its coordinator. Not before
    /// the group's newest commit there, whatever our own clock says.
    pub fn target_now_ms(&self, group: &str, coordinator: Option<i32>, now_ms: i64) -> i64 {
        let commits = self.on_target.get(group).into_iter().flatten();
        let newest_ms = commits.map(|(_, commit)| commit.committed_at_ms).max();
        let there_ms = self.target_now_ms_at(coordinator, now_ms);
        there_ms.max(newest_ms.unwrap_or(there_ms))
    }

    /// What the clock of one of the target's coordinators showed at a moment of ours.
    pub fn target_now_ms_at(&self, coordinator: Option<i32>, at_ms: i64) -> i64 {
        let ahead_ms = self.target_ahead_ms.get(&coordinator).copied();
        at_ms.saturating_add(ahead_ms.unwrap_or_else(|| self.mostly_ahead_ms()))
    }

    /// How far ahead the brokers are: the one in the middle, 0 where none has told.
    fn mostly_ahead_ms(&self) -> i64 {
        let mut all: Vec<i64> = self.target_ahead_ms.values().copied().collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(0)
    }

    /// A commit was made on the target just now.
    pub fn note_target_clock(
        &mut self,
        coordinator: Option<i32>,
        committed_at_ms: i64,
        now_ms: i64,
    ) {
        if committed_at_ms >= 0 {
            let ahead_ms = committed_at_ms.saturating_sub(now_ms);
            self.target_ahead_ms.insert(coordinator, ahead_ms);
        }
    }

    /// The source is read from its beginning again.
    pub fn source_begins(&mut self) {
        self.source_generation += 1;
    }

    /// All that the source has was told, but for groups that can't be seen: what wasn't is gone.
    /// Returns those rows.
    pub fn source_caught_up(&mut self, unseen: &Unseen) -> Vec<(Arc<str>, Key)> {
        let mut gone = Vec::new();
        for (name, group) in &mut self.groups {
            if unseen.covers(name) {
                continue;
            }
            for (key, row) in &mut group.rows {
                if row.generation != self.source_generation {
                    row.generation = self.source_generation;
                    row.source = None;
                    row.set_aside = None;
                    gone.push((name.clone(), key.clone()));
                }
            }
        }
        gone
    }

    /// Takes a record of the source. Returns the row that it changed.
    pub fn take_source(&mut self, record: GroupRecord) -> Option<(Arc<str>, Key)> {
        let GroupRecord::Offset {
            group,
            topic,
            partition,
            commit,
        } = record
        else {
            return None;
        };
        if commit.is_none() && !self.has_row(&group, &topic, partition) {
            return None;
        }
        let (group, topic) = (self.name(&group), self.name(&topic));
        let topic_id = commit.as_ref().map_or(Uuid::nil(), |it| it.topic_id);
        let commit = commit.map(|stored| self.commit(stored));
        let generation = self.source_generation;
        let key = (topic, partition);
        let rows = &mut self.groups.entry(group.clone()).or_default().rows;
        let row = rows.entry(key.clone()).or_default();
        row.generation = generation;
        // A commit of the same position is news all the same: the group is alive.
        row.source = commit;
        row.set_aside = None;
        row.source_topic_id = topic_id;
        Some((group, key))
    }

    fn has_row(&self, group: &str, topic: &str, partition: i32) -> bool {
        let key = self.names.get(topic).map(|it| (it.clone(), partition));
        let group = self.groups.get(group);
        group
            .zip(key)
            .is_some_and(|(group, key)| group.rows.contains_key(&key))
    }

    /// Whether all that a group has on the target is what we committed; `source_topic` names the
    /// source of a target topic.
    pub fn is_all_ours(
        &self,
        group: &str,
        source_topic: impl Fn(&str) -> Option<Arc<str>>,
    ) -> bool {
        let rows = self.groups.get(group).map(|group| &group.rows);
        let mut positions = self.on_target.get(group).into_iter().flatten();
        positions.all(|((topic, partition), commit)| {
            let key = source_topic(topic).map(|topic| (topic, *partition));
            let row = rows.zip(key).and_then(|(rows, key)| rows.get(&key));
            row.is_some_and(|row| row.is_ours(commit.offset))
        })
    }

    /// The target is read from its beginning again.
    pub fn target_begins(&mut self) {
        for (name, _) in self.on_target.drain() {
            if !self.groups.contains_key(&name) {
                self.names.remove(&name);
            }
        }
    }

    /// All that the target has of these groups was told, up to some moment while it was read. Returns
    /// their rows; `target_key` is where a row is on the target.
    pub fn target_caught_up(
        &mut self,
        is_seen_now: impl Fn(&str) -> bool,
        target_key: impl Fn(&Key) -> Option<Key>,
        may_be_ours: impl Fn(&str, &Commit) -> bool,
    ) -> Vec<(Arc<str>, Key)> {
        let mut seen = Vec::new();
        for (name, group) in &mut self.groups {
            if !is_seen_now(name) {
                continue;
            }
            let on_target = self.on_target.get(name);
            for (key, row) in &mut group.rows {
                let told = target_key(key).and_then(|key| on_target?.get(&key));
                row.settle(told, |commit| may_be_ours(name, commit));
                seen.push((name.clone(), key.clone()));
            }
        }
        seen
    }

    /// A group that has a position on the target, or had one when it was seen last.
    pub fn committed_on_target(&self) -> Option<Arc<str>> {
        let is_there = |row: &Row| row.applied.is_some() || row.foreign.is_some();
        let mut groups = self.groups.iter();
        let found = groups.find(|(_, group)| group.rows.values().any(is_there));
        found.map(|(name, _)| name.clone())
    }

    /// The positions that were committed by us, this process or one before.
    pub fn committed_by_us(&self) -> Vec<(Arc<str>, Key)> {
        let groups = self.groups.iter();
        let rows = groups.flat_map(|(name, group)| group.rows.iter().map(move |it| (name, it)));
        let ours = rows.filter(|(_, (_, row))| row.applied.is_some());
        ours.map(|(name, (key, _))| (name.clone(), key.clone()))
            .collect()
    }

    /// The positions on the target of groups that are committed for, where nothing of ours is remembered.
    pub fn not_committed_by_us(
        &self,
        source_topic: impl Fn(&str) -> Option<Arc<str>>,
    ) -> Vec<(Arc<str>, Key, Commit)> {
        let mut found = Vec::new();
        for (name, group) in self.groups.iter().filter(|(_, group)| group.is_stored) {
            for ((topic, partition), commit) in self.on_target.get(name).into_iter().flatten() {
                let Some(topic) = source_topic(topic) else {
                    continue;
                };
                let key = (topic, *partition);
                let row = group.rows.get(&key);
                if row.is_none_or(|row| row.applied.is_none()) {
                    found.push((name.clone(), key, commit.clone()));
                }
            }
        }
        found
    }

    /// All groups' rows of a source partition.
    pub fn rows_of(&self, partition: &Key) -> Vec<(Arc<str>, Key)> {
        let has_row = |group: &&Arc<str>| self.groups[*group].rows.contains_key(partition);
        let groups = self.groups.keys().filter(has_row);
        groups
            .map(|group| (group.clone(), partition.clone()))
            .collect()
    }

    /// Whether a position stands on the target as we committed it last, at `target_key`.
    pub fn is_as_we_left_it(&self, group: &str, key: &Key, target_key: &Key) -> bool {
        let row = self.groups.get(group).and_then(|group| group.rows.get(key));
        let on_target = self.on_target.get(group).and_then(|it| it.get(target_key));
        row.is_some_and(|row| row.applied == on_target.map(|commit| commit.offset))
    }

    /// The positions that the source has, as far as it was seen by this process or the one before.
    pub fn source_positions(&self) -> Vec<(String, TopicPartition)> {
        let groups = self.groups.iter();
        let rows = groups.flat_map(|(name, group)| group.rows.iter().map(move |it| (name, it)));
        let had = rows.filter(|(_, (_, row))| row.source.is_some() || row.applied.is_some());
        had.map(|(name, ((topic, partition), _))| {
            let at = TopicPartition::new(topic.as_ref(), *partition);
            (name.to_string(), at)
        })
        .collect()
    }

    /// The groups that the source has no position of.
    pub fn without_source(&self) -> Vec<Arc<str>> {
        let groups = self.groups.iter();
        let gone = groups.filter(|(_, group)| group.rows.values().all(|row| row.source.is_none()));
        gone.map(|(name, _)| name.clone()).collect()
    }

    /// Whether neither cluster has a position of the group, and nothing is on its way for it.
    pub fn is_gone(&self, name: &str) -> bool {
        let on_target = self.on_target.get(name);
        self.groups
            .get(name)
            .is_none_or(|group| !group.is_sending && group.rows.values().all(Row::is_given_up))
            && on_target.is_none_or(HashMap::is_empty)
    }

    /// The positions of a group that wait for the copy.
    pub fn waits_for_copy(&self, name: &str) -> Vec<(Key, i64)> {
        let rows = self.groups.get(name).map(|group| group.rows.iter());
        let waiting = rows.into_iter().flatten().filter_map(|(key, row)| {
            let waiting = row.waiting.as_ref()?;
            Some((key.clone(), waiting.offset))
        });
        waiting.collect()
    }

    /// A group was deleted on the target, as on the source. Returns the rows of one that has come back on the source
    /// meanwhile: as a new one.
    pub fn deleted(&mut self, name: &str) -> Vec<Key> {
        let Some(group) = self.groups.get_mut(name) else {
            return Vec::new();
        };
        if group.is_emptied() {
            self.groups.remove(name);
            return Vec::new();
        }
        group.is_sending = false;
        group.is_stored = false;
        group.known_until = None;
        group.rows.keys().cloned().collect()
    }

    /// Forgets all of a group.
    pub fn forget(&mut self, name: &str) {
        self.groups.remove(name);
        self.on_target.remove(name);
        self.names.remove(name);
    }

    /// All rows of these topics that the flow didn't copy when they were looked at, or not the topic of their position.
    pub fn rows_not_copied(&self, topics: &HashSet<Arc<str>>) -> Vec<(Arc<str>, Key)> {
        let mut found = Vec::new();
        for (name, group) in &self.groups {
            let waits = group.rows.iter().filter(|((topic, _), row)| {
                let waits = row.blocked == Some(Blocked::NotCopied) || row.set_aside.is_some();
                waits && topics.contains(topic)
            });
            found.extend(waits.map(|(key, _)| (name.clone(), key.clone())));
        }
        found
    }

    /// Takes a record of the target. Returns the position that it changed, by the target's names.
    pub fn take_target(&mut self, record: GroupRecord) -> Option<(Arc<str>, Key, Option<Commit>)> {
        let GroupRecord::Offset {
            group,
            topic,
            partition,
            commit,
        } = record
        else {
            return None;
        };
        // Of groups that nobody knows tombstones are read by the thousand: they leave nothing.
        if commit.is_none() && !self.on_target.contains_key(&*group) {
            let name = self.names.get(&*group)?.clone();
            return Some((name, (self.name(&topic), partition), None));
        }
        let (group, key) = (self.name(&group), (self.name(&topic), partition));
        let positions = self.on_target.entry(group.clone()).or_default();
        match commit {
            None => {
                positions.remove(&key);
                if positions.is_empty() {
                    self.on_target.remove(&group);
                }
                Some((group, key, None))
            }
            Some(stored) => {
                let commit = self.commit(stored);
                if let Some(positions) = self.on_target.get_mut(&group) {
                    positions.insert(key.clone(), commit.clone());
                }
                Some((group, key, Some(commit)))
            }
        }
    }

    fn commit(&mut self, stored: StoredOffset) -> Commit {
        Commit {
            offset: stored.offset,
            leader_epoch: stored.leader_epoch,
            // Most groups write nothing, and the others rarely the same twice.
            metadata: if stored.metadata.is_empty() {
                self.name("")
            } else {
                stored.metadata.into()
            },
            committed_at_ms: stored.committed_at_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Commit {
        Commit {
            offset,
            leader_epoch: -1,
            metadata: "".into(),
            committed_at_ms: 0,
        }
    }

    fn committed(offset: Option<i64>) -> GroupRecord {
        GroupRecord::Offset {
            group: "g".to_owned(),
            topic: "t".to_owned(),
            partition: 0,
            commit: offset.map(|offset| StoredOffset {
                offset,
                leader_epoch: -1,
                metadata: String::new(),
                committed_at_ms: 7,
                topic_id: Uuid::nil(),
            }),
        }
    }

    fn committed_on(topic: Uuid) -> GroupRecord {
        let mut record = committed(Some(5));
        if let GroupRecord::Offset { commit, .. } = &mut record
            && let Some(stored) = commit
        {
            stored.topic_id = topic;
        }
        record
    }

    /// A group may commit on a topic that was made anew before it is known that it was.
    #[test]
    fn a_position_of_another_topic_counts_again_when_that_one_is_copied() {
        let (old, new) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let mut table = Table::default();
        let (group, key) = table.take_source(committed_on(new)).expect("a row");
        let topics = HashSet::from([key.0.clone()]);
        let row = table
            .groups
            .get_mut(&group)
            .and_then(|it| it.rows.get_mut(&key));
        let row = row.expect("the row");
        row.applied = Some(3);
        row.set_aside();
        row.take_back(old);
        assert_eq!(row.source, None);
        assert!(!table.groups[&group].is_emptied() && !table.is_gone(&group));
        assert_eq!(
            table.rows_not_copied(&topics),
            [(group.clone(), key.clone())]
        );
        let row = table
            .groups
            .get_mut(&group)
            .and_then(|it| it.rows.get_mut(&key));
        let row = row.expect("the row");
        row.take_back(new);
        assert_eq!(row.source.as_ref().map(|it| it.offset), Some(5));

        row.set_aside();
        table.take_source(committed(None));
        assert!(table.groups[&group].is_emptied(), "the source's own word");
    }

    #[test]
    fn a_position_of_a_topic_that_was_made_anew_is_of_another_one() {
        let mut table = Table::default();
        let (old, new) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let mut take = |topic_id| {
            let (group, key) = table.take_source(committed_on(topic_id)).expect("a row");
            let row = &table.groups[&group].rows[&key];
            [new, old, Uuid::nil()].map(|topic_id| row.is_of_other_topic(topic_id))
        };
        assert_eq!(take(old), [true, false, false]);
        assert_eq!(take(new), [false, true, false]);
        assert_eq!(take(Uuid::nil()), [false; 3], "older brokers don't tell");
    }

    #[test]
    fn our_commits_are_known_by_their_order_and_a_stranger_s_is_not() {
        let mut row = Row::default();
        row.unconfirmed.extend([5, 6, 7]);
        row.note_on_target(&at(6));
        row.note_on_target(&at(5));
        assert_eq!(row.foreign, None, "5 was only late");
        assert_eq!(row.unconfirmed, [7], "5 was passed over");
        assert_eq!(row.foreign, None);
        row.applied = Some(7);
        row.note_on_target(&at(3));
        assert_eq!(row.foreign, Some(at(3)));
        row.note_on_target(&at(7));
        assert!(row.is_ours(7) && row.unconfirmed.is_empty());
        assert_eq!(
            row.foreign,
            Some(at(3)),
            "ours came after it: it has to come back"
        );
    }

    /// A coordinator is killed with a commit of ours that it has written and not answered. The group
    /// moves on before the log of its successor shows that, and the same may be sent, and shown, again.
    #[test]
    fn a_commit_that_was_never_answered_stays_ours() {
        let mut row = Row {
            applied: Some(5),
            ..Row::default()
        };
        row.note_sent(7);
        row.note_sent(7);
        row.note_on_target(&at(7));
        assert!(row.is_ours(7), "as its log shows it");
        row.note_on_target(&at(7));
        assert_eq!(row.foreign, None, "sent twice, written twice");

        row.note_sent(9);
        row.settle(Some(&at(9)), |_| false);
        assert!(
            row.is_ours(9),
            "as it stands there when the log is read anew"
        );
        assert!(!row.is_ours(8));
    }

    /// What the process before left is known by its record only.
    #[test]
    fn what_is_moved_from_stays_ours_until_the_log_shows_more() {
        let mut row = Row {
            applied: Some(7),
            ..Row::default()
        };
        row.note_moved_from(&at(7));
        row.note_sent(23);
        row.applied = Some(23);
        assert!(row.is_ours(7), "the log may still end there");
        row.note_on_target(&at(23));
        assert!(row.is_ours(23) && !row.is_ours(7));
        row.note_on_target(&at(7));
        assert_eq!(row.foreign, Some(at(7)), "somebody else's by now");
    }

    /// The log of groups gets another leader while a commit waits for its replicas.
    #[test]
    fn a_commit_that_was_written_and_then_refused_stays_ours() {
        let not_coordinator = Blocked::Failed {
            reason: "NotCoordinator".into(),
        };
        let mut row = Row::default();
        row.note_sent(7);
        row.note_failed(7, &not_coordinator);
        row.note_sent(9);
        row.note_on_target(&at(7));
        assert_eq!(row.foreign, None);
        row.note_failed(9, &Blocked::ActiveOnTarget);
        row.note_on_target(&at(9));
        assert_eq!(row.foreign, Some(at(9)), "a member's own");
    }

    /// Ours was 30. A client committed 40 there, and an operator took that back.
    #[test]
    fn a_repair_by_hand_is_the_newest_word() {
        let followed = |foreign: i64| Row {
            applied: Some(30),
            foreign: Some(at(foreign)),
            ..Row::default()
        };
        let mut row = followed(40);
        row.note_on_target(&at(30));
        assert_eq!(row.foreign, None, "followed again from there");
        let mut row = followed(40);
        row.note_on_target(&at(20));
        assert_eq!(row.foreign, Some(at(20)));

        // The same while the target's log couldn't be read, or Twinlog was down.
        let mut row = followed(40);
        row.settle(Some(&at(30)), |_| false);
        assert_eq!(row.foreign, None);

        // But for what may be ours, behind the client's commit: that one has to come back.
        let mut row = followed(40);
        row.settle(Some(&at(30)), |_| true);
        assert_eq!(row.foreign, Some(at(40)));
        let mut row = followed(40);
        row.note_sent(30);
        row.settle(Some(&at(30)), |_| false);
        assert_eq!(row.foreign, Some(at(40)));
        row.note_sent(35);
        row.note_on_target(&at(35));
        row.settle(Some(&at(35)), |_| false);
        assert_eq!(
            row.foreign,
            Some(at(40)),
            "read anew before it was put back"
        );
        let mut row = followed(40);
        row.note_sent(35);
        row.note_failed(
            35,
            &Blocked::Failed {
                reason: "Timeout".into(),
            },
        );
        row.note_on_target(&at(35));
        row.note_on_target(&at(35));
        assert_eq!(row.foreign, Some(at(40)), "written twice");
    }

    /// The first commit of all creates the target's log of groups, which is read from then on.
    #[test]
    fn a_commit_behind_the_end_that_was_read_to_stays_ours() {
        let mut table = Table::default();
        let (group, key) = table.take_source(committed(Some(9))).expect("a new row");
        let with_row = |table: &mut Table, change: &dyn Fn(&mut Row)| {
            let rows = table.groups.get_mut(&group).map(|group| &mut group.rows);
            change(rows.and_then(|rows| rows.get_mut(&key)).expect("the row"));
        };
        with_row(&mut table, &|row| {
            row.unconfirmed.extend([3, 5, 10]);
            row.applied = Some(10);
        });
        // 10 was answered, but the end was asked for before it came: the log was told up to 5.
        table.take_target(committed(Some(5)));
        table.target_caught_up(|_| true, |key| Some(key.clone()), |_, _| false);
        with_row(&mut table, &|row| {
            assert_eq!(row.unconfirmed, [10]);
            row.note_sent(1_212);
            row.applied = Some(1_212);
            row.note_on_target(&at(10));
            assert_eq!(row.foreign, None, "it is ours, and only shows late");
        });
    }

    #[test]
    fn a_new_reading_of_the_source_forgets_what_it_does_not_tell_again() {
        let mut table = Table::default();
        table.source_begins();
        assert!(table.take_source(committed(Some(1))).is_some());
        assert!(table.source_caught_up(&Unseen::Nothing).is_empty());
        table.source_begins();
        assert!(table.source_caught_up(&Unseen::All).is_empty(), "not gone");
        let gone = table.source_caught_up(&Unseen::Nothing);
        assert_eq!(gone.len(), 1);
        assert_eq!(table.groups["g"].rows[&gone[0].1].source, None);
    }

    #[test]
    fn who_has_no_quota_rests_longer_each_time_and_not_for_ever() {
        let (mut group, now) = (Group::default(), Instant::now());
        let later = |ms: u64| now + Duration::from_millis(ms);
        assert!(!group.rests(now));
        group.note_quota(true, now);
        assert!(group.rests(later(249)) && !group.rests(later(250)));
        group.note_quota(true, now);
        assert!(group.rests(later(499)) && !group.rests(later(500)));
        (0..10).for_each(|_| group.note_quota(true, now));
        assert!(group.rests(later(3_999)) && !group.rests(later(4_000)));
        group.note_quota(false, now);
        assert!(!group.rests(now));
        group.note_quota(true, now);
        assert!(!group.rests(later(250)), "from the beginning");
    }

    #[test]
    fn a_tombstone_of_an_unknown_position_leaves_no_trace() {
        let mut table = Table::default();
        assert!(table.take_source(committed(None)).is_none());
        assert!(table.take_target(committed(None)).is_none());
        assert!(table.groups.is_empty() && table.names.is_empty() && table.on_target.is_empty());
    }

    fn of_group(group: &str, offset: Option<i64>) -> GroupRecord {
        let mut record = committed(offset);
        if let GroupRecord::Offset { group: name, .. } = &mut record {
            group.clone_into(name);
        }
        record
    }

    /// Groups come and go, followed or not, deleted by us on the target or not.
    #[test]
    fn of_a_hundred_thousand_groups_that_are_gone_nothing_is_kept() {
        let mut table = Table::default();
        for number in 0..100_000 {
            let name = format!("console-consumer-{number}");
            let is_followed = number % 3 != 0;
            let is_deleted = number % 3 == 1;
            if is_followed {
                table.take_source(of_group(&name, Some(5)));
                let rows = table.groups.get_mut(&*name).map(|group| &mut group.rows);
                rows.into_iter()
                    .flat_map(BTreeMap::values_mut)
                    .for_each(|row| row.applied = Some(5));
            }
            table.take_target(of_group(&name, Some(5)));
            table.take_source(of_group(&name, None));
            if is_deleted {
                assert!(table.deleted(&name).is_empty());
                assert!(!table.is_gone(&name), "the target shows it still");
            }
            let told = table.take_target(of_group(&name, None));
            assert!(told.is_some(), "it is looked whether the group is gone");
            assert!(table.is_gone(&name));
            table.forget(&name);
        }
        let kept = (table.groups.len(), table.on_target.len());
        assert_eq!(kept, (0, 0));
        assert!(table.names.len() <= 2, "{}", table.names.len());
    }

    #[test]
    fn a_group_with_a_position_that_is_not_ours_is_not_all_ours() {
        let mut table = Table::default();
        let (group, key) = table.take_source(committed(Some(1))).expect("a new row");
        table.take_target(committed(Some(1)));
        let same = |topic: &str| Some(Arc::from(topic));
        assert!(!table.is_all_ours("g", same), "nothing was committed by us");
        let rows = table.groups.get_mut(&group).map(|group| &mut group.rows);
        let row = rows.and_then(|rows| rows.get_mut(&key)).expect("the row");
        row.applied = Some(1);
        assert!(table.is_all_ours("g", same));
        assert!(
            !table.is_all_ours("g", |_| None),
            "a topic of somebody else"
        );
    }

    #[test]
    fn the_target_s_position_is_the_last_one_told() {
        let mut table = Table::default();
        for offset in [Some(4), Some(5)] {
            table.take_target(committed(offset));
        }
        assert_eq!(
            table.on_target("g", "t", 0).map(|commit| commit.offset),
            Some(5)
        );
        table.take_target(committed(None));
        assert_eq!(table.on_target("g", "t", 0), None);
    }

    /// A broker whose clock is wrong makes no other broker's groups younger or older.
    #[test]
    fn a_group_s_time_is_its_coordinator_s() {
        let mut table = Table::default();
        table.take_target(committed(Some(4)));
        let (near, far) = (Some(1), Some(2));
        let now = |table: &Table, group, of| table.target_now_ms(group, of, 3);
        assert_eq!(now(&table, "g", near), 7, "not before its newest commit");
        assert_eq!(now(&table, "other", near), 3);
        table.note_target_clock(near, 1_007, 7);
        table.note_target_clock(Some(3), 1_008, 7);
        assert_eq!(now(&table, "g", near), 1_003);
        table.note_target_clock(far, 3_600_007, 7);
        assert_eq!(now(&table, "g", near), 1_003);
        assert_eq!(now(&table, "other", far), 3_600_003);
        assert_eq!(now(&table, "other", Some(4)), 1_004, "as most are");
    }
}
