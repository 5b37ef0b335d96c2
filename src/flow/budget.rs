//! Bytes in flight: bounded per partition and per flow.
//!
//! A byte is in flight from the moment its fetch answer arrived until the target acknowledged it.
//! Before a fetch is sent its largest possible answer is *reserved*, so that several fetch
//! sessions together can't overrun the limit; the unused part is given back with the answer.
//! The only overrun possible is a single batch larger than what was asked for (KIP-74).
//!
//! Of the limit only a *window* is used at first. Between close clusters the slower one decides
//! the rate, and more bytes in flight are only a longer queue in our memory. A cluster that is far
//! away needs them: whoever notices that widens the window.
//!
//! A target broker that hangs must not hold all of it. Each lane has a *share*. Where there are several
//! target brokers no fetch is sent that could make a share larger than what is left to the others: so
//! one lane holds half of the window at most, two of them three quarters, and something is always left.
//! A lane that answers is waited for. One that doesn't is left out until it does.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::telemetry::progress::FlowProgress;

/// The window at first: 320 MB/s where an answer takes 50 ms.
const WINDOW_FIRST: u64 = 16 * 1024 * 1024;
/// A target whose answers take longer, asked with nothing else on its way, is far away.
const FAR: Duration = Duration::from_millis(20);
/// That many slow answers without a quick one make it sure: the first ones find a cold broker. One
/// quick answer settles it the other way, since a near broker is slow when it is busy.
const FAR_ANSWERS: u32 = 8;
/// In place of a count: the target is near.
const NEAR: u32 = u32::MAX;

/// A lane that has answered nothing for this long isn't waited for any more.
const SLOW: Duration = Duration::from_millis(500);
/// What is fetched for a lane that has answered nothing for this long will wait here.
const LAGS: Duration = Duration::from_millis(50);

/// What the partitions of one lane hold together.
#[derive(Debug)]
pub struct Share {
    broker: i32,
    lane: u16,
    held: AtomicU64,
    /// Partitions that are written there, and those of them that are far behind.
    partitions: AtomicUsize,
    behind: AtomicUsize,
    /// Since when an answer is waited for.
    waits_since: Mutex<Option<Instant>>,
    /// Whether nothing has moved for so long that the broker may be gone.
    is_silent: AtomicBool,
    is_left_out: AtomicBool,
}

impl Share {
    /// Notes since when an answer is waited for: since the last one came, or since something was sent.
    pub fn note_waiting(&self, since: Option<Instant>) {
        *self
            .waits_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Notes whether the broker is silent: it answers nothing, and nothing moves that would bring an answer nearer.
    pub fn note_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    fn waits(&self) -> Duration {
        let since = self
            .waits_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// How many partitions are written there.
    pub fn partitions(&self) -> usize {
        self.partitions.load(Ordering::Relaxed)
    }

    /// How many of these are far behind.
    pub fn behind(&self) -> usize {
        self.behind.load(Ordering::Relaxed)
    }
}

/// A flow's byte budget.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    partition_limit: AtomicU64,
    window: AtomicU64,
    /// Open partitions, and those of them that are far behind ([`super::turns`]).
    partitions: AtomicUsize,
    behind: AtomicUsize,
    /// Slow answers of the target so far, or [`NEAR`].
    slow_answers: AtomicU32,
    reserved: AtomicU64,
    progress: Arc<FlowProgress>,
    freed: Notify,
    shares: Mutex<Vec<Arc<Share>>>,
}

impl Budget {
    /// A budget of `limit` bytes in total and `partition_limit` for one partition.
    pub fn new(limit: u64, partition_limit: u64, progress: Arc<FlowProgress>) -> Self {
        progress
            .in_flight_limit_bytes
            .store(limit, Ordering::Relaxed);
        Self {
            limit: AtomicU64::new(limit),
            partition_limit: AtomicU64::new(partition_limit),
            window: AtomicU64::new(WINDOW_FIRST.min(limit)),
            partitions: AtomicUsize::new(0),
            behind: AtomicUsize::new(0),
            slow_answers: AtomicU32::new(0),
            reserved: AtomicU64::new(0),
            progress,
            freed: Notify::new(),
            shares: Mutex::default(),
        }
    }

