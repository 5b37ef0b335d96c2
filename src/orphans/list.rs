//! What is stranded, as consumers would read it: counts, times, keys, decisions.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use super::client::{self, Consumer};
use super::conflicts::{self, Conflicts};
use super::json_line::Text;
use super::keys::{Distinct, KeyHash};
use super::position;
use super::scene::{LeftOut, Scene, Stranded};
use super::{OrphansError, Phase, Progress};
use crate::config::ClusterSection;
use crate::state::OrphanDecision;

/// Nothing may come for so long.
const STALL: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Keys that are shown of a partition, and how long they may be.
pub(super) const SAMPLE_MAX: usize = 5;
pub(super) const SAMPLE_BYTES_MAX: usize = 1_024;
/// Keys of a topic that are looked for on the new primary (8 bytes each).
const COMPARED_MAX: usize = 1_000_000;

/// What is stranded of a flow.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listing {
    /// The flow.
    pub flow: String,
    /// The old primary, by its name in the config.
    pub source: String,
    /// The new primary.
    pub target: String,
    /// By topic, in order.
    pub topics: Vec<TopicListing>,
    /// All of it together.
    pub totals: Totals,
    /// What should be known besides.
    pub notes: Vec<String>,
    /// Partitions that can't be looked at now: what they have isn't among this.
    pub left_out: Vec<LeftOut>,
}

impl Listing {
    /// Why there may be more conflicts than were found, a line each.
    pub fn not_compared(&self) -> impl Iterator<Item = &str> {
        let conflicts = self
            .topics
            .iter()
            .filter_map(|topic| topic.conflicts.as_ref());
        conflicts.flat_map(|found| found.not_compared.iter().map(String::as_str))
    }
}

/// Sums.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    /// Partitions with records.
    pub partitions: u64,
    /// Records.
    pub records: u64,
    /// Those that nobody has decided about.
    pub undecided_records: u64,
}

/// What is stranded of a topic.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TopicListing {
    /// Its name on the source.
    pub topic: String,
    /// Its name on the target.
    pub target_topic: String,
    /// Records.
    pub records: u64,
    /// Those that nobody has decided about.
    pub undecided_records: u64,
    /// By partition.
    pub partitions: Vec<PartitionListing>,
    /// Every decision so far, those about earlier forks too.
    pub decisions: Vec<OrphanDecision>,
    /// Their keys on the new primary, where that was asked for.
    pub conflicts: Option<Conflicts>,
}

/// What is stranded of a partition.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PartitionListing {
    /// The partition.
    pub partition: i32,
    /// The first source offset.
    pub from: i64,
    /// The offset after the last one.
    pub to: i64,
    /// Where an open transaction begins, if there is one: it wasn't read further.
    pub open_transaction_at: Option<i64>,
    /// Offsets that the old primary has deleted already.
    pub expired_offsets: i64,
    /// Records, without markers and aborted data.
    pub records: u64,
    /// Those that nobody has decided about.
    pub undecided_records: u64,
    /// The lowest timestamp, milliseconds since the epoch.
    pub first_timestamp_ms: Option<i64>,
    /// The highest one.
    pub last_timestamp_ms: Option<i64>,
    /// Records that have no key.
    pub records_without_key: u64,
    /// How many different keys.
    pub distinct_keys: u64,
    /// Whether they were counted; estimated otherwise.
    pub distinct_keys_exact: bool,
    /// Some of them.
    pub sample_keys: Vec<Text>,
    /// What was decided.
    pub decided: Vec<DecidedRange>,
    /// Offset ranges that nobody has decided about: first, and the one after the last.
    pub undecided: Vec<(i64, i64)>,
    /// How far a replay got, if one was begun.
    pub replayed: Option<Replayed>,
}

/// A decided range of offsets.
#[derive(Clone, Debug, Serialize)]
pub struct DecidedRange {
    /// The first source offset.
    pub from: i64,
    /// The offset after the last one.
    pub to: i64,
    /// `replayed`, `dismissed` or `kept`.
    pub decision: &'static str,
}

/// How far a replay got.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Replayed {
    /// The next source offset.
    pub next: i64,
    /// Records that are on the new primary.
    pub records: u64,
}

