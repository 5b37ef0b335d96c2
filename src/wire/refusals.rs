//! Brokers that refused us, each with the error and when it may be tried again.
//!
//! A wrong password or certificate doesn't mend itself in milliseconds, and every try costs the
//! broker a handshake (and may lock an account). So there is one try at a time, the next one after
//! 1 s doubling to 30 s, and whoever asks meanwhile gets the last error at once.
//!
//! Where one was accepted a moment ago the others need no scout: a handshake of TLS and SCRAM takes seven
//! ways there and back, and after a cut many connections are opened at once.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::error::{ErrorContext, TlsProblem, WireError};
use super::tls::CLOSED;

const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long others go the way of one that was accepted.
const TRUSTED_FOR: Duration = Duration::from_secs(10);

/// How long it is remembered that a login was good.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// By address: a bootstrap address and a broker may be the same.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<String, Entry>>);

#[derive(Default)]
struct Entry {
    /// Held while TLS and authentication are under way.
    gate: Arc<tokio::sync::Mutex<()>>,
    accepted_at: Option<Instant>,
    /// The same, whatever came since.
    good_at: Option<Instant>,
    refused: Option<Refused>,
    /// When the last one who tried heard nothing, and how that is told.
    silent: Option<(Instant, WireError)>,
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
        let mut entries = self.lock();
        let entry = entries.entry(address.to_owned()).or_default();
        let now = Some(Instant::now());
        (entry.accepted_at, entry.good_at) = (now, now);
        (entry.refused, entry.silent) = (None, None);
    }

    /// Nobody answered.
    pub(super) fn silent(&self, address: &str, error: &WireError) {
        let mut entries = self.lock();
        let entry = entries.entry(address.to_owned()).or_default();
        entry.silent = Some((Instant::now(), error.clone()));
    }

    /// What the one heard for whom this one has waited since then, if that was nothing.
    pub(super) fn silence_since(&self, address: &str, since: Instant) -> Option<WireError> {
        let entries = self.lock();
        let (at, error) = entries.get(address)?.silent.as_ref()?;
        (*at >= since).then(|| error.clone())
    }

    /// The same, or that the broker takes no more connections: who was accepted there hasn't the wrong certificate, and
    /// while one is in another isn't turned away for who he is. Some services let a login fail for it (MSK: "Too
    /// many connects").
    pub(super) fn or_limit(&self, address: &str, error: WireError, is_in: bool) -> WireError {
        let entries = self.lock();
        let entry = entries.get(address);
        let was_accepted = entry.is_some_and(|entry| entry.accepted_at.is_some());
        match error {
            WireError::Tls {
                context,
                problem: TlsProblem::Refused,
                message,
                ..
            } if (was_accepted || is_in) && message.starts_with(CLOSED) => {
                WireError::Limited { context, message }
            }
            WireError::Authentication {
                context, message, ..
            } if tells_of_a_limit(&message) => WireError::Limited { context, message },
            WireError::Disconnected { context } if is_in => limited(context),
            WireError::Io { context, error } if is_in && is_hung_up(&error) => limited(context),
            WireError::Authentication {
                context,
                mechanism,
                message,
                hint,
            } => {
                let good_at = entry.and_then(|entry| entry.good_at);
                let hint = with_past(hint, good_at.map(|at| at.elapsed()));
                WireError::Authentication {
                    context,
                    mechanism,
                    message,
                    hint,
                }
            }
            error => error,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limited(context: Arc<ErrorContext>) -> WireError {
    let message = "the broker closed it before it answered, while another one of ours is up";
    let message = message.to_owned();
    WireError::Limited { context, message }
}

fn is_hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset
    )
}

/// A password that worked a moment ago isn't called wrong.
fn with_past(hint: String, good_before: Option<Duration>) -> String {
    match good_before.filter(|before| *before < REMEMBERED_FOR) {
        None => hint,
        Some(before) => format!(
            "the same login worked {} s ago: it was changed since then, or the broker takes no more logins for a \
             moment; it is tried again",
            before.as_secs()
        ),
    }
}

fn tells_of_a_limit(message: &str) -> bool {
    let message = message.to_lowercase();
    message.contains("too many conn") || message.contains("connection limit")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            refusals.or_limit(ADDRESS, closed(), false).is_refusal(),
            "nobody got in yet"
        );
        refusals.gate(ADDRESS);
        refusals.accepted(ADDRESS);
        let limited = refusals.or_limit(ADDRESS, closed(), false);
        assert_eq!(limited.kind(), "limited");
        assert!(limited.is_retriable() && !limited.is_refusal());
        assert!(
            limited.to_string().contains("max.connections.per.ip"),
            "{limited}"
        );
        let login = failed_login("[9a8b]: Too many connects");
        assert_eq!(refusals.or_limit(ADDRESS, login, false).kind(), "limited");
        let wrong =
            failed_login("Authentication failed during authentication due to invalid credentials");
        assert!(refusals.or_limit(ADDRESS, wrong, false).is_refusal());
    }

    #[test]
    fn who_is_turned_away_while_another_is_in_hears_of_a_limit() {
        let refusals = Refusals::default();
        let closed = || WireError::Disconnected { context: context() };
        let reset = || WireError::Io {
            context: context(),
            error: Arc::new(io::ErrorKind::ConnectionReset.into()),
        };
        assert_eq!(refusals.or_limit(ADDRESS, closed(), true).kind(), "limited");
        assert_eq!(refusals.or_limit(ADDRESS, reset(), true).kind(), "limited");
        // A broker that goes down turns everybody out.
        assert_eq!(
            refusals.or_limit(ADDRESS, closed(), false).kind(),
            "disconnected"
        );
        assert_eq!(refusals.or_limit(ADDRESS, reset(), false).kind(), "io");
    }

    #[test]
    fn a_password_that_worked_a_moment_ago_is_not_called_wrong() {
        let refusals = Refusals::default();
        let first = refusals.or_limit(ADDRESS, failed_login("no"), false);
        assert_eq!(first.hint(), None);
        let began = Instant::now();
        refusals.accepted(ADDRESS);
        for _ in 0..2 {
            let error = refusals.or_limit(ADDRESS, failed_login("no"), false);
            let hint = error.hint().expect("a hint");
            // 0 s, unless this machine stood still.
            let mut possible = 0..=began.elapsed().as_secs();
            let is_told = possible.any(|seconds| hint.contains(&format!("worked {seconds} s ago")));
            assert!(is_told, "{hint}");
            refusals.refused(ADDRESS, &error);
        }
    }

    #[test]
    fn who_waited_for_a_scout_that_heard_nothing_does_not_try_as_well() {
        let refusals = Refusals::default();
        let silent = WireError::Silent {
            context: context(),
            what: "accepted, but silent",
            after: WAIT_MIN,
        };
        let since = Instant::now();
        refusals.silent(ADDRESS, &silent);
        assert!(
            refusals
                .silence_since(ADDRESS, since)
                .is_some_and(|error| error.is_silent())
        );
        let later = Instant::now() + WAIT_MIN;
        assert!(
            refusals.silence_since(ADDRESS, later).is_none(),
            "who comes later tries"
        );
        refusals.accepted(ADDRESS);
        assert!(refusals.silence_since(ADDRESS, since).is_none());
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
