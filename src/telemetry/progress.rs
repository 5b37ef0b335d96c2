//! The progress registry: what every flow and partition is doing right now.
//!
//! The data path writes it with relaxed atomics; HTTP, metrics and `status` read it.
//! Nothing here decides anything.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::changes::Changes;
use super::cut_over::OpenCutOver;
use super::drill::DrillResult;
use super::failover::{MinInSync, StandbyHealth, Unfenceable};
use super::groups::GroupReporter;
use super::limits::LiveLimits;
use super::metadata::MetadataReport;
use super::protect::ProtectStatus;
use super::rates::{Counters, RateMeter, Rates};
use super::readiness::{InTheWay, in_the_way};
use super::role::RoleStatus;
use super::traffic::{TrafficReporter, TrafficStatus};
use super::up_to_date::{MissedDeletes, Standing, UpToDate};
use super::verify::VerifySummary;

/// A time that is older than another by more than this, although it was taken later, is of a clock that
/// was set back. Longer than any answer may be late.
const CLOCK_SET_BACK_MS: i64 = 60_000;

/// All flows of this process.
#[derive(Debug, Default)]
pub struct Registry {
    /// Flows by name.
    pub flows: Arc<DashMap<String, Arc<FlowProgress>>>,
}

impl Registry {
    /// The flow's progress, made on first use.
    pub fn flow(&self, name: &str, source: &str, target: &str) -> Arc<FlowProgress> {
        self.flows
            .entry(name.to_owned())
            .or_insert_with(|| {
                let mut progress = FlowProgress::new(name, source, target);
                progress.beside = Arc::downgrade(&self.flows);
                Arc::new(progress)
            })
            .clone()
    }

    /// Samples every partition: rates, and when it was last caught up. Called about once
    /// a second; calling it more often does no harm.
    pub fn observe(&self, now_ms: i64) {
        for flow in &*self.flows {
            flow.observe(now_ms);
        }
    }
}

/// A partition's key in the registry: source topic and partition.
pub type PartitionKey = (Arc<str>, i32);

/// One flow's progress.
#[derive(Debug)]
pub struct FlowProgress {
    /// The flow's name in the config.
    pub name: String,
    /// The source cluster's name in the config.
    pub source: String,
    /// The target cluster's name in the config.
    pub target: String,
    /// The whole flow's state.
    state: Mutex<FlowState>,
    /// When this entry was made, milliseconds since the epoch.
    created_at_ms: i64,
    /// Counts all that changes of its partitions.
    pub changes: Arc<Changes>,
    /// Partitions by source topic and number.
    pub partitions: DashMap<PartitionKey, Arc<PartitionProgress>>,
    /// Per-topic notes by source topic: the target name, the offset mode and why.
    pub topics: DashMap<Arc<str>, TopicNote>,
    /// Bytes fetched and not yet acknowledged by the target.
    pub in_flight_bytes: AtomicU64,
    /// The configured bound of `in_flight_bytes`.
    pub in_flight_limit_bytes: AtomicU64,
    /// Bytes that are copied per second at most; 0: as many as can be.
    pub bytes_per_second_limit: AtomicU64,
    /// Limits that replace those of the config: given here, and put into force by the flow.
    pub limits: watch::Sender<Option<LiveLimits>>,
    /// Whether topic discovery has succeeded at least once.
    pub discovered: AtomicBool,
    /// Topics that were found and aren't copied yet.
    pub topics_to_prepare: AtomicU64,
    /// Why nothing is selected, where the source has topics.
    nothing_selected: Mutex<Option<String>>,
    /// When the source last told where its logs end, milliseconds since the epoch; -1 if it never did.
    pub source_seen_ms: AtomicI64,
    /// The standby's partitions, as its metadata has them.
    standby: Mutex<Option<StandbyHealth>>,
    min_in_sync: Mutex<MinInSync>,
    /// Why writers can't be kept from the source by ACLs, if so.
    unfenceable: Mutex<Option<Unfenceable>>,
    /// Errors by policy kind, for the metric: kind -> count.
    pub errors: DashMap<&'static str, u64>,
    /// What removed partitions had counted, so that the flow's counters never fall.
    retired: Mutex<Counters>,
    /// Asked (by the API) to compare the clusters' metadata now instead of at the next
    /// interval. `notify_one` keeps one request until the one who compares waits for it.
    pub look_now: Notify,
    /// Who knows about the flow's groups, once they are followed.
    groups: Mutex<Option<Arc<dyn GroupReporter>>>,
    /// What the last comparison of the clusters' metadata found.
    metadata: Mutex<Option<Arc<MetadataReport>>>,
    /// What the last `verify` found.
    verify: Mutex<Option<Arc<VerifySummary>>>,
    /// Who counts its bytes.
    traffic: Mutex<Option<Arc<dyn TrafficReporter>>>,
    /// How the last rehearsal of a failover ended.
    drill: Mutex<Option<DrillResult>>,
    /// A cut-over that isn't finished.
    cut_over: Mutex<Option<OpenCutOver>>,
    /// Which side is the primary, where it isn't the source.
    role: Mutex<Option<RoleStatus>>,
    /// Whether others are kept from the copies, where that is asked for.
    protect: Mutex<Option<ProtectStatus>>,
    /// The registry that this is in, if it is in one.
    beside: Weak<DashMap<String, Arc<Self>>>,
}

/// What the whole flow is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FlowState {
    /// Connecting, reading state, discovering topics. Set at start.
    Starting,
    /// Discovery has run and partitions are being copied.
    Running,
    /// Something outside is missing; it is retried.
    Waiting {
        /// A short, stable word for metrics, such as `source_unreachable`.
        reason: &'static str,
        /// One line for a person, with what to do.
        detail: String,
    },
    /// Ended by a rule (such as another Twinlog having taken over) or by shutdown.
    Stopped {
        /// A short, stable word for metrics.
        reason: &'static str,
        /// One line for a person.
        detail: String,
    },
}