/// Reads everything that is stranded. `with_conflicts` also reads what was written on the new
/// primary since the fork.
///
/// # Errors
/// When one of the clusters can't be read.
pub async fn list(
    scene: &Scene,
    with_conflicts: bool,
    progress: &Arc<Progress>,
) -> Result<Listing, OrphansError> {
    let positions = position::read(scene).await?;
    let by_topic = by_topic(&scene.stranded);
    let total: i64 = by_topic
        .values()
        .flatten()
        .map(|it| it.readable_to - it.from)
        .sum();
    progress.enter(Phase::Reading, total);
    let hash = KeyHash::random();
    let wanted = with_conflicts.then_some(COMPARED_MAX);
    let read = read(
        &scene.source_section,
        by_topic.clone(),
        hash,
        wanted,
        progress,
    )
    .await?;
    let mut listing = Listing {
        flow: scene.flow.name.clone(),
        source: scene.flow.source.clone(),
        target: scene.flow.target.clone(),
        notes: scene.notes.clone(),
        left_out: scene.left_out.clone(),
        ..Listing::default()
    };
    let mut compared = Vec::new();
    for (topic, mut of_topic) in read {
        let Some(first) = by_topic.get(&topic).and_then(|it| it.first()) else {
            continue;
        };
        for partition in &mut of_topic.partitions {
            let position = positions.get(&(topic.clone(), partition.partition));
            partition.replayed = position
                .filter(|it| it.plan == first.plan)
                .map(|it| Replayed {
                    next: it.next,
                    records: it.records,
                });
        }
        compared.push((first.target_topic.clone(), of_topic.keys));
        let sum = |of: fn(&PartitionListing) -> u64| of_topic.partitions.iter().map(of).sum();
        listing.topics.push(TopicListing {
            target_topic: first.target_topic.clone(),
            records: sum(|it| it.records),
            undecided_records: sum(|it| it.undecided_records),
            decisions: scene.decisions_of(&topic).decisions,
            partitions: of_topic.partitions,
            conflicts: None,
            topic,
        });
    }
    if with_conflicts {
        conflicts::find(scene, hash, &compared, &mut listing, progress).await?;
    }
    for topic in &listing.topics {
        listing.totals.records += topic.records;
        listing.totals.undecided_records += topic.undecided_records;
        let with_records = topic.partitions.iter().filter(|it| it.records > 0);
        listing.totals.partitions += with_records.count() as u64;
    }
    Ok(listing)
}

fn by_topic(stranded: &[Stranded]) -> BTreeMap<String, Vec<Stranded>> {
    let mut topics: BTreeMap<String, Vec<Stranded>> = BTreeMap::new();
    for one in stranded {
        topics
            .entry(one.topic.clone())
            .or_default()
            .push(one.clone());
    }
    topics
}

/// What was read of a topic.
struct OfTopic {
    partitions: Vec<PartitionListing>,
    keys: SomeKeys,
}

/// Hashes of a topic's orphans' keys.
pub(super) struct SomeKeys {
    pub hashes: HashSet<u64>,
    /// Whether these are all.
    pub are_all: bool,
}

async fn read(
    section: &ClusterSection,
    topics: BTreeMap<String, Vec<Stranded>>,
    hash: KeyHash,
    compared_max: Option<usize>,
    progress: &Arc<Progress>,
) -> Result<Vec<(String, OfTopic)>, OrphansError> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let (section, progress) = (section.clone(), progress.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let consumer = client::consumer(&section)?;
        let mut found = Vec::new();
        for (topic, stranded) in topics {
            let of_topic = read_topic(&consumer, &topic, &stranded, hash, compared_max, &progress)?;
            found.push((topic, of_topic));
        }
        Ok(found)
    });
    reading
        .await
        .unwrap_or_else(|error| Err(OrphansError::doing("reading the orphans", error)))
}

fn read_topic(
    consumer: &Consumer,
    topic: &str,
    stranded: &[Stranded],
    hash: KeyHash,
    compared_max: Option<usize>,
    progress: &Progress,
) -> Result<OfTopic, OrphansError> {
    let mut sums: BTreeMap<i32, Sum<'_>> = BTreeMap::new();
    let mut open: BTreeMap<i32, Range<i64>> = BTreeMap::new();
    for one in stranded {
        sums.insert(one.partition, Sum::new(one));
        if one.from < one.readable_to {
            open.insert(one.partition, one.from..one.readable_to);
        }
    }
    let mut keys = SomeKeys {
        hashes: HashSet::new(),
        are_all: true,
    };
    read_ranges(consumer, topic, open, progress, |message| {
        let hashed = message.key().map(|key| hash.of(key));
        if let (Some(hashed), Some(max)) = (hashed, compared_max)
            && !keys.hashes.contains(&hashed)
        {
            if keys.hashes.len() < max {
                keys.hashes.insert(hashed);
            } else {
                keys.are_all = false;
            }
        }
        if let Some(sum) = sums.get_mut(&message.partition()) {
            sum.add(message, hashed);
        }
    })?;
    Ok(OfTopic {
        partitions: sums.into_values().map(Sum::listing).collect(),
        keys,
    })
}

