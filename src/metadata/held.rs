//! Everything that waits for the failover, of all aspects, from the target alone.

use serde::Serialize;

use super::acls::{self, HeldAcl};
use super::configs::differing;
use super::quotas;
use crate::state::{HeldConfigs, Primary, RoleRecord, StateError, StateStore, TopicRecord, keys};

/// One thing that is kept ready on the target.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Held {
    /// An ACL.
    Acl(HeldAcl),
    /// A quota that would throttle Twinlog.
    Quota {
        /// The flow.
        flow: String,
        /// Whom it is for: `user <default>`.
        subject: String,
        /// Which quota.
        key: String,
        /// Its value.
        value: f64,
    },
    /// A config that a mirror must have otherwise.
    TopicConfig {
        /// The flow.
        flow: String,
        /// The topic, by its name on the target: `topic orders`.
        subject: String,
        /// Which config.
        key: String,
        /// Its value on the source.
        value: String,
    },
}

/// What a flow holds: ACLs, quotas, then configs.
///
/// # Errors
/// When the state can't be read.
pub fn held(store: &StateStore, flow: &str) -> Result<Vec<Held>, StateError> {
    let mut all: Vec<Held> = acls::held(store, flow)?
        .into_iter()
        .map(Held::Acl)
        .collect();
    all.extend(
        quotas::held(store, flow)?
            .into_iter()
            .map(|held| Held::Quota {
                flow: flow.to_owned(),
                subject: held.entity.to_string(),
                key: held.key,
                value: held.value,
            }),
    );
    let role: Option<RoleRecord> = store.get(&keys::role(flow))?;
    let prefix = keys::held_configs(flow, "");
    for key in store.keys(&prefix) {
        let topic = key.strip_prefix(&prefix).unwrap_or_default();
        if role.as_ref().is_some_and(|role| is_released(role, topic)) {
            continue;
        }
        let record: Option<TopicRecord> = store.get(&keys::topic(flow, topic))?;
        let (Some(record), Some(held)) = (record, store.get::<HeldConfigs>(&key)?) else {
            continue;
        };
        let differing = differing(&held.values);
        all.extend(differing.map(|(key, value, _)| Held::TopicConfig {
            flow: flow.to_owned(),
            subject: format!("topic {}", record.target_topic),
            key: key.to_owned(),
            value: value.to_owned(),
        }));
    }
    Ok(all)
}

/// Whether the failover of a topic has set its configs: they stay remembered, for the next one.
fn is_released(role: &RoleRecord, topic: &str) -> bool {
    role.primary == Primary::Target && role.topics.contains(topic)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::state::TopicSet;

    #[test]
    fn what_a_failover_has_set_waits_for_none() {
        let role = |primary, topics| RoleRecord {
            v: 1,
            primary,
            topics,
            epoch: 1,
            plan: Uuid::nil(),
            since_ms: 0,
            source_cluster_id: None,
            target_cluster_id: None,
            is_copied_back: false,
            is_handed_back: false,
            is_kept_fenced: false,
        };
        let one = || TopicSet::List(["orders".to_owned()].into());
        assert!(is_released(&role(Primary::Target, one()), "orders"));
        assert!(is_released(&role(Primary::Target, TopicSet::All), "others"));
        assert!(!is_released(&role(Primary::Target, one()), "others"));
        for primary in [Primary::Source, Primary::Promoting] {
            assert!(!is_released(&role(primary, TopicSet::All), "orders"));
        }
    }
}
