//! The source side: one fetch session (KIP-227) to one source broker.
//!
//! A session asks for every partition that has room in its byte budget, long-polls when all of
//! them do, and sends the next fetch *before* it works on the answer: the next offsets are known
//! from the batch headers alone, so the line is busy while batches are checked and stamped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::budget::{Budget, Hold, Reservation};
use super::epochs::{self, Span};
use super::error::Trouble;
use super::intake::{self, Answer};
use super::partition::Partition;
use super::position::Position;
use super::spread::{Full, Spread, TIMES};
use super::throttle::Throttle;
use super::turns;
use crate::telemetry::progress::{FlowProgress, Listening, Teller, now_ms};
use crate::wire::{Cluster, Connection, Pending, Role, WireError};

/// Fetches by topic id from here on (KIP-516, Kafka 3.1): a recreated topic can't be mistaken.
pub(super) const FETCH_VERSION_MIN: i16 = 13;
/// The newest version that adds nothing but what brokers need among themselves.
const FETCH_VERSION_MAX: i16 = 16;
/// How long an idle fetch waits at the broker.
const LONG_POLL: Duration = Duration::from_millis(500);
/// How long a fetch of the crowded ones waits while some of them are out of room.
const SHORT_POLL: Duration = Duration::from_millis(10);
/// A session of partitions that were out of room lately. The broker looks at every partition of a session
/// again for each fetch (`IncrementalFetchContext`): so a few that must be asked for often have one of
/// their own, and the many others wait at the broker.
pub(super) const CROWDED: u16 = 1;
/// A session of partitions that are read from remote storage ([`super::remote`]).
pub(super) const REMOTE: u16 = 2;
/// How long a fetch of these waits: remote storage has its own limit (`remote.fetch.max.wait.ms`) or that of the fetch.
const REMOTE_POLL: Duration = Duration::from_secs(5);
/// So long after it was out of room last, a partition is an ordinary one again.
const CROWDED_FOR: Duration = Duration::from_secs(10);
/// Between two looks while there is no room.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// After so long without an answer it is looked who leads the partitions.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// What a partition is asked for before anything of it has come: it isn't known how far behind it is, and there may be
/// many.
const PARTITION_BYTES_LOOK: u64 = 128 * 1024;
/// What a partition is asked for then, at first.
const PARTITION_BYTES_FIRST: u64 = 1024 * 1024;
/// What one fetch may bring, between close brokers. An answer's memory is held until its last batch is
/// acknowledged, so large answers cost memory; between close brokers they gain nothing.
const FETCH_BYTES_FIRST: u64 = 4 * 1024 * 1024;
/// What the very first ones may bring: a line that is thin, or long, shows before much is asked for.
const FETCH_BYTES_START: u64 = 1024 * 1024;
/// What one fetch may bring at most: 160 MB/s over a line with 100 ms there and back.
const FETCH_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A session at rest looks at each of its partitions again after this, whatever nobody has told.
const REST_MAX: Duration = Duration::from_secs(30);
/// An answer that is full, took longer than this and found the target with nothing left to do
/// makes the next one larger.
const SLOW_ANSWER: Duration = Duration::from_millis(20);

/// An answer that took longer than this makes the next ones smaller: until it is there the line carries nothing
/// that is newer.
const LONG_ANSWER: Duration = Duration::from_secs(4);
/// How long one takes then. The way there and back, when the line is idle, is a small part of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Brokers' socket buffers hold less.
const FULL_BYTES: u64 = 128 * 1024;
/// Answers aren't made smaller than this.
const FETCH_BYTES_LEAST: u64 = 64 * 1024;

/// A partition to be fetched, from where.
pub struct Opening {
    /// The open partition.
    pub partition: Arc<Partition>,
    /// Where to go on, and where the first fetch begins.
    pub position: Position,
    /// The source leader's epoch, which the broker checks (KIP-320).
    pub leader_epoch: i32,
    /// The epoch of the last record copied, or -1: the broker tells when the logs diverge there.
    pub last_epoch: i32,
    /// When the leader is asked again who serves it best; `None`: with every fetch.
    pub until: Option<Instant>,
}

/// A broker that has answered nothing for some time: its partitions may have other leaders by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Silence {
    /// A broker of the source.
    Source(i32),
    /// A broker of the target.
    Target(i32),
    /// A broker of the target that takes longer than most, which is no silence yet: nothing is left for it.
    TargetPauses(i32),
}

/// A partition that is better fetched from another broker (KIP-392), or by another session.
pub struct Handover {
    /// From which session.
    pub from: Seat,
    /// To whom.
    pub to: Server,
    /// The partition as it stands.
    pub opening: Opening,
}

/// Who serves a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Its leader, whoever that is.
    Leader,
    /// The replica that the leader named.
    Replica(i32),
    /// The same broker in another session: [`CROWDED`], [`REMOTE`], or any that isn't.
    Lane(u16),
}

/// Sessions of partitions of a kind, which a broker may have beside the others.
pub(super) const SPECIAL: [u16; 2] = [CROWDED, REMOTE];

