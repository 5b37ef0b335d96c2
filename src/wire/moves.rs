//! When a request has waited too long: a time-out means that no byte moved.
//!
//! A line may be so thin, or its queue so long, that a good answer needs minutes. Who gives up then asks for
//! the same bytes again and stands still for ever (librdkafka's `socket.timeout.ms` on a thin line). So the
//! time runs from the last byte that brought the answer nearer: of answers, since those of a connection
//! come in order; and of requests, as long as this one hasn't left whole. It doesn't run while the broker
//! asked for silence (KIP-219). What trickles is no movement, so each wait is bounded.

use std::time::Duration;

use tokio::time::Instant;

/// Less than this isn't movement.
const LEAST_BYTES_PER_SECOND: u128 = 2_048;

/// What a connection has moved so far, as one of its requests sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// Answers that were read whole, and one more when the request has left whole.
    pub(super) steps: u64,
    /// Bytes of answers; and of requests, as long as this one hasn't left whole.
    pub(super) bytes: u64,
    /// When the last of them moved.
    pub(super) at: Option<Instant>,
    /// Until when the broker wants silence.
    pub(super) quiet_until: Option<Instant>,
}

impl Moves {
    /// From when on the request waits for nothing but its answer.
    pub(super) fn since(&self) -> Option<Instant> {
        self.at.max(self.quiet_until)
    }

    /// Until when a request may wait that has seen `before` when it looked last; `None`: not beyond that look.
    pub(super) fn deadline(&self, before: &Self, timeout: Duration) -> Option<Instant> {
        let least = timeout.as_millis() * LEAST_BYTES_PER_SECOND / 1_000;
        let bytes = self.bytes.saturating_sub(before.bytes);
        let has_moved = self.steps > before.steps || u128::from(bytes) >= least.max(1);
        let moved_at = self.at.filter(|_| has_moved);
        Some(moved_at.max(self.quiet_until)? + timeout)
    }
}

/// What a connection counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    answers: u64,
    read_bytes: u64,
    read_at: Option<Instant>,
    written_bytes: u64,
    wrote_at: Option<Instant>,
}

impl Counters {
    pub(super) fn read(&mut self, bytes: usize) {
        self.read_bytes += bytes as u64;
        self.read_at = Some(Instant::now());
    }

    pub(super) fn answered(&mut self) {
        self.answers += 1;
    }

    pub(super) fn written(&mut self, bytes: usize) {
        self.written_bytes += bytes as u64;
        self.wrote_at = Some(Instant::now());
    }

    /// When anything moved last.
    pub(super) fn moved_at(&self) -> Option<Instant> {
        self.read_at.max(self.wrote_at)
    }

    /// As a request sees them that left whole at that time, or hasn't yet.
    pub(super) fn seen(&self, left_at: Option<Instant>, quiet_until: Option<Instant>) -> Moves {
        let own = match left_at {
            Some(_) => 0,
            None => self.written_bytes,
        };
        Moves {
            steps: self.answers + u64::from(left_at.is_some()),
            bytes: self.read_bytes + own,
            at: self.read_at.max(left_at.or(self.wrote_at)),
            quiet_until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn at(start: Instant, seconds: u64) -> Option<Instant> {
        Some(start + Duration::from_secs(seconds))
    }

    #[test]
    fn the_time_runs_from_the_last_byte_and_not_from_the_last_look() {
        let start = Instant::now();
        let before = Moves::default();
        let moved = Moves {
            bytes: 100_000,
            at: at(start, 2),
            ..before
        };
        assert_eq!(moved.deadline(&before, TIMEOUT), at(start, 12));
        assert_eq!(moved.deadline(&moved, TIMEOUT), None, "nothing since");
    }

    #[test]
    fn a_trickle_is_no_movement_and_a_whole_answer_is() {
        let start = Instant::now();
        let before = Moves::default();
        let trickle = Moves {
            bytes: 20_479,
            at: at(start, 9),
            ..before
        };
        assert_eq!(trickle.deadline(&before, TIMEOUT), None);
        let slow = Moves {
            bytes: 20_480,
            ..trickle
        };
        assert_eq!(slow.deadline(&before, TIMEOUT), at(start, 19));
        let whole = Moves {
            steps: 1,
            ..trickle
        };
        assert_eq!(whole.deadline(&before, TIMEOUT), at(start, 19));
    }

    #[test]
    fn silence_that_was_asked_for_does_not_count() {
        let start = Instant::now();
        let quiet = Moves {
            quiet_until: at(start, 500),
            ..Moves::default()
        };
        assert_eq!(quiet.deadline(&quiet, TIMEOUT), at(start, 510));
    }

    #[test]
    fn what_leaves_behind_a_request_brings_its_answer_no_nearer() {
        let mut counters = Counters::default();
        counters.written(1_000);
        let leaving = counters.seen(None, None);
        assert_eq!(leaving.bytes, 1_000);
        let left_at = counters.wrote_at;
        let left = counters.seen(left_at, None);
        counters.written(1_000_000);
        assert_eq!(counters.seen(left_at, None), left);
    }
}
