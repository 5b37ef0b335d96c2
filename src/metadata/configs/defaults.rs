//! What a topic without overrides has on the target.

use super::decide::Defaults;
use crate::metadata::context::Context;
use crate::state::STATE_TOPIC;
use crate::wire::{ConfigValues, WireError, describe_topic_configs_at};

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
    /// By key.
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
        self.seen = Some(seen);
        Ok(Some(behind(values)))
    }
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
