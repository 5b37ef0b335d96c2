//! The configs with which a target topic is created.
//!
//! What they are is decided by the same rules that follow later changes (`metadata::configs`).

use std::collections::HashMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use uuid::Uuid;

use super::error::Trouble;
use super::shared::Flow;
use super::topics::Found;
use crate::metadata::configs_at_creation;
use crate::wire::{self, ConfigValues as Values, WireError};

/// Looks at a topic that was just made, and the pause between two of them: 2 s in all.
const NEW_LOOKS: u32 = 40;
const NEW_PAUSE: Duration = Duration::from_millis(50);

/// The configs of the topics that a discovery looks at, fetched in bulk.
#[derive(Debug, Default)]
pub struct TopicConfigs {
    /// By source topic.
    pub source: HashMap<String, Values>,
    /// By target topic.
    pub target: HashMap<String, Values>,
    /// Of a topic that is surely there: which keys the target's brokers know.
    pub known: Option<Values>,
}

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
    let least = usize::try_from(replicas).unwrap_or(1);
    let rules = &flow.config.metadata.configs;
    let [wanted, decisive] = configs_at_creation(source, configs.known.as_ref(), least, rules);
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
            Ok(wire::create_topic(&flow.target, target_topic, count, replicas, &decisive).await?)
        }
        other => Ok(other?),
    }
}

/// The configs of a target topic, which may be so new that a busy broker doesn't know it yet.
pub(super) async fn of_target(flow: &Flow, target_topic: &str) -> Result<Values, Trouble> {
    let asked = [target_topic.to_owned()];
    let mut looks = 0;
    loop {
        let mut answer = wire::describe_topic_configs(&flow.target, &asked).await;
        let configs = answer.remove(target_topic).transpose();
        looks += 1;
        match configs {
            Err(error)
                if error.server_code() == Some(ResponseError::UnknownTopicOrPartition)
                    && looks < NEW_LOOKS =>
            {
                tokio::time::sleep(NEW_PAUSE).await;
            }
            configs => return Ok(configs?.unwrap_or_default()),
        }
    }
}