/// A broker's sessions are counted without those of partitions of a kind.
pub(super) fn lane_number(nth: u16) -> u16 {
    match nth {
        0 => 0,
        nth => nth + REMOTE,
    }
}

/// Whether the session is one of partitions of a kind.
pub(super) fn is_special(lane: u16) -> bool {
    SPECIAL.contains(&lane)
}

/// One of a broker's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    /// The broker it fetches from.
    pub broker: i32,
    /// [`CROWDED`], [`REMOTE`], or the number of one that is neither ([`lane_number`]).
    pub lane: u16,
    /// Whether the broker is told our rack, so that it may name closer replicas of what it leads.
    pub tells_rack: bool,
}

/// What a session needs.
pub struct Session {
    /// The source cluster.
    pub cluster: Cluster,
    /// Which of a broker's sessions this is.
    pub seat: Seat,
    /// The flow's bytes in flight.
    pub budget: Arc<Budget>,
    /// How many sessions share the budget.
    pub sessions: Arc<AtomicUsize>,
    /// The flow's bytes per second.
    pub throttle: Arc<Throttle>,
    /// Where partitions go that another broker serves better.
    pub handovers: mpsc::UnboundedSender<Handover>,
    /// Who is told that the broker answers nothing.
    pub silences: mpsc::UnboundedSender<Silence>,
    /// Over how many sessions the broker's partitions are spread.
    pub spread: Arc<Spread>,
    /// Where it is noted when the source answered.
    pub progress: Arc<FlowProgress>,
    /// Ends the session.
    pub cancel: CancellationToken,
}

struct Slot {
    partition: Arc<Partition>,
    /// Where the intake stands.
    position: Position,
    /// Where the next fetch begins; ahead of the intake by one answer at most.
    fetch_offset: i64,
    leader_epoch: i32,
    last_epoch: i32,
    until: Option<Instant>,
    wanted_bytes: u64,
    /// When it was out of room last, or came here.
    crowded_at: Instant,
    /// In which of the session's fetches it had its turn last, while it was behind.
    turn: u64,
    /// What the broker's session holds for this partition: offset and size.
    in_session: Option<(i64, i32)>,
    /// While the session's answers tell its end.
    listening: Option<Listening>,
}

impl Slot {
    /// Behind an answer: whether it has told the partition's end. A follower's end isn't the source's.
    fn note_told(&mut self, teller: &Arc<Teller>) {
        let progress = &self.partition.progress;
        let is_told =
            self.in_session.is_some() && !self.partition.is_closed() && !progress.is_followed();
        if is_told != self.listening.is_some() {
            let listening = || Listening::new(progress.clone(), teller.clone());
            self.listening = is_told.then(listening);
        }
    }
}

type Slots = BTreeMap<(Uuid, i32), Slot>;

/// The broker's side of the session.
#[derive(Default)]
struct SessionState {
    id: i32,
    epoch: i32,
    forgotten: Vec<(Uuid, i32)>,
    /// Fetches so far.
    turn: u64,
    /// How many sessions there were when this one parted from some of its partitions last.
    spread_over: u16,
    /// When the question was asked that was answered last, milliseconds since the epoch.
    seen_ms: i64,
    /// The same, for those who look at its partitions.
    teller: Arc<Teller>,
    /// Whether the last request named no partition, and asked for all of them.
    asks_the_same: bool,
    rest: Option<Rest>,
}

/// A session is at rest when its last fetch asked for what the broker's session holds, and brought nothing. The next one
/// is the same then, until something changes: with thousands of partitions, looking at each is all that rest costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    /// See [`Budget::changes`].
    changes: u64,
    until: Instant,
}

impl SessionState {
    /// Whether nothing has changed since.
    fn is_at_rest(&self, changes: u64) -> bool {
        let holds = |rest: Rest| rest.changes == changes && Instant::now() < rest.until;
        self.rest.is_some_and(holds)
    }

    /// Notes an answer to what was asked when there were so many changes. Nobody needs to look before `until`.
    fn note_rest(&mut self, changes: u64, is_empty: bool, until: Instant) {
        let same = self.rest.filter(|rest| rest.changes == changes);
        let until = same.map_or(until, |rest| rest.until);
        // What it has to forget since the question was sent is in the next one.
        let is_same = self.asks_the_same && self.forgotten.is_empty();
        self.rest = (is_same && is_empty).then_some(Rest { changes, until });
    }
}

/// How much to ask for: more, while the line is what everything waits for.
struct Pace {
    /// What the next fetch may bring, bytes.
    fetch_bytes: u64,
    /// Whether the last answer came late and found the target with nothing left to do.
    starved: bool,
    /// What an answer may bring while some partitions are behind and others aren't, as far as that is known.
    shared_bytes: Option<u64>,
}

impl Pace {
    fn first() -> Self {
        Self {
            fetch_bytes: FETCH_BYTES_START,
            starved: false,
            shared_bytes: None,
        }
    }

