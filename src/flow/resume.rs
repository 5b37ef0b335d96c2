//! Where a partition goes on: read from the target's log, never from local state.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cut_back;
use super::damage;
use super::epochs::Known;
use super::error::Trouble;
use super::fill::DearHole;
use super::fillers;
use super::foreign;
use super::leaders;
use super::lost::{self, Counted};
use super::missed::{self, Begun};
use super::position::{self, Position, Producers, Witness, witness};
use super::prefix;
use super::relearn;
use super::shared::Flow;
use super::tail;
use super::tombstones::Tombstones;
use super::topics::{TopicContext, take_offset};
use super::turn;
use crate::config::OnGap;
use crate::offsets::OffsetMap;
use crate::state::{GapRecord, SeenRecord, TopicRecord, keys, maps};
use crate::telemetry::progress::{PartitionKey, now_ms};
use crate::wire::{
    self, Cluster, OffsetSpec, ProducerState, ResponseError, TopicPartition, WireError,
};

/// While the answers are waited for: how often what is known of the leaders is looked at, when they are asked for, and
/// how long that may take.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_AFTER: Duration = Duration::from_secs(1);
const LOOK_FOR: Duration = Duration::from_secs(5);

/// A partition that wants to be opened.
#[derive(Clone)]
pub struct Candidate {
    /// Its topic.
    pub topic: Arc<TopicContext>,
    /// Its number.
    pub partition: i32,
}

impl Candidate {
    pub(super) fn key(&self) -> PartitionKey {
        (self.topic.source_topic.clone(), self.partition)
    }
}

/// Where and how a partition goes on.
pub struct Resume {
    /// Where the intake goes on.
    pub position: Position,
    /// Where the first fetch begins: later than the position when retention made a gap.
    pub fetch_offset: i64,
    /// The newest record time of the data producer's last batch, ms since 1970, if the target's leader
    /// knows the producer.
    pub appended_timestamp_ms: Option<i64>,
    /// The offset map of a mapped partition.
    pub map: Option<OffsetMap>,
    /// For keys that the source has no more.
    pub tombstones: Tombstones,
    /// The source leader's epoch that wrote what is right before `fetch_offset`, or -1: the broker
    /// tells when its log isn't the same there.
    pub last_epoch: i32,
    /// When the log's end was asked for.
    pub read_at: Instant,
    /// The running number of the newest filler that the target's leader knows.
    pub newest_filler: Option<i32>,
    /// The newest producer epoch of a filler that it knows.
    pub filler_epoch: i16,
    /// See [`fillers::to_close`].
    pub to_close: Option<i64>,
}

/// What has to be done for a partition that was asked about.
pub enum Opened {
    /// It can be copied.
    Ready(Box<Resume>),
    /// First the target's offsets up to `origin` are burned, from this position on.
    Burn {
        /// Where the target's log ends.
        position: Position,
        /// Where the copy begins.
        origin: i64,
    },
    /// First the keys of both logs are compared.
    Compare {
        /// Where the copy stands.
        position: Position,
    },
}

/// The offsets and producer states of many partitions, asked for in a few requests.
struct Facts {
    read_at: Instant,
    source_start: HashMap<TopicPartition, Result<i64, WireError>>,
    source_end: HashMap<TopicPartition, Result<i64, WireError>>,
    target_start: HashMap<TopicPartition, Result<i64, WireError>>,
    target_end: HashMap<TopicPartition, Result<i64, WireError>>,
    producers: HashMap<TopicPartition, Result<Vec<ProducerState>, WireError>>,
    epoch_ends: HashMap<TopicPartition, Result<(i32, i64), WireError>>,
    /// By source partition: what was asked about.
    known: HashMap<TopicPartition, Known>,
    /// By source partition: the epochs of the leaders that were asked. The oldest may have answered.
    leader_epochs: HashMap<TopicPartition, i32>,
}

/// The epochs of the source's leaders, as known now.
fn leader_epochs(flow: &Flow, source: &[TopicPartition]) -> HashMap<TopicPartition, i32> {
    let known = flow.source.cached();
    let epoch = |name: &TopicPartition| {
        let (_, epoch) = known.leader(&name.topic, name.partition)?;
        (epoch >= 0).then(|| (name.clone(), epoch))
    };
    source.iter().filter_map(epoch).collect()
}

