//! The old primary after a failover: told who is the primary, fenced, and measured.
//!
//! It may be gone for days. Until it answers nothing can be done; from then on, again and again:
//! its own state gets the role, its writers are kept away, and what it has beyond the fork is
//! counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::deny::DenyError;
use super::fenced::{self, FenceError};
use super::never_copied::{filled, never_copied};
use super::shown::{self, Shown};
use crate::config::FlowConfig;
use crate::cutover::agreement;
use crate::state::{
    FenceAcl, FenceRecord, ForkRecord, GivenUpRecord, OrphansRecord, Primary, RoleRecord,
    StateError, StateStore, TopicSet, keys,
};
use crate::tasks::brought;
use crate::telemetry::role::{Orphans, RoleStatus};
use crate::wire::{self, Cluster, OffsetSpec, Pace, Rate, TopicPartition, WireError};

/// How long the old primary may take to answer one round of questions.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same for counting what it has more: the first time both logs are compared.
const MEASURED_WITHIN: Duration = Duration::from_secs(60);
/// How long one round waits for it to say that it is the primary again: its state is read from the beginning, the
/// first time, and what has come of that is kept for the next round.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(12);
/// From then on it is fenced though it doesn't say it. Longer than brokers take to come up one after the other. A
/// primary whose state can't be read for so long is ill, and writers that are refused wrongly lose nothing: the fence
/// goes as soon as its state can be read. One that isn't the primary would take records for ever that nobody copies.
const UNDECIDED_FOR: Duration = Duration::from_secs(60);
/// In status: the old primary is the primary again, and this flow's target is none.
pub const GIVEN_UP: &str = "given_up";
/// Why it isn't fenced yet.
const UNDECIDED: &str = "its state can't be read yet, so it isn't known whether it was made the primary again; its \
    writers are kept away within a minute if that stays so";
/// How often all that it has is described to us, as the size of that says: in between it is only asked whether it is there.
const PACE: Pace = Pace {
    hasty: rate(100_000, 30),
    told: rate(4_000, 300),
    untold: rate(10_000, 90),
};
/// How long one broker may take to say whether it refuses writers.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
/// A request whose answer never came is carried out within this, or never: what it was to make is looked for so long.
const LATE_FOR: Duration = Duration::from_secs(15);
/// How long its end may look at what a pass has made: until nothing of it can come any more.
const ENDS_WITHIN: Duration = Duration::from_secs(18);
/// Between two such looks when nobody is going to look any more.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Who has shown the fence is believed for so long. A broker that falls behind still has what it once had, and one that
/// starts isn't let in before it has caught up; but one that was set back, or a cluster whose controller was, has what
/// it had before. That is rare, so it isn't asked in every round.
const SHOWN_FOR: Duration = Duration::from_secs(30);
/// More partitions with orphans are counted, not listed.
const LISTED_MAX: usize = 100;

const fn rate(bytes_per_second: usize, most_seconds: u64) -> Rate {
    Rate {
        bytes_per_second,
        most: Duration::from_secs(most_seconds),
    }
}

/// Looks after the old primary.
pub struct Restrain {
    flow: String,
    /// As the config has it, where that says which topics should be copied.
    config: Option<FlowConfig>,
    source: Cluster,
    /// Whom its brokers take us for, if that is known.
    own_principal: Option<String>,
    /// Its state topic, once it answered.
    told: Option<StateStore>,
    /// Who reads that just now, over as many rounds as it takes.
    reading: JoinSet<Result<Option<StateStore>, StateError>>,
    /// Since when it answers and doesn't say whether it is the primary again.
    undecided_since: Option<Instant>,
    /// What was begun to be made, until it is known that it may stay.
    making: Option<Making>,
    /// When all that it has was described.
    described: Option<wire::Looked>,
    /// Who has shown the fence.
    shown: Looked,
    /// The forks as they are recorded, and of the topics that could be looked at since it is back, as its logs were.
    parted: Option<(Forks, Forks)>,
    status: RoleStatus,
}

/// ACLs that a pass makes.
struct Making {
    acls: Vec<FenceAcl>,
    since: Instant,
    carried_out: CarriedOut,
    /// What an older pass has asked for, and nobody has answered, may come until then.
    older_until: Option<Instant>,
}

