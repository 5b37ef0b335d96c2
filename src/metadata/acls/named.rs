//! ACLs about what keeps its name on the target: groups and transactional ids. Pure.
//!
//! On a twin of the source they stay as they are. Where the standby has groups of its own, or of other
//! flows, a pattern would be about those too: a grant would let somebody read, reset or delete them,
//! and a denial would take from people what the source has no say in. There a pattern is
//! given for the flow's own names: as patterns where the config names them by their beginnings, else one
//! by one.

use std::collections::BTreeSet;

use super::binding::resource;
use super::translate::{Scope, Targets};
use crate::wire::AclBinding;

/// Above this many followed groups a pattern isn't expanded over them: each ACL is kept in every
/// broker's memory.
const EXPANDED_MAX: usize = 2_000;

const GROUPS: &str = "it is about the standby's own groups too: given for each group that the flow \
                      follows, and for what `groups.include` names by its beginning";
const TRANSACTIONAL_IDS: &str = "it is about the standby's own transactional ids too: given for what \
                                 `groups.include` names by its beginning; grant there what is missing";

/// How they are translated.
pub(super) struct Named<'a> {
    is_twin: bool,
    /// What is the flow's by the beginning of its name.
    namespaces: Vec<String>,
    /// What else is.
    names: BTreeSet<&'a str>,
    /// What an operator is told of a grant by a pattern that was made narrower.
    narrowed: &'static str,
}

impl<'a> Named<'a> {
    /// A group is the flow's if it is selected, and followed or named by an ACL of the source.
    pub(super) fn groups(source: &'a [AclBinding], scope: &Scope<'a>) -> Self {
        let followed = Some(scope.followed).filter(|it| it.len() <= EXPANDED_MAX);
        let followed = followed.into_iter().flatten().map(String::as_str);
        let named = literals(source, resource::GROUP);
        let named = named.map(|acl| &*acl.name);
        let names = followed
            .chain(named)
            .filter(|name| scope.groups.matches(name));
        Self {
            is_twin: scope.is_twin(),
            namespaces: namespaces(scope),
            names: names.collect(),
            narrowed: GROUPS,
        }
    }

    /// Nothing selects transactional ids and nothing lists them: the flow's are those that somebody
    /// has a right to by their whole name. What begins like its groups does, too: so Kafka Streams
    /// names them.
    pub(super) fn transactional_ids(source: &'a [AclBinding], scope: &Scope<'a>) -> Self {
        let granted = literals(source, resource::TRANSACTIONAL_ID)
            .filter(|acl| acl.is_allow() && !scope.is_own_grant(acl));
        Self {
            is_twin: scope.is_twin(),
            namespaces: namespaces(scope),
            names: granted.map(|acl| &*acl.name).collect(),
            narrowed: TRANSACTIONAL_IDS,
        }
    }

    pub(super) fn targets(&self, acl: &AclBinding) -> Targets {
        if self.is_twin {
            return Targets::exactly([acl.clone()]);
        }
        let is_inside = |name: &str| self.namespaces.iter().any(|it| name.starts_with(it));
        if acl.is_literal() {
            let is_taken = self.names.contains(&*acl.name) || is_inside(&acl.name);
            return Targets::exactly(is_taken.then(|| acl.clone()));
        }
        let patterns = self.namespaces.iter().filter_map(|it| acl.within(it));
        let single = self.names.iter().filter(|name| !is_inside(name));
        let single = single.filter(|name| acl.covers(name));
        let is_narrower = acl.is_wildcard() || !is_inside(&acl.name);
        Targets {
            acls: patterns.chain(single.map(|name| acl.about(name))).collect(),
            left: (acl.is_allow() && is_narrower).then_some(self.narrowed),
        }
    }
}

fn literals(source: &[AclBinding], resource_type: i8) -> impl Iterator<Item = &AclBinding> {
    let is_literal = move |acl: &&AclBinding| {
        acl.resource_type == resource_type && acl.is_literal() && acl.is_known()
    };
    source.iter().filter(is_literal)
}

/// `.*` is the default and says that all of the source's groups are followed, not that all of the
/// standby's are the flow's.
fn namespaces(scope: &Scope<'_>) -> Vec<String> {
    let namespaces = scope.groups.namespaces().unwrap_or_default();
    let are_all = namespaces.iter().any(String::is_empty);
    if are_all { Vec::new() } else { namespaces }
}