/// How a topic's offsets relate on both clusters, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicNote {
    /// The topic's name on the target.
    pub target_topic: String,
    /// `identical` or `mapped`.
    pub offsets: &'static str,
    /// Why `auto` settled for a map; empty when identical.
    pub reason: String,
}

/// What one partition is doing. Only `Copying` is healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PartitionState {
    /// Finding the resume position. Set when the partition is discovered or re-opened.
    Opening,
    /// The offsets below the source's log start are being burned.
    Burning {
        /// Offsets burned so far.
        done: i64,
        /// Of so many.
        of: i64,
    },
    /// Fetching and producing, or caught up.
    Copying,
    /// A retriable problem; it is tried again by itself.
    Retrying {
        /// A short, stable word for metrics, such as `leader_moved`.
        reason: &'static str,
        /// One line for a person.
        detail: String,
    },
    /// Stopped until an operator acts: continuing could lose or mix data.
    Stopped {
        /// A short, stable word for metrics, such as `foreign_write`.
        reason: &'static str,
        /// One line for a person, with what to do.
        detail: String,
    },
}

/// One partition's progress. Offsets are -1 while unknown.
#[derive(Debug)]
pub struct PartitionProgress {
    state: Mutex<StateCell>,
    meter: Mutex<RateMeter>,
    open_transaction: Mutex<Option<OpenTransaction>>,
    /// When the copy had all that the source had.
    up_to_date: Mutex<UpToDate>,
    /// Counts all that changes of the flow's partitions.
    changes: Arc<Changes>,
    /// Whether it was caught up when all were looked at last: then it was for as long as nothing changed.
    was_caught_up: AtomicBool,
    /// Whether the source's leader has told the end since the partition was opened last.
    is_end_told: AtomicBool,
    /// When this entry was made, milliseconds since the epoch.
    created_at_ms: i64,
    /// The source's log start offset.
    pub source_log_start: AtomicI64,
    /// Where the source leader's own data begin; what is below is in its remote storage. -1 while unknown.
    pub source_local_start: AtomicI64,
    /// The source's last stable offset: where read-committed data ends.
    pub source_stable_end: AtomicI64,
    /// The source's high watermark.
    pub source_high_watermark: AtomicI64,
    /// When the source last told the partition's end, ms since the epoch, where nothing is fetched.
    pub source_end_seen_ms: AtomicI64,
    /// Whose answers tell its end, while it is fetched.
    told_by: Mutex<Option<Arc<Teller>>>,
    /// Where a follower's committed data ends, while the partition is fetched from one (KIP-392); -1 while it
    /// is fetched from its leader.
    follower_stable_end: AtomicI64,
    /// By how many records a second the source grew when it was seen last, a short pause included; -1 until
    /// it was measured.
    pub source_per_second: AtomicI64,
    /// The most records that came in two looks, of late, and those of an hour where somebody writes now and then.
    pub source_habit: (AtomicI64, AtomicI64),
    /// The broker that it is fetched from: the leader, or a closer replica (KIP-392).
    pub source_broker: AtomicI64,
    /// The next source offset to be acknowledged on the target.
    pub source_position: AtomicI64,
    /// The target offset that `source_position` will get.
    pub target_position: AtomicI64,
    /// The target's log start offset.
    pub target_log_start: AtomicI64,
    /// Where the first copy began, for the progress bar.
    pub first_position: AtomicI64,
    /// The largest record timestamp copied, milliseconds since the epoch.
    pub last_timestamp_ms: AtomicI64,
    /// When the partition last was caught up with the stable end, ms since the epoch.
    pub caught_up_at_ms: AtomicI64,
    /// When `source_position` last moved, ms since the epoch.
    pub progressed_at_ms: AtomicI64,
    /// Records acknowledged by the target since the process started.
    pub records: AtomicU64,
    /// Bytes (as on the wire) acknowledged by the target since the process started.
    pub bytes: AtomicU64,
    /// Batches passed unopened.
    pub batches_passed: AtomicU64,
    /// Source batches merged into larger ones.
    pub batches_coalesced: AtomicU64,
    /// Batches opened for another reason than coalescing.
    pub batches_opened: AtomicU64,
    /// Offsets filled with an invisible marker.
    pub holes_filled: AtomicU64,
    /// Source offsets that retention took before they were copied (`on_gap: record`).
    pub gap_offsets: AtomicU64,
}

/// The first open transaction of a partition: the stable end stands still before the log's end.
#[derive(Clone, Copy, Debug)]
struct OpenTransaction {
    stable_end: i64,
    since_ms: i64,
}

/// A partition's state with its times.
#[derive(Debug)]
struct StateCell {
    state: PartitionState,
    /// When `state` was set, in words too: a new detail restarts it.
    since_ms: i64,
    /// When the partition last left `Copying`; `None` while copying. A retry whose detail
    /// changes at every attempt, or that passes through `Opening`, doesn't restart it.
    unhealthy_since_ms: Option<i64>,
    /// While it is opened again and again.
    restless: Option<Restless>,
}

/// A partition that is copied for seconds only, between one trouble and the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restless {
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
    /// How often it was copied in between.
    times: u32,
    /// The last trouble: a short, stable word for metrics.
    pub reason: &'static str,
    /// One line for a person.
    pub detail: String,
}