    /// What the next fetch may bring where others wait behind its answer.
    fn shared(&self, bytes_per_second: Option<u64>) -> u64 {
        // Under a limit of ours the next fetch waits for as long as this answer is worth.
        let limit = bytes_per_second.map(|rate| turns::answer_bytes(rate as f64, Duration::ZERO));
        let most = [self.shared_bytes, limit].into_iter().flatten().min();
        let most = most.unwrap_or(u64::MAX).max(FETCH_BYTES_LEAST);
        most.min(self.fetch_bytes)
    }

    /// Notes how long an answer of so many bytes took.
    fn note_rate(&mut self, bytes: u64, took: Duration, round_trip: Duration) {
        if bytes >= FETCH_BYTES_LEAST {
            let rate = bytes as f64 / took.as_secs_f64().max(1e-6);
            self.shared_bytes = Some(turns::answer_bytes(rate, round_trip));
        }
    }

    /// Behind an answer with so many bytes. `is_idle`: the target has nothing left to do. Whether more
    /// is asked for from now on.
    fn note(&mut self, bytes: u64, took: Duration, is_idle: bool) -> bool {
        self.starved = took >= SLOW_ANSWER && is_idle;
        if took >= LONG_ANSWER && bytes > FETCH_BYTES_LEAST {
            let rate = bytes as f64 / took.as_secs_f64();
            let within = (rate * ANSWER_WITHIN.as_secs_f64()) as u64;
            self.fetch_bytes = within.clamp(FETCH_BYTES_LEAST, self.fetch_bytes);
            return false;
        }
        let was_cut = self.fetch_bytes < FETCH_BYTES_FIRST;
        let is_full = bytes * 4 >= self.fetch_bytes * 3;
        let asks_more = is_full && (self.starved || was_cut) && took * 2 <= ANSWER_WITHIN;
        if asks_more {
            self.fetch_bytes = (self.fetch_bytes * 2).min(FETCH_BYTES_MAX);
        }
        asks_more
    }
}

/// A fetch answer's records that still have to go through the intake.
struct Fetched {
    key: (Uuid, i32),
    /// Who it was fetched for. The same key may have been closed and opened again meanwhile, at
    /// an earlier position: to that one, these records would come after a hole.
    partition: Arc<Partition>,
    /// The offset that was asked for.
    from: i64,
    records: Bytes,
    aborted: Vec<(i64, i64)>,
    high_watermark: i64,
    /// In flight from its arrival on; the work that comes out holds its own share.
    _hold: Hold,
}

struct Sent {
    pending: Pending<FetchResponse>,
    connection: Connection,
    _reservation: Reservation,
    at: Instant,
    /// By the clock, milliseconds since the epoch.
    at_ms: i64,
}

