//! The sink side: one lane is one connection to one target broker.
//!
//! A lane takes the next batch of every partition that has work, one per partition and request
//! (`ProduceRequest.validateRecords` allows no more), and keeps several requests on the way. The
//! broker works on one request of a connection at a time, so a partition's batches are appended
//! in the order in which they were sent; that is why a partition never has two lanes.

mod markers;
mod outcome;
mod parked;
mod produce;
mod quota;
mod recheck;
mod room;
mod waiting;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use kafka_protocol::messages::{ListOffsetsResponse, ProduceResponse, WriteTxnMarkersResponse};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::markers::MarkersPending;
use self::outcome::{fail_all, map_trouble};
use self::parked::Parked;
pub(super) use self::produce::PRODUCE_VERSION_MIN;
use self::recheck::Looked;
use self::room::Room;
use self::waiting::Waiting;
use super::budget::{Budget, Share};
use super::claim::Fence;
use super::error::Trouble;
use super::line::{Line, Mark};
use super::partition::Partition;
use super::source::Silence;
use super::spread::{At, Spread};
use super::work::{FillWork, Work};
use crate::offsets::SourceOffset;
use crate::tasks::brought;
use crate::wire::{Cluster, Connection, ErrorContext, Metadata, Pending, Role, WireError};

/// A request is closed when it holds this much; one larger batch still makes a request.
const REQUEST_BYTES: usize = 1024 * 1024;
/// After so long without an answer it is looked who leads the partitions.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// The same where it may be that another one leads by now: little is asked for that.
const LOOK_AFTER: Duration = Duration::from_millis(750);
/// Markers per request and partition: 2,000 filled 100,000 offsets a second in the experiment.
pub(super) const MARKERS_PER_REQUEST: i64 = 2_000;

/// What a lane needs.
pub struct Lane {
    /// The target cluster.
    pub cluster: Cluster,
    /// The broker it writes to.
    pub broker: i32,
    /// Which of the broker's lanes this is.
    pub lane: u16,
    /// The right to write fillers.
    pub fence: Fence,
    /// The flow's bytes in flight.
    pub budget: Arc<Budget>,
    /// The lane's share of them.
    pub share: Arc<Share>,
    /// Who is told that the broker answers nothing.
    pub silences: mpsc::UnboundedSender<Silence>,
    /// Over how many lanes the broker's partitions are spread, and who is told when there shall be more.
    pub spread: Arc<Spread>,
    /// See `spread`.
    pub spreads: mpsc::UnboundedSender<At>,
    /// Ends the lane.
    pub cancel: CancellationToken,
}

/// A request on its way.
struct Sent {
    answer: Answer,
    connection: Connection,
    items: Vec<Item>,
    /// See [`Partition::take_sendable`].
    is_step: bool,
    /// Requests right before it that nothing is answered for.
    unanswered: u32,
    at: Instant,
    /// See [`Room::answers`].
    answered_before: u64,
    /// Its bytes, and what the line had taken before them.
    mark: Mark,
    /// When it was sent, if nothing was on its way then.
    alone_at: Option<Instant>,
}

enum Answer {
    Produce(Pending<ProduceResponse>),
    Markers(MarkersPending),
}

#[derive(Clone, Copy)]
enum Kind {
    Produce,
    Markers,
}

enum Answered {
    Produce(ProduceResponse),
    Markers(WriteTxnMarkersResponse, Option<ListOffsetsResponse>),
}

impl Future for Answer {
    type Output = Result<Answered, WireError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Produce(pending) => Pin::new(pending).poll(context).map_ok(Answered::Produce),
            Self::Markers(pending) => Pin::new(pending).poll(context),
        }
    }
}

struct Item {
    partition: Arc<Partition>,
    work: Work,
}

