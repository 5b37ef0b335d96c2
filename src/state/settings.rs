//! What the state topic must be like: what is set when it is made, and looked after from then on.
//!
//! Somebody may have made it before us, altered it since, or made it with an earlier Twinlog. A topic that
//! isn't compacted loses what is remembered; one with large segments is never cleaned, and every start
//! and every command reads all of it.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use super::store::{STATE_TOPIC, StateError};
use crate::wire::{self, Cluster, ConfigValues, Metadata, TopicChanges, WireError};

/// The most replicas that it needs.
const REPLICAS_MAX: usize = 3;
/// With less than this, records of ours may be refused.
const MESSAGE_BYTES_LEAST: i64 = 1024 * 1024;

/// One config of the state topic.
struct Setting {
    key: &'static str,
    /// With so many replicas.
    wanted: fn(usize) -> &'static str,
    fits: fn(&str, usize) -> bool,
    /// Whether nothing can be remembered safely where it is like this.
    is_vital: fn(&str) -> bool,
    /// What happens otherwise.
    why: &'static str,
}

fn number(value: &str) -> Option<i64> {
    value.trim().parse().ok()
}

fn is_within(value: &str, from: i64, to: i64) -> bool {
    number(value).is_some_and(|value| (from..=to).contains(&value))
}

const MIB: i64 = 1024 * 1024;

/// All of them. What a broker doesn't know isn't asked of it.
const SETTINGS: &[Setting] = &[
    Setting {
        key: "cleanup.policy",
        wanted: |_| "compact",
        fits: |value, _| value.trim() == "compact",
        is_vital: |_| true,
        why: "what Twinlog knows of its flows would be deleted with its age",
    },
    // Should the policy be another one for a while, nothing goes.
    Setting {
        key: "retention.ms",
        wanted: |_| "-1",
        fits: |value, _| number(value) == Some(-1),
        is_vital: |_| false,
        why: "it would count if cleanup.policy were changed",
    },
    Setting {
        key: "retention.bytes",
        wanted: |_| "-1",
        fits: |value, _| number(value) == Some(-1),
        is_vital: |_| false,
        why: "it would count if cleanup.policy were changed",
    },
    Setting {
        key: "max.message.bytes",
        wanted: |_| "16777216",
        fits: |value, _| number(value).is_some_and(|value| value >= 16 * MIB),
        is_vital: |value| number(value).is_none_or(|value| value < MESSAGE_BYTES_LEAST),
        why: "large records would be refused",
    },
    // Only closed segments are cleaned, and all that isn't is read by every start and every command. A
    // segment holds the largest batch.
    Setting {
        key: "segment.bytes",
        wanted: |_| "33554432",
        fits: |value, _| is_within(value, 16 * MIB, 64 * MIB),
        is_vital: |_| false,
        why: "it would be cleaned late, and commands start slowly",
    },
    Setting {
        key: "segment.ms",
        wanted: |_| "600000",
        fits: |value, _| is_within(value, 60_000, 3_600_000),
        is_vital: |_| false,
        why: "it would be cleaned late, and commands start slowly",
    },
    Setting {
        key: "min.cleanable.dirty.ratio",
        wanted: |_| "0.1",
        fits: |value, _| value.trim().parse::<f64>().is_ok_and(|value| value <= 0.2),
        is_vital: |_| false,
        why: "it would be cleaned late, and commands start slowly",
    },
    Setting {
        key: "min.insync.replicas",
        wanted: |replicas| if replicas >= 3 { "2" } else { "1" },
        fits: |value, replicas| {
            let most = i64::try_from(replicas.max(1)).unwrap_or(1);
            is_within(value, if replicas >= 3 { 2 } else { 1 }, most)
        },
        is_vital: |_| false,
        why: "what was acknowledged could be lost with one broker, or nothing be written without one",
    },
    Setting {
        key: "unclean.leader.election.enable",
        wanted: |_| "false",
        fits: |value, _| value.trim() == "false",
        is_vital: |_| false,
        why: "what was acknowledged could be lost",
    },
    // A broker refuses records by the clock of whoever wrote them, but not where it sets the time itself.
    Setting {
        key: "message.timestamp.type",
        wanted: |_| "LogAppendTime",
        fits: |value, _| value.trim() == "LogAppendTime",
        is_vital: |_| false,
        why: "records of a machine whose clock is ahead would be refused",
    },
];

