//! The flow's `limits.bytes_per_second`.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// Slows a flow down to its rate; does nothing without one.
#[derive(Debug)]
pub struct Throttle {
    limiter: Option<Limiter>,
    burst: u32,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// tokio's clock, the only one that the engine waits by; counted from when it was made.
#[derive(Clone, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The limiter counts in units of this many bytes, so that rates above 4 GiB/s still fit.
const UNIT_BYTES: u64 = 1024;

impl Throttle {
    /// A throttle for a rate in bytes per second.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        let units = bytes_per_second.map(|rate| {
            let units = (rate / UNIT_BYTES).clamp(1, u64::from(u32::MAX));
            NonZeroU32::new(u32::try_from(units).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
        });
        Self {
            limiter: units.map(|units| {
                RateLimiter::direct_with_clock(Quota::per_second(units), TokioClock(Instant::now()))
            }),
            burst: units.map_or(1, NonZeroU32::get),
        }
    }

    /// Waits until `bytes` more are allowed. Cancellation-safe: nothing is owed when dropped.
    pub async fn take(&self, bytes: u64) {
        let Some(limiter) = &self.limiter else { return };
        let mut units = bytes.div_ceil(UNIT_BYTES);
        while units > 0 {
            // More than a burst at once would never be allowed.
            let step = u32::try_from(units.min(u64::from(self.burst))).unwrap_or(1);
            if let Some(step) = NonZeroU32::new(step) {
                // An outer error means "more than the burst", which the step never is.
                while let Ok(Err(not_yet)) = limiter.check_n(step) {
                    tokio::time::sleep(not_yet.wait_time_from(limiter.clock().now())).await;
                }
            }
            units -= u64::from(step);
        }
    }
}
