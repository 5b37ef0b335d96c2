//! Changes the target: many topics in one request, each judged alone, and key by key where a topic
//! is refused, so that one bad key blocks no other.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use super::decide::Change;
use super::rests::is_of_rules;
use super::tried::{Tried, name_of};
use crate::metadata::context::{Context, MirroredTopic};
use crate::metadata::pass::reason_of;
use crate::telemetry::metadata::{Drift, consequence};
use crate::wire::{TopicChanges, WireError, alter_topic_configs};

/// Topics changed in one request.
const TOPICS: usize = 100;

/// Refusals for the same reason that are logged one by one, of a pass.
const LOGGED: usize = 10;

/// The changes of one topic.
#[derive(Clone, Debug)]
pub(super) struct Work<'a> {
    pub topic: &'a MirroredTopic,
    pub changes: Vec<Change>,
}

/// What became of all changes.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// What still differs.
    pub drift: Vec<Drift>,
    /// How many keys were changed.
    pub changes: u64,
    /// The reasons of new failures.
    pub failed: Vec<String>,
    /// Source topics whose copies' rules are stale now.
    pub derived_from: Vec<String>,
    /// Why the rest wasn't tried.
    pub ended_by: Option<WireError>,
}

/// Applies all changes but those that were tried a moment ago.
pub(super) async fn apply(context: &Context, work: Vec<Work<'_>>, tried: &mut Tried) -> Applied {
    let mut applied = Applied::default();
    let mut todo = Vec::new();
    for mut work in work {
        work.changes.retain(|change| {
            if tried.settles(work.topic, change) {
                return false;
            }
            let name = name_of(work.topic, change);
            let Some(failure) = tried.refused.resting(&name) else {
                return true;
            };
            let drift = super::drift(&work.topic.target_topic, change, Some(failure));
            applied.drift.push(drift);
            false
        });
        if !work.changes.is_empty() {
            todo.push(work);
        }
    }
    let keys = todo.iter().map(|work| work.changes.len()).sum();
    let mut todo = todo.into_iter().peekable();
    while todo.peek().is_some() {
        let some: Vec<Work<'_>> = todo.by_ref().take(TOPICS).collect();
        let mut applying = Applying {
            context,
            tried: &mut *tried,
            applied: &mut applied,
            keys,
        };
        if let Err(error) = applying.send(some).await {
            applied.ended_by = Some(error);
            break;
        }
    }
    // What wasn't tried differs as before.
    for work in todo {
        let drift = work
            .changes
            .iter()
            .map(|it| super::drift(&work.topic.target_topic, it, None));
        applied.drift.extend(drift);
    }
    applied
}

struct Applying<'a> {
    context: &'a Context,
    tried: &'a mut Tried,
    applied: &'a mut Applied,
    /// How many keys this pass changes.
    keys: usize,
}

