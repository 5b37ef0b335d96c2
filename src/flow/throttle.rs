//! The flow's `limits.bytes_per_second`.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Slows a flow down to its rate; does nothing without one.
#[derive(Debug)]
pub struct Throttle {
    limiter: Option<DefaultDirectRateLimiter>,
    burst: u32,
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
            limiter: units.map(|units| RateLimiter::direct(Quota::per_second(units))),
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
                // An error means "more than the burst", which the step never is.
                let _ = limiter.until_n_ready(step).await;
            }
            units -= u64::from(step);
        }
    }
}
