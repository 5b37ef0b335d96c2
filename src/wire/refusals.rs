//! Brokers that refused us, each with the error and when it may be tried again.
//!
//! A wrong password or certificate doesn't mend itself in milliseconds, and every try costs the
//! broker a handshake (and may lock an account). So there is one try at a time, the next one after
//! 1 s doubling to 30 s, and whoever asks meanwhile gets the last error at once.
//!
//! Where one was accepted a moment ago the others need no scout: a handshake of TLS and SCRAM takes seven
//! ways there and back, and after a cut many connections are opened at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::error::{TlsProblem, WireError};
use super::tls::CLOSED;

const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long others go the way of one that was accepted.
const TRUSTED_FOR: Duration = Duration::from_secs(10);

/// By address: a bootstrap address and a broker may be the same.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<String, Entry>>);

#[derive(Default)]
struct Entry {
    /// Held while TLS and authentication are under way.
    gate: Arc<tokio::sync::Mutex<()>>,
    accepted_at: Option<Instant>,
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

    /// Whether one was accepted a moment ago, and none was refused since.
    pub(super) fn is_trusted(&self, address: &str) -> bool {
        let entries = self.lock();
        let accepted_at = entries.get(address).and_then(|entry| entry.accepted_at);
        accepted_at.is_some_and(|at| at.elapsed() < TRUSTED_FOR)
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
        entry.accepted_at = None;
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
            entry.accepted_at = Some(Instant::now());
        }
    }

    /// The same, or that the broker takes no more connections: who was accepted there hasn't the wrong certificate.
    /// Some services let a login fail for it (MSK: "Too many connects").
    pub(super) fn or_limit(&self, address: &str, error: WireError) -> WireError {
        let entries = self.lock();
        let was_accepted = entries
            .get(address)
            .is_some_and(|entry| entry.accepted_at.is_some());
        match error {
            WireError::Tls {
                context,
                problem: TlsProblem::Refused,
                message,
                ..
            } if was_accepted && message.starts_with(CLOSED) => {
                WireError::Limited { context, message }
            }
            WireError::Authentication {
                context, message, ..
            } if tells_of_a_limit(&message) => WireError::Limited { context, message },
            error => error,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tells_of_a_limit(message: &str) -> bool {
    let message = message.to_lowercase();
    message.contains("too many conn") || message.contains("connection limit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ErrorContext;

    const ADDRESS: &str = "broker:9092";

    fn context() -> Arc<ErrorContext> {
        Arc::new(ErrorContext::cluster("test"))
    }

    fn closed() -> WireError {
        WireError::Tls {
            context: context(),
            problem: TlsProblem::Refused,
            message: format!("{CLOSED} (disconnected)"),
            hint: String::new(),
        }
    }

    fn failed_login(message: &str) -> WireError {
        WireError::Authentication {
            context: context(),
            mechanism: "SCRAM-SHA-512",
            message: message.to_owned(),
            hint: String::new(),
        }
    }

    #[test]
    fn a_limit_is_not_taken_for_a_wrong_password_or_certificate() {
        let refusals = Refusals::default();
        assert!(
            refusals.or_limit(ADDRESS, closed()).is_refusal(),
            "nobody got in yet"
        );
        refusals.gate(ADDRESS);
        refusals.accepted(ADDRESS);
        let limited = refusals.or_limit(ADDRESS, closed());
        assert_eq!(limited.kind(), "limited");
        assert!(limited.is_retriable() && !limited.is_refusal());
        assert!(
            limited.to_string().contains("max.connections.per.ip"),
            "{limited}"
        );
        let login = failed_login("[9a8b]: Too many connects");
        assert_eq!(refusals.or_limit(ADDRESS, login).kind(), "limited");
        let wrong =
            failed_login("Authentication failed during authentication due to invalid credentials");
        assert!(refusals.or_limit(ADDRESS, wrong).is_refusal());
    }

    #[test]
    fn behind_one_that_was_accepted_nobody_needs_a_scout() {
        let refusals = Refusals::default();
        refusals.gate(ADDRESS);
        assert!(!refusals.is_trusted(ADDRESS));
        refusals.accepted(ADDRESS);
        assert!(refusals.is_trusted(ADDRESS));
        refusals.refused(ADDRESS, &failed_login("no"));
        assert!(!refusals.is_trusted(ADDRESS));
    }
}