/// What became of ACLs that were asked for.
enum CarriedOut {
    /// Whoever asks for them isn't cut off with the pass.
    UnderWay(JoinHandle<Result<(), DenyError>>),
    /// No more of it is on its way.
    Answered,
    /// It may be.
    Unanswered,
}

impl Making {
    /// What became of it. Who is cut off while it waits finds it later.
    async fn outcome(&mut self) -> Result<(), DenyError> {
        let CarriedOut::UnderWay(task) = &mut self.carried_out else {
            return Ok(());
        };
        let outcome = brought(task.await);
        self.carried_out = match &outcome {
            Err(error) if error.is_unanswered() => CarriedOut::Unanswered,
            _ => CarriedOut::Answered,
        };
        outcome
    }

    /// Whether nothing of it can come any more.
    async fn is_settled(&mut self) -> bool {
        if matches!(&self.carried_out, CarriedOut::UnderWay(task) if task.is_finished()) {
            // Who waited for it was cut off, and nobody else has to hear of it.
            let _ = self.outcome().await;
        }
        let is_answered = matches!(self.carried_out, CarriedOut::Answered)
            && self.older_until.is_none_or(|until| Instant::now() >= until);
        is_answered || self.since.elapsed() >= LATE_FOR
    }
}

/// Which brokers have shown the fence around these topics.
struct Looked {
    topics: BTreeSet<String>,
    shown: Shown,
    since: Instant,
}

impl Default for Looked {
    fn default() -> Self {
        Self {
            topics: BTreeSet::new(),
            shown: Shown::default(),
            since: Instant::now(),
        }
    }
}

/// By topic.
type Forks = BTreeMap<String, ForkRecord>;

impl Restrain {
    /// Of this flow.
    pub fn new(flow: &str, source: &Cluster, own_principal: Option<String>) -> Self {
        Self {
            flow: flow.to_owned(),
            config: None,
            source: source.clone(),
            own_principal,
            told: None,
            reading: JoinSet::new(),
            undecided_since: None,
            making: None,
            described: None,
            shown: Looked::default(),
            parted: None,
            status: RoleStatus::default(),
        }
    }

    /// What it has in topics that this config selects and that were never copied is counted, too.
    #[must_use]
    pub fn counting(mut self, config: &FlowConfig) -> Self {
        self.config = Some(config.clone());
        self
    }

    /// What the role itself says, while the old primary may take its time.
    pub fn told(&mut self, role: &RoleRecord) -> RoleStatus {
        self.status.primary = role.primary.word().to_owned();
        self.status.since_ms = role.since_ms;
        self.status.epoch = role.epoch;
        self.status.plan = role.plan.to_string();
        self.status.is_copied_back = role.is_copied_back;
        self.status.topics = match &role.topics {
            TopicSet::All => None,
            TopicSet::List(topics) => Some(topics.iter().cloned().collect()),
        };
        if self.status.old_primary.is_empty() {
            self.status.old_primary = "away".to_owned();
        }
        self.status.clone()
    }

    /// One round. `store` is the state on the new primary.
    pub async fn pass(&mut self, store: &StateStore, role: &RoleRecord) -> RoleStatus {
        self.told(role);
        if role.primary == Primary::Target {
            let round = tokio::time::timeout(PATIENCE, self.round(store, role)).await;
            match round {
                // What is beyond the fork while it is copied back is mostly ours.
                Ok(Ok(())) if role.is_copied_back || role.is_handed_back => {}
                // What a primary has is no orphan.
                Ok(Ok(())) if self.status.old_primary == GIVEN_UP => {
                    self.status.orphan_offsets = None;
                    self.status.orphans.clear();
                }
                // Nor, maybe, what this one has.
                Ok(Ok(())) if self.undecided_since.is_some() => {}
                Ok(Ok(())) => self.measure_in_time(store, role).await,
                Ok(Err(error)) => tracing::debug!(flow = %self.flow, %error, "the old primary"),
                Err(_) => self.status.old_primary = "away".to_owned(),
            }
            if self.status.old_primary == "away" {
                // It may come back with less.
                self.parted = None;
                self.described = None;
                self.undecided_since = None;
            }
        }
        self.status.clone()
    }

