//! What keeps Twinlog in where the first ACL of a resource shuts out whoever it isn't for. Pure, but for one question.
//!
//! Whether a resource has an ACL decides whether everybody may do everything with it, where a cluster says so
//! (`allow.everyone.if.no.acl.found`; `StandardAuthorizerData`: no ACL on the *resource*, not for the principal).
//! So whatever gets an ACL gets one for Twinlog first, which grants no more than it had. Only behind that
//! one, seen on a broker, anything else about the resource is made, held or released: an ACL that was only asked for keeps
//! nobody in.

use std::collections::BTreeSet;
use std::time::Duration;

use super::binding::{ANY_HOST, operation, pattern, permission, resource};
use super::held::{changes_the_copy, meet};
use super::ours::{Ours, is_made_by_us};
use crate::state::STATE_TOPIC;
use crate::wire::{self, AclBinding, Cluster};

/// What the transactional ids begin with under which orphans are replayed; the flow's name follows.
pub const REPLAY_ID_PREFIX: &str = "twinlog-orphans-";

/// How long brokers may take to show an ACL that the controller has made.
pub const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// The ACL that has to be there before this one. `None` about what Twinlog doesn't use.
pub fn keeper(acl: &AclBinding, own: &str) -> Option<AclBinding> {
    is_used(acl).then(|| AclBinding {
        principal: own.to_owned(),
        host: ANY_HOST.to_owned(),
        operation: operation::ALL,
        permission: permission::ALLOW,
        ..acl.clone()
    })
}

/// Whether something that this one is about would have no ACL but this and those that come with it. `there` is what stays.
pub fn is_first(acl: &AclBinding, there: &[AclBinding]) -> bool {
    let is_whole = acl.is_wildcard();
    let covers = |other: &&AclBinding| {
        let is_same = other.resource_type == acl.resource_type;
        is_same
            && match acl.pattern_type {
                // What begins like this has one, whatever its name is, where a shorter beginning has.
                pattern::PREFIXED => {
                    other.is_wildcard() || (!other.is_literal() && other.covers(&acl.name))
                }
                _ if is_whole => other.is_wildcard(),
                _ => other.covers(&acl.name),
            }
    };
    !there.iter().any(|other| covers(&other))
}

/// Whether an ACL is about something that Twinlog uses: topics, groups, and the transactional ids with which orphans
/// are replayed.
pub fn is_used(acl: &AclBinding) -> bool {
    let orphans = || AclBinding {
        pattern_type: pattern::PREFIXED,
        name: REPLAY_ID_PREFIX.to_owned(),
        ..acl.clone()
    };
    match acl.resource_type {
        resource::TOPIC | resource::GROUP => true,
        resource::TRANSACTIONAL_ID => meet(acl, &orphans()),
        _ => false,
    }
}

/// Whether an operator has given Twinlog its rights by ACLs, on all that it writes to. Then it needs none
/// of its own making, and the target is most likely not open: brokers hide whether the property is set to
/// `false`. (Rights on some of it say nothing about the rest.)
pub(super) fn holds_rights(
    target: &BTreeSet<AclBinding>,
    ours: &Ours,
    own: Option<&str>,
    copies: &[String],
) -> bool {
    let given: Vec<&AclBinding> = target
        .iter()
        .filter(|acl| changes_the_copy(acl) && Some(&*acl.principal) == own)
        .filter(|acl| !is_made_by_us(ours, acl))
        .collect();
    let mut needed = std::iter::once(STATE_TOPIC).chain(copies.iter().map(String::as_str));
    needed.all(|topic| given.iter().any(|acl| acl.covers(topic)))
}

/// Whether a first ACL may shut Twinlog out of what it is about. Who can't be asked may be open: what keeps Twinlog in
/// does no harm on a cluster that isn't.
pub async fn may_be_open(cluster: &Cluster) -> bool {
    match wire::is_open_by_default(cluster).await {
        Ok(is_open) => is_open,
        Err(error) => {
            tracing::debug!(cluster = cluster.name(), %error, "whether it is open isn't known: taken for open");
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(name: &str, is_prefixed: bool) -> AclBinding {
        AclBinding {
            resource_type: resource::TOPIC,
            pattern_type: if is_prefixed {
                pattern::PREFIXED
            } else {
                pattern::LITERAL
            },
            name: name.to_owned(),
            principal: "User:x".to_owned(),
            host: ANY_HOST.to_owned(),
            operation: operation::ALL,
            permission: permission::ALLOW,
        }
    }

    #[test]
    fn what_has_an_acl_already_gets_no_first_one() {
        let (orders, shop, all) = (
            acl("shop.orders", false),
            acl("shop.", true),
            acl("*", false),
        );
        let other = acl("other", false);
        let is_first = |new: &AclBinding, there: &[&AclBinding]| {
            let there: Vec<AclBinding> = there.iter().map(|it| (*it).clone()).collect();
            super::is_first(new, &there)
        };
        for new in [&orders, &shop, &all] {
            assert!(is_first(new, &[]), "{new}");
            assert!(is_first(new, &[&other]), "{new}");
            assert!(!is_first(new, &[&all]), "{new}");
        }
        assert!(!is_first(&orders, &[&shop]));
        assert!(!is_first(&shop, &[&shop]));
        assert!(!is_first(&acl("shop.eu.", true), &[&shop]));
        // Another topic that begins like this has none.
        assert!(is_first(&shop, &[&orders]));
        assert!(is_first(&all, &[&shop]));
        let of_a_group = AclBinding {
            resource_type: resource::GROUP,
            ..all
        };
        assert!(is_first(&orders, &[&of_a_group]));
    }
}
