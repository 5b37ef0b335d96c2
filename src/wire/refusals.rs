//! Brokers that refused us, each with the error and when it may be tried again.
//!
//! A wrong password or certificate doesn't mend itself in milliseconds, and every try costs the
//! broker a handshake (and may lock an account). So there is one try at a time, the next one after
//! 1 s doubling to 30 s, and whoever asks meanwhile gets the last error at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::error::WireError;

const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// By address: a bootstrap address and a broker may be the same.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<String, Entry>>);

#[derive(Default)]
struct Entry {
    /// Held while TLS and authentication are under way.
    gate: Arc<tokio::sync::Mutex<()>>,
    refused: Option<Refused>,
}

struct Refused {
    failures: u32,
    not_before: Instant,
    error: WireError,
}

impl Refusals {
    /// One after the other through the gate.
    pub(super) fn gate(&self, address: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.lock()
            .entry(address.to_owned())
            .or_default()
            .gate
            .clone()
    }

    /// The last error, as long as it is too early to try again.
    pub(super) fn too_early(&self, address: &str) -> Option<WireError> {
        let entries = self.lock();
        let refused = entries.get(address)?.refused.as_ref()?;
        (Instant::now() < refused.not_before).then(|| refused.error.clone())
    }

    pub(super) fn refused(&self, address: &str, error: &WireError) {
        let mut entries = self.lock();
        let entry = entries.entry(address.to_owned()).or_default();
        let failures = entry.refused.as_ref().map_or(0, |refused| refused.failures);
        let least = WAIT_MIN.saturating_mul(1 << failures.min(16)).min(WAIT_MAX);
        // A little more, so that those that were refused together don't come back together.
        let wait = least.mul_f64(rand::rng().random_range(1.0..1.2));
        entry.refused = Some(Refused {
            failures: failures + 1,
            not_before: Instant::now() + wait,
            error: error.clone(),
        });
    }

    pub(super) fn accepted(&self, address: &str) {
        if let Some(entry) = self.lock().get_mut(address) {
            entry.refused = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