    /// The share of a lane.
    pub fn share(&self, broker: i32, lane: u16) -> Arc<Share> {
        let mut shares = self.shares();
        let found = shares
            .iter()
            .find(|share| (share.broker, share.lane) == (broker, lane));
        if let Some(share) = found {
            return share.clone();
        }
        let share = Arc::new(Share {
            broker,
            lane,
            held: AtomicU64::new(0),
            partitions: AtomicUsize::new(0),
            behind: AtomicUsize::new(0),
            waits_since: Mutex::default(),
            is_silent: AtomicBool::new(false),
            is_left_out: AtomicBool::new(false),
        });
        shares.push(share.clone());
        share
    }

    fn shares(&self) -> MutexGuard<'_, Vec<Arc<Share>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bound for one partition, bytes.
    pub fn partition_limit(&self) -> u64 {
        self.partition_limit.load(Ordering::Relaxed)
    }

    /// Other bounds from now on. What is in flight beyond them is waited for.
    pub fn set_limits(&self, limit: u64, partition_limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
        self.partition_limit
            .store(partition_limit, Ordering::Relaxed);
        self.note_change();
        let window = self.window().clamp(WINDOW_FIRST.min(limit), limit);
        self.window.store(window, Ordering::Relaxed);
        self.progress
            .in_flight_limit_bytes
            .store(limit, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Counts all that may change which partitions are fetched, and how much of each: bytes in flight, lanes that are left
    /// out, partitions that are closed or fall behind, limits; and what was copied. As long as it is the same, nobody needs
    /// to look at each of thousands.
    pub fn changes(&self) -> u64 {
        self.progress.changes.count()
    }

    fn note_change(&self) {
        self.progress.changes.note();
    }

    /// Whether some partitions are far behind while others aren't: these go first then.
    pub fn is_mixed(&self) -> bool {
        let behind = self.behind.load(Ordering::Relaxed);
        behind > 0 && behind < self.partitions.load(Ordering::Relaxed)
    }

    /// How much of the flow's bound is used for now, bytes.
    pub fn window(&self) -> u64 {
        let limit = self.limit.load(Ordering::Relaxed);
        self.window.load(Ordering::Relaxed).min(limit)
    }

    /// Doubles the window, up to the flow's bound.
    pub fn widen(&self) {
        // A limit that is lowered meanwhile still counts: `window` asks for it.
        let limit = self.limit.load(Ordering::Relaxed);
        let wider = self.window().saturating_mul(2).min(limit);
        self.window.fetch_max(wider, Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Notes how long the target took for a request that had nothing before it on its connection:
    /// the way there and back, without our own queue.
    pub fn note_target_answer(&self, took: Duration) {
        if took < FAR {
            self.slow_answers.store(NEAR, Ordering::Relaxed);
        }
        let counted =
            self.slow_answers
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |slow| {
                    (slow != NEAR).then(|| (slow + 1) % FAR_ANSWERS)
                });
        if counted == Ok(FAR_ANSWERS - 1) {
            self.widen();
        }
    }

    /// Bytes that have arrived and are not acknowledged.
    pub fn held(&self) -> u64 {
        self.progress.in_flight_bytes.load(Ordering::Relaxed)
    }

    /// How much the next fetch of one of so many sessions may bring, `fetch_bytes` at most; `None` where
    /// there isn't enough room, or where the answer could make the share of a lane too large that is
    /// waited for. Settles which lanes are left out.
    pub fn room(&self, fetch_bytes: u64, sessions: u64) -> Option<Room> {
        let window = self.window();
        let shares = self.shares().clone();
        let is_alone = shares.windows(2).all(|two| two[0].broker == two[1].broker);
        if is_alone {
            let wanted = fetch_bytes.min(window / (2 * sessions)).max(1);
            let least = (wanted / 4).max(1);
            return Some(Room { wanted, least });
        }
        let mut wanted = fetch_bytes.min(window / (4 * sessions)).max(1);
        let taken = self.held() + self.reserved.load(Ordering::Relaxed);
        let left = window.saturating_sub(taken);
        let least = (wanted.min(left) / 4).max(1);
        for share in &shares {
            // What it holds then must not be more than what is left then.
            let of_share = left.saturating_sub(share.held()) / 2;
            let was_left_out = share.is_left_out.load(Ordering::Relaxed);
            let is_left_out = share.waits() >= SLOW && (was_left_out || of_share < least);
            if is_left_out != was_left_out {
                share.is_left_out.store(is_left_out, Ordering::Relaxed);
                self.note_change();
            }
            if !is_left_out {
                wanted = wanted.min(of_share);
            }
        }
        (wanted >= least).then_some(Room { wanted, least })
    }

    /// Reserves room for a fetch.
    pub fn reserve_fetch(self: &Arc<Self>, room: Room) -> Option<Reservation> {
        self.reserve(room.wanted, room.least)
    }

    /// Reserves up to `wanted` bytes, at least `least`; `None` when not even that is free.
    pub fn reserve(self: &Arc<Self>, wanted: u64, least: u64) -> Option<Reservation> {
        let mut reserved = self.reserved.load(Ordering::Relaxed);
        loop {
            let free = self.window().saturating_sub(self.held() + reserved);
            if free < least {
                return None;
            }
            let bytes = wanted.min(free);
            match self.reserved.compare_exchange_weak(
                reserved,
                reserved + bytes,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    return Some(Reservation {
                        budget: self.clone(),
                        bytes,
                    });
                }
                Err(now) => reserved = now,
            }
        }
    }

    /// Resolves when bytes are freed. Enable it *before* looking whether there is room:
    /// what is freed between the look and the wait would otherwise go unnoticed.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }
}

/// What a fetch may bring, and with how much less it isn't worth while.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    wanted: u64,
    least: u64,
}

/// Room kept for a fetch answer that hasn't arrived.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    /// How many bytes.
    pub bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget
            .reserved
            .fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.freed.notify_waiters();
    }
}

