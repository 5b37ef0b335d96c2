//! Looks at both clusters' topics again and again: new ones, grown ones, replaced ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::deleted;
use super::error::Trouble;
use super::identity::{source_reason, target_reason};
use super::shared::Flow;
use super::standby;
use super::topic_config::TopicConfigs;
use super::topics::{self, Found, TopicContext};
use crate::state::{STATE_TOPIC, TopicRecord};
use crate::telemetry::progress::FlowState;
use crate::wire::{self, Metadata, TopicMetadata, WireError};

/// Topics that are prepared at the same time.
const AT_ONCE: usize = 16;
/// How often all of the target's topics are looked at while the source's don't change.
const TARGET_EVERY: Duration = Duration::from_secs(5);
/// How long a topic that can't be prepared rests before it is tried again.
const REST: Duration = Duration::from_secs(3);

/// What discovery tells the supervisor.
pub enum Discovered {
    /// A topic is ready to be copied, for the first time or in a new shape.
    Ready(Arc<TopicContext>),
    /// A topic can't be copied now.
    Trouble {
        /// The source topic.
        topic: Arc<str>,
        /// Its partitions on the source.
        partitions: usize,
        /// Why.
        trouble: Trouble,
    },
    /// A topic is gone from the source; its copy stays, at least for now (`deleted`).
    Gone(Arc<str>),
}

/// What discovery last saw of a topic; it is prepared again when this changes.
#[derive(Clone, PartialEq, Eq)]
struct Shape {
    source_id: Uuid,
    partitions: usize,
    target_id: Uuid,
    target_partitions: usize,
}

enum Known {
    Ready {
        shape: Shape,
        /// Partitions that wait for their leader, and when they are looked at again.
        waiting: Vec<i32>,
        again: Instant,
    },
    Resting {
        until: Instant,
        /// As last seen on the source.
        partitions: usize,
    },
}

impl Known {
    fn partitions(&self) -> usize {
        match self {
            Self::Ready { shape, .. } => shape.partitions,
            Self::Resting { partitions, .. } => *partitions,
        }
    }

    fn rests(&self) -> bool {
        matches!(self, Self::Resting { until, .. } if Instant::now() < *until)
    }
}

