//! What the state topic remembers of a flow's ACLs.

use std::collections::BTreeMap;

use super::diff::Others;
use super::release::Release;
use crate::state::{AclRecord, AclState, ReleaseRecord, StateError, StateStore, keys};
use crate::wire::AclBinding;

/// By the ACL on the target.
pub(super) type Ours = BTreeMap<AclBinding, AclRecord>;

/// The flow's ACLs.
pub(super) fn load(store: &StateStore, flow: &str) -> Result<Ours, StateError> {
    let mut ours = Ours::new();
    for key in store.keys(&keys::acls(flow)) {
        if let Some(record) = store.get::<AclRecord>(&key)? {
            ours.insert(binding(&record), record);
        }
    }
    Ok(ours)
}

/// Whether the flow made an ACL that the target has.
pub(super) fn is_made_by_us(ours: &Ours, acl: &AclBinding) -> bool {
    ours.get(acl)
        .is_some_and(|record| record.state != AclState::Held)
}

/// What other flows made on the same target.
pub(super) fn load_others(store: &StateStore, flow: &str) -> Result<Others, StateError> {
    let own = keys::acls(flow);
    let mut others = Others::new();
    for key in store.keys(keys::ALL_ACLS) {
        if key.starts_with(&own) {
            continue;
        }
        let rest = key.strip_prefix(keys::ALL_ACLS).unwrap_or_default();
        let (Some((other, _)), Some(record)) =
            (rest.split_once('/'), store.get::<AclRecord>(&key)?)
        else {
            continue;
        };
        if record.state != AclState::Held {
            let flows = others.entry(binding(&record)).or_default();
            flows.insert(other.to_owned());
        }
    }
    Ok(others)
}

/// What is released.
pub(super) fn load_release(store: &StateStore, flow: &str) -> Result<Release, StateError> {
    let record: Option<ReleaseRecord> = store.get(&keys::release(flow))?;
    Ok(Release::from(record))
}

/// The ACL of a record.
pub(super) fn binding(record: &AclRecord) -> AclBinding {
    AclBinding {
        resource_type: record.resource_type,
        pattern_type: record.pattern_type,
        name: record.name.clone(),
        principal: record.principal.clone(),
        host: record.host.clone(),
        operation: record.operation,
        permission: record.permission,
    }
}

/// A record of an ACL that comes from an ACL of the source.
pub(super) fn record(acl: &AclBinding, source: String, state: AclState) -> AclRecord {
    let acl = acl.clone();
    AclRecord {
        v: 1,
        resource_type: acl.resource_type,
        pattern_type: acl.pattern_type,
        name: acl.name,
        principal: acl.principal,
        host: acl.host,
        operation: acl.operation,
        permission: acl.permission,
        source,
        state,
        why: None,
        is_part: false,
    }
}
