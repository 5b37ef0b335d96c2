//! Opens partitions, hands them to sessions and lanes, and opens them again after a problem.
//!
//! All decisions about partitions are made here, by one task; sessions and lanes only report.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::budget::Meter;
use super::claim::Fence;
use super::damage;
use super::discovery::Discovered;
use super::epochs::SourceEpochs;
use super::error::{Policy, Trouble};
use super::intake::{self, IntakeRules};
use super::leaders;
use super::missed;
use super::partition::{Partition, PartitionParts};
use super::position::Position;
use super::prefix;
use super::resume::{self, Candidate, Opened, Resume};
use super::shared::Flow;
use super::sink::Lane;
use super::slower::Refusals;
use super::source::{Handover, Opening, Seat, Server, Session, Silence, is_special, lane_number};
use super::spread::{At, Spread};
use super::topics::TopicContext;
use crate::state::TopicRecord;
use crate::tasks::Tasks;
use crate::telemetry::progress::{PartitionKey, PartitionProgress, PartitionState, now_ms};
use crate::wire::Cluster;

/// Lanes (connections) per target broker, at first: the broker works on one request of each at a time.
const LANES_FIRST: u16 = 2;
/// Sessions (connections) per source broker, at first.
const SESSIONS_FIRST: u16 = 1;
/// The lane of those whose replicas are slow: what they wait for keeps nobody else waiting.
const SLOW_LANE: u16 = u16::MAX;
/// Lanes that a target broker may have beside the others.
pub(super) const LANES_BESIDE: [u16; 1] = [SLOW_LANE];
/// How long it may take at least to find out who leads the partitions of a silent broker.
const LOOK_FOR: Duration = Duration::from_secs(5);
/// Batches of questions at a time about the partitions of one source and one target broker. A broker
/// that hangs holds up only the partitions that it leads.
const RESUMING_MAX: usize = 4;
/// Prefixes that are burned at a time at one target broker.
const BURNING_MAX: usize = 4;
/// How long the leaders are looked for at least before partitions are asked about.
const REFRESH_FOR: Duration = Duration::from_secs(3);
/// The first pause before a partition is opened again. What a broken connection left in a
/// broker's queue is appended well within it, before the log end is read.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// How often a partition is looked at again whose source seemed to have lost records.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Brokers hear of new topics from the controller, one of them late: for so long that is no trouble.
const HEARD_WITHIN_MS: i64 = 60_000;
/// A follower serves a partition no longer than this before its leader is asked again, as in the Java client
/// (`metadata.max.age.ms`).
const FOLLOWED_MAX: Duration = Duration::from_secs(300);
/// See [`LeaderOnly`].
const LEADER_ONLY_FIRST: Duration = Duration::from_secs(60);
/// See [`LeaderOnly`].
const LEADER_ONLY_MAX: Duration = Duration::from_secs(960);
/// A partition that was open this long starts again with the first pause.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// A partition as the supervisor sees it.
struct Entry {
    topic: Arc<TopicContext>,
    status: Status,
    attempt: u32,
    leader_only: LeaderOnly,
    /// Its replicas kept others of its lane waiting: it gets the slow one.
    is_slow: bool,
    /// What the target's service refused of it.
    refusals: Refusals,
    /// Whether it was far behind when it was closed last.
    was_behind: bool,
}

impl Entry {
    /// A batch was refused by a service's policy, or for its throttling. What that is by now, if it won't be taken.
    fn note_refused(&mut self, partition: &Partition, trouble: &Trouble) -> Option<Trouble> {
        let Trouble::Slower {
            cluster,
            bytes,
            message,
        } = trouble
        else {
            return None;
        };
        let at = partition.progress.target_position.load(Ordering::Relaxed);
        let refused_for = self.refusals.refused(*bytes, at, Instant::now());
        self.attempt = self.refusals.times().saturating_sub(1);
        refused_for.map(|refused_for| Trouble::RefusedByPolicy {
            cluster: cluster.clone(),
            bytes: *bytes,
            message: message.clone(),
            minutes: refused_for.as_secs() / 60,
        })
    }

    fn open_again(&mut self, partition: i32) -> Candidate {
        self.status = Status::Opening;
        Candidate {
            topic: self.topic.clone(),
            partition,
        }
    }
}

/// How long a partition whose follower lagged is fetched from its leader alone: longer each time.
#[derive(Clone, Copy, Default)]
struct LeaderOnly {
    times: u32,
    until: Option<Instant>,
}

impl LeaderOnly {
    fn begin(&mut self) {
        let is_long_ago = |until: Instant| until.elapsed() >= LEADER_ONLY_MAX;
        if self.until.is_some_and(is_long_ago) {
            self.times = 0;
        }
        let rest = LEADER_ONLY_FIRST * 2_u32.saturating_pow(self.times.min(10));
        self.times = self.times.saturating_add(1);
        self.until = Some(Instant::now() + rest.min(LEADER_ONLY_MAX));
    }

    fn until(&self) -> Option<Instant> {
        self.until.filter(|until| *until > Instant::now())
    }
}

enum Status {
    Opening,
    Open {
        partition: Arc<Partition>,
        since: Instant,
        /// The target broker that it is sent to, and over which of its lanes.
        broker: i32,
        lane: u16,
    },
    Pausing,
    /// With the number of the look that comes, where one does.
    Stopped(Option<u64>),
}

enum Event {
    Reopen(PartitionKey),
    /// What was stopped is looked at again.
    LookAgain(PartitionKey, u64),
    /// Leaders are known as well as they can be.
    Refreshed(Vec<Candidate>),
    /// The brokers have answered one batch of questions.
    Asked(Leaders),
    /// It is decided what becomes of one partition.
    Resumed(Candidate, Result<Opened, Trouble>),
    /// A prefix is burned, or can't be; or keys are compared.
    Burned(Candidate, Result<(), Trouble>),
    /// It was looked who leads the partitions of a silent broker.
    /// Whether somebody has answered.
    Looked(Silence, bool),
}