/// Who is copied for so long has overcome its trouble.
const SETTLED_MS: i64 = 10_000;
/// Once or twice is a leader that moves, or a broker that starts again.
const RESTLESS_TIMES: u32 = 3;

impl StateCell {
    /// What is known of its troubles at this time.
    fn restless(&self, now_ms: i64) -> Option<&Restless> {
        let is_settled =
            self.state == PartitionState::Copying && now_ms - self.since_ms >= SETTLED_MS;
        self.restless.as_ref().filter(|_| !is_settled)
    }

    /// Notes what the next state tells of that.
    fn note_trouble(&mut self, next: &PartitionState, now_ms: i64) {
        let before = self.restless(now_ms).cloned();
        self.restless = match next {
            PartitionState::Retrying { reason, detail } => Some(Restless {
                since_ms: before.as_ref().map_or(now_ms, |before| before.since_ms),
                times: before.map_or(0, |before| before.times)
                    + u32::from(self.state == PartitionState::Copying),
                reason,
                detail: detail.clone(),
            }),
            PartitionState::Stopped { .. } => None,
            PartitionState::Opening | PartitionState::Burning { .. } | PartitionState::Copying => {
                before
            }
        };
    }
}

/// Milliseconds since the Unix epoch, by this machine's clock.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| {
            i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
        })
}

/// Notes that something was so at this time, milliseconds since the epoch. What was sent earlier may be
/// answered later, by a deadline at most: an older time doesn't count. One that is older by far comes
/// from a clock that was set back. If it didn't count, nothing would seem to happen until that clock is
/// where it was: what is seen of the source would look old, and its growth like rest.
pub(super) fn note_time(newest_ms: &AtomicI64, at_ms: i64) {
    let newer = |newest: i64| (at_ms > newest || is_set_back(newest, at_ms)).then_some(at_ms);
    // Nothing to do where it is older. What was seen then is noted before.
    let _ = newest_ms.fetch_update(Ordering::Release, Ordering::Relaxed, newer);
}

/// Whether the clock must have been set back between two times of it.
pub fn is_set_back(before_ms: i64, now_ms: i64) -> bool {
    now_ms < before_ms - CLOCK_SET_BACK_MS
}

impl FlowProgress {
    /// A flow that is starting.
    pub fn new(name: &str, source: &str, target: &str) -> Self {
        Self {
            name: name.to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            state: Mutex::new(FlowState::Starting),
            created_at_ms: now_ms(),
            changes: Arc::default(),
            partitions: DashMap::new(),
            topics: DashMap::new(),
            in_flight_bytes: AtomicU64::new(0),
            in_flight_limit_bytes: AtomicU64::new(0),
            bytes_per_second_limit: AtomicU64::new(0),
            limits: watch::Sender::new(None),
            discovered: AtomicBool::new(false),
            topics_to_prepare: AtomicU64::new(0),
            nothing_selected: Mutex::new(None),
            source_seen_ms: AtomicI64::new(-1),
            standby: Mutex::new(None),
            min_in_sync: Mutex::default(),
            unfenceable: Mutex::new(None),
            errors: DashMap::new(),
            retired: Mutex::new(Counters::default()),
            look_now: Notify::new(),
            groups: Mutex::new(None),
            metadata: Mutex::new(None),
            verify: Mutex::new(None),
            traffic: Mutex::new(None),
            drill: Mutex::new(None),
            role: Mutex::new(None),
            cut_over: Mutex::new(None),
            protect: Mutex::new(None),
            beside: Weak::new(),
        }
    }

    /// Another flow's progress beside this one: shown where this one is, until it is removed.
    pub fn companion(&self, name: &str, source: &str, target: &str) -> Arc<Self> {
        let companion = match self.beside.upgrade() {
            Some(flows) => Registry { flows }.flow(name, source, target),
            None => Arc::new(Self::new(name, source, target)),
        };
        companion.limits.send_replace(*self.limits.borrow());
        companion
    }

    /// Ends what [`companion`](Self::companion) began.
    pub fn remove_companion(&self, name: &str) {
        if let Some(flows) = self.beside.upgrade() {
            flows.remove(name);
        }
    }

    /// Bytes sent and received so far; none where nobody counts them.
    pub fn traffic(&self) -> Vec<TrafficStatus> {
        let reporter = lock(&self.traffic).clone();
        reporter.map_or_else(Vec::new, |reporter| reporter.traffic())
    }

    /// Sets who counts the flow's bytes.
    pub fn set_traffic(&self, reporter: Arc<dyn TrafficReporter>) {
        *lock(&self.traffic) = Some(reporter);
    }

    /// Who knows about the flow's groups; `None` while (or where) groups aren't followed.
    pub fn groups(&self) -> Option<Arc<dyn GroupReporter>> {
        lock(&self.groups).clone()
    }

    /// Sets who knows about the flow's groups.
    pub fn set_groups(&self, reporter: Option<Arc<dyn GroupReporter>>) {
        *lock(&self.groups) = reporter;
    }

    /// What the last comparison of the clusters' metadata found; `None` before the first one.
    pub fn metadata(&self) -> Option<Arc<MetadataReport>> {
        lock(&self.metadata).clone()
    }

    /// Publishes what a comparison found.
    pub fn set_metadata(&self, report: Arc<MetadataReport>) {
        *lock(&self.metadata) = Some(report);
    }

    /// What is known of comparisons of the target with the source; `None` where there were none.
    pub fn verify(&self) -> Option<Arc<VerifySummary>> {
        lock(&self.verify).clone()
    }

    /// Publishes what is known of comparisons.
    pub fn set_verify(&self, summary: Option<Arc<VerifySummary>>) {
        *lock(&self.verify) = summary;
    }

