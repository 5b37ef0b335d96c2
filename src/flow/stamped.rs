//! Steps whose batches the target gave its own time (`message.timestamp.type=LogAppendTime`).
//!
//! A Produce answer tells it (`log_append_time_ms`), but a step's batches are sent with acks 0, so there is none
//! ([`Partition::take_sendable`]). Offsets and counts stay right. So of partitions that were written in steps one batch
//! is read back, once a second, and its header tells. Who sets the topic right again says so before ([`Doubts`]): then all that
//! was written since the look before is read. At rest nobody is asked.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::Trouble;
use super::partition::Partition;
use super::shared::Flow;
use crate::batch;
use crate::tasks::brought;
use crate::wire::{self, Cluster, Role};

/// How often steps are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many partitions at a time, the others in turn: each costs a fetch, and a batch.
const AT_ONCE: usize = 32;
/// Partitions of topics that somebody has set otherwise are looked at by so many at a time until none is left.
const DOUBTED_AT_ONCE: usize = 128;
/// All brokers have heard of a setting after so long, and what was on its way is there.
const HEARD_AFTER: Duration = Duration::from_secs(2);
/// How long the others wait for a broker that doesn't answer.
const LOOK_FOR: Duration = Duration::from_secs(5);
/// A broker answers with the whole first batch, however large it is (KIP-74).
const LEAST_BYTES: i32 = 1;
/// What is read at once, and how often in a row, of a partition that is looked at from an offset on: all that was written in
/// the seconds between two looks, about. Where it is more, the others have their turns, and then the rest of it.
const FETCH_BYTES: i32 = 1 << 20;
const FETCHES_MAX: usize = 64;

/// Topics that somebody has set otherwise, or may have.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    topics: Mutex<HashSet<String>>,
    told: Notify,
}

impl Doubts {
    /// The copy of this source topic had other settings just now: all that was written of late is looked at.
    pub(super) fn note(&self, source_topic: &str) {
        self.topics().insert(source_topic.to_owned());
        self.told.notify_one();
    }

    fn take(&self) -> HashSet<String> {
        std::mem::take(&mut *self.topics())
    }

    fn topics(&self) -> MutexGuard<'_, HashSet<String>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at steps until cancelled.
pub(super) async fn watch(flow: Arc<Flow>, cancel: CancellationToken) {
    let mut watch = Watch {
        cluster: flow.target.apart(Role::Read),
        flow,
        turns: Turns::default(),
        changes: None,
        again: Vec::new(),
    };
    let mut looked_at = Instant::now();
    loop {
        let next = looked_at + LOOK_EVERY;
        let doubted = async {
            tokio::select! {
                () = tokio::time::sleep_until(next) => false,
                () = watch.flow.doubts.told.notified() => true,
            }
        };
        let Some(is_doubted) = cancel.run_until_cancelled(doubted).await else {
            return;
        };
        let looking = async {
            watch.look_at_doubted().await;
            if !is_doubted {
                watch.look_at_newest().await;
            }
        };
        if cancel.run_until_cancelled(looking).await.is_none() {
            return;
        }
        if !is_doubted {
            looked_at = Instant::now();
        }
    }
}

struct Watch {
    flow: Arc<Flow>,
    cluster: Cluster,
    turns: Turns,
    /// See [`Budget::changes`](super::budget::Budget::changes).
    changes: Option<u64>,
    /// What is looked at once more, from which offset on, and when.
    again: Vec<(Instant, Arc<Partition>, i64)>,
}

impl Watch {
    /// One batch of each whose turn it is.
    async fn look_at_newest(&mut self) {
        let before = self.changes.replace(self.flow.budget.changes());
        if self.changes != before {
            self.turns.add(written_in_steps(&self.flow));
        }
        let now = self.turns.next(AT_ONCE);
        let now = now.into_iter().filter_map(|partition| {
            let (from, step) = partition.take_unseen_step()?;
            Some((partition, from, step..step + 1))
        });
        let found = look(&self.cluster, now.collect()).await;
        self.turns
            .add(found.unread.into_iter().map(|(it, _)| it).collect());
        // The setting is the topic's, so what else was written to it is looked at.
        found
            .stamped
            .iter()
            .for_each(|topic| self.flow.doubts.note(topic));
    }

    /// All that was written in steps of late to topics that were set otherwise: now, and when all brokers have heard of it.
    async fn look_at_doubted(&mut self) {
        let (now, doubted) = (Instant::now(), self.flow.doubts.take());
        let suspects = suspects(&self.flow, &doubted);
        let (mut due, mut later) = std::mem::take(&mut self.again)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, ..)| *at <= now);
        // Brokers that don't answer hold up the first looks of others for one piece at most. What waits longest goes first.
        later.extend(due.split_off(due.len().min(DOUBTED_AT_ONCE)));
        self.again = later;
        let again = suspects.iter().cloned();
        self.again
            .extend(again.map(|(partition, from)| (now + HEARD_AFTER, partition, from)));
        let due = due
            .into_iter()
            .map(|(_, partition, from)| (partition, from));
        let all = suspects.into_iter().chain(due).map(|(partition, from)| {
            let to = partition.progress.target_position.load(Ordering::Relaxed);
            (partition, from, from..to)
        });
        let mut all: VecDeque<Asked> = all.collect();
        while !all.is_empty() {
            let some = all.drain(..all.len().min(DOUBTED_AT_ONCE)).collect();
            let found = look(&self.cluster, some).await;
            all.extend(found.rest);
            self.try_again(found.unread);
        }
    }

    /// What couldn't be read is read from the same offset on, until it can be. One entry is enough for a partition.
    fn try_again(&mut self, unread: Vec<(Arc<Partition>, i64)>) {
        let at = Instant::now() + HEARD_AFTER;
        for (partition, from) in unread {
            let known = self
                .again
                .iter_mut()
                .find(|(_, it, _)| Arc::ptr_eq(it, &partition));
            match known {
                Some((_, _, known)) => *known = from.min(*known),
                None => self.again.push((at, partition, from)),
            }
        }
    }
}

