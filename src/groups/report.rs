//! A follower as it is seen from outside.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::decide::Blocked;
use super::positions::{Place, Positions};
use super::seen::Way;
use super::table::{Group, Key, Row, Table};
use super::unseen::Unseen;
use crate::offsets::{SourceOffset, TargetOffset, Translation};
use crate::telemetry::groups::{
    DelayHistogram, FlowGroups, GroupExplained, GroupKind, GroupReporter, GroupSight, GroupStatus,
    PositionExplained, Watching,
};

/// How watching a cluster's groups goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// What is there already is being read.
    Reading(Way),
    /// All of it is known, and every change is seen.
    Following(Way),
    /// It can't be read now.
    Failing(String),
}

/// One cluster.
struct Watched {
    health: Health,
    /// How it was asked last: also while that fails.
    way: Way,
    /// The groups that can't be seen there.
    unseen: Unseen,
}

impl Watched {
    fn new() -> Mutex<Self> {
        Mutex::new(Self {
            health: Health::Reading(Way::Tail),
            way: Way::Tail,
            unseen: Unseen::All,
        })
    }
}

type Ends = HashMap<Key, Option<i64>>;

/// What a follower knows, shared with those who look.
pub struct View {
    kind: GroupKind,
    flow: String,
    positions: Arc<dyn Positions>,
    table: Mutex<Table>,
    source: Mutex<Watched>,
    target: Mutex<Watched>,
    sight: Mutex<GroupSight>,
    commits: AtomicU64,
    /// From commit to commit.
    pub delays: DelayHistogram,
}

impl View {
    /// Nothing is known yet.
    pub fn new(kind: GroupKind, flow: String, positions: Arc<dyn Positions>) -> Self {
        Self {
            kind,
            flow,
            positions,
            table: Mutex::default(),
            source: Watched::new(),
            target: Watched::new(),
            sight: Mutex::default(),
            commits: AtomicU64::new(0),
            delays: DelayHistogram::default(),
        }
    }

