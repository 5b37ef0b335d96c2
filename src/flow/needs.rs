//! What the logs of source topics need beyond their topics' settings, learned from what the target
//! refused.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use super::error::Trouble;
use super::shared::Flow;
use super::topics::TopicContext;
use crate::config::{ConfigRules, FlowConfig};
use crate::metadata::{Needs, may_be_widened};
use crate::state::{HeldConfigs, StateStore, keys};
use crate::telemetry::progress::PartitionKey;

/// Refusals in a row after which a batch that should fit is taken for one that the target's broker
/// compresses anew, so that only trying tells what it needs. Before that, somebody may just have
/// changed the settings.
const REFUSALS: u32 = 3;

/// By source topic.
#[derive(Debug, Default)]
pub struct TopicNeeds {
    all: DashMap<String, Needs>,
    /// Counts changes of any.
    changes: AtomicU64,
}

impl TopicNeeds {
    /// What an earlier run made wider stays so: what it held for the failover says which topics.
    pub fn remembered(store: &StateStore, flow: &str) -> Self {
        let prefix = keys::held_configs(flow, "");
        let all = store.keys(&prefix).into_iter().filter_map(|key| {
            let held: HeldConfigs = store.get(&key).ok().flatten()?;
            let needs = Needs::of_held(&held);
            let topic = key.strip_prefix(&prefix)?.to_owned();
            (needs != Needs::default()).then_some((topic, needs))
        });
        Self {
            all: all.collect(),
            changes: AtomicU64::new(0),
        }
    }

    /// As long as this is the same, every topic's log needs what it needed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The topics whose needs end with the copy's progress.
    fn passing(&self) -> Vec<String> {
        let all = self.all.iter();
        let passing = all.filter(|it| it.value().without_key);
        passing.map(|it| it.key().clone()).collect()
    }

    /// Of one topic.
    pub fn of(&self, source_topic: &str) -> Needs {
        let needs = self.all.get(source_topic);
        needs.map(|needs| *needs).unwrap_or_default()
    }

    pub(super) fn change(&self, source_topic: &str, change: impl FnOnce(&mut Needs)) {
        let mut needs = self.all.entry(source_topic.to_owned()).or_default();
        let before = *needs;
        change(&mut needs);
        if *needs != before {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Flow {
    /// What a copied topic needs now. Once all partitions are caught up, no record without a key is
    /// left: the source takes no new ones. (One of a transaction that was open then is refused
    /// again, and all of this begins anew.)
    pub(super) fn needs_of(&self, topic: &TopicContext) -> Needs {
        let name = &*topic.source_topic;
        let mut needs = self.needs.of(name);
        if needs.without_key && self.is_caught_up(topic) {
            self.needs.change(name, |needs| needs.without_key = false);
            needs.without_key = false;
        }
        needs
    }

    /// Ends those that the copy's progress has ended.
    pub(super) fn end_passing_needs(&self) {
        for name in self.needs.passing() {
            let topic = self.topics.get(&*name).map(|topic| topic.clone());
            topic.iter().for_each(|topic| {
                self.needs_of(topic);
            });
        }
    }

    fn is_caught_up(&self, topic: &TopicContext) -> bool {
        let count = i32::try_from(topic.record.origins.len()).unwrap_or(i32::MAX);
        (0..count).all(|partition| {
            let key: PartitionKey = (topic.source_topic.clone(), partition);
            let progress = self.progress.partition(&key.0, key.1);
            progress.is_caught_up()
        })
    }

    /// Learns from a batch that the target refused what the source's log needs, and says what
    /// follows from the refusal: it is cured unless a rule of the user's is in the way.
    pub(super) fn learn_needs(
        &self,
        topic: &TopicContext,
        attempt: u32,
        trouble: &Trouble,
    ) -> Option<Trouble> {
        let name = &*topic.source_topic;
        let rules = rules_of(&self.config, topic);
        match trouble {
            Trouble::TooLarge {
                cluster,
                bytes,
                key,
                ..
            } => {
                let is_cured = may_be_widened(rules, key);
                let limit = topic.rules.max_batch_bytes;
                let least = match *bytes {
                    bytes if bytes > limit => Some(bytes),
                    _ => (attempt >= REFUSALS).then(|| limit.saturating_mul(2)),
                };
                if let Some(least) = least.filter(|_| is_cured) {
                    self.needs
                        .change(name, |needs| needs.take_size(key, least as u64));
                }
                Some(Trouble::TooLarge {
                    cluster: cluster.clone(),
                    bytes: *bytes,
                    key,
                    is_cured,
                })
            }
            Trouble::Broker {
                cluster,
                code: kafka_protocol::ResponseError::InvalidRecord,
                message,
            } if topic.rules.target_compacted
                && topic.rules.source_compacted
                && may_be_widened(rules, "cleanup.policy") =>
            {
                self.needs.change(name, |needs| needs.without_key = true);
                Some(Trouble::WithoutKey {
                    cluster: cluster.clone(),
                    message: message.clone(),
                })
            }
            _ => None,
        }
    }
}

fn rules_of<'a>(config: &'a FlowConfig, topic: &TopicContext) -> &'a ConfigRules {
    let rules = &config.metadata.configs;
    let kept = rules.of_what_was_there.as_deref();
    kept.filter(|_| topic.record.continued.is_some())
        .unwrap_or(rules)
}
