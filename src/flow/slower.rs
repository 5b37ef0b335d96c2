//! A target that answers POLICY_VIOLATION to a batch.
//!
//! No broker of Apache Kafka's does. Some services mean "slower" by it, and others that one of their policies refuses these
//! records. Only time tells which: so it is tried again, more slowly and with less at once, and a batch that was refused
//! again and again is cut in two, as far as that goes. A batch that is small by then, and is refused for minutes in which
//! nothing of its partition was taken, is one that a policy refuses.

use std::time::Duration;

use tokio::time::Instant;

/// A batch that is no larger isn't refused for its size, nor for what a service takes in a minute.
const SMALL_BYTES: usize = 16 * 1024;
/// How long a small one must be refused.
const STAYS_SO: Duration = Duration::from_secs(300);
/// So many times it is tried as it is.
const AS_IT_IS: u32 = 3;
/// Behind so long without a refusal all begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// What a partition's batches were refused.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refusals {
    /// Since when the batch at this offset is refused.
    since: Option<(Instant, i64)>,
    last: Option<Instant>,
    times: u32,
    batch_bytes: Option<usize>,
}

impl Refusals {
    /// A batch of so many bytes was refused at this offset. For how long it has been, if it won't be taken.
    pub(super) fn refused(&mut self, bytes: usize, at: i64, now: Instant) -> Option<Duration> {
        if self.last.is_some_and(|last| now - last >= FORGOTTEN_AFTER) {
            *self = Self::default();
        }
        self.last = Some(now);
        let since = match self.since {
            Some((since, same)) if same == at => since,
            _ => {
                self.taken_before();
                self.since = Some((now, at));
                now
            }
        };
        self.times += 1;
        if self.times >= AS_IT_IS {
            let least = self.batch_bytes.map_or(bytes, |most| most.min(bytes));
            self.batch_bytes = Some((least / 2).max(SMALL_BYTES));
        }
        let refused_for = now - since;
        (bytes <= SMALL_BYTES && refused_for >= STAYS_SO).then_some(refused_for)
    }

    /// Something was taken since the last refusal.
    fn taken_before(&mut self) {
        self.times = 0;
        self.batch_bytes = self.batch_bytes.map(|most| most.saturating_mul(2));
    }

    /// Refusals since something was taken.
    pub(super) fn times(&self) -> u32 {
        self.times
    }

    /// How large batches may be now, if that is less than what the topic takes.
    pub(super) fn batch_bytes(&self, now: Instant) -> Option<usize> {
        let is_over = self.last.is_none_or(|last| now - last >= FORGOTTEN_AFTER);
        self.batch_bytes.filter(|_| !is_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_refused_now_and_then_is_tried_as_it_is() {
        let mut refusals = Refusals::default();
        let mut now = Instant::now();
        for at in 0..1_000 {
            now += SECOND;
            assert_eq!(refusals.refused(1_000, at, now), None);
            assert_eq!((refusals.times(), refusals.batch_bytes(now)), (1, None));
        }
    }

    #[test]
    fn what_is_refused_again_and_again_is_cut_smaller_and_grows_again() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let mut bytes = 1_000_000;
        for _ in 0..20 {
            assert_eq!(refusals.refused(bytes, 7, now), None);
            bytes = refusals.batch_bytes(now).unwrap_or(bytes);
        }
        assert_eq!(bytes, SMALL_BYTES);
        assert_eq!(refusals.refused(bytes, 8, now), None);
        assert_eq!(refusals.batch_bytes(now), Some(2 * SMALL_BYTES));
        assert_eq!(refusals.batch_bytes(now + FORGOTTEN_AFTER), None);
    }

    #[test]
    fn only_a_small_one_that_is_refused_for_minutes_is_given_up() {
        for (bytes, given_up) in [(SMALL_BYTES, true), (SMALL_BYTES + 1, false)] {
            let mut refusals = Refusals::default();
            let began = Instant::now();
            let mut found = None;
            let mut now = began;
            while now < began + 2 * STAYS_SO && found.is_none() {
                found = refusals.refused(bytes, 7, now);
                now += 5 * SECOND;
            }
            assert_eq!(found, given_up.then_some(STAYS_SO));
        }
    }
}
