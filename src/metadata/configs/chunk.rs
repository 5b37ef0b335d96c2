//! Some topics whose configs are asked for together.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::time::Instant;

use super::decide::{Decision, decide};
use super::defaults::TargetDefaults;
use super::needs::{CLEANUP, Needs};
use super::rests::fingerprint;
use super::tried::Tried;
use crate::metadata::context::{Context, MirroredTopic, Topics};
use crate::metadata::pass;
use crate::telemetry::metadata::{Drift, DriftKind, Obstacle};
use crate::wire::{
    Cluster, ConfigValues, Described, Looked, Metadata, Pace, Rate, WireError,
    describe_topic_configs_at, is_other_topic,
};

/// How often all configs are asked for, of either side: 4,500 topics have some 9 MB.
const PACE: Pace = Pace {
    hasty: Rate {
        bytes_per_second: 1_000_000,
        most: Duration::from_secs(10),
    },
    told: Rate {
        bytes_per_second: 3_000,
        most: Duration::from_secs(1_800),
    },
    untold: Rate {
        bytes_per_second: 4_000,
        most: Duration::from_secs(1_800),
    },
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
    /// When each side was asked last, and how large its answer was.
    looked: Option<[Looked; 2]>,
    bytes: [usize; 2],
    told: Told,
}

/// From which settings the copies' rules are to be made, as both clusters said last. A broker may be late: if it was the one
/// that was asked when a copy's rules were made, nobody's answer changes any more, and the rules would stay old.
#[derive(Debug)]
struct Told(Vec<OfTopic>);

/// What was told of one topic. One about which brokers differ for good makes no other one wait.
#[derive(Debug)]
struct OfTopic {
    /// Its place in the chunk.
    place: usize,
    settings: u64,
    /// There was a look since it was compared, or rules were made, or it differed.
    is_open: bool,
    /// Not before that it is compared again, and how long it is put off the next time: brokers may differ for good.
    not_before: Instant,
    pause: Duration,
}

/// So long after settings differed from those of the rules they are compared again.
const COMPARED_AGAIN: Duration = Duration::from_secs(1);
/// The same where they go on to differ.
const COMPARED_AGAIN_MAX: Duration = Duration::from_secs(600);

impl Told {
    fn new(by_topic: Vec<(usize, u64)>) -> Self {
        let now = Instant::now();
        let of_topic = |(place, settings)| OfTopic {
            place,
            settings,
            is_open: true,
            not_before: now,
            pause: COMPARED_AGAIN,
        };
        Self(by_topic.into_iter().map(of_topic).collect())
    }

    /// There was a look, or rules were made.
    fn open(&mut self) {
        self.0.iter_mut().for_each(|it| it.is_open = true);
    }

    /// Says what was told to the copies whose turn it is. True if rules were made from something else.
    fn compare(&mut self, copies: &dyn Topics, topics: &[MirroredTopic]) -> bool {
        let now = Instant::now();
        let mut are_others = false;
        for of in &mut self.0 {
            if !of.is_open || now < of.not_before {
                continue;
            }
            let topic = topics.get(of.place);
            of.is_open =
                topic.is_some_and(|it| copies.rest_on_others(&it.source_topic, of.settings));
            if of.is_open {
                of.not_before = now + of.pause;
                of.pause = (of.pause * 2).min(COMPARED_AGAIN_MAX);
                are_others = true;
            }
        }
        are_others
    }
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
        topic.is_some_and(|topic| topic.error.is_none() && !is_other_topic(id, topic.topic_id))
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
        looked: None,
        bytes: [0; 2],
        told: Told::new(Vec::new()),
    };
    starts.map(chunk).collect()
}

impl Chunk {
    /// The next look decides anew, whatever it sees.
    pub(super) fn forget(&mut self) {
        self.seen = None;
    }

    /// How large the answers about all topics are, by side.
    pub(super) fn bytes(chunks: &[Self]) -> [usize; 2] {
        let sum = |side: usize| chunks.iter().map(|chunk| chunk.bytes[side]).sum();
        [sum(0), sum(1)]
    }

    /// Whether it is time to ask again. What was left undone is looked at each time.
    pub(super) fn is_due(&self, context: &Context, all_bytes: [usize; 2]) -> bool {
        let (Some(looked), Some(_)) = (self.looked, self.seen) else {
            return true;
        };
        let sides = [&context.source, &context.target];
        let mut sides = sides.into_iter().zip(looked).zip(all_bytes);
        sides.any(|((side, looked), bytes)| PACE.is_due(Some(looked), side.news(), bytes))
    }

    /// The next look asks, however short ago the last one was.
    pub(super) fn hurry(&mut self) {
        self.looked = None;
    }

    /// Copies' rules were made, of these topics or others.
    pub(super) fn rules_were_made(&mut self) {
        self.told.open();
    }

    /// Says from which settings the copies' rules are to be made. Where they were made from others, somebody is late: also
    /// the clusters are asked again.
    pub(super) fn compare_rules(&mut self, context: &Context, topics: &[MirroredTopic]) {
        if self.told.compare(&*context.topics, topics) {
            self.hurry();
        }
    }