/// Runs until cancelled.
pub async fn run(
    flow: Arc<Flow>,
    found: mpsc::UnboundedSender<Discovered>,
    cancel: CancellationToken,
) {
    let mut known = remembered(&flow);
    let mut first_look = true;
    let mut seen = Seen::default();
    loop {
        match look(&flow, &mut known, first_look, &mut seen, &found).await {
            Ok(()) => {
                first_look = false;
                flow.progress.discovered.store(true, Ordering::Relaxed);
                if flow.progress.set_state(FlowState::Running) {
                    tracing::info!(flow = %flow.config.name, topics = known.len(), "running");
                }
            }
            Err((reason, error)) => {
                flow.progress.count_error(error.kind());
                let state = FlowState::Waiting {
                    reason,
                    detail: error.to_string(),
                };
                if flow.progress.set_state(state) {
                    tracing::warn!(flow = %flow.config.name, reason, %error, "discovery failed; it is tried again");
                }
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(flow.config.discovery_interval) => {}
        }
    }
}

/// What was seen of both clusters.
#[derive(Default)]
struct Seen {
    /// When the target was asked.
    target_at: Option<Instant>,
    /// Both descriptions, where nothing was left to do for them.
    settled: Option<(Arc<Metadata>, Arc<Metadata>)>,
}

impl Seen {
    /// At rest, that is nearly always: the same as when nothing was left to do.
    fn is_settled(&self, source: &Arc<Metadata>, target: &Arc<Metadata>) -> bool {
        self.settled
            .as_ref()
            .is_some_and(|(before, target_before)| {
                Arc::ptr_eq(before, source) && Arc::ptr_eq(target_before, target)
            })
    }
}

/// Whether only a cluster's change makes work: no topic rests, no partition waits.
fn waits_for_nothing(known: &HashMap<String, Known>) -> bool {
    known
        .values()
        .all(|it| matches!(it, Known::Ready { waiting, .. } if waiting.is_empty()))
}

async fn look(
    flow: &Arc<Flow>,
    known: &mut HashMap<String, Known>,
    first_look: bool,
    seen: &mut Seen,
    found: &mpsc::UnboundedSender<Discovered>,
) -> Result<(), (&'static str, WireError)> {
    let source = flow.source.metadata(None).await;
    let source = source.map_err(|error| (source_reason(&error), error))?;
    refuse_misled(flow)?;
    let mut target = flow.target.cached();
    let is_settled = seen.is_settled(&source, &target) && flow.stale().is_empty();
    let mut changed = match is_settled {
        true => Vec::new(),
        false => {
            let why = nothing_selected(flow, &source);
            flow.progress.set_nothing_selected(why);
            changed(flow, known, &source, &target)
        }
    };
    // Nobody but us makes topics there, so while the source stands still the target is looked at
    // less often: on idle clusters these two answers are most of the work.
    if !changed.is_empty() || seen.target_at.is_none_or(|at| at.elapsed() >= TARGET_EVERY) {
        let asked_at = Instant::now();
        let answer = flow.target.metadata(None).await;
        target = answer.map_err(|error| (target_reason(&error), error))?;
        seen.target_at = Some(asked_at);
        standby::note(flow, &target);
        if !seen.is_settled(&source, &target) || !changed.is_empty() {
            changed = self::changed(flow, known, &source, &target);
        }
    }
    report_missing(flow, known, first_look, &source, found)
        .await
        .map_err(|error| (source_reason(&error), error))?;
    if let Err(error) = deleted::look(flow, &source).await {
        tracing::warn!(flow = %flow.config.name, %error, "topics that are gone can't be looked after");
    }
    if changed.is_empty() {
        seen.settled = waits_for_nothing(known).then_some((source, target));
        return Ok(());
    }
    seen.settled = None;
    // Before their configs are read: a change behind that makes them stale again.
    flow.stale().retain(|name| !changed.contains(name));
    let configs = Arc::new(configs(flow, &changed, &target).await);
    let mut preparing = Preparing::default();
    for name in changed {
        if preparing.tasks.len() >= AT_ONCE
            && let Some(done) = preparing.next().await
        {
            settle(flow, known, done, found).await;
        }
        let (flow, source, target, configs) = (
            flow.clone(),
            source.clone(),
            target.clone(),
            configs.clone(),
        );
        let partitions = source.topics.get(&name).map_or(0, |it| it.partitions.len());
        let named = (name.clone(), partitions);
        let task = preparing.tasks.spawn(async move {
            let Some(topic) = source.topics.get(&name) else {
                return Err(Trouble::SourceRecreated);
            };
            let target_name = flow.config.rename.apply(&flow.config.source, &name);
            let one = Found {
                name: &name,
                source: topic,
                target: target.topics.get(&target_name),
                at_first_look: first_look,
            };
            topics::ensure(&flow, one, &configs).await
        });
        preparing.topics.insert(task.id(), named);
    }
    while let Some(done) = preparing.next().await {
        settle(flow, known, done, found).await;
    }
    Ok(())
}

/// A topic with so many partitions on the source, and what came of preparing it.
type Prepared = (String, usize, Result<TopicContext, Trouble>);

/// Topics that are being prepared: a panic over one is that one's.
#[derive(Default)]
struct Preparing {
    tasks: JoinSet<Result<TopicContext, Trouble>>,
    topics: HashMap<tokio::task::Id, (String, usize)>,
}

impl Preparing {
    async fn next(&mut self) -> Option<Prepared> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(Trouble::Defect(error.to_string()))),
        };
        let (name, partitions) = self.topics.remove(&id)?;
        Some((name, partitions, result))
    }
}

