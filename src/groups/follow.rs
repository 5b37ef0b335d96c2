//! Follows the groups of one flow: what the source says, what the target has, what is committed.
//!
//! One task decides everything. Observers tell it what both clusters' groups do; it asks the copy
//! where a position is, commits what can be committed, and keeps what must wait until the copy
//! gets there. A group has one commit on its way at a time, so its positions arrive in order.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::commit::{self, Attempt, Deletion, Failure, GroupCommit, STORE_WITHIN, Sent};
use super::context::Follow;
use super::decide::{Blocked, Commit, Situation, Verdict, decide, is_from_before, is_ours};
use super::ledger::{self, Remembered, STALE_AFTER};
use super::observe::{self, observe};
use super::positions::Place;
use super::report::{Health, View};
use super::seen::{Seen, Way};
use super::sight::watch_sight;
use super::table::{Group, Key, Table};
use super::unseen::{Unread, Unseen};
use super::waiting::{RowName, Waiting, is_not_yet_copied};
use crate::offsets::SourceOffset;
use crate::state::{Memory, StateError, StateRecord, keys};
use crate::tasks::{Tasks, brought};
use crate::telemetry::progress::now_ms;
use crate::wire::{self, Taken};

/// How often it is looked whether waiting positions can be applied: the longest that one waits
/// after its record landed. Where none waits nobody looks.
const TICK: Duration = Duration::from_millis(50);
/// A position that had to wait was committed: its group's newest one is looked at after this.
const BEHIND_A_WAITED_ONE: Duration = Duration::from_millis(100);
/// How often changed positions are remembered.
const STORE_EVERY: Duration = Duration::from_secs(5);
/// Messages of an observer that wait to be taken.
const OBSERVED_MAX: usize = 16;
/// Groups committed in one go, and such goes at the same time to one coordinator.
const GROUPS_PER_SEND: usize = 256;
/// See [`GROUPS_PER_SEND`].
const SENDS_MAX: usize = 4;
/// So long after our start a commit of the one before may come: a request's time, in which he isn't told
/// that it failed.
const LATE_MS: i64 = 30_000;
/// How long a stopping follower waits for its last commits.
const DRAIN: Duration = Duration::from_secs(2);

/// What holds up the groups of one lane holds up no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lane {
    /// The broker that coordinates them on the target, as far as that is known.
    coordinator: Option<i32>,
    /// Nothing was committed for them so far, and nothing is before the state topic has their records.
    is_first: bool,
}

struct Follower {
    context: Arc<Follow>,
    view: Arc<View>,
    remembered: HashMap<Arc<str>, Remembered>,
    source_ready: bool,
    target_ready: bool,
    /// Groups of which the source has told nothing but their past. Where an old position was committed it would pass for the
    /// newest one.
    source_unread: Unread,
    /// The target had no log of groups when it was looked.
    target_has_no_log: bool,
    /// Groups of which the target's coordinator doesn't say what it has. They aren't committed for: a
    /// client may have, and who commits to a coordinator that is away holds up the others.
    target_unseen: Unseen,
    dirty: HashMap<Arc<str>, HashSet<Key>>,
    /// What changed of groups that are unseen on the target, or unread on the source.
    held: HashMap<Arc<str>, HashSet<Key>>,
    waiting: Waiting,
    /// The copy has something to tell.
    is_told: bool,
    sends: JoinSet<(Lane, Vec<Attempt>)>,
    /// How many are on their way to each coordinator.
    sending: HashMap<Lane, usize>,
    unstored: HashSet<Arc<str>>,
    /// Groups that the source has no position of any more, to be deleted on the target.
    emptied: HashSet<Arc<str>>,
    /// Their deletion, which a coordinator that is away must not make the others wait for.
    deletions: JoinSet<Deletion>,
    /// Groups that neither cluster may have a position of any more: to be forgotten, or ephemeral ones would pile up.
    maybe_gone: HashSet<Arc<str>>,
    began_at_ms: i64,
    /// What was committed before and wasn't remembered was found on the target, if there was any.
    knows_what_was_before: bool,
}

