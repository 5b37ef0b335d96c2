//! Over how many connections the partitions of a broker are spread.
//!
//! Brokers pin their socket buffers (`socket.send.buffer.bytes` and `socket.receive.buffer.bytes`, 100 KiB by
//! default), which switches the system's own tuning off: a connection carries about that much per way there and
//! back, 0.5 MB/s at 200 ms, whatever the line could. Who owns a managed cluster can't change it. So where
//! a connection is full for that reason, there are four times as many of them, and again if that brought
//! two and a half times as much. On a thin line it doesn't, and a longer queue is all that more would
//! make.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Below this way there and back a connection carries more than a broker takes.
const FAR: Duration = Duration::from_millis(5);
/// A connection that carries less than this per way there and back is full for another reason.
const CARRIES_LEAST: f64 = 32.0 * 1024.0;
/// A rate is measured over so long, once all has settled.
const MEASURED_FOR: Duration = Duration::from_secs(2);
/// How long nobody may have said that a connection is full, within that, beyond what answers take.
const GAP_MAX: Duration = Duration::from_secs(1);
/// New connections are opened, and partitions move, within this and some ways there and back.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);
/// See [`SETTLES_WITHIN`].
const SETTLES_WITHIN_ROUND_TRIPS: u32 = 10;
/// How many more they become at once.
pub(super) const TIMES: u16 = 4;
/// What so many more must bring.
const GAIN_LEAST: f64 = 2.5;
/// When it is tried again on a line that was full: it may be another one by then.
const SETTLED_FOR: Duration = Duration::from_secs(600);

/// A connection that was full, as far as it saw.
#[derive(Clone, Copy, Debug)]
pub struct Full {
    /// What its last answer carried, or the request.
    pub(super) bytes: u64,
    /// How long that took.
    pub(super) took: Duration,
    /// The way there and back.
    pub(super) round_trip: Duration,
}

impl Full {
    fn bytes_per_second(self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64().max(1e-6)
    }

    /// Whether it is because of what may be on its way at once.
    fn is_narrow(self) -> bool {
        self.round_trip >= FAR
            && self.bytes_per_second() * self.round_trip.as_secs_f64() >= CARRIES_LEAST
    }
}

/// A broker, and what its connections are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// Fetching from a broker of the source.
    Source(i32),
    /// Producing to a broker of the target.
    Target(i32),
}

/// The connections of one kind to one broker.
#[derive(Debug)]
pub struct Spread {
    most: u16,
    bytes: AtomicU64,
    turn: AtomicU16,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    count: u16,
    /// Since when, from how many bytes on, and when a connection was full last.
    measuring: Option<(Instant, u64, Instant)>,
    /// What fewer brought, bytes per second.
    before: Option<f64>,
    /// When there became more of them.
    changed_at: Option<Instant>,
    settled_until: Option<Instant>,
}

impl Spread {
    /// Over `first` connections at first, over `most` at most.
    pub(super) fn new(first: u16, most: u16) -> Self {
        Self {
            most: most.max(first),
            bytes: AtomicU64::new(0),
            turn: AtomicU16::new(0),
            state: Mutex::new(State {
                count: first,
                measuring: None,
                before: None,
                changed_at: None,
                settled_until: None,
            }),
        }
    }

    /// Over how many now.
    pub(super) fn count(&self) -> u16 {
        self.lock().count
    }

    /// One after the other of them.
    pub(super) fn next(&self) -> u16 {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.count()
    }

    /// Notes what one of them carried.
    pub(super) fn carried(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One of them is full. How many there shall be from now on, if that is more.
    pub(super) fn full(&self, full: Full) -> Option<u16> {
        if !full.is_narrow() {
            return None;
        }
        let now = Instant::now();
        let carried = self.bytes.load(Ordering::Relaxed);
        let mut state = self.lock();
        if state.settled_until.is_some_and(|until| now < until) || state.count >= self.most {
            return None;
        }
        let settles = SETTLES_WITHIN + SETTLES_WITHIN_ROUND_TRIPS * full.round_trip;
        if state.changed_at.is_some_and(|at| now - at < settles) {
            return None;
        }
        let (since, from, _) = match state.measuring {
            Some(it) if now - it.2 <= GAP_MAX + 2 * full.took => it,
            _ => state.begin(now, carried, full, settles),
        };
        state.measuring = Some((since, from, now));
        if now - since < MEASURED_FOR {
            return None;
        }
        state.measuring = None;
        let rate = (carried - from) as f64 / (now - since).as_secs_f64();
        let before = state.before.replace(rate);
        if before.is_some_and(|before| rate < before * GAIN_LEAST) {
            state.settled_until = Some(now + SETTLED_FOR);
            state.before = None;
            return None;
        }
        state.count = state.count.saturating_mul(TIMES).min(self.most);
        state.changed_at = Some(now);
        Some(state.count)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// From when on, and from how many bytes on, it is measured: with that answer, unless there were
    /// fewer connections when it was asked for.
    fn begin(
        &self,
        now: Instant,
        carried: u64,
        full: Full,
        settles: Duration,
    ) -> (Instant, u64, Instant) {
        let asked_at = now.checked_sub(full.took).unwrap_or(now);
        match self.changed_at {
            Some(at) if asked_at < at + settles => (now, carried, now),
            _ => (asked_at, carried.saturating_sub(full.bytes), now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::simulated;

    /// `count` connections over a line, each full with `window` bytes per way there and back.
    async fn run(spread: &Spread, line: f64, window: f64, round_trip: Duration) -> u16 {
        for _ in 0..600 {
            let count = f64::from(spread.count());
            let each = (window / round_trip.as_secs_f64()).min(line / count);
            tokio::time::sleep(Duration::from_millis(100)).await;
            spread.carried((each * count / 10.0) as u64);
            let _ = spread.full(Full {
                bytes: (each / 10.0) as u64,
                took: Duration::from_millis(100),
                round_trip,
            });
        }
        spread.count()
    }

    const FAR_AWAY: Duration = Duration::from_millis(200);
    const PINNED: f64 = 100.0 * 1024.0;

    #[test]
    fn pinned_buffers_far_away_take_as_many_as_there_may_be() {
        simulated(|| async {
            assert_eq!(run(&Spread::new(2, 16), 1e9, PINNED, FAR_AWAY).await, 16);
            assert_eq!(run(&Spread::new(1, 12), 1e9, PINNED, FAR_AWAY).await, 12);
        });
    }

    #[test]
    fn next_door_nothing_changes() {
        simulated(|| async {
            let near = Duration::from_micros(500);
            assert_eq!(run(&Spread::new(2, 16), 1e9, PINNED, near).await, 2);
        });
    }

    #[test]
    fn a_thin_line_gets_no_more_than_it_has_use_for() {
        simulated(|| async {
            assert_eq!(run(&Spread::new(2, 16), 150e3, PINNED, FAR_AWAY).await, 2);
            // Four of them would fill it.
            assert_eq!(run(&Spread::new(2, 16), 2e6, PINNED, FAR_AWAY).await, 8);
        });
    }

    #[test]
    fn one_that_is_full_now_and_then_tells_nothing() {
        simulated(|| async {
            let spread = Spread::new(1, 16);
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_secs(3)).await;
                spread.carried(1 << 20);
                let full = Full {
                    bytes: 250_000,
                    took: Duration::from_millis(500),
                    round_trip: FAR_AWAY,
                };
                assert_eq!(spread.full(full), None);
            }
        });
    }
}
