//! Which ACLs about groups and transactional ids are a flow's, whichever cluster they are on. Pure.

use std::collections::BTreeSet;

use super::binding::resource;
use super::named::Named;
use super::translate::Scope;
use crate::config::FlowConfig;
use crate::wire::AclBinding;

static NO_NAMES: BTreeSet<String> = BTreeSet::new();
static NO_RIGHTS: BTreeSet<(String, i8)> = BTreeSet::new();

/// What a flow has to do with, of what keeps its name on the other cluster.
pub struct OfFlow<'a> {
    groups: Named<'a>,
    transactional_ids: Named<'a>,
}

impl<'a> OfFlow<'a> {
    /// `followed` are the groups whose positions the flow keeps, `there` the ACLs of the cluster to which something shall
    /// go: whom they name is known there.
    pub fn new(
        flow: &'a FlowConfig,
        followed: &'a BTreeSet<String>,
        there: &'a [AclBinding],
    ) -> Self {
        let scope = Scope {
            selected: &flow.topics,
            source_name: &flow.source,
            rename: &flow.rename,
            topics: &NO_NAMES,
            groups: &flow.groups,
            followed,
            known: &NO_NAMES,
            trusted: &NO_RIGHTS,
            is_shared: false,
            is_open: false,
            own_principal: None,
        };
        Self {
            groups: Named::groups(there, &scope),
            transactional_ids: Named::transactional_ids(there, &scope),
        }
    }

    /// What an ACL says about the flow's own groups or transactional ids: all of it, or in single parts, or nothing. What is
    /// about anything else is nothing.
    pub fn parts(&self, acl: &AclBinding) -> Vec<AclBinding> {
        match acl.resource_type {
            resource::GROUP => self.groups.targets(acl).acls,
            resource::TRANSACTIONAL_ID => self.transactional_ids.targets(acl).acls,
            _ => Vec::new(),
        }
    }

    /// Whether all that an ACL says is about them.
    pub fn is_whole(&self, acl: &AclBinding) -> bool {
        self.parts(acl) == std::slice::from_ref(acl)
    }
}