/// The partitions of these topics that were written in steps of late, and from which offset on.
fn suspects(flow: &Flow, doubted: &HashSet<String>) -> Vec<(Arc<Partition>, i64)> {
    // At rest nobody is looked at.
    if doubted.is_empty() {
        return Vec::new();
    }
    let open = flow.open.iter();
    let of_topics = open.filter(|it| doubted.contains(&it.source.topic));
    of_topics
        .filter_map(|it| Some((it.value().clone(), it.steps_from()?)))
        .collect()
}

fn written_in_steps(flow: &Flow) -> Vec<Arc<Partition>> {
    let open = flow.open.iter();
    open.filter(|it| it.has_unseen_step())
        .map(|it| it.value().clone())
        .collect()
}

/// Whose turn it is: who was written first.
#[derive(Default)]
struct Turns {
    queue: VecDeque<Arc<Partition>>,
    queued: HashSet<(String, i32)>,
}

impl Turns {
    fn add(&mut self, partitions: Vec<Arc<Partition>>) {
        for partition in partitions {
            if self.queued.insert(key(&partition)) {
                self.queue.push_back(partition);
            }
        }
    }

    fn next(&mut self, most: usize) -> Vec<Arc<Partition>> {
        let now = self.queue.len().min(most);
        let now: Vec<Arc<Partition>> = self.queue.drain(..now).collect();
        self.forget(&now);
        now
    }

    fn forget(&mut self, partitions: &[Arc<Partition>]) {
        for partition in partitions {
            self.queued.remove(&key(partition));
        }
    }
}

fn key(partition: &Partition) -> (String, i32) {
    (partition.target.topic.clone(), partition.target.partition)
}

/// A partition, from where on it is unseen, and the offsets that are looked at.
type Asked = (Arc<Partition>, i64, Range<i64>);

/// What a look has found.
#[derive(Default)]
struct Found {
    /// Source topics with a partition that was stamped. It is stopped.
    stamped: BTreeSet<String>,
    /// Partitions that couldn't be read yet, and from where on.
    unread: Vec<(Arc<Partition>, i64)>,
    /// What is left of those of which much was asked.
    rest: Vec<Asked>,
}

/// Looks at these offsets of each, all at once. What can't be read is unseen as before, from that offset on.
async fn look(cluster: &Cluster, partitions: Vec<Asked>) -> Found {
    let mut looks = JoinSet::new();
    for (partition, from, offsets) in partitions {
        let cluster = cluster.clone();
        looks.spawn(async move {
            let reading = read(&cluster, &partition, offsets.clone());
            let read = tokio::time::timeout(LOOK_FOR, reading).await;
            (partition, from, offsets, read.unwrap_or(Read::Unknown))
        });
    }
    let mut found = Found::default();
    while let Some(looked) = looks.join_next().await {
        let (partition, from, offsets, read) = brought(looked);
        match read {
            Read::AsSent => {}
            Read::Unknown | Read::UpTo(_) if partition.is_closed() => {}
            Read::Unknown => {
                partition.put_back_unseen_step(from, offsets.start);
                found.unread.push((partition, from));
            }
            Read::UpTo(seen) => found.rest.push((partition, seen, seen..offsets.end)),
            Read::Stamped(stamped) => {
                found.stamped.insert(partition.source.topic.clone());
                partition.fail(Trouble::TimesReplaced {
                    from: stamped.start,
                    to: stamped.end,
                });
            }
        }
    }
    found
}

enum Read {
    AsSent,
    /// This batch has the target's time.
    Stamped(Range<i64>),
    /// Nothing was stamped up to here, and there is more.
    UpTo(i64),
    /// It can't be read, or not yet: readers may see it a little later than its markers were answered.
    Unknown,
}

async fn read(cluster: &Cluster, partition: &Partition, mut offsets: Range<i64>) -> Read {
    let most = match offsets.end - offsets.start {
        1 => LEAST_BYTES,
        _ => FETCH_BYTES,
    };
    let began = Instant::now();
    for nth in 0..FETCHES_MAX {
        // What was seen so far isn't read again because the line is slow.
        let is_late = nth > 0 && began.elapsed() >= LOOK_FOR / 2;
        if offsets.is_empty() || is_late {
            break;
        }
        let fetched = wire::fetch_one(cluster, &partition.target, offsets.start, most).await;
        let records = match fetched {
            Ok(fetched) => fetched.records,
            Err(error) => return unreadable(&error),
        };
        let before = offsets.start;
        for batch in batch::split(records) {
            // Whoever opens it says what is wrong with it.
            let Ok(batch) = batch else {
                return Read::AsSent;
            };
            let header = &batch.header;
            let is_ours = !batch.legacy && !header.is_control();
            let is_asked = header.base_offset < offsets.end;
            if is_ours && is_asked && header.is_log_append_time() {
                return Read::Stamped(header.base_offset..header.next_offset());
            }
            offsets.start = offsets.start.max(header.next_offset());
        }
        if offsets.start == before {
            return Read::Unknown;
        }
    }
    match offsets.is_empty() {
        true => Read::AsSent,
        false => Read::UpTo(offsets.start),
    }
}

/// What the log has no more, or we may not read, isn't asked for again.
fn unreadable(error: &wire::WireError) -> Read {
    use kafka_protocol::ResponseError as E;
    match error.server_code() {
        Some(E::OffsetOutOfRange | E::TopicAuthorizationFailed) => Read::AsSent,
        _ => Read::Unknown,
    }
}
