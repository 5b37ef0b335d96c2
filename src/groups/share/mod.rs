//! Share groups (KIP-932): their start offsets follow from source to target.
//!
//! A share group has no position but a window: a start offset, below which every record is done
//! with, and states of single records above it. Only the start offset can be asked for and set. It
//! isn't in a log that clients may follow, so both clusters are asked every few seconds.
//!
//! ```text
//! source: start offsets ── look ──> table ──> decide ──> change ──> target's coordinators
//! target: start offsets ── look ──────^         ^── positions of the copy
//! ```
//!
//! What is set is stored before it is sent ([`ledger`]): a start offset on the target that isn't
//! there was set by somebody else, or moved by a consumer there, and is kept.

mod change;
mod ledger;
mod look;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::change::{Attempt, Change, Changes};
use self::look::{Looked, Side};
use super::commit::log_failure;
use super::context::Follow;
use super::decide::{Blocked, Situation, Verdict, decide, is_from_before};
use super::positions::Place;
use super::report::{Health, View};
use super::seen::Way;
use super::table::Key;
use super::unseen::Unseen;
use crate::offsets::SourceOffset;
use crate::state::{StateError, StateRecord, keys};
use crate::telemetry::groups::GroupSight;
use crate::telemetry::progress::now_ms;
use crate::wire::{self, WireError};

pub use ledger::read as remembered;

/// Between two looks while start offsets move.
const BUSY: Duration = Duration::from_secs(2);
/// Between two looks while nothing changes.
const QUIET: Duration = Duration::from_secs(10);

/// Why a look at both clusters wasn't finished.
#[derive(Debug)]
enum Trouble {
    Source(WireError),
    Target(WireError),
    State(StateError),
}

/// What the target says of the groups themselves.
struct TargetGroups {
    /// The target has no share groups.
    unsupported: bool,
    /// Groups that aren't empty there.
    active: HashSet<String>,
    /// Groups whose coordinator there doesn't answer.
    unseen: Unseen,
}

struct Follower {
    context: Follow,
    view: Arc<View>,
    source: Side,
    target: Side,
    /// What the state topic doesn't have yet.
    unstored: HashSet<Arc<str>>,
}

/// Follows until cancelled. What is found is seen through `view` from outside.
///
/// # Errors
/// When what was remembered can't be read.
pub async fn follow_share_groups(
    context: Follow,
    view: Arc<View>,
    cancel: CancellationToken,
) -> Result<(), StateError> {
    let offsets = ledger::read(&context.store, &context.flow)?;
    ledger::recall(offsets, &mut view.table());
    let mut follower = Follower {
        source: Side::new(context.source.clone()),
        target: Side::new(context.target.clone()),
        context,
        view,
        unstored: HashSet::new(),
    };
    let mut pause = BUSY;
    loop {
        // Cut off anywhere, a round is as if the process had crashed: the next one goes on.
        let Some(done) = cancel.run_until_cancelled(follower.round()).await else {
            return Ok(());
        };
        let moved = done.unwrap_or_else(|trouble| {
            follower.show(trouble);
            false
        });
        pause = if moved {
            BUSY
        } else {
            pause.mul_f64(1.5).min(QUIET)
        };
        let slept = cancel.run_until_cancelled(tokio::time::sleep(pause)).await;
        if slept.is_none() {
            return Ok(());
        }
    }
}

impl Follower {
    fn show(&self, trouble: Trouble) {
        match trouble {
            Trouble::Source(error) => self.view.set_source(Health::Failing(error.to_string())),
            Trouble::Target(error) => self.view.set_target(Health::Failing(error.to_string())),
            Trouble::State(error) => {
                tracing::warn!(flow = %self.context.flow, %error, "start offsets of share groups could not be stored; tried again");
            }
        }
    }

    /// Looks at both clusters once and sets what is to be set. True when something moved, or waits
    /// for the copy.
    async fn round(&mut self) -> Result<bool, Trouble> {
        let (names, source_moved) = self.look_at_source().await.map_err(Trouble::Source)?;
        // Without share groups the target isn't asked about them.
        if names.is_empty() {
            self.view.set_target(Health::Following(Way::Poll));
            self.view.target_is_ready(Unseen::Nothing);
            return Ok(source_moved);
        }
        let target = self.look_at_target(&names).await.map_err(Trouble::Target)?;
        self.view.set_target(Health::Following(Way::Poll));
        self.view.target_is_ready(target.unseen.clone());
        if !(self.context.may_write)() {
            return Ok(true);
        }
        let (changes, waits) = self.decide_all(&target);
        let changed = self.apply(changes).await.map_err(Trouble::State)?;
        self.forget_gone().await.map_err(Trouble::State)?;
        Ok(source_moved || changed || waits)
    }