impl Session {
    /// Runs until cancelled.
    pub async fn run(self, mut commands: mpsc::UnboundedReceiver<Opening>) {
        let mut slots = Slots::new();
        let mut state = SessionState {
            spread_over: self.spread.count(),
            ..SessionState::default()
        };
        let mut pace = Pace::first();
        let mut fetched: Vec<Fetched> = Vec::new();
        loop {
            while let Ok(opening) = commands.try_recv() {
                add(&mut slots, &mut state, opening);
            }
            // First: what changes behind this is seen the next time.
            let changes = self.budget.changes();
            let is_at_rest = state.is_at_rest(changes);
            if !is_at_rest {
                state.rest = None;
                forget_closed(&mut slots, &mut state);
                self.hand_back(&mut slots, &mut state);
            }
            if slots.is_empty() {
                tokio::select! {
                    () = self.cancel.cancelled() => return,
                    opening = commands.recv() => match opening {
                        Some(opening) => add(&mut slots, &mut state, opening),
                        None => return,
                    },
                }
                continue;
            }
            let freed = self.budget.freed();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let sent = match self.send(&mut slots, &mut state, &pace).await {
                Ok(sent) => sent,
                Err(error) => {
                    self.lose(&mut slots, &mut state, &error).await;
                    continue;
                }
            };
            take_in(&mut slots, std::mem::take(&mut fetched));
            if !is_at_rest {
                self.part(&mut slots, &mut state);
            }
            let Some(sent) = sent else {
                tokio::select! {
                    () = self.cancel.cancelled() => return,
                    () = &mut freed => {}
                    opening = commands.recv() => if let Some(opening) = opening { add(&mut slots, &mut state, opening) },
                    // Closed partitions and lanes that don't answer are looked for now and then, also
                    // when nothing moves.
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
                continue;
            };
            let (at, at_ms, round_trip) = (sent.at, sent.at_ms, sent.connection.round_trip());
            let Some(answer) = self.answer(sent).await else {
                return;
            };
            let took = match self.seat.lane {
                // It is the storage that takes long, not the line.
                REMOTE => at.elapsed().min(ANSWER_WITHIN / 2),
                _ => at.elapsed(),
            };
            match answer {
                Ok(response) => {
                    let is_idle = self.budget.held() < self.budget.window() / 8;
                    let bytes = bytes_of(&response);
                    self.spread.carried(bytes);
                    let full = Full {
                        bytes,
                        took,
                        round_trip,
                    };
                    if is_idle
                        && bytes >= FULL_BYTES
                        && slots.len() > 1
                        && !is_special(self.seat.lane)
                    {
                        // All of them see that there are more.
                        let _ = self.spread.full(full);
                    }
                    pace.note_rate(bytes, took, round_trip);
                    let asks_more = pace.note(bytes, took, is_idle);
                    if asks_more && pace.starved && pace.fetch_bytes >= self.budget.window() {
                        self.budget.widen();
                    }
                    let is_empty = response.responses.is_empty();
                    let bytes = self.read(&mut slots, &mut state, response, &pace, &mut fetched);
                    if bytes.is_some() {
                        if !is_at_rest || !is_empty {
                            note_told(&mut slots, &state);
                        }
                        self.note_seen(&mut state, at_ms);
                        let until = match is_at_rest {
                            true => at,
                            false => rests_until(&slots),
                        };
                        state.note_rest(changes, is_empty && !is_special(self.seat.lane), until);
                    }
                    let bytes = bytes.unwrap_or(0);
                    tokio::select! {
                        () = self.cancel.cancelled() => return,
                        () = self.throttle.take(bytes) => {}
                    }
                }
                Err(error) => self.lose(&mut slots, &mut state, &error).await,
            }
        }
    }

    /// Waits for an answer; `None` when the session ends before.
    async fn answer(&self, sent: Sent) -> Option<Result<FetchResponse, WireError>> {
        let Sent {
            mut pending,
            connection,
            ..
        } = sent;
        let waits = match self.seat.lane {
            REMOTE => REMOTE_POLL,
            _ => Duration::ZERO,
        };
        let mut silent_at = sent.at + waits + SILENT_AFTER;
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return None,
                answer = &mut pending => return Some(answer),
                () = tokio::time::sleep_until(silent_at) => {
                    let now = Instant::now();
                    silent_at = match connection.waits_since() {
                        // The line is slow, or the broker wants silence.
                        Some(at) if at + SILENT_AFTER > now => at,
                        _ => {
                            let _ = self.silences.send(Silence::Source(self.seat.broker));
                            now
                        }
                    } + SILENT_AFTER;
                }
            }
        }
    }

    /// Hands partitions over to the session where they belong: those out of room to the crowded one, and
    /// back when they have had room for some time. Only what the intake stands at goes over.
    fn part(&self, slots: &mut Slots, state: &mut SessionState) {
        let least = self.least();
        let goes_to = |slot: &Slot| {
            let has_room = slot.partition.meter.free() >= least;
            let is_remote = slot.partition.progress.is_remote(slot.position.source);
            match self.seat.lane {
                // One that is out of room is asked for there in its own time, too.
                REMOTE => (!is_remote).then_some(0),
                _ if is_remote => Some(REMOTE),
                CROWDED => (has_room && slot.crowded_at.elapsed() >= CROWDED_FOR).then_some(0),
                _ => (!has_room && slots.len() > 1).then_some(CROWDED),
            }
        };
        let moving: Vec<((Uuid, i32), u16)> = slots
            .iter()
            .filter_map(|(key, slot)| Some((*key, goes_to(slot)?)))
            .collect();
        for (key, lane) in moving {
            self.hand_over(slots, state, key, Server::Lane(lane));
        }
        self.spread_out(slots, state);
    }

    /// Shares the partitions with the sessions that were added for this one.
    fn spread_out(&self, slots: &mut Slots, state: &mut SessionState) {
        let count = self.spread.count();
        while !is_special(self.seat.lane) && state.spread_over < count {
            let before = state.spread_over.max(1);
            let now = before.saturating_mul(TIMES).min(count);
            state.spread_over = now;
            let own = self.seat.lane.saturating_sub(REMOTE);
            let heirs: Vec<u16> = (own..now).step_by(usize::from(before)).collect();
            if own >= before {
                continue;
            }
            let shared = slots.keys().copied().zip(heirs.iter().cycle());
            let moving: Vec<((Uuid, i32), u16)> = shared
                .map(|(key, heir)| (key, *heir))
                .filter(|(_, heir)| *heir != own)
                .collect();
            for (key, heir) in moving {
                self.hand_over(slots, state, key, Server::Lane(lane_number(heir)));
            }
        }
    }

    /// A partition with less room isn't asked for.
    fn least(&self) -> u64 {
        (self.budget.partition_limit() / 4).max(1)
    }

    /// Sends the next fetch; `None` when no partition has room.
    async fn send(
        &self,
        slots: &mut Slots,
        state: &mut SessionState,
        pace: &Pace,
    ) -> Result<Option<Sent>, WireError> {
        let sessions = self.sessions.load(Ordering::Relaxed).max(1) as u64;
        let wanted = match self.budget.is_mixed() {
            true => pace.shared(self.throttle.bytes_per_second().map(|it| it / sessions)),
            false => pace.fetch_bytes,
        };
        // Looked at first: what is reserved for nothing wakes others for nothing when it is given back.
        let room = self.budget.room(wanted, sessions);
        let can_fetch = |slot: &Slot| {
            let meter = &slot.partition.meter;
            meter.free() >= self.least() && !meter.is_left_out()
        };
        let is_at_rest = state.rest.is_some();
        let Some(room) = room.filter(|_| is_at_rest || slots.values().any(can_fetch)) else {
            return Ok(None);
        };
        let Some(reservation) = self.budget.reserve_fetch(room) else {
            return Ok(None);
        };
        let connection = self
            .cluster
            .connection(self.seat.broker, self.role())
            .await?;
        connection.version_at_least::<FetchRequest>(FETCH_VERSION_MIN, FETCH_VERSION_MAX)?;
        let request = match is_at_rest {
            true => Some(self.same_request(state, &reservation)),
            false => self.request(slots, state, &reservation),
        };
        let Some(request) = request else {
            return Ok(None);
        };
        let pending = connection.start(&request, FETCH_VERSION_MAX)?;
        Ok(Some(Sent {
            pending,
            connection,
            _reservation: reservation,
            at: Instant::now(),
            at_ms: now_ms(),
        }))
    }

    fn request(
        &self,
        slots: &mut Slots,
        state: &mut SessionState,
        reservation: &Reservation,
    ) -> Option<FetchRequest> {
        let least = self.least();
        let full = state.epoch == 0;
        let turns = share_turns(slots, state, least, reservation.bytes);
        let mut topics: BTreeMap<Uuid, FetchTopic> = BTreeMap::new();
        let (mut asked, mut out_of_room) = (0_usize, 0_usize);
        for ((topic_id, index), slot) in slots.iter_mut() {
            let free = slot.partition.meter.free();
            let is_left_out = slot.partition.meter.is_left_out();
            if free < least || is_left_out {
                // When a lane answers again is seen by the next fetch.
                out_of_room += usize::from(!is_left_out);
                if !is_left_out {
                    slot.crowded_at = Instant::now();
                }
                if slot.in_session.take().is_some() {
                    state.forgotten.push((*topic_id, *index));
                    slot.listening = None;
                }
                continue;
            }
            asked += 1;
            let is_behind = slot.partition.meter.is_behind();
            if is_behind && slot.turn != state.turn {
                // Others have their turn.
                if slot.in_session.take().is_some() {
                    state.forgotten.push((*topic_id, *index));
                    slot.listening = None;
                }
                continue;
            }
            let most = if is_behind { turns.bytes } else { u64::MAX };
            let bytes = slot.wanted_bytes.min(free).min(most);
            let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
            // A size that is a little larger isn't worth naming the partition again.
            let known = slot.in_session.is_some_and(|(offset, held_bytes)| {
                let fits = held_bytes <= bytes && bytes / 4 < held_bytes;
                offset == slot.fetch_offset && fits
            });
            if full || !known {
                slot.in_session = Some((slot.fetch_offset, bytes));
                let partition = FetchPartition::default()
                    .with_partition(*index)
                    .with_current_leader_epoch(slot.leader_epoch)
                    .with_fetch_offset(slot.fetch_offset)
                    .with_last_fetched_epoch(slot.last_epoch)
                    .with_partition_max_bytes(bytes);
                topics
                    .entry(*topic_id)
                    .or_insert_with(|| FetchTopic::default().with_topic_id(*topic_id))
                    .partitions
                    .push(partition);
            }
        }
        if asked == 0 {
            return None;
        }
        let wait = match self.seat.lane {
            REMOTE => REMOTE_POLL,
            CROWDED if out_of_room > 0 => SHORT_POLL,
            _ => LONG_POLL,
        };
        let forgotten = if full {
            state.forgotten.clear();
            Vec::new()
        } else {
            forgotten_topics(state, slots)
        };
        // Partitions that are behind have turns: the next request is another one.
        let is_all = slots.values().all(|slot| slot.in_session.is_some());
        state.asks_the_same = !full && is_all && topics.is_empty() && forgotten.is_empty();
        let request = self.same_request(state, reservation);
        Some(
            request
                .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(500))
                .with_topics(topics.into_values().collect())
                .with_forgotten_topics_data(forgotten),
        )
    }

    /// A request for what the broker's session holds.
    fn same_request(&self, state: &SessionState, reservation: &Reservation) -> FetchRequest {
        FetchRequest::default()
            .with_max_wait_ms(i32::try_from(LONG_POLL.as_millis()).unwrap_or(500))
            .with_min_bytes(1)
            .with_max_bytes(i32::try_from(reservation.bytes).unwrap_or(i32::MAX))
            .with_isolation_level(1)
            .with_session_id(state.id)
            .with_session_epoch(state.epoch)
            .with_rack_id(StrBytes::from_string(self.rack()))
    }

    fn rack(&self) -> String {
        let rack = self.cluster.config().client_rack.clone();
        rack.filter(|_| self.seat.tells_rack).unwrap_or_default()
    }

    fn role(&self) -> Role {
        Role::Fetch(2 * self.seat.lane + u16::from(!self.seat.tells_rack))
    }

    /// Behind an answer that was read: when the question was asked is when these ends were seen.
    fn note_seen(&self, state: &mut SessionState, asked_ms: i64) {
        state.seen_ms = asked_ms;
        state.teller.answered(asked_ms);
        self.progress.note_source_seen(asked_ms);
    }

    /// Reads an answer's headers and moves the fetch offsets. Returns the bytes of records; nothing where the
    /// session has to be begun again.
    fn read(
        &self,
        slots: &mut Slots,
        state: &mut SessionState,
        response: FetchResponse,
        pace: &Pace,
        fetched: &mut Vec<Fetched>,
    ) -> Option<u64> {
        if let Some(code) = ResponseError::try_from_code(response.error_code) {
            // The broker evicted or restarted the session; it is begun again with every partition.
            reset_session(slots, state);
            if !matches!(
                code,
                ResponseError::FetchSessionIdNotFound | ResponseError::InvalidFetchSessionEpoch
            ) {
                for slot in slots.values() {
                    slot.partition
                        .fail(Trouble::broker(&self.cluster_name(), code, None));
                }
            }
            return None;
        }
        state.id = response.session_id;
        // Session id 0: the broker has no room for a session, so every fetch names everything.
        state.epoch = if response.session_id == 0 {
            0
        } else {
            next_epoch(state.epoch)
        };
        let mut bytes = 0;
        let answer_bytes = usize::try_from(bytes_of(&response)).unwrap_or(usize::MAX);
        for topic in response.responses {
            for data in topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                let Some(slot) = slots.get_mut(&key) else {
                    continue;
                };
                if slot.partition.is_closed() {
                    continue;
                }
                if let Some(broker) = self.better_broker(&data) {
                    let at_ms = state.seen_ms;
                    slot.partition.progress.set_followed(true, at_ms);
                    self.hand_over(slots, state, key, Server::Replica(broker));
                    continue;
                }
                bytes += self.read_partition(slot, (key, answer_bytes), data, pace, fetched);
            }
        }
        Some(bytes)
    }

    fn better_broker(&self, data: &PartitionData) -> Option<i32> {
        let preferred = data.preferred_read_replica.0;
        (data.error_code == 0 && preferred >= 0 && preferred != self.seat.broker)
            .then_some(preferred)
    }

    fn hand_over(&self, slots: &mut Slots, state: &mut SessionState, key: (Uuid, i32), to: Server) {
        if let Some(slot) = slots.remove(&key) {
            state.forgotten.push(key);
            let opening = Opening {
                position: slot.position,
                leader_epoch: slot.leader_epoch,
                last_epoch: slot.last_epoch,
                until: slot.until,
                partition: slot.partition,
            };
            let from = self.seat;
            let _ = self.handovers.send(Handover { from, to, opening });
        }
    }

    /// Gives partitions back to their leaders when their time here is over.
    fn hand_back(&self, slots: &mut Slots, state: &mut SessionState) {
        let is_over = |slot: &Slot| slot.until.is_some_and(|until| until <= Instant::now());
        let over = slots.iter().filter(|(_, slot)| is_over(slot));
        let over: Vec<(Uuid, i32)> = over.map(|(key, _)| *key).collect();
        for key in over {
            self.hand_over(slots, state, key, Server::Leader);
        }
    }

    fn read_partition(
        &self,
        slot: &mut Slot,
        (key, answer_bytes): ((Uuid, i32), usize),
        data: PartitionData,
        pace: &Pace,
        fetched: &mut Vec<Fetched>,
    ) -> u64 {
        if let Some(code) = ResponseError::try_from_code(data.error_code) {
            slot.partition
                .fail(Trouble::broker(&self.cluster_name(), code, None));
            return 0;
        }
        if data.diverging_epoch.epoch >= 0 {
            // Opening it again asks the leader, and stops the partition if it confirms this. A
            // follower may be a log of yesterday.
            slot.partition.fail(Trouble::SourceDiverges {
                epoch: data.diverging_epoch.epoch,
                end: data.diverging_epoch.end_offset,
            });
            return 0;
        }
        note_ends(&slot.partition, &data);
        let records = data.records.unwrap_or_default();
        let records = out_of(answer_bytes, records, slot.partition.meter.lags());
        if !records.is_empty() {
            slot.wanted_bytes = slot.wanted_bytes.max(PARTITION_BYTES_FIRST);
        }
        let scan = scan(&records, slot.fetch_offset);
        note_behind(
            slot,
            records.len() as u64,
            scan.as_ref(),
            data.last_stable_offset,
        );
        let Some(scan) = scan else {
            return 0;
        };
        let from = slot.fetch_offset;
        let judged = scan
            .hole
            .and_then(|hole| slot.partition.judge_hole(from, hole));
        if let Some(missed) = judged {
            // Nothing of this answer is copied before that is written down.
            slot.partition.fail(Trouble::DeletesMissed(missed));
            return 0;
        }
        let size = records.len() as u64;
        if pace.starved && size * 4 >= slot.wanted_bytes * 3 {
            slot.wanted_bytes = (slot.wanted_bytes * 2)
                .min(self.budget.partition_limit() / 2)
                .max(1);
        }
        slot.fetch_offset = slot.fetch_offset.max(scan.next_offset);
        slot.last_epoch = scan.last_epoch;
        slot.partition.epochs.note(&scan.epochs);
        let aborted = data
            .aborted_transactions
            .unwrap_or_default()
            .into_iter()
            .map(|transaction| (transaction.producer_id.0, transaction.first_offset))
            .collect();
        let _hold = slot.partition.meter.hold(size);
        fetched.push(Fetched {
            _hold,
            key,
            partition: slot.partition.clone(),
            from,
            records,
            aborted,
            high_watermark: data.high_watermark,
        });
        size
    }

    /// The connection is gone: every partition of the session finds its leader anew.
    async fn lose(&self, slots: &mut Slots, state: &mut SessionState, error: &WireError) {
        self.cluster
            .drop_connection(self.seat.broker, self.role())
            .await;
        for slot in slots.values() {
            slot.partition.fail(Trouble::Wire(error.clone()));
        }
        slots.clear();
        *state = SessionState {
            spread_over: state.spread_over,
            ..SessionState::default()
        };
    }

    fn cluster_name(&self) -> String {
        format!("source ({})", self.cluster.name())
    }
}