    async fn round(&mut self, store: &StateStore, role: &RoleRecord) -> Result<(), StateError> {
        // First of all, and whatever the role is by now: a pass may have been cut off while it was made, by the very role
        // that forbids it.
        match self.take_back_what_came_late(store).await {
            Ok(()) => {}
            Err(FenceError::State(error)) => return Err(error),
            Err(FenceError::Deny(error)) => {
                tracing::warn!(
                    flow = %self.flow,
                    %error,
                    "what keeps writers from the old primary although it is handed back can't be removed; it is tried again"
                );
            }
        }
        if let Err(error) = self.describe().await {
            self.status.old_primary = "away".to_owned();
            return Err(error.into());
        }
        match self.is_given_up(role).await {
            Some(true) => return self.leave_alone(store, role).await,
            // What is over doesn't begin again.
            None if self.status.old_primary == GIVEN_UP => return Ok(()),
            // A standby that wakes up may have been given up while it slept: who refuses the writers of the primary
            // before that is known makes an outage.
            None if !role.is_handed_back && self.is_to_wait() => {
                if self.status.old_primary != "fenced" {
                    self.status.old_primary = "writable".to_owned();
                    self.status.fence_problem = Some(UNDECIDED.to_owned());
                }
                return Ok(());
            }
            Some(false) | None => {}
        }
        let forks = forks(store, &self.flow, &role.topics)?;
        // Before anything else is written: no new orphans.
        if !role.is_handed_back {
            self.fence(store, role, forks.keys().cloned().collect())
                .await?;
        }
        self.tell(store, role).await;
        Ok(())
    }

    /// Asks whether it is there and, where that may have changed, what it has.
    async fn describe(&mut self) -> Result<(), WireError> {
        self.source.ask_news().await;
        let (news, bytes) = (self.source.news(), self.source.metadata_bytes());
        if !PACE.is_due(self.described, news, bytes) {
            self.source.metadata(Some(&[])).await?;
            return Ok(());
        }
        let looked = self.source.look_begins();
        self.source.metadata(None).await?;
        self.described = Some(looked);
        Ok(())
    }

    /// Whether it has become the primary again without this standby's knowing (`failback --give-up`); `None` where it
    /// doesn't say so in time.
    async fn is_given_up(&mut self, role: &RoleRecord) -> Option<bool> {
        let deadline = Instant::now() + GIVEN_UP_WITHIN;
        loop {
            let begins_now = self.reading.is_empty();
            if begins_now {
                self.read();
            }
            let read = tokio::time::timeout_at(deadline, self.reading.join_next()).await;
            let read = brought(read.ok()??);
            if let Err(error) = &read {
                tracing::debug!(flow = %self.flow, %error, "the old primary's state can't be read");
            }
            self.told = read.ok()?;
            // What was begun in an earlier round may be older than what was said since.
            if begins_now {
                break;
            }
        }
        let record = self.told.as_ref().map(|it| given_up(it, &self.flow));
        let record = record.transpose().ok()?.flatten();
        self.undecided_since = None;
        Some(record.is_some_and(|record| record.ends(role)))
    }

    /// Begins to read its state, or what has come there since.
    fn read(&mut self) {
        let (told, source) = (self.told.take(), self.source.clone());
        self.reading.spawn(async move {
            match told {
                Some(store) => {
                    store.refresh().await?;
                    Ok(Some(store))
                }
                None => StateStore::open_existing(&source).await,
            }
        });
    }

    fn is_to_wait(&mut self) -> bool {
        let since = *self.undecided_since.get_or_insert_with(Instant::now);
        since.elapsed() < UNDECIDED_FOR
    }