    /// How the last rehearsal of a failover ended; `None` where there was none.
    pub fn drill(&self) -> Option<DrillResult> {
        lock(&self.drill).clone()
    }

    /// Publishes how the last rehearsal ended.
    pub fn set_drill(&self, result: Option<DrillResult>) {
        *lock(&self.drill) = result;
    }

    /// Which side is the primary; `None` while it is the source, of all topics.
    pub fn role(&self) -> Option<RoleStatus> {
        lock(&self.role).clone()
    }

    /// Sets which side is the primary.
    pub fn set_role(&self, role: Option<RoleStatus>) {
        *lock(&self.role) = role;
    }

    /// The cut-over that isn't finished, if there is one.
    pub fn cut_over(&self) -> Option<OpenCutOver> {
        lock(&self.cut_over).clone()
    }

    /// Publishes the cut-over that isn't finished.
    pub fn set_cut_over(&self, open: Option<OpenCutOver>) {
        *lock(&self.cut_over) = open;
    }

    /// Whether others are kept from the copies; `None` where that isn't asked for.
    pub fn protect(&self) -> Option<ProtectStatus> {
        lock(&self.protect).clone()
    }

    /// Sets whether others are kept from the copies.
    pub fn set_protect(&self, protect: Option<ProtectStatus>) {
        *lock(&self.protect) = protect;
    }

    /// The standby's partitions, as its metadata had them last.
    pub fn standby(&self) -> Option<StandbyHealth> {
        *lock(&self.standby)
    }

    /// Notes how many replicas of the copies have to be in sync.
    pub fn set_min_in_sync(&self, min: MinInSync) {
        *lock(&self.min_in_sync) = min;
    }

    /// How many replicas of the copies have to be in sync, as far as it was asked.
    pub fn min_in_sync(&self) -> MinInSync {
        lock(&self.min_in_sync).clone()
    }

    /// Publishes how the standby's partitions are.
    pub fn set_standby(&self, health: StandbyHealth) {
        *lock(&self.standby) = Some(health);
    }

    /// Why no topic is selected, where the source has some.
    pub fn nothing_selected(&self) -> Option<String> {
        lock(&self.nothing_selected).clone()
    }

    /// See [`nothing_selected`](Self::nothing_selected).
    pub fn set_nothing_selected(&self, why: Option<String>) {
        *lock(&self.nothing_selected) = why;
    }

    /// Why writers can't be kept from the source by ACLs, if so.
    pub fn unfenceable(&self) -> Option<Unfenceable> {
        lock(&self.unfenceable).clone()
    }

    /// Publishes whether writers can be kept from the source.
    pub fn set_unfenceable(&self, unfenceable: Option<Unfenceable>) {
        *lock(&self.unfenceable) = unfenceable;
    }

    /// The source told at this time, milliseconds since the epoch, where its logs end.
    pub fn note_source_seen(&self, at_ms: i64) {
        note_time(&self.source_seen_ms, at_ms);
    }

    /// When this entry was made, milliseconds since the epoch.
    pub fn created_at_ms(&self) -> i64 {
        self.created_at_ms
    }

    /// The flow's state now.
    pub fn state(&self) -> FlowState {
        lock(&self.state).clone()
    }

    /// Sets the flow's state; true when it changed.
    pub fn set_state(&self, state: FlowState) -> bool {
        self.set_state_if(state, || true)
    }

    /// The same by a task of the flow, which may run on for a moment when the flow has ended: nothing once it is cancelled.
    /// Whoever ends a flow cancels its tasks first and says how it ended behind that, so that word stays.
    pub fn set_state_by_task(&self, state: FlowState, cancel: &CancellationToken) -> bool {
        // Looked at under the lock: what comes behind the end waits for it, or sees it.
        self.set_state_if(state, || !cancel.is_cancelled())
    }

    fn set_state_if(&self, state: FlowState, may_be_set: impl FnOnce() -> bool) -> bool {
        let mut current = lock(&self.state);
        if !may_be_set() {
            return false;
        }
        let changed = *current != state;
        *current = state;
        drop(current);
        if changed {
            self.changes.note();
        }
        changed
    }

    /// The partition's progress, made on first use.
    pub fn partition(&self, topic: &Arc<str>, partition: i32) -> Arc<PartitionProgress> {
        self.partitions
            .entry((topic.clone(), partition))
            .or_insert_with(|| {
                self.changes.note();
                Arc::new(PartitionProgress {
                    changes: self.changes.clone(),
                    ..PartitionProgress::default()
                })
            })
            .clone()
    }

    /// Looks at each partition, where anything has changed since the last look.
    fn observe(&self, now_ms: i64) {
        if self.changes.is_still(now_ms) {
            return;
        }
        let count = self.changes.count();
        let running = self.state() == FlowState::Running;
        let mut is_still = running;
        for partition in &self.partitions {
            is_still &= partition.observe(running, now_ms);
        }
        self.changes.looked(count, is_still, now_ms);
    }

    /// Forgets a partition that is no longer copied, such as one of a deleted topic, and
    /// keeps what it had counted in the flow's totals. Removing it from `partitions`
    /// directly would make the flow's counters fall, which Prometheus reads as a restart.
    pub fn retire_partition(&self, key: &PartitionKey) {
        if let Some((_, partition)) = self.partitions.remove(key) {
            self.changes.note();
            lock(&self.retired).add(&partition.counters());
        }
    }

    /// What removed partitions had counted.
    pub fn retired(&self) -> Counters {
        *lock(&self.retired)
    }

    /// Counts one error of a policy kind.
    pub fn count_error(&self, kind: &'static str) {
        *self.errors.entry(kind).or_insert(0) += 1;
    }
}