/// The brokers that lead a partition on the source and on the target, -1 where nobody does.
type Leaders = (i32, i32);

/// The flow's one deciding task.
pub struct Supervisor {
    flow: Arc<Flow>,
    fence: Fence,
    tasks: Tasks,
    cancel: CancellationToken,
    entries: HashMap<PartitionKey, Entry>,
    /// Closed partitions whose last requests aren't answered yet, whatever became of their entry.
    closing: HashMap<PartitionKey, Arc<Partition>>,
    /// Copies with records that have the target's time, and why they stopped: whatever is put right
    /// afterwards gives them no other one.
    stamped: HashMap<PartitionKey, (Uuid, Trouble)>,
    /// Looks at what is stopped, counted.
    looks: u64,
    /// What waits for a look at the leaders, and whether one is under way.
    arrived: Vec<Candidate>,
    is_refreshing: bool,
    /// Batches of questions under way, and what waits for one of them to be answered.
    resuming: HashMap<Leaders, usize>,
    waiting: HashMap<Leaders, Vec<Candidate>>,
    /// Burning prefixes, and how many may burn at each target broker.
    burning: HashMap<PartitionKey, CancellationToken>,
    burners: HashMap<i32, Arc<Semaphore>>,
    /// Keys are compared of one partition at a time.
    comparing: Arc<Semaphore>,
    sessions: HashMap<Seat, mpsc::UnboundedSender<Opening>>,
    session_count: Arc<AtomicUsize>,
    lanes: HashMap<(i32, u16), mpsc::UnboundedSender<Arc<Partition>>>,
    events: mpsc::UnboundedSender<Event>,
    troubles: mpsc::UnboundedSender<(Arc<Partition>, Trouble)>,
    handovers: mpsc::UnboundedSender<Handover>,
    silences: mpsc::UnboundedSender<Silence>,
    /// Over how many connections each broker's partitions are spread, and who says when these become more.
    spread: HashMap<At, Arc<Spread>>,
    spreads: mpsc::UnboundedSender<At>,
    /// Silent brokers whose partitions' leaders are being looked for.
    looking: HashSet<Silence>,
}