    /// Nobody is kept from a cluster that is the primary: what this flow has made there before it knew goes.
    async fn leave_alone(
        &mut self,
        store: &StateStore,
        role: &RoleRecord,
    ) -> Result<(), StateError> {
        if self.status.old_primary != GIVEN_UP {
            tracing::error!(
                flow = %self.flow,
                "this standby was given up, and {} is the primary again: keep clients away from here, and build the \
                 standby anew",
                self.source.name()
            );
        }
        self.status.old_primary = GIVEN_UP.to_owned();
        self.status.fence_problem = None;
        if self.is_fenced_by_another(role)? {
            // What looks like ours there is the newer standby's: it is only forgotten here.
            store.refresh().await?;
            let key = keys::fence(&self.flow);
            return match store.bytes(&key) {
                Some(_) => store.remove(&key).await,
                None => Ok(()),
            };
        }
        let lifted = fenced::lift(&self.source, store, &self.flow, |_| true).await;
        match lifted {
            Ok(_) | Err(FenceError::Deny(DenyError::NoAuthorizer)) => Ok(()),
            Err(FenceError::Deny(error)) => {
                self.status.fence_problem = Some(error.to_string());
                Ok(())
            }
            Err(FenceError::State(error)) => Err(error),
        }
    }

    /// Whether it was failed over again since this standby was given up, to one that was built anew.
    fn is_fenced_by_another(&self, role: &RoleRecord) -> Result<bool, StateError> {
        let Some(told) = &self.told else {
            return Ok(false);
        };
        let known: Option<RoleRecord> = told.get(&keys::role(&self.flow))?;
        let Some(known) = known.filter(|known| known.primary != Primary::Source) else {
            return Ok(false);
        };
        let is_ended = given_up(told, &self.flow)?.is_some_and(|record| record.ends(&known));
        // Where a cluster has no id the failover tells.
        let is_ours = is_same_target(&known, role).unwrap_or(known.plan == role.plan);
        Ok(!is_ended || !is_ours)
    }

    /// Counts what it has beyond the forks, as far as that can be said in time.
    async fn measure_in_time(&mut self, store: &StateStore, role: &RoleRecord) {
        let measured = tokio::time::timeout(MEASURED_WITHIN, self.measure(store, role)).await;
        let problem = match measured {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("nothing within {} s", MEASURED_WITHIN.as_secs()),
        };
        tracing::debug!(flow = %self.flow, problem, "what the old primary has can't be counted");
        self.status.orphan_offsets = None;
    }

    async fn fence(
        &mut self,
        store: &StateStore,
        role: &RoleRecord,
        topics: Vec<String>,
    ) -> Result<(), StateError> {
        // What a list of all topics leaves out may be hidden from us, or news to the broker that was asked: its writers are
        // kept away all the same.
        let present = match self.source.describe_unlisted(&topics).await {
            Ok(present) => present,
            // Those that are listed are fenced all the same; the next pass asks again.
            Err(error) => {
                tracing::debug!(flow = %self.flow, %error, "topics that a list leaves out can't be asked for");
                self.source.cached()
            }
        };
        let topics: Vec<String> = topics
            .into_iter()
            .filter(|topic| !matches!(present.described(topic), Ok(None)))
            .collect();
        let fenced = self.fenced(store, role, &topics).await;
        match fenced {
            Ok(made) => {
                if made > 0 {
                    tracing::warn!(
                        flow = %self.flow,
                        acls = made,
                        "writers are refused on the old primary from now on (DENY WRITE)"
                    );
                }
                self.status.old_primary = "fenced".to_owned();
                self.status.fence_problem = None;
                if made > 0 || role.is_copied_back {
                    // Who showed another fence hasn't shown this one.
                    self.shown.shown.ask_all_again();
                    self.shown.since = Instant::now();
                }
                if !role.is_copied_back {
                    self.look_who_is_late(topics).await;
                }
            }
            Err(FenceError::Deny(error)) => {
                if self.status.fence_problem.is_none() {
                    tracing::error!(
                        flow = %self.flow,
                        %error,
                        "the old primary is back and its writers can't be kept away: stop them"
                    );
                }
                self.status.old_primary = "writable".to_owned();
                self.status.fence_problem = Some(error.to_string());
            }
            Err(FenceError::State(error)) => return Err(error),
        }
        Ok(())
    }