/// Reads ranges of one topic's partitions, in the order in which they come.
fn read_ranges(
    consumer: &Consumer,
    topic: &str,
    mut open: BTreeMap<i32, Range<i64>>,
    progress: &Progress,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), OrphansError> {
    let failed = |error: &dyn std::fmt::Display| {
        OrphansError::doing(format!("reading {topic} on the old primary"), error)
    };
    let mut list = TopicPartitionList::new();
    for (partition, range) in &open {
        list.add_partition_offset(topic, *partition, Offset::Offset(range.start))
            .map_err(|error| failed(&error))?;
    }
    consumer.assign(&list).map_err(|error| failed(&error))?;
    let mut moved_at = Instant::now();
    let mut last_error = None;
    while !open.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                moved_at = Instant::now();
                let partition = message.partition();
                // What was on its way of a range that is done.
                let Some(range) = open.get_mut(&partition) else {
                    continue;
                };
                let offset = message.offset();
                if offset < range.start || message.topic() != topic {
                    continue;
                }
                if offset >= range.end {
                    progress.passed(0, range.end - range.start);
                    open.remove(&partition);
                    continue;
                }
                progress.passed(1, offset + 1 - range.start);
                range.start = offset + 1;
                let is_done = range.is_empty();
                each(&message);
                if is_done {
                    open.remove(&partition);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                moved_at = Instant::now();
                if let Some(range) = open.remove(&partition) {
                    progress.passed(0, range.end - range.start);
                }
            }
            // librdkafka tries again by itself.
            Some(Err(error)) => last_error = Some(error.to_string()),
            None => {}
        }
        if moved_at.elapsed() > STALL {
            let why = last_error.or_else(|| consumer.context().last_error());
            let why = why.unwrap_or_else(|| "no answer".to_owned());
            let seconds = STALL.as_secs();
            return Err(failed(&format!("nothing came for {seconds} s: {why}")));
        }
    }
    Ok(())
}

/// What is known of a partition while it is read.
struct Sum<'a> {
    stranded: &'a Stranded,
    distinct: Distinct,
    listing: PartitionListing,
}

impl<'a> Sum<'a> {
    fn new(stranded: &'a Stranded) -> Self {
        let decided = stranded
            .decided
            .iter()
            .map(|(range, decision)| DecidedRange {
                from: range.start,
                to: range.end,
                decision: decision.word(),
            });
        let undecided = stranded.undecided.iter().map(|it| (it.start, it.end));
        Self {
            distinct: Distinct::default(),
            listing: PartitionListing {
                partition: stranded.partition,
                from: stranded.from,
                to: stranded.to,
                open_transaction_at: (stranded.readable_to < stranded.to)
                    .then_some(stranded.readable_to),
                expired_offsets: stranded.expired,
                decided: decided.collect(),
                undecided: undecided.collect(),
                ..PartitionListing::default()
            },
            stranded,
        }
    }

    fn add(&mut self, message: &BorrowedMessage<'_>, hashed: Option<u64>) {
        let listing = &mut self.listing;
        listing.records += 1;
        let is_undecided = |range: &Range<i64>| range.contains(&message.offset());
        if self.stranded.undecided.iter().any(is_undecided) {
            listing.undecided_records += 1;
        }
        if let Some(ms) = message.timestamp().to_millis() {
            listing.first_timestamp_ms =
                Some(listing.first_timestamp_ms.map_or(ms, |known| known.min(ms)));
            listing.last_timestamp_ms =
                Some(listing.last_timestamp_ms.map_or(ms, |known| known.max(ms)));
        }
        match (message.key(), hashed) {
            (Some(key), Some(hashed)) => {
                self.distinct.add(hashed);
                sample(&mut listing.sample_keys, key);
            }
            _ => listing.records_without_key += 1,
        }
    }

    fn listing(mut self) -> PartitionListing {
        (self.listing.distinct_keys, self.listing.distinct_keys_exact) = self.distinct.count();
        self.listing
    }
}

/// Keeps a key to be shown, as long as few are kept.
pub(super) fn sample(kept: &mut Vec<Text>, key: &[u8]) {
    if kept.len() < SAMPLE_MAX
        && key.len() <= SAMPLE_BYTES_MAX
        && kept.iter().all(|known| known.0 != key)
    {
        kept.push(Text(key.to_vec()));
    }
}
