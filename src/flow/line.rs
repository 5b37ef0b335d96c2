//! How much may be on the way of one connection to the target.
//!
//! Where answers come within a second of what the way there and back takes, nothing bounds it but the flow's
//! budget: between close clusters the line is never what is waited for. Where they don't, what is sent
//! beyond what the line takes only lengthens a queue, in somebody's buffers, in front of all else that goes
//! over the line. There it follows the rate that is measured: half of what the queue is now and a second
//! more, which ends at two seconds. That much is left because a broker that is itself slow looks the same,
//! and must not be slowed down for it.

use std::time::Duration;

use tokio::time::Instant;

use super::spread::Full;

/// Answers that take so much longer than the way there and back tell of a queue.
const QUEUE: Duration = Duration::from_secs(1);
/// The same while others wait behind the bulk.
const QUEUE_SHARED: Duration = Duration::from_millis(300);
/// A way there and back can't be longer than this: what was measured stood in a queue.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
/// So much may be on the way before anything is known of the line: on one that turns out to be thin all of it
/// has to arrive before partitions can have another connection. Next door the first answers double it at once.
const WINDOW_FIRST: u64 = 1024 * 1024;
/// So much may always be on the way.
const WINDOW_MIN: u64 = 256 * 1024;
/// The same under a quota: its rate is known, and no second is won by having more of it wait.
const WINDOW_MIN_THROTTLED: u64 = 16 * 1024;
/// Brokers' socket buffers hold less.
const FULL_BYTES: u64 = 128 * 1024;
/// What is measured counts for so long, and as long again.
const PERIOD: Duration = Duration::from_secs(5);
/// The first rest behind a refusal, and the longest: each that follows another one is twice as long.
const REST_FIRST: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(2);
/// Behind so long without a refusal the line is as any other.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Refused requests aren't made smaller than this, and one that was refused was no larger than that.
const SLOWER_BYTES_LEAST: u64 = 16 * 1024;
const SLOWER_BYTES_MOST: u64 = 1024 * 1024;
/// Requests that are on the way at once at least, so that the line is busy while one is worked on.
const REQUESTS_MIN: u64 = 4;

/// The line of one connection, by its answers.
#[derive(Debug)]
pub(super) struct Line {
    sent_bytes: u64,
    answered_bytes: u64,
    measured: Option<Measured>,
    /// How much may be on the way; nothing bounds it where that is `None`.
    window: Option<u64>,
    /// While the broker's service has told to go slower ([`super::slower`]).
    slower: Option<Slower>,
}

/// What is sent to a service that refuses instead of throttling.
#[derive(Clone, Copy, Debug)]
struct Slower {
    /// How large a request may be.
    bytes: u64,
    /// Nothing is sent before.
    rests_until: Instant,
    /// The next rest.
    rest: Duration,
}

/// A request when it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    bytes: u64,
    at: Instant,
    answered_bytes: u64,
}

impl Mark {
    /// Its bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the broker wanted silence since it was sent, which it did until then the last time.
    pub(super) fn is_throttled(&self, quiet_until: Option<Instant>) -> bool {
        quiet_until.is_some_and(|until| until > self.at)
    }
}

/// The best of this period, and of the one before.
#[derive(Clone, Copy, Debug)]
struct Measured {
    since: Instant,
    now: Sample,
    before: Sample,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    bytes_per_second: f64,
    waited: Duration,
}

impl Sample {
    fn best(self, other: Self) -> Self {
        Self {
            bytes_per_second: self.bytes_per_second.max(other.bytes_per_second),
            waited: self.waited.min(other.waited),
        }
    }
}

impl Default for Line {
    fn default() -> Self {
        Self {
            sent_bytes: 0,
            answered_bytes: 0,
            measured: None,
            window: Some(WINDOW_FIRST),
            slower: None,
        }
    }
}

impl Line {
    /// Whether one more request may be sent.
    pub(super) fn has_room(&self) -> bool {
        let on_the_way = self.sent_bytes - self.answered_bytes;
        if self.slower().is_some() && (on_the_way > 0 || self.rests()) {
            // One at a time: what is sent behind one that is refused is sent again.
            return false;
        }
        on_the_way == 0 || self.window.is_none_or(|window| on_the_way < window)
    }