/// One partition's share of the bytes in flight.
#[derive(Debug)]
pub struct Meter {
    budget: Arc<Budget>,
    share: Arc<Share>,
    held: AtomicU64,
    is_behind: AtomicBool,
}

impl Meter {
    /// A meter that holds nothing, of a partition that this lane writes.
    pub fn new(budget: Arc<Budget>, share: Arc<Share>) -> Self {
        share.partitions.fetch_add(1, Ordering::Relaxed);
        budget.partitions.fetch_add(1, Ordering::Relaxed);
        Self {
            budget,
            share,
            held: AtomicU64::new(0),
            is_behind: AtomicBool::new(false),
        }
    }

    /// The flow's.
    #[cfg(test)]
    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Whether the partition is far behind: others that aren't go first.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// See [`Self::is_behind`].
    pub fn set_behind(&self, is_behind: bool) {
        let before = self.is_behind.swap(is_behind, Ordering::Relaxed);
        if before != is_behind {
            self.budget.note_change();
        }
        for count in [&self.budget.behind, &self.share.behind] {
            match (before, is_behind) {
                (false, true) => count.fetch_add(1, Ordering::Relaxed),
                (true, false) => count.fetch_sub(1, Ordering::Relaxed),
                _ => 0,
            };
        }
    }

    /// Notes that something of the partition has changed: see [`Budget::changes`].
    pub fn note_change(&self) {
        self.budget.note_change();
    }

    /// Whether nothing is to be fetched now: the partition's lane doesn't answer and holds enough.
    pub fn is_left_out(&self) -> bool {
        self.share.is_left_out.load(Ordering::Relaxed)
    }

    /// Whether the broker that the partition is sent to has been silent for seconds. For how long, at least.
    pub fn silent_for(&self) -> Option<Duration> {
        let is_silent = self.share.is_silent.load(Ordering::Relaxed);
        is_silent.then(|| self.share.waits())
    }

    /// Whether what is fetched now will wait: then it must not keep a whole answer in memory.
    pub fn lags(&self) -> bool {
        self.share.waits() >= LAGS
    }

    /// Bytes that this partition may still fetch.
    pub fn free(&self) -> u64 {
        self.budget
            .partition_limit()
            .saturating_sub(self.held.load(Ordering::Relaxed))
    }

