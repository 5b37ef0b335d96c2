//! Reads `__consumer_offsets` from its beginning and on: every commit of every group, as it happens.
//!
//! The log is compacted, so its beginning holds the last commit of every group that the cluster
//! still knows. One long poll per broker waits for the next.
//!
//! Each partition is read by itself. One without a leader, or whose broker is silent, hides its own
//! groups only: the reader is told which ([`Unseen`]), and when they are seen again. By then a client
//! may have committed, so such a partition counts again when it is read to the end that it has then.
//!
//! A log whose beginning takes long to read is read some partitions at a time, and the groups of those that are read don't
//! wait for the others: one that its cleaner has left alone for months may have gigabytes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::assemble::{AssembleError, Assembler};
use super::record::GroupRecord;
use super::seen::Seen;
use super::unseen::Unseen;
use crate::batch;
use crate::tasks::brought;
use crate::wire::{self, Cluster, FetchOne, OFFSETS_TOPIC, OffsetSpec, TopicPartition, WireError};

/// How long a broker waits for the next commit.
const LONG_POLL: Duration = Duration::from_millis(500);
/// What one answer may bring.
const FETCH_BYTES: i32 = 4 * 1024 * 1024;
/// The pause after a partition couldn't be read, and between two looks for its leader.
const AGAIN: Duration = Duration::from_millis(200);
/// The pause after a partition's records couldn't be understood.
const AGAIN_UNREADABLE: Duration = Duration::from_secs(30);
/// A partition that nobody has answered for that long can't be seen.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// How often it is looked what can't be seen, where nothing else happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So long the whole beginning is waited for; then what was read so far is told,
const HEAD_START: Duration = Duration::from_secs(3);
/// and again whenever that took so many times as long as what came since.
const TOLD_AGAIN: u32 = 4;
/// So many partitions of one broker are read at a time while their beginning is.
const READ_AT_ONCE: usize = 4;
/// How long a broker may take to say where its partitions begin and end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Why the log can't be read.
#[derive(Debug)]
pub enum TailError {
    /// The right is missing: READ on the topic.
    NotAllowed,
    /// The reader of what is found is gone.
    Closed,
    /// A call failed.
    Wire(WireError),
}

impl From<WireError> for TailError {
    fn from(error: WireError) -> Self {
        match error.server_code() {
            Some(ResponseError::TopicAuthorizationFailed) => Self::NotAllowed,
            _ => Self::Wire(error),
        }
    }
}

/// Where one partition is read.
struct Position {
    next: i64,
    assembler: Assembler,
}

/// One partition.
struct Part {
    /// `None` until its beginning is known.
    position: Option<Position>,
    /// It can be seen when it is read to here; `None` until it was asked for.
    caught_up_at: Option<i64>,
    /// When its broker answered for it last.
    heard_at: Instant,
    /// It isn't asked for before.
    not_before: Instant,
    /// It was said that what it brings can't be understood.
    is_unreadable: bool,
}

impl Part {
    fn new(now: Instant) -> Self {
        Self {
            position: None,
            caught_up_at: None,
            heard_at: now,
            not_before: now,
            is_unreadable: false,
        }
    }

    fn is_behind(&self) -> bool {
        match (&self.position, self.caught_up_at) {
            (Some(position), Some(end)) => position.next < end,
            _ => true,
        }
    }
}

type Fetched = HashMap<TopicPartition, Result<FetchOne, WireError>>;
/// The beginning and the end of each partition.
type Bounds = Vec<(i32, Result<(i64, i64), WireError>)>;

/// What was asked for, and what came.
enum Event {
    Fetched {
        broker: i32,
        asked: Vec<i32>,
        answer: Result<Fetched, WireError>,
    },
    Bounds {
        broker: i32,
        bounds: Bounds,
    },
    Refreshed(Result<(), WireError>),
}

/// What is asked of each broker: news, and where partitions begin and end.
#[derive(Default)]
struct Questions {
    fetch: HashMap<i32, ToFetch>,
    bounds: HashMap<i32, Vec<i32>>,
}

/// What is read of one broker.
#[derive(Default)]
struct ToFetch {
    from: Vec<(TopicPartition, i64, i32)>,
    /// There surely is more: nothing is waited for.
    is_behind: bool,
}

/// One reading of the whole log.
pub struct Tail<'a> {
    cluster: &'a Cluster,
    found: &'a mpsc::Sender<Seen>,
    parts: HashMap<i32, Part>,
    /// What was told last; `None` while nothing of the beginning is.
    told: Option<Unseen>,
    began_at: Instant,
    told_at: Instant,
    /// All that somebody answers for was read to its end once.
    has_settled: bool,
    fetching: HashSet<i32>,
    bounding: HashSet<i32>,
    is_refreshing: bool,
    refreshed_at: Instant,
    rounds: usize,
}