/// Follows until cancelled. What is found is seen through `view` from outside.
///
/// # Errors
/// When what was remembered can't be read.
pub async fn follow(
    context: Follow,
    view: Arc<View>,
    tasks: &Tasks,
    cancel: CancellationToken,
) -> Result<(), StateError> {
    let context = Arc::new(context);
    context.is_remembered.store(false, Ordering::Relaxed);
    let remembered = ledger::read(&context.store, &context.flow, &mut view.table())?;
    let (from_source, mut source) = mpsc::channel(OBSERVED_MAX);
    let (from_target, mut target) = mpsc::channel(OBSERVED_MAX);
    let (seen_before, committed) = (view.clone(), view.clone());
    // A source that is built anew has no log of groups.
    let on_source = observe::Remembered {
        positions: Arc::new(move || seen_before.table().source_positions()),
        committed: Arc::new(|| None),
    };
    // Where a client has committed there it is asked for before anything is decided.
    let on_target = observe::Remembered {
        positions: Arc::new(Vec::new),
        committed: Arc::new(move || committed.table().committed_on_target()),
    };
    for (cluster, found, remembered, task) in [
        (
            &context.source,
            from_source,
            on_source,
            "observer of the source's groups",
        ),
        (
            &context.target,
            from_target,
            on_target,
            "observer of the target's groups",
        ),
    ] {
        let (cluster, groups) = (cluster.clone(), context.groups.clone());
        let observing = observe(cluster, groups, remembered, found, cancel.clone());
        tasks.spawn(task, observing);
    }
    tasks.spawn(
        "watch of the rights on groups",
        watch_sight(
            context.source.clone(),
            context.groups.clone(),
            view.clone(),
            cancel.clone(),
        ),
    );
    let knows_what_was_before = context.memory == Memory::Whole;
    let mut follower = Follower {
        context,
        view,
        remembered: remembered.into_iter().collect(),
        source_ready: false,
        target_ready: false,
        source_unread: Unread::default(),
        target_has_no_log: false,
        target_unseen: Unseen::All,
        dirty: HashMap::new(),
        held: HashMap::new(),
        waiting: Waiting::default(),
        is_told: true,
        sends: JoinSet::new(),
        sending: HashMap::new(),
        unstored: HashSet::new(),
        emptied: HashSet::new(),
        deletions: JoinSet::new(),
        maybe_gone: HashSet::new(),
        began_at_ms: now_ms(),
        knows_what_was_before,
    };
    follower.recall();
    let positions = follower.context.positions.clone();
    let (mut woken_at, mut stored_at) = (Instant::now(), Instant::now());
    loop {
        let wakes_at = follower.wakes_at(woken_at, stored_at + STORE_EVERY);
        tokio::select! {
            () = cancel.cancelled() => break,
            // A broken observer ends the flow, not this.
            Some(seen) = source.recv() => follower.take_source(seen),
            Some(seen) = target.recv() => follower.take_target(seen),
            Some(done) = follower.sends.join_next() => follower.take_sent(done),
            Some(done) = follower.deletions.join_next() => follower.take_deleted(brought(done)),
            // Many at once are one look.
            () = positions.told().notified() => follower.is_told = true,
            () = tokio::time::sleep_until(wakes_at) => {
                woken_at = Instant::now();
                follower.wake();
            }
        }
        follower.evaluate();
        if stored_at.elapsed() >= STORE_EVERY {
            follower.remember().await;
            stored_at = Instant::now();
        }
    }
    let drained = async {
        while let Some(done) = follower.sends.join_next().await {
            follower.take_sent(done);
        }
        while let Some(done) = follower.deletions.join_next().await {
            follower.take_deleted(brought(done));
        }
    };
    let is_answered = tokio::time::timeout(DRAIN, drained).await.is_ok();
    let storing = tokio::time::timeout(DRAIN, follower.remember());
    let is_stored = storing.await.is_ok() && follower.unstored.is_empty();
    let is_whole = is_answered && is_stored && follower.knows_what_was_before;
    let is_remembered = &follower.context.is_remembered;
    is_remembered.store(is_whole, Ordering::Relaxed);
    Ok(())
}