/// Until when nothing changes with time alone: who is served by a follower goes back to its leader then.
fn rests_until(slots: &Slots) -> Instant {
    let over = slots.values().filter_map(|slot| slot.until).min();
    let most = Instant::now() + REST_MAX;
    over.map_or(most, |over| over.min(most))
}

/// Behind an answer that was read: whose ends it tells.
fn note_told(slots: &mut Slots, state: &SessionState) {
    for slot in slots.values_mut() {
        slot.note_told(&state.teller);
    }
}

/// Gives partitions that are behind their turns in the next fetch, those first that have waited longest.
fn share_turns(
    slots: &mut Slots,
    state: &mut SessionState,
    least: u64,
    fetch_bytes: u64,
) -> turns::Turns {
    state.turn += 1;
    let (mut current, mut behind) = (0, Vec::new());
    for (key, slot) in slots.iter() {
        let meter = &slot.partition.meter;
        if meter.is_behind() {
            let has_room = meter.free() >= least && !meter.is_left_out();
            behind.extend(has_room.then_some((slot.turn, *key)));
        } else {
            current += 1;
        }
    }
    let turns = turns::turns(fetch_bytes, behind.len(), current);
    behind.sort_unstable();
    for (_, key) in behind.into_iter().take(turns.partitions) {
        if let Some(slot) = slots.get_mut(&key) {
            slot.turn = state.turn;
        }
    }
    turns
}

