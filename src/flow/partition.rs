//! One open partition: the queue between its source side and its sink side.
//!
//! A `Partition` lives from one opening to the next problem. It is never repaired: whatever goes
//! wrong, it is closed, what it holds is dropped, and a new one is opened from what the target's
//! log says. That is the whole of crash recovery, and the same code runs after `kill -9`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::budget::Meter;
use super::epochs::SourceEpochs;
use super::error::Trouble;
use super::intake::IntakeRules;
use super::left_behind::LeftBehind;
use super::tombstones::Tombstones;
use super::work::{BatchWork, Work};
use crate::offsets::{MapError, OffsetMap, SourceOffset, TargetOffset, Translation};
use crate::telemetry::progress::{PartitionProgress, now_ms};
use crate::telemetry::up_to_date::MissedDeletes;
use crate::wire::TopicPartition;

/// A broker forgets a producer by the age of its newest batch's *records*
/// (`ProducerStateManager.isProducerExpired`), a day by default, and looks for such every ten minutes.
/// Both can be set to less, clocks differ, and a batch sent alone costs a round trip only where nothing
/// was on its way: little is assumed.
const REMEMBERED_FOR_MS: i64 = 1_000;

/// Steps of a partition on the way at a time ([`Partition::take_sendable`]): some hundred milliseconds of a
/// line's round trip at a thousand steps a second.
pub(super) const STEPS_MAX: u32 = 512;
/// Fillers of one of several steps.
const STEP_FILLERS_MAX: i64 = 200;
/// Batches of one, and their bytes if they are several: a transaction may have some, and plain ones may be before it.
const STEP_BATCHES_MAX: usize = 16;
const STEP_BYTES_MAX: usize = 256 * 1024;
/// Offsets that steps of a partition may have on the way: so far back from its log's end something can have gone wrong
/// unseen, and whoever looks for it there looks at as many (`lost`, `tail`, `relearn`).
pub(super) const ON_THE_WAY_OFFSETS: i64 = 1 << 15;
/// How often the log end is asked for while steps are sent without a pause.
const END_EVERY_MS: i64 = 100;

/// Tells the supervisor what closed a partition, or what damage was seen behind that.
pub type TroubleSender = mpsc::UnboundedSender<(Arc<Partition>, Trouble)>;

/// Target offsets of steps, as far as nobody has looked at the times of their batches.
#[derive(Debug, Default)]
struct Steps {
    /// Where those begin of which the last look has read one batch.
    looked_from: Option<i64>,
    /// Where those since begin.
    first: Option<i64>,
    /// A batch of the newest one.
    newest: Option<i64>,
}

/// An open partition.
#[derive(Debug)]
pub struct Partition {
    /// Its name on the source.
    pub source: TopicPartition,
    /// The source topic's id, for fetches.
    pub source_topic_id: uuid::Uuid,
    /// Its name on the target.
    pub target: TopicPartition,
    /// The broker that it is sent to, and the leader epoch in which that one leads.
    pub target_leader: (i32, i32),
    /// Where it is seen from outside.
    pub progress: Arc<PartitionProgress>,
    /// Its bytes in flight.
    pub meter: Arc<Meter>,
    /// What may pass as it is.
    pub rules: IntakeRules,
    /// When its position was read from the target's log.
    pub read_at: Instant,
    /// See [`PartitionParts`].
    pub newest_filler: Option<i32>,
    /// See [`PartitionParts`].
    pub filler_epoch: i16,
    to_close: Mutex<Option<i64>>,
    rechecked: AtomicBool,
    queue: Mutex<VecDeque<Work>>,
    scheduled: AtomicBool,
    closed: AtomicBool,
    sent: AtomicU32,
    abandoned: AtomicBool,
    barrier: AtomicBool,
    /// What is on the way are steps.
    in_steps: AtomicBool,
    /// Since the opening a batch and a filler were answered as they should.
    batch_answered: AtomicBool,
    filler_answered: AtomicBool,
    /// Where the log ends behind the last fillers that were sent.
    fillers_end: AtomicI64,
    /// Since when steps were sent behind which the log end wasn't asked for, in milliseconds since `read_at`.
    end_unknown_since_ms: AtomicI64,
    /// Steps whose times nobody has looked at.
    steps: Mutex<Steps>,
    /// When the target's leader surely knew the data producer, in milliseconds since `read_at`.
    remembered_at_ms: AtomicI64,
    /// Which epochs of the source were fetched.
    pub epochs: Arc<SourceEpochs>,
    map: Option<Mutex<OffsetMap>>,
    tombstones: Mutex<Tombstones>,
    left_behind: Arc<LeftBehind>,
    drained: Notify,
    ready: mpsc::UnboundedSender<Arc<Partition>>,
    trouble: TroubleSender,
}