/// A config of the state topic that isn't as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub found: String,
    /// What is set instead.
    pub wanted: &'static str,
    /// What happens otherwise.
    pub why: &'static str,
    /// Whether a flow can't rely on the topic like this.
    pub is_vital: bool,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            key,
            found,
            wanted,
            why,
            ..
        } = self;
        write!(f, "{key} is {found}, not {wanted}: {why}")
    }
}

/// With how many replicas the topic is made on so many brokers.
pub(super) fn wanted_replicas(brokers: usize) -> usize {
    brokers.clamp(1, REPLICAS_MAX)
}

/// What a new topic is made with: everything, and the least that it takes.
pub(super) fn at_creation(replicas: usize) -> [BTreeMap<String, String>; 2] {
    let of = |settings: &[Setting]| {
        let values = settings.iter();
        values
            .map(|it| (it.key.to_owned(), (it.wanted)(replicas).to_owned()))
            .collect()
    };
    [of(SETTINGS), of(&SETTINGS[..1])]
}

/// What isn't as it must be.
fn misfits(values: &ConfigValues, replicas: usize) -> Vec<Misfit> {
    let judged = SETTINGS.iter().filter_map(|setting| {
        let found = values.get(setting.key)?.value.as_deref()?;
        (!(setting.fits)(found, replicas)).then(|| Misfit {
            key: setting.key,
            found: found.to_owned(),
            wanted: (setting.wanted)(replicas),
            why: setting.why,
            is_vital: (setting.is_vital)(found),
        })
    });
    judged.collect()
}

fn replicas_of(metadata: &Metadata) -> usize {
    let partitions = metadata.topics.get(STATE_TOPIC).map(|it| &it.partitions);
    let of_first = partitions.and_then(|it| it.iter().find(|it| it.index == 0));
    of_first.map_or(1, |partition| partition.replicas.len())
}

/// What of the state topic's configs isn't as it must be.
///
/// # Errors
/// When the target doesn't say.
pub async fn look_at_settings(cluster: &Cluster) -> Result<Vec<Misfit>, WireError> {
    let topics = [STATE_TOPIC.to_owned()];
    let metadata = cluster.metadata(Some(&topics)).await?;
    let mut described = wire::describe_topic_configs(cluster, &topics).await;
    let values = described.remove(STATE_TOPIC).transpose()?;
    Ok(misfits(&values.unwrap_or_default(), replicas_of(&metadata)))
}

/// Sets what isn't as it must be, once: what is refused, or undone behind us, is named and left.
///
/// # Errors
/// [`StateError::Settings`] where the topic can't be relied on as it is.
pub async fn mend_settings(cluster: &Cluster) -> Result<(), StateError> {
    let misfits = match look_at_settings(cluster).await {
        Ok(misfits) if misfits.is_empty() => return Ok(()),
        Ok(misfits) => misfits,
        Err(error) => {
            tracing::warn!(%error, "the configs of the state topic {STATE_TOPIC} can't be looked at");
            return Ok(());
        }
    };
    let refused = match set(cluster, &misfits).await {
        Ok(refused) => refused,
        // Nobody said no: it is tried again where nothing works without it, else at the next start.
        Err(error) if misfits.iter().any(|misfit| misfit.is_vital) => return Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "the configs of the state topic {STATE_TOPIC} can't be set");
            return Ok(());
        }
    };
    for misfit in &misfits {
        let Some((_, error)) = refused.iter().find(|(key, _)| *key == misfit.key) else {
            tracing::warn!(
                "state topic {STATE_TOPIC} on {}: {} was {}, and is set to {}",
                cluster.name(),
                misfit.key,
                misfit.found,
                misfit.wanted
            );
            continue;
        };
        if misfit.is_vital {
            return Err(StateError::Settings {
                misfit: Box::new(misfit.clone()),
                refusal: error.without_hint(),
            });
        }
        tracing::warn!(%error, "state topic {STATE_TOPIC} on {}: {misfit}; it can't be set", cluster.name());
    }
    Ok(())
}

