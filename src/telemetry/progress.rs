//! The progress registry: what every flow and partition is doing right now.
//!
//! The data path writes it with relaxed atomics; HTTP, metrics and `status` read it.
//! Nothing here decides anything.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use serde::Serialize;
use tokio::sync::Notify;

use super::drill::DrillResult;
use super::failover::{StandbyHealth, Unfenceable};
use super::groups::GroupReporter;
use super::metadata::MetadataReport;
use super::protect::ProtectStatus;
use super::rates::{Counters, RateMeter, Rates};
use super::role::RoleStatus;
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
            let running = flow.state() == FlowState::Running;
            for partition in &flow.partitions {
                partition.observe(running, now_ms);
            }
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
    /// Partitions by source topic and number.
    pub partitions: DashMap<PartitionKey, Arc<PartitionProgress>>,
    /// Per-topic notes by source topic: the target name, the offset mode and why.
    pub topics: DashMap<Arc<str>, TopicNote>,
    /// Bytes fetched and not yet acknowledged by the target.
    pub in_flight_bytes: AtomicU64,
    /// The configured bound of `in_flight_bytes`.
    pub in_flight_limit_bytes: AtomicU64,
    /// Whether topic discovery has succeeded at least once.
    pub discovered: AtomicBool,
    /// Why nothing is selected, where the source has topics.
    nothing_selected: Mutex<Option<String>>,
    /// When the source last told where its logs end, milliseconds since the epoch; -1 if it never did.
    pub source_seen_ms: AtomicI64,
    /// The standby's partitions, as its metadata has them.
    standby: Mutex<Option<StandbyHealth>>,
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
    verify: Mutex<Option<Arc<VerifySummary>>>,
    drill: Mutex<Option<DrillResult>>,
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
    /// Whether the source's leader has told the end since the partition was opened last.
    is_end_told: AtomicBool,
    /// When this entry was made, milliseconds since the epoch.
    created_at_ms: i64,
    /// The source's log start offset.
    pub source_log_start: AtomicI64,
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
fn note_time(newest_ms: &AtomicI64, at_ms: i64) {
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
            partitions: DashMap::new(),
            topics: DashMap::new(),
            in_flight_bytes: AtomicU64::new(0),
            in_flight_limit_bytes: AtomicU64::new(0),
            discovered: AtomicBool::new(false),
            nothing_selected: Mutex::new(None),
            source_seen_ms: AtomicI64::new(-1),
            standby: Mutex::new(None),
            unfenceable: Mutex::new(None),
            errors: DashMap::new(),
            retired: Mutex::new(Counters::default()),
            look_now: Notify::new(),
            groups: Mutex::new(None),
            metadata: Mutex::new(None),
            verify: Mutex::new(None),
            drill: Mutex::new(None),
            role: Mutex::new(None),
            protect: Mutex::new(None),
            beside: Weak::new(),
        }
    }

    /// Another flow's progress beside this one: shown where this one is, until it is removed.
    pub fn companion(&self, name: &str, source: &str, target: &str) -> Arc<Self> {
        match self.beside.upgrade() {
            Some(flows) => Registry { flows }.flow(name, source, target),
            None => Arc::new(Self::new(name, source, target)),
        }
    }

    /// Ends what [`companion`](Self::companion) began.
    pub fn remove_companion(&self, name: &str) {
        if let Some(flows) = self.beside.upgrade() {
            flows.remove(name);
        }
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
        let mut current = lock(&self.state);
        let changed = *current != state;
        *current = state;
        changed
    }

    /// The partition's progress, made on first use.
    pub fn partition(&self, topic: &Arc<str>, partition: i32) -> Arc<PartitionProgress> {
        self.partitions
            .entry((topic.clone(), partition))
            .or_insert_with(|| Arc::new(PartitionProgress::default()))
            .clone()
    }

    /// Forgets a partition that is no longer copied, such as one of a deleted topic, and
    /// keeps what it had counted in the flow's totals. Removing it from `partitions`
    /// directly would make the flow's counters fall, which Prometheus reads as a restart.
    pub fn retire_partition(&self, key: &PartitionKey) {
        if let Some((_, partition)) = self.partitions.remove(key) {
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
            }),
            meter: Mutex::new(RateMeter::default()),
            open_transaction: Mutex::new(None),
            up_to_date: Mutex::default(),
            is_end_told: AtomicBool::new(false),
            created_at_ms: now,
            source_log_start: unknown(),
            source_stable_end: unknown(),
            source_high_watermark: unknown(),
            source_end_seen_ms: unknown(),
            told_by: Mutex::default(),
            follower_stable_end: unknown(),
            source_per_second: unknown(),
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
        let mut cell = lock(&self.state);
        let changed = cell.state != state;
        if changed {
            let now = now_ms();
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
        changed
    }

    /// When the partition last left `Copying`, milliseconds since the epoch; `None` while
    /// it is copying.
    pub fn unhealthy_since_ms(&self) -> Option<i64> {
        lock(&self.state).unhealthy_since_ms
    }

    /// When this entry was made, milliseconds since the epoch.
    pub fn created_at_ms(&self) -> i64 {
        self.created_at_ms
    }

    /// Whether everything up to the source's stable end is on the target, as far as known.
    pub fn is_caught_up(&self) -> bool {
        self.lag_offsets() == 0 && lock(&self.state).state == PartitionState::Copying
    }

    /// Takes one sample for the rates. While the partition is caught up, that is also
    /// written down: an idle partition isn't touched by the data path for hours, and must
    /// not look hours behind when its next record arrives.
    pub fn observe(&self, flow_is_running: bool, now_ms: i64) {
        if flow_is_running && self.is_caught_up() {
            note_time(&self.caught_up_at_ms, now_ms);
        }
        self.observe_transaction(now_ms);
        lock(&self.meter).sample(
            now_ms,
            self.records.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
            self.source_position.load(Ordering::Relaxed),
            self.source_stable_end.load(Ordering::Relaxed),
        );
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
        self.source_high_watermark
            .fetch_max(high_watermark, Ordering::Relaxed);
        self.source_stable_end
            .fetch_max(stable_end, Ordering::Relaxed);
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
        self.source_high_watermark.fetch_max(end, Ordering::Relaxed);
        self.note_end_told();
        note_time(&self.source_end_seen_ms, at_ms);
    }

    /// The same, with where its committed data ends.
    pub fn note_source_ends(&self, end: i64, stable_end: i64, at_ms: i64) {
        self.source_stable_end
            .fetch_max(stable_end, Ordering::Relaxed);
        self.note_source_end(end, at_ms);
    }

    /// The leader has told the source's end, which is noted already.
    pub fn note_end_told(&self) {
        self.is_end_told.store(true, Ordering::Release);
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
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