impl Lane {
    /// Runs until cancelled: then nothing new is sent, and what is on its way is waited for.
    pub async fn run(mut self, mut ready: mpsc::UnboundedReceiver<Arc<Partition>>) {
        let mut waiting = Waiting::default();
        let mut in_flight: VecDeque<Sent> = VecDeque::new();
        let mut parked = Parked::default();
        let mut line = Line::default();
        let mut heard_at = Instant::now();
        // The end of a connection is no answer.
        let mut answered_at = heard_at;
        let mut told_at = heard_at;
        let mut looked_at = heard_at;
        let mut room = Room::default();
        let mut asked: Option<quota::Asked> = None;
        let mut excused = quota::Excused::default();
        let mut looks = JoinSet::new();
        let mut woken = self.fence.clone();
        loop {
            // Whether it is waited for that the claim was looked at is settled here: a look that comes between here and there
            // would else wake up nobody.
            let mut must_look = false;
            while room.is_left(&in_flight)
                && line.has_room()
                && !waiting.is_empty()
                && !self.cancel.is_cancelled()
            {
                if !self.fence.is_awake() {
                    must_look = true;
                    break;
                }
                self.send_next(
                    &mut waiting,
                    &mut parked,
                    (&mut in_flight, &mut looks),
                    (&mut line, &room),
                )
                .await;
            }
            if self.cancel.is_cancelled() && in_flight.is_empty() {
                return;
            }
            let waits_since = in_flight.front().map(|oldest| oldest.at.max(heard_at));
            self.share.note_waiting(waits_since);
            let waiting_since = waits_since.unwrap_or(heard_at);
            let silent_at = waiting_since.max(told_at) + SILENT_AFTER;
            let look_at = waiting_since.max(looked_at) + LOOK_AFTER;
            // Also if that is over by now: it wasn't yet when it was looked whether anything may be sent.
            let is_held = in_flight.is_empty() && !waiting.is_empty();
            let rests_until = line.rests_until().filter(|_| is_held);
            tokio::select! {
                biased;
                answer = front(&mut in_flight) => {
                    heard_at = Instant::now();
                    self.share.note_silent(false);
                    let Some(sent) = in_flight.pop_front() else { continue };
                    self.measure(&mut line, &sent);
                    room.answered(&sent, in_flight.len());
                    if let Some(at) = sent.alone_at {
                        self.budget.note_target_answer(at.elapsed());
                    }
                    if answer.is_ok() {
                        answered_at = heard_at;
                    }
                    let mark = sent.mark;
                    if let Some(is_slower) = self.settle(sent, answer, answered_at) {
                        line.heard(mark, is_slower);
                    }
                }
                partition = ready.recv() => match partition {
                    Some(partition) => {
                        waiting.push(partition);
                        while let Ok(partition) = ready.try_recv() {
                            waiting.push(partition);
                        }
                    }
                    None if in_flight.is_empty() => return,
                    // Every partition is gone; only the answers are left to wait for.
                    None => self.drain(&mut in_flight).await,
                },
                () = tokio::time::sleep_until(look_at), if waits_since.is_some() && look_at < silent_at => {
                    looked_at = Instant::now();
                    let since = in_flight.front().and_then(|oldest| oldest.connection.waits_since());
                    if since.is_none_or(|since| since + LOOK_AFTER <= looked_at) {
                        let _ = self.silences.send(Silence::TargetPauses(self.broker));
                    }
                }
                () = tokio::time::sleep_until(silent_at), if waits_since.is_some() => {
                    let Some(oldest) = in_flight.front() else { continue };
                    told_at = Instant::now();
                    match oldest.connection.waits_since() {
                        // The line is slow, or the broker wants silence.
                        Some(at) if at + SILENT_AFTER > told_at => {
                            self.share.note_silent(false);
                            told_at = at;
                        }
                        _ => {
                            let _ = self.silences.send(Silence::Target(self.broker));
                            let is_left = self.leave_if_in_vain(oldest);
                            // Only steps tell nothing of a quota themselves.
                            let has_steps = in_flight.iter().any(|sent| sent.is_step);
                            let may_be_excused = excused.may_be(room.answers(), oldest.unanswered);
                            if !is_left && has_steps && asked.is_none() && may_be_excused {
                                let silent = oldest.connection.clone();
                                asked = Some(quota::Asked::start(&self.cluster, silent));
                            }
                            // A broker that mutes us isn't silent: whether it does is being asked.
                            if asked.is_none() {
                                self.share.note_silent(true);
                            }
                        }
                    }
                }
                is_muted = quota::answered(&mut asked) => {
                    self.share.note_silent(!is_muted && has_been_silent(&in_flight));
                    if is_muted {
                        excused.note(room.answers());
                    }
                }
                () = parked.ripe(&mut self.fence) => {
                    let ripe = parked.take(&self.fence, &self.cluster);
                    ripe.into_iter().for_each(|partition| waiting.push(partition));
                }
                () = tokio::time::sleep_until(rests_until.unwrap_or(heard_at)), if rests_until.is_some() => {}
                () = woken.awake(), if must_look => {}
                () = self.cancel.cancelled(), if !self.cancel.is_cancelled() => {}
            }
        }
    }