/// Notes how far the partition is, behind an answer.
fn note_behind(slot: &Slot, bytes: u64, scan: Option<&Scan>, stable_end: i64) {
    let meter = &slot.partition.meter;
    let next = scan.map_or(slot.fetch_offset, |scan| scan.next_offset);
    let seen = turns::Seen {
        bytes,
        offsets: next - slot.fetch_offset,
        left: stable_end - next,
    };
    meter.set_behind(turns::is_behind(meter.is_behind(), seen));
}

/// The bytes of records in an answer.
fn bytes_of(response: &FetchResponse) -> u64 {
    let topics = response.responses.iter();
    let all = topics.flat_map(|topic| &topic.partitions);
    all.map(|data| data.records.as_ref().map_or(0, Bytes::len) as u64)
        .sum()
}

fn add(slots: &mut Slots, state: &mut SessionState, opening: Opening) {
    let key = (
        opening.partition.source_topic_id,
        opening.partition.source.partition,
    );
    state.rest = None;
    // A partition that was closed and opened again keeps no trace in the broker's session.
    if slots
        .remove(&key)
        .is_some_and(|old| old.in_session.is_some())
    {
        state.forgotten.push(key);
    }
    slots.insert(
        key,
        Slot {
            fetch_offset: opening.position.source,
            position: opening.position,
            leader_epoch: opening.leader_epoch,
            last_epoch: opening.last_epoch,
            until: opening.until,
            wanted_bytes: PARTITION_BYTES_LOOK,
            crowded_at: Instant::now(),
            turn: 0,
            in_session: None,
            listening: None,
            partition: opening.partition,
        },
    );
}