/// A session with a broker of the source, as far as its partitions' ends are concerned: each answer tells them
/// all, also those that it doesn't name (KIP-227). Each session has its own: one broker may hang while others answer.
#[derive(Debug)]
pub struct Teller {
    asked_ms: AtomicI64,
}

impl Default for Teller {
    fn default() -> Self {
        Self {
            asked_ms: AtomicI64::new(-1),
        }
    }
}

impl Teller {
    /// A question that was asked at this time, milliseconds since the epoch, was answered, and the ends in it are
    /// noted. The answer may have lain here for long, when this process was frozen or had no processor: it is no
    /// newer than the question.
    pub fn answered(&self, asked_ms: i64) {
        note_time(&self.asked_ms, asked_ms);
    }

    /// When the question was asked that was answered last; `None` before the first answer.
    pub fn asked_ms(&self) -> Option<i64> {
        Some(self.asked_ms.load(Ordering::Acquire)).filter(|at| *at >= 0)
    }
}

/// A partition whose end a session tells, as long as this lives.
#[derive(Debug)]
pub struct Listening {
    progress: Arc<PartitionProgress>,
    teller: Arc<Teller>,
}

impl Listening {
    /// From now on.
    pub fn new(progress: Arc<PartitionProgress>, teller: Arc<Teller>) -> Self {
        progress.listen(&teller);
        Self { progress, teller }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.progress.stop_listening(&self.teller);
    }
}

impl Default for PartitionProgress {
    fn default() -> Self {
        let unknown = || AtomicI64::new(-1);
        let now = now_ms();
        Self {
            state: Mutex::new(StateCell {
                state: PartitionState::Opening,
                since_ms: now,
                unhealthy_since_ms: Some(now),
                restless: None,
            }),
            meter: Mutex::new(RateMeter::default()),
            open_transaction: Mutex::new(None),
            up_to_date: Mutex::default(),
            changes: Arc::default(),
            was_caught_up: AtomicBool::new(false),
            is_end_told: AtomicBool::new(false),
            created_at_ms: now,
            source_log_start: unknown(),
            source_local_start: unknown(),
            source_stable_end: unknown(),
            source_high_watermark: unknown(),
            source_end_seen_ms: unknown(),
            told_by: Mutex::default(),
            follower_stable_end: unknown(),
            source_per_second: unknown(),
            source_habit: (AtomicI64::new(0), AtomicI64::new(0)),
            source_broker: unknown(),
            source_position: unknown(),
            target_position: unknown(),
            target_log_start: unknown(),
            first_position: unknown(),
            last_timestamp_ms: unknown(),
            caught_up_at_ms: unknown(),
            progressed_at_ms: unknown(),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            batches_passed: AtomicU64::new(0),
            batches_coalesced: AtomicU64::new(0),
            batches_opened: AtomicU64::new(0),
            holes_filled: AtomicU64::new(0),
            gap_offsets: AtomicU64::new(0),
        }
    }
}

impl PartitionProgress {
    /// The state and since when, milliseconds since the epoch.
    pub fn state(&self) -> (PartitionState, i64) {
        let cell = lock(&self.state);
        (cell.state.clone(), cell.since_ms)
    }

    /// Sets the state; true when it changed.
    pub fn set_state(&self, state: PartitionState) -> bool {
        self.set_state_at(state, now_ms())
    }

    fn set_state_at(&self, state: PartitionState, now: i64) -> bool {
        let mut cell = lock(&self.state);
        let changed = cell.state != state;
        if changed {
            cell.note_trouble(&state, now);
            cell.unhealthy_since_ms = match state {
                PartitionState::Copying => None,
                _ => cell.unhealthy_since_ms.or(Some(now)),
            };
            let goes_on = matches!(
                (&cell.state, &state),
                (
                    PartitionState::Burning { .. },
                    PartitionState::Burning { .. }
                )
            );
            if !goes_on {
                cell.since_ms = now;
            }
            cell.state = state;
        }
        drop(cell);
        if changed {
            self.note_change();
        }
        changed
    }

    /// When the partition last left `Copying`, milliseconds since the epoch; `None` while
    /// it is copying.
    pub fn unhealthy_since_ms(&self) -> Option<i64> {
        lock(&self.state).unhealthy_since_ms
    }

    /// For how long it hasn't been copied; 0 while it is.
    pub fn unhealthy_seconds(&self, now_ms: i64) -> f64 {
        self.unhealthy_since_ms()
            .map_or(0.0, |since_ms| seconds(since_ms, now_ms))
    }

    /// The trouble for which it is opened again and again, if it is.
    pub fn restless(&self, now_ms: i64) -> Option<Restless> {
        let cell = lock(&self.state);
        let restless = cell.restless(now_ms);
        restless.filter(|it| it.times >= RESTLESS_TIMES).cloned()
    }

    /// For how long it has been behind, as far as known, and hasn't moved.
    pub fn no_progress_seconds(&self, now_ms: i64) -> f64 {
        if self.lag_offsets() == 0 {
            return 0.0;
        }
        let at = |time: &AtomicI64| Some(time.load(Ordering::Relaxed)).filter(|it| *it >= 0);
        // A partition that was caught up until a moment ago isn't stuck, however long its position hasn't moved.
        let last_good_ms = at(&self.progressed_at_ms)
            .into_iter()
            .chain(self.was_caught_up_ms())
            .fold(self.created_at_ms, i64::max);
        seconds(last_good_ms, now_ms)
    }