    /// How large requests should be, `most` at most.
    pub(super) fn request_bytes(&self, most: usize) -> usize {
        let share = self.window.map(|window| window / REQUESTS_MIN);
        let share = share.and_then(|share| usize::try_from(share).ok());
        let slower = self
            .slower()
            .and_then(|it| usize::try_from(it.bytes).ok())
            .unwrap_or(usize::MAX);
        share.map_or(most, |share| share.min(most)).min(slower)
    }

    /// How much slower it is to be for now. Only batches are answered with that they are taken: a line on which nothing but
    /// steps goes would be slower for ever.
    fn slower(&self) -> Option<Slower> {
        let is_new = |it: &Slower| it.rests_until.elapsed() < FORGOTTEN_AFTER;
        self.slower.filter(is_new)
    }

    /// Notes whether an answered request was refused by a service that wants it slower.
    pub(super) fn heard(&mut self, mark: Mark, is_slower: bool) {
        let now = Instant::now();
        let before = self.slower();
        self.slower = match (before, is_slower) {
            (before, true) => {
                let most = before.map_or(SLOWER_BYTES_MOST, |it| it.bytes);
                let rest = before.map_or(REST_FIRST, |it| it.rest);
                Some(Slower {
                    bytes: (mark.bytes.min(most) / 2).max(SLOWER_BYTES_LEAST),
                    rests_until: now + rest,
                    rest: (rest * 2).min(REST_MAX),
                })
            }
            // A quarter more each time.
            (Some(before), false) if before.bytes < SLOWER_BYTES_MOST => Some(Slower {
                bytes: before.bytes + before.bytes / 4,
                rest: REST_FIRST,
                ..before
            }),
            (_, false) => None,
        };
    }

    /// Whether nothing is sent for now.
    fn rests(&self) -> bool {
        self.rests_until()
            .is_some_and(|until| until > Instant::now())
    }

    /// Until when nothing is sent, which may be over; `None` where the line is as any other.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.slower().map(|it| it.rests_until)
    }

    /// Notes a request.
    pub(super) fn sent(&mut self, bytes: usize) -> Mark {
        self.sent_bytes += bytes as u64;
        Mark {
            bytes: bytes as u64,
            at: Instant::now(),
            answered_bytes: self.answered_bytes,
        }
    }

    /// What the line carried with that request, if more than a connection of pinned buffers can have on its
    /// way is left.
    pub(super) fn full(&self, mark: Mark, round_trip: Duration) -> Option<Full> {
        let is_full = self.sent_bytes - self.answered_bytes >= FULL_BYTES;
        is_full.then(|| Full {
            bytes: self.answered_bytes - mark.answered_bytes,
            took: mark.at.elapsed(),
            round_trip,
        })
    }

    /// Notes that it is answered, or never will be. A broker that wants silence until then because of a quota
    /// is a line of that rate; it may have wanted it before it answered. `is_shared`: it carries records that mustn't
    /// wait beside a bulk of old ones.
    pub(super) fn answered(
        &mut self,
        mark: Mark,
        quiet_until: Option<Instant>,
        round_trip: Duration,
        is_shared: bool,
    ) {
        self.answered_bytes += mark.bytes;
        if mark.bytes == 0 {
            return;
        }
        let now = Instant::now();
        let waited = quiet_until.map_or(now, |until| until.max(now)) - mark.at;
        let seconds = waited.as_secs_f64().max(1e-6);
        let sample = Sample {
            bytes_per_second: (self.answered_bytes - mark.answered_bytes) as f64 / seconds,
            waited,
        };
        let best = self.measure(now, sample);
        let least = match mark.is_throttled(quiet_until) {
            true => WINDOW_MIN_THROTTLED,
            false => WINDOW_MIN,
        };
        let queue = if is_shared { QUEUE_SHARED } else { QUEUE };
        let round_trip = round_trip.min(ROUND_TRIP_MAX);
        let next = window(self.window, (sample, best), round_trip, queue);
        self.window = next.map(|window| window.max(least));
    }

    fn measure(&mut self, now: Instant, sample: Sample) -> Sample {
        let measured = match self.measured {
            None => Measured {
                since: now,
                now: sample,
                before: sample,
            },
            Some(last) if now - last.since >= PERIOD => Measured {
                since: now,
                now: sample,
                before: last.now,
            },
            Some(last) => Measured {
                now: last.now.best(sample),
                ..last
            },
        };
        self.measured = Some(measured);
        measured.now.best(measured.before)
    }
}