fn forget_closed(slots: &mut Slots, state: &mut SessionState) {
    slots.retain(|(topic_id, index), slot| {
        let closed = slot.partition.is_closed();
        if closed && slot.in_session.is_some() {
            state.forgotten.push((*topic_id, *index));
        }
        !closed
    });
}

/// The partitions to forget, without those that are asked for again in the same request: those
/// are updated by being named.
fn forgotten_topics(state: &mut SessionState, slots: &Slots) -> Vec<ForgottenTopic> {
    let mut topics: BTreeMap<Uuid, ForgottenTopic> = BTreeMap::new();
    for (topic_id, index) in state.forgotten.drain(..) {
        if slots
            .get(&(topic_id, index))
            .is_some_and(|slot| slot.in_session.is_some())
        {
            continue;
        }
        let topic = topics
            .entry(topic_id)
            .or_insert_with(|| ForgottenTopic::default().with_topic_id(topic_id));
        if !topic.partitions.contains(&index) {
            topic.partitions.push(index);
        }
    }
    topics.into_values().collect()
}

fn reset_session(slots: &mut Slots, state: &mut SessionState) {
    *state = SessionState {
        seen_ms: state.seen_ms,
        teller: state.teller.clone(),
        spread_over: state.spread_over,
        turn: state.turn,
        ..SessionState::default()
    };
    slots.values_mut().for_each(|slot| slot.in_session = None);
}

