//! The configs with which a target topic is created.
//!
//! What they are is decided by the same rules that follow later changes (`metadata::configs`).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kafka_protocol::ResponseError;
use uuid::Uuid;

use super::creation::{self, Shape};
use super::error::Trouble;
use super::replication;
use super::shared::Flow;
use super::topics::Found;
use crate::metadata::{
    CLEANUP, binding_min_in_sync, configs_at_creation, configs_without_compaction,
};
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

/// Creates the counterpart of a source topic; what the target refuses of it is left out and named.
///
/// # Errors
/// When the target refuses it.
pub(super) async fn create(
    flow: &Flow,
    found: &Found<'_>,
    target_topic: &str,
    configs: &TopicConfigs,
) -> Result<Uuid, Trouble> {
    let count = i32::try_from(found.source.partitions.len()).unwrap_or(i32::MAX);
    let default_min = binding_min_in_sync(&flow.target).await;
    let (shapes, decisive) = shapes(flow, found, configs, default_min.as_deref());
    let empty = Values::new();
    let make = async |shape: &Shape| {
        let (replicas, configs) = (shape.replicas, &shape.configs);
        wire::create_topic(&flow.target, target_topic, count, replicas, configs).await
    };
    let refused = match make(&shapes[0]).await {
        Err(error) if creation::is_refusal(&error) => error,
        other => return Ok(other?),
    };
    let probe = |shape: Shape| async move {
        let (replicas, configs) = (shape.replicas, &shape.configs);
        wire::could_create_topic(&flow.target, target_topic, count, replicas, configs).await
    };
    let not_created = |error: WireError| match creation::is_refusal(&error) {
        true => Trouble::NotCreated {
            cluster: format!("target ({})", flow.target.name()),
            message: creation::words(&error),
        },
        false => Trouble::Wire(error),
    };
    let wanted = shapes[0].replicas;
    let fitting = creation::fit(shapes, &decisive, refused, probe).await;
    let mut fitting = fitting.map_err(not_created)?;
    if fitting.left_out.iter().any(|(key, _)| key == CLEANUP) {
        let source = configs.source.get(found.name).unwrap_or(&empty);
        let more = configs_without_compaction(source, &flow.config.metadata.configs);
        let with_more = creation::with_more(fitting, more, probe).await;
        fitting = with_more.map_err(not_created)?;
    }
    for (key, words) in &fitting.left_out {
        tracing::warn!(
            topic = target_topic,
            key,
            "the target refuses a setting of a new topic, which is made without it: {words}"
        );
    }
    let replicas = fitting.shape.replicas;
    if replicas != wanted {
        tracing::warn!(
            topic = target_topic,
            wanted,
            replicas,
            "the target refuses this number of replicas; the topic is made with another (-1: its default)"
        );
    }
    make(&fitting.shape).await.map_err(not_created)
}

/// How the topic may be made, the best first, and the settings that decide whether batches are
/// accepted and how long they stay.
fn shapes(
    flow: &Flow,
    found: &Found<'_>,
    configs: &TopicConfigs,
    default_min: Option<&str>,
) -> (Vec<Shape>, BTreeMap<String, String>) {
    let empty = Values::new();
    let source = configs.source.get(found.name).unwrap_or(&empty);
    let (known, rules) = (configs.known.as_ref(), &flow.config.metadata.configs);
    let on_source = replication::of(found.source);
    let made = |replicas: i16| {
        let least = usize::try_from(replicas).unwrap_or(on_source);
        configs_at_creation(source, known, (least, default_min), rules)
    };
    let brokers = flow.target.cached().brokers.len();
    let counts = replication::at_creation(flow.config.replication_factor, on_source, brokers);
    let shapes = counts.into_iter().map(|replicas| {
        let [configs, _] = made(replicas);
        Shape { replicas, configs }
    });
    let [_, decisive] = made(-1);
    (shapes.collect(), decisive)
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
                // Another broker may know it already: then that one is asked from now on.
                let _ = flow.target.metadata(Some(&asked)).await;
                tokio::time::sleep(NEW_PAUSE).await;
            }
            configs => return Ok(configs?.unwrap_or_default()),
        }
    }
}