    /// Whether it stands in the way of a planned failover, and why it isn't copied.
    pub fn in_the_way(&self, now_ms: i64) -> Option<(InTheWay, &'static str)> {
        let (state, _) = self.state();
        let restless = self.restless(now_ms);
        let reason = match (&state, &restless) {
            (PartitionState::Stopped { .. }, _) => return None,
            (PartitionState::Retrying { reason, .. }, _) => *reason,
            (_, Some(restless)) => restless.reason,
            (_, None) => "",
        };
        let retrying = match state {
            PartitionState::Retrying { .. } => self.unhealthy_seconds(now_ms),
            _ => 0.0,
        };
        let restless = restless.map_or(0.0, |it| seconds(it.since_ms, now_ms));
        let for_seconds = retrying.max(restless);
        in_the_way(for_seconds, self.no_progress_seconds(now_ms)).map(|it| (it, reason))
    }

    /// When this entry was made, milliseconds since the epoch.
    pub fn created_at_ms(&self) -> i64 {
        self.created_at_ms
    }

    /// Whether everything up to the source's stable end is on the target, as far as known.
    pub fn is_caught_up(&self) -> bool {
        self.lag_offsets() == 0 && lock(&self.state).state == PartitionState::Copying
    }

    /// Notes, behind it, that its state or one of its ends is another.
    pub fn note_change(&self) {
        self.changes.note();
    }

    /// When it was caught up last, milliseconds since the epoch; `None` if it never was.
    pub fn was_caught_up_ms(&self) -> Option<i64> {
        let own_ms = self.caught_up_at_ms.load(Ordering::Relaxed);
        let still_ms = match self.was_caught_up.load(Ordering::Acquire) {
            true => self.changes.still_ms(),
            false => -1,
        };
        Some(own_ms.max(still_ms)).filter(|at_ms| *at_ms >= 0)
    }

    /// Takes one sample for the rates. While the partition is caught up, that is also
    /// written down: an idle partition isn't touched by the data path for hours, and must
    /// not look hours behind when its next record arrives.
    ///
    /// Whether the next sample tells the same if nothing changes.
    fn observe(&self, flow_is_running: bool, now_ms: i64) -> bool {
        if let Some(until_ms) = self.was_caught_up_ms() {
            self.caught_up_at_ms.fetch_max(until_ms, Ordering::Relaxed);
        }
        let is_caught_up = flow_is_running && self.is_caught_up();
        if is_caught_up {
            note_time(&self.caught_up_at_ms, now_ms);
        }
        self.was_caught_up.store(is_caught_up, Ordering::Release);
        self.observe_transaction(now_ms);
        let mut meter = lock(&self.meter);
        meter.rest_until(self.changes.still_ms());
        meter.sample(
            now_ms,
            self.records.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
            self.source_position.load(Ordering::Relaxed),
            self.source_stable_end.load(Ordering::Relaxed),
        );
        meter.is_at_rest()
    }

    /// Whether the source tells the partition's end with every answer to a fetch.
    pub fn is_fetched(&self) -> bool {
        lock(&self.told_by).is_some()
            && !self.is_followed()
            && lock(&self.state).state == PartitionState::Copying
    }

    /// Whether a follower serves it. One that fell behind goes on answering, up to its own end, which is
    /// never taken for the source's.
    pub fn is_followed(&self) -> bool {
        self.follower_stable_end.load(Ordering::Relaxed) >= 0
    }

    /// It is fetched from a follower from now on, or from its leader. `seen_ms` is when the leader told its end.
    pub fn set_followed(&self, is_followed: bool, seen_ms: i64) {
        let end = if is_followed { 0 } else { -1 };
        let before = self.follower_stable_end.swap(end, Ordering::Relaxed);
        if is_followed && before < 0 {
            note_time(&self.source_end_seen_ms, seen_ms);
        }
    }