impl Applying<'_> {
    async fn send(&mut self, work: Vec<Work<'_>>) -> Result<(), WireError> {
        let mut apart = Vec::new();
        for (work, result) in self.request(work).await? {
            match result {
                Err(error) if work.changes.len() > 1 && is_about_a_key(&error) => apart.push(work),
                result => self.note(&work, result),
            }
        }
        // One key of each topic at a time: a request may name a topic only once.
        while !apart.is_empty() {
            let singles = apart.iter_mut().filter_map(|work| {
                let changes = vec![work.changes.pop()?];
                let topic = work.topic;
                Some(Work { topic, changes })
            });
            let singles = singles.collect();
            match self.request(singles).await {
                Ok(results) => {
                    for (work, result) in results {
                        self.note(&work, result);
                    }
                }
                Err(error) => {
                    self.leave(&apart);
                    return Err(error);
                }
            }
            apart.retain(|work| !work.changes.is_empty());
        }
        Ok(())
    }

    /// Each topic with its outcome. A request that fails as a whole leaves all as they were, as far
    /// as is known.
    async fn request<'w>(
        &mut self,
        work: Vec<Work<'w>>,
    ) -> Result<Vec<(Work<'w>, Result<(), WireError>)>, WireError> {
        let topics: Vec<TopicChanges> = work.iter().map(changes_of).collect();
        match alter_topic_configs(&self.context.target, &topics).await {
            Ok(results) => Ok(work.into_iter().zip(results).collect()),
            Err(error) => {
                self.leave(&work);
                Err(error)
            }
        }
    }

    fn leave(&mut self, work: &[Work<'_>]) {
        for work in work {
            let drift = work
                .changes
                .iter()
                .map(|it| super::drift(&work.topic.target_topic, it, None));
            self.applied.drift.extend(drift);
        }
    }

    fn note(&mut self, work: &Work<'_>, result: Result<(), WireError>) {
        let topic = work.topic;
        match result {
            Ok(()) => {
                self.applied.changes += work.changes.len() as u64;
                for change in &work.changes {
                    let (key, value) = (&change.key, &change.value);
                    tracing::debug!(topic = topic.target_topic, key, ?value, "config changed");
                    self.tried.accept(topic, change, self.keys);
                }
                if work.changes.iter().any(|it| is_of_rules(&it.key))
                    && self.applied.derived_from.last() != Some(&topic.source_topic)
                {
                    self.applied.derived_from.push(topic.source_topic.clone());
                }
            }
            // It is gone; nothing is left to configure.
            Err(error) if error.server_code() == Some(ResponseError::UnknownTopicOrPartition) => {}
            Err(error) => {
                for change in &work.changes {
                    self.refuse(topic, change, &error);
                }
            }
        }
    }

    fn refuse(&mut self, topic: &MirroredTopic, change: &Change, error: &WireError) {
        let (reason, words) = (reason_of(error), words(error));
        let hint = self.hint(topic, change, error);
        let name = name_of(topic, change);
        // Once for each change, and for a few of those that a missing right refuses all alike:
        // the others are in the status.
        let logged = self.applied.failed.iter().filter(|it| **it == reason);
        if !self.tried.refused.is_known(&name) && logged.take(LOGGED).count() < LOGGED {
            tracing::warn!(
                flow = %self.context.flow,
                topic = topic.target_topic,
                key = change.key,
                value = ?change.value,
                reason,
                hint,
                "the target refused a topic config: {words}"
            );
        }
        let failure = self.tried.refused.note(&name, reason, words, hint);
        self.applied.failed.push(reason.to_owned());
        self.applied
            .drift
            .push(super::drift(&topic.target_topic, change, Some(failure)));
    }

    fn hint(&self, topic: &MirroredTopic, change: &Change, error: &WireError) -> Option<String> {
        let key = &change.key;
        match error.server_code()? {
            ResponseError::TopicAuthorizationFailed | ResponseError::ClusterAuthorizationFailed => {
                Some(format!(
                    "ALLOW ALTER_CONFIGS on topic {} (or on all topics) for Twinlog's principal on the target ({})",
                    topic.target_topic,
                    self.context.target.name()
                ))
            }
            _ if is_about_a_key(error) => Some(format!(
                "{}; put {key} into configs.ignore, or give it a value that the target takes in configs.fixed",
                consequence(key, change.value.as_deref())
            )),
            _ => None,
        }
    }
}

fn changes_of(work: &Work<'_>) -> TopicChanges {
    let changes = work.changes.iter();
    let changes: BTreeMap<String, Option<String>> = changes
        .map(|change| (change.key.clone(), change.value.clone()))
        .collect();
    TopicChanges {
        topic: work.topic.target_topic.clone(),
        changes,
    }
}

/// Whether another key of the same topic may well be accepted.
fn is_about_a_key(error: &WireError) -> bool {
    matches!(
        error.server_code(),
        Some(
            ResponseError::InvalidConfig
                | ResponseError::InvalidRequest
                | ResponseError::PolicyViolation
        )
    )
}

/// The broker's own words, where it said any.
fn words(error: &WireError) -> String {
    match error {
        WireError::Server {
            message: Some(message),
            ..
        } => message.clone(),
        other => other.to_string(),
    }
}
