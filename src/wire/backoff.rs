//! Waiting after failures: exponential, with jitter, bounded.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// How long to wait after the `failures`th failure in a row: anywhere between `min` and a ceiling
/// that doubles up to `max`, so that clients that failed together don't come back together.
pub(super) fn delay(failures: u32, min: Duration, max: Duration) -> Duration {
    let ceiling = min.saturating_mul(1 << failures.min(16)).min(max).max(min);
    rand::rng().random_range(min..=ceiling)
}

/// Attempts at one thing until a deadline.
#[derive(Debug)]
pub(super) struct Retry {
    started: Instant,
    deadline: Instant,
    failures: u32,
    min: Duration,
    max: Duration,
}

impl Retry {
    pub(super) fn new(budget: Duration, min: Duration, max: Duration) -> Self {
        let started = Instant::now();
        Self {
            started,
            deadline: started + budget,
            failures: 0,
            min,
            max,
        }
    }

    /// How long this has been going on.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits before another attempt; `false`, at once, when the time is used up.
    pub(super) async fn pause(&mut self) -> bool {
        self.failures += 1;
        let until = Instant::now() + delay(self.failures, self.min, self.max);
        if until > self.deadline {
            return false;
        }
        tokio::time::sleep_until(until).await;
        true
    }
}
