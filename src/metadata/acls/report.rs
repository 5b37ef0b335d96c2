//! What differs, for people.

use std::collections::BTreeMap;

use super::apply::Failure;
use super::diff::{Changes, Due, Kept};
use super::exposure::leave;
use super::release::Release;
use crate::metadata::pass::{Pass, Refused};
use crate::state::AclState;
use crate::telemetry::metadata::{Drift, DriftAction, DriftFailure, DriftKind};
use crate::telemetry::progress::now_ms;
use crate::wire::AclBinding;

/// Why changes weren't made, by ACL.
pub(super) type Failed = BTreeMap<AclBinding, DriftFailure>;

const HINT: &str = "grant ALTER on the cluster to Twinlog's principal on the target";

/// Notes a failure; `None` when it is known already.
pub(super) fn failure(
    refused: &mut Refused,
    acl: &AclBinding,
    failure: &Failure,
    pass: &mut Pass,
) -> Option<DriftFailure> {
    let (reason, message) = (failure.reason(), failure.message());
    match failure {
        Failure::Rests => None,
        // It is tried again as soon as the other one is done.
        Failure::Waits(_) | Failure::Unseen(_) => Some(DriftFailure {
            reason: reason.to_owned(),
            message,
            hint: None,
            since_ms: now_ms(),
        }),
        Failure::Wire(_) | Failure::State(_) => {
            pass.failed.push(reason.to_owned());
            let hint = (reason == "not_authorized").then(|| HINT.to_owned());
            Some(refused.note(&acl.to_string(), reason, message, hint))
        }
    }
}

/// What differs now. With `applied`, changes that didn't fail are no difference any more.
pub(super) fn drift(
    due: &BTreeMap<AclBinding, Due>,
    left: &BTreeMap<AclBinding, &'static str>,
    changes: &Changes,
    failed: &Failed,
    applied: bool,
) -> Vec<Drift> {
    let mut drift = Vec::new();
    let is_shown = |acl: &AclBinding| !applied || failed.contains_key(acl);
    for (acl, record) in &changes.create {
        if is_shown(acl) {
            let source = Some(record.source.clone());
            drift.push(Drift {
                source,
                failure: failed.get(acl).cloned(),
                ..one(acl, DriftAction::Add)
            });
        }
    }
    for (acl, record) in &changes.delete {
        if is_shown(acl) {
            let why = match record {
                Some(_) => "it waits for the failover now",
                None => "the source doesn't have it any more",
            };
            drift.push(Drift {
                target: Some(acl.to_string()),
                why: Some(why.to_owned()),
                failure: failed.get(acl).cloned(),
                ..one(acl, DriftAction::Remove)
            });
        }
    }
    for (acl, due) in due {
        if due.state == AclState::Held {
            drift.push(Drift {
                source: Some(due.source.clone()),
                why: due.why.clone(),
                ..one(acl, DriftAction::Hold)
            });
        }
    }
    for (acl, why) in left {
        drift.push(Drift {
            source: Some(acl.to_string()),
            why: Some((*why).to_owned()),
            ..one(acl, DriftAction::Leave)
        });
    }
    drift
}

/// What stays because the source doesn't say who it is: whoever knows better removes it.
pub(super) fn kept(kept: &[(AclBinding, Kept)], few_answer: bool) -> Vec<Drift> {
    let drift = |(acl, kept): &(AclBinding, Kept)| {
        let why = match few_answer {
            true => {
                "one broker of the source doesn't have it, and too few others answer to say so too: nothing is taken away"
            }
            false => {
                "the source doesn't have it, and tells no cluster id, so it may be another cluster: nothing is taken away"
            }
        };
        let (action, why) = match kept {
            Kept::OnTarget => (
                DriftAction::Operator,
                format!("{why}; remove it on the target if it is no longer wanted"),
            ),
            Kept::Held => (DriftAction::Hold, why.to_owned()),
        };
        Drift {
            target: (*kept == Kept::OnTarget).then(|| acl.to_string()),
            why: Some(why),
            ..one(acl, action)
        }
    };
    kept.iter().map(drift).collect()
}

/// That something is released, for an operator to end: nobody should forget a drill.
pub(super) fn released(release: &Release) -> Option<Drift> {
    let detail = match release {
        Release::Nothing => return None,
        Release::Everything => "released: everything".to_owned(),
        Release::Topics(topics) => {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            format!("released: topic {}", topics.join(", topic "))
        }
    };
    let why = "clients may change the copy, which stops its partitions; \
               `twinlog held --withdraw` takes it back";
    let subject = "held grants".to_owned();
    Some(Drift {
        action: DriftAction::Operator,
        ..leave(subject, detail, None, why.to_owned())
    })
}

fn one(acl: &AclBinding, action: DriftAction) -> Drift {
    Drift {
        kind: DriftKind::Acl,
        action,
        subject: acl.subject(),
        detail: acl.statement(),
        source: None,
        target: None,
        why: None,
        failure: None,
    }
}
