//! What one look of one aspect found and did.

use std::collections::HashMap;

use kafka_protocol::ResponseError;
use tokio::time::{Duration, Instant};

use crate::telemetry::metadata::{Drift, DriftFailure, DriftKind, Obstacle};
use crate::telemetry::progress::now_ms;
use crate::wire::WireError;

/// What one look of one aspect found and did.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// What still differs afterwards, with failures; without `apply`, all that differs.
    pub drift: Vec<Drift>,
    /// What couldn't be compared.
    pub obstacles: Vec<Obstacle>,
    /// How many changes were applied.
    pub applied: u64,
    /// The reasons of changes that failed in this pass, one each.
    pub failed: Vec<String>,
}

/// How long a change that was refused rests: a second broker would refuse it as well, and a log
/// line every few seconds helps nobody.
const REST_MIN: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(300);

/// Changes that were refused, by a text that names the change with its new value: the same change
/// isn't tried again before its rest is over, another one at once.
#[derive(Debug, Default)]
pub(super) struct Refused {
    known: HashMap<String, Rest>,
}

#[derive(Debug)]
struct Rest {
    failure: DriftFailure,
    rest: Duration,
    until: Instant,
}

impl Refused {
    /// Why the change can't be tried now, if so.
    pub(super) fn resting(&self, change: &str) -> Option<DriftFailure> {
        self.resting_at(change, Instant::now())
    }

    fn resting_at(&self, change: &str, now: Instant) -> Option<DriftFailure> {
        let rest = self.known.get(change)?;
        (now < rest.until).then(|| rest.failure.clone())
    }

    /// Whether the change was refused before, so that it is in the log already.
    pub(super) fn is_known(&self, change: &str) -> bool {
        self.known.contains_key(change)
    }

    /// Notes a refusal; the rest doubles each time.
    pub(super) fn note(
        &mut self,
        change: &str,
        reason: &str,
        message: String,
        hint: Option<String>,
    ) -> DriftFailure {
        let known = self.known.get(change);
        let failure = DriftFailure {
            reason: reason.to_owned(),
            message,
            hint,
            since_ms: known.map_or_else(now_ms, |known| known.failure.since_ms),
        };
        let rest = known.map_or(REST_MIN, |known| (known.rest * 2).min(REST_MAX));
        let entry = Rest {
            failure: failure.clone(),
            rest,
            until: Instant::now() + rest,
        };
        self.known.insert(change.to_owned(), entry);
        failure
    }

    /// Forgets all changes but those that are still wanted.
    pub(super) fn keep(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.known.retain(|change, _| is_wanted(change));
    }
}

/// A short, stable word for a failed call.
pub(super) fn reason_of(error: &WireError) -> &'static str {
    match error.server_code() {
        Some(
            ResponseError::TopicAuthorizationFailed
            | ResponseError::ClusterAuthorizationFailed
            | ResponseError::GroupAuthorizationFailed,
        ) => "not_authorized",
        Some(ResponseError::SecurityDisabled) => "no_authorizer",
        Some(ResponseError::InvalidConfig) => "invalid_config",
        Some(ResponseError::PolicyViolation) => "policy_violation",
        Some(ResponseError::InvalidRequest) => "invalid_request",
        Some(ResponseError::UnknownTopicOrPartition) => "unknown_topic",
        Some(_) => "refused",
        None => error.kind(),
    }
}

/// An obstacle from a failed call. `grant` names the ACL that is missing if a right is.
pub(super) fn obstacle(
    kind: DriftKind,
    cluster: &'static str,
    error: &WireError,
    grant: &str,
) -> Obstacle {
    let reason = reason_of(error);
    let hint = (reason == "not_authorized").then(|| grant.to_owned());
    Obstacle {
        kind,
        cluster: cluster.to_owned(),
        reason: reason.to_owned(),
        message: error.to_string(),
        hint,
        is_problem: reason != "no_authorizer",
        since_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_change_rests_longer_each_time() {
        let mut refused = Refused::default();
        let later = |seconds: u64| Instant::now() + Duration::from_secs(seconds);
        assert!(refused.resting("a=1").is_none());
        let first = refused.note("a=1", "refused", "no".to_owned(), None);
        assert_eq!(refused.resting("a=1"), Some(first.clone()));
        assert!(refused.is_known("a=1") && !refused.is_known("a=2"));
        assert!(refused.resting("a=2").is_none());
        assert!(refused.resting_at("a=1", later(6)).is_none());
        let second = refused.note("a=1", "refused", "still no".to_owned(), None);
        assert_eq!(second.since_ms, first.since_ms);
        assert!(refused.resting_at("a=1", later(6)).is_some());
        assert!(refused.resting_at("a=1", later(11)).is_none());
        refused.keep(|change| change != "a=1");
        assert!(refused.resting("a=1").is_none());
    }
}
