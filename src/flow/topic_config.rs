//! The configs with which a target topic is created.
//!
//! What decides whether batches are accepted and how long they stay is set explicitly, since the
//! two clusters' broker defaults may differ. Following later changes is not this module's task.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use uuid::Uuid;

use super::error::Trouble;
use super::shared::Flow;
use super::topics::Found;
use crate::wire::{self, ConfigValue, WireError};

/// A topic's configs as a broker describes them.
pub type Values = BTreeMap<String, ConfigValue>;

/// The configs of the topics that a discovery looks at, fetched in bulk.
#[derive(Debug, Default)]
pub struct TopicConfigs {
    /// By source topic.
    pub source: HashMap<String, Values>,
    /// By target topic.
    pub target: HashMap<String, Values>,
}

/// Taken from the source with the source broker's default resolved.
const RESOLVED: [&str; 5] = [
    "max.message.bytes",
    "compression.type",
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
];

/// Never copied: they belong to a cluster's own operation, or are decided below. MirrorMaker 2's
/// `DefaultConfigPropertyFilter` excludes most of them too.
const NOT_COPIED: [&str; 8] = [
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    "message.timestamp.type",
    "message.timestamp.difference.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "unclean.leader.election.enable",
    "min.insync.replicas",
];

/// One value, if it is set or defaulted.
pub fn value<'a>(values: &'a Values, key: &str) -> Option<&'a str> {
    values.get(key).and_then(|value| value.value.as_deref())
}

/// Creates the counterpart of a source topic.
///
/// # Errors
/// When the target refuses it.
pub(super) async fn create(
    flow: &Flow,
    found: &Found<'_>,
    target_topic: &str,
    configs: &TopicConfigs,
) -> Result<Uuid, Trouble> {
    let source_replicas = found
        .source
        .partitions
        .iter()
        .map(|partition| partition.replicas.len())
        .max()
        .unwrap_or(1);
    let brokers = flow.target.cached().brokers.len().max(1);
    let replicas = flow
        .config
        .replication_factor
        .unwrap_or_else(|| i16::try_from(source_replicas.clamp(1, brokers)).unwrap_or(1));
    let empty = Values::new();
    let source = configs.source.get(found.name).unwrap_or(&empty);
    let count = i32::try_from(found.source.partitions.len()).unwrap_or(i32::MAX);
    let wanted = wanted_configs(source, replicas);
    match wire::create_topic(&flow.target, target_topic, count, replicas, &wanted).await {
        Err(WireError::Server {
            code: ResponseError::InvalidConfig,
            message,
            ..
        }) => {
            // An override that this target doesn't know must not keep the topic from being copied.
            tracing::warn!(
                topic = target_topic,
                ?message,
                "the target refused a config; only the decisive ones are set"
            );
            let decisive = decisive_configs(source);
            Ok(wire::create_topic(&flow.target, target_topic, count, replicas, &decisive).await?)
        }
        other => Ok(other?),
    }
}

fn decisive_configs(source: &Values) -> BTreeMap<String, String> {
    let mut configs: BTreeMap<String, String> = RESOLVED
        .iter()
        .filter_map(|key| value(source, key).map(|value| ((*key).to_owned(), value.to_owned())))
        .collect();
    // A mirror keeps the source's timestamps, whatever they are: append times are written as
    // create times, and history must not be refused for its age.
    configs.insert("message.timestamp.type".to_owned(), "CreateTime".to_owned());
    for key in [
        "message.timestamp.before.max.ms",
        "message.timestamp.after.max.ms",
    ] {
        configs.insert(key.to_owned(), i64::MAX.to_string());
    }
    configs
}

fn wanted_configs(source: &Values, replicas: i16) -> BTreeMap<String, String> {
    let mut configs = decisive_configs(source);
    for (key, config) in source {
        let copied =
            !config.is_default_source && !config.sensitive && !NOT_COPIED.contains(&key.as_str());
        if let (true, Some(value)) = (copied, &config.value) {
            configs.insert(key.clone(), value.clone());
        }
    }
    if let Some(least) = source
        .get("min.insync.replicas")
        .filter(|least| !least.is_default_source)
    {
        let least: i16 = least
            .value
            .as_deref()
            .and_then(|value| value.parse().ok())
            .unwrap_or(1);
        configs.insert(
            "min.insync.replicas".to_owned(),
            least.min(replicas).to_string(),
        );
    }
    configs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: &str, is_default_source: bool) -> ConfigValue {
        ConfigValue {
            value: Some(value.to_owned()),
            is_default_source,
            sensitive: false,
        }
    }

    #[test]
    fn the_decisive_configs_are_explicit_and_the_rest_only_where_overridden() {
        let source = Values::from([
            ("max.message.bytes".to_owned(), set("2000000", true)),
            ("segment.ms".to_owned(), set("1000", false)),
            ("segment.bytes".to_owned(), set("1073741824", true)),
            (
                "message.timestamp.type".to_owned(),
                set("LogAppendTime", false),
            ),
            ("min.insync.replicas".to_owned(), set("2", false)),
        ]);
        let wanted = wanted_configs(&source, 1);
        assert_eq!(wanted["max.message.bytes"], "2000000");
        assert_eq!(wanted["segment.ms"], "1000");
        assert_eq!(wanted["message.timestamp.type"], "CreateTime");
        assert_eq!(wanted["min.insync.replicas"], "1");
        assert!(!wanted.contains_key("segment.bytes"));
    }
}