    /// Makes what the fence lacks. How many ACLs were made or removed.
    async fn fenced(
        &mut self,
        store: &StateStore,
        role: &RoleRecord,
        topics: &[String],
    ) -> Result<usize, FenceError> {
        // The failback hands the old primary back and lifts the fence: what was true when this
        // pass began may not be.
        store.refresh().await?;
        let now: Option<RoleRecord> = store.get(&keys::role(&self.flow))?;
        if now.as_ref() != Some(role) {
            return Ok(0);
        }
        let (cluster, flow, own) = (&self.source, &self.flow, self.own_principal.as_deref());
        let change = match role.is_copied_back {
            true => fenced::lacks_but_us(cluster, store, flow, topics, own).await?,
            false => fenced::lacks_everybody(cluster, store, flow, topics).await?,
        };
        if change.is_empty() {
            return Ok(0);
        }
        let at = (keys::fence(flow), role.plan);
        let (changed, removed) = (
            change.make.len() + change.remove.len(),
            change.remove.clone(),
        );
        // What an older pass has asked for, and nobody has answered, is still on its way.
        let mut acls = change.make.clone();
        let mut older_until = None;
        if let Some(older) = &mut self.making {
            acls.extend(older.acls.iter().cloned());
            older_until = (!older.is_settled().await).then(|| older.since + LATE_FOR);
        }
        let carried_out = fenced::begin(cluster, store, (&at.0, at.1), change).await?;
        let making = self.making.insert(Making {
            acls,
            since: Instant::now(),
            carried_out: CarriedOut::UnderWay(carried_out),
            older_until,
        });
        let carried = making.outcome().await;
        // What was refused may have been made in part.
        let looked = self.take_back_what_came_late(store).await;
        carried?;
        looked?;
        fenced::forget(store, (&at.0, at.1), &removed).await?;
        Ok(changed)
    }

    /// A failback that was handing the old primary back meanwhile has lifted the fence, and forgotten what it knew of: what
    /// was made behind that would keep the primary's own clients away. The role says so before anything is lifted, so
    /// whoever reads it behind what he has made either sees that, or what he has made is lifted with the rest.
    ///
    /// What nobody has answered may be carried out behind that: it is looked for until it can't come any more.
    async fn take_back_what_came_late(&mut self, store: &StateStore) -> Result<(), FenceError> {
        let Some(making) = &mut self.making else {
            return Ok(());
        };
        let is_last = making.is_settled().await;
        let acls = making.acls.clone();
        store.refresh().await?;
        let now: Option<RoleRecord> = store.get(&keys::role(&self.flow))?;
        // Remembered again, whatever becomes of it: what a plan that is undone meanwhile has made anew, and whoever is cut
        // off here, leaves what somebody can remove.
        fenced::note(store, &keys::fence(&self.flow), &acls).await?;
        if now.is_some_and(|role| role.is_handed_back || role.primary == Primary::Source) {
            fenced::lift(&self.source, store, &self.flow, |_| true).await?;
        }
        if is_last {
            self.making = None;
        }
        Ok(())
    }

