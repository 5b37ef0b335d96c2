//! SIGHUP: the config is read again, and its flows' limits are put into force.
//!
//! Limits alone: whatever else a config says decides where records go, and is read at a start. What differs there is
//! named, so that nobody believes it to be in force.

use std::path::Path;

use tracing::{error, info, warn};

use crate::config::{self, Config, Limits, RATE_HINT, back_name};
use crate::telemetry::limits::LiveLimits;
use crate::telemetry::progress::Registry;

/// What a config that was read again changes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// Flows with other limits.
    limits: Vec<(String, Limits)>,
    /// What else differs, by its path in the file.
    left: Vec<String>,
}

/// Reads the config again and puts the limits into force. `running` becomes what is in force.
pub(super) fn reload(path: &Path, running: &mut Config, registry: &Registry) {
    let read = match config::load(path) {
        Ok(read) => read,
        Err(problems) => {
            error!("SIGHUP: the limits stay as they are: {problems}");
            return;
        }
    };
    let changes = changes(running, &read);
    for (name, limits) in &changes.limits {
        let live = live(limits);
        info!(
            flow = name,
            bytes_per_second = limits
                .bytes_per_second
                .map_or_else(|| "unlimited".to_owned(), |rate| rate.to_string()),
            in_flight = limits.in_flight_bytes,
            partition_in_flight = limits.partition_in_flight_bytes,
            "SIGHUP: other limits from now on"
        );
        if let Some(doubt) = limits.doubt() {
            warn!(flow = name, "{doubt}; {RATE_HINT}");
        }
        for flow in [name.clone(), back_name(name)] {
            if let Some(progress) = registry.flows.get(&flow) {
                progress.limits.send_replace(Some(live));
            }
        }
        if let Some(flow) = running.flows.get_mut(name) {
            flow.limits = limits.clone();
        }
    }
    if changes.limits.is_empty() {
        info!("SIGHUP: the limits are as they were");
    }
    if !changes.left.is_empty() {
        warn!(
            "SIGHUP changes limits alone; a restart is needed for what else differs in {}: {}",
            path.display(),
            changes.left.join(", ")
        );
    }
}

fn live(limits: &Limits) -> LiveLimits {
    LiveLimits {
        bytes_per_second: limits.bytes_per_second,
        in_flight_bytes: limits.in_flight_bytes,
        partition_in_flight_bytes: limits.partition_in_flight_bytes,
    }
}

fn changes(running: &Config, read: &Config) -> Changes {
    let mut changes = Changes::default();
    for (name, was) in &running.flows {
        let Some(is) = read.flows.get(name) else {
            changes.left.push(format!("flows.{name}"));
            continue;
        };
        // Connections are shared out when partitions are opened.
        let limits = Limits {
            connections_per_broker: was.limits.connections_per_broker,
            ..is.limits.clone()
        };
        if is.limits.connections_per_broker != was.limits.connections_per_broker {
            let path = format!("flows.{name}.limits.connections_per_broker");
            changes.left.push(path);
        }
        let differing = was.differing_keys(is).into_iter();
        let left = differing.filter(|key| *key != "limits");
        changes
            .left
            .extend(left.map(|key| format!("flows.{name}.{key}")));
        if limits != was.limits {
            changes.limits.push((name.clone(), limits));
        }
    }
    let new = read
        .flows
        .keys()
        .filter(|name| !running.flows.contains_key(*name));
    changes.left.extend(new.map(|name| format!("flows.{name}")));
    let names = running.clusters.keys().chain(read.clusters.keys());
    let mut differing: Vec<&String> = names
        .filter(|name| running.clusters.get(*name) != read.clusters.get(*name))
        .collect();
    differing.sort_unstable();
    differing.dedup();
    let clusters = differing.into_iter();
    changes
        .left
        .extend(clusters.map(|name| format!("clusters.{name}")));
    if running.http != read.http {
        changes.left.push("http".to_owned());
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn parsed(limits: &str, lines: &str) -> Config {
        let text = format!(
            "clusters:\n  primary: {{ bootstrap.servers: \"a:1\" }}\n  standby: {{ bootstrap.servers: \"b:1\" }}\n\
             flows:\n  dr:\n    source: primary\n    target: standby\n    topics: {{ include: [a] }}\n    limits: {limits}\n{lines}"
        );
        let parsed = config::parse_with_environment(&text, "c.yaml", &BTreeMap::new());
        parsed.unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn limits_are_taken_and_what_else_differs_is_named() {
        let before = parsed("{ bytes_per_second: 3MiB }", "");
        assert_eq!(changes(&before, &before), Changes::default());
        let after = parsed(
            "{ bytes_per_second: 1MiB, in_flight: 8MiB, connections_per_broker: 3 }",
            "    on_gap: record\n  other:\n    source: primary\n    target: standby\n    topics: { include: [b] }\n",
        );
        let found = changes(&before, &after);
        let [(name, limits)] = found.limits.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(name, "dr");
        assert_eq!(limits.bytes_per_second, Some(1024 * 1024));
        assert_eq!(limits.in_flight_bytes, 8 * 1024 * 1024);
        for path in [
            "flows.dr.on_gap",
            "flows.other",
            "flows.dr.limits.connections_per_broker",
        ] {
            assert!(
                found.left.iter().any(|left| left == path),
                "{path}: {found:?}"
            );
        }
    }
}
