//! A limit of bytes per second for all readers of a run together.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Says how long to wait after something was read.
#[derive(Debug)]
pub(super) struct Limiter {
    bytes_per_second: Option<u64>,
    /// Until when what was read so far takes.
    paid_until: Mutex<Instant>,
}

impl Limiter {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second,
            paid_until: Mutex::new(Instant::now()),
        }
    }

    /// Counts bytes; the caller reads nothing for as long as this says.
    pub(super) fn pay(&self, bytes: u64) -> Duration {
        let Some(rate) = self.bytes_per_second else {
            return Duration::ZERO;
        };
        let now = Instant::now();
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let mut paid_until = self
            .paid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // What wasn't used isn't saved up: the disks aren't asked for a burst.
        *paid_until = (*paid_until).max(now) + cost;
        paid_until.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_by_all_together() {
        let limiter = Limiter::new(Some(1_000));
        let began = Instant::now();
        limiter.pay(1_000);
        let wait = limiter.pay(1_000);
        let second = Duration::from_secs(1);
        assert!(
            wait <= 2 * second && wait + began.elapsed() >= 2 * second,
            "{wait:?}"
        );
        assert_eq!(Limiter::new(None).pay(u64::MAX), Duration::ZERO);
    }
}