impl<'a> Tail<'a> {
    /// Finds the log's partitions. `None` while no group has ever committed: then the topic isn't
    /// there.
    ///
    /// # Errors
    /// When the topic may not be read, or a call failed.
    pub async fn open(
        cluster: &'a Cluster,
        found: &'a mpsc::Sender<Seen>,
    ) -> Result<Option<Self>, TailError> {
        let metadata = cluster.metadata(Some(&[OFFSETS_TOPIC.to_owned()])).await?;
        let topic = metadata.topics.get(OFFSETS_TOPIC);
        match metadata.error_of(OFFSETS_TOPIC) {
            Some(ResponseError::UnknownTopicOrPartition) => return Ok(None),
            Some(ResponseError::TopicAuthorizationFailed) => return Err(TailError::NotAllowed),
            _ => {}
        }
        let now = Instant::now();
        let partitions = topic.map(|topic| topic.partitions.iter());
        let parts: HashMap<i32, Part> = partitions
            .into_iter()
            .flatten()
            .map(|partition| (partition.index, Part::new(now)))
            .collect();
        if parts.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            cluster,
            found,
            parts,
            told: None,
            began_at: now,
            told_at: now,
            has_settled: false,
            fetching: HashSet::new(),
            bounding: HashSet::new(),
            is_refreshing: false,
            refreshed_at: now,
            rounds: 0,
        }))
    }

    /// Reads on until something fails that concerns the whole of it.
    ///
    /// # Errors
    /// Why it ended. The next reading begins at the log's beginning again.
    pub async fn run(mut self) -> TailError {
        let mut events: JoinSet<Event> = JoinSet::new();
        loop {
            if let Err(error) = self.tell_unseen().await {
                return error;
            }
            self.ask(&mut events);
            let event = match tokio::time::timeout(self.look_within(), events.join_next()).await {
                Ok(Some(event)) => brought(event),
                Ok(None) => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                Err(_) => continue,
            };
            let taken = match event {
                Event::Fetched {
                    broker,
                    asked,
                    answer,
                } => {
                    self.fetching.remove(&broker);
                    self.take_fetched(&asked, answer).await
                }
                Event::Bounds { broker, bounds } => {
                    self.bounding.remove(&broker);
                    self.take_bounds(bounds)
                }
                Event::Refreshed(answer) => {
                    self.is_refreshing = false;
                    self.refreshed_at = Instant::now();
                    answer.map_err(TailError::from).or_else(if_lasting)
                }
            };
            if let Err(error) = taken {
                return error;
            }
        }
    }

    /// Reads a little, to see whether that is allowed. Any partition tells.
    pub async fn try_read(&self) -> Result<(), TailError> {
        let metadata = self.cluster.cached();
        let mut tried = HashSet::new();
        let mut last = Ok(());
        for number in self.parts.keys() {
            let Some((broker, _)) = metadata.leader(OFFSETS_TOPIC, *number) else {
                continue;
            };
            if !tried.insert(broker) {
                continue;
            }
            let at = partition(*number);
            let read = wire::fetch_one(self.cluster, &at, 0, 1);
            last = match tokio::time::timeout(ENDS_WITHIN, read).await {
                Ok(Ok(_)) => return Ok(()),
                // Rights come first.
                Ok(Err(error)) if error.server_code() == Some(ResponseError::OffsetOutOfRange) => {
                    return Ok(());
                }
                Ok(Err(error)) => match TailError::from(error) {
                    TailError::NotAllowed => return Err(TailError::NotAllowed),
                    error => Err(error),
                },
                Err(_) => last,
            };
        }
        last
    }

    /// The partitions that somebody answers for.
    fn answered(&self) -> BTreeSet<i32> {
        let metadata = self.cluster.cached();
        let now = Instant::now();
        let is_answered = |number: i32, part: &Part| {
            metadata.leader(OFFSETS_TOPIC, number).is_some()
                && now.duration_since(part.heard_at) <= SILENT_AFTER
        };
        let parts = self.parts.iter();
        let answered = parts.filter(|(number, part)| is_answered(**number, part));
        answered.map(|(number, _)| *number).collect()
    }

    /// Whether it is time to say that these aren't read. While the log's beginning is read, whoever answers is waited for;
    /// where that takes long, what can be seen is told now and then.
    fn is_due(&self, unread: &BTreeSet<i32>) -> bool {
        if self.has_settled {
            return true;
        }
        let pause = HEAD_START.max(self.began_at.elapsed() / TOLD_AGAIN);
        let is_late = self.told_at.elapsed() >= pause;
        match &self.told {
            None => is_late && unread.len() < self.parts.len(),
            // What can't be seen any more is told at once.
            Some(Unseen::Partitions { unread: before, .. }) => is_late || !unread.is_subset(before),
            Some(_) => true,
        }
    }

    /// Tells what can't be seen when that has changed.
    async fn tell_unseen(&mut self) -> Result<(), TailError> {
        let answered = self.answered();
        let mut unread = BTreeSet::new();
        let mut is_settled = true;
        for (number, part) in &mut self.parts {
            let is_answered = answered.contains(number);
            if !is_answered {
                // It is read to its end anew before it counts again.
                part.caught_up_at = None;
            }
            if part.is_behind() {
                unread.insert(*number);
                is_settled &= !is_answered;
            }
        }
        self.has_settled |= is_settled;
        let count = i32::try_from(self.parts.len()).unwrap_or(i32::MAX);
        let is_due = self.is_due(&unread);
        let unseen = Unseen::partitions(count, unread);
        if !is_due || self.told.as_ref() == Some(&unseen) {
            return Ok(());
        }
        self.told = Some(unseen.clone());
        self.told_at = Instant::now();
        self.send(Seen::CaughtUp(unseen)).await
    }

    fn look_within(&self) -> Duration {
        match self.told {
            Some(Unseen::Nothing) => LOOK_EVERY,
            _ => AGAIN,
        }
    }

    /// Asks every broker that isn't answering already, and for new leaders where there are none.
    fn ask(&mut self, events: &mut JoinSet<Event>) {
        let questions = self.questions();
        for (broker, asked) in questions.fetch {
            if self.fetching.insert(broker) {
                events.spawn(fetch(self.cluster.clone(), broker, asked));
            }
        }
        for (broker, asked) in questions.bounds {
            if self.bounding.insert(broker) {
                events.spawn(bounds(self.cluster.clone(), broker, asked));
            }
        }
        let is_whole = self.told == Some(Unseen::Nothing);
        let is_due = self.refreshed_at.elapsed() >= AGAIN;
        if !is_whole && is_due && !self.is_refreshing {
            self.is_refreshing = true;
            events.spawn(refresh(self.cluster.clone()));
        }
    }

    /// What to ask of each broker. Only the first partition with data is sure to get a whole batch,
    /// however large (KIP-74), so that each is the first in its turn.
    fn questions(&mut self) -> Questions {
        let metadata = self.cluster.cached();
        let now = Instant::now();
        let mut questions = Questions::default();
        let mut reading: HashMap<i32, usize> = HashMap::new();
        let mut parts: Vec<(&i32, &mut Part)> = self.parts.iter_mut().collect();
        parts.sort_unstable_by_key(|(number, _)| **number);
        for (number, part) in parts {
            let Some((broker, epoch)) = metadata.leader(OFFSETS_TOPIC, *number) else {
                continue;
            };
            if part.not_before > now {
                continue;
            }
            if part.caught_up_at.is_none() {
                questions.bounds.entry(broker).or_default().push(*number);
            }
            if part.position.is_some() && part.is_behind() && !self.has_settled {
                let reading = reading.entry(broker).or_default();
                if *reading >= READ_AT_ONCE {
                    // Its turn comes: that nothing is heard of it says nothing.
                    part.heard_at = now;
                    continue;
                }
                // One that is silent takes no other one's place.
                *reading += usize::from(now.duration_since(part.heard_at) <= SILENT_AFTER);
            }
            if let Some(position) = &part.position {
                let asked = questions.fetch.entry(broker).or_default();
                asked.from.push((partition(*number), position.next, epoch));
                asked.is_behind |= part.caught_up_at.is_some() && part.is_behind();
            }
        }
        self.rounds = self.rounds.wrapping_add(1);
        for asked in questions.fetch.values_mut() {
            let first = self.rounds % asked.from.len();
            asked.from.rotate_left(first);
        }
        questions
    }

    fn take_bounds(&mut self, bounds: Bounds) -> Result<(), TailError> {
        let now = Instant::now();
        for (number, answer) in bounds {
            let Some(part) = self.parts.get_mut(&number) else {
                continue;
            };
            match answer {
                Ok((start, end)) => {
                    part.heard_at = now;
                    part.caught_up_at = Some(end);
                    part.position.get_or_insert_with(|| Position {
                        next: start,
                        assembler: Assembler::default(),
                    });
                }
                Err(error) => pause(part, &error, AGAIN)?,
            }
        }
        Ok(())
    }

    async fn take_fetched(
        &mut self,
        asked: &[i32],
        answer: Result<Fetched, WireError>,
    ) -> Result<(), TailError> {
        let answers = match answer {
            Ok(answers) => answers,
            Err(error) => {
                for number in asked {
                    if let Some(part) = self.parts.get_mut(number) {
                        pause(part, &error, AGAIN)?;
                    }
                }
                return Ok(());
            }
        };
        let now = Instant::now();
        let mut records = Vec::new();
        for (at, answer) in answers {
            let Some(part) = self.parts.get_mut(&at.partition) else {
                continue;
            };
            let Some(position) = &mut part.position else {
                continue;
            };
            match answer.map(|fetched| take_in(position, fetched, &mut records)) {
                Ok(Ok(())) => (part.heard_at, part.is_unreadable) = (now, false),
                Ok(Err(error)) => {
                    if !std::mem::replace(&mut part.is_unreadable, true) {
                        let error = unreadable(self.cluster, &at, &error);
                        tracing::warn!(%error, "the groups of this partition can't be followed; it is tried again");
                    }
                    part.not_before = now + AGAIN_UNREADABLE;
                }
                Err(error) if error.server_code() == Some(ResponseError::OffsetOutOfRange) => {
                    // The log lost its end, or its beginning moved past us. Only a new reading
                    // is sure to see everything.
                    return Err(TailError::Wire(error));
                }
                Err(error) => pause(part, &error, AGAIN)?,
            }
        }
        if !records.is_empty() {
            self.send(Seen::Records(records)).await?;
        }
        Ok(())
    }

    async fn send(&self, seen: Seen) -> Result<(), TailError> {
        self.found.send(seen).await.map_err(|_| TailError::Closed)
    }
}