/// What a partition is made of.
pub struct PartitionParts {
    /// Its name on the source.
    pub source: TopicPartition,
    /// The source topic's id.
    pub source_topic_id: uuid::Uuid,
    /// Its name on the target.
    pub target: TopicPartition,
    /// See [`Partition`].
    pub target_leader: (i32, i32),
    /// Where it is seen from outside.
    pub progress: Arc<PartitionProgress>,
    /// Its bytes in flight.
    pub meter: Arc<Meter>,
    /// What may pass as it is.
    pub rules: IntakeRules,
    /// The newest record time of the data producer's last batch, ms since 1970, if the target's leader
    /// knows the producer. If it doesn't, it accepts *any* first sequence
    /// (`ProducerAppendInfo.checkSequence`), so nothing may be pipelined behind the first batch: if
    /// that one failed, the second would take its place.
    pub appended_timestamp_ms: Option<i64>,
    /// The offset map, where offsets aren't identical.
    pub map: Option<OffsetMap>,
    /// For keys that the source has no more.
    pub tombstones: Tombstones,
    /// Where it is noted what a broker may still carry out.
    pub left_behind: Arc<LeftBehind>,
    /// When the position was read: no later than the first question about it.
    pub read_at: Instant,
    /// The running number of the newest filler that the target's leader knew then.
    pub newest_filler: Option<i32>,
    /// The newest producer epoch of a filler that it knew: it refuses a lower one.
    pub filler_epoch: i16,
    /// The id of the first filler, if that ends an era ([`super::fillers`]).
    pub to_close: Option<i64>,
    /// Which epochs of the source were fetched.
    pub epochs: Arc<SourceEpochs>,
    /// The sink lane that writes it.
    pub ready: mpsc::UnboundedSender<Arc<Partition>>,
    /// The supervisor.
    pub trouble: TroubleSender,
}

impl Partition {
    /// An open partition with an empty queue.
    pub fn new(parts: PartitionParts) -> Self {
        Self {
            source: parts.source,
            source_topic_id: parts.source_topic_id,
            target: parts.target,
            target_leader: parts.target_leader,
            progress: parts.progress,
            meter: parts.meter,
            rules: parts.rules,
            read_at: parts.read_at,
            newest_filler: parts.newest_filler,
            filler_epoch: parts.filler_epoch,
            to_close: Mutex::new(parts.to_close),
            rechecked: AtomicBool::new(false),
            queue: Mutex::new(VecDeque::new()),
            scheduled: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            sent: AtomicU32::new(0),
            abandoned: AtomicBool::new(false),
            barrier: AtomicBool::new(false),
            in_steps: AtomicBool::new(false),
            batch_answered: AtomicBool::new(false),
            filler_answered: AtomicBool::new(false),
            fillers_end: AtomicI64::new(-1),
            end_unknown_since_ms: AtomicI64::new(i64::MAX),
            steps: Mutex::default(),
            remembered_at_ms: AtomicI64::new(parts.appended_timestamp_ms.map_or(
                i64::MIN,
                |at_ms| {
                    // Records from the future keep the producer known for longer.
                    at_ms.saturating_sub(now_ms()).min(0)
                },
            )),
            epochs: parts.epochs,
            map: parts.map.map(Mutex::new),
            tombstones: Mutex::new(parts.tombstones),
            left_behind: parts.left_behind,
            drained: Notify::new(),
            ready: parts.ready,
            trouble: parts.trouble,
        }
    }

    /// Queues work and wakes the sink lane.
    pub fn push(self: &Arc<Self>, work: Vec<Work>) {
        if work.is_empty() {
            return;
        }
        {
            let mut queue = self.queue();
            if self.is_closed() {
                return;
            }
            queue.extend(work);
        }
        self.schedule();
    }

