//! The flow's `limits.bytes_per_second`, which may change while it runs.

use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Slows a flow down to its rate; does nothing without one.
#[derive(Debug)]
pub struct Throttle {
    rate: RwLock<Option<Arc<Rate>>>,
    changed: Notify,
}

/// A rate, and what was taken of it.
#[derive(Debug)]
struct Rate {
    bytes_per_second: u64,
    limiter: Limiter,
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

impl Rate {
    fn new(bytes_per_second: u64) -> Self {
        let units = (bytes_per_second / UNIT_BYTES).clamp(1, u64::from(u32::MAX));
        let units =
            NonZeroU32::new(u32::try_from(units).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        Self {
            bytes_per_second,
            limiter: RateLimiter::direct_with_clock(
                Quota::per_second(units),
                TokioClock(Instant::now()),
            ),
            burst: units.get(),
        }
    }

    /// Takes up to so many units, more than none. How many, or how long nothing can be taken.
    fn take(&self, units: u64) -> Result<u64, Duration> {
        // More than a burst at once would never be allowed.
        let step = u32::try_from(units.min(u64::from(self.burst))).unwrap_or(1);
        let step = NonZeroU32::new(step).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_n(step) {
            Ok(Err(not_yet)) => Err(not_yet.wait_time_from(self.limiter.clock().now())),
            // An outer error means "more than the burst", which the step never is.
            _ => Ok(u64::from(step.get())),
        }
    }
}

impl Throttle {
    /// A throttle for a rate in bytes per second.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            rate: RwLock::new(bytes_per_second.map(|rate| Arc::new(Rate::new(rate)))),
            changed: Notify::new(),
        }
    }

    /// Another rate from now on, for those who wait by the old one too.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        if self.bytes_per_second() == bytes_per_second {
            return;
        }
        *self.rate.write().unwrap_or_else(PoisonError::into_inner) =
            bytes_per_second.map(|rate| Arc::new(Rate::new(rate)));
        self.changed.notify_waiters();
    }

    /// The rate now, if there is one.
    pub fn bytes_per_second(&self) -> Option<u64> {
        self.rate().map(|rate| rate.bytes_per_second)
    }

    fn rate(&self) -> Option<Arc<Rate>> {
        self.rate
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until `bytes` more are allowed. Cancellation-safe: nothing is owed when dropped.
    pub async fn take(&self, bytes: u64) {
        let mut units = bytes.div_ceil(UNIT_BYTES);
        while units > 0 {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look: a change between that and the wait counts.
            changed.as_mut().enable();
            let Some(rate) = self.rate() else { return };
            match rate.take(units) {
                Ok(taken) => units -= taken.min(units),
                Err(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = changed => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::simulated;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn who_waits_by_a_rate_that_is_lifted_goes_on() {
        simulated(|| async {
            let throttle = Arc::new(Throttle::new(Some(MIB)));
            let began = Instant::now();
            throttle.take(3 * MIB).await;
            let took = began.elapsed();
            assert!(took >= Duration::from_millis(1_900), "{took:?}");
            let lifted = throttle.clone();
            let lifts = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                lifted.set(None);
            };
            tokio::join!(throttle.take(100 * MIB), lifts);
            assert!(began.elapsed() < took + Duration::from_millis(1_100));
        });
    }

    #[test]
    fn a_rate_that_is_set_holds_from_then_on() {
        simulated(|| async {
            let throttle = Throttle::new(None);
            throttle.take(1_000 * MIB).await;
            throttle.set(Some(2 * MIB));
            assert_eq!(throttle.bytes_per_second(), Some(2 * MIB));
            let began = Instant::now();
            throttle.take(12 * MIB).await;
            let took = began.elapsed().as_secs_f64();
            assert!((4.5..5.5).contains(&took), "{took}");
        });
    }
}
