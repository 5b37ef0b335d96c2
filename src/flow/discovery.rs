//! Looks at both clusters' topics again and again: new ones, grown ones, replaced ones.

use std::collections::{HashMap, HashSet};
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
use super::haste::Haste;
use super::identity::{source_reason, target_reason};
use super::shared::Flow;
use super::standby;
use super::topic_config::TopicConfigs;
use super::topics::{self, Found, TopicContext};
use crate::state::{EndsRecord, STATE_TOPIC, SourceIs, TopicRecord, keys, note_build};
use crate::telemetry::progress::FlowState;
use crate::wire::{self, Looked, Metadata, News, Pace, Rate, TopicMetadata, WireError};

/// Topics that are prepared at the same time.
const AT_ONCE: usize = 16;
/// Of them, those whose copies have to be made: a target may need minutes for each, and what has a copy doesn't wait for that.
const CREATED_AT_ONCE: usize = 12;
/// Topics that are prepared in one round, and for how long new ones are begun in it: a target that makes some partitions a
/// minute, and no more, needs hours for all. Who comes or goes meanwhile is seen all the same.
const IN_A_ROUND: usize = 500;
const ROUND: Duration = Duration::from_secs(10);
/// How long those that are being prepared are waited for when the flow ends.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How often all of the target's topics are looked at at most while the source's don't change.
const TARGET_EVERY: Duration = Duration::from_secs(5);
/// Descriptions of all topics are asked for no more often than this: at 18,000 partitions one has 0.8 MB, and each
/// second one of them would be two terabytes a month on a line that is paid for.
const SOURCE_PACE: Pace = Pace {
    hasty: rate(100_000, 10),
    told: rate(4_000, 300),
    untold: rate(10_000, 90),
};
/// The same of the target, where nobody but us makes topics.
const TARGET_PACE: Pace = Pace {
    hasty: rate(40_000, 20),
    told: rate(3_000, 300),
    untold: rate(3_000, 300),
};
/// So many small questions to the source come to one to the target.
const TARGET_TURN: u32 = 3;

const fn rate(bytes_per_second: usize, most_seconds: u64) -> Rate {
    Rate {
        bytes_per_second,
        most: Duration::from_secs(most_seconds),
    }
}

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
    /// An earlier run copied it, and this one hasn't tried yet.
    Remembered {
        /// As far as the state knows.
        partitions: usize,
    },
}