/// A cluster that answers under its bootstrap address, and sends its clients to another one.
fn refuse_misled(flow: &Flow) -> Result<(), (&'static str, WireError)> {
    if let Some(error) = flow.source.all_misled() {
        return Err((source_reason(&error), error));
    }
    match flow.target.all_misled() {
        Some(error) => Err((target_reason(&error), error)),
        None => Ok(()),
    }
}

/// Why no topic is selected, where the source has some: a mistake in the config looks like a source that rests.
fn nothing_selected(flow: &Flow, source: &Metadata) -> Option<String> {
    if flow.config.is_back() || !topics::selected(&flow.config, source).is_empty() {
        return None;
    }
    let of_users = |(name, topic): &(&String, &TopicMetadata)| {
        !topic.internal && topic.error.is_none() && !name.starts_with("__")
    };
    let others = source.topics.iter().filter(of_users).count();
    let include = flow.config.topics.include();
    let comma = match include.iter().any(|pattern| pattern.contains(',')) {
        true => "; a comma joins no names: write [a, b]",
        false => "",
    };
    (others > 0).then(|| {
        format!(
            "none of the {others} topic(s) of {} is selected by topics.include {include:?} and \
             topics.exclude{comma}",
            flow.config.source
        )
    })
}

/// The selected topics whose shape isn't the known one, or whose copies' configs were changed.
fn changed(
    flow: &Flow,
    known: &HashMap<String, Known>,
    source: &Metadata,
    target: &Metadata,
) -> Vec<String> {
    let stale = flow.stale().clone();
    topics::selected(&flow.config, source)
        .into_iter()
        .filter(|(name, topic)| match known.get(*name) {
            None => true,
            Some(resting @ Known::Resting { .. }) => !resting.rests(),
            Some(Known::Ready { .. }) if stale.contains(*name) => true,
            Some(Known::Ready {
                shape,
                waiting,
                again,
            }) => {
                let target_name = flow.config.rename.apply(&flow.config.source, name);
                let can_begin = |partition: &i32| {
                    source.leader(name, *partition).is_some()
                        && target.leader(&target_name, *partition).is_some()
                };
                *shape != shape_of(topic, target.topics.get(&target_name), shape)
                    || (Instant::now() >= *again && waiting.iter().any(can_begin))
            }
        })
        .map(|(name, _)| name.clone())
        .collect()
}

/// The shape now. A target topic that a broker doesn't show for a moment (its error is set, as
/// while it starts up) keeps its known shape; one that is truly gone has none.
fn shape_of(source: &TopicMetadata, target: Option<&TopicMetadata>, known: &Shape) -> Shape {
    let (target_id, target_partitions) = match target {
        Some(target) if target.error.is_none() => (target.topic_id, target.partitions.len()),
        Some(_) => (known.target_id, known.target_partitions),
        None => (Uuid::nil(), 0),
    };
    Shape {
        source_id: source.topic_id,
        partitions: source.partitions.len(),
        target_id,
        target_partitions,
    }
}

/// The topics that an earlier run copied: one of them that is hidden from us now isn't forgotten.
fn remembered(flow: &Flow) -> HashMap<String, Known> {
    let prefix = flow.topic_key("");
    let mut known = HashMap::new();
    for key in flow.store.keys(&prefix) {
        let record: Option<TopicRecord> = flow.store.get(&key).ok().flatten();
        let name = key.strip_prefix(&prefix).unwrap_or_default();
        if let (Some(record), true) = (record, flow.config.topics.matches(name)) {
            let resting = Known::Resting {
                until: Instant::now(),
                partitions: record.origins.len(),
            };
            known.insert(name.to_owned(), resting);
        }
    }
    known
}