/// How much may be on the way behind that answer.
fn window(
    before: Option<u64>,
    (last, best): (Sample, Sample),
    round_trip: Duration,
    queue: Duration,
) -> Option<u64> {
    if last.waited >= round_trip + queue {
        let ahead = queue + round_trip.max(best.waited / 2);
        let bytes = best.bytes_per_second * ahead.as_secs_f64();
        return Some(bytes as u64);
    }
    if last.waited >= round_trip + queue / 2 {
        return before;
    }
    // There is hardly a queue: twice as much, until it bounds nothing any more.
    before
        .map(|window| window.saturating_mul(2))
        .filter(|window| *window < 1 << 30)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::simulated::simulated;

    /// A line that takes so many bytes a second, each way so long, where requests of a connection are
    /// worked on one after the other and each takes `work` more.
    struct Simulated {
        bytes_per_second: f64,
        round_trip: Duration,
        work: Duration,
        is_shared: bool,
    }

    #[derive(Debug)]
    struct Seen {
        bytes_per_second: f64,
        longest_queue: Duration,
    }

    impl Simulated {
        /// Sends as much as may be for a minute of simulated time; judges the second half.
        async fn run(&self) -> Seen {
            const REQUEST: usize = 1 << 20;
            const BUDGET: u64 = 32 << 20;
            let began = Instant::now();
            let half = began + Duration::from_secs(60);
            let mut line = Line::default();
            let mut in_flight = VecDeque::new();
            let mut free_at = began;
            let (mut taken, mut longest_queue) = (0, Duration::ZERO);
            while Instant::now() < half + Duration::from_secs(60) {
                let held = line.sent_bytes - line.answered_bytes;
                if line.has_room() && held < BUDGET {
                    let bytes = line.request_bytes(REQUEST);
                    let on_line = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
                    free_at = free_at.max(Instant::now()) + on_line;
                    let answer_at = free_at + self.round_trip + self.work;
                    in_flight.push_back((line.sent(bytes), answer_at));
                    continue;
                }
                let Some((mark, at)) = in_flight.pop_front() else {
                    unreachable!("something is always on the way");
                };
                tokio::time::sleep_until(at).await;
                line.answered(mark, None, self.round_trip, self.is_shared);
                if at > half {
                    taken += mark.bytes;
                    longest_queue = longest_queue.max(free_at.saturating_duration_since(at));
                }
            }
            Seen {
                bytes_per_second: taken as f64 / half.elapsed().as_secs_f64(),
                longest_queue,
            }
        }
    }

    fn line(bytes_per_second: f64, round_trip_ms: u64, work_ms: u64) -> Simulated {
        Simulated {
            bytes_per_second,
            round_trip: Duration::from_millis(round_trip_ms),
            work: Duration::from_millis(work_ms),
            is_shared: false,
        }
    }

    #[test]
    fn a_thin_line_is_full_and_its_queue_is_short() {
        simulated(|| async {
            for (rate, round_trip_ms) in [(150e3, 200), (150e3, 2), (1e6, 50), (20e6, 200)] {
                let line = line(rate, round_trip_ms, 0);
                let seen = line.run().await;
                assert!(seen.bytes_per_second >= 0.97 * rate, "{rate}: {seen:?}");
                let least = Duration::from_secs_f64(WINDOW_MIN as f64 / rate);
                let bound = Duration::from_millis(2_500).max(least * 2);
                assert!(seen.longest_queue <= bound, "{rate}: {seen:?}");
            }
        });
    }

    #[test]
    fn a_line_that_others_wait_for_is_full_and_its_queue_is_shorter() {
        simulated(|| async {
            for (rate, round_trip_ms) in [(5e6, 2), (20e6, 2), (20e6, 100), (20e6, 200)] {
                let line = Simulated {
                    is_shared: true,
                    ..line(rate, round_trip_ms, 0)
                };
                let seen = line.run().await;
                assert!(seen.bytes_per_second >= 0.95 * rate, "{rate}: {seen:?}");
                assert!(seen.longest_queue <= Duration::from_millis(800), "{seen:?}");
            }
        });
    }

    /// The second half of what it holds is 32 MiB: nothing bounds a fast line.
    #[test]
    fn a_fast_line_is_bounded_by_nothing() {
        simulated(|| async {
            for round_trip_ms in [1, 100, 400] {
                let line = line(1e9, round_trip_ms, 0);
                let seen = line.run().await;
                let most = 32.0 * 1024.0 * 1024.0 / line.round_trip.as_secs_f64();
                assert!(seen.bytes_per_second >= 0.9 * most.min(1e9), "{seen:?}");
            }
        });
    }

    /// Its time isn't the line's.
    #[test]
    fn a_broker_that_is_itself_slow_gets_as_much_as_before() {
        simulated(|| async {
            let line = line(8e6, 2, 1_500);
            let seen = line.run().await;
            assert!(seen.bytes_per_second >= 0.9 * 8e6, "{seen:?}");
        });
    }

    #[test]
    fn a_quota_is_a_line_of_its_rate() {
        simulated(|| async {
            let mut line = Line::default();
            for _ in 0..20 {
                let bytes = line.request_bytes(1 << 20);
                let mark = line.sent(bytes);
                let quiet = Duration::from_secs_f64(bytes as f64 / 200e3);
                let until = Instant::now() + quiet;
                line.answered(mark, Some(until), Duration::from_millis(1), false);
                tokio::time::sleep_until(until).await;
            }
            let bytes = line.request_bytes(1 << 20);
            assert!((50_000..=200_000).contains(&bytes), "{bytes}");
        });
    }

    #[test]
    fn a_service_that_refuses_gets_half_and_a_quarter_more_each_time() {
        simulated(|| async {
            let mut line = Line::default();
            let mut sizes = Vec::new();
            for is_refused in [true, true, false, false] {
                let mark = line.sent(line.request_bytes(1 << 20));
                assert!(!line.has_room() || line.slower.is_none());
                line.answered(mark, None, Duration::from_millis(2), false);
                line.heard(mark, is_refused);
                assert_eq!(line.rests(), is_refused);
                if let Some(until) = line.rests_until() {
                    tokio::time::sleep_until(until).await;
                }
                assert!(line.has_room());
                sizes.push(line.request_bytes(1 << 20));
            }
            let first = sizes[0];
            assert_eq!(sizes, [first, first / 2, first / 8 * 5, first / 32 * 25]);
            for _ in 0..20 {
                let mark = line.sent(line.request_bytes(1 << 20));
                line.answered(mark, None, Duration::from_millis(2), false);
                line.heard(mark, false);
            }
            assert!(line.slower.is_none());
        });
    }

    /// Steps are answered by their markers, which nobody refuses so.
    #[test]
    fn a_refusal_is_forgotten_where_nothing_says_that_it_is_over() {
        simulated(|| async {
            let mut line = Line::default();
            let mark = line.sent(1 << 20);
            line.answered(mark, None, Duration::from_millis(2), false);
            line.heard(mark, true);
            let half = FORGOTTEN_AFTER / 2;
            tokio::time::sleep(half).await;
            let step = line.sent(1_000);
            assert!(!line.has_room(), "one at a time");
            tokio::time::sleep(half + REST_FIRST).await;
            assert!(line.has_room());
            assert_eq!(line.rests_until(), None);
            line.answered(step, None, Duration::from_millis(2), false);
            line.heard(mark, true);
            assert!(line.rests(), "it is refused again");
            let next = line.slower.expect("it is slower").rest;
            assert_eq!(next, REST_FIRST * 2, "as for the first time");
        });
    }

    #[test]
    fn a_line_that_was_thin_is_not_bounded_for_ever() {
        simulated(|| async {
            let mut line = Line::default();
            let mark = line.sent(1 << 20);
            tokio::time::sleep(Duration::from_secs(7)).await;
            line.answered(mark, None, Duration::from_millis(2), false);
            assert!(line.request_bytes(1 << 20) < 1 << 20);
            for _ in 0..20 {
                let mark = line.sent(line.request_bytes(1 << 20));
                tokio::time::sleep(Duration::from_millis(3)).await;
                line.answered(mark, None, Duration::from_millis(2), false);
            }
            assert_eq!(line.window, None);
            assert_eq!(line.request_bytes(1 << 20), 1 << 20);
        });
    }
}