impl Known {
    fn partitions(&self) -> usize {
        match self {
            Self::Ready { shape, .. } => shape.partitions,
            Self::Resting { partitions, .. } | Self::Remembered { partitions } => *partitions,
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
    let mut seen = Seen {
        begun: IN_A_ROUND,
        ..Seen::default()
    };
    let mut preparing = Preparing::default();
    let mut turn = 0_u32;
    let mut haste = Haste::default();
    loop {
        seen.hurries = haste.is_under_way(&flow.store, &flow.config.name);
        // Who is told to end doesn't wait for a source that hangs.
        let asked = cancel.run_until_cancelled(ask_source(&flow, &mut seen, turn));
        let Some(source) = asked.await else {
            break;
        };
        if source.is_err() {
            // It may be another one by the time that it answers.
            seen.source_at = None;
        }
        let looked = async {
            let source = source.map_err(|error| (source_reason(&error), error))?;
            let mut topics = Topics {
                known: &mut known,
                preparing: &mut preparing,
                found: &found,
            };
            look(&flow, source, &mut topics, first_look, &mut seen).await
        };
        let mut left = 0;
        match looked.await {
            Ok(for_later) => {
                left = for_later;
                first_look = false;
                let to_prepare = (left + preparing.topics.len()) as u64;
                let shown = &flow.progress.topics_to_prepare;
                shown.store(to_prepare, Ordering::Relaxed);
                flow.progress.discovered.store(true, Ordering::Relaxed);
                let progress = &flow.progress;
                if progress.set_state_by_task(FlowState::Running, &cancel) {
                    tracing::info!(flow = %flow.config.name, topics = known.len(), "running");
                }
            }
            Err((reason, error)) => {
                // What was left out is looked at soon.
                seen.settled = None;
                flow.progress.count_error(error.kind());
                let state = FlowState::Waiting {
                    reason,
                    detail: error.to_string(),
                };
                if flow.progress.set_state_by_task(state, &cancel) {
                    tracing::warn!(flow = %flow.config.name, reason, %error, "discovery failed; it is tried again");
                }
            }
        }
        turn = turn.wrapping_add(1);
        let pause = match left {
            0 => wire::uneven(flow.config.discovery_interval, turn),
            _ => {
                tracing::info!(flow = %flow.config.name, left, "topics are still to be prepared");
                Duration::ZERO
            }
        };
        tokio::select! {
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    // What is being made is made, and written down.
    let ending = async { while preparing.next().await.is_some() {} };
    let _ = tokio::time::timeout(ENDS_WITHIN, ending).await;
}

/// What is known of topics, and done about them.
struct Topics<'a> {
    known: &'a mut HashMap<String, Known>,
    preparing: &'a mut Preparing,
    found: &'a mpsc::UnboundedSender<Discovered>,
}

/// All topics of the source as it describes them now, or where it isn't time for that, as it did last: then it is only
/// asked whether it is there, and whether anything has changed.
async fn ask_source(flow: &Flow, seen: &mut Seen, turn: u32) -> Result<Source, WireError> {
    let source = &flow.source;
    let bytes = source.metadata_bytes();
    // What is small is simply asked for.
    if SOURCE_PACE.told.every(bytes) > flow.config.discovery_interval {
        source.ask_news().await;
        if turn.is_multiple_of(TARGET_TURN) {
            flow.target.ask_news().await;
        }
    }
    let begins = source.look_begins();
    let is_new = SOURCE_PACE.is_due(seen.source_at, seen.news_for(begins.news), bytes);
    let described = match is_new {
        true => {
            let described = source.metadata(None).await?;
            seen.source_at = Some(begins);
            described
        }
        false => source.metadata(Some(&[])).await?,
    };
    Ok(Source { described, is_new })
}

/// What the source's topics are.
struct Source {
    described: Arc<Metadata>,
    /// Whether it said so just now.
    is_new: bool,
}

/// What was seen of both clusters.
#[derive(Default)]
struct Seen {
    /// When all topics of the source were asked for.
    source_at: Option<Looked>,
    /// The same of the target.
    target_at: Option<Looked>,
    /// Topics that were there at the first look and haven't been prepared since.
    first: HashSet<String>,
    /// How many were begun in the last round.
    begun: usize,
    /// A cut-over is under way, which waits for what came to the source at last: a source that tells no changes is asked.
    hurries: bool,
    /// Both descriptions, where nothing was left to do for them.
    settled: Option<(Arc<Metadata>, Arc<Metadata>)>,
}

impl Seen {
    /// Where something is under way, more may come: whatever the cluster tells.
    fn news_for(&self, news: News) -> News {
        match self.settled {
            Some(_) if !self.hurries => news,
            Some(_) | None => News::Learning,
        }
    }

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

/// How many topics are left for the next look.
async fn look(
    flow: &Arc<Flow>,
    source: Source,
    topics: &mut Topics<'_>,
    first_look: bool,
    seen: &mut Seen,
) -> Result<usize, (&'static str, WireError)> {
    refuse_misled(flow)?;
    let Source {
        described: source,
        is_new,
    } = source;
    let Topics {
        known,
        preparing,
        found,
    } = topics;
    while let Some(done) = preparing.done() {
        seen.first.remove(&done.0);
        settle(flow, known, done, found).await;
    }
    let mut target = flow.target.cached();
    let is_settled = seen.is_settled(&source, &target) && flow.stale().is_empty();
    let mut changed = match is_settled {
        true => Vec::new(),
        false => {
            let why = nothing_selected(flow, &source);
            flow.progress.set_nothing_selected(why);
            preparing.others(changed(flow, known, &source, &target))
        }
    };
    // Nobody but us makes topics there, so while the source stands still the target is looked at
    // less often: on idle clusters these two answers are most of the work.
    if !changed.is_empty() || target_is_due(flow, seen) {
        let begins = flow.target.look_begins();
        let answer = flow.target.metadata(None).await;
        target = answer.map_err(|error| (target_reason(&error), error))?;
        seen.target_at = Some(begins);
        standby::note(flow, &target);
        if !seen.is_settled(&source, &target) || !changed.is_empty() {
            changed = preparing.others(self::changed(flow, known, &source, &target));
        }
    }
    // What is remembered of the source tells nothing new of what is gone, and may be too old to delete for it.
    if is_new {
        report_missing(flow, known, first_look, &source, found)
            .await
            .map_err(|error| (source_reason(&error), error))?;
        if let Err(error) = note_build(&flow.store, &flow.config.name, &source).await {
            tracing::debug!(flow = %flow.config.name, %error, "which build of the source it is can't be remembered");
        }
        if let Err(error) = deleted::look(flow, &source).await {
            tracing::warn!(flow = %flow.config.name, %error, "topics that are gone can't be looked after");
        }
    }
    // Somebody else may have learnt of a part only.
    if changed.is_empty() && !is_new && !is_settled {
        seen.settled = None;
        return Ok(0);
    }
    if changed.is_empty() {
        let is_over = waits_for_nothing(known) && preparing.topics.is_empty();
        seen.settled = is_over.then_some((source, target));
        return Ok(0);
    }
    seen.settled = None;
    if first_look {
        seen.first.extend(changed.iter().cloned());
    }
    let creates: HashSet<String> = needing_creation(flow, &changed, &target);
    changed.sort_by_key(|name| turn_of(known.get(name), creates.contains(name)));
    // No more than may be begun, by the round before: their configs are asked for.
    let most = (2 * seen.begun).clamp(AT_ONCE, IN_A_ROUND);
    let mut left = changed.split_off(changed.len().min(most)).len();
    let until = Instant::now() + ROUND;
    seen.begun = 0;
    // Before their configs are read: a change behind that makes them stale again.
    flow.stale().retain(|name| !changed.contains(name));
    let configs = Arc::new(configs(flow, &changed, &target).await);
    for name in changed {
        let needs_creation = creates.contains(&name);
        while !preparing.has_room(needs_creation)
            && let Ok(Some(done)) = tokio::time::timeout_at(until, preparing.next()).await
        {
            seen.first.remove(&done.0);
            settle(flow, known, done, found).await;
        }
        if !preparing.has_room(needs_creation) || Instant::now() >= until {
            left += 1;
            if matches!(known.get(&name), Some(Known::Ready { .. })) {
                flow.note_stale(&[name]);
            }
            continue;
        }
        seen.begun += 1;
        let at_first_look = seen.first.contains(&name);
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
                at_first_look,
            };
            topics::ensure(&flow, one, &configs).await
        });
        if needs_creation {
            preparing.creating.insert(task.id());
        }
        preparing.topics.insert(task.id(), named);
    }
    while let Ok(Some(done)) = tokio::time::timeout_at(until, preparing.next()).await {
        seen.first.remove(&done.0);
        settle(flow, known, done, found).await;
    }
    Ok(left)
}

/// Those of the topics that have no copy yet.
fn needing_creation(flow: &Flow, names: &[String], target: &Metadata) -> HashSet<String> {
    let is_missing = |name: &&String| {
        let copy = flow.config.rename.apply(&flow.config.source, name);
        !target.has_topic(&copy)
    };
    names.iter().filter(is_missing).cloned().collect()
}

/// Who is prepared first: what an earlier run copied, then what this one does, then what only has to be taken up. What has to be
/// made comes behind, and what was tried in vain last.
fn turn_of(known: Option<&Known>, needs_creation: bool) -> u8 {
    match known {
        Some(Known::Resting { .. }) => 4,
        _ if needs_creation => 3,
        Some(Known::Remembered { .. }) => 0,
        Some(Known::Ready { .. }) => 1,
        None => 2,
    }
}

fn target_is_due(flow: &Flow, seen: &Seen) -> bool {
    let (bytes, news) = (flow.target.metadata_bytes(), flow.target.news());
    let is_recent = |it: Looked| it.at.elapsed() < TARGET_EVERY;
    !seen.target_at.is_some_and(is_recent)
        && TARGET_PACE.is_due(seen.target_at, seen.news_for(news), bytes)
}

/// A topic with so many partitions on the source, and what came of preparing it.
type Prepared = (String, usize, Result<TopicContext, Trouble>);

type Ended = Result<(tokio::task::Id, Result<TopicContext, Trouble>), tokio::task::JoinError>;

/// Topics that are being prepared: a panic over one is that one's.
#[derive(Default)]
struct Preparing {
    tasks: JoinSet<Result<TopicContext, Trouble>>,
    topics: HashMap<tokio::task::Id, (String, usize)>,
    /// Those whose copies have to be made.
    creating: HashSet<tokio::task::Id>,
}

impl Preparing {
    /// Whether one more may be begun.
    fn has_room(&self, needs_creation: bool) -> bool {
        self.tasks.len() < AT_ONCE && (!needs_creation || self.creating.len() < CREATED_AT_ONCE)
    }

