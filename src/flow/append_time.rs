//! A mirror whose brokers write their own time into the records (`message.timestamp.type=LogAppendTime`) loses
//! the source's, and offsets and counts stay right all the while: so it is put right before the first record,
//! whatever `configs` says.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::Trouble;
use super::shared::Flow;
use super::topic_config;
use crate::state::{HeldConfigs, keys};
use crate::wire::{self, ConfigValue, ConfigValues, TopicChanges, WireError};

const KEY: &str = "message.timestamp.type";
const CREATE_TIME: &str = "CreateTime";

/// Looks at a topic that was just changed, and the pause between two of them: 2 s in all.
const LOOKS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Sets the target topic to keep what records say about their time, if it doesn't.
///
/// # Errors
/// [`Trouble::AppendTime`] when that can't be had; [`Trouble::Wire`] when nobody answers.
pub(super) async fn keep_off(
    flow: &Flow,
    source_topic: &str,
    target_topic: &str,
    configs: &ConfigValues,
) -> Result<(), Trouble> {
    let Some(found) = other_than_create_time(configs) else {
        return Ok(());
    };
    flow.doubts.note(source_topic);
    hold(flow, source_topic, found).await?;
    set(flow, target_topic, found).await?;
    tracing::warn!(
        topic = target_topic,
        "the target topic was set to LogAppendTime, which would replace the records' timestamps: it is set to CreateTime"
    );
    Ok(())
}

/// The value, if it isn't what a mirror must have. A broker that doesn't tell can't be judged by it; its
/// answers to what is produced can.
fn other_than_create_time(configs: &ConfigValues) -> Option<&ConfigValue> {
    let value = configs.get(KEY)?;
    let found = value.value.as_deref()?;
    (found != CREATE_TIME).then_some(value)
}

/// What topic configs that follow hold for the failover is the source's. Where they don't follow, it is what
/// the topic had.
async fn hold(flow: &Flow, source_topic: &str, found: &ConfigValue) -> Result<(), Trouble> {
    if flow.config.metadata.configs.enabled {
        return Ok(());
    }
    let key = keys::held_configs(&flow.config.name, source_topic);
    let mut held: HeldConfigs = flow.store.get(&key)?.unwrap_or_default();
    held.v = 1;
    let value = found.value.clone().filter(|_| found.is_override());
    held.values.insert(KEY.to_owned(), value);
    Ok(flow.store.put(&key, &held).await?)
}

async fn set(flow: &Flow, target_topic: &str, found: &ConfigValue) -> Result<(), Trouble> {
    let refused = |why: String| Trouble::AppendTime {
        found: found.value.clone().unwrap_or_default(),
        why,
    };
    let change = TopicChanges {
        topic: target_topic.to_owned(),
        changes: BTreeMap::from([(KEY.to_owned(), Some(CREATE_TIME.to_owned()))]),
    };
    let outcomes = wire::alter_topic_configs(&flow.target, &[change]).await?;
    match outcomes.into_iter().next() {
        Some(Err(error @ WireError::Server { .. })) => return Err(refused(error.without_hint())),
        Some(Err(error)) => return Err(error.into()),
        Some(Ok(())) | None => {}
    }
    // Brokers learn it from the controller's log, each at its own time.
    for look in 1..=LOOKS {
        let now = topic_config::of_target(flow, target_topic).await?;
        if other_than_create_time(&now).is_none() {
            return Ok(());
        }
        if look < LOOKS {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Err(refused(
        "the change was accepted and has no effect".to_owned(),
    ))
}
