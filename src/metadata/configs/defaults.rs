//! What a topic without overrides has on the target.

use super::decide::Defaults;
use super::policy::MIN_IN_SYNC;
use crate::metadata::context::Context;
use crate::state::STATE_TOPIC;
use crate::wire::{Cluster, ConfigValues, WireError, caps_min_in_sync, describe_topic_configs_at};

/// The target's defaults, as one broker sees them.
///
/// They are read off the state topic, which every target has: what isn't overridden there is the
/// default, and of what is the broker tells what holds without.
#[derive(Debug, Default)]
pub(super) struct TargetDefaults {
    values: Defaults,
    asked: Option<i32>,
    seen: Option<(i32, (u32, usize))>,
}

impl TargetDefaults {
    /// By key. [`MIN_IN_SYNC`] only where it may be too high for a partition.
    pub(super) fn values(&self) -> &Defaults {
        &self.values
    }

    /// Asks the target; true if they have changed. Where it doesn't say, nothing is lost: values
    /// are written explicitly then.
    pub(super) async fn learn(&mut self, context: &Context) -> bool {
        match self.ask(context).await {
            Ok(Some(values)) if values != self.values => {
                self.values = values;
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::debug!(%error, "the target's defaults can't be read");
                false
            }
        }
    }

    /// `None` if the answer is the last one.
    async fn ask(&mut self, context: &Context) -> Result<Option<Defaults>, WireError> {
        let topics = [STATE_TOPIC.to_owned()];
        let described =
            describe_topic_configs_at(&context.target, self.asked, &topics, true).await?;
        let seen = (described.broker(), described.fingerprint());
        self.asked = Some(seen.0);
        if self.seen == Some(seen) {
            return Ok(None);
        }
        let mut answer = described.decode(&topics)?;
        let values = answer.remove(STATE_TOPIC).transpose()?.unwrap_or_default();
        let mut values = behind(values);
        if caps_min_in_sync(&context.target).await {
            values.remove(MIN_IN_SYNC);
        }
        self.seen = Some(seen);
        Ok(Some(values))
    }
}

/// The target's default of `min.insync.replicas`, where a partition with fewer replicas would refuse everything: brokers before
/// 3.7 do. `None` where it makes no difference, or can't be read.
pub async fn binding_min_in_sync(target: &Cluster) -> Option<String> {
    if caps_min_in_sync(target).await {
        return None;
    }
    let topics = [STATE_TOPIC.to_owned()];
    let described = describe_topic_configs_at(target, None, &topics, true).await;
    let mut answer = described.ok()?.decode(&topics).ok()?;
    let values = answer.remove(STATE_TOPIC)?.ok()?;
    behind(values).remove(MIN_IN_SYNC)
}

fn behind(values: ConfigValues) -> Defaults {
    values
        .into_iter()
        .filter_map(|(key, value)| {
            let default = match value.is_override() {
                true => value.default,
                false => value.value,
            };
            Some((key, default?))
        })
        .collect()
}