    /// Where a follower's data ends: the source's doesn't end before.
    pub fn note_follower_ends(&self, high_watermark: i64, stable_end: i64) {
        self.raise(&self.source_high_watermark, high_watermark);
        self.raise(&self.source_stable_end, stable_end);
        // Not where it was given back to its leader meanwhile.
        let shown = &self.follower_stable_end;
        let _ = shown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            (before >= 0).then_some(stable_end.max(0))
        });
    }

    /// Where the follower's committed data ended when it answered last; `None` while the leader serves it.
    pub fn follower_stable_end(&self) -> Option<i64> {
        let end = self.follower_stable_end.load(Ordering::Relaxed);
        (end >= 0).then_some(end)
    }

    /// When the source was asked where it ends and has told it, the last time; `None` if it never has. Another
    /// broker's answer says nothing of it.
    pub fn end_seen_ms(&self) -> Option<i64> {
        let own = Some(self.source_end_seen_ms.load(Ordering::Acquire)).filter(|at| *at >= 0);
        if self.is_followed() {
            return own;
        }
        let told_by = lock(&self.told_by);
        own.max(told_by.as_ref().and_then(|it| it.asked_ms()))
    }

    /// Every answer of this session tells its end from now on.
    pub fn listen(&self, teller: &Arc<Teller>) {
        let before = lock(&self.told_by).replace(teller.clone());
        self.note_told(before.as_deref());
    }

    /// This session doesn't ask for it any more.
    pub fn stop_listening(&self, teller: &Arc<Teller>) {
        let is_it = |it: &mut Arc<Teller>| Arc::ptr_eq(it, teller);
        let before = lock(&self.told_by).take_if(is_it);
        self.note_told(before.as_deref());
    }

    fn note_told(&self, teller: Option<&Teller>) {
        if let Some(asked_ms) = teller.and_then(Teller::asked_ms) {
            note_time(&self.source_end_seen_ms, asked_ms);
        }
    }

    /// The source was asked where the partition ends, at this time, milliseconds since the epoch.
    pub fn note_source_end(&self, end: i64, at_ms: i64) {
        self.raise(&self.source_high_watermark, end);
        self.note_end_told();
        note_time(&self.source_end_seen_ms, at_ms);
    }

    /// The same, with where its committed data ends.
    pub fn note_source_ends(&self, end: i64, stable_end: i64, at_ms: i64) {
        self.raise(&self.source_stable_end, stable_end);
        self.note_source_end(end, at_ms);
    }

    fn raise(&self, end: &AtomicI64, to: i64) {
        if end.fetch_max(to, Ordering::Relaxed) < to {
            self.note_change();
        }
    }

    /// The leader has told the source's end, which is noted already.
    pub fn note_end_told(&self) {
        if !self.is_end_told.swap(true, Ordering::AcqRel) {
            self.note_change();
        }
    }

    /// The partition is opened: what is known of its source's end is of before.
    pub fn begin_up_to_date(&self, begin: impl FnOnce(&mut UpToDate)) {
        self.is_end_told.store(false, Ordering::Release);
        begin(&mut lock(&self.up_to_date));
    }

    /// Notes the end that the source told last, at this time, and says how the copy stands to it. An end from before
    /// the opening says nothing: the time is that of the newest answer, of whatever partition.
    pub fn observe_end(&self, at_ms: i64) -> Standing {
        let is_told = self.is_end_told.load(Ordering::Acquire);
        let end = self.source_high_watermark.load(Ordering::Relaxed);
        let position = self.source_position.load(Ordering::Relaxed);
        let mut up_to_date = lock(&self.up_to_date);
        if !is_told {
            return up_to_date.standing(-1);
        }
        up_to_date.note_end(end, at_ms, position);
        up_to_date.standing(end)
    }

    /// What may have been missed at source offset `hole`, which has no record in what was read from `from` on.
    pub fn judge_hole(
        &self,
        (from, hole): (i64, i64),
        delete_retention_ms: i64,
    ) -> Option<MissedDeletes> {
        let end = self.source_high_watermark.load(Ordering::Relaxed);
        lock(&self.up_to_date).judge((from, hole), end, now_ms(), delete_retention_ms)
    }

    /// For how long tombstones that aren't copied yet stay at least; `None` where nobody has said.
    pub fn least_delete_retention_ms(&self) -> Option<i64> {
        lock(&self.up_to_date).least_retention()
    }

    /// What is known to have been missed has changed.
    pub fn note_missed_deletes(&self, missed: Option<MissedDeletes>) {
        lock(&self.up_to_date).note_missed(missed);
    }

    /// Deletes of the source that the copy may have missed.
    pub fn missed_deletes(&self) -> Option<MissedDeletes> {
        lock(&self.up_to_date).missed()
    }

    fn observe_transaction(&self, now_ms: i64) {
        let stable_end = self.source_stable_end.load(Ordering::Relaxed);
        let is_open = self.source_high_watermark.load(Ordering::Relaxed) > stable_end;
        let mut open = lock(&self.open_transaction);
        *open = match *open {
            _ if !is_open || stable_end < 0 => None,
            Some(open) if open.stable_end == stable_end => Some(open),
            _ => Some(OpenTransaction {
                stable_end,
                since_ms: now_ms,
            }),
        };
    }

    /// Since when one and the same transaction has been open on the source, milliseconds since the
    /// epoch; `None` if none is, as far as known.
    pub fn transaction_since_ms(&self) -> Option<i64> {
        lock(&self.open_transaction).map(|open| open.since_ms)
    }

    /// The rates as last sampled by `observe`.
    pub fn rates(&self) -> Rates {
        lock(&self.meter).rates()
    }

    /// What has been counted since the process started.
    pub fn counters(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            records: get(&self.records),
            bytes: get(&self.bytes),
            batches_passed: get(&self.batches_passed),
            batches_coalesced: get(&self.batches_coalesced),
            batches_opened: get(&self.batches_opened),
            holes_filled: get(&self.holes_filled),
            gap_offsets: get(&self.gap_offsets),
        }
    }

    /// Bytes of source log not yet copied, estimated from the mean size of what was.
    pub fn lag_bytes(&self) -> i64 {
        let records = self.records.load(Ordering::Relaxed).max(1);
        let mean_bytes = self.bytes.load(Ordering::Relaxed) / records;
        let mean_bytes = i64::try_from(mean_bytes).unwrap_or(i64::MAX);
        self.lag_offsets().max(0).saturating_mul(mean_bytes)
    }

    /// Notes where the source leader's own data begin.
    pub fn note_local_start(&self, offset: i64) {
        self.source_local_start.store(offset, Ordering::Relaxed);
    }

    /// Whether what is at this source offset is in remote storage, as far as is known.
    pub fn is_remote(&self, offset: i64) -> bool {
        offset < self.source_local_start.load(Ordering::Relaxed)
    }

    /// Source offsets that are to be read from remote storage, as far as is known.
    pub fn remote_offsets(&self) -> i64 {
        let local_start = self.source_local_start.load(Ordering::Relaxed);
        let position = self.source_position.load(Ordering::Relaxed);
        match position {
            unknown if unknown < 0 => 0,
            position => (local_start - position).max(0),
        }
    }

    /// Source offsets between the position and the stable end; -1 while unknown.
    pub fn lag_offsets(&self) -> i64 {
        let end = self.source_stable_end.load(Ordering::Relaxed);
        let position = self.source_position.load(Ordering::Relaxed);
        if end < 0 || position < 0 {
            -1
        } else {
            (end - position).max(0)
        }
    }
}

