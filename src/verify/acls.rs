//! ACLs. librdkafka's Rust API has none, so what `plan` found is taken over.

use super::report::{Compared, Difference, DifferenceKind};
use crate::telemetry::finding::PlannedChange;
use crate::telemetry::metadata::DriftKind;

/// The ACLs among what `plan` found: what it counts differs, what is held for the failover or left
/// alone by rule doesn't.
pub fn acls_of(changes: &[PlannedChange]) -> (Compared, Vec<Difference>) {
    let mut compared = Compared::default();
    let mut found = Vec::new();
    for change in changes {
        if change.kind != Some(DriftKind::Acl) {
            continue;
        }
        let detail = format!("{} {}: {}", change.action, change.subject, change.detail);
        if change.action == "not_compared" {
            if change.counts {
                compared.not_compared.push(detail);
            }
            continue;
        }
        compared.count += 1;
        if change.counts {
            found.push(Difference::new(DifferenceKind::Acl, detail));
        }
    }
    (compared, found)
}

/// They aren't compared, and that is in order.
pub fn acls_skipped(why: &str) -> (Compared, Vec<Difference>) {
    let compared = Compared {
        skipped: Some(why.to_owned()),
        ..Compared::default()
    };
    (compared, Vec::new())
}

/// They could not be compared.
pub fn acls_failed(why: &str) -> (Compared, Vec<Difference>) {
    let compared = Compared {
        not_compared: vec![why.to_owned()],
        ..Compared::default()
    };
    (compared, Vec::new())
}
