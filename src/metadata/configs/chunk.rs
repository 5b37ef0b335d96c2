//! Some topics whose configs are asked for together.

use std::collections::HashMap;
use std::ops::Range;

use kafka_protocol::ResponseError;

use super::decide::{Decision, decide};
use super::defaults::TargetDefaults;
use crate::metadata::context::{Context, MirroredTopic};
use crate::metadata::pass;
use crate::telemetry::metadata::{Drift, DriftKind, Obstacle};
use crate::wire::{
    Cluster, ConfigValues, Described, Metadata, WireError, describe_topic_configs_at,
};

/// Topics asked for in one request: half a megabyte of answer.
const TOPICS: usize = 250;
/// Topics whose missing right is shown one by one.
const SHOWN: usize = 10;

/// Some topics, and what both clusters last said of them.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Which of all topics.
    pub topics: Range<usize>,
    /// What still differed after the last look.
    pub drift: Vec<Drift>,
    /// What couldn't be compared in the last look.
    pub obstacles: Vec<Obstacle>,
    /// The answers of the last look, if nothing has changed on the target since.
    seen: Option<[Seen; 2]>,
    /// Who answered last: another broker may tell the same in another order.
    asked: [Option<i32>; 2],
}

/// An answer, recognized again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    broker: i32,
    fingerprint: (u32, usize),
}

impl Seen {
    fn of(described: &Described) -> Self {
        Self {
            broker: described.broker(),
            fingerprint: described.fingerprint(),
        }
    }
}

/// One topic that could be compared.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub topic: &'a MirroredTopic,
    pub decision: Decision,
}

/// Of what was found, the topics that are those of the copy: configs are asked for by name, and a
/// topic that was created again a moment ago has the name of the one that was copied. An id never
/// comes back, so a topic that has it now had it when its configs were told.
pub(super) async fn still_same<'a>(
    context: &Context,
    mut found: Vec<Found<'a>>,
) -> Result<Vec<Found<'a>>, (&'static str, WireError)> {
    let names = |name: fn(&MirroredTopic) -> &String| -> Vec<String> {
        found
            .iter()
            .map(|found| name(found.topic).clone())
            .collect()
    };
    let (on_source, on_target) = (names(|t| &t.source_topic), names(|t| &t.target_topic));
    let (source, target) = tokio::join!(
        context.source.metadata(Some(&on_source)),
        context.target.metadata(Some(&on_target)),
    );
    let source = source.map_err(|error| ("source", error))?;
    let target = target.map_err(|error| ("target", error))?;
    let is_same = |metadata: &Metadata, name: &str, id| {
        let topic = metadata.topics.get(name);
        topic.is_some_and(|topic| topic.error.is_none() && topic.topic_id == id)
    };
    found.retain(|Found { topic, .. }| {
        is_same(&source, &topic.source_topic, topic.source_id)
            && is_same(&target, &topic.target_topic, topic.target_id)
    });
    Ok(found)
}

/// Chunks of all topics.
pub(super) fn divide(topics: &[MirroredTopic]) -> Vec<Chunk> {
    let starts = (0..topics.len()).step_by(TOPICS);
    let chunk = |start: usize| Chunk {
        topics: start..(start + TOPICS).min(topics.len()),
        drift: Vec::new(),
        obstacles: Vec::new(),
        seen: None,
        asked: [None; 2],
    };
    starts.map(chunk).collect()
}

impl Chunk {
    /// The next look decides anew, whatever it sees.
    pub(super) fn forget(&mut self) {
        self.seen = None;
    }

    /// Asks both clusters and decides; `None` if they say what they said the last time.
    pub(super) async fn look<'a>(
        &mut self,
        context: &Context,
        topics: &'a [MirroredTopic],
        defaults: &TargetDefaults,
    ) -> Result<Option<Vec<Found<'a>>>, (&'static str, WireError)> {
        let names = |name: fn(&MirroredTopic) -> &String| -> Vec<String> {
            topics.iter().map(|topic| name(topic).clone()).collect()
        };
        let (on_source, on_target) = (names(|t| &t.source_topic), names(|t| &t.target_topic));
        let ask = describe_topic_configs_at;
        let (source, target) = tokio::join!(
            ask(&context.source, self.asked[0], &on_source, false),
            ask(&context.target, self.asked[1], &on_target, false),
        );
        let source = source.map_err(|error| ("source", error))?;
        let target = target.map_err(|error| ("target", error))?;
        let seen = [Seen::of(&source), Seen::of(&target)];
        self.asked = seen.map(|seen| Some(seen.broker));
        if self.seen == Some(seen) {
            return Ok(None);
        }
        self.forget();
        let source = source
            .decode(&on_source)
            .map_err(|error| ("source", error))?;
        let target = target
            .decode(&on_target)
            .map_err(|error| ("target", error))?;
        self.obstacles.clear();
        let source = self.usable("source", &context.source, source);
        let target = self.usable("target", &context.target, target);
        let rules = &context.rules.configs;
        let kept = rules.of_what_was_there.as_deref();
        let found = topics.iter().filter_map(|topic| {
            let kept = kept.filter(|_| topic.was_there);
            let decision = decide(
                source.get(&topic.source_topic)?,
                target.get(&topic.target_topic)?,
                defaults.values(),
                topic.target_replicas?,
                &topic.needs,
                kept.unwrap_or(rules),
            );
            Some(Found { topic, decision })
        });
        self.seen = Some(seen);
        Ok(Some(found.collect()))
    }

    /// The topics that were described; why others weren't is noted.
    fn usable(
        &mut self,
        side: &'static str,
        cluster: &Cluster,
        described: HashMap<String, Result<ConfigValues, WireError>>,
    ) -> HashMap<String, ConfigValues> {
        let mut usable = HashMap::with_capacity(described.len());
        let mut failed = Vec::new();
        for (topic, values) in described {
            match values {
                Ok(values) => {
                    usable.insert(topic, values);
                }
                // It is gone, or only just there.
                Err(error)
                    if error.server_code() == Some(ResponseError::UnknownTopicOrPartition) => {}
                Err(error) => failed.push((topic, error)),
            }
        }
        failed.sort_by(|one, other| one.0.cmp(&other.0));
        let (shown, others) = match failed.len() {
            0..=SHOWN => (failed.len(), 0),
            count => (1, count - 1),
        };
        for (topic, error) in failed.into_iter().take(shown) {
            let grant = format!(
                "ALLOW DESCRIBE_CONFIGS on topic {topic} (or on all topics) for Twinlog's principal on the {side} ({})",
                cluster.name()
            );
            let mut obstacle = pass::obstacle(DriftKind::TopicConfig, side, &error, &grant);
            if others > 0 {
                obstacle.message = format!("{} (and {others} other topics)", obstacle.message);
            }
            self.obstacles.push(obstacle);
        }
        usable
    }
}