    /// Asks both clusters and decides; `None` if they say what they said the last time.
    pub(super) async fn look<'a>(
        &mut self,
        context: &Context,
        topics: &'a [MirroredTopic],
        defaults: &TargetDefaults,
        tried: &Tried,
    ) -> Result<Option<Vec<Found<'a>>>, (&'static str, WireError)> {
        let names = |name: fn(&MirroredTopic) -> &String| -> Vec<String> {
            topics.iter().map(|topic| name(topic).clone()).collect()
        };
        let (on_source, on_target) = (names(|t| &t.source_topic), names(|t| &t.target_topic));
        let looked = [&context.source, &context.target].map(Cluster::look_begins);
        let ask = describe_topic_configs_at;
        let (source, target) = tokio::join!(
            ask(&context.source, self.asked[0], &on_source, false),
            ask(&context.target, self.asked[1], &on_target, false),
        );
        let source = source.map_err(|error| ("source", error))?;
        let target = target.map_err(|error| ("target", error))?;
        let seen = [Seen::of(&source), Seen::of(&target)];
        self.asked = seen.map(|seen| Some(seen.broker));
        self.bytes = seen.map(|seen| seen.fingerprint.1);
        if self.seen == Some(seen) {
            self.looked = Some(looked);
            self.told.open();
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
        let mut settings = Vec::with_capacity(topics.len());
        let found = topics.iter().enumerate().filter_map(|(place, topic)| {
            let kept = kept.filter(|_| topic.was_there);
            let (source, target) = (
                source.get(&topic.source_topic)?,
                target.get(&topic.target_topic)?,
            );
            let needs = Needs {
                refuses_compaction: tried.is_refused(topic, CLEANUP, source),
                ..topic.needs
            };
            let decision = decide(
                source,
                target,
                defaults.values(),
                topic.target_replicas?,
                &needs,
                kept.unwrap_or(rules),
            );
            settings.push((place, fingerprint(source, target)));
            Some(Found { topic, decision })
        });
        let found = found.collect();
        self.told = Told::new(settings);
        // Not before: one that fails is no look.
        (self.seen, self.looked) = (Some(seen), Some(looked));
        Ok(Some(found))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use uuid::Uuid;

    use super::*;
    use crate::simulated::simulated;

    /// Copies whose rules were made from others, by name; and who was compared.
    #[derive(Default)]
    struct Copies {
        others: Mutex<BTreeSet<String>>,
        compared: Mutex<Vec<String>>,
    }

    impl Copies {
        fn differ(&self, names: &[&str]) {
            let names = names.iter().map(|it| (*it).to_owned());
            *self.others.lock().unwrap() = names.collect();
        }

        fn compared(&self) -> Vec<String> {
            std::mem::take(&mut *self.compared.lock().unwrap())
        }
    }

    impl Topics for Copies {
        fn mirrored(&self) -> std::sync::Arc<[MirroredTopic]> {
            Vec::new().into()
        }

        fn drift(&self) -> Vec<Drift> {
            Vec::new()
        }

        fn configs_changed(&self, _source_topics: &[String]) {}

        fn rest_on_others(&self, source_topic: &str, _fingerprint: u64) -> bool {
            self.compared.lock().unwrap().push(source_topic.to_owned());
            self.others.lock().unwrap().contains(source_topic)
        }
    }

    fn topic(name: &str) -> MirroredTopic {
        MirroredTopic {
            source_topic: name.to_owned(),
            source_id: Uuid::nil(),
            target_topic: name.to_owned(),
            target_id: Uuid::nil(),
            target_replicas: None,
            was_there: false,
            needs: Needs::default(),
        }
    }

    #[test]
    fn a_topic_about_which_brokers_differ_makes_no_other_one_wait() {
        simulated(|| async {
            let topics = [topic("a"), topic("b")];
            let copies = Copies::default();
            let mut told = Told::new(vec![(0, 1), (1, 1)]);
            copies.differ(&["a"]);
            // Its pause is long by then.
            for _ in 0..12 {
                tokio::time::sleep(COMPARED_AGAIN_MAX).await;
                assert!(told.compare(&copies, &topics));
            }
            copies.compared();
            // The neighbour's rules are made, from old settings.
            copies.differ(&["a", "b"]);
            told.open();
            assert!(told.compare(&copies, &topics), "at once");
            assert_eq!(copies.compared(), ["b"]);
            copies.differ(&["a"]);
            tokio::time::sleep(COMPARED_AGAIN).await;
            assert!(!told.compare(&copies, &topics));
            assert_eq!(copies.compared(), ["b"], "it has a pause of its own");
            tokio::time::sleep(COMPARED_AGAIN).await;
            assert!(!told.compare(&copies, &topics));
            assert_eq!(copies.compared(), [""; 0], "nothing is left to compare");
            tokio::time::sleep(COMPARED_AGAIN_MAX).await;
            copies.differ(&[]);
            assert!(!told.compare(&copies, &topics));
            assert_eq!(copies.compared(), ["a"]);
        });
    }
}