impl Follower {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.view.table()
    }

    /// Puts what was remembered into the table.
    fn recall(&mut self) {
        let mut table = self.view.table();
        for (name, remembered) in &self.remembered {
            let group = table.groups.entry(name.clone()).or_default();
            group.is_stored = remembered.is_touched();
            for (key, (source, target)) in &remembered.positions {
                let row = group.rows.entry(key.clone()).or_default();
                row.applied = Some(*target);
                row.applied_source = *source;
            }
            for (key, offsets) in &remembered.also {
                let row = group.rows.entry(key.clone()).or_default();
                row.unconfirmed = offsets.iter().copied().collect();
            }
            for (key, offset) in &remembered.foreign {
                let row = group.rows.entry(key.clone()).or_default();
                row.foreign = Some(Commit {
                    offset: *offset,
                    leader_epoch: -1,
                    metadata: Arc::from(""),
                    committed_at_ms: -1,
                });
            }
        }
    }

    fn take_source(&mut self, seen: Seen) {
        match seen {
            Seen::Begins(way) => {
                self.source_ready = false;
                self.source_unread.begin();
                self.table().source_begins();
                self.view.set_source(Health::Reading(way));
            }
            Seen::Records(records) => {
                for record in records {
                    if !self.context.groups.matches(record.group()) {
                        continue;
                    }
                    let is_tombstone = record.is_tombstone();
                    let changed = self.table().take_source(record);
                    let Some(row) = changed else { continue };
                    // Only by the source's own word, never because something isn't found: a source
                    // that comes back empty must not empty the standby.
                    if is_tombstone {
                        self.maybe_gone.insert(row.0.clone());
                        self.note_given_up(&row.0);
                    }
                    self.touch(row);
                }
            }
            Seen::Lost(records) => {
                for record in records {
                    let changed = self.table().take_source(record);
                    let Some(row) = changed else { continue };
                    self.maybe_gone.insert(row.0.clone());
                    self.touch(row);
                }
            }
            Seen::NoLog => self.take_source(Seen::CaughtUp(Unseen::Nothing)),
            Seen::CaughtUp(unseen) => {
                self.source_ready = true;
                if self.source_unread.take(&unseen) {
                    self.sort_what_changed();
                }
                let gone = self.table().source_caught_up(&unseen);
                gone.into_iter().for_each(|row| self.touch(row));
                let without = self.table().without_source();
                self.maybe_gone.extend(without);
                self.log_unseen(&self.context.source, &unseen);
                self.view.source_is_ready(unseen);
            }
            Seen::Failing(reason) => self.view.set_source(Health::Failing(reason)),
        }
    }

    fn take_target(&mut self, seen: Seen) {
        match seen {
            Seen::Begins(way) => {
                self.target_has_no_log = false;
                self.read_target_anew(way);
                self.table().target_begins();
            }
            Seen::NoLog => {
                self.take_target(Seen::CaughtUp(Unseen::Nothing));
                self.target_has_no_log = true;
            }
            Seen::Records(records) | Seen::Lost(records) => {
                for record in records {
                    if self.context.groups.matches(record.group()) {
                        self.take_target_record(record);
                    }
                }
            }
            Seen::CaughtUp(unseen) => {
                self.target_ready = true;
                self.set_target_unseen(unseen);
                let without = self.table().without_source();
                self.maybe_gone.extend(without);
            }
            Seen::Failing(reason) => self.view.set_target(Health::Failing(reason)),
        }
    }

    /// Nothing is decided before the target's log is read to its end.
    fn read_target_anew(&mut self, way: Way) {
        self.target_ready = false;
        self.target_unseen = Unseen::All;
        self.view.set_target(Health::Reading(way));
    }

    fn take_target_record(&mut self, record: super::record::GroupRecord) {
        let mut table = self.view.table();
        let Some((group, (topic, partition), commit)) = table.take_target(record) else {
            return;
        };
        if commit.is_none() {
            self.maybe_gone.insert(group.clone());
        }
        // Before the target's log was read to its end it shows what is long past.
        if self.target_unseen.covers(&group) {
            return;
        }
        let Some(topic) = self.context.positions.source_topic(&topic) else {
            return;
        };
        let key = (topic, partition);
        if let Some(commit) = &commit {
            let coordinator = self.coordinator(&group);
            table.note_target_clock(coordinator, commit.committed_at_ms, now_ms());
        }
        let is_rival_s = |commit: &Commit| self.may_be_rival_s(&group, commit, &table);
        let is_rival_s = commit.as_ref().is_some_and(is_rival_s);
        let row = table
            .groups
            .get_mut(&group)
            .and_then(|group| group.rows.get_mut(&key));
        let Some(row) = row else { return };
        let is_late = |commit: &Commit| {
            let from = self.context.positions.continued_at(&key.0, key.1);
            is_from_before(from, row.applied, commit.offset) && !row.is_ours(commit.offset)
        };
        match &commit {
            Some(commit) if is_late(commit) => {}
            Some(commit) if is_rival_s && !row.is_on_its_way(commit.offset) => {}
            Some(commit) => row.note_on_target(commit),
            // Expired or deleted there: nothing is left to be kept.
            None => row.foreign = None,
        }
        drop(table);
        self.touch((group, key));
    }

    fn touch(&mut self, (group, key): RowName) {
        // Before anything is known of the target nothing is decided anyway.
        let is_unseen = self.target_ready && self.target_unseen.covers(&group);
        let is_held = is_unseen || self.source_unread.covers(&group);
        let changed = match is_held {
            true => &mut self.held,
            false => &mut self.dirty,
        };
        changed.entry(group).or_default().insert(key);
    }

    /// Others can't be seen on the target now.
    fn set_target_unseen(&mut self, unseen: Unseen) {
        let before = std::mem::replace(&mut self.target_unseen, unseen.clone());
        let is_seen_now = |group: &str| before.covers(group) && !unseen.covers(group);
        let context = self.context.clone();
        let target_key = |key: &Key| {
            let topic = context.positions.target_topic(&key.0)?;
            Some((topic, key.1))
        };
        let may_be_ours = |group: &str, commit: &Commit| self.may_be_ours(group, commit);
        let mut seen = self
            .table()
            .target_caught_up(is_seen_now, target_key, may_be_ours);
        if before == Unseen::All {
            // Nothing was decided before, or it was read anew: then all is as it was where it stands as we left it.
            let table = self.view.table();
            seen.retain(|(name, key)| {
                let target = target_key(key);
                target.is_some_and(|target| !table.is_as_we_left_it(name, key, &target))
            });
        }
        self.sort_what_changed();
        seen.into_iter().for_each(|row| self.touch(row));
        self.log_unseen(&self.context.target, &unseen);
        self.view.target_is_ready(unseen);
    }

    /// What may be decided about is other groups now.
    fn sort_what_changed(&mut self) {
        let changed = [
            std::mem::take(&mut self.held),
            std::mem::take(&mut self.dirty),
        ];
        for (group, keys) in changed.into_iter().flatten() {
            keys.into_iter()
                .for_each(|key| self.touch((group.clone(), key)));
        }
    }

    /// Looks at what stands on the target: what may be ours from before this process is taken for ours, and remembered,
    /// so that whoever comes next need not guess. Done once every position could be looked at.
    fn find_what_was_before(&mut self) {
        let is_seen = self.target_ready && self.target_unseen == Unseen::Nothing;
        if self.knows_what_was_before || !is_seen {
            return;
        }
        // By the state: also of topics that aren't opened yet, or not copied any more.
        let Ok(copies) = ledger::target_topics(&self.context.store, &self.context.flow) else {
            return;
        };
        let view = self.view.clone();
        let mut table = view.table();
        for (name, key) in table.committed_by_us() {
            let Some(topic) = copies.get(&*key.0) else {
                // Its copy is gone, and what groups had there went with it.
                continue;
            };
            let told = table.on_target(&name, topic, key.1).cloned();
            let rows = table.groups.get_mut(&name).map(|group| &mut group.rows);
            let Some(row) = rows.and_then(|rows| rows.get_mut(&key)) else {
                continue;
            };
            if row.adopt(told.as_ref(), |commit| self.may_be_ours(&name, commit)) {
                self.unstored.insert(name);
            }
        }
        // Also where nothing of ours is remembered: the first commit for a partition may be what is missing.
        let sources: HashMap<String, Arc<str>> = copies
            .into_iter()
            .map(|(source, target)| (target, Arc::from(source)))
            .collect();
        for (name, key, told) in table.not_committed_by_us(|topic| sources.get(topic).cloned()) {
            if !self.may_be_ours(&name, &told) {
                continue;
            }
            let rows = table.groups.get_mut(&name).map(|group| &mut group.rows);
            let Some(rows) = rows else { continue };
            if rows.entry(key).or_default().adopt(Some(&told), |_| true) {
                self.unstored.insert(name);
            }
        }
        self.knows_what_was_before = true;
    }

    fn log_unseen(&self, cluster: &wire::Cluster, unseen: &Unseen) {
        if let Some(why) = unseen.in_words() {
            tracing::warn!(flow = %self.context.flow, cluster = cluster.name(), "some groups aren't followed now: {why}");
        }
    }

    /// When it has to be looked next, if nothing is heard before. At rest that is when something may have to be stored.
    fn wakes_at(&self, woken_at: Instant, stores_at: Instant) -> Instant {
        let soon = woken_at + TICK;
        // Groups that rest, or whose coordinator has enough to do.
        let has_left = self.source_ready && self.target_ready && !self.dirty.is_empty();
        let due = match self.is_told || has_left || self.waiting.is_for_copy() {
            true => Some(soon),
            false => self.waiting.due_at().map(|at| at.max(soon)),
        };
        due.map_or(stores_at, |due| due.min(stores_at))
    }

    /// Brings back what has waited long enough, what the copy has reached, and what has another place now.
    fn wake(&mut self) {
        self.is_told = false;
        for partition in self.context.positions.take_moved() {
            let rows = self.table().rows_of(&partition);
            rows.into_iter().for_each(|row| self.touch(row));
        }
        let noted = self.context.positions.take_noted();
        if !noted.is_empty() {
            let rows = self.table().rows_not_copied(&noted);
            rows.into_iter().for_each(|row| self.touch(row));
        }
        let woken = self.waiting.wake(&*self.context.positions);
        woken.into_iter().for_each(|row| self.touch(row));
    }

    /// Decides about everything that changed, and sends what is to be committed.
    fn evaluate(&mut self) {
        if !self.source_ready || !self.target_ready {
            return;
        }
        for (lane, groups) in self.ready() {
            let mut groups = groups.into_iter();
            while self.sending.get(&lane).copied().unwrap_or(0) < SENDS_MAX {
                let now: Vec<Arc<str>> = groups.by_ref().take(GROUPS_PER_SEND).collect();
                if now.is_empty() {
                    break;
                }
                self.send(lane, now);
            }
        }
    }

    /// The groups that something changed of and that nothing is on its way for, by coordinator.
    fn ready(&self) -> HashMap<Lane, Vec<Arc<str>>> {
        let mut ready: HashMap<Lane, Vec<Arc<str>>> = HashMap::new();
        if self.dirty.is_empty() {
            return ready;
        }
        let metadata = self.context.target.cached();
        let now = Instant::now();
        let table = self.view.table();
        for name in self.dirty.keys() {
            let group = table.groups.get(name);
            if group.is_some_and(|group| group.is_sending || group.rests(now)) {
                continue;
            }
            let lane = Lane {
                coordinator: wire::coordinator_by(&metadata, name),
                is_first: group.is_none_or(|group| !group.is_stored),
            };
            ready.entry(lane).or_default().push(name.clone());
        }
        ready
    }

    fn send(&mut self, lane: Lane, groups: Vec<Arc<str>>) {
        let commits: Vec<GroupCommit> = groups
            .into_iter()
            .filter_map(|group| {
                let keys = self.dirty.remove(&group)?;
                self.decide_group(group, keys)
            })
            .collect();
        if commits.is_empty() {
            return;
        }
        *self.sending.entry(lane).or_insert(0) += 1;
        let context = self.context.clone();
        self.sends.spawn(async move {
            let attempts = match lane.is_first {
                true => commit::send_first(context, commits).await,
                false => commit::send(context, commits).await,
            };
            (lane, attempts)
        });
    }

    fn take_sent(&mut self, done: Result<(Lane, Vec<Attempt>), tokio::task::JoinError>) {
        let (lane, attempts) = brought(done);
        if let Some(sending) = self.sending.get_mut(&lane) {
            *sending = sending.saturating_sub(1);
        }
        self.take_done(attempts);
    }

    fn decide_group(&mut self, name: Arc<str>, keys: HashSet<Key>) -> Option<GroupCommit> {
        let mut sent = Vec::new();
        for key in keys {
            sent.extend(self.decide_row(&name, key));
        }
        let mut table = self.view.table();
        let seen_until_ms = table.target_now_ms(&name, self.coordinator(&name), now_ms());
        let group = table.groups.get_mut(&name)?;
        if sent.is_empty() {
            return None;
        }
        group.is_sending = true;
        let now = Instant::now();
        let is_known = group.known_until.is_some_and(|until| now < until);
        let record = (!is_known).then(|| {
            group.known_until = Some(now + STALE_AFTER);
            let record = ledger::record(group, seen_until_ms, self.context.generation);
            (keys::group(&self.context.flow, &name), record)
        });
        Some(GroupCommit {
            group: name,
            sent,
            record,
        })
    }

    fn decide_row(&mut self, name: &Arc<str>, key: Key) -> Option<Sent> {
        let now = now_ms();
        let view = self.view.clone();
        let mut table = view.table();
        let topic_id = self.context.positions.source_topic_id(&key.0);
        let row = table.groups.get_mut(name)?.rows.get_mut(&key)?;
        row.take_back(topic_id);
        if row.source.is_some() && row.is_of_other_topic(topic_id) {
            // What we know of the topic may be older than the commit: the copy says so when it takes the new one.
            if self.is_on_source(&key.0, row.source_topic_id()) {
                row.set_blocked(Some(Blocked::NotCopied), now);
            } else {
                row.set_aside();
                row.set_blocked(None, now);
            }
            return None;
        }
        let row = table.groups.get(name)?.rows.get(&key)?;
        let newest = row.source.clone()?;
        let place_of = |commit: &Commit| {
            let offset = SourceOffset(commit.offset);
            self.context.positions.place(&key.0, key.1, offset)
        };
        let (mut source, mut place) = (newest.clone(), place_of(&newest));
        // Where the newest one has to wait, one that has waited may be there by now.
        let reached = row.waiting.clone().filter(|waited| {
            waited.offset < newest.offset
                && is_not_yet_copied(&place)
                && !is_not_yet_copied(&place_of(waited))
        });
        if let Some(waited) = reached.clone() {
            place = place_of(&waited);
            source = waited;
        }
        if row.is_refused_metadata(&source.metadata) {
            source.metadata = Arc::from("");
        }
        let on_target = match &place {
            Place::Known { target, .. } => table.on_target(name, &target.topic, target.partition),
            _ => None,
        };
        let continued_at = self.context.positions.continued_at(&key.0, key.1);
        let foreign = row.foreign.as_ref().map(|commit| commit.offset);
        let is_ours = |commit: &Commit| {
            let may_be_ours = self.may_be_ours(name, commit)
                || self.may_be_rival_s(name, commit, &table)
                || is_from_before(continued_at, row.applied, commit.offset);
            is_ours(row.is_ours(commit.offset), foreign, may_be_ours)
        };
        let is_left_by_us = on_target.is_some_and(is_ours);
        let verdict = decide(&Situation {
            source: &source,
            place: &place,
            target: on_target,
            is_ours: is_left_by_us,
            foreign,
            overwrite: self.context.overwrite,
        });
        let on_target_offset = on_target.map(|commit| commit.offset);
        let stands = on_target.cloned();
        if let (Verdict::Current, Place::Known { target, .. }, Some(offset)) =
            (&verdict, &place, on_target_offset)
        {
            self.context.note_checkpoint(name, target, &source, offset);
        }
        let row = table.groups.get_mut(name)?.rows.get_mut(&key)?;
        if row.adopt(stands.as_ref(), |commit| self.may_be_ours(name, commit)) {
            self.unstored.insert(name.clone());
        }
        if reached.is_some() || !is_not_yet_copied(&place) {
            row.waiting = None;
        }
        if reached.is_some() {
            // The newest one is looked at right behind this one.
            let row = (name.clone(), key.clone());
            self.waiting.for_a_while(row, BEHIND_A_WAITED_ONE);
        }
        match verdict {
            Verdict::Current => {
                row.set_blocked(None, now);
                let was_strangers = row.foreign.take().is_some();
                if was_strangers
                    || row.applied != on_target_offset
                    || row.applied_source != source.offset
                {
                    row.applied = on_target_offset;
                    row.applied_source = source.offset;
                    self.unstored.insert(name.clone());
                }
                None
            }
            Verdict::Commit {
                target,
                offset,
                restores,
            } => {
                if let Some(stands) = stands.as_ref().filter(|_| is_left_by_us) {
                    row.note_moved_from(stands);
                }
                row.note_sent(offset);
                if on_target_offset.is_none() {
                    // Expired or deleted there while nobody looked: nothing is left to be kept.
                    row.foreign = None;
                }
                let metadata = match row.foreign.as_ref().filter(|_| restores) {
                    Some(foreign) => foreign.metadata.clone(),
                    None => source.metadata.clone(),
                };
                Some(Sent {
                    key,
                    target,
                    offset,
                    metadata,
                    source_offset: source.offset,
                    committed_at_ms: source.committed_at_ms,
                    restores,
                })
            }
            Verdict::Blocked(blocked) => {
                if matches!(blocked, Blocked::Diverged { .. }) && row.foreign.is_none() {
                    // As one that was seen when it came: else its time alone would make it ours behind the next crash.
                    row.foreign = stands;
                }
                row.set_blocked(Some(blocked.clone()), now);
                // How far ahead the group is says what it would read again, also of one that was never committed for.
                let is_followed = blocked != Blocked::NotCopied;
                if is_followed || table.groups.get(name).is_some_and(|group| group.is_stored) {
                    self.unstored.insert(name.clone());
                }
                drop(table);
                self.wait_for(&blocked, name, key, Some(&source));
                None
            }
        }
    }

    /// The broker that coordinates a group on the target, as far as that is known.
    fn coordinator(&self, group: &str) -> Option<i32> {
        wire::coordinator_by(&self.context.target.cached(), group)
    }

    /// Whether the source has this topic, as it was seen last.
    fn is_on_source(&self, topic: &str, id: uuid::Uuid) -> bool {
        let metadata = self.context.source.cached();
        matches!(metadata.described(topic), Ok(Some(described)) if !wire::is_other_topic(id, described.topic_id))
    }

    /// A commit that came too late before a crash to be remembered.
    fn may_be_ours(&self, name: &str, commit: &Commit) -> bool {
        // What was ours when all could be looked at is known to be ours by now.
        if self.context.memory == Memory::Whole || self.knows_what_was_before {
            return false;
        }
        self.remembered.get(name).is_some_and(|remembered| {
            remembered.may_be_ours(commit.leader_epoch, commit.committed_at_ms)
        })
    }

    /// A commit of whoever followed the groups before, and doesn't know yet that they are ours, or who is
    /// dead: what he sent may lie in a line or in a broker that hangs. He commits as we do, without an
    /// epoch, and what he saw of the source is what we see: it is moved on from there, or back to there.
    /// Behind this time only clients commit.
    fn may_be_rival_s(&self, name: &str, commit: &Commit, table: &Table) -> bool {
        if !self.context.may_have_rival || commit.leader_epoch >= 0 {
            return false;
        }
        let coordinator = self.coordinator(name);
        // Who asks for the groups isn't told when they committed.
        let committed_at_ms = match commit.committed_at_ms {
            ..0 => table.target_now_ms(name, coordinator, now_ms()),
            told_ms => told_ms,
        };
        let until_ms = table.target_now_ms_at(coordinator, self.began_at_ms) + LATE_MS;
        committed_at_ms <= until_ms
    }

    /// `source` is the position that waits, where it waits for the copy.
    fn wait_for(&mut self, blocked: &Blocked, name: &Arc<str>, key: Key, source: Option<&Commit>) {
        let pause_ms = match blocked {
            Blocked::NotYetCopied { .. } => match source {
                Some(source) => return self.wait_for_copy(name, key, source),
                None => 500,
            },
            // The source's or the target's next word about it brings it back, or that of the copy, which says so when
            // it takes a topic.
            Blocked::Diverged { .. } | Blocked::NotCopied => return,
            Blocked::CopyNotOpen => 500,
            // With whatever comes until the group's rest is over.
            Blocked::Throttled => return self.touch((name.clone(), key)),
            Blocked::ActiveOnTarget => 1_000,
            Blocked::Failed { .. } | Blocked::NotSupported => 5_000,
        };
        let pause = Duration::from_millis(pause_ms);
        self.waiting.for_a_while((name.clone(), key), pause);
    }

    fn wait_for_copy(&mut self, name: &Arc<str>, key: Key, source: &Commit) {
        let (offset, before) = {
            let mut table = self.view.table();
            let rows = table.groups.get_mut(name).map(|group| &mut group.rows);
            let Some(row) = rows.and_then(|rows| rows.get_mut(&key)) else {
                return;
            };
            match &row.waiting {
                Some(waited) if waited.offset < source.offset => (waited.offset, None),
                _ => {
                    let before = row.waiting.replace(source.clone());
                    (source.offset, before.map(|before| before.offset))
                }
            }
        };
        self.waiting.for_copy((name.clone(), key), offset, before);
    }

    /// The source gave a position up. With the last one the group is gone there.
    fn note_given_up(&mut self, name: &Arc<str>) {
        if !self.context.delete {
            return;
        }
        let is_emptied = self.table().groups.get(name).is_some_and(Group::is_emptied);
        if is_emptied {
            self.emptied.insert(name.clone());
        }
    }

    fn take_done(&mut self, attempts: Vec<Attempt>) {
        let mut results = attempts.iter().flat_map(|attempt| &attempt.results);
        if self.target_has_no_log && results.any(|(_, result)| result.is_ok()) {
            // There is one now, and clients may commit there before it is found.
            self.target_has_no_log = false;
            self.read_target_anew(Way::Tail);
        }
        let now = now_ms();
        for attempt in attempts {
            let mut again = Vec::new();
            {
                let mut table = self.view.table();
                let Some(group) = table.groups.get_mut(&attempt.group) else {
                    continue;
                };
                group.is_sending = false;
                group.is_stored |= attempt.is_stored;
                if !group.is_stored {
                    group.known_until = None;
                }
                let is_throttled = attempt.results.iter().any(
                    |(_, result)| matches!(result, Err(it) if it.blocked == Blocked::Throttled),
                );
                group.note_quota(is_throttled, Instant::now());
                for (sent, result) in attempt.results {
                    let Some(row) = group.rows.get_mut(&sent.key) else {
                        continue;
                    };
                    match result {
                        Ok(taken) => {
                            if taken == Taken::WithoutMetadata {
                                row.note_refused_metadata(&attempt.group, &sent);
                            }
                            if let Some(source) = row.source.as_ref().filter(|source| {
                                !sent.restores && source.offset == sent.source_offset
                            }) {
                                let (to, at) = (&sent.target, sent.offset);
                                self.context.note_checkpoint(&attempt.group, to, source, at);
                            }
                            row.applied = (!sent.restores).then_some(sent.offset);
                            row.applied_source = sent.source_offset;
                            row.set_blocked(None, now);
                            group.followed_at_ms = now;
                            if !sent.restores && sent.committed_at_ms >= self.began_at_ms {
                                let delay_ms = (now - sent.committed_at_ms).max(0);
                                group.delay_ms = Some(delay_ms);
                                self.view.delays.note(delay_ms);
                            }
                            self.view.count_committed();
                        }
                        Err(Failure { blocked, .. }) => {
                            row.note_failed(sent.offset, &blocked);
                            if row.set_blocked(Some(blocked.clone()), now) {
                                commit::log_failure(&attempt.group, &sent.target, &blocked);
                            }
                            again.push((blocked, sent.key));
                        }
                    }
                }
            }
            self.unstored.insert(attempt.group.clone());
            for (blocked, key) in again {
                self.wait_for(&blocked, &attempt.group, key, None);
            }
        }
    }

    /// Stores what changed. What can't be stored now is stored the next time.
    async fn remember(&mut self) {
        if !(self.context.may_write)() {
            return;
        }
        self.delete_emptied();
        self.find_what_was_before();
        self.forget_gone().await;
        let names: Vec<Arc<str>> = self.unstored.drain().collect();
        let mut touched = Vec::new();
        let metadata = self.context.target.cached();
        let records: Vec<(String, crate::state::GroupPositions)> = {
            let table = self.view.table();
            names
                .iter()
                .filter_map(|name| {
                    let coordinator = wire::coordinator_by(&metadata, name);
                    let seen_until_ms = table.target_now_ms(name, coordinator, now_ms());
                    let generation = self.context.generation;
                    let record = ledger::record(table.groups.get(name)?, seen_until_ms, generation);
                    let key = keys::group(&self.context.flow, name);
                    if record.may_lack_the_last() {
                        touched.push(name.clone());
                    } else if self.context.store.get(&key).ok().flatten().as_ref() == Some(&record)
                    {
                        // Whoever waits is looked at twice a second.
                        return None;
                    }
                    Some((key, record))
                })
                .collect()
        };
        let known_until = Instant::now() + STALE_AFTER;
        // Groups go on while a replica of the state topic keeps its records waiting.
        let stored = tokio::time::timeout(STORE_WITHIN, self.context.store.put_all(&records)).await;
        let problem = match stored {
            Ok(Ok(())) => return self.note_stored(&touched, known_until),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", STORE_WITHIN.as_secs()),
        };
        tracing::warn!(flow = %self.context.flow, problem, "group positions could not be stored; tried again");
        self.unstored.extend(names);
    }

    /// Forgets the groups that neither cluster has a position of, as both say. Nothing is deleted by that: a group that
    /// comes back is a new one.
    async fn forget_gone(&mut self) {
        if !self.source_ready || !self.target_ready {
            return;
        }
        let (mut gone, mut later) = (Vec::new(), HashSet::new());
        for name in self.maybe_gone.drain() {
            let table = self.view.table();
            let is_sending = table.groups.get(&name).is_some_and(|it| it.is_sending);
            let is_gone = table.is_gone(&name);
            drop(table);
            // Its last tombstones on the target bring it back here.
            if is_sending || (is_gone && self.view.is_unseen(&name)) {
                later.insert(name);
            } else if is_gone {
                gone.push(name);
            }
        }
        self.maybe_gone = later;
        let keys = gone
            .iter()
            .map(|name| keys::group(&self.context.flow, name));
        let stored = keys.filter(|key| self.context.store.bytes(key).is_some());
        let removed: Vec<StateRecord> = stored.map(|key| (key, None)).collect();
        if !removed.is_empty() {
            let removing = self.context.store.write_all(removed);
            let problem = match tokio::time::timeout(STORE_WITHIN, removing).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {} s", STORE_WITHIN.as_secs())),
            };
            if let Some(problem) = problem {
                tracing::warn!(flow = %self.context.flow, problem, "groups that are gone could not be forgotten; tried again");
                self.maybe_gone.extend(gone);
                return;
            }
        }
        for name in gone {
            let mut table = self.view.table();
            self.waiting.no_longer(&name, table.waits_for_copy(&name));
            table.forget(&name);
            drop(table);
            self.unstored.remove(&name);
            self.remembered.remove(&name);
            self.dirty.remove(&name);
            self.held.remove(&name);
        }
    }

    fn note_stored(&self, names: &[Arc<str>], known_until: Instant) {
        let mut table = self.view.table();
        for name in names {
            if let Some(group) = table.groups.get_mut(name) {
                group.is_stored = true;
                group.known_until = group.known_until.max(Some(known_until));
            }
        }
    }

    /// Nothing is sent for a group while it is being deleted: it would be deleted, too.
    ///
    /// What a log that isn't read to its end has told so far is no word: a tombstone of one position may lie long before
    /// the newest commit of another one.
    fn delete_emptied(&mut self) {
        if !self.deletions.is_empty() || !self.source_ready || !self.target_ready {
            return;
        }
        let mut names: Vec<Arc<str>> = self.emptied.drain().collect();
        {
            // It may have come back meanwhile, or have positions on the target that aren't ours:
            // those of other flows, or of clients there.
            let mut table = self.view.table();
            let source_topic = |topic: &str| self.context.positions.source_topic(topic);
            let view = &self.view;
            let (hidden, seen): (Vec<_>, Vec<_>) =
                names.into_iter().partition(|name| view.is_unseen(name));
            // They wait: what else the group has on that cluster can't be seen.
            self.emptied.extend(hidden);
            names = seen;
            names.retain(|name| {
                table.groups.get(name).is_some_and(Group::is_emptied)
                    && table.is_all_ours(name, source_topic)
            });
            // A commit that is on its way would make the group anew.
            let is_sending =
                |name: &Arc<str>| table.groups.get(name).is_some_and(|it| it.is_sending);
            let (sending, idle): (Vec<_>, Vec<_>) = names.into_iter().partition(is_sending);
            self.emptied.extend(sending);
            names = idle;
            for name in &names {
                if let Some(group) = table.groups.get_mut(name) {
                    group.is_sending = true;
                }
            }
        }
        if !names.is_empty() {
            let is_polled = self.view.is_target_polled();
            self.deletions
                .spawn(commit::delete(self.context.clone(), names, is_polled));
        }
    }

    fn take_deleted(&mut self, deletion: Deletion) {
        let view = self.view.clone();
        let mut table = view.table();
        for name in deletion.refused.iter().chain(&deletion.again) {
            if let Some(group) = table.groups.get_mut(name) {
                group.is_sending = false;
            }
        }
        self.emptied.extend(deletion.again);
        for name in deletion.gone {
            self.unstored.remove(&name);
            // What it had on the target may still be shown; then its tombstones there bring it back here.
            self.maybe_gone.insert(name.clone());
            self.waiting.no_longer(&name, table.waits_for_copy(&name));
            let back = table.deleted(&name);
            back.into_iter()
                .for_each(|key| self.touch((name.clone(), key)));
        }
    }
}
