//! Where a partition goes on: read from the target's log, never from local state.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::damage;
use super::epochs::Known;
use super::error::Trouble;
use super::lost::{self, Counted};
use super::position::{self, Position, Witness, witness};
use super::prefix;
use super::relearn;
use super::shared::Flow;
use super::tail;
use super::topics::{TopicContext, take_offset};
use crate::config::OnGap;
use crate::offsets::OffsetMap;
use crate::state::{GapRecord, SeenRecord, keys, maps};
use crate::telemetry::progress::now_ms;
use crate::wire::{self, OffsetSpec, ProducerState, TopicPartition, WireError};

/// A partition that wants to be opened.
#[derive(Clone)]
pub struct Candidate {
    /// Its topic.
    pub topic: Arc<TopicContext>,
    /// Its number.
    pub partition: i32,
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
    /// The source leader's epoch that wrote what is right before `fetch_offset`, or -1: the broker
    /// tells when its log isn't the same there.
    pub last_epoch: i32,
    /// When the log's end was asked for.
    pub read_at: Instant,
    /// The running number of the newest filler that the target's leader knows.
    pub newest_filler: Option<i32>,
    /// The newest producer epoch of a filler that it knows.
    pub filler_epoch: i16,
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
    if !one.topic.record.mapped {
        return target_end;
    }
    let progress = &flow.progress;
    let key = (one.topic.source_topic.clone(), one.partition);
    let progress = progress.partitions.get(&key)?;
    Some(progress.source_position.load(Ordering::Relaxed))
}

/// The stored epoch and position of a partition.
fn stored(flow: &Flow, one: &Candidate) -> Option<Known> {
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
    read_at: Instant,
    source_start: i64,
    source_end: i64,
    target_start: i64,
    target_end: i64,
}

impl Ends {
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

    /// See [`Resume::last_epoch`].
    fn last_epoch(&self, fetch_offset: i64) -> i32 {
        self.known
            .filter(|known| known.is_fresh && known.position == fetch_offset)
            .map_or(-1, |known| known.epoch)
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
    let mut facts = ask(flow, &candidates).await;
    asked();
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
    let read_at = Instant::now();
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
        wire::describe_producers(&flow.target, &target),
        wire::offset_for_leader_epoch(&flow.source, &asked),
    );
    Facts {
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

impl Facts {
    fn of(&mut self, flow: &Flow, one: &Candidate) -> Result<(Ends, Vec<ProducerState>), Trouble> {
        let (source, target) = (
            one.topic.source(one.partition),
            one.topic.target(one.partition),
        );
        // An error here only means that the broker can't tell; the other checks stand.
        let epoch_end = match self.epoch_ends.remove(&source) {
            Some(Ok((epoch, end))) if epoch >= 0 => Some((epoch, end)),
            _ => None,
        };
        let ends = Ends {
            epoch_end,
            known: self.known.remove(&source),
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

/// Decides where a partition goes on, and writes down what must not be forgotten.
async fn open(
    flow: &Flow,
    one: &Candidate,
    ends: Ends,
    states: &[ProducerState],
) -> Result<Opened, Trouble> {
    damage::check(flow, &one.topic, one.partition)?;
    let result = decide(flow, one, ends, states).await;
    if let Err(trouble) = &result {
        damage::note(flow, &one.topic, one.partition, trouble).await;
    }
    result
}

async fn decide(
    flow: &Flow,
    one: &Candidate,
    ends: Ends,
    states: &[ProducerState],
) -> Result<Opened, Trouble> {
    let producers = one.topic.rules.producers;
    let base = one.topic.base(one.partition);
    let fillers = match witness(states, producers, ends.target_end - base) {
        Witness::Agrees { fillers } => fillers,
        Witness::Behind { written } => {
            let target = one.topic.target(one.partition);
            let counted = Counted {
                producers,
                states,
                base,
                end: ends.target_end,
                written: base + written,
            };
            lost::fillers(flow, &target, counted).await?
        }
        Witness::Longer { written } => {
            return Err(Trouble::ForeignWrite {
                expected: base + written,
                found: ends.target_end,
            });
        }
        Witness::Unknown { fillers } => {
            if one.topic.record.mapped && fillers > 0 {
                // A mapped partition has no fillers: every offset beyond our count is a stranger's.
                return Err(Trouble::ForeignWrite {
                    expected: ends.target_end - fillers,
                    found: ends.target_end,
                });
            }
            let target = one.topic.target(one.partition);
            let start = ends.target_start.max(base);
            tail::check(flow, &target, producers, start..ends.target_end).await?;
            fillers
        }
    };
    let appended_timestamp_ms = position::appended_timestamp_ms(states, producers);
    if one.topic.record.mapped {
        let resume = resume_mapped(flow, one, &ends, appended_timestamp_ms).await?;
        return Ok(Opened::Ready(Box::new(resume)));
    }
    let origin = one.topic.record.origin(one.partition).unwrap_or(0);
    let position = Position {
        source: ends.target_end,
        target: ends.target_end,
        fillers,
        base,
        mapped: false,
    };
    // The log may end there and begin lower: a burn that was cut off before the trim.
    if prefix::is_left(one, position.target.min(ends.target_start), origin) {
        return Ok(Opened::Burn { position, origin });
    }
    // Where the prefix is left to fillers, the position is still below the origin: not a gap.
    let next = position.source.max(origin);
    let fetch_offset = check_source(flow, one, next, &ends).await?;
    Ok(Opened::Ready(Box::new(Resume {
        position,
        fetch_offset,
        appended_timestamp_ms,
        map: None,
        last_epoch: ends.last_epoch(fetch_offset),
        read_at: ends.read_at,
        newest_filler: position::newest_filler(states, producers),
        filler_epoch: position::filler_epoch(states, producers),
    })))
}

async fn resume_mapped(
    flow: &Flow,
    one: &Candidate,
    ends: &Ends,
    appended_timestamp_ms: Option<i64>,
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
    let logs = relearn::Logs {
        source_start: ends.source_start,
        target: ends.target_start..ends.target_end,
    };
    relearn::complete(flow, one, logs, &mut map).await?;
    let (source, target) = (map.source_end().0, map.target_end().0);
    let fetch_offset = check_source(flow, one, source, ends).await?;
    Ok(Resume {
        position: Position {
            source,
            target,
            fillers: 0,
            base: one.topic.base(one.partition),
            mapped: true,
        },
        fetch_offset,
        appended_timestamp_ms,
        map: Some(map),
        last_epoch: ends.last_epoch(fetch_offset),
        read_at: ends.read_at,
        newest_filler: None,
        filler_epoch: 0,
    })
}

/// The source must still have what comes next, and everything that was copied.
async fn check_source(
    flow: &Flow,
    one: &Candidate,
    next: i64,
    ends: &Ends,
) -> Result<i64, Trouble> {
    // A log whose epoch ends before what was copied in it was cut and has grown again (unclean
    // leader election, KIP-101), whatever its end is now.
    if let Some(source_end) = ends.diverges_at(next) {
        return Err(Trouble::SourceTruncated {
            source_end,
            copied_end: next,
        });
    }
    if next > ends.source_end {
        return Err(Trouble::SourceTruncated {
            source_end: ends.source_end,
            copied_end: next,
        });
    }
    if next >= ends.source_start {
        return Ok(next);
    }
    let gap = Trouble::Gap {
        from: next,
        to: ends.source_start,
    };
    let lost = u64::try_from(ends.source_start - next).unwrap_or(0);
    if flow.config.on_gap == OnGap::Stop || lost > flow.config.burn_limit {
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
