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

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

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

/// A flow's byte budget.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    partition_limit: u64,
    window: AtomicU64,
    /// Slow answers of the target so far, or [`NEAR`].
    slow_answers: AtomicU32,
    reserved: AtomicU64,
    progress: Arc<FlowProgress>,
    freed: Notify,
}

impl Budget {
    /// A budget of `limit` bytes in total and `partition_limit` for one partition.
    pub fn new(limit: u64, partition_limit: u64, progress: Arc<FlowProgress>) -> Self {
        progress
            .in_flight_limit_bytes
            .store(limit, Ordering::Relaxed);
        Self {
            limit,
            partition_limit,
            window: AtomicU64::new(WINDOW_FIRST.min(limit)),
            slow_answers: AtomicU32::new(0),
            reserved: AtomicU64::new(0),
            progress,
            freed: Notify::new(),
        }
    }

    /// The bound for one partition, bytes.
    pub fn partition_limit(&self) -> u64 {
        self.partition_limit
    }

    /// How much of the flow's bound is used for now, bytes.
    pub fn window(&self) -> u64 {
        self.window.load(Ordering::Relaxed)
    }

    /// Doubles the window, up to the flow's bound.
    pub fn widen(&self) {
        let wider = self.window().saturating_mul(2).min(self.limit);
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
    held: AtomicU64,
}

impl Meter {
    /// A meter that holds nothing.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            held: AtomicU64::new(0),
        }
    }

    /// Bytes that this partition may still fetch.
    pub fn free(&self) -> u64 {
        self.budget
            .partition_limit
            .saturating_sub(self.held.load(Ordering::Relaxed))
    }

    /// Counts bytes as in flight until the answer is dropped.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Hold {
        self.held.fetch_add(bytes, Ordering::Relaxed);
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
            .budget
            .progress
            .in_flight_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
        self.meter.budget.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_and_a_hold_share_the_limit_and_give_it_back() {
        let progress = Arc::new(FlowProgress::new("f", "s", "t"));
        let budget = Arc::new(Budget::new(100, 60, progress.clone()));
        let meter = Arc::new(Meter::new(budget.clone()));
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
    fn one_quick_answer_tells_that_the_target_is_near() {
        let progress = Arc::new(FlowProgress::new("f", "s", "t"));
        let budget = Budget::new(64 << 20, 16 << 20, progress);
        budget.note_target_answer(FAR / 2);
        (0..9 * FAR_ANSWERS).for_each(|_| budget.note_target_answer(FAR * 2));
        assert_eq!(budget.window(), WINDOW_FIRST);
    }
}
