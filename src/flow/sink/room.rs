//! How many requests may be on the way of a lane.
//!
//! What holds data is few and bounded by bytes. *Steps* ([`Partition::take_sendable`]) are small, and a partition's can't
//! share a request: a far line needs hundreds of them on the way, or the broker waits for us. But what is sent beyond
//! what the broker works off in a round trip only waits there, and other partitions' records behind it. So their number
//! follows the rate at which they are answered: as many as take two round trips and some milliseconds.
//!
//! [`Partition::take_sendable`]: crate::flow::partition::Partition::take_sendable

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Sent;

/// Requests on the way per lane, whatever they are. What they may hold is bounded by the flow's byte budget.
const REQUESTS: usize = 32;
/// The same where all others are steps.
const STEPS_MAX: usize = 1_024;
/// How long steps may take beyond two round trips, and at most.
const QUEUE: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// After so long the way there and back is measured anew, with few on the way: it may have become longer.
const MEASURED_FOR: Duration = Duration::from_secs(30);
/// So many answers in time make room for one more, once it is known what is too much. Before each does.
const ANSWERS_FOR_MORE: u32 = 4;

/// See the module.
pub(super) struct Room {
    steps: usize,
    /// Towards the next one, in answers.
    credit: u32,
    /// Whether it was too much before.
    is_known: bool,
    answers: u64,
    /// The way there and back, with what the broker and its replicas need for one request.
    round_trip: Option<Duration>,
    measured_at: Option<Instant>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            steps: REQUESTS,
            credit: 0,
            is_known: false,
            answers: 0,
            round_trip: None,
            measured_at: None,
        }
    }
}

impl Room {
    /// Whether one more may be sent.
    pub(super) fn is_left(&self, in_flight: &VecDeque<Sent>) -> bool {
        let plain = || in_flight.iter().filter(|sent| !sent.is_step).count();
        in_flight.len() < REQUESTS || (in_flight.len() < self.steps && plain() < REQUESTS)
    }

    /// Answers so far.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// Notes that a request is answered, behind which so many were on the way.
    pub(super) fn answered(&mut self, sent: &Sent, behind: usize) {
        let is_old = self
            .measured_at
            .is_none_or(|at| at.elapsed() >= MEASURED_FOR);
        let is_alone = sent.alone_at.is_some();
        if is_old && !is_alone {
            (self.steps, self.is_known) = (REQUESTS, false);
        }
        if is_old || is_alone {
            self.round_trip = None;
            self.measured_at = Some(Instant::now());
        }
        self.note(sent.at.elapsed(), sent.answered_before, behind);
    }

    fn note(&mut self, waited: Duration, answered_before: u64, behind: usize) {
        self.answers += 1;
        let round_trip = self.round_trip.map_or(waited, |least| least.min(waited));
        self.round_trip = Some(round_trip);
        let bound = (2 * round_trip + QUEUE).min(WAIT_MAX);
        if waited <= bound {
            if behind + 1 >= self.steps {
                self.grow();
            }
            return;
        }
        self.is_known = true;
        // So many were worked off while it waited.
        let meanwhile = (self.answers - answered_before) as f64;
        let rate = meanwhile / waited.as_secs_f64();
        let steps = (rate * bound.as_secs_f64()) as usize;
        self.steps = steps.clamp(REQUESTS, self.steps);
    }

    fn grow(&mut self) {
        self.credit += if self.is_known { 1 } else { ANSWERS_FOR_MORE };
        if self.credit >= ANSWERS_FOR_MORE {
            self.credit -= ANSWERS_FOR_MORE;
            self.steps = (self.steps + 1).min(STEPS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as much as there is room for to a broker that takes `work` for each, for some thousands; returns the rate per
    /// second and the longest wait of the second half.
    fn run(round_trip: Duration, work: Duration) -> (f64, Duration) {
        const COUNT: usize = 8_000;
        let mut room = Room::default();
        let (mut now, mut free_at) = (Duration::ZERO, Duration::ZERO);
        let mut under_way = VecDeque::new();
        let (mut half_at, mut longest) = (Duration::ZERO, Duration::ZERO);
        for nth in 0..COUNT {
            while under_way.len() < REQUESTS.max(room.steps) {
                free_at = free_at.max(now + round_trip / 2) + work;
                under_way.push_back((now, free_at + round_trip / 2, room.answers));
            }
            let (at, answer_at, before) = under_way.pop_front().expect("was sent");
            now = now.max(answer_at);
            room.note(now - at, before, under_way.len());
            match nth < COUNT / 2 {
                true => half_at = now,
                false => longest = longest.max(now - at),
            }
        }
        let rate = (COUNT / 2) as f64 / (now - half_at).as_secs_f64();
        (rate, longest)
    }

    #[test]
    fn a_far_broker_is_never_idle_and_has_a_short_queue() {
        for (round_trip_ms, work_us) in [(20, 250), (100, 250), (1, 100), (20, 2_000), (200, 400)] {
            let round_trip = Duration::from_millis(round_trip_ms);
            let work = Duration::from_micros(work_us);
            let (rate, longest) = run(round_trip, work);
            let best = 1.0 / work.as_secs_f64();
            assert!(rate >= 0.98 * best, "{round_trip_ms} ms: {rate} of {best}");
            let bound = (2 * round_trip + QUEUE).mul_f64(1.3);
            let least = round_trip + work * u32::try_from(REQUESTS).expect("small");
            assert!(
                longest <= bound.max(least),
                "{round_trip_ms} ms: {longest:?}"
            );
        }
    }
}