/// The newest of what this process has seen and of what is stored. `copied` is where the copy ends.
fn known(flow: &Flow, one: &Candidate, copied: Option<i64>) -> Option<Known> {
    let key = (one.topic.source_topic.clone(), one.partition);
    let record = &one.topic.record;
    let fetched = flow.epochs.get(&key).map(|epochs| epochs.clone());
    let fetched = fetched
        .filter(|epochs| epochs.is_of(record.source_topic_id, record.target_topic_id))
        .and_then(|epochs| epochs.before(copied?));
    let stored = stored(flow, one).filter(|known| known.epoch >= 0);
    match (fetched, stored) {
        (Some(fetched), Some(stored)) if stored.position > fetched.position => Some(stored),
        (fetched, stored) => fetched.or(stored),
    }
}

/// Up to where a partition is copied.
fn copied(flow: &Flow, one: &Candidate, target_end: Option<i64>) -> Option<i64> {
    if !flow.is_mapped(&one.topic, one.partition) {
        return target_end;
    }
    let progress = &flow.progress;
    let key = (one.topic.source_topic.clone(), one.partition);
    let progress = progress.partitions.get(&key)?;
    Some(progress.source_position.load(Ordering::Relaxed))
}

/// The stored epoch and position of a partition.
pub(super) fn stored(flow: &Flow, one: &Candidate) -> Option<Known> {
    let record: SeenRecord = flow
        .store
        .get(&flow.seen_key(&one.topic.source_topic))
        .ok()
        .flatten()?;
    let index = usize::try_from(one.partition).ok()?;
    Some(Known {
        epoch: *record.epochs.get(index)?,
        position: *record.positions.get(index)?,
        is_fresh: false,
    })
}

/// One partition's facts.
struct Ends {
    /// What is known of the source's log.
    known: Option<Known>,
    /// The largest epoch that the source's log has and that isn't above the known one, and its end.
    epoch_end: Option<(i32, i64)>,
    /// The epoch of the leader that was asked.
    leader_epoch: Option<i32>,
    read_at: Instant,
    source_start: i64,
    source_end: i64,
    target_start: i64,
    target_end: i64,
}

impl Ends {
    /// How far the two logs reach.
    fn logs(&self) -> relearn::Logs {
        relearn::Logs {
            source_start: self.source_start,
            target: self.target_start..self.target_end,
        }
    }

    /// Where the source's log and what was copied of it part, if they do before `next`.
    ///
    /// The broker answers with the largest epoch that is not above the one asked for
    /// (`LeaderEpochFileCache.endOffsetFor`). Is that a lower one, the leader has nothing of what the
    /// known epoch wrote, however far the lower one goes on there: several elections in a row can make
    /// a log that is longer in an older epoch.
    fn diverges_at(&self, next: i64) -> Option<i64> {
        let (known, (epoch, end)) = (self.known?, self.epoch_end?);
        let is_missing = known.is_fresh && epoch < known.epoch && known.position <= next;
        (is_missing || end < known.position.min(next)).then_some(end)
    }

    /// A record's epoch is never above its leader's: one that leads in an older epoch than the last record copied
    /// doesn't lead any more, or its cluster was set back.
    fn stale_leader(&self) -> Option<Trouble> {
        let (known, epoch) = (self.known?.epoch, self.leader_epoch?);
        (epoch < known).then_some(Trouble::StaleLeader { epoch, known })
    }

    /// How the source lacks what was copied up to `next`, if it does.
    fn truncated(&self, next: i64) -> Option<Trouble> {
        // A log whose epoch ends before what was copied in it was cut and has grown again (unclean
        // leader election, KIP-101), whatever its end is now.
        let short = (next > self.source_end).then_some(self.source_end);
        let source_end = self.diverges_at(next).or(short)?;
        Some(Trouble::SourceTruncated {
            source_end,
            copied_end: next,
        })
    }

    /// See [`Resume::last_epoch`].
    fn last_epoch(&self, fetch_offset: i64) -> i32 {
        self.known
            .filter(|known| known.is_fresh && known.position == fetch_offset)
            .map_or(-1, |known| known.epoch)
    }
}

/// What is stored counts, whatever a topic's context was made of.
fn note_turned(flow: &Flow, candidates: &[Candidate]) {
    let topics: HashSet<&Arc<str>> = candidates.iter().map(|it| &it.topic.source_topic).collect();
    for topic in topics {
        if let Ok(Some(record)) = flow.store.get::<TopicRecord>(&flow.topic_key(topic)) {
            flow.note_turned(topic, &record);
        }
    }
}