    /// Counts bytes as in flight until the answer is dropped.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Hold {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.share.held.fetch_add(bytes, Ordering::Relaxed);
        self.budget.note_change();
        self.budget
            .progress
            .in_flight_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        Hold {
            meter: self.clone(),
            bytes,
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.set_behind(false);
        self.budget.partitions.fetch_sub(1, Ordering::Relaxed);
        self.share.partitions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes in flight; freed on drop, whatever the reason.
#[derive(Debug)]
pub struct Hold {
    meter: Arc<Meter>,
    bytes: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.meter.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.meter
            .share
            .held
            .fetch_sub(self.bytes, Ordering::Relaxed);
        self.meter
            .budget
            .progress
            .in_flight_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
        self.meter.budget.note_change();
        self.meter.budget.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reservation_and_a_hold_share_the_limit_and_give_it_back() {
        let progress = Arc::new(FlowProgress::new("f", "s", "t"));
        let budget = Arc::new(Budget::new(100, 60, progress.clone()));
        let meter = Arc::new(Meter::new(budget.clone(), budget.share(1, 0)));
        let hold = meter.hold(50);
        assert_eq!(meter.free(), 10);
        let reservation = budget.reserve(80, 10).expect("50 are free");
        assert_eq!(reservation.bytes, 50);
        assert!(budget.reserve(10, 1).is_none());
        drop(hold);
        assert_eq!(meter.free(), 60);
        assert_eq!(budget.reserve(80, 10).expect("50 are free again").bytes, 50);
        drop(reservation);
        assert_eq!(progress.in_flight_bytes.load(Ordering::Relaxed), 0);
    }

    fn reserve(budget: &Arc<Budget>, sessions: u64) -> Option<Reservation> {
        budget.reserve_fetch(budget.room(4 << 20, sessions)?)
    }

    /// A budget of two lanes at each of these brokers.
    fn shared(window: u64, brokers: i32) -> (Arc<Budget>, Vec<Arc<Meter>>) {
        let progress = Arc::new(FlowProgress::new("f", "s", "t"));
        let budget = Arc::new(Budget::new(window, window, progress));
        let lanes = (0..brokers).flat_map(|broker| [(broker, 0), (broker, 1)]);
        let meter = |(broker, lane)| Meter::new(budget.clone(), budget.share(broker, lane));
        let meters = lanes.map(|lane| Arc::new(meter(lane))).collect();
        (budget, meters)
    }

    proptest! {
        /// Whatever arrives for lanes that answer nothing, and however many sessions fetch at once, the
        /// others go on.
        #[test]
        fn lanes_that_hang_leave_something_to_the_others(
            brokers in 2_i32..6,
            sessions in 1_u64..5,
            hung in 1_usize..6,
            picks in prop::collection::vec((0_usize..8, 0_usize..8, 0.0_f64..1.0), 1..400),
        ) {
            let (budget, meters) = shared(16 << 20, brokers);
            let hung = hung.min(meters.len() - 1);
            let mut stuck = Vec::new();
            let mut asked: Vec<Reservation> = Vec::new();
            for (session, lane, part) in picks {
                if asked.len() < usize::try_from(sessions).expect("few") {
                    asked.extend(reserve(&budget, sessions));
                }
                if asked.is_empty() {
                    continue;
                }
                // An answer that is all of one hung lane, unless that is left out.
                let reservation = asked.swap_remove(session % asked.len());
                let meter = &meters[lane % hung];
                if !meter.is_left_out() {
                    let bytes = reservation.bytes as f64 * part.max(0.5);
                    stuck.push(meter.hold(bytes as u64));
                }
            }
            drop(asked);
            // Now it is noticed that they hang: whoever is alive gets something, again and again.
            let long_ago = Instant::now().checked_sub(2 * SLOW);
            for meter in &meters[..hung] {
                meter.share.note_waiting(long_ago);
            }
            let alive = &meters[hung];
            for _ in 0..8 {
                let room = reserve(&budget, sessions);
                let bytes = room.as_ref().map_or(0, |room| room.bytes);
                prop_assert!(bytes >= 1024, "{bytes} of {} are left", budget.window() - budget.held());
                prop_assert!(!alive.is_left_out());
                drop(alive.hold(bytes));
            }
        }
    }

    #[test]
    fn one_lane_that_hangs_holds_half_of_the_window() {
        let (budget, meters) = shared(16 << 20, 2);
        let mut stuck = Vec::new();
        while let Some(room) = reserve(&budget, 1) {
            stuck.push(meters[0].hold(room.bytes));
        }
        assert!(budget.held() <= 8 << 20, "{}", budget.held());
        meters[0]
            .share
            .note_waiting(Instant::now().checked_sub(SLOW));
        assert!(reserve(&budget, 1).is_some());
        assert!(meters[0].is_left_out() && !meters[1].is_left_out());
        // It answers again.
        meters[0].share.note_waiting(None);
        drop(stuck);
        assert!(reserve(&budget, 1).is_some());
        assert!(!meters[0].is_left_out());
    }

    #[test]
    fn where_there_is_one_target_broker_its_lanes_share_the_whole_window() {
        let (budget, meters) = shared(16 << 20, 1);
        let mut stuck = Vec::new();
        while let Some(room) = reserve(&budget, 1) {
            stuck.push(meters[0].hold(room.bytes));
        }
        assert_eq!(budget.held(), 16 << 20);
    }

    #[test]
    fn the_window_widens_for_a_target_that_is_far_away_up_to_the_limit() {
        let progress = Arc::new(FlowProgress::new("f", "s", "t"));
        let budget = Arc::new(Budget::new(40 << 20, 16 << 20, progress));
        assert_eq!(budget.window(), WINDOW_FIRST);
        let slow = FAR * 2;
        (1..FAR_ANSWERS).for_each(|_| budget.note_target_answer(slow));
        assert_eq!(budget.window(), WINDOW_FIRST);
        budget.note_target_answer(slow);
        assert_eq!(budget.window(), 2 * WINDOW_FIRST);
        (0..FAR_ANSWERS).for_each(|_| budget.note_target_answer(slow));
        assert_eq!(budget.window(), 40 << 20);
        assert!(budget.reserve(64 << 20, 40 << 20).is_some());
    }

    #[test]
    fn limits_change_while_bytes_are_in_flight() {
        let (budget, meters) = shared(16 << 20, 1);
        let hold = meters[0].hold(8 << 20);
        budget.set_limits(4 << 20, 2 << 20);
        assert_eq!((budget.window(), meters[0].free()), (4 << 20, 0));
        assert!(budget.reserve(1, 1).is_none(), "more is there than may be");
        drop(hold);
        assert_eq!(meters[0].free(), 2 << 20);
        assert_eq!(budget.reserve(8 << 20, 1).expect("room").bytes, 4 << 20);
        budget.set_limits(64 << 20, 16 << 20);
        assert_eq!(budget.window(), WINDOW_FIRST);
        budget.widen();
        assert_eq!(budget.window(), 2 * WINDOW_FIRST);
    }

    #[test]
    fn who_widens_while_a_limit_is_lowered_does_not_undo_it() {
        let (budget, _) = shared(64 << 20, 1);
        budget.set_limits(4 << 20, 2 << 20);
        // It had looked at the limit before.
        budget.window.fetch_max(32 << 20, Ordering::Relaxed);
        assert_eq!(budget.window(), 4 << 20);
        assert_eq!(budget.reserve(64 << 20, 1).expect("room").bytes, 4 << 20);
    }

    #[test]
    fn those_behind_count_while_they_are_open() {
        let (budget, mut meters) = shared(16 << 20, 1);
        assert!(!budget.is_mixed());
        meters[0].set_behind(true);
        meters[0].set_behind(true);
        assert!(budget.is_mixed());
        meters[1].set_behind(true);
        assert!(!budget.is_mixed(), "all of them are behind");
        meters[1].set_behind(false);
        meters.remove(0);
        assert!(!budget.is_mixed(), "it is closed");
    }

    #[test]
    fn one_quick_answer_tells_that_the_target_is_near() {
        let progress = Arc::new(FlowProgress::new("f", "s", "t"));
        let budget = Budget::new(64 << 20, 16 << 20, progress);
        budget.note_target_answer(FAR / 2);
        (0..9 * FAR_ANSWERS).for_each(|_| budget.note_target_answer(FAR * 2));
        assert_eq!(budget.window(), WINDOW_FIRST);
    }
}
