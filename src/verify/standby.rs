//! Whether the target is a standby at all.

use crate::config::FlowConfig;
use crate::state::{RoleRecord, StateError, StateStore, keys};
use crate::telemetry::utc::to_the_second;

/// Why the target of a flow isn't to be like the source in its configs, ACLs, quotas and users: it was failed over,
/// and what its clients need is in force there.
///
/// # Errors
/// When what is remembered can't be read.
pub fn why_no_standby(store: &StateStore, flow: &FlowConfig) -> Result<Option<String>, StateError> {
    let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
    let role = role.filter(RoleRecord::stops_all);
    Ok(role.map(|role| {
        let (target, since) = (&flow.target, to_the_second(role.since_ms));
        format!("{target} is no standby since {since}")
    }))
}