/// Sets them in one piece, or each alone where the target refuses one of them; which it refused.
async fn set(
    cluster: &Cluster,
    misfits: &[Misfit],
) -> Result<Vec<(&'static str, WireError)>, WireError> {
    let Err(error) = alter(cluster, misfits).await else {
        return Ok(Vec::new());
    };
    if error.server_code().is_none() || error.is_retriable() {
        return Err(error);
    }
    let is_about_one = matches!(
        error.server_code(),
        Some(ResponseError::InvalidConfig | ResponseError::PolicyViolation)
    );
    let mut refused = Vec::new();
    for one in misfits {
        let outcome = match is_about_one && misfits.len() > 1 {
            true => alter(cluster, std::slice::from_ref(one)).await,
            false => Err(error.clone()),
        };
        refused.extend(outcome.err().map(|error| (one.key, error)));
    }
    Ok(refused)
}

async fn alter(cluster: &Cluster, misfits: &[Misfit]) -> Result<(), WireError> {
    let changes = misfits
        .iter()
        .map(|it| (it.key.to_owned(), Some(it.wanted.to_owned())));
    let topic = TopicChanges {
        topic: STATE_TOPIC.to_owned(),
        changes: changes.collect(),
    };
    let mut outcome = wire::alter_topic_configs(cluster, &[topic]).await?;
    outcome.pop().unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ConfigSource, ConfigValue};

    fn values(of: &BTreeMap<String, String>) -> ConfigValues {
        let value = |value: &String| ConfigValue {
            value: Some(value.clone()),
            source: ConfigSource::Topic,
            sensitive: false,
            default: None,
        };
        of.iter()
            .map(|(key, it)| (key.clone(), value(it)))
            .collect()
    }

    fn found(changed: &[(&str, &str)], replicas: usize) -> Vec<(&'static str, bool)> {
        let [mut all, _] = at_creation(replicas);
        for (key, value) in changed {
            all.insert((*key).to_owned(), (*value).to_owned());
        }
        let misfits = misfits(&values(&all), replicas);
        misfits.iter().map(|it| (it.key, it.is_vital)).collect()
    }

    #[test]
    fn what_a_topic_is_made_with_fits() {
        for replicas in 1..=5 {
            assert_eq!(found(&[], replicas), []);
        }
        let changed = [
            ("segment.bytes", "67108864"),
            ("max.message.bytes", "20971520"),
            ("min.insync.replicas", "3"),
        ];
        assert_eq!(found(&changed, 3), [], "somebody's own choice");
        assert_eq!(misfits(&ConfigValues::new(), 1), [], "nothing is known");
    }

    #[test]
    fn what_would_lose_the_state_is_vital() {
        for policy in ["delete", "compact,delete", "delete,compact"] {
            assert_eq!(
                found(&[("cleanup.policy", policy)], 1),
                [("cleanup.policy", true)]
            );
        }
        let small = |bytes| found(&[("max.message.bytes", bytes)], 1);
        assert_eq!(small("20000"), [("max.message.bytes", true)]);
        assert_eq!(small("1048588"), [("max.message.bytes", false)]);
        for (key, value) in [
            ("segment.bytes", "1073741824"),
            ("segment.bytes", "1048576"),
            ("segment.ms", "604800000"),
            ("retention.ms", "60000"),
            ("min.cleanable.dirty.ratio", "0.5"),
            ("unclean.leader.election.enable", "true"),
            ("message.timestamp.type", "CreateTime"),
            ("min.insync.replicas", "4"),
            ("min.insync.replicas", "1"),
        ] {
            assert_eq!(found(&[(key, value)], 3), [(key, false)], "{value}");
        }
    }
}
