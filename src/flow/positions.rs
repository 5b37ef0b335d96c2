//! The copy as consumer groups see it.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use super::shared::Flow;
use super::topics::TopicContext;
use crate::groups::{Place, Positions};
use crate::offsets::{OffsetMap, SourceOffset, TargetOffset, Translation};
use crate::telemetry::progress::PartitionProgress;

/// Where an identical partition stands: between the copy's beginning and its end every source
/// offset is its own place.
struct Identical {
    origin: i64,
    copied_end: i64,
}

impl Flow {
    fn context(&self, topic: &str) -> Option<Arc<TopicContext>> {
        self.topics.get(topic).map(|context| context.clone())
    }

    fn progress_of(
        &self,
        context: &TopicContext,
        partition: i32,
    ) -> Option<Arc<PartitionProgress>> {
        let key = (context.source_topic.clone(), partition);
        self.progress
            .partitions
            .get(&key)
            .map(|progress| progress.clone())
    }

    /// An identical partition's ends. They stay known while it isn't open, unless the topic is
    /// another one meanwhile (`on_recreate`): then they are the old copy's.
    fn identical(&self, context: &TopicContext, partition: i32) -> Option<Identical> {
        let key = (context.source_topic.clone(), partition);
        let opened = *self.opened.get(&key)?;
        if opened != context.record.target_topic_id {
            return None;
        }
        let origin = context.record.origin(partition)?;
        let progress = self.progress_of(context, partition)?;
        let copied_end = progress.source_position.load(Ordering::Relaxed);
        (copied_end >= 0).then_some(Identical { origin, copied_end })
    }

    /// Looks into an open partition's map.
    fn mapped<T>(
        &self,
        context: &TopicContext,
        partition: i32,
        look: impl FnOnce(&OffsetMap) -> T,
    ) -> Option<T> {
        let key = (context.source_topic.clone(), partition);
        let open = self.open.get(&key).map(|open| open.clone())?;
        open.look_into_map(look)
    }

    fn target_log_start(&self, context: &TopicContext, partition: i32) -> i64 {
        self.progress_of(context, partition).map_or(-1, |progress| {
            progress.target_log_start.load(Ordering::Relaxed)
        })
    }
}

impl Identical {
    fn translate(&self, committed: SourceOffset) -> Translation {
        if committed.0 < self.origin {
            let first = SourceOffset(self.origin);
            Translation::BeforeStart { first }
        } else if committed.0 > self.copied_end {
            let copied_end = SourceOffset(self.copied_end);
            Translation::NotYetCopied { copied_end }
        } else {
            Translation::Exact(TargetOffset(committed.0))
        }
    }
}

impl Positions for Flow {
    fn place(&self, topic: &str, partition: i32, committed: SourceOffset) -> Place {
        let Some(context) = self.context(topic) else {
            return Place::NotCopied;
        };
        let known = if self.is_mapped(&context, partition) {
            self.mapped(&context, partition, |map| {
                (map.translate(committed), map.target_start().0)
            })
        } else {
            self.identical(&context, partition).map(|identical| {
                let answer = match identical.translate(committed) {
                    Translation::Exact(place) => {
                        Translation::Exact(TargetOffset(context.past_strangers(partition, place.0)))
                    }
                    other => other,
                };
                (answer, identical.origin)
            })
        };
        let Some((answer, first)) = known else {
            return Place::Unknown;
        };
        let first = first.max(self.target_log_start(&context, partition));
        Place::Known {
            target: context.target(partition),
            answer,
            first: TargetOffset(first),
        }
    }

    fn back(&self, topic: &str, partition: i32, committed: TargetOffset) -> Option<SourceOffset> {
        let context = self.context(topic)?;
        if !self.is_mapped(&context, partition) {
            return Some(SourceOffset(committed.0));
        }
        let answer = self.mapped(&context, partition, |map| map.reverse(committed))?;
        match answer {
            Translation::Exact(offset) => Some(offset),
            _ => None,
        }
    }

    fn take_moved(&self) -> Vec<(Arc<str>, i32)> {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *moved)
    }

    fn take_noted(&self) -> HashSet<Arc<str>> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *noted)
    }

    fn told(&self) -> &Notify {
        &self.told
    }

    fn continued_at(&self, topic: &str, partition: i32) -> i64 {
        self.context(topic)
            .map_or(0, |context| context.base(partition))
    }

    fn target_topic(&self, topic: &str) -> Option<Arc<str>> {
        let context = self.context(topic)?;
        Some(Arc::from(context.record.target_topic.as_str()))
    }

    fn source_end(&self, topic: &str, partition: i32) -> Option<i64> {
        let context = self.context(topic)?;
        let progress = self.progress_of(&context, partition)?;
        let end = progress.source_stable_end.load(Ordering::Relaxed);
        (end >= 0).then_some(end)
    }

    fn source_topic_id(&self, topic: &str) -> Uuid {
        self.context(topic)
            .map_or(Uuid::nil(), |context| context.record.source_topic_id)
    }

    fn source_topic(&self, target_topic: &str) -> Option<Arc<str>> {
        self.sources.get(target_topic).map(|topic| topic.clone())
    }
}