    /// Puts the partition on its lane's list unless it is there.
    pub fn schedule(self: &Arc<Self>) {
        if !self.scheduled.swap(true, Ordering::AcqRel) {
            // The lane ends after its partitions were closed; then nobody needs the work.
            let _ = self.ready.send(self.clone());
        }
    }

    /// Takes the partition off its lane's list: the next `push` puts it there again.
    pub fn unschedule(&self) {
        self.scheduled.store(false, Ordering::Release);
    }

    /// Takes the next piece of work if it may be sent now, and counts it as sent. Steps of more than `step_bytes` aren't
    /// made, nor any where that is `None`.
    ///
    /// Batches are pipelined: if one fails, the broker refuses those behind it by their
    /// sequence. A marker has no sequence. Sent behind a batch that fails, it would take that
    /// batch's offset, and a batch behind a marker that fails would take the marker's. So a
    /// marker is sent when everything before it is answered, and nothing is sent until it is;
    /// unless both can be pipelined as *steps*, of which the first danger isn't one and the second
    /// is found.
    ///
    /// A step ends with markers and may begin with batches, each of which is sent with acks 0. Where such a
    /// batch is refused, the broker closes the connection and works on nothing behind it
    /// (`KafkaApis.handleProduceRequest`: `closeConnection`), so nothing gets its offset. The markers'
    /// answer, which waits for the replicas, says that the batches were appended and replicated too: what was before them
    /// on the connection was executed before. Where *markers* are refused, the batch of the next step does take
    /// their offset, and all behind it is lower than it should be. That is why nobody pipelines who isn't answered
    /// well first, or whose leader may have too few replicas in sync soon (`step_bytes`), why no batch that waits for a
    /// base offset is sent behind steps, and why an opening compares what the log ends with
    /// (`relearn::parts_at`).
    ///
    /// A broker that has forgotten the producer doesn't look at the sequence either, and it forgets
    /// while a partition is open: after a silence, and for old records at any time. So a batch goes
    /// alone, like a marker, where the broker may have forgotten us since the last one, and where it
    /// is larger than the target allows, which is refused. What is left, a batch of old records that
    /// is refused for a reason that nobody can foresee within the moment in which we are forgotten, is
    /// found by the offset that the next one gets.
    pub fn take_sendable(&self, step_bytes: Option<usize>) -> Option<Work> {
        let mut queue = self.queue();
        // Closing happens under this lock too: what is taken counts as sent before `drained` can
        // look, and after the closing nothing is taken, whatever a late `push` left here.
        if self.is_closed() {
            return None;
        }
        // The map learns of a skipped hole from what follows it.
        while queue.len() > 1 && matches!(queue.front(), Some(Work::Skip { .. })) {
            queue.pop_front();
        }
        let under_way = self.unanswered();
        let idle = under_way == 0;
        if let Some(most) = step_bytes
            && let Some(step) = self.take_step(&mut queue, under_way, most)
        {
            self.in_steps.store(true, Ordering::Release);
            self.note_sent(&step);
            return Some(step);
        }
        let goes_alone = match queue.front()? {
            Work::Batch(batch) => {
                let is_refused = batch.size_bytes() > self.rules.max_batch_bytes;
                is_refused || (idle && !self.is_remembered())
            }
            Work::Step(..) | Work::Fill(_) | Work::Skip { .. } | Work::Dear(_) => true,
        };
        let behind_steps = self.in_steps.load(Ordering::Acquire);
        if !idle && (goes_alone || behind_steps || self.barrier.load(Ordering::Acquire)) {
            return None;
        }
        self.in_steps.store(false, Ordering::Release);
        let work = queue.pop_front()?;
        if goes_alone && !matches!(work, Work::Skip { .. }) {
            self.barrier.store(true, Ordering::Release);
        }
        self.note_sent(&work);
        Some(work)
    }

    fn note_sent(&self, work: &Work) {
        self.sent.fetch_add(1, Ordering::AcqRel);
        if let Some(fill) = work.fill() {
            self.fillers_end.fetch_max(fill.end(), Ordering::AcqRel);
        }
    }