    /// Notes what an answer tells of the line.
    fn measure(&self, line: &mut Line, sent: &Sent) {
        let (quiet_until, round_trip) = (
            sent.connection.quiet_until_last(),
            sent.connection.round_trip(),
        );
        line.answered(sent.mark, quiet_until, round_trip, self.budget.is_mixed());
        self.spread.carried(sent.mark.bytes());
        let full = line.full(sent.mark, round_trip);
        // What a quota holds back is no faster on several connections.
        let is_throttled = sent.mark.is_throttled(quiet_until);
        let may_part = !is_throttled && self.share.partitions() > 1;
        if let Some(full) = full.filter(|_| may_part)
            && self.spread.full(full).is_some()
        {
            let _ = self.spreads.send(At::Target(self.broker));
        }
    }

    async fn drain(&self, in_flight: &mut VecDeque<Sent>) {
        while !in_flight.is_empty() {
            let answer = front(in_flight).await;
            self.share.note_silent(false);
            if let Some(sent) = in_flight.pop_front() {
                let at = sent.at;
                let _ = self.settle(sent, answer, at);
            }
        }
    }

    /// Sends at most one request of each kind with what the waiting partitions have.
    async fn send_next(
        &mut self,
        waiting: &mut Waiting,
        parked: &mut Parked,
        (in_flight, looks): (&mut VecDeque<Sent>, &mut JoinSet<()>),
        (line, room): (&mut Line, &Room),
    ) {
        let most = line.request_bytes(REQUEST_BYTES);
        let metadata = self.cluster.cached();
        let Collected {
            batches,
            fills,
            steps,
        } = collect(waiting, parked, &self.fence, &metadata, most);
        if batches.is_empty() && fills.is_empty() && steps.is_empty() {
            return;
        }
        if in_flight.is_empty() {
            // Connecting is waiting, too.
            self.share.note_waiting(Some(Instant::now()));
        }
        let connection = match self
            .cluster
            .connection(self.broker, Role::Produce(self.lane))
            .await
        {
            Ok(connection) => connection,
            Err(error) => {
                fail_all(batches.into_iter().chain(fills).chain(steps), &error);
                return;
            }
        };
        let fills = self.without_torn(self.without_stale(fills), in_flight, &connection);
        let (fills, unchecked): (Vec<Item>, Vec<Item>) = fills
            .into_iter()
            .partition(|item| item.partition.is_rechecked());
        self.look_at(unchecked, looks);
        let fills = markers::requests(fills, &self.cluster.cached());
        let fills = fills.into_iter().map(|items| (items, Kind::Markers));
        // Connecting may have taken long, and this process may have stood still meanwhile.
        let batches = match self.fence.is_awake() {
            true => batches,
            false => hold(batches),
        };
        for (items, kind) in [(batches, Kind::Produce)].into_iter().chain(fills) {
            if items.is_empty() {
                continue;
            }
            let started = match kind {
                Kind::Produce => produce::start(&connection, &items).map(Answer::Produce),
                Kind::Markers => {
                    // Connecting may have taken long.
                    let Some(epoch) = self.fence.epoch() else {
                        give_back(items);
                        continue;
                    };
                    self.fence.note_filled(markers::count(&items));
                    markers::start(&connection, &items, epoch).map(Answer::Markers)
                }
            };
            let alone_at = in_flight.is_empty().then(Instant::now);
            let bytes = size_bytes(&items);
            match started {
                Ok(answer) => in_flight.push_back(Sent {
                    answer,
                    connection: connection.clone(),
                    items,
                    is_step: matches!(kind, Kind::Markers),
                    unanswered: 0,
                    at: Instant::now(),
                    answered_before: room.answers(),
                    mark: line.sent(bytes),
                    alone_at,
                }),
                Err(error) => fail_all(items, &error),
            }
        }
        let steps = self.without_torn(self.without_stale(steps), in_flight, &connection);
        self.send_steps(&connection, steps, in_flight, (line, room));
    }

