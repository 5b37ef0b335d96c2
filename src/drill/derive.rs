//! The private flow of a rehearsal, made of the flow that is rehearsed.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::config::{
    AclRules, FlowConfig, GroupRules, Limits, MetadataRules, OnDelete, OnDiverged, OnRecreate,
    Rename, Selector, Start, VerifyRules,
};

/// A rehearsal is short: its topics are looked for often.
const DISCOVERY_INTERVAL: Duration = Duration::from_millis(200);

/// What the copying process of a rehearsal is told. It reads the rest from the same config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOrder {
    /// The flow that is rehearsed.
    pub of: String,
    /// The private flow's name.
    pub name: String,
    /// Its topics on the source.
    pub topics: Vec<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// What its topics are called on the target.
    pub rename: String,
    /// Bytes per second at most.
    pub bytes_per_second: Option<u64>,
}

/// The private flow: the same code with the same rules for records, and nothing that reaches beyond
/// its own topics: no ACLs, no quotas, nothing deleted, no background work.
///
/// # Errors
/// When the names can't be a selector: too many of them.
pub fn private_flow(of: &FlowConfig, order: &CopyOrder) -> Result<FlowConfig, String> {
    let only = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| regex::escape(name)).collect();
        Selector::new::<String>(&names, &[])
    };
    let rate = match (of.limits.bytes_per_second, order.bytes_per_second) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    Ok(FlowConfig {
        name: order.name.clone(),
        opposite: Vec::new(),
        topics: only(&order.topics)?,
        groups: only(&order.groups)?,
        group_rules: GroupRules {
            delete: false,
            on_diverged: OnDiverged::Keep,
        },
        rename: Rename::new(&order.rename)?,
        start: Start::Earliest,
        limits: Limits {
            bytes_per_second: rate,
            ..of.limits.clone()
        },
        on_recreate: OnRecreate::Stop,
        discovery_interval: of.discovery_interval.min(DISCOVERY_INTERVAL),
        mirrormaker_compat: false,
        metadata: MetadataRules {
            acls: AclRules {
                enabled: false,
                ..of.metadata.acls.clone()
            },
            quotas: false,
            on_delete: OnDelete::Keep,
            ..of.metadata.clone()
        },
        verify: VerifyRules {
            background: false,
            ..of.verify.clone()
        },
        ..of.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> FlowConfig {
        let text = "clusters:
  primary: { bootstrap.servers: \"127.0.0.1:1\" }
  standby: { bootstrap.servers: \"127.0.0.1:2\" }
flows:
  dr:
    source: primary
    target: standby
    rename: \"{source}.{topic}\"
    start: latest
    mirrormaker_compat: true
    on_delete: delete
    on_recreate: recreate
    verify: { background: on }
    limits: { bytes_per_second: 5MiB }
";
        let config = crate::config::parse(text, "test").expect("a valid config");
        config.flows["dr"].clone()
    }

    fn order() -> CopyOrder {
        CopyOrder {
            of: "dr".to_owned(),
            name: "__twinlog_drill.1.unplanned".to_owned(),
            topics: vec!["a.b".to_owned()],
            groups: Vec::new(),
            rename: "__twinlog_drill.1.{topic}".to_owned(),
            bytes_per_second: Some(32 << 20),
        }
    }

    #[test]
    fn it_takes_its_own_topics_and_reaches_nothing_else() {
        let private = private_flow(&flow(), &order()).expect("a flow");
        assert!(private.topics.matches("a.b"));
        assert!(!private.topics.matches("axb"), "a name is no pattern");
        assert!(!private.groups.matches("billing"));
        assert_eq!(
            private.rename.apply("primary", "a.b"),
            "__twinlog_drill.1.a.b"
        );
        assert!(!private.metadata.acls.enabled);
        assert!(!private.metadata.quotas);
        assert_eq!(private.metadata.on_delete, OnDelete::Keep);
        assert_eq!(private.on_recreate, OnRecreate::Stop);
        assert!(!private.mirrormaker_compat);
        assert!(!private.verify.background);
        assert_eq!(private.start, Start::Earliest);
    }

    #[test]
    fn the_lower_rate_counts() {
        let of = flow();
        let rate = |rate| {
            let order = CopyOrder {
                bytes_per_second: rate,
                ..order()
            };
            let flow = private_flow(&of, &order).expect("a flow");
            flow.limits.bytes_per_second
        };
        assert_eq!(rate(Some(1 << 20)), Some(1 << 20));
        assert_eq!(rate(Some(32 << 20)), Some(5 << 20));
        assert_eq!(rate(None), Some(5 << 20));
    }
}