    /// The source's share groups, and whether any has moved.
    async fn look_at_source(&mut self) -> Result<(Vec<String>, bool), WireError> {
        let listed = wire::list_groups(&self.context.source).await?;
        let why_incomplete = listed.why_incomplete();
        let mut names: Vec<String> = listed
            .groups
            .into_iter()
            .filter(|group| group.group_type == "share")
            .map(|group| group.group_id)
            .filter(|group| self.context.groups.matches(group))
            .collect();
        // A list leaves out what may not be described, without a word; asked for by its name, it is refused.
        names.extend(self.remembered());
        names.sort_unstable();
        names.dedup();
        let Looked {
            records,
            mut unseen,
            refused,
        } = match self.source.look(&names).await {
            Err(error) if wire::is_unsupported(&error) => {
                tracing::debug!(flow = %self.context.flow, %error, "the source has no share groups");
                Looked::nothing()
            }
            looked => looked?,
        };
        self.view.set_sight(GroupSight {
            refused: refused.into_iter().collect(),
            ..GroupSight::default()
        });
        if let Some(why) = why_incomplete {
            let failed = |name: &String| unseen.covers(name);
            let names = self.source.known().filter(|name| !failed(name)).cloned();
            unseen = Unseen::AllBut {
                names: names.collect(),
                why,
            };
        }
        names.extend(self.source.known().cloned());
        names.sort_unstable();
        names.dedup();
        self.view.set_source(Health::Following(Way::Poll));
        self.view.source_is_ready(unseen);
        let mut table = self.view.table();
        let moved = !records.is_empty();
        for record in records {
            table.take_source(record);
        }
        Ok((names, moved))
    }

    /// The groups that were followed, by this process or one before.
    fn remembered(&self) -> Vec<String> {
        let table = self.view.table();
        let names = table.groups.keys().map(ToString::to_string);
        names
            .filter(|name| self.context.groups.matches(name))
            .collect()
    }

    /// Forgets the groups that neither cluster has a start offset of, as both say. Nothing is deleted by that: a group
    /// that comes back is a new one.
    async fn forget_gone(&mut self) -> Result<(), StateError> {
        let gone: Vec<Arc<str>> = {
            let table = self.view.table();
            let is_gone = |name: &&Arc<str>| table.is_gone(name) && !self.view.is_unseen(name);
            table.groups.keys().filter(is_gone).cloned().collect()
        };
        let keys = gone
            .iter()
            .map(|name| keys::share(&self.context.flow, name));
        let stored = keys.filter(|key| self.context.store.bytes(key).is_some());
        let removed: Vec<StateRecord> = stored.map(|key| (key, None)).collect();
        if !removed.is_empty() {
            self.context.store.write_all(removed).await?;
        }
        for name in gone {
            self.view.table().forget(&name);
            self.source.forget(&name);
            self.target.forget(&name);
            self.unstored.remove(&name);
        }
        Ok(())
    }

    async fn look_at_target(&mut self, names: &[String]) -> Result<TargetGroups, WireError> {
        let listed = wire::list_groups(&self.context.target).await?;
        let active = listed
            .groups
            .into_iter()
            .filter(|group| !matches!(&*group.state, "Empty" | "Dead"))
            .map(|group| group.group_id);
        let active = active.collect();
        let Looked {
            records, unseen, ..
        } = match self.target.look(names).await {
            Err(error) if wire::is_unsupported(&error) => {
                tracing::debug!(flow = %self.context.flow, %error, "the target has no share groups");
                return Ok(TargetGroups {
                    unsupported: true,
                    active,
                    unseen: Unseen::Nothing,
                });
            }
            looked => looked?,
        };
        let mut table = self.view.table();
        for record in records {
            table.take_target(record);
        }
        Ok(TargetGroups {
            unsupported: false,
            active,
            unseen,
        })
    }

    /// Decides about every start offset. True when one waits for the copy.
    fn decide_all(&mut self, target: &TargetGroups) -> (Changes, bool) {
        let rows: Vec<(Arc<str>, Key)> = {
            let table = self.view.table();
            let groups = table.groups.iter();
            groups
                .flat_map(|(name, group)| group.rows.keys().map(|key| (name.clone(), key.clone())))
                .collect()
        };
        let mut changes = Changes::new();
        let mut waits = false;
        for (name, key) in rows {
            match self.decide_row(target, &name, &key) {
                Some(Ok(change)) => changes.entry(name).or_default().push(change),
                Some(Err(blocked)) => waits |= self.block(&name, &key, blocked),
                None => {}
            }
        }
        (changes, waits)
    }

