//! The old primary after a failover: told who is the primary, fenced, and measured.
//!
//! It may be gone for days. Until it answers nothing can be done; from then on, again and again:
//! its own state gets the role, its writers are kept away, and what it has beyond the fork is
//! counted.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::deny::DenyError;
use super::fenced::{self, FenceError};
use crate::cutover::agreement;
use crate::state::{
    FenceRecord, ForkRecord, GivenUpRecord, OrphansRecord, Primary, RoleRecord, StateError,
    StateStore, TopicSet, keys,
};
use crate::tasks::brought;
use crate::telemetry::role::{Orphans, RoleStatus};
use crate::wire::{self, Cluster, OffsetSpec, TopicPartition};

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
/// More partitions with orphans are counted, not listed.
const LISTED_MAX: usize = 100;

/// Looks after the old primary.
pub struct Restrain {
    flow: String,
    source: Cluster,
    /// Whom its brokers take us for, if that is known.
    own_principal: Option<String>,
    /// Its state topic, once it answered.
    told: Option<StateStore>,
    /// Who reads that just now, over as many rounds as it takes.
    reading: JoinSet<Result<Option<StateStore>, StateError>>,
    /// Since when it answers and doesn't say whether it is the primary again.
    undecided_since: Option<Instant>,
    /// The forks as they are recorded, and of the topics that could be looked at since it is back, as its logs were.
    parted: Option<(Forks, Forks)>,
    status: RoleStatus,
}

/// By topic.
type Forks = BTreeMap<String, ForkRecord>;

impl Restrain {
    /// Of this flow.
    pub fn new(flow: &str, source: &Cluster, own_principal: Option<String>) -> Self {
        Self {
            flow: flow.to_owned(),
            source: source.clone(),
            own_principal,
            told: None,
            reading: JoinSet::new(),
            undecided_since: None,
            parted: None,
            status: RoleStatus::default(),
        }
    }

    /// One round. `store` is the state on the new primary.
    pub async fn pass(&mut self, store: &StateStore, role: &RoleRecord) -> RoleStatus {
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
                self.undecided_since = None;
            }
        }
        self.status.clone()
    }

    async fn round(&mut self, store: &StateStore, role: &RoleRecord) -> Result<(), StateError> {
        if let Err(error) = self.source.metadata(None).await {
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
        // First of all: no new orphans.
        if !role.is_handed_back {
            self.fence(store, role, forks.keys().cloned().collect())
                .await?;
        }
        self.tell(store, role).await;
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
        Ok(!is_ended || known.target_cluster_id != role.target_cluster_id)
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
        let own = self.own_principal.as_deref();
        let present = self.source.cached();
        let topics: Vec<String> = topics
            .into_iter()
            .filter(|topic| present.has_topic(topic))
            .collect();
        let fenced = async {
            // The failback hands the old primary back and lifts the fence: what was true when this
            // pass began may not be.
            store.refresh().await?;
            let now: Option<RoleRecord> = store.get(&keys::role(&self.flow))?;
            if now.as_ref() != Some(role) {
                return Ok(0);
            }
            let (cluster, flow, plan) = (&self.source, &self.flow, role.plan);
            if role.is_copied_back {
                return fenced::but_us(cluster, store, flow, plan, &topics, own).await;
            }
            let made = fenced::everybody(cluster, store, flow, plan, &topics).await?;
            Ok(made.len())
        };
        match fenced.await {
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
        known.epoch > role.epoch && known.target_cluster_id == role.target_cluster_id
    };
    if known.is_none_or(|known| !is_later(&known) && known != *role) {
        store.put(&key, role).await?;
    }
    Ok(true)
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