    async fn next(&mut self) -> Option<Prepared> {
        let ended = self.tasks.join_next_with_id().await?;
        self.of(ended)
    }

    /// One that is prepared by now.
    fn done(&mut self) -> Option<Prepared> {
        let ended = self.tasks.try_join_next_with_id()?;
        self.of(ended)
    }

    fn of(&mut self, ended: Ended) -> Option<Prepared> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(Trouble::Defect(error.to_string()))),
        };
        self.creating.remove(&id);
        let (name, partitions) = self.topics.remove(&id)?;
        Some((name, partitions, result))
    }

    /// Those of them that aren't being prepared.
    fn others(&self, mut names: Vec<String>) -> Vec<String> {
        let busy: HashSet<&String> = self.topics.values().map(|(name, _)| name).collect();
        names.retain(|name| !busy.contains(name));
        names
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
            None | Some(Known::Remembered { .. }) => true,
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

/// The topics that an earlier run copied: one of them that is hidden from us now isn't forgotten. Also those of which it only
/// saw the ends: of one that is gone by now they would count as a loss for ever.
fn remembered(flow: &Flow) -> HashMap<String, Known> {
    let prefix = flow.topic_key("");
    let mut known = HashMap::new();
    for key in flow.store.keys(&prefix) {
        let record: Option<TopicRecord> = flow.store.get(&key).ok().flatten();
        let name = key.strip_prefix(&prefix).unwrap_or_default();
        if let (Some(record), true) = (record, flow.config.topics.matches(name)) {
            let partitions = record.origins.len();
            known.insert(name.to_owned(), Known::Remembered { partitions });
        }
    }
    let prefix = keys::all_ends(&flow.config.name);
    for key in flow.store.keys(&prefix) {
        let record: Option<EndsRecord> = flow.store.get(&key).ok().flatten();
        let name = key.strip_prefix(&prefix).unwrap_or_default();
        if let (Some(record), true) = (record, flow.config.topics.matches(name)) {
            let partitions = record.ends.len();
            let seen = Known::Remembered { partitions };
            known.entry(name.to_owned()).or_insert(seen);
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
    // One that came back empty has deleted nothing.
    let built_anew = match SourceIs::ask(&flow.store, &flow.config.name, &flow.source).await {
        Ok(Ok(SourceIs::BuiltAnew { why })) => Some(why),
        _ => None,
    };
    for name in missing {
        let is_gone = topics::is_gone(&by_name, &cluster, &name).and_then(|is_gone| {
            let why = built_anew.clone().filter(|_| is_gone);
            why.map_or(Ok(is_gone), |why| Err(Trouble::SourceBuiltAnew(why)))
        });
        match is_gone {
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
                    || before.rules_rest_on != context.rules_rest_on
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_descriptions_are_asked_for_less_often() {
        let every = |news, bytes| SOURCE_PACE.every(news, news, bytes);
        let hasty = |bytes| every(News::Learning, bytes);
        assert!(hasty(88_000) < Duration::from_secs(1), "500 topics of 4");
        assert_eq!(hasty(800_000), Duration::from_secs(8));
        assert_eq!(hasty(8_000_000), Duration::from_secs(10));
        assert_eq!(every(News::Told(1), 800_000), Duration::from_secs(200));
        assert_eq!(every(News::Untold, 800_000), Duration::from_secs(80));
        assert!(every(News::Told(1), 3_000) < Duration::from_secs(1));
    }

    #[test]
    fn a_cut_over_waits_seconds_for_a_source_that_tells_nothing() {
        let empty = Arc::new(Metadata::empty());
        let mut seen = Seen {
            settled: Some((empty.clone(), empty)),
            ..Seen::default()
        };
        assert_eq!(seen.news_for(News::Untold), News::Untold);
        seen.hurries = true;
        assert_eq!(seen.news_for(News::Untold), News::Learning);
    }

    #[test]
    fn what_an_earlier_run_copied_waits_for_none_that_is_to_be_made() {
        let remembered = Known::Remembered { partitions: 4 };
        let resting = Known::Resting {
            until: Instant::now(),
            partitions: 4,
        };
        let turns = [
            turn_of(Some(&remembered), false),
            turn_of(None, false),
            turn_of(None, true),
            turn_of(Some(&resting), false),
        ];
        assert!(turns.is_sorted_by(|one, other| one < other), "{turns:?}");
        assert_eq!(turn_of(Some(&remembered), true), turn_of(None, true));
    }

    #[tokio::test]
    async fn copies_that_are_made_leave_room_for_others() {
        let mut preparing = Preparing::default();
        for _ in 0..CREATED_AT_ONCE {
            assert!(preparing.has_room(true));
            let task = preparing.tasks.spawn(std::future::pending());
            preparing.creating.insert(task.id());
        }
        assert!(!preparing.has_room(true));
        for _ in CREATED_AT_ONCE..AT_ONCE {
            assert!(preparing.has_room(false));
            preparing.tasks.spawn(std::future::pending());
        }
        assert!(!preparing.has_room(false));
    }
}