impl Supervisor {
    /// Runs until cancelled. Sessions and lanes end with `cancel`, among `tasks`.
    pub async fn run(
        flow: Arc<Flow>,
        fence: Fence,
        mut discovered: mpsc::UnboundedReceiver<Discovered>,
        tasks: Tasks,
        cancel: CancellationToken,
    ) {
        let (events, mut event) = mpsc::unbounded_channel();
        let (troubles, mut trouble) = mpsc::unbounded_channel();
        let (handovers, mut handover) = mpsc::unbounded_channel();
        let (silences, mut silence) = mpsc::unbounded_channel();
        let (spreads, mut spread) = mpsc::unbounded_channel();
        let mut supervisor = Self {
            flow,
            fence,
            tasks,
            cancel: cancel.clone(),
            entries: HashMap::new(),
            closing: HashMap::new(),
            stamped: HashMap::new(),
            looks: 0,
            arrived: Vec::new(),
            is_refreshing: false,
            resuming: HashMap::new(),
            waiting: HashMap::new(),
            burning: HashMap::new(),
            burners: HashMap::new(),
            comparing: Arc::new(Semaphore::new(1)),
            sessions: HashMap::new(),
            session_count: Arc::new(AtomicUsize::new(0)),
            lanes: HashMap::new(),
            events,
            troubles,
            handovers,
            silences,
            spread: HashMap::new(),
            spreads,
            looking: HashSet::new(),
        };
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(found) = discovered.recv() => {
                    let mut candidates = supervisor.take_discovered(found);
                    while let Ok(found) = discovered.try_recv() {
                        candidates.extend(supervisor.take_discovered(found));
                    }
                    supervisor.resume(candidates);
                }
                Some((partition, trouble)) = trouble.recv() => supervisor.take_trouble(&partition, &trouble),
                Some(handover) = handover.recv() => supervisor.hand_over(handover),
                Some(silence) = silence.recv() => supervisor.look_for_leaders(silence),
                Some(At::Target(broker)) = spread.recv() => supervisor.spread_lanes(broker),
                Some(first) = event.recv() => {
                    let mut reopen = Vec::new();
                    supervisor.take_event(first, &mut reopen);
                    while let Ok(next) = event.try_recv() {
                        supervisor.take_event(next, &mut reopen);
                    }
                    supervisor.resume(reopen);
                }
            }
        }
    }

    fn take_discovered(&mut self, found: Discovered) -> Vec<Candidate> {
        match found {
            Discovered::Ready(topic) => {
                self.flow.note_topic(&topic);
                self.take_topic(&topic)
            }
            Discovered::Trouble {
                topic,
                partitions,
                trouble,
            } => {
                self.take_topic_trouble(&topic, partitions, &trouble);
                Vec::new()
            }
            Discovered::Gone(topic) => {
                let keys: Vec<PartitionKey> = self.keys_of(&topic);
                for key in keys {
                    self.drop_entry(&key);
                    self.flow.progress.retire_partition(&key);
                }
                self.flow.progress.topics.remove(&topic);
                Vec::new()
            }
        }
    }

    fn keys_of(&self, topic: &Arc<str>) -> Vec<PartitionKey> {
        self.entries
            .keys()
            .filter(|key| key.0 == *topic)
            .cloned()
            .collect()
    }

    fn drop_entry(&mut self, key: &PartitionKey) {
        if let Some(Entry {
            status: Status::Open { partition, .. },
            ..
        }) = self.entries.remove(key)
        {
            partition.close();
            self.note_closing(key, &partition);
        }
        if let Some(burning) = self.burning.remove(key) {
            burning.cancel();
        }
        self.flow.open.remove(key);
    }

    /// While a request is on its way the target's log doesn't say where to resume.
    fn note_closing(&mut self, key: &PartitionKey, closed: &Arc<Partition>) {
        self.closing.retain(|_, closed| closed.unanswered() > 0);
        if closed.unanswered() > 0 {
            self.closing.insert(key.clone(), closed.clone());
        }
    }

    fn take_topic(&mut self, topic: &Arc<TopicContext>) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for partition in 0..i32::try_from(topic.record.origins.len()).unwrap_or(i32::MAX) {
            let key = (topic.source_topic.clone(), partition);
            if topic.record.origin(partition).is_none() {
                self.wait_for_origin(topic, &key);
                continue;
            }
            if let Some(entry) = self.entries.get_mut(&key) {
                let same = entry.topic.record.source_topic_id == topic.record.source_topic_id
                    && entry.topic.record.target_topic_id == topic.record.target_topic_id;
                // Rules are fixed while a partition is open.
                let same = same
                    && (entry.topic.rules == topic.rules
                        || !matches!(entry.status, Status::Open { .. }));
                if same && !matches!(entry.status, Status::Stopped(_)) {
                    entry.topic = topic.clone();
                    continue;
                }
                self.drop_entry(&key);
            }
            if self.stays_stopped(topic, &key) {
                continue;
            }
            let closing = self.closing.get(&key).filter(|it| it.unanswered() > 0);
            let closing = closing.cloned();
            let status = match closing {
                Some(_) => Status::Pausing,
                None => Status::Opening,
            };
            self.entries.insert(
                key.clone(),
                Entry {
                    topic: topic.clone(),
                    status,
                    attempt: 0,
                    leader_only: LeaderOnly::default(),
                    is_slow: false,
                    refusals: Refusals::default(),
                    was_behind: false,
                },
            );
            // From now on it is shown: until its position is known, nobody takes the others for all there are.
            self.flow.progress.partition(&key.0, key.1);
            if closing.is_some() {
                self.reopen(key, closing, Instant::now());
                continue;
            }
            candidates.push(Candidate {
                topic: topic.clone(),
                partition,
            });
        }
        candidates
    }

    /// Whether the partition's copy has stopped for good, as far as this process goes.
    fn stays_stopped(&mut self, topic: &Arc<TopicContext>, key: &PartitionKey) -> bool {
        let Some((target_id, trouble)) = self.stamped.get(key) else {
            return false;
        };
        if *target_id != topic.record.target_topic_id {
            self.stamped.remove(key);
            return false;
        }
        let progress = self.flow.progress.partition(&key.0, key.1);
        progress.set_state(state_of(trouble));
        let entry = Entry {
            topic: topic.clone(),
            status: Status::Stopped(None),
            attempt: 0,
            leader_only: LeaderOnly::default(),
            is_slow: false,
            refusals: Refusals::default(),
            was_behind: false,
        };
        self.entries.insert(key.clone(), entry);
        true
    }

    /// Discovery says when the partition's copy can begin.
    fn wait_for_origin(&mut self, topic: &TopicContext, key: &PartitionKey) {
        self.drop_entry(key);
        if let Some(trouble) = topic.waiting.get(&key.1) {
            let progress = self.flow.progress.partition(&key.0, key.1);
            if progress.set_state(state_of(trouble)) {
                log_trouble(&key.0, key.1, trouble);
            }
        }
    }

    /// The whole topic can't be copied: every partition of it says so.
    fn take_topic_trouble(&mut self, topic: &Arc<str>, partitions: usize, trouble: &Trouble) {
        for key in self.keys_of(topic) {
            self.drop_entry(&key);
        }
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let progress = self.flow.progress.partition(topic, partition);
            if progress.set_state(state_of(trouble)) && partition == 0 {
                log_trouble(topic, partition, trouble);
            }
        }
    }

    fn take_trouble(&mut self, partition: &Arc<Partition>, trouble: &Trouble) {
        let key: PartitionKey = (
            Arc::from(partition.source.topic.as_str()),
            partition.source.partition,
        );
        if trouble.is_damage() {
            self.take_damage(&key, partition, trouble);
            return;
        }
        // It counts behind a milder trouble too: nothing is asked before all is answered.
        if matches!(trouble, Trouble::Stranger { .. }) {
            self.flow.strangers.insert(key.clone());
        }
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let Status::Open {
            partition: open,
            since,
            ..
        } = &entry.status
        else {
            return;
        };
        if !Arc::ptr_eq(open, partition) {
            return;
        }
        if since.elapsed() >= GOOD_RUN {
            entry.attempt = 0;
        }
        if matches!(trouble, Trouble::FollowerLags { .. }) {
            entry.leader_only.begin();
        }
        entry.is_slow = is_of_slow_replicas(trouble);
        entry.was_behind = partition.meter.is_behind();
        self.flow.open.remove(&key);
        let learned = self.flow.learn_needs(&entry.topic, entry.attempt, trouble);
        let learned = learned.or_else(|| entry.note_refused(partition, trouble));
        let trouble = learned.as_ref().unwrap_or(trouble);
        if let Trouble::TurnsMapped(hole) = trouble {
            self.flow.turning.insert(key.clone(), *hole);
        }
        if let Trouble::DeletesMissed(missed) = trouble {
            self.flow.missed.insert(key.clone(), *missed);
        }
        self.pause_or_stop(key, Some(partition.clone()), trouble);
    }

    /// What an opening wrote at a wrong offset, or with a wrong time, stays there, whatever became of that opening: it may be
    /// closed for a milder trouble, and the next one may be under way or open already.
    fn take_damage(&mut self, key: &PartitionKey, by: &Arc<Partition>, trouble: &Trouble) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        let topic = entry.topic.clone();
        let record = &topic.record;
        if !by
            .epochs
            .is_of(record.source_topic_id, record.target_topic_id)
        {
            return;
        }
        if matches!(trouble, Trouble::TimesReplaced { .. }) {
            let target_id = record.target_topic_id;
            let before = self.stamped.get(key);
            if before.is_some_and(|(of, _)| *of == target_id) {
                return;
            }
            self.stamped
                .insert(key.clone(), (target_id, trouble.clone()));
            // Discovery puts it right for the topic's other partitions.
            self.flow.note_stale(std::slice::from_ref(&by.source.topic));
        }
        let newer = match &entry.status {
            Status::Open { partition, .. } if !Arc::ptr_eq(partition, by) => {
                Some(partition.clone())
            }
            _ => None,
        };
        if let Some(newer) = newer {
            newer.close();
            self.note_closing(key, &newer);
        }
        self.flow.open.remove(key);
        let (flow, number, noted) = (self.flow.clone(), key.1, trouble.clone());
        self.tasks.spawn_errand("note of a damage", async move {
            damage::note(&flow, &topic, number, &noted).await;
        });
        self.pause_or_stop(key.clone(), Some(by.clone()), trouble);
    }

    fn pause_or_stop(
        &mut self,
        key: PartitionKey,
        closed: Option<Arc<Partition>>,
        trouble: &Trouble,
    ) {
        let is_new = self
            .entries
            .get(&key)
            .is_some_and(|entry| is_unheard_of(&entry.topic.record, trouble, now_ms()));
        if is_new {
            // No trouble: it is opened when all brokers have heard of it.
            let progress = self.flow.progress.partition(&key.0, key.1);
            progress.set_state(PartitionState::Opening);
            tracing::debug!(
                topic = &*key.0,
                partition = key.1,
                "a broker hasn't heard of the new topic: {trouble}"
            );
            self.pause(key, closed);
            return;
        }
        self.flow.progress.count_error(trouble.reason());
        if trouble.is_about_settings() {
            // The change of settings that allows it may be right here.
            self.flow.progress.look_now.notify_one();
        }
        let progress = self.flow.progress.partition(&key.0, key.1);
        if progress.set_state(state_of(trouble)) {
            log_trouble(&key.0, key.1, trouble);
        }
        if let Some(closed) = &closed {
            self.note_closing(&key, closed);
        }
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if trouble.policy() == Policy::StopPartition {
            let may_heal = matches!(trouble, Trouble::SourceTruncated { .. });
            let look = may_heal.then(|| {
                self.looks += 1;
                self.looks
            });
            entry.status = Status::Stopped(look);
            if let Some(look) = look {
                let rest = tokio::time::sleep(LOOK_AGAIN);
                self.after(closed, rest, Event::LookAgain(key, look));
            }
            return;
        }
        entry.status = Status::Pausing;
        match trouble {
            // Behind that time it is a newer claim's fillers that it waits for: as for anything else.
            Trouble::TakingOver if Instant::now() < self.fence.not_before() => {
                self.reopen(key, closed, self.fence.not_before());
            }
            Trouble::ClaimUnseen { .. } => {
                let mut fence = self.fence.clone();
                let opened = async move { fence.opened().await };
                self.after(closed, opened, Event::Reopen(key));
            }
            _ => self.pause(key, closed),
        }
    }

    /// Opens a partition again, a little later each time.
    fn pause(&mut self, key: PartitionKey, closed: Option<Arc<Partition>>) {
        if let Some(closed) = &closed {
            self.note_closing(&key, closed);
        }
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.status = Status::Pausing;
        let until = Instant::now() + pause(entry.attempt);
        entry.attempt = entry.attempt.saturating_add(1);
        self.reopen(key, closed, until);
    }

    fn reopen(&self, key: PartitionKey, closed: Option<Arc<Partition>>, until: Instant) {
        self.after(closed, tokio::time::sleep_until(until), Event::Reopen(key));
    }

    /// Something is to be done after that, when nothing of the closed partition is on its way any more.
    fn after(
        &self,
        closed: Option<Arc<Partition>>,
        rest: impl Future<Output = ()> + Send + 'static,
        event: Event,
    ) {
        let (events, cancel) = (self.events.clone(), self.cancel.clone());
        self.tasks.spawn_errand("pause of a partition", async move {
            let rested = async {
                if let Some(closed) = closed {
                    closed.drained().await;
                }
                rest.await;
            };
            if cancel.run_until_cancelled(rested).await.is_some() {
                let _ = events.send(event);
            }
        });
    }

    fn take_event(&mut self, event: Event, reopen: &mut Vec<Candidate>) {
        match event {
            Event::Reopen(key) => {
                if let Some(entry) = self.entries.get_mut(&key)
                    && matches!(entry.status, Status::Pausing)
                {
                    reopen.push(entry.open_again(key.1));
                }
            }
            Event::LookAgain(key, look) => {
                if let Some(entry) = self.entries.get_mut(&key)
                    && matches!(entry.status, Status::Stopped(Some(next)) if next == look)
                {
                    reopen.push(entry.open_again(key.1));
                }
            }
            Event::Refreshed(candidates) => {
                self.is_refreshing = false;
                self.ask(candidates);
                let arrived = std::mem::take(&mut self.arrived);
                self.resume(arrived);
            }
            Event::Asked(leaders) => {
                if let Some(resuming) = self.resuming.get_mut(&leaders) {
                    *resuming -= 1;
                }
                // Its leaders may be others by now.
                reopen.extend(self.waiting.remove(&leaders).unwrap_or_default());
            }
            Event::Resumed(candidate, result) => self.take_resumed(&candidate, result),
            Event::Looked(silence, has_answered) => self.leave(silence, has_answered),
            Event::Burned(candidate, result) => reopen.extend(self.take_burned(candidate, result)),
        }
    }

    /// Opens partitions. When a broker goes, its partitions come back one by one: while leaders are
    /// looked for, many of them gather.
    fn resume(&mut self, mut candidates: Vec<Candidate>) {
        if candidates.is_empty() {
            return;
        }
        if self.is_refreshing {
            self.arrived.append(&mut candidates);
            return;
        }
        self.is_refreshing = true;
        let (flow, events, cancel) = (self.flow.clone(), self.events.clone(), self.cancel.clone());
        self.tasks
            .spawn_errand("look before an opening", async move {
                // Leaders may have moved, and topics that were just created aren't in the cache yet. A
                // failure shows in the calls that follow. What an older process has turned is known before
                // its records are looked at; nobody waits for a state topic that has no leader, or long for
                // one whose leader has gone without a word.
                let within = flow.target.answers_within() / 2;
                let state = tokio::time::timeout(within, flow.store.refresh());
                let looks = async { tokio::join!(resume::look(&flow, &candidates), state) };
                let refresh_for = flow.source.or_longer(flow.target.or_longer(REFRESH_FOR));
                let looks = tokio::time::timeout(refresh_for, looks);
                if cancel.run_until_cancelled(looks).await.is_some() {
                    let _ = events.send(Event::Refreshed(candidates));
                }
            });
    }

    /// Asks about partitions, those of the same two leaders at once.
    fn ask(&mut self, candidates: Vec<Candidate>) {
        let (source, target) = (self.flow.source.cached(), self.flow.target.cached());
        let mut by_leaders: HashMap<Leaders, Vec<Candidate>> = HashMap::new();
        for one in candidates {
            let record = &one.topic.record;
            let leaders = (
                source.leader(&one.topic.source_topic, one.partition),
                target.leader(&record.target_topic, one.partition),
            );
            let id = |leader: Option<(i32, i32)>| leader.map_or(-1, |(broker, _)| broker);
            let leaders = (id(leaders.0), id(leaders.1));
            by_leaders.entry(leaders).or_default().push(one);
        }
        for (leaders, candidates) in by_leaders {
            let resuming = self.resuming.entry(leaders).or_default();
            if *resuming >= RESUMING_MAX {
                self.waiting.entry(leaders).or_default().extend(candidates);
                continue;
            }
            *resuming += 1;
            let (flow, events) = (self.flow.clone(), self.events.clone());
            let cancel = self.cancel.clone();
            self.tasks
                .spawn_errand("opening of partitions", async move {
                    let asked = || {
                        let _ = events.send(Event::Asked(leaders));
                    };
                    let decided = |candidate, result| {
                        let _ = events.send(Event::Resumed(candidate, result));
                    };
                    let work = resume::resume(&flow, candidates, asked, decided);
                    cancel.run_until_cancelled(work).await;
                });
        }
    }

    /// A broker is silent: it is looked whether its partitions are led by others by now.
    fn look_for_leaders(&mut self, silence: Silence) {
        if !self.looking.insert(silence) {
            return;
        }
        let flow = self.flow.clone();
        let (events, cancel) = (self.events.clone(), self.cancel.clone());
        self.tasks.spawn_errand("look for leaders", async move {
            let look = look_for_leaders(&flow, silence);
            if let Some(has_answered) = cancel.run_until_cancelled(look).await {
                let _ = events.send(Event::Looked(silence, has_answered));
            }
        });
    }

    /// Closes the partitions that a silent broker doesn't lead any more: they are opened at their new
    /// leaders, without waiting for its answers.
    fn leave(&mut self, silence: Silence, has_answered: bool) {
        self.looking.remove(&silence);
        // A look that nobody answered has seen nothing: another one may lead what the silent one has taken.
        if let Silence::Target(broker) = silence
            && has_answered
        {
            self.flow.left.note_looked(broker);
        }
        let (source, target) = (self.flow.source.cached(), self.flow.target.cached());
        for entry in self.entries.values() {
            let Status::Open {
                partition, broker, ..
            } = &entry.status
            else {
                continue;
            };
            let (silent, used, is_led_elsewhere) = match silence {
                Silence::Source(silent) => {
                    let at = &partition.source;
                    let used = partition.progress.source_broker.load(Ordering::Relaxed);
                    let leader = source.leader(&at.topic, at.partition);
                    let is_led_elsewhere = leader.is_some_and(|(leader, _)| leader != silent);
                    (silent, used, is_led_elsewhere)
                }
                Silence::Target(silent) => {
                    let (at, led) = (&partition.target, partition.target_leader);
                    let is_led_elsewhere = leaders::is_led_elsewhere(&target, at, led);
                    (silent, i64::from(*broker), is_led_elsewhere)
                }
                // What is known by now is `leaders::leave`'s.
                Silence::TargetPauses(_) => return,
            };
            if used != i64::from(silent) || !is_led_elsewhere {
                continue;
            }
            let cluster = match silence {
                Silence::Source(_) => format!("source ({})", self.flow.source.name()),
                _ => format!("target ({})", self.flow.target.name()),
            };
            partition.fail(Trouble::LeaderMoved { cluster });
            // Behind the closing: while it is open, what is on its way must count.
            if matches!(silence, Silence::Target(_)) {
                self.flow.left.note(partition.clone());
            }
        }
    }

    /// Burns a prefix when it is its turn at the target broker.
    fn burn(&mut self, candidate: Candidate, position: Position, origin: i64) {
        let key = (candidate.topic.source_topic.clone(), candidate.partition);
        let of = PartitionState::Burning {
            done: position.target,
            of: origin,
        };
        self.flow.progress.partition(&key.0, key.1).set_state(of);
        let leader = self
            .flow
            .target
            .cached()
            .leader(&candidate.topic.record.target_topic, candidate.partition);
        let burners = self.burners.entry(leader.map_or(-1, |(broker, _)| broker));
        let burners = burners.or_insert_with(|| Arc::new(Semaphore::new(BURNING_MAX)));
        let burners = burners.clone();
        let cancel = self.cancel.child_token();
        if let Some(before) = self.burning.insert(key, cancel.clone()) {
            before.cancel();
        }
        let (flow, events) = (self.flow.clone(), self.events.clone());
        self.tasks.spawn_errand("burn of a prefix", async move {
            let work = async {
                let _turn = burners.acquire().await;
                prefix::burn(&flow, &candidate, position, origin).await
            };
            if let Some(result) = cancel.run_until_cancelled(work).await {
                let _ = events.send(Event::Burned(candidate, result));
            }
        });
    }

    /// Compares the keys of both logs, of one partition after the other; it is opened anew behind that.
    fn compare_keys(&mut self, candidate: Candidate, position: Position) {
        let key = (candidate.topic.source_topic.clone(), candidate.partition);
        let cancel = self.cancel.child_token();
        if let Some(before) = self.burning.insert(key, cancel.clone()) {
            before.cancel();
        }
        let comparing = self.comparing.clone();
        let (flow, events) = (self.flow.clone(), self.events.clone());
        self.tasks.spawn_errand("comparison of keys", async move {
            let work = async {
                let _turn = comparing.acquire().await;
                missed::compare(&flow, &candidate, &position).await
            };
            if let Some(result) = cancel.run_until_cancelled(work).await {
                let _ = events.send(Event::Burned(candidate, result));
            }
        });
    }

    /// Behind a burned prefix a partition is opened anew: while it burned, much may have changed. So behind a comparison.
    fn take_burned(
        &mut self,
        candidate: Candidate,
        result: Result<(), Trouble>,
    ) -> Option<Candidate> {
        let key = (candidate.topic.source_topic.clone(), candidate.partition);
        let entry = self.entries.get(&key)?;
        let (now, then) = (&entry.topic.record, &candidate.topic.record);
        if !matches!(entry.status, Status::Opening)
            || now.source_topic_id != then.source_topic_id
            || now.target_topic_id != then.target_topic_id
        {
            return None;
        }
        let topic = entry.topic.clone();
        self.burning.remove(&key);
        match result {
            Ok(()) => Some(Candidate {
                topic,
                partition: key.1,
            }),
            Err(trouble) => {
                self.pause_or_stop(key, None, &trouble);
                None
            }
        }
    }

    fn take_resumed(&mut self, candidate: &Candidate, result: Result<Opened, Trouble>) {
        let key = (candidate.topic.source_topic.clone(), candidate.partition);
        let Some(entry) = self.entries.get(&key) else {
            return;
        };
        if !matches!(entry.status, Status::Opening) {
            return;
        }
        if !Arc::ptr_eq(&entry.topic, &candidate.topic) {
            // The topic took another shape meanwhile: what was read belongs to the old one.
            let topic = entry.topic.clone();
            let partition = key.1;
            self.resume(vec![Candidate { topic, partition }]);
            return;
        }
        let opened = match result {
            Ok(Opened::Burn { position, origin }) => {
                self.burn(candidate.clone(), position, origin);
                return;
            }
            Ok(Opened::Compare { position }) => {
                self.compare_keys(candidate.clone(), position);
                return;
            }
            Ok(Opened::Ready(resume)) => {
                let kind = (entry.is_slow, entry.was_behind);
                self.open(candidate, *resume, kind)
            }
            Err(trouble) => Err(trouble),
        };
        match opened {
            Ok((partition, broker, lane)) => {
                let target_id = candidate.topic.record.target_topic_id;
                self.flow.opened.insert(key.clone(), target_id);
                self.flow.open.insert(key.clone(), partition.clone());
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.status = Status::Open {
                        partition,
                        since: Instant::now(),
                        broker,
                        lane,
                    };
                }
            }
            Err(trouble) => self.pause_or_stop(key, None, &trouble),
        }
    }

    /// Opens a partition; returns the target broker that it is sent to and its lane there, too.
    fn open(
        &mut self,
        candidate: &Candidate,
        resume: Resume,
        (is_slow, was_behind): (bool, bool),
    ) -> Result<(Arc<Partition>, i32, u16), Trouble> {
        let (source, target) = (
            candidate.topic.source(candidate.partition),
            candidate.topic.target(candidate.partition),
        );
        let (source_broker, leader_epoch) = self
            .flow
            .source
            .cached()
            .leader(&source.topic, source.partition)
            .ok_or_else(|| Trouble::LeaderMoved {
                cluster: format!("source ({})", self.flow.source.name()),
            })?;
        let (target_broker, target_epoch) = self
            .flow
            .target
            .cached()
            .leader(&target.topic, target.partition)
            .ok_or_else(|| Trouble::LeaderMoved {
                cluster: format!("target ({})", self.flow.target.name()),
            })?;
        let progress = self
            .flow
            .progress
            .partition(&candidate.topic.source_topic, candidate.partition);
        note_opened(&progress, &resume);
        let epochs = self.epochs(candidate, resume.position.source, leader_epoch);
        let lane = match is_slow {
            true => SLOW_LANE,
            false => self.free_lane(target_broker, was_behind),
        };
        let share = self.flow.budget.share(target_broker, lane);
        let partition = Arc::new(Partition::new(PartitionParts {
            source,
            source_topic_id: candidate.topic.record.source_topic_id,
            target,
            target_leader: (target_broker, target_epoch),
            progress,
            meter: Arc::new(Meter::new(self.flow.budget.clone(), share)),
            rules: self.rules(candidate),
            appended_timestamp_ms: resume.appended_timestamp_ms,
            map: resume.map,
            tombstones: resume.tombstones,
            left_behind: self.flow.left_behind.clone(),
            read_at: resume.read_at,
            newest_filler: resume.newest_filler,
            filler_epoch: resume.filler_epoch,
            to_close: resume.to_close,
            epochs,
            ready: self.lane(target_broker, lane),
            trouble: self.troubles.clone(),
        }));
        // Until it is seen how far it is.
        partition.meter.set_behind(was_behind);
        let mut position = resume.position;
        // A batch that begins inside a gap still holds records that the source has deleted.
        partition.push(intake::pass_gap(&mut position, resume.fetch_offset));
        let key = (candidate.topic.source_topic.clone(), candidate.partition);
        let until = self.entries.get(&key).and_then(|it| it.leader_only.until());
        partition.progress.set_followed(false, now_ms());
        let session_lane = self.session_lane(source_broker);
        self.fetch_from(
            Seat {
                broker: source_broker,
                lane: session_lane,
                tells_rack: until.is_none(),
            },
            Opening {
                partition: partition.clone(),
                position,
                leader_epoch,
                last_epoch: resume.last_epoch,
                until,
            },
        );
        Ok((partition, target_broker, lane))
    }

    /// What may pass as it is: less where a service refused batches of some size.
    fn rules(&self, candidate: &Candidate) -> IntakeRules {
        let mut rules = candidate.topic.rules.clone();
        let key = (candidate.topic.source_topic.clone(), candidate.partition);
        let refusals = self.entries.get(&key).map(|entry| entry.refusals);
        if let Some(most) = refusals.and_then(|it| it.batch_bytes(Instant::now())) {
            rules.max_batch_bytes = rules.max_batch_bytes.min(most);
            rules.coalesce_to_bytes = rules.coalesce_to_bytes.min(most / 2);
            rules.max_merged_bytes = rules.max_merged_bytes.min(most);
        }
        rules
    }

    /// What is known of the source's epochs goes over to the next opening of the same copy.
    fn epochs(&self, candidate: &Candidate, next: i64, leader_epoch: i32) -> Arc<SourceEpochs> {
        let record = &candidate.topic.record;
        let (source_id, target_id) = (record.source_topic_id, record.target_topic_id);
        let key = (candidate.topic.source_topic.clone(), candidate.partition);
        let carried = self.flow.epochs.get(&key).and_then(|last| {
            let is_same = last.is_of(source_id, target_id);
            is_same.then(|| last.carried(next))
        });
        let epochs = carried.unwrap_or_else(|| SourceEpochs::new(source_id, target_id));
        let epochs = Arc::new(epochs.led_in(leader_epoch));
        self.flow.epochs.insert(key, epochs.clone());
        epochs
    }

    fn hand_over(&mut self, handover: Handover) {
        let Handover {
            from,
            to,
            mut opening,
        } = handover;
        let seat = match to {
            Server::Replica(broker) => {
                opening.until = Some(Instant::now() + FOLLOWED_MAX);
                Seat {
                    broker,
                    lane: self.session_lane(broker),
                    tells_rack: true,
                }
            }
            Server::Leader => {
                let source = &opening.partition.source;
                let known = self.flow.source.cached();
                let Some((leader, _)) = known.leader(&source.topic, source.partition) else {
                    let cluster = format!("source ({})", self.flow.source.name());
                    opening.partition.fail(Trouble::LeaderMoved { cluster });
                    return;
                };
                opening.until = None;
                opening.partition.progress.set_followed(false, now_ms());
                Seat {
                    broker: leader,
                    lane: self.session_lane(leader),
                    tells_rack: true,
                }
            }
            // It is an ordinary one again.
            Server::Lane(0) if is_special(from.lane) => Seat {
                lane: self.session_lane(from.broker),
                ..from
            },
            Server::Lane(lane) => Seat { lane, ..from },
        };
        self.fetch_from(seat, opening);
    }

    fn fetch_from(&mut self, seat: Seat, opening: Opening) {
        let progress = &opening.partition.progress;
        progress
            .source_broker
            .store(i64::from(seat.broker), Ordering::Relaxed);
        let session = self.session(seat);
        if let Err(mpsc::error::SendError(opening)) = session.send(opening) {
            // The session ended with the flow.
            opening.partition.close();
        }
    }

    fn spread(&mut self, at: At) -> Arc<Spread> {
        let first = match at {
            At::Source(_) => SESSIONS_FIRST,
            At::Target(_) => LANES_FIRST,
        };
        let most = self.flow.config.limits.connections_per_broker;
        let spread = self.spread.entry(at);
        let spread = spread.or_insert_with(|| Arc::new(Spread::new(first.min(most), most)));
        spread.clone()
    }

    /// The session of a source broker that gets the next partition.
    fn session_lane(&mut self, broker: i32) -> u16 {
        lane_number(self.spread(At::Source(broker)).next())
    }

    /// The lane of a target broker with the fewest partitions, or the fewest that are far behind: lanes share a line, and
    /// these share their lane. One partition never has two.
    fn free_lane(&mut self, broker: i32, was_behind: bool) -> u16 {
        let count = self.spread(At::Target(broker)).count();
        let budget = &self.flow.budget;
        let free = (0..count).min_by_key(|lane| {
            let share = budget.share(broker, *lane);
            match was_behind {
                true => (share.behind(), share.partitions()),
                false => (share.partitions(), 0),
            }
        });
        free.unwrap_or(0)
    }

    /// There are more lanes to a target broker: those that are too many in the others are closed, and get
    /// one of these when they are opened again. All that is on its way is answered before, so their order
    /// is kept.
    fn spread_lanes(&mut self, broker: i32) {
        let count = self.spread(At::Target(broker)).count();
        let mut by_lane: HashMap<u16, Vec<(PartitionKey, Arc<Partition>)>> = HashMap::new();
        for (key, entry) in &self.entries {
            let Status::Open {
                partition,
                broker: at,
                lane,
                ..
            } = &entry.status
            else {
                continue;
            };
            if *at == broker && *lane != SLOW_LANE {
                let open = by_lane.entry(*lane).or_default();
                open.push((key.clone(), partition.clone()));
            }
        }
        let all: usize = by_lane.values().map(Vec::len).sum();
        let each = all.div_ceil(usize::from(count)).max(1);
        tracing::info!(
            broker,
            lanes = count,
            partitions = all,
            "a connection carries only so much over that distance: there are more of them to the target broker"
        );
        for mut open in by_lane.into_values() {
            open.sort_by(|left, right| left.0.cmp(&right.0));
            for (key, partition) in open.into_iter().skip(each) {
                self.move_lane(key, partition);
            }
        }
    }

    fn move_lane(&mut self, key: PartitionKey, partition: Arc<Partition>) {
        partition.close();
        self.flow.open.remove(&key);
        self.note_closing(&key, &partition);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.status = Status::Pausing;
            entry.was_behind = partition.meter.is_behind();
        }
        self.reopen(key, Some(partition), Instant::now());
    }

    fn session(&mut self, seat: Seat) -> mpsc::UnboundedSender<Opening> {
        if let Some(session) = self
            .sessions
            .get(&seat)
            .filter(|session| !session.is_closed())
        {
            return session.clone();
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        if !is_special(seat.lane) {
            self.session_count.fetch_add(1, Ordering::Relaxed);
        }
        let session = Session {
            cluster: self.flow.source.clone(),
            seat,
            budget: self.flow.budget.clone(),
            sessions: self.session_count.clone(),
            throttle: self.flow.throttle.clone(),
            handovers: self.handovers.clone(),
            silences: self.silences.clone(),
            spread: self.spread(At::Source(seat.broker)),
            progress: self.flow.progress.clone(),
            cancel: self.cancel.clone(),
        };
        self.tasks.spawn("fetch session", session.run(receiver));
        self.sessions.insert(seat, sender.clone());
        sender
    }

    fn lane(&mut self, broker: i32, lane: u16) -> mpsc::UnboundedSender<Arc<Partition>> {
        if let Some(sender) = self
            .lanes
            .get(&(broker, lane))
            .filter(|sender| !sender.is_closed())
        {
            return sender.clone();
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let task = Lane {
            cluster: self.flow.target.clone(),
            broker,
            lane,
            fence: self.fence.clone(),
            budget: self.flow.budget.clone(),
            share: self.flow.budget.share(broker, lane),
            silences: self.silences.clone(),
            spread: self.spread(At::Target(broker)),
            spreads: self.spreads.clone(),
            cancel: self.cancel.clone(),
        };
        self.tasks.spawn("lane to the target", task.run(receiver));
        self.lanes.insert((broker, lane), sender.clone());
        sender
    }
}

/// Whether anybody has answered. What is known then shows more.
async fn look_for_leaders(flow: &Flow, silence: Silence) -> bool {
    let cluster = match silence {
        Silence::Source(_) => &flow.source,
        Silence::Target(_) => &flow.target,
        Silence::TargetPauses(broker) => return learn_beside(&flow.target, broker).await,
    };
    // Whoever says anything may take longer for a description of thousands of topics.
    let asked = cluster.metadata_if_there(cluster.or_longer(LOOK_FOR)).await;
    asked.is_ok_and(|answer| answer.is_ok())
}

async fn learn_beside(cluster: &Cluster, broker: i32) -> bool {
    let within = cluster.or_longer(LOOK_FOR);
    let found = tokio::time::timeout(within, leaders::look_beside(cluster, broker)).await;
    let Ok(Some(other)) = found else {
        return false;
    };
    // A description of all topics may take longer than a look.
    let learnt = cluster.learn_from(other).await;
    if let Err(error) = &learnt {
        tracing::debug!(%error, "another broker can't be asked who leads");
    }
    learnt.is_ok()
}

/// Whether the topic was made so lately that a broker of the target may not have heard of it, and says so.
fn is_unheard_of(record: &TopicRecord, trouble: &Trouble, now_ms: i64) -> bool {
    use crate::wire::ResponseError as E;
    let made_ms = record.begun_at_ms.filter(|_| record.created);
    let is_new = made_ms.is_some_and(|at_ms| (0..HEARD_WITHIN_MS).contains(&(now_ms - at_ms)));
    let code = match trouble {
        Trouble::Broker { code, cluster, .. } if cluster.starts_with("target") => Some(*code),
        Trouble::Wire(error) => error.server_code(),
        _ => None,
    };
    let is_unknown = matches!(code, Some(E::UnknownTopicOrPartition | E::UnknownTopicId));
    is_new && is_unknown
}

/// A broker answers a request when the last of its partitions is replicated, or too late
/// (`ReplicaManager.appendRecords`, `DelayedProduce`).
fn is_of_slow_replicas(trouble: &Trouble) -> bool {
    use crate::wire::ResponseError as E;
    let Trouble::Broker { code, .. } = trouble else {
        return false;
    };
    matches!(
        code,
        E::RequestTimedOut | E::NotEnoughReplicas | E::NotEnoughReplicasAfterAppend
    )
}

fn pause(attempt: u32) -> Duration {
    let longest = (PAUSE_FIRST * 2_u32.saturating_pow(attempt.min(10))).min(PAUSE_LAST);
    // At least half of it: the first pause also lets a broker's queue drain.
    longest
        .mul_f64(rand::random_range(0.5..1.0))
        .max(PAUSE_FIRST)
}

fn state_of(trouble: &Trouble) -> PartitionState {
    let (reason, detail) = (trouble.reason(), format!("{trouble}; {}", trouble.hint()));
    match trouble.policy() {
        Policy::Reopen => PartitionState::Retrying { reason, detail },
        Policy::StopPartition => PartitionState::Stopped { reason, detail },
    }
}

fn log_trouble(topic: &str, partition: i32, trouble: &Trouble) {
    let (reason, hint) = (trouble.reason(), trouble.hint());
    match trouble.policy() {
        Policy::Reopen => tracing::warn!(topic, partition, reason, hint, "{trouble}"),
        Policy::StopPartition => tracing::error!(
            topic,
            partition,
            reason,
            hint,
            "partition stopped: {trouble}"
        ),
    }
}

fn note_opened(progress: &PartitionProgress, resume: &Resume) {
    progress
        .source_position
        .store(resume.position.source, Ordering::Relaxed);
    progress
        .target_position
        .store(resume.position.target, Ordering::Relaxed);
    progress.progressed_at_ms.store(now_ms(), Ordering::Relaxed);
    let _ = progress.first_position.compare_exchange(
        -1,
        resume.position.source,
        Ordering::Relaxed,
        Ordering::Relaxed,
    );
    progress.note_change();
    progress.set_state(PartitionState::Copying);
}