/// A partition that can't be read now is asked for a little later.
fn pause(part: &mut Part, error: &WireError, pause: Duration) -> Result<(), TailError> {
    tracing::debug!(%error, "a partition of __consumer_offsets can't be read; tried again");
    part.not_before = Instant::now() + pause;
    if_lasting(TailError::from(error.clone()))
}

/// What will be the same the next time ends the reading.
fn if_lasting(error: TailError) -> Result<(), TailError> {
    match error {
        TailError::Wire(error) if error.is_retriable() => Ok(()),
        error => Err(error),
    }
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(OFFSETS_TOPIC, number)
}

async fn fetch(cluster: Cluster, broker: i32, asked: ToFetch) -> Event {
    let wait = match asked.is_behind {
        true => Duration::ZERO,
        false => LONG_POLL,
    };
    let answer = wire::fetch_many(&cluster, broker, &asked.from, wait, FETCH_BYTES).await;
    let asked = asked.from.into_iter().map(|(at, _, _)| at.partition);
    Event::Fetched {
        broker,
        asked: asked.collect(),
        answer,
    }
}

async fn bounds(cluster: Cluster, broker: i32, asked: Vec<i32>) -> Event {
    let partitions: Vec<TopicPartition> = asked.iter().map(|number| partition(*number)).collect();
    let ask = |spec| wire::list_offsets_within(&cluster, &partitions, spec, ENDS_WITHIN);
    // The end first: what is appended in between counts as news, never as missing.
    let mut ends = ask(OffsetSpec::Latest).await;
    let mut starts = ask(OffsetSpec::Earliest).await;
    let bounds = partitions.iter().filter_map(|at| {
        let (end, start) = (ends.remove(at)?, starts.remove(at)?);
        Some((at.partition, start.and_then(|start| Ok((start, end?)))))
    });
    Event::Bounds {
        broker,
        bounds: bounds.collect(),
    }
}