    /// Where the log ends behind the fillers that are on the way, if there are any.
    pub fn fillers_end(&self) -> Option<i64> {
        let end = self.fillers_end.load(Ordering::Acquire);
        (end > self.progress.target_position.load(Ordering::Relaxed)).then_some(end)
    }

    /// A request was sent to this broker, and its connection ended before the answer, after such a silence: whatever has
    /// closed the partition, nobody reads where its log ends before this is noted ([`answered`](Self::answered) comes
    /// behind it).
    pub fn note_left_behind(&self, broker: i32, silent: Duration) {
        if let Some(end) = self.fillers_end() {
            let key = (Arc::from(self.source.topic.as_str()), self.source.partition);
            self.left_behind.note(key, broker, end, silent);
        }
    }

    /// Takes the step with which the queue begins, if it may be sent behind what is on the way.
    fn take_step(&self, queue: &mut VecDeque<Work>, under_way: u32, most: usize) -> Option<Work> {
        if !self.may_send_step(under_way) {
            return None;
        }
        let count = self.step_at_front(queue, under_way, most)?;
        let first = queue.drain(..count);
        let batches: Vec<BatchWork> = first
            .filter_map(|work| match work {
                Work::Batch(batch) => Some(batch),
                _ => None,
            })
            .collect();
        let fill = queue.pop_front()?;
        match fill {
            Work::Fill(fill) if !batches.is_empty() => {
                self.end_unknown_since_ms
                    .fetch_min(self.age_ms(), Ordering::AcqRel);
                Some(Work::Step(batches, fill))
            }
            fill => Some(fill),
        }
    }

    /// Whether a step may be sent behind what is on the way.
    fn may_send_step(&self, under_way: u32) -> bool {
        // Where offsets are mapped there is no marker, and where strangers are kept each batch's offset counts.
        let is_proven = self.map.is_none()
            && !self.rules.keeps_foreign
            && self.batch_answered.load(Ordering::Acquire)
            && self.filler_answered.load(Ordering::Acquire);
        let is_free = match under_way {
            0 => true,
            _ => {
                self.in_steps.load(Ordering::Acquire)
                    && under_way < STEPS_MAX
                    && !self.barrier.load(Ordering::Acquire)
            }
        };
        is_proven && is_free
    }

    /// With how many batches the queue begins that make a step with the fillers behind them.
    fn step_at_front(&self, queue: &VecDeque<Work>, under_way: u32, most: usize) -> Option<usize> {
        let mut bytes = 0;
        for (count, work) in queue.iter().take(STEP_BATCHES_MAX + 1).enumerate() {
            let batch = match work {
                Work::Batch(batch) => batch,
                Work::Fill(fill) => {
                    let answered = self.progress.target_position.load(Ordering::Relaxed);
                    let is_near = fill.end() - answered <= ON_THE_WAY_OFFSETS;
                    return (is_near && fill.count <= STEP_FILLERS_MAX).then_some(count);
                }
                _ => return None,
            };
            bytes += batch.size_bytes();
            let is_refused = batch.size_bytes() > self.rules.max_batch_bytes;
            // What the line takes long for tells by its own answer what it is throttled for.
            let is_large = match count {
                0 => most < STEP_BYTES_MAX && bytes > most,
                _ => bytes > STEP_BYTES_MAX.min(most),
            };
            if is_refused || is_large || (under_way == 0 && !self.is_remembered()) {
                return None;
            }
        }
        None
    }

    /// Whether the log end is to be asked for behind the markers that are sent now: steps have no base offset
    /// that tells.
    pub fn asks_end(&self) -> bool {
        let since_ms = self.end_unknown_since_ms.load(Ordering::Acquire);
        let is_due = since_ms < i64::MAX
            && (!self.has_work() || self.age_ms().saturating_sub(since_ms) >= END_EVERY_MS);
        if is_due {
            self.end_unknown_since_ms.store(i64::MAX, Ordering::Release);
        }
        is_due
    }

    /// Notes where batches of a step are, of which nothing has told what time they have.
    pub fn note_step(&self, batches: &[BatchWork]) {
        let smallest = batches.iter().min_by_key(|batch| batch.size_bytes());
        if let (Some(first), Some(smallest)) = (batches.first(), smallest) {
            let mut steps = self.steps();
            steps.first.get_or_insert(first.target_base);
            steps.newest = Some(smallest.target_base);
        }
    }