    /// Looks at partitions before their first fillers. A broker that takes long may not lead them any more.
    fn look_at(&self, items: Vec<Item>, looks: &mut JoinSet<()>) {
        while let Some(done) = looks.try_join_next() {
            brought(done);
        }
        if items.is_empty() {
            return;
        }
        let (silences, broker) = (self.silences.clone(), self.broker);
        let is_late = move || {
            let _ = silences.send(Silence::Target(broker));
        };
        looks.spawn(Looked::new(items).run(self.cluster.clone(), SILENT_AFTER, is_late));
    }

    /// Closes the partitions that have steps on another connection than the one that is used from now on: what comes
    /// next would go on this one, and nothing is in order there. The other one is closed by now, or it is left since
    /// the broker has another address, and may still carry out what it has.
    fn without_torn(
        &self,
        items: Vec<Item>,
        in_flight: &VecDeque<Sent>,
        connection: &Connection,
    ) -> Vec<Item> {
        let is_torn =
            |sent: &Sent| sent.connection.is_poisoned() || !sent.connection.is(connection);
        if !in_flight.iter().any(is_torn) {
            return items;
        }
        let (torn, whole) = items
            .into_iter()
            .partition(|item| item.partition.unanswered() > 1);
        let context = Arc::new(ErrorContext::cluster(self.cluster.name()));
        fail_all(torn, &WireError::Disconnected { context });
        whole
    }

    /// Sends batches and, right behind them on the same connection, the markers that are answered for both.
    fn send_steps(
        &self,
        connection: &Connection,
        steps: Vec<Item>,
        in_flight: &mut VecDeque<Sent>,
        (line, room): (&mut Line, &Room),
    ) {
        if steps.is_empty() {
            return;
        }
        let Some(epoch) = self.fence.epoch() else {
            give_back(steps);
            return;
        };
        let mut unanswered = match produce::start_unanswered(connection, &steps) {
            Ok(count) => count,
            Err(error) => {
                fail_all(steps, &error);
                return;
            }
        };
        for items in markers::requests(steps, &self.cluster.cached()) {
            self.fence.note_filled(markers::count(&items));
            let alone_at = in_flight.is_empty().then(Instant::now);
            let bytes = size_bytes(&items);
            match markers::start(connection, &items, epoch) {
                Ok(pending) => in_flight.push_back(Sent {
                    answer: Answer::Markers(pending),
                    connection: connection.clone(),
                    items,
                    is_step: true,
                    unanswered: std::mem::take(&mut unanswered),
                    at: Instant::now(),
                    answered_before: room.answers(),
                    mark: line.sent(bytes),
                    alone_at,
                }),
                // The connection is closed: what was sent before is as unknown as any request on it.
                Err(error) => fail_all(items, &error),
            }
        }
    }