    /// Groups can't be followed at all.
    pub fn set_failed(&self, reason: &str) {
        self.set_target(Health::Failing(reason.to_owned()));
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_source(&self, health: Health) {
        set(&self.source, health);
    }

    pub(super) fn set_target(&self, health: Health) {
        set(&self.target, health);
    }

    /// Everything is known of the source but for these groups.
    pub(super) fn source_is_ready(&self, unseen: Unseen) {
        follow_on(&self.source, unseen);
    }

    /// See [`source_is_ready`](Self::source_is_ready).
    pub(super) fn target_is_ready(&self, unseen: Unseen) {
        follow_on(&self.target, unseen);
    }

    /// What a failover couldn't ask for on the source.
    pub(super) fn set_sight(&self, sight: GroupSight) {
        *self.sight.lock().unwrap_or_else(PoisonError::into_inner) = sight;
    }

    /// Whether the source's groups are known, as far as they can be seen.
    pub(super) fn is_source_known(&self) -> bool {
        matches!(lock(&self.source).health, Health::Following(_))
    }

    /// Whether the source is asked for its groups.
    pub(super) fn is_source_polled(&self) -> bool {
        lock(&self.source).health == Health::Following(Way::Poll)
    }

    /// Whether the target is asked for its groups: positions on topics that may not be described there aren't seen then. What
    /// is known of it was learned so also while it doesn't answer.
    pub(super) fn is_target_polled(&self) -> bool {
        lock(&self.target).way == Way::Poll
    }

    /// The groups that the source has a position of in a topic that is copied.
    pub(super) fn copied_groups(&self) -> BTreeSet<String> {
        let table = self.table();
        let is_copied = |(key, row): (&Key, &Row)| {
            row.source.is_some() && self.positions.target_topic(&key.0).is_some()
        };
        let groups = table.groups.iter();
        let copied = groups.filter(|(_, group)| group.rows.iter().any(is_copied));
        copied.map(|(name, _)| name.to_string()).collect()
    }

    /// Whether nothing is known of a group on one of the clusters.
    pub(super) fn is_unseen(&self, group: &str) -> bool {
        let hides = |watched: &Mutex<Watched>| lock(watched).unseen.covers(group);
        hides(&self.source) || hides(&self.target)
    }

    /// `ends` keeps the source's ends that were asked for: many groups share few partitions.
    fn status(&self, table: &Table, name: &str, group: &Group, ends: &mut Ends) -> GroupStatus {
        let mut status = GroupStatus {
            group: name.to_owned(),
            kind: self.kind,
            followed_at_ms: (group.followed_at_ms > 0).then_some(group.followed_at_ms),
            delay_ms: group.delay_ms,
            ..GroupStatus::default()
        };
        let mut worst = None;
        for (key, row) in &group.rows {
            let Some(source) = &row.source else { continue };
            status.partitions += 1;
            status.source_position = status.source_position.saturating_add(source.offset);
            let newest = status.committed_at_ms.max(Some(source.committed_at_ms));
            status.committed_at_ms = newest.filter(|at| *at >= 0);
            let end = ends
                .entry(key.clone())
                .or_insert_with(|| self.positions.source_end(&key.0, key.1));
            if let Some(end) = *end {
                let behind = (end - source.offset).max(0);
                status.behind_records = status.behind_records.saturating_add(behind);
            }
            if let Some(blocked) = &row.blocked {
                *status.waiting.entry(blocked.word().to_owned()).or_insert(0) += 1;
                worst = worst.max(Some((attention(blocked), blocked.word())));
                if let Blocked::Failed { .. } = blocked {
                    let since = status.failed_since_ms.unwrap_or(row.since_ms);
                    status.failed_since_ms = Some(since.min(row.since_ms));
                }
            }
            // What is followed is where we wrote it; looking it up costs more, for every position.
            let on_target = match &row.blocked {
                None => row.applied,
                Some(_) => self.on_target(table, name, key, row),
            };
            match on_target {
                Some(offset) => {
                    status.target_position = status.target_position.saturating_add(offset);
                    let reread = self.reread(key, row, offset).unwrap_or(0);
                    status.reread_records = status.reread_records.saturating_add(reread);
                }
                None => status.unplaced_partitions += 1,
            }
        }
        status.state = match worst {
            _ if self.is_unseen(name) => "unknown".to_owned(),
            Some((_, word)) => word.to_owned(),
            None if status.partitions == 0 => "gone_on_source".to_owned(),
            None => "followed".to_owned(),
        };
        status
    }

    fn why_unseen(&self, group: &str) -> Option<String> {
        let sides = [("source", &self.source), ("target", &self.target)];
        let hidden = sides.into_iter().find_map(|(side, watched)| {
            let watched = lock(watched);
            let why = watched.unseen.in_words();
            let why = why.unwrap_or_else(|| "its groups haven't been read yet".to_owned());
            watched.unseen.covers(group).then_some((side, why))
        });
        hidden.map(|(side, why)| {
            format!("nothing is known of the group on the {side} now: {why}; what follows is what was known last")
        })
    }

    /// The group's position on the target, as its log shows it, else as we last wrote it.
    fn on_target(&self, table: &Table, name: &str, key: &Key, row: &Row) -> Option<i64> {
        let target_topic = self.positions.target_topic(&key.0)?;
        let shown = table.on_target(name, &target_topic, key.1);
        shown.map(|commit| commit.offset).or(row.applied)
    }

    /// How many offsets lie between where the group would go on and where it is.
    fn reread(&self, key: &Key, row: &Row, on_target: i64) -> Option<i64> {
        let source = row.source.as_ref()?;
        if row.blocked.is_none() && row.applied == Some(on_target) {
            // The newest commit may just be on its way.
            return Some((source.offset - row.applied_source).max(0));
        }
        let back = self
            .positions
            .back(&key.0, key.1, TargetOffset(on_target))?;
        Some((source.offset - back.0).max(0))
    }

    fn explain_row(&self, table: &Table, name: &str, key: &Key, row: &Row) -> PositionExplained {
        let on_target = self.on_target(table, name, key, row);
        let mut explained = PositionExplained {
            topic: key.0.to_string(),
            partition: key.1,
            since_ms: row.since_ms,
            source_offset: row.source.as_ref().map(|source| source.offset),
            target_topic: self.positions.target_topic(&key.0).map(|t| t.to_string()),
            target_offset: on_target,
            reread_records: on_target.and_then(|offset| self.reread(key, row, offset)),
            ..PositionExplained::default()
        };
        explained.state = match (&row.source, &row.blocked) {
            (None, _) => "gone_on_source",
            (_, Some(blocked)) => blocked.word(),
            (_, None) => "followed",
        }
        .to_owned();
        self.add_steps(&mut explained, row, key);
        explained
    }

    fn add_steps(&self, explained: &mut PositionExplained, row: &Row, key: &Key) {
        let steps = &mut explained.steps;
        let Some(source) = &row.source else {
            steps.push("the source has no position of the group here any more".to_owned());
            return;
        };
        steps.push(match self.kind {
            GroupKind::Consumer => format!("the group committed {} on the source", source.offset),
            GroupKind::Share => format!("the group starts at {} on the source", source.offset),
        });
        let of_key = |offset| self.positions.place(&key.0, key.1, SourceOffset(offset));
        let place = match &row.blocked {
            // It may be of a topic that was made anew under the name of the one that is copied.
            Some(Blocked::NotCopied) => Place::NotCopied,
            _ => of_key(source.offset),
        };
        match &place {
            Place::NotCopied => steps.push("the flow doesn't copy this topic".to_owned()),
            Place::Unknown => steps.push(
                "this partition's copy isn't open now, so its positions aren't known".to_owned(),
            ),
            Place::Known { answer, first, .. } => match answer {
                Translation::Exact(offset) if offset >= first => {
                    explained.wanted_offset = Some(offset.0);
                    steps.push(format!("the map: that record is at {offset} on the target"));
                }
                Translation::Exact(_) | Translation::BeforeStart { .. } => {
                    explained.wanted_offset = Some(first.0);
                    steps.push(format!(
                        "that is before the first record of the copy, so the group goes on there: at {first}"
                    ));
                }
                Translation::NotYetCopied { copied_end } => steps.push(format!(
                    "the copy has only reached {copied_end} of the source: the position waits for it"
                )),
            },
        }
        steps.push(last_step(self.kind, row, explained.target_offset));
    }
}

fn last_step(kind: GroupKind, row: &Row, on_target: Option<i64>) -> String {
    let (done, tool) = match kind {
        GroupKind::Consumer => ("committed", "kafka-consumer-groups"),
        GroupKind::Share => ("set", "kafka-share-groups"),
    };
    match (&row.blocked, on_target) {
        (None, Some(offset)) => format!("{offset} is {done} on the target"),
        (None, None) => format!("nothing is {done} on the target yet"),
        (Some(Blocked::Diverged { offset }), _) => format!(
            "somebody else {done} {offset} on the target, which is kept; delete the group's \
             offsets there ({tool} --delete-offsets) to follow the source again"
        ),
        (Some(Blocked::NotSupported), _) => {
            "the target doesn't have share groups (Kafka 4.1 with share.version=1)".to_owned()
        }
        (Some(Blocked::ActiveOnTarget), _) => "the group has members on the target, so it isn't \
             moved; the position is applied when they are gone"
            .to_owned(),
        (Some(Blocked::Throttled), _) => {
            "the target takes commits of the group only so often: its newest position is \
             committed as soon as it has a quota for it"
                .to_owned()
        }
        (Some(Blocked::Failed { reason }), _) => format!("the target refused: {reason}"),
        (Some(_), Some(offset)) => format!("until then the target keeps {offset}"),
        (Some(_), None) => "until then the target has no position of the group".to_owned(),
    }
}

/// What a person should look at first.
fn attention(blocked: &Blocked) -> u8 {
    match blocked {
        Blocked::Failed { .. } => 6,
        Blocked::Diverged { .. } => 5,
        Blocked::ActiveOnTarget => 4,
        Blocked::CopyNotOpen | Blocked::Throttled => 3,
        Blocked::NotYetCopied { .. } => 2,
        Blocked::NotCopied => 1,
        Blocked::NotSupported => 0,
    }
}

impl GroupReporter for View {
    fn report(&self) -> FlowGroups {
        let table = self.table();
        let mut ends = Ends::new();
        let mut groups: Vec<GroupStatus> = table
            .groups
            .iter()
            .map(|(name, group)| self.status(&table, name, group, &mut ends))
            .collect();
        groups.sort_by(|left, right| left.group.cmp(&right.group));
        FlowGroups {
            flow: self.flow.clone(),
            source: watching(&self.source),
            target: watching(&self.target),
            commits: self.commits.load(Ordering::Relaxed),
            groups,
            sight: self
                .sight
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    fn explain(&self, name: &str) -> Option<GroupExplained> {
        let table = self.table();
        let group = table.groups.get(name)?;
        let rows = group.rows.iter();
        let mut partitions: Vec<PositionExplained> = rows
            .map(|(key, row)| self.explain_row(&table, name, key, row))
            .collect();
        if let Some(why) = self.why_unseen(name) {
            for explained in &mut partitions {
                explained.state = "unknown".to_owned();
                explained.steps.insert(0, why.clone());
            }
        }
        Some(GroupExplained {
            flow: self.flow.clone(),
            status: self.status(&table, name, group, &mut Ends::new()),
            partitions,
        })
    }

    fn delays(&self) -> &DelayHistogram {
        &self.delays
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set(watched: &Mutex<Watched>, now: Health) {
    let mut watched = lock(watched);
    if let Health::Reading(way) | Health::Following(way) = &now {
        watched.way = *way;
    }
    watched.health = now;
}

fn follow_on(watched: &Mutex<Watched>, unseen: Unseen) {
    let mut watched = lock(watched);
    watched.unseen = unseen;
    if let Health::Reading(way) = watched.health {
        watched.health = Health::Following(way);
    }
}

fn watching(watched: &Mutex<Watched>) -> Watching {
    let watched = lock(watched);
    let word = |way: &Way| match way {
        Way::Tail => "tail".to_owned(),
        Way::Poll => "poll".to_owned(),
    };
    match &watched.health {
        Health::Reading(way) => Watching {
            way: word(way),
            state: "reading".to_owned(),
            detail: None,
        },
        Health::Following(way) => Watching {
            way: word(way),
            state: "following".to_owned(),
            detail: watched.unseen.in_words(),
        },
        Health::Failing(reason) => Watching {
            way: String::new(),
            state: "failing".to_owned(),
            detail: Some(reason.clone()),
        },
    }
}