/// Finds the positions of many partitions at once. `asked` is called when the brokers have answered,
/// `decided` for each partition as soon as it is known what becomes of it.
pub async fn resume(
    flow: &Arc<Flow>,
    candidates: Vec<Candidate>,
    asked: impl FnOnce(),
    decided: impl Fn(Candidate, Result<Opened, Trouble>),
) {
    let (facts, candidates) = ask_unless_moved(flow, candidates, &decided).await;
    asked();
    let Some(mut facts) = facts else {
        return;
    };
    let mut tasks = JoinSet::new();
    let mut running: HashMap<tokio::task::Id, Candidate> = HashMap::new();
    for candidate in candidates {
        match facts.of(flow, &candidate) {
            Ok((ends, states)) => {
                let flow = flow.clone();
                let one = candidate.clone();
                let task = tasks.spawn(async move { open(&flow, &one, ends, &states).await });
                running.insert(task.id(), candidate);
            }
            Err(trouble) => decided(candidate, Err(trouble)),
        }
    }
    while let Some(done) = tasks.join_next_with_id().await {
        let (id, result) = match done {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(Trouble::Defect(error.to_string()))),
        };
        if let Some(candidate) = running.remove(&id) {
            decided(candidate, result);
        }
    }
}

/// Asks, and doesn't wait for a broker that a partition has left meanwhile: that one is `decided` at once, and opened
/// again at its new leader. The facts, if somebody still waits for them, and who that is.
async fn ask_unless_moved(
    flow: &Flow,
    candidates: Vec<Candidate>,
    decided: &impl Fn(Candidate, Result<Opened, Trouble>),
) -> (Option<Facts>, Vec<Candidate>) {
    let asked_of = Leaders::of(flow, &candidates);
    let asking = ask(flow, &candidates);
    let looking = look_while_it_takes(flow, &candidates);
    tokio::pin!(asking, looking);
    let mut left = HashSet::new();
    let facts = loop {
        tokio::select! {
            facts = &mut asking => break Some(facts),
            () = &mut looking => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for (nth, cluster) in asked_of.moved(flow, &candidates) {
            if left.insert(nth) {
                decided(
                    candidates[nth].clone(),
                    Err(Trouble::LeaderMoved { cluster }),
                );
            }
        }
        if left.len() == candidates.len() {
            break None;
        }
    };
    let rest = candidates.iter().enumerate();
    let rest = rest.filter(|(nth, _)| !left.contains(nth));
    let rest = rest.map(|(_, one)| one.clone()).collect();
    (facts, rest)
}

/// Who led the partitions when they were asked about, on both sides.
struct Leaders(Vec<[Option<(i32, i32)>; 2]>);

impl Leaders {
    fn of(flow: &Flow, candidates: &[Candidate]) -> Self {
        let (source, target) = (flow.source.cached(), flow.target.cached());
        let leaders = |one: &Candidate| {
            let (from, to) = (
                one.topic.source(one.partition),
                one.topic.target(one.partition),
            );
            [
                source.leader(&from.topic, from.partition),
                target.leader(&to.topic, to.partition),
            ]
        };
        Self(candidates.iter().map(leaders).collect())
    }

    /// Those that are led elsewhere by now, in a newer epoch, and on which cluster.
    fn moved(&self, flow: &Flow, candidates: &[Candidate]) -> Vec<(usize, String)> {
        let (source, target) = (flow.source.cached(), flow.target.cached());
        let mut moved = Vec::new();
        for (nth, (one, [from, to])) in candidates.iter().zip(&self.0).enumerate() {
            let is_moved = |known, at, led: &Option<(i32, i32)>| {
                led.is_some_and(|led| leaders::is_led_elsewhere(known, &at, led))
            };
            if is_moved(&source, one.topic.source(one.partition), from) {
                moved.push((nth, format!("source ({})", flow.source.name())));
            } else if is_moved(&target, one.topic.target(one.partition), to) {
                moved.push((nth, format!("target ({})", flow.target.name())));
            }
        }
        moved
    }
}

/// A description of all topics that has more bytes isn't asked for again for a few of them.
const WHOLE_BYTES_MAX: usize = 200_000;
/// So many are a few.
const FEW: usize = 100;

/// Asks both clusters who leads these now. One that can't be opened is tried again every few seconds, for days.
pub(super) async fn look(flow: &Flow, candidates: &[Candidate]) {
    let (source, target) = names(candidates);
    let of_few = |cluster: &Cluster, names: Vec<String>| {
        let is_large = cluster.metadata_bytes() > WHOLE_BYTES_MAX;
        (is_large && names.len() <= FEW).then_some(names)
    };
    let (source, target) = (of_few(&flow.source, source), of_few(&flow.target, target));
    // A failure shows in the calls that follow.
    let _ = tokio::join!(
        flow.source.metadata(source.as_deref()),
        flow.target.metadata(target.as_deref()),
    );
}

/// The names of their topics on the source and on the target.
fn names(candidates: &[Candidate]) -> (Vec<String>, Vec<String>) {
    let names = |name: fn(&Candidate) -> &str| -> Vec<String> {
        let names: HashSet<&str> = candidates.iter().map(name).collect();
        names.into_iter().map(str::to_owned).collect()
    };
    (
        names(|one| &*one.topic.source_topic),
        names(|one| one.topic.record.target_topic.as_str()),
    )
}

/// Asks again who leads these while the answers take long; it never ends.
async fn look_while_it_takes(flow: &Flow, candidates: &[Candidate]) {
    let (source, target) = names(candidates);
    loop {
        tokio::time::sleep(LOOK_AFTER).await;
        let looks = async {
            tokio::join!(
                flow.source.metadata(Some(&source)),
                flow.target.metadata(Some(&target))
            )
        };
        // Whatever they say is known then.
        let within = flow.source.or_longer(flow.target.or_longer(LOOK_FOR));
        let _ = tokio::time::timeout(within, looks).await;
    }
}

/// Asks both clusters, each leader once for all of its partitions.
async fn ask(flow: &Flow, candidates: &[Candidate]) -> Facts {
    let source: Vec<TopicPartition> = candidates
        .iter()
        .map(|one| one.topic.source(one.partition))
        .collect();
    let target: Vec<TopicPartition> = candidates
        .iter()
        .map(|one| one.topic.target(one.partition))
        .collect();
    note_turned(flow, candidates);
    let read_at = Instant::now();
    let asked_epochs = leader_epochs(flow, &source);
    let (source_start, source_end, target_start, target_end) = tokio::join!(
        wire::list_offsets(&flow.source, &source, OffsetSpec::Earliest),
        wire::list_offsets(&flow.source, &source, OffsetSpec::Latest),
        wire::list_offsets(&flow.target, &target, OffsetSpec::Earliest),
        wire::list_offsets(&flow.target, &target, OffsetSpec::Latest),
    );
    let mut known_of = HashMap::new();
    for (one, (from, to)) in candidates.iter().zip(source.iter().zip(&target)) {
        let target_end = target_end
            .get(to)
            .and_then(|end| end.as_ref().ok())
            .copied();
        if let Some(known) = known(flow, one, copied(flow, one, target_end)) {
            known_of.insert(from.clone(), known);
        }
    }
    let asked: Vec<(TopicPartition, i32)> = known_of
        .iter()
        .map(|(name, known)| (name.clone(), known.epoch))
        .collect();
    // After the ends, never before: what a second Twinlog appends in between then looks like
    // replicas that lag (tried again), not like a stranger's record (stopped).
    let (producers, epoch_ends) = tokio::join!(
        producers(flow, candidates),
        wire::offset_for_leader_epoch(&flow.source, &asked),
    );
    let mut leader_epochs = leader_epochs(flow, &source);
    for (name, epoch) in asked_epochs {
        leader_epochs
            .entry(name)
            .and_modify(|newest| *newest = epoch.min(*newest));
    }
    Facts {
        leader_epochs,
        epoch_ends,
        known: known_of,
        read_at,
        source_start,
        source_end,
        target_start,
        target_end,
        producers,
    }
}

/// What the target's leaders know of our producers. A log that is continued has those of the old
/// primary's clients as well, millions of them where producers are short-lived.
async fn producers(
    flow: &Flow,
    candidates: &[Candidate],
) -> HashMap<TopicPartition, Result<Vec<ProducerState>, WireError>> {
    let ours: HashMap<TopicPartition, Producers> = candidates
        .iter()
        .map(|one| (one.topic.target(one.partition), one.topic.rules.producers))
        .collect();
    let names: Vec<TopicPartition> = ours.keys().cloned().collect();
    let is_ours = move |at: &TopicPartition, it: &ProducerState| {
        ours.get(at)
            .is_some_and(|ours| ours.is_ours(it.producer_id))
    };
    wire::describe_producers(&flow.target, &names, is_ours).await
}

impl Facts {
    fn of(&mut self, flow: &Flow, one: &Candidate) -> Result<(Ends, Vec<ProducerState>), Trouble> {
        let (source, target) = (
            one.topic.source(one.partition),
            one.topic.target(one.partition),
        );
        let epoch_end = match self.epoch_ends.remove(&source) {
            Some(Ok((epoch, end))) => (epoch >= 0).then_some((epoch, end)),
            Some(Err(error)) if never_tells(&error) => {
                flow.note_untold_epochs(&source, &error);
                None
            }
            // A log that was cut and has grown again can't be told from one that wasn't.
            Some(Err(error)) => return Err(error.into()),
            // Nothing is known to be asked about.
            None => None,
        };
        let ends = Ends {
            epoch_end,
            known: self.known.remove(&source),
            leader_epoch: self.leader_epochs.remove(&source),
            read_at: self.read_at,
            source_start: take_offset(&mut self.source_start, &source, flow.source.name())?,
            source_end: take_offset(&mut self.source_end, &source, flow.source.name())?,
            target_start: take_offset(&mut self.target_start, &target, flow.target.name())?,
            target_end: take_offset(&mut self.target_end, &target, flow.target.name())?,
        };
        let states = match self.producers.remove(&target) {
            Some(states) => states?,
            None => {
                return Err(Trouble::LeaderMoved {
                    cluster: flow.target.name().to_owned(),
                });
            }
        };
        Ok((ends, states))
    }
}

/// Whether a broker will answer this way however often it is asked where an epoch ends; the other checks stand.
fn never_tells(error: &WireError) -> bool {
    use ResponseError as E;
    let is_refused = error.server_code().is_some_and(|code| {
        matches!(
            code,
            E::UnsupportedVersion | E::TopicAuthorizationFailed | E::ClusterAuthorizationFailed
        )
    });
    is_refused || matches!(error, WireError::UnsupportedVersion { .. })
}

/// Decides where a partition goes on, and writes down what must not be forgotten.
async fn open(
    flow: &Flow,
    one: &Candidate,
    ends: Ends,
    states: &[ProducerState],
) -> Result<Opened, Trouble> {
    damage::check(flow, &one.topic, one.partition)?;
    let result = decide(flow, one, ends, states).await;
    match result {
        Ok(Opened::Ready(mut resume)) => {
            let position = resume.position;
            match missed::begin(flow, one, &position).await? {
                Begun::Compare => Ok(Opened::Compare { position }),
                Begun::With(tombstones) => {
                    resume.tombstones = tombstones;
                    Ok(Opened::Ready(resume))
                }
            }
        }
        Err(trouble) => {
            damage::note(flow, &one.topic, one.partition, &trouble).await;
            Err(trouble)
        }
        other => other,
    }
}

async fn decide(
    flow: &Flow,
    one: &Candidate,
    ends: Ends,
    states: &[ProducerState],
) -> Result<Opened, Trouble> {
    let producers = one.topic.rules.producers;
    let key = one.key();
    let target = one.topic.target(one.partition);
    let known = flow.target.cached();
    let leader = known.leader(&target.topic, target.partition);
    let leader = leader.map(|(broker, _)| broker);
    flow.left_behind.check(&key, leader, ends.target_end)?;
    // Before anything is counted: what the target lost isn't somebody else's work.
    cut_back::to_log(flow, one, ends.logs(), states).await?;
    // A mapped partition gets no filler: another number of them is a stranger's work.
    let settled = flow.settled(&one.topic, one.partition);
    let base = one.topic.base(one.partition) + settled.map_or(0, |it| it.strangers);
    let settled = settled.map(|it| it.fillers);
    let appended_timestamp_ms = position::appended_timestamp_ms(states, producers);
    let fillers = match count(flow, one, &ends, states, (base, settled)).await {
        // What was met while the partition was open may be hidden from the counts by now.
        Ok(_) if one.topic.rules.keeps_foreign && flow.strangers.contains(&key) => {
            let trouble = Trouble::ForeignWrite {
                expected: ends.target_end,
                found: ends.target_end,
            };
            return keep_foreign(flow, one, &ends, states, trouble).await;
        }
        Err(trouble @ Trouble::ForeignWrite { .. }) if one.topic.rules.keeps_foreign => {
            return keep_foreign(flow, one, &ends, states, trouble).await;
        }
        counted => counted?,
    };
    if let Some(settled) = settled {
        let counted = (base, settled, appended_timestamp_ms);
        let resume = resume_mapped(flow, one, &ends, counted).await?;
        return Ok(Opened::Ready(Box::new(resume)));
    }
    let origin = one.topic.record.origin(one.partition).unwrap_or(0);
    let position = Position {
        source: ends.target_end,
        target: ends.target_end,
        fillers,
        base,
        ..Position::default()
    };
    // The log may end there and begin lower: a burn that was cut off before the trim.
    if prefix::is_left(one, position.target.min(ends.target_start), origin) {
        return Ok(Opened::Burn { position, origin });
    }
    // Where the prefix is left to fillers, the position is still below the origin: not a gap.
    let next = position.source.max(origin);
    let dear = dear_hole(flow, one, position).or_else(|| dear_gap(flow, one, next, &ends));
    if let Some(hole) = dear {
        if !one.topic.rules.fill.may_map {
            return Err(Trouble::TooManyHoles(hole));
        }
        // Until it is stored this stays the next thing to do: the record may have arrived although
        // its answer didn't.
        turn::turn(flow, one, position, hole.to_string()).await?;
        flow.turning.remove(&one.key());
        let counted = (base, position.fillers, appended_timestamp_ms);
        let resume = resume_mapped(flow, one, &ends, counted).await?;
        return Ok(Opened::Ready(Box::new(resume)));
    }
    let fetch_offset = check_source(flow, one, next, &ends).await?;
    // Without fillers nothing can have taken the place of one.
    if position.fillers > 0
        && let Some(from) = parts_at(flow, one, base.max(origin), &ends).await?
    {
        if !one.topic.rules.fill.may_map {
            return Err(Trouble::Misplaced { from });
        }
        turn::turn_back(flow, one, (from, position.fillers), ends.logs()).await?;
        let counted = (base, position.fillers, appended_timestamp_ms);
        let resume = resume_mapped(flow, one, &ends, counted).await?;
        return Ok(Opened::Ready(Box::new(resume)));
    }
    Ok(Opened::Ready(Box::new(Resume {
        position,
        fetch_offset,
        appended_timestamp_ms,
        map: None,
        tombstones: Tombstones::default(),
        last_epoch: ends.last_epoch(fetch_offset),
        read_at: ends.read_at,
        newest_filler: position::newest_filler(states, producers),
        filler_epoch: position::filler_epoch(states, producers),
        to_close: fillers::to_close(states, producers),
    })))
}

/// See [`relearn::parts_at`].
async fn parts_at(
    flow: &Flow,
    one: &Candidate,
    first: i64,
    ends: &Ends,
) -> Result<Option<i64>, Trouble> {
    let start = first.max(ends.source_start).max(ends.target_start);
    relearn::parts_at(flow, one, start..ends.target_end).await
}

/// How many fillers the target has, by the counts of our producers.
async fn count(
    flow: &Flow,
    one: &Candidate,
    ends: &Ends,
    states: &[ProducerState],
    (base, settled): (i64, Option<i64>),
) -> Result<i64, Trouble> {
    let producers = one.topic.rules.producers;
    let fillers = match witness(states, producers, ends.target_end - base) {
        Witness::Agrees { fillers } => fillers,
        // Those that were refused before a turn are never written again.
        Witness::Behind { written }
            if settled.is_some_and(|it| {
                let newest = position::newest_filler(states, producers);
                newest.is_some_and(|newest| {
                    i64::from(newest) - it == base + written - ends.target_end
                })
            }) =>
        {
            settled.unwrap_or(0)
        }
        Witness::Behind { written } => {
            let target = one.topic.target(one.partition);
            let counted = Counted {
                producers,
                states,
                base,
                log: ends.target_start..ends.target_end,
                written: base + written,
            };
            let fillers = lost::fillers(flow, &target, counted).await?;
            // Behind a turn none is sent that could be lost.
            if settled.is_some_and(|it| !position::is_same_count(it, fillers)) {
                return Err(Trouble::TargetBehind {
                    high_watermark: ends.target_end,
                    written: base + written,
                });
            }
            fillers
        }
        Witness::Longer { written } => {
            return Err(Trouble::ForeignWrite {
                expected: base + written,
                found: ends.target_end,
            });
        }
        Witness::Unknown { fillers } => {
            let knows_data = position::appended_timestamp_ms(states, producers).is_some();
            if let Some(trouble) = hidden_strangers(flow, one, ends, (base, settled), states) {
                return Err(trouble);
            }
            let is_settled = settled.is_some_and(|it| position::is_same_count(it, fillers));
            if !(is_settled && knows_data) {
                let target = one.topic.target(one.partition);
                let start = ends.target_start.max(one.topic.base(one.partition));
                let known = foreign::known(flow, one)?;
                let log = start..ends.target_end;
                tail::check(flow, &target, producers, log, &known).await?;
            }
            // Of fillers that the broker has forgotten nothing is known but what was stored.
            let is_forgotten = !knows_data && position::newest_filler(states, producers).is_none();
            settled.filter(|_| is_forgotten).unwrap_or(fillers)
        }
    };
    if let Some(settled) = settled
        && !position::is_same_count(settled, fillers)
    {
        return Err(Trouble::ForeignWrite {
            expected: ends.target_end - (fillers - settled),
            found: ends.target_end,
        });
    }
    Ok(fillers)
}

/// Whether what isn't explained by the counts may be somebody else's although nobody sees it any more: the target's
/// log begins behind what this flow is known to have copied. Fillers that the broker has forgotten look the same.
fn hidden_strangers(
    flow: &Flow,
    one: &Candidate,
    ends: &Ends,
    (base, settled): (i64, Option<i64>),
    states: &[ProducerState],
) -> Option<Trouble> {
    let copied = foreign::copied(flow, one).filter(|_| settled.is_none())?;
    let producers = one.topic.rules.producers;
    let expected = match position::last_sequence(states, producers) {
        Some(last) => {
            let records = i64::from(last) + 1;
            ends.target_end - position::distance(ends.target_end - base, records)
        }
        None => copied,
    };
    let is_hidden = ends.target_start > copied && ends.target_end > expected.max(copied);
    is_hidden.then_some(Trouble::ForeignWrite {
        expected,
        found: ends.target_end,
    })
}

/// Finds what somebody else wrote, writes it down, and goes on mapped behind it.
async fn keep_foreign(
    flow: &Flow,
    one: &Candidate,
    ends: &Ends,
    states: &[ProducerState],
    trouble: Trouble,
) -> Result<Opened, Trouble> {
    let producers = one.topic.rules.producers;
    let log = ends.target_start..ends.target_end;
    let settled = flow.settled(&one.topic, one.partition);
    let found = foreign::find(flow, one, log, (states, settled), trouble.clone()).await?;
    let Some(&(from, _)) = found.foreign.first() else {
        return match flow.strangers.remove(&one.key()) {
            // The counts may have been of a moment: they are asked for again.
            Some(_) => Err(Trouble::LogEndDiffers {
                expected: ends.target_end,
                found: ends.target_end,
            }),
            None => Err(trouble),
        };
    };
    let origin = one.topic.record.origin(one.partition).unwrap_or(0);
    if settled.is_none() && prefix::is_left(one, from.min(ends.target_start), origin) {
        // What is burned has no place for others; behind it they stay, once it is out of sight.
        if from < origin {
            return Err(trouble);
        }
        let position = Position {
            target: ends.target_end,
            ..Position::default()
        };
        return Ok(Opened::Burn { position, origin });
    }
    turn::keep_foreign(flow, one, found, ends.target_end).await?;
    flow.strangers.remove(&one.key());
    let settled = flow.settled(&one.topic, one.partition).unwrap_or_default();
    let counted = (
        one.topic.base(one.partition) + settled.strangers,
        settled.fillers,
        position::appended_timestamp_ms(states, producers),
    );
    let resume = resume_mapped(flow, one, ends, counted).await?;
    Ok(Opened::Ready(Box::new(resume)))
}

/// The hole at this position that the partition was closed for.
fn dear_hole(flow: &Flow, one: &Candidate, position: Position) -> Option<DearHole> {
    let hole = *flow.turning.get(&one.key())?;
    // Elsewhere it will be met again.
    (hole.from == position.source).then_some(hole)
}

/// What retention took and isn't to be filled, where the flow goes on behind it.
fn dear_gap(flow: &Flow, one: &Candidate, next: i64, ends: &Ends) -> Option<DearHole> {
    let lost = ends.source_start - next;
    if flow.config.on_gap == OnGap::Stop || lost <= 0 {
        return None;
    }
    let left = ends.source_end - next;
    one.topic.rules.fill.judge(next, lost, 0, left)
}

async fn resume_mapped(
    flow: &Flow,
    one: &Candidate,
    ends: &Ends,
    (base, fillers, appended_timestamp_ms): (i64, i64, Option<i64>),
) -> Result<Resume, Trouble> {
    let keys = flow.map_keys(&one.topic.source_topic, one.partition);
    let Some(mut map) = maps::load(&*flow.store, &keys)? else {
        return Err(Trouble::MapMismatch {
            map_end: -1,
            log_end: ends.target_end,
        });
    };
    if map.target_end().0 > ends.target_end {
        return Err(Trouble::MapMismatch {
            map_end: map.target_end().0,
            log_end: ends.target_end,
        });
    }
    relearn::complete(flow, one, ends.logs(), &mut map).await?;
    let (source, target) = (map.source_end().0, map.target_end().0);
    let fetch_offset = check_source(flow, one, source, ends).await?;
    Ok(Resume {
        position: Position {
            source,
            target,
            fillers,
            base,
            mapped: true,
            ..Position::default()
        },
        fetch_offset,
        appended_timestamp_ms,
        map: Some(map),
        tombstones: Tombstones::default(),
        last_epoch: ends.last_epoch(fetch_offset),
        read_at: ends.read_at,
        newest_filler: None,
        filler_epoch: 0,
        to_close: None,
    })
}

/// What was once found to be lost on the source is never taken for found by a log that has grown since: only the
/// records tell. A broker that was cut off may have answered with a log of yesterday.
async fn check_truncation(
    flow: &Flow,
    one: &Candidate,
    next: i64,
    ends: &Ends,
) -> Result<(), Trouble> {
    let key = (one.topic.source_topic.clone(), one.partition);
    let target_id = one.topic.record.target_topic_id;
    let before = flow.truncated.get(&key).map(|it| it.value().clone());
    let before = before.filter(|(of, _)| *of == target_id);
    match (before, ends.truncated(next)) {
        (None, None) => Ok(()),
        // As it was first found: a source that grows is no news.
        (Some((_, trouble)), Some(_)) => Err(trouble),
        (None, Some(trouble)) => {
            flow.truncated.insert(key, (target_id, trouble.clone()));
            Err(trouble)
        }
        (Some((_, trouble)), None) => {
            if !relearn::has_last_records(flow, one, next, ends.logs()).await? {
                return Err(trouble);
            }
            flow.truncated.remove(&key);
            tracing::info!(
                topic = &*one.topic.source_topic,
                partition = one.partition,
                "the source has the records after all that it seemed to have lost"
            );
            Ok(())
        }
    }
}

/// The source must still have what comes next, and everything that was copied.
async fn check_source(
    flow: &Flow,
    one: &Candidate,
    next: i64,
    ends: &Ends,
) -> Result<i64, Trouble> {
    if let Some(trouble) = ends.stale_leader() {
        return Err(trouble);
    }
    check_truncation(flow, one, next, ends).await?;
    if next >= ends.source_start {
        return Ok(next);
    }
    let gap = Trouble::Gap {
        from: next,
        to: ends.source_start,
    };
    let lost = u64::try_from(ends.source_start - next).unwrap_or(0);
    if flow.config.on_gap == OnGap::Stop {
        return Err(gap);
    }
    let key = keys::gap(
        &flow.config.name,
        &one.topic.source_topic,
        one.partition,
        next,
    );
    let record = GapRecord {
        v: 1,
        from: next,
        to: ends.source_start,
        noticed_at_ms: now_ms(),
    };
    flow.store.put(&key, &record).await?;
    tracing::warn!(
        topic = &*one.topic.source_topic,
        partition = one.partition,
        from = next,
        to = ends.source_start,
        "source retention removed records before they were copied; the gap is recorded (on_gap: record)"
    );
    let progress = flow
        .progress
        .partition(&one.topic.source_topic, one.partition);
    progress.gap_offsets.fetch_add(lost, Ordering::Relaxed);
    Ok(ends.source_start)
}