    /// Nobody looks after the old primary here any more: what a pass that was cut off has made doesn't stay.
    pub async fn end(&mut self, store: &StateStore) {
        let taken_back = async {
            loop {
                self.take_back_what_came_late(store).await?;
                if self.making.is_none() {
                    return Ok::<_, FenceError>(());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let ended = tokio::time::timeout(ENDS_WITHIN, taken_back).await;
        let problem = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ENDS_WITHIN.as_secs()),
        };
        tracing::warn!(
            flow = %self.flow,
            problem,
            "it isn't known whether writers are kept from the old primary by what was made last: look at its ACLs"
        );
    }

    /// A broker whose metadata is late goes on taking records although the fence is made: it is named until it refuses.
    async fn look_who_is_late(&mut self, topics: Vec<String>) {
        let topics: BTreeSet<String> = topics.into_iter().collect();
        let of = &mut self.shown;
        if of.topics != topics {
            // Where its brokers are is kept: one that is cut off is found there alone.
            of.topics = topics;
            of.shown.ask_all_again();
            of.since = Instant::now();
        }
        if of.since.elapsed() >= SHOWN_FOR {
            of.since = Instant::now();
            of.shown.ask_all_again();
        }
        let late = of.shown.look(&self.source, &of.topics, SHOWN_WITHIN);
        let late = late.await;
        let told = shown::told(&late);
        if told.is_empty() {
            return;
        }
        let told = told.join(", ");
        tracing::warn!(flow = %self.flow, "on the old primary {told}");
        self.status.old_primary = "writable".to_owned();
        self.status.fence_problem = Some(told);
    }

    /// Writes the role to the old primary's own state, where a copy of the old config finds it, and the fence.
    async fn tell(&mut self, known: &StateStore, role: &RoleRecord) {
        if !self.reading.is_empty() {
            return;
        }
        let told = async {
            let store = match self.told.take() {
                Some(store) => store,
                None => StateStore::open(&self.source, &self.flow).await?,
            };
            tell_all(known, &store, &self.flow, role).await?;
            Ok::<_, StateError>(store)
        };
        match told.await {
            Ok(store) => self.told = Some(store),
            Err(error) => {
                tracing::debug!(flow = %self.flow, %error, "the role can't be told to the old primary");
            }
        }
    }

    async fn measure(&mut self, store: &StateStore, role: &RoleRecord) -> Result<(), StateError> {
        let forks = &forks(store, &self.flow, &role.topics)?;
        let partitions: Vec<TopicPartition> = forks
            .iter()
            .flat_map(|(topic, fork)| {
                (0..)
                    .zip(&fork.partitions)
                    .map(move |(number, _)| TopicPartition::new(topic, number))
            })
            .collect();
        let ends = wire::list_offsets(&self.source, &partitions, OffsetSpec::Latest).await;
        let mut away = partitions
            .iter()
            .filter(|at| !matches!(ends.get(at), Some(Ok(_))));
        if let Some(first) = away.next() {
            // Not all of it answers yet: a number that is too small would be believed. What doesn't may come back with
            // less.
            for at in std::iter::once(first).chain(away) {
                if let Some((_, seen)) = &mut self.parted {
                    seen.remove(&at.topic);
                }
            }
            self.status.orphan_offsets = None;
            return Ok(());
        }
        let Some(forks) = self.where_they_part(store, forks).await else {
            // A number of which nobody knows what it counts would be believed.
            self.status.orphan_offsets = None;
            return Ok(());
        };
        let forks = &forks;
        let mut record = OrphansRecord {
            v: 1,
            plan: role.plan,
            topics: BTreeMap::new(),
        };
        let (mut total, mut listed) = (0, Vec::new());
        for (topic, fork) in forks {
            for (number, fork) in (0..).zip(&fork.partitions) {
                let at = TopicPartition::new(topic, number);
                let Some(Ok(end)) = ends.get(&at) else {
                    continue;
                };
                if *end <= fork.source_end {
                    continue;
                }
                total += end - fork.source_end;
                let of_topic = record.topics.entry(topic.clone()).or_default();
                of_topic.push((number, fork.source_end, *end));
                if listed.len() < LISTED_MAX {
                    listed.push(Orphans {
                        topic: topic.clone(),
                        partition: number,
                        from: fork.source_end,
                        to: *end,
                    });
                }
            }
        }
        // What was never copied has no fork, and is only there from its beginning on.
        let is_known = |at: &TopicPartition| {
            let fork = forks.get(&at.topic);
            let number = usize::try_from(at.partition).unwrap_or(usize::MAX);
            fork.is_some_and(|fork| number < fork.partitions.len())
        };
        let there = self.source.cached();
        let late = self.config.as_ref().map_or_else(Vec::new, |config| {
            never_copied(config, &there, &role.topics, is_known)
        });
        let Some(late) = filled(&self.source, &late, PATIENCE).await else {
            self.status.orphan_offsets = None;
            return Ok(());
        };
        for (at, from, to) in late {
            total += to - from;
            let of_topic = record.topics.entry(at.topic.clone()).or_default();
            of_topic.push((at.partition, from, to));
            if listed.len() < LISTED_MAX {
                listed.push(Orphans {
                    topic: at.topic,
                    partition: at.partition,
                    from,
                    to,
                });
            }
        }
        let key = keys::orphans(&self.flow);
        if store.get::<OrphansRecord>(&key)?.as_ref() != Some(&record) {
            store.put(&key, &record).await?;
        }
        self.status.orphan_offsets = Some(total);
        self.status.orphans = listed;
        Ok(())
    }
}

impl Restrain {
    /// The forks where both logs part: an old primary that lost what was copied has others' records in its
    /// place. Both are read once for each time that it is back, each topic when all of its partitions can be; `None`
    /// while not all of them can.
    async fn where_they_part(&mut self, store: &StateStore, recorded: &Forks) -> Option<Forks> {
        let seen = match self.parted.take() {
            Some((of, seen)) if of == *recorded => seen,
            _ => Forks::new(),
        };
        let open: Forks = recorded
            .iter()
            .filter(|(topic, _)| !seen.contains_key(*topic))
            .map(|(topic, fork)| (topic.clone(), fork.clone()))
            .collect();
        let (_, seen) = self.parted.insert((recorded.clone(), seen));
        if open.is_empty() {
            return Some(seen.clone());
        }
        store.cluster().metadata(None).await.ok()?;
        let sides = (&self.source, store.cluster());
        let mut agreed = agreement::look(sides, store, &self.flow, &open)
            .await
            .ok()?;
        for at in agreed.unseen.keys() {
            agreed.forks.remove(&at.topic);
        }
        seen.extend(agreed.forks);
        (seen.len() == recorded.len()).then(|| seen.clone())
    }
}

/// Writes a role to a cluster's state, unless a later one is there. A standby that was built anew counts from the
/// beginning: what is there of another one is earlier. Whether the failover of that role isn't over there: of one that
/// was given up nothing is written.
///
/// # Errors
/// When the state can't be read or written.
pub async fn tell(store: &StateStore, flow: &str, role: &RoleRecord) -> Result<bool, StateError> {
    let key = keys::role(flow);
    store.refresh().await?;
    if given_up(store, flow)?.is_some_and(|record| record.ends(role)) {
        return Ok(false);
    }
    let known: Option<RoleRecord> = store.get(&key)?;
    let is_later = |known: &RoleRecord| {
        // Where a cluster has no id the clocks have to agree.
        let is_same = is_same_target(known, role).unwrap_or(known.since_ms > role.since_ms);
        known.epoch > role.epoch && is_same
    };
    if known.is_none_or(|known| !is_later(&known) && known != *role) {
        store.put(&key, role).await?;
    }
    Ok(true)
}

/// Whether both are about one standby; unknown where one of them has no id.
fn is_same_target(one: &RoleRecord, other: &RoleRecord) -> Option<bool> {
    let ids = one
        .target_cluster_id
        .as_ref()
        .zip(other.target_cluster_id.as_ref());
    ids.map(|(one, other)| one == other)
}

fn given_up(store: &StateStore, flow: &str) -> Result<Option<GivenUpRecord>, StateError> {
    store.get(&keys::given_up(flow))
}

/// As [`tell`] and, unless that failover is over, [`tell_fence`].
///
/// # Errors
/// When the state can't be read or written.
pub async fn tell_all(
    known: &StateStore,
    told: &StateStore,
    flow: &str,
    role: &RoleRecord,
) -> Result<(), StateError> {
    match tell(told, flow, role).await? {
        true => tell_fence(known, told, flow).await,
        false => Ok(()),
    }
}

/// Writes down on the old primary, too, which ACLs keep writers from it: whoever has nothing but that cluster can lift
/// them. Both stores were read just now.
///
/// # Errors
/// When the state can't be read or written.
pub async fn tell_fence(
    known: &StateStore,
    told: &StateStore,
    flow: &str,
) -> Result<(), StateError> {
    let key = keys::fence(flow);
    let fence: Option<FenceRecord> = known.get(&key)?;
    match fence {
        Some(fence) if told.get(&key)?.as_ref() != Some(&fence) => told.put(&key, &fence).await,
        None if told.bytes(&key).is_some() => told.remove(&key).await,
        _ => Ok(()),
    }
}

/// The forks of these topics.
///
/// # Errors
/// When a record can't be read.
pub fn forks(
    store: &StateStore,
    flow: &str,
    topics: &TopicSet,
) -> Result<BTreeMap<String, ForkRecord>, StateError> {
    let prefix = keys::fork(flow, "");
    let mut forks = BTreeMap::new();
    for key in store.keys(&prefix) {
        let topic = &key[prefix.len()..];
        if topics.contains(topic)
            && let Some(fork) = store.get::<ForkRecord>(&key)?
        {
            forks.insert(topic.to_owned(), fork);
        }
    }
    Ok(forks)
}