    /// See [`Self::note_step`].
    pub fn has_unseen_step(&self) -> bool {
        self.steps().newest.is_some()
    }

    /// Where the steps since the last look begin, and the target offset of the newest one's batch: it is looked at now.
    pub fn take_unseen_step(&self) -> Option<(i64, i64)> {
        let mut steps = self.steps();
        let newest = steps.newest.take()?;
        let first = steps.first.take().unwrap_or(newest);
        steps.looked_from = Some(first);
        Some((first, newest))
    }

    /// It couldn't be looked at. A newer one does as well.
    pub fn put_back_unseen_step(&self, first: i64, step: i64) {
        let mut steps = self.steps();
        steps.first = Some(steps.first.map_or(first, |it| it.min(first)));
        steps.newest.get_or_insert(step);
    }

    /// Where the steps begin of which at most one batch was looked at; `None` where all were answered for.
    pub fn steps_from(&self) -> Option<i64> {
        let steps = self.steps();
        steps.looked_from.or(steps.first)
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a piece of work that wasn't sent, or the rest of one, back to the front.
    pub fn push_front(&self, work: Work) {
        let mut queue = self.queue();
        if self.is_closed() {
            return;
        }
        match work {
            Work::Step(batches, fill) => {
                queue.push_front(Work::Fill(fill));
                for batch in batches.into_iter().rev() {
                    queue.push_front(Work::Batch(batch));
                }
            }
            work => queue.push_front(work),
        }
    }

    /// Lifts the barrier: the last marker, or the first batch, was appended.
    pub fn lift_barrier(&self) {
        self.barrier.store(false, Ordering::Release);
    }

    /// Notes that a batch was appended just now: its producer is known.
    pub fn note_appended(&self) {
        self.batch_answered.store(true, Ordering::Release);
        self.remembered_at_ms
            .store(self.age_ms(), Ordering::Relaxed);
    }

    fn is_remembered(&self) -> bool {
        let at_ms = self.remembered_at_ms.load(Ordering::Relaxed);
        self.age_ms().saturating_sub(at_ms) < REMEMBERED_FOR_MS
    }

    /// Since the position was read.
    fn age_ms(&self) -> i64 {
        i64::try_from(self.read_at.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether it is known that no filler but ours followed the newest one.
    pub fn is_rechecked(&self) -> bool {
        self.rechecked.load(Ordering::Acquire)
    }

    /// See [`Self::is_rechecked`].
    pub fn note_rechecked(&self) {
        self.rechecked.store(true, Ordering::Release);
    }

    /// The id of the next filler, if that ends an era.
    pub fn to_close(&self) -> Option<i64> {
        *self.to_close.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that fillers were appended.
    pub fn note_filled(&self) {
        self.filler_answered.store(true, Ordering::Release);
        *self.to_close.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes appended records (or skipped offsets) in the map, where there is one.
    pub fn note_in_map(
        &self,
        note: impl FnOnce(&mut OffsetMap) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        match &self.map {
            Some(map) => note(&mut map.lock().unwrap_or_else(PoisonError::into_inner)),
            None => Ok(()),
        }
    }

    /// Looks into the map, where there is one.
    pub fn look_into_map<T>(&self, look: impl FnOnce(&OffsetMap) -> T) -> Option<T> {
        self.map
            .as_ref()
            .map(|map| look(&map.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Forgets what both logs have forgotten. What one of them still has is kept: a group that lags
    /// behind the source's retention finds its records on the target.
    pub fn trim_map(&self, source_log_start: SourceOffset, target_log_start: TargetOffset) {
        let Some(map) = &self.map else { return };
        let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
        let Translation::Exact(kept_by_target) = map.reverse(target_log_start) else {
            return;
        };
        map.trim(source_log_start.min(kept_by_target), TargetOffset(0));
    }

    /// What may have been missed at source offset `hole`, which has no record in what was read from `from` on.
    pub fn judge_hole(&self, from: i64, hole: i64) -> Option<MissedDeletes> {
        self.progress
            .judge_hole((from, hole), self.rules.delete_retention_ms)
    }

    /// Whether a filler would be taken next.
    pub fn is_at_filler(&self) -> bool {
        matches!(self.queue().front(), Some(Work::Fill(_))) && self.unanswered() == 0
    }

    /// The tombstones that are to take the place of fillers.
    pub fn tombstones(&self) -> MutexGuard<'_, Tombstones> {
        self.tombstones
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether work is waiting.
    pub fn has_work(&self) -> bool {
        !self.queue().is_empty()
    }

    /// Whether this partition was closed; it stays so.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes the partition and drops what it holds.
    pub fn close(&self) {
        let mut queue = self.queue();
        self.closed.store(true, Ordering::Release);
        queue.clear();
        self.meter.note_change();
    }

    /// Closes the partition and reports why, once; damage is reported at any time. The answers of
    /// what was pipelined behind a refused batch come after the refusal has closed the partition, and
    /// one of them may say that its batch took the refused one's place.
    pub fn fail(self: &Arc<Self>, trouble: Trouble) {
        let was_closed = {
            let mut queue = self.queue();
            queue.clear();
            self.closed.swap(true, Ordering::AcqRel)
        };
        self.meter.note_change();
        if !was_closed || trouble.is_damage() || matches!(trouble, Trouble::Stranger { .. }) {
            let _ = self.trouble.send((self.clone(), trouble));
        }
    }

    /// Counts the answer to something taken with `take_sendable` (or its connection's end).
    pub fn answered(&self) {
        self.meter.note_change();
        if self.sent.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.drained.notify_waiters();
        }
    }

    /// Requests without an answer that may still change the target's log.
    pub fn unanswered(&self) -> u32 {
        match self.abandoned.load(Ordering::Acquire) {
            true => 0,
            false => self.sent.load(Ordering::Acquire),
        }
    }

    /// Another broker leads the partition in a newer epoch. What the one that it was sent to refuses, or appends
    /// when it wakes up and cuts off again (KIP-101), doesn't count: its answers aren't waited for.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.drained.notify_waiters();
    }

    /// Resolves when no request of this partition is on its way: only then does the target's
    /// log say where to resume.
    pub async fn drained(&self) {
        loop {
            let notified = self.drained.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.unanswered() == 0 {
                return;
            }
            notified.await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Work>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl PartitionParts {
    /// Of a small partition that nobody writes.
    pub(super) fn for_tests(trouble: TroubleSender) -> Self {
        use super::budget::Budget;
        use super::fill::FillRule;
        use super::position::Producers;
        use crate::telemetry::progress::FlowProgress;
        use uuid::Uuid;

        let progress = Arc::new(FlowProgress::new("f", "s", "t"));
        let name = TopicPartition {
            topic: "t".to_owned(),
            partition: 0,
        };
        Self {
            source: name.clone(),
            source_topic_id: Uuid::nil(),
            target: name,
            target_leader: (1, 0),
            progress: progress.partition(&Arc::from("t"), 0),
            meter: {
                let budget = Arc::new(Budget::new(1_000, 1_000, progress));
                let share = budget.share(1, 0);
                Arc::new(Meter::new(budget, share))
            },
            rules: IntakeRules {
                producers: Producers::first(1, 2),
                max_batch_bytes: 1_000,
                min_in_sync: Some(1),
                target_compacted: false,
                source_compacted: false,
                delete_retention_ms: 86_400_000,
                coalesce_below_bytes: 0,
                coalesce_to_bytes: 0,
                max_merged_bytes: 1 << 20,
                max_decompressed_bytes: 1_000,
                fill: FillRule {
                    limit: 1_000_000,
                    may_map: true,
                },
                keeps_foreign: false,
            },
            appended_timestamp_ms: None,
            map: None,
            tombstones: Tombstones::default(),
            left_behind: Arc::default(),
            read_at: Instant::now(),
            newest_filler: None,
            filler_epoch: 0,
            to_close: None,
            epochs: Arc::new(SourceEpochs::new(Uuid::nil(), Uuid::nil())),
            ready: mpsc::unbounded_channel().0,
            trouble,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::work::{FillWork, Form};
    use super::*;

    /// A partition whose producer is known to the broker.
    fn known(map: Option<OffsetMap>) -> Arc<Partition> {
        Arc::new(Partition::new(PartitionParts {
            appended_timestamp_ms: Some(now_ms()),
            map,
            ..PartitionParts::for_tests(mpsc::unbounded_channel().0)
        }))
    }

    /// Ten records of the source's, from this offset on.
    const MAY_STEP: Option<usize> = Some(STEP_BYTES_MAX);

    fn batch(partition: &Partition, source_base: i64, target_base: i64) -> Work {
        Work::Batch(BatchWork {
            head: Bytes::from_static(&[0; 61]),
            body: Bytes::new(),
            target_base,
            count: 10,
            source_base,
            source_next: source_base + 10,
            source_runs: Vec::new(),
            max_timestamp_ms: 0,
            form: Form::Passed,
            _hold: partition.meter.hold(0),
        })
    }

    fn base(work: Option<Work>) -> Option<i64> {
        match work {
            Some(Work::Batch(batch)) => Some(batch.source_base),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_hole_that_is_skipped_keeps_nothing_waiting() {
        let partition = known(Some(OffsetMap::identity_from(SourceOffset(0))));
        let skip = |source_next| Work::Skip { source_next };
        let (first, second) = (batch(&partition, 0, 0), batch(&partition, 15, 10));
        partition.push(vec![first, skip(11), skip(15), second, skip(30)]);
        assert_eq!(base(partition.take_sendable(None)), Some(0));
        assert_eq!(
            base(partition.take_sendable(None)),
            Some(15),
            "without an answer"
        );
        assert!(
            partition.take_sendable(None).is_none(),
            "what is last has its turn"
        );
        let third = batch(&partition, 30, 20);
        partition.push(vec![third]);
        assert_eq!(base(partition.take_sendable(None)), Some(30));
        partition.push(vec![skip(50)]);
        assert!(partition.take_sendable(None).is_none());
        (0..3).for_each(|_| partition.answered());
        let last = partition.take_sendable(None);
        assert!(matches!(last, Some(Work::Skip { source_next: 50 })));
    }

    fn fill(source_base: i64) -> Work {
        Work::Fill(FillWork {
            target_base: source_base,
            count: 1,
            fillers_before: 0,
            source_next: source_base + 1,
        })
    }

    /// Ten records and a filler, again and again.
    fn transactions(partition: &Arc<Partition>, count: i64) {
        let works = (0..count).flat_map(|at| {
            let base = at * 11;
            [batch(partition, base, base), fill(base + 10)]
        });
        let works = works.collect();
        partition.push(works);
    }

    fn is_pair(work: Option<Work>) -> bool {
        matches!(work, Some(Work::Step(..)))
    }

    #[tokio::test]
    async fn steps_are_pipelined_behind_a_first_good_exchange() {
        let partition = known(None);
        transactions(&partition, 4);
        for first in [true, false] {
            let alone = partition.take_sendable(MAY_STEP);
            assert_eq!(matches!(alone, Some(Work::Batch(_))), first);
            assert!(
                partition.take_sendable(MAY_STEP).is_none(),
                "it is answered first"
            );
            match first {
                true => partition.note_appended(),
                false => partition.note_filled(),
            }
            partition.lift_barrier();
            partition.answered();
        }
        assert!(is_pair(partition.take_sendable(MAY_STEP)));
        assert!(
            is_pair(partition.take_sendable(MAY_STEP)),
            "without an answer"
        );
        assert!(
            partition.take_sendable(None).is_none(),
            "not where replicas are missing"
        );
        assert!(is_pair(partition.take_sendable(MAY_STEP)));
        assert_eq!(partition.unanswered(), 3);
        // One that waits for its base offset isn't sent behind them, nor a step behind it.
        let last = batch(&partition, 44, 44);
        partition.push(vec![last]);
        assert!(partition.take_sendable(MAY_STEP).is_none());
        (0..3).for_each(|_| partition.answered());
        assert_eq!(base(partition.take_sendable(MAY_STEP)), Some(44));
        partition.push(vec![fill(54)]);
        assert!(partition.take_sendable(MAY_STEP).is_none());
    }

    #[tokio::test]
    async fn steps_are_bounded_and_end_with_a_question_for_the_log_end() {
        let partition = known(None);
        partition.note_appended();
        partition.note_filled();
        transactions(&partition, i64::from(STEPS_MAX) + 1);
        assert!(!partition.asks_end(), "nothing was sent");
        for _ in 0..STEPS_MAX {
            assert!(is_pair(partition.take_sendable(MAY_STEP)));
        }
        assert!(partition.take_sendable(MAY_STEP).is_none());
        partition.answered();
        let last = partition.take_sendable(MAY_STEP).expect("one more");
        assert!(
            partition.asks_end() && !partition.asks_end(),
            "behind the last one"
        );
        partition.push_front(last);
        partition.answered();
        assert!(partition.has_work());
    }

    #[tokio::test]
    async fn steps_are_known_from_the_look_before_on() {
        let partition = known(None);
        let note = |at: i64| match batch(&partition, at, at) {
            Work::Batch(batch) => partition.note_step(&[batch]),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (partition.take_unseen_step(), partition.steps_from()),
            (None, None)
        );
        note(0);
        note(11);
        assert_eq!(partition.take_unseen_step(), Some((0, 11)));
        assert!(!partition.has_unseen_step());
        note(22);
        assert_eq!(
            partition.steps_from(),
            Some(0),
            "one batch says nothing of others"
        );
        let looked = partition.take_unseen_step();
        assert_eq!((looked, partition.steps_from()), (Some((22, 22)), Some(22)));
        // What couldn't be read is unseen, with what came behind it.
        partition.put_back_unseen_step(22, 22);
        note(33);
        assert_eq!(partition.take_unseen_step(), Some((22, 33)));
    }

    fn batches(work: Option<Work>) -> usize {
        match work {
            Some(Work::Step(batches, _)) => batches.len(),
            _ => 0,
        }
    }

    /// As of a large transaction, or plain ones before a small one.
    #[tokio::test]
    async fn some_batches_before_a_filler_are_one_step() {
        let partition = known(None);
        partition.note_appended();
        partition.note_filled();
        transactions(&partition, 1);
        let (first, second) = (batch(&partition, 11, 11), batch(&partition, 21, 21));
        partition.push(vec![first, second, fill(31)]);
        assert!(is_pair(partition.take_sendable(MAY_STEP)));
        let step = partition.take_sendable(MAY_STEP);
        assert_eq!(batches(step), 2, "without an answer");
        // What isn't sent after all is as it was.
        let again = partition.take_sendable(MAY_STEP);
        assert!(again.is_none());
        let (third, fourth) = (batch(&partition, 32, 32), batch(&partition, 42, 42));
        partition.push(vec![third, fourth, fill(52)]);
        let step = partition.take_sendable(MAY_STEP).expect("a step");
        partition.push_front(step);
        partition.answered();
        assert_eq!(batches(partition.take_sendable(MAY_STEP)), 2);
        // Too many for a step wait for their offsets.
        let count = i64::try_from(STEP_BATCHES_MAX).expect("small") + 1;
        let many = (0..count).map(|at| batch(&partition, 53 + 10 * at, 53 + 10 * at));
        let many = many.chain([fill(53 + 10 * count)]).collect();
        partition.push(many);
        assert!(partition.take_sendable(MAY_STEP).is_none());
        (0..3).for_each(|_| partition.answered());
        assert_eq!(base(partition.take_sendable(MAY_STEP)), Some(53));
        assert_eq!(base(partition.take_sendable(MAY_STEP)), Some(63));
    }

    #[tokio::test]
    async fn what_may_be_refused_goes_alone_behind_steps() {
        let partition = known(None);
        partition.note_appended();
        partition.note_filled();
        transactions(&partition, 1);
        let mut large = batch(&partition, 11, 11);
        if let Work::Batch(batch) = &mut large {
            batch.body = Bytes::from(vec![0; 2_000]);
        }
        partition.push(vec![large, fill(21)]);
        assert!(is_pair(partition.take_sendable(MAY_STEP)));
        assert!(partition.take_sendable(MAY_STEP).is_none());
        partition.answered();
        assert_eq!(base(partition.take_sendable(MAY_STEP)), Some(11));
        assert!(partition.take_sendable(MAY_STEP).is_none());
    }
}
