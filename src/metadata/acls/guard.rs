//! What is wanted beside the source's ACLs, so that copying them harms nobody. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::binding::{operation, pattern, permission, resource};
use super::held::{changes_the_copy, is_everybody, patterns_meet};
use super::keep_in::keeper;
use super::translate::{Fate, Scope, Translated, Wanted};
use crate::config::OWN_PREFIX;
use crate::wire::AclBinding;

/// Why the denials of [`state_topics`] wait: until then nobody has the grant that they limit.
pub(super) const COMES_WITH_GRANTS: &str =
    "it comes with a grant on all topics, which isn't one on Twinlog's own";
const OWN_TOO: &str = "it is about Twinlog's own topics too, and what would deny them to whom it is for \
                       would deny them to Twinlog: given for each copied topic";
/// Not released either: it waits until that is said.
pub(super) const WHO_ARE_WE: &str = "on the target everybody may do everything with what has no ACL, so its first \
                          ACL could shut Twinlog out: say whom its brokers take Twinlog for, in \
                          acls.principal";

/// What changes topics.
pub(super) const CHANGES: [i8; 5] = [
    operation::WRITE,
    operation::CREATE,
    operation::DELETE,
    operation::ALTER,
    operation::ALTER_CONFIGS,
];

/// Nobody changes Twinlog's own topics by a grant that was meant for the source's. Who can write to
/// the state topic says what Twinlog made and may remove, and so removes any ACL: rights on topics
/// would be rights on ACLs.
///
/// With such a grant comes a denial for the same principal. It can't where that would shut Twinlog out:
/// then the pattern is given for each of `names`, the copies.
pub(super) fn state_topics(
    translated: &mut Translated,
    scope: &Scope<'_>,
    names: &BTreeSet<String>,
) {
    let own = AclBinding {
        resource_type: resource::TOPIC,
        pattern_type: pattern::PREFIXED,
        name: OWN_PREFIX.to_owned(),
        principal: String::new(),
        host: String::new(),
        operation: operation::ALL,
        permission: permission::DENY,
    };
    let is_trusted = |principal: &str, operation: i8| {
        let mut trusted = scope.trusted.iter();
        trusted.any(|(it, lets)| *lets == operation && (it == principal || is_everybody(it)))
    };
    let reaching: Vec<(AclBinding, Wanted)> = translated
        .wanted
        .iter()
        .filter(|(acl, _)| changes_the_copy(acl) && patterns_meet(&own, acl))
        .map(|(acl, wanted)| (acl.clone(), wanted.clone()))
        .collect();
    for (grant, wanted) in reaching {
        let gives = |it: &i8| [*it, operation::ALL].contains(&grant.operation);
        let is_new = |it: &i8| !is_trusted(&grant.principal, *it);
        let more: Vec<i8> = CHANGES.into_iter().filter(gives).filter(is_new).collect();
        if more.is_empty() {
            continue;
        }
        if is_everybody(&grant.principal) || scope.own_principal.is_none() {
            translated.wanted.remove(&grant);
            translated.left.insert(wanted.source.clone(), OWN_TOO);
            for name in names.iter().filter(|name| grant.covers(name)) {
                let one = translated.wanted.entry(grant.about(name));
                one.or_insert_with(|| wanted.clone());
            }
            continue;
        }
        for operation in more {
            let denial = AclBinding {
                principal: grant.principal.clone(),
                host: grant.host.clone(),
                operation,
                ..own.clone()
            };
            translated.wanted.entry(denial).or_insert_with(|| Wanted {
                source: wanted.source.clone(),
                fate: Fate::Hold(COMES_WITH_GRANTS.to_owned()),
            });
        }
    }
}

/// Whatever gets an ACL on an open target, now or when it is released, gets what keeps Twinlog in ([`keeper`]).
pub(super) fn open_target(translated: &mut Translated, scope: &Scope<'_>) {
    if !scope.is_open {
        return;
    }
    let Some(own) = scope.own_principal else {
        for wanted in translated.wanted.values_mut() {
            wanted.fate = Fate::Hold(WHO_ARE_WE.to_owned());
        }
        return;
    };
    let keeping = |(acl, wanted): (&AclBinding, &Wanted)| {
        let wanted = Wanted {
            source: wanted.source.clone(),
            fate: Fate::Apply,
        };
        Some((keeper(acl, own)?, wanted))
    };
    let keeping: BTreeMap<_, _> = translated.wanted.iter().filter_map(keeping).collect();
    translated.wanted.extend(keeping);
}
