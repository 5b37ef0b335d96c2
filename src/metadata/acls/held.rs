//! What waits for the failover. Pure.
//!
//! - A grant with which a client could change a copy: a write there stops the partition.
//! - A denial that would shut Twinlog itself out, and with it every grant that it overrides, even
//!   in part: nobody gets on the standby what the source denies.

use std::collections::BTreeMap;

use super::binding::{ANY_HOST, operation, pattern, resource};
use super::translate::{Fate, Wanted};
use crate::config::{OWN_PREFIX, is_internal_topic};
use crate::wire::AclBinding;

const CHANGES_THE_COPY: &str =
    "a client could change the copy with it, and a write there stops the partition";
const SHUTS_OUT: &str = "it would shut Twinlog itself out";

/// What reads and nothing else.
const READS: [i8; 3] = [
    operation::READ,
    operation::DESCRIBE,
    operation::DESCRIBE_CONFIGS,
];

/// What Twinlog does with topics on the target.
const NEEDED_ON_TOPICS: [i8; 9] = [
    operation::ALL,
    operation::READ,
    operation::WRITE,
    operation::CREATE,
    operation::DELETE,
    operation::ALTER,
    operation::DESCRIBE,
    operation::DESCRIBE_CONFIGS,
    operation::ALTER_CONFIGS,
];

/// What Twinlog does with the topic that groups' positions are in.
const NEEDED_ON_OFFSETS: [i8; 3] = [operation::ALL, operation::READ, operation::DESCRIBE];

/// What Twinlog does with groups on the target.
const NEEDED_ON_GROUPS: [i8; 3] = [operation::ALL, operation::READ, operation::DESCRIBE];

/// Whether somebody could change a copy with it, if it is about one.
pub(super) fn changes_the_copy(acl: &AclBinding) -> bool {
    acl.is_topic() && acl.is_allow() && !READS.contains(&acl.operation)
}

/// What of a grant of everything can be had at once. (READ includes DESCRIBE.)
pub(super) fn harmless_parts(acl: &AclBinding) -> Vec<AclBinding> {
    if !changes_the_copy(acl) || acl.operation != operation::ALL {
        return Vec::new();
    }
    let part = |operation| AclBinding {
        operation,
        ..acl.clone()
    };
    [operation::READ, operation::DESCRIBE_CONFIGS]
        .map(part)
        .into()
}

/// Decides what waits.
pub(super) fn decide(wanted: &mut BTreeMap<AclBinding, Wanted>, own_principal: Option<&str>) {
    let mut denials = Vec::new();
    for (acl, wanted) in wanted.iter_mut() {
        if shuts_out(acl, own_principal) {
            wanted.fate = Fate::Hold(SHUTS_OUT.to_owned());
            // One for Twinlog alone takes nothing from anybody else.
            if is_everybody(&acl.principal) {
                denials.push(acl.clone());
            }
        } else if changes_the_copy(acl) {
            wanted.fate = Fate::Hold(CHANGES_THE_COPY.to_owned());
        }
    }
    for (acl, wanted) in wanted.iter_mut() {
        if wanted.fate != Fate::Apply {
            continue;
        }
        if let Some(denial) = denials.iter().find(|denial| overrides(denial, acl)) {
            wanted.fate = Fate::Hold(format!("what it grants is denied by {denial}, which waits"));
        }
    }
}

fn shuts_out(acl: &AclBinding, own_principal: Option<&str>) -> bool {
    let is_literal_topic = acl.is_topic() && acl.is_literal();
    let needed: &[i8] = match acl.resource_type {
        // Twinlog reads where groups commit, and no other topic of Kafka's own.
        resource::TOPIC if is_literal_topic && acl.name == "__consumer_offsets" => {
            &NEEDED_ON_OFFSETS
        }
        resource::TOPIC if is_literal_topic && is_anothers(&acl.name) => &[],
        resource::TOPIC => &NEEDED_ON_TOPICS,
        resource::GROUP => &NEEDED_ON_GROUPS,
        _ => &[],
    };
    // From any host: which one Twinlog has for the brokers isn't known here.
    acl.is_deny()
        && needed.contains(&acl.operation)
        && (is_everybody(&acl.principal) || Some(&*acl.principal) == own_principal)
}

/// Whether a topic is a cluster's own business, and not ours.
fn is_anothers(topic: &str) -> bool {
    is_internal_topic(topic) && !topic.starts_with(OWN_PREFIX)
}

/// Whether there can be somebody for whom both are: a denial for one takes something of a grant for everybody.
pub(super) fn may_be_for_one(one: &AclBinding, other: &AclBinding) -> bool {
    let is_for_all = is_everybody(&one.principal) || is_everybody(&other.principal);
    (one.principal == other.principal || is_for_all)
        && (one.host == other.host || one.host == ANY_HOST || other.host == ANY_HOST)
}

/// Whether a denial takes something of what a grant gives. In doubt it does.
pub(super) fn overrides(denial: &AclBinding, grant: &AclBinding) -> bool {
    denial.is_deny()
        && grant.is_allow()
        && denial.resource_type == grant.resource_type
        && may_be_for_one(denial, grant)
        && (denial.operation == operation::ALL
            || grant.operation == operation::ALL
            || gives(grant.operation).contains(&denial.operation))
        && patterns_meet(denial, grant)
}

/// What a grant of an operation gives (`StandardAuthorizerData`).
fn gives(granted: i8) -> Vec<i8> {
    match granted {
        operation::READ | operation::WRITE | operation::DELETE | operation::ALTER => {
            vec![granted, operation::DESCRIBE]
        }
        operation::ALTER_CONFIGS => vec![granted, operation::DESCRIBE_CONFIGS],
        _ => vec![granted],
    }
}

/// Whether there can be a resource that both are about.
pub(super) fn meet(one: &AclBinding, other: &AclBinding) -> bool {
    one.resource_type == other.resource_type && patterns_meet(one, other)
}

/// The same of two that are about resources of one type.
pub(super) fn patterns_meet(one: &AclBinding, other: &AclBinding) -> bool {
    if one.is_wildcard() || other.is_wildcard() {
        return true;
    }
    match (one.pattern_type, other.pattern_type) {
        (pattern::LITERAL, _) => other.covers(&one.name),
        (_, pattern::LITERAL) => one.covers(&other.name),
        _ => one.covers(&other.name) || other.covers(&one.name),
    }
}

/// `User:*`, and the like of other kinds of principals, if an authorizer has them.
pub(super) fn is_everybody(principal: &str) -> bool {
    principal.ends_with(":*")
}