/// Known topics that the source doesn't list: deleted, or hidden by a lost right.
async fn report_missing(
    flow: &Flow,
    known: &mut HashMap<String, Known>,
    first_look: bool,
    source: &Metadata,
    found: &mpsc::UnboundedSender<Discovered>,
) -> Result<(), WireError> {
    let missing: Vec<String> = known
        .iter()
        .filter(|(name, known)| !source.has_topic(name) && !known.rests())
        .map(|(name, _)| name.clone())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_name = flow.source.metadata(Some(&missing)).await?;
    let cluster = format!("source ({})", flow.source.name());
    let mut can_note = true;
    for name in missing {
        match topics::is_gone(&by_name, &cluster, &name) {
            Ok(false) => {}
            // One try takes seconds where the state topic has no leader.
            Ok(true) if !can_note => {}
            Ok(true) => {
                // Once is enough: what an earlier run knew may be gone for long.
                if !first_look {
                    tracing::warn!(flow = %flow.config.name, topic = %name, "the source topic is gone; its copy {}", deleted::fate(flow, &name));
                }
                if let Err(error) = deleted::note(flow, &name).await {
                    // The topic stays known, so that this is tried again.
                    tracing::warn!(flow = %flow.config.name, topic = %name, %error, "a gone topic can't be noted");
                    can_note = false;
                    continue;
                }
                known.remove(&name);
                let _ = found.send(Discovered::Gone(Arc::from(name.as_str())));
            }
            Err(trouble) => {
                let partitions = known.get(&name).map_or(0, Known::partitions);
                rest(flow, known, found, &name, partitions, trouble);
            }
        }
    }
    Ok(())
}

/// Reports a topic that can't be copied now, and lets it rest.
fn rest(
    flow: &Flow,
    known: &mut HashMap<String, Known>,
    found: &mpsc::UnboundedSender<Discovered>,
    name: &str,
    partitions: usize,
    trouble: Trouble,
) {
    flow.progress.count_error(trouble.reason());
    let until = Instant::now() + REST;
    known.insert(name.to_owned(), Known::Resting { until, partitions });
    let _ = found.send(Discovered::Trouble {
        topic: Arc::from(name),
        partitions,
        trouble,
    });
}

async fn configs(flow: &Flow, names: &[String], target: &Metadata) -> TopicConfigs {
    let targets: Vec<String> = names
        .iter()
        .map(|name| flow.config.rename.apply(&flow.config.source, name))
        .filter(|name| target.has_topic(name))
        .chain([STATE_TOPIC.to_owned()])
        .collect();
    let (source, target) = tokio::join!(
        wire::describe_topic_configs(&flow.source, names),
        wire::describe_topic_configs(&flow.target, &targets),
    );
    let keep = |answers: HashMap<String, Result<wire::ConfigValues, WireError>>| {
        let all = answers.into_iter();
        all.filter_map(|(name, values)| Some((name, values.ok()?)))
            .collect::<HashMap<_, _>>()
    };
    let mut target = keep(target);
    TopicConfigs {
        source: keep(source),
        known: target.remove(STATE_TOPIC),
        target,
    }
}

async fn settle(
    flow: &Flow,
    known: &mut HashMap<String, Known>,
    (name, partitions, result): Prepared,
    found: &mpsc::UnboundedSender<Discovered>,
) {
    match result {
        Ok(context) => {
            let shape = Shape {
                source_id: context.record.source_topic_id,
                partitions,
                target_id: context.record.target_topic_id,
                target_partitions: partitions,
            };
            let waiting: Vec<i32> = context.waiting.keys().copied().collect();
            // What is ready is opened again where it had stopped: not for a look that found nothing.
            let is_news = flow.topics.get(&context.source_topic).is_none_or(|before| {
                !matches!(known.get(&name), Some(Known::Ready { shape: last, waiting, .. })
                    if !waiting.is_empty() && *last == shape)
                    || before.record != context.record
                    || before.rules != context.rules
                    || !before.waits_as(&context)
            });
            let again = Instant::now() + REST;
            known.insert(
                name,
                Known::Ready {
                    shape,
                    waiting,
                    again,
                },
            );
            if is_news {
                let _ = found.send(Discovered::Ready(Arc::new(context)));
            }
        }
        Err(trouble) => {
            rest(flow, known, found, &name, partitions, trouble);
        }
    }
}