/// A poisoned lock only means that a reader panicked; the value is still whole.
/// Milliseconds between, as seconds.
fn seconds(since_ms: i64, now_ms: i64) -> f64 {
    (now_ms - since_ms).max(0) as f64 / 1_000.0
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::readiness::UNHEALTHY_SECONDS_MAX;
    use super::*;

    fn trouble() -> PartitionState {
        PartitionState::Retrying {
            reason: "leader_moved",
            detail: "it leads no longer".to_owned(),
        }
    }

    #[test]
    fn a_task_that_outlives_its_flow_does_not_call_it_running() {
        let flow = Registry::default().flow("f", "a", "b");
        let tasks = CancellationToken::new();
        assert!(flow.set_state_by_task(FlowState::Running, &tasks));
        tasks.cancel();
        let ended = FlowState::Stopped {
            reason: "defect",
            detail: "a task panicked".to_owned(),
        };
        flow.set_state(ended.clone());
        assert!(!flow.set_state_by_task(FlowState::Running, &tasks));
        assert_eq!(flow.state(), ended);
    }

    /// Copied for so long, and then away for a second; so often, from a time on.
    fn opened_again(
        partition: &PartitionProgress,
        copied_ms: i64,
        times: i64,
        mut at_ms: i64,
    ) -> i64 {
        for _ in 0..times {
            partition.set_state_at(PartitionState::Copying, at_ms);
            partition.set_state_at(trouble(), at_ms + copied_ms);
            partition.set_state_at(PartitionState::Opening, at_ms + copied_ms + 900);
            at_ms += copied_ms + 1_000;
        }
        partition.set_state_at(PartitionState::Copying, at_ms);
        at_ms
    }

    #[test]
    fn who_is_opened_again_and_again_is_in_the_way_although_he_is_copied_in_between() {
        let (partition, start_ms) = (PartitionProgress::default(), now_ms());
        let at_ms = opened_again(&partition, 4_000, 8, start_ms);
        let found = partition.in_the_way(at_ms + 3_000);
        assert_eq!(found, Some((InTheWay::Retrying, "leader_moved")));
        let restless = partition.restless(at_ms).expect("it is");
        assert_eq!(restless.since_ms, start_ms + 4_000, "the first trouble");
        assert_eq!(partition.in_the_way(at_ms + SETTLED_MS), None, "it is over");
        assert_eq!(partition.restless(at_ms + SETTLED_MS), None);
    }

    #[test]
    fn who_was_away_twice_or_is_copied_for_long_is_not_restless() {
        let (start_ms, limit_ms) = (now_ms(), (UNHEALTHY_SECONDS_MAX * 1_000.0) as i64);
        let twice = PartitionProgress::default();
        twice.set_state_at(PartitionState::Copying, start_ms);
        twice.set_state_at(trouble(), start_ms + 1_000);
        let at_ms = opened_again(&twice, 4_000, 1, start_ms + limit_ms);
        assert_eq!(
            twice.in_the_way(at_ms + 1_000),
            None,
            "a broker that starts again"
        );
        let seldom = PartitionProgress::default();
        seldom.source_stable_end.store(7, Ordering::Relaxed);
        seldom.source_position.store(7, Ordering::Relaxed);
        let at_ms = opened_again(&seldom, SETTLED_MS, 20, start_ms);
        assert_eq!(seldom.in_the_way(at_ms + 1_000), None);
        let stopped = PartitionProgress::default();
        let at_ms = opened_again(&stopped, 4_000, 8, start_ms);
        let state = PartitionState::Stopped {
            reason: "foreign_write",
            detail: String::new(),
        };
        stopped.set_state_at(state, at_ms + 1_000);
        assert_eq!(
            stopped.restless(at_ms + 1_000),
            None,
            "that is another word"
        );
    }

    /// A flow of one partition, which has been at rest until a second.
    fn at_rest(from_ms: i64) -> (Registry, Arc<FlowProgress>, Arc<PartitionProgress>) {
        let registry = Registry::default();
        let flow = registry.flow("dr", "primary", "standby");
        let partition = flow.partition(&Arc::from("t"), 0);
        for offset in [
            &partition.source_stable_end,
            &partition.source_high_watermark,
            &partition.source_position,
        ] {
            offset.store(100, Ordering::Relaxed);
        }
        partition.set_state(PartitionState::Copying);
        flow.set_state(FlowState::Running);
        for second in 0..3 {
            registry.observe(from_ms + second * 1_000);
        }
        (registry, flow, partition)
    }

    #[test]
    fn at_rest_nobody_looks_at_each_and_the_time_counts_all_the_same() {
        let start_ms = now_ms();
        let (registry, flow, partition) = at_rest(start_ms);
        let looked_ms = || partition.caught_up_at_ms.load(Ordering::Relaxed);
        let before_ms = looked_ms();
        registry.observe(start_ms + 20_000);
        assert_eq!(looked_ms(), before_ms, "it isn't touched");
        assert_eq!(partition.was_caught_up_ms(), Some(start_ms + 20_000));
        let new = flow.partition(&Arc::from("t"), 1);
        assert_eq!(new.was_caught_up_ms(), None);
        flow.retire_partition(&(Arc::from("t"), 1));
        registry.observe(start_ms + 21_000);
        registry.observe(start_ms + 22_000);
        // It wasn't a second of nine that they came in.
        partition.raise(&partition.source_stable_end, 1_100);
        registry.observe(start_ms + 23_000);
        assert_eq!(partition.was_caught_up_ms(), Some(start_ms + 22_000));
        let growth = partition.rates().growth_per_second;
        assert!(growth > 150.0, "{growth} a second");
        registry.observe(start_ms + 24_000);
        assert_eq!(partition.was_caught_up_ms(), Some(start_ms + 22_000));
    }
}
