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

/// Over so many followed groups a pattern is expanded, and no more: each ACL is kept in every broker's
/// memory.
pub(super) const EXPANDED_MAX: usize = 2_000;

const GROUPS: &str = "it is about the standby's own groups too: given for each group that the flow \
                      follows, and for what `groups.include` names by its beginning";
const TRANSACTIONAL_IDS: &str = "it is about the standby's own transactional ids too: given for what \
                                 `groups.include` names by its beginning; grant there what is missing";
const SOME_GROUPS: &str = "it is about the standby's own groups too, and too many are followed: given for 2,000 of \
                           them, and for what `groups.include` names by its beginning";

/// How they are translated.
pub(super) struct Named<'a> {
    is_twin: bool,
    /// What is the flow's by the beginning of its name.
    namespaces: Vec<String>,
    /// What else is.
    names: BTreeSet<&'a str>,
    /// What an operator is told of a grant by a pattern that was made narrower.
    narrowed: &'static str,
    /// How many there are that patterns aren't given for.
    pub(super) left: usize,
}

impl<'a> Named<'a> {
    /// A group is the flow's if it is selected, and followed or named by an ACL of the source.
    pub(super) fn groups(source: &'a [AclBinding], scope: &Scope<'a>) -> Self {
        let namespaces = scope.groups.own_namespaces();
        let is_single = |name: &str| !namespaces.iter().any(|it| name.starts_with(it));
        let selected: Vec<&str> = scope
            .followed
            .iter()
            .map(String::as_str)
            .filter(|name| scope.groups.matches(name) && is_single(name))
            .collect();
        // What has ACLs keeps them: one group more takes nothing from anybody.
        let (known, new): (Vec<&str>, Vec<&str>) = selected
            .into_iter()
            .partition(|name| scope.known.contains(*name));
        let more = EXPANDED_MAX.saturating_sub(known.len());
        let left = new.len().saturating_sub(more);
        let followed = known.into_iter().chain(new.into_iter().take(more));
        let named = literals(source, resource::GROUP).map(|acl| &*acl.name);
        let named = named.filter(|name| scope.groups.matches(name));
        Self {
            is_twin: scope.is_twin(),
            names: followed.chain(named).collect(),
            namespaces,
            narrowed: if left > 0 { SOME_GROUPS } else { GROUPS },
            left,
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
            namespaces: scope.groups.own_namespaces(),
            names: granted.map(|acl| &*acl.name).collect(),
            narrowed: TRANSACTIONAL_IDS,
            left: 0,
        }
    }

    /// Whether it is given for single names.
    pub(super) fn is_expanded(&self, acl: &AclBinding) -> bool {
        !self.is_twin && !acl.is_literal() && (acl.is_wildcard() || !self.is_inside(&acl.name))
    }

    fn is_inside(&self, name: &str) -> bool {
        self.namespaces.iter().any(|it| name.starts_with(it))
    }

    pub(super) fn targets(&self, acl: &AclBinding) -> Targets {
        if self.is_twin {
            return Targets::exactly([acl.clone()]);
        }
        if acl.is_literal() {
            let is_taken = self.names.contains(&*acl.name) || self.is_inside(&acl.name);
            return Targets::exactly(is_taken.then(|| acl.clone()));
        }
        let patterns = self.namespaces.iter().filter_map(|it| acl.within(it));
        let single = self.names.iter().filter(|name| !self.is_inside(name));
        let single = single.filter(|name| acl.covers(name));
        Targets {
            acls: patterns.chain(single.map(|name| acl.about(name))).collect(),
            left: (acl.is_allow() && self.is_expanded(acl)).then_some(self.narrowed),
        }
    }
}

fn literals(source: &[AclBinding], resource_type: i8) -> impl Iterator<Item = &AclBinding> {
    let is_literal = move |acl: &&AclBinding| {
        acl.resource_type == resource_type && acl.is_literal() && acl.is_known()
    };
    source.iter().filter(is_literal)
}
