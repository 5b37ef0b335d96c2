//! ACLs of the target's own people that let somebody write to copies. Pure.

use super::binding::operation;
use super::held::changes_the_copy;
use super::ours::{Ours, is_made_by_us};
use crate::telemetry::metadata::{Drift, DriftAction, DriftKind};
use crate::wire::AclBinding;

/// How many are named.
const NAMED_MAX: usize = 50;

/// Names them. `copies` are the copied topics by their names on the target.
pub(super) fn exposures<'a>(
    target: impl Iterator<Item = &'a AclBinding>,
    ours: &Ours,
    copies: &[String],
    own_principal: Option<&str>,
) -> Vec<Drift> {
    let found: Vec<&AclBinding> = target
        .filter(|acl| changes_the_copy(acl) && acl.operation != operation::CREATE)
        .filter(|acl| Some(&*acl.principal) != own_principal && !is_made_by_us(ours, acl))
        .filter(|acl| copies.iter().any(|copy| acl.covers(copy)))
        .collect();
    let named = found.iter().take(NAMED_MAX).map(|acl| {
        let why = format!(
            "made on the standby itself: lets {} change the copy; a write there stops the partition",
            acl.principal
        );
        leave(acl.subject(), acl.statement(), Some(acl.to_string()), why)
    });
    let mut drift: Vec<Drift> = named.collect();
    if found.len() > NAMED_MAX {
        let detail = format!("{} more ACLs", found.len() - NAMED_MAX);
        let why = "made on the standby itself: they let clients change copies".to_owned();
        drift.push(leave("topics".to_owned(), detail, None, why));
    }
    drift
}

/// Something that is left as it is.
pub(super) fn leave(subject: String, detail: String, target: Option<String>, why: String) -> Drift {
    Drift {
        kind: DriftKind::Acl,
        action: DriftAction::Leave,
        subject,
        detail,
        source: None,
        target,
        why: Some(why),
        failure: None,
    }
}