/// Session epochs count up from 1 and wrap to 1 (`FetchMetadata.nextEpoch`).
fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

fn note_ends(partition: &Partition, data: &PartitionData) {
    let progress = &partition.progress;
    if progress.is_followed() {
        progress.note_follower_ends(data.high_watermark, data.last_stable_offset);
    } else {
        progress
            .source_high_watermark
            .store(data.high_watermark, Ordering::Relaxed);
        progress
            .source_stable_end
            .store(data.last_stable_offset, Ordering::Relaxed);
        progress.note_end_told();
    }
    progress
        .source_log_start
        .store(data.log_start_offset, Ordering::Relaxed);
    progress.note_change();
    if progress.lag_offsets() == 0 {
        progress.caught_up_at_ms.store(now_ms(), Ordering::Relaxed);
    }
}

/// Takes the answers through the intake and queues what comes out.
///
/// The intake makes a hole of every offset that it isn't shown, so it may only be shown what
/// begins where it stands.
fn take_in(slots: &mut Slots, fetched: Vec<Fetched>) {
    for Fetched {
        key,
        partition: fetched_for,
        from,
        records,
        aborted,
        high_watermark,
        _hold,
    } in fetched
    {
        let Some(slot) = slots.get_mut(&key) else {
            continue;
        };
        let partition = &slot.partition;
        if !Arc::ptr_eq(partition, &fetched_for) || partition.is_closed() {
            continue;
        }
        if slot.position.halted {
            continue;
        }
        if from > slot.position.source {
            partition.fail(Trouble::Discontinuous {
                position: slot.position.source,
                fetched_from: from,
            });
            continue;
        }
        let (work, result) = intake::take(
            &partition.rules,
            &partition.meter,
            &mut slot.position,
            &mut partition.tombstones(),
            Answer {
                records: &records,
                aborted: &aborted,
                high_watermark,
            },
        );
        partition.push(work);
        if let Err(error) = result {
            partition.fail(Trouble::Batch(error));
        }
    }
}

/// Records are slices of the answer that they came in, and keep all of it in memory. A small part of
/// one that will wait for its lane is copied out.
fn out_of(answer_bytes: usize, records: Bytes, will_wait: bool) -> Bytes {
    match will_wait && records.len() < answer_bytes / 4 {
        true => Bytes::copy_from_slice(&records),
        false => records,
    }
}

/// What the headers of a record set say about its end.
#[derive(Debug, PartialEq, Eq)]
struct Scan {
    next_offset: i64,
    last_epoch: i32,
    epochs: Vec<Span>,
    /// The first offset that has no record, nor a marker: only a cleaner leaves such.
    hole: Option<i64>,
}

/// Walks over whole batches by their length fields alone. Bytes are judged later, by the intake;
/// a wrong walk can only fetch a wrong range, which the intake then refuses.
fn scan(records: &[u8], from: i64) -> Option<Scan> {
    const LEGACY_HEADER: usize = 17;
    let mut rest = records;
    let mut last = None;
    let mut epochs = Vec::new();
    let (mut expected, mut hole) = (from, None);
    while rest.len() >= LEGACY_HEADER {
        let base_offset = i64::from_be_bytes(rest[..8].try_into().ok()?);
        let length = usize::try_from(i32::from_be_bytes(rest[8..12].try_into().ok()?)).ok()?;
        let magic = rest[16];
        let Some(batch) = rest.get(..12 + length) else {
            break;
        };
        let (delta, count, epoch) = if magic >= 2 {
            let epoch = i32::from_be_bytes(batch.get(12..16)?.try_into().ok()?);
            (
                i32::from_be_bytes(batch.get(23..27)?.try_into().ok()?),
                i32::from_be_bytes(batch.get(57..61)?.try_into().ok()?),
                epoch,
            )
        } else {
            (0, 1, -1)
        };
        let next_offset = base_offset
            .saturating_add(i64::from(delta))
            .saturating_add(1);
        let span = Span {
            epoch,
            start: base_offset,
            end: next_offset,
        };
        epochs::join(&mut epochs, span);
        let is_sparse = count <= delta;
        if hole.is_none() && next_offset > expected && (is_sparse || base_offset > expected) {
            hole = Some(expected);
        }
        expected = expected.max(next_offset);
        last = Some((next_offset, epoch));
        rest = &rest[12 + length..];
    }
    last.map(|(next_offset, last_epoch)| Scan {
        next_offset,
        last_epoch,
        epochs,
        hole,
    })
}

#[cfg(test)]
mod tests;