    /// Closes the partitions whose position was read while an older process could still fill, and those
    /// that a newer one has filled: they are opened again when only one can.
    fn without_stale(&self, items: Vec<Item>) -> Vec<Item> {
        let not_before = self.fence.not_before();
        let (current, stale): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| {
            let partition = &item.partition;
            partition.read_at >= not_before && self.fence.may_follow(partition.filler_epoch)
        });
        for item in stale {
            item.partition.answered();
            item.partition.fail(Trouble::TakingOver);
        }
        current
    }

    /// Closes the connection of a marker request that may never be answered ([`markers::requests`]):
    /// its partitions, and those that wait behind it, are opened again. Whether it did.
    fn leave_if_in_vain(&self, sent: &Sent) -> bool {
        // Where the partitions are now was looked up since the last call.
        let is_in_vain = matches!(sent.answer, Answer::Markers(_))
            && sent.at.elapsed() >= 2 * SILENT_AFTER
            && markers::waits_in_vain(&sent.items, &self.cluster.cached(), self.broker);
        if is_in_vain {
            tracing::warn!(
                broker = self.broker,
                "no answer to fillers, one of whose partitions isn't there any more: the connection is closed"
            );
            sent.connection.close();
        }
        is_in_vain
    }

    /// Whether the broker's service wants it slower; `None` where it doesn't say.
    fn settle(
        &self,
        sent: Sent,
        answer: Result<Answered, WireError>,
        answered_at: Instant,
    ) -> Option<bool> {
        let silent = sent.at.max(answered_at).elapsed();
        let Sent {
            connection, items, ..
        } = sent;
        match answer {
            Ok(Answered::Produce(response)) => {
                return Some(produce::settle(self.cluster.name(), items, response));
            }
            Ok(Answered::Markers(response, ends)) => {
                markers::settle(self.cluster.name(), items, response, ends);
            }
            Err(error) => {
                // This one: by now the lane may have another.
                connection.close();
                for item in &items {
                    item.partition.note_left_behind(connection.broker(), silent);
                }
                fail_all(items, &error);
            }
        }
        None
    }
}

/// Whether nothing has moved for long that would bring the oldest answer nearer.
fn has_been_silent(in_flight: &VecDeque<Sent>) -> bool {
    in_flight.front().is_some_and(|oldest| {
        let since = oldest.connection.waits_since();
        since.is_none_or(|since| since.elapsed() >= SILENT_AFTER)
    })
}

/// The oldest request's answer; never resolves while there is none.
async fn front(in_flight: &mut VecDeque<Sent>) -> Result<Answered, WireError> {
    match in_flight.front_mut() {
        Some(sent) => (&mut sent.answer).await,
        None => std::future::pending().await,
    }
}

/// Whether a leader goes on to take markers when it loses a replica: batches with acks 0 are taken whatever is in
/// sync (`Partition.appendRecordsToLeader`), and markers aren't.
fn is_replicated(partition: &Partition, target: &Metadata) -> bool {
    let at = &partition.target;
    let in_sync = target
        .partition(&at.topic, at.partition)
        .map_or(0, |found| found.in_sync.len());
    let least = partition.rules.min_in_sync.unwrap_or(usize::MAX);
    least <= 1 || in_sync > least
}

/// What is sent in one go.
#[derive(Default)]
struct Collected {
    batches: Vec<Item>,
    fills: Vec<Item>,
    steps: Vec<Item>,
}

/// None of these are sent now, and their partitions are waited for again.
fn hold(items: Vec<Item>) -> Vec<Item> {
    let partitions: Vec<Arc<Partition>> = items.iter().map(|it| it.partition.clone()).collect();
    give_back(items);
    partitions.iter().for_each(Partition::schedule);
    Vec::new()
}

/// Puts back what wasn't sent after all. Its partitions are still on the lane's list.
fn give_back(items: Vec<Item>) {
    for item in items {
        item.partition.push_front(item.work);
        item.partition.answered();
    }
}