    /// What to do about one start offset; `None` if nothing.
    fn decide_row(
        &mut self,
        target: &TargetGroups,
        name: &Arc<str>,
        key: &Key,
    ) -> Option<Result<Change, Blocked>> {
        // What it has there now may be a client's.
        if target.unseen.covers(name) {
            return None;
        }
        let mut table = self.view.table();
        let row = table.groups.get(name)?.rows.get(key)?;
        let source = row.source.clone()?;
        if target.unsupported {
            return Some(Err(Blocked::NotSupported));
        }
        let place = self
            .context
            .positions
            .place(&key.0, key.1, SourceOffset(source.offset));
        let on_target = match &place {
            Place::Known { target, .. } => table.on_target(name, &target.topic, target.partition),
            _ => None,
        };
        // See `Positions::continued_at`.
        let from = self.context.positions.continued_at(&key.0, key.1);
        let verdict = decide(&Situation {
            source: &source,
            place: &place,
            target: on_target,
            is_ours: on_target.is_some_and(|commit| {
                row.is_ours(commit.offset) || is_from_before(from, row.applied, commit.offset)
            }),
            foreign: None,
            overwrite: self.context.overwrite,
        });
        let on_target = on_target.map(|commit| commit.offset);
        match verdict {
            Verdict::Current => {
                let row = table.groups.get_mut(name)?.rows.get_mut(key)?;
                row.set_blocked(None, now_ms());
                if change::note_current(row, on_target, source.offset) {
                    self.unstored.insert(name.clone());
                }
                None
            }
            Verdict::Commit { .. } if target.active.contains(&**name) => {
                Some(Err(Blocked::ActiveOnTarget))
            }
            Verdict::Commit { target, offset, .. } => Some(Ok(Change {
                key: key.clone(),
                target,
                offset,
                source_offset: source.offset,
                before: on_target,
            })),
            Verdict::Blocked(blocked) => Some(Err(blocked)),
        }
    }

    /// Notes why a start offset isn't followed. True when it waits for the copy.
    fn block(&mut self, name: &Arc<str>, key: &Key, blocked: Blocked) -> bool {
        let waits = matches!(blocked, Blocked::NotYetCopied { .. } | Blocked::CopyNotOpen);
        let view = self.view.clone();
        let mut table = view.table();
        let group = table.groups.get_mut(name);
        if let Some(row) = group.and_then(|group| group.rows.get_mut(key)) {
            let begins_at = row.source.as_ref().map(|source| source.offset);
            let is_set = row.applied.is_some() || !row.unconfirmed.is_empty();
            if blocked != Blocked::NotCopied && !is_set && begins_at != Some(row.applied_source) {
                // Should the source be lost, nobody else knows of it.
                row.applied_source = begins_at.unwrap_or(0);
                self.unstored.insert(name.clone());
            }
            row.set_blocked(Some(blocked), now_ms());
        }
        waits
    }

    /// Sets start offsets on the target: stored before they are sent, and again when they are
    /// answered. True when one was set.
    async fn apply(&mut self, changes: Changes) -> Result<bool, StateError> {
        for (name, changes) in &changes {
            let mut table = self.view.table();
            let Some(group) = table.groups.get_mut(name) else {
                continue;
            };
            changes
                .iter()
                .for_each(|change| change::note_sending(group, change));
            self.unstored.insert(name.clone());
        }
        self.store().await?;
        if changes.is_empty() {
            return Ok(false);
        }
        let mut is_set = false;
        for attempt in change::send(&self.context.target, changes).await {
            is_set |= attempt.result.is_ok();
            self.note_answer(attempt);
        }
        self.store().await?;
        Ok(is_set)
    }

    fn note_answer(&mut self, attempt: Attempt) {
        let Attempt {
            group: name,
            change,
            result,
        } = attempt;
        self.unstored.insert(name.clone());
        let mut table = self.view.table();
        if result.is_ok() {
            // Seen before the next look, which then tells what changed since.
            let record = self.target.note(&name, &change.target, change.offset);
            table.take_target(record);
            self.view.count_committed();
        }
        let Some(group) = table.groups.get_mut(&name) else {
            return;
        };
        if let Some(blocked) = change::note_answer(group, &change, result, now_ms()) {
            log_failure(&name, &change.target, &blocked);
        }
    }

    /// Stores what changed. What can't be stored now is stored the next time.
    async fn store(&mut self) -> Result<(), StateError> {
        let records: Vec<_> = {
            let table = self.view.table();
            let groups = self.unstored.iter();
            groups
                .filter_map(|name| {
                    let record = ledger::record(table.groups.get(name)?);
                    Some((keys::share(&self.context.flow, name), record))
                })
                .collect()
        };
        self.context.store.put_all(&records).await?;
        self.unstored.clear();
        Ok(())
    }
}