async fn refresh(cluster: Cluster) -> Event {
    let answer = cluster.metadata(Some(&[OFFSETS_TOPIC.to_owned()])).await;
    Event::Refreshed(answer.map(|_| ()))
}

fn take_in(
    position: &mut Position,
    fetched: FetchOne,
    records: &mut Vec<GroupRecord>,
) -> Result<(), AssembleError> {
    let from = position.next;
    for batch in batch::split(fetched.records) {
        let batch = batch?;
        batch::verify_crc(&batch)?;
        position.assembler.take(&batch, from, records)?;
        position.next = position.next.max(batch.header.next_offset());
    }
    Ok(())
}

fn unreadable(cluster: &Cluster, partition: &TopicPartition, error: &AssembleError) -> WireError {
    let context = wire::ErrorContext {
        api: Some("Fetch"),
        subject: Some(partition.to_string()),
        ..wire::ErrorContext::cluster(cluster.name())
    };
    WireError::Decode {
        context: std::sync::Arc::new(context),
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use fake_kafka::state::Options;
    use fake_kafka::tcp::Server;

    use super::*;
    use crate::wire::ClusterConfig;

    /// Its log has twelve partitions.
    fn with_a_log_of_groups() -> (Server, Cluster) {
        let fake = fake_kafka::Cluster::new(Options::default());
        let server = Server::start(&fake);
        fake.control(|state| {
            state.groups.settings.topic_partitions = 12;
            state.create_offsets_topic();
        });
        let cluster = Cluster::new(ClusterConfig::new("source", vec![server.bootstrap()]));
        (server, cluster)
    }

    /// Partition 7 has gigabytes.
    #[tokio::test]
    async fn groups_do_not_wait_for_a_partition_that_is_not_theirs() {
        let (_server, cluster) = with_a_log_of_groups();
        let (found, mut told) = mpsc::channel(8);
        let tail = Tail::open(&cluster, &found).await;
        let mut tail = tail.expect("it may be read").expect("it is there");
        let count = tail.parts.len();
        assert!(count > 10, "{count}");
        // Since a time to come no time has passed, however slow this machine is.
        let to_come = Instant::now() + 100 * HEAD_START;
        let read_to = |part: &mut Part, next: i64| {
            part.heard_at = to_come;
            part.caught_up_at = Some(1_000_000);
            part.position = Some(Position {
                next,
                assembler: Assembler::default(),
            });
        };
        tail.parts
            .values_mut()
            .for_each(|part| read_to(part, 1_000_000));
        for number in [7, 8] {
            read_to(tail.parts.get_mut(&number).expect("it has so many"), 5);
        }
        (tail.began_at, tail.told_at) = (to_come, to_come);
        tail.tell_unseen().await.expect("somebody listens");
        assert!(told.try_recv().is_err(), "all may be read in a moment");

        let some_time = HEAD_START + Duration::from_millis(10);
        let earlier = Instant::now().checked_sub(some_time);
        let earlier = earlier.expect("this machine has run for longer");
        (tail.began_at, tail.told_at) = (earlier, earlier);
        tail.tell_unseen().await.expect("somebody listens");
        let unread = |seen: Seen| match seen {
            Seen::CaughtUp(Unseen::Partitions { unread, .. }) => unread,
            other => panic!("{other:?}"),
        };
        let first = unread(told.try_recv().expect("what is read is told"));
        assert_eq!(first, BTreeSet::from([7, 8]));

        // Not each of them at once: but what is lost.
        tail.told_at = to_come;
        read_to(tail.parts.get_mut(&8).expect("it has so many"), 1_000_000);
        tail.tell_unseen().await.expect("somebody listens");
        assert!(told.try_recv().is_err());
        tail.parts.get_mut(&9).expect("so many").caught_up_at = None;
        tail.tell_unseen().await.expect("somebody listens");
        let lost = unread(told.try_recv().expect("it is told at once"));
        assert_eq!(lost, BTreeSet::from([7, 9]));
    }

    /// Read side by side all would be read at the end of it.
    #[tokio::test]
    async fn a_long_log_is_read_some_partitions_at_a_time() {
        let (_server, cluster) = with_a_log_of_groups();
        let (found, _told) = mpsc::channel(8);
        let tail = Tail::open(&cluster, &found).await;
        let mut tail = tail.expect("it may be read").expect("it is there");
        for part in tail.parts.values_mut() {
            part.caught_up_at = Some(1_000_000);
            part.position = Some(Position {
                next: 0,
                assembler: Assembler::default(),
            });
        }
        let asked = |tail: &mut Tail<'_>| -> BTreeSet<i32> {
            let all = tail.questions().fetch.into_values();
            all.flat_map(|asked| asked.from.into_iter().map(|(at, _, _)| at.partition))
                .collect()
        };
        assert_eq!(asked(&mut tail), (0..4).collect());
        let part = tail.parts.get_mut(&1).expect("it has so many");
        part.position.as_mut().expect("it is set").next = 1_000_000;
        assert_eq!(asked(&mut tail), (0..5).collect(), "and what is new in 1");
        tail.has_settled = true;
        assert_eq!(asked(&mut tail).len(), tail.parts.len());
    }
}