/// What these weigh on the line.
fn size_bytes(items: &[Item]) -> usize {
    items.iter().map(|item| item.work.size_bytes()).sum()
}

/// Takes one sendable piece of each waiting partition, up to `most` bytes. Partitions that
/// still have work stay in the list; the others leave it until they are scheduled again, or, where a
/// filler comes next and none may be sent, are parked.
fn collect(
    waiting: &mut Waiting,
    parked: &mut Parked,
    fence: &Fence,
    target: &Metadata,
    most: usize,
) -> Collected {
    let may_fill = fence.epoch().is_some();
    let mut collected = Collected::default();
    let mut bytes = 0;
    let mut round = waiting.round();
    while bytes < most
        && let Some(partition) = round.next(waiting)
    {
        // What is stale is taken, and closed ([`Lane::without_stale`]).
        let may_fill = may_fill || partition.read_at < fence.not_before();
        let may_step = may_fill && is_replicated(&partition, target);
        match take(&partition, may_fill, may_step.then_some(most)) {
            None if !may_fill && partition.is_at_filler() => {
                parked.push(partition);
                continue;
            }
            Some(work @ Work::Fill(_)) => collected.fills.push(Item {
                partition: partition.clone(),
                work,
            }),
            Some(work @ Work::Step(..)) => {
                bytes += work.size_bytes();
                collected.steps.push(Item {
                    partition: partition.clone(),
                    work,
                });
            }
            Some(Work::Batch(batch)) => {
                bytes += batch.size_bytes();
                collected.batches.push(Item {
                    partition: partition.clone(),
                    work: Work::Batch(batch),
                });
            }
            Some(Work::Skip { .. } | Work::Dear(_)) | None => {
                // Nothing sendable now: an answer or new work schedules it again.
                partition.unschedule();
                if partition.has_work() && partition.unanswered() == 0 && !partition.is_closed() {
                    partition.schedule();
                }
                continue;
            }
        }
        waiting.push(partition);
    }
    collected
}

/// The next sendable work; skipped offsets are settled on the way, long fills are cut.
fn take(partition: &Arc<Partition>, may_fill: bool, step_bytes: Option<usize>) -> Option<Work> {
    loop {
        if !may_fill && partition.is_at_filler() {
            return None;
        }
        match partition.take_sendable(step_bytes)? {
            Work::Skip { source_next } => {
                let from = partition.progress.source_position.load(Ordering::Relaxed);
                let noted = partition.note_in_map(|map| {
                    let from = map.source_end().0.max(from);
                    map.push_hole(
                        SourceOffset(from),
                        u64::try_from(source_next - from).unwrap_or(0),
                    )
                });
                partition.answered();
                if noted.is_err() {
                    partition.fail(map_trouble(partition));
                    return None;
                }
                partition
                    .progress
                    .source_position
                    .store(source_next, Ordering::Relaxed);
                partition.meter.note_change();
            }
            Work::Dear(hole) => {
                partition.answered();
                partition.fail(match partition.rules.fill.may_map {
                    true => Trouble::TurnsMapped(hole),
                    false => Trouble::TooManyHoles(hole),
                });
                return None;
            }
            Work::Fill(fill) if fill.count > MARKERS_PER_REQUEST => {
                let first = FillWork {
                    count: MARKERS_PER_REQUEST,
                    source_next: fill.source_next - (fill.count - MARKERS_PER_REQUEST),
                    ..fill
                };
                partition.push_front(Work::Fill(FillWork {
                    target_base: fill.target_base + MARKERS_PER_REQUEST,
                    count: fill.count - MARKERS_PER_REQUEST,
                    fillers_before: fill.fillers_before + MARKERS_PER_REQUEST,
                    source_next: fill.source_next,
                }));
                return Some(Work::Fill(first));
            }
            work => return Some(work),
        }
    }
}
