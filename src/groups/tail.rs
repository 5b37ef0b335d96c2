//! Reads `__consumer_offsets` from its beginning and on: every commit of every group, as it happens.
//!
//! The log is compacted, so its beginning holds the last commit of every group that the cluster
//! still knows. One long poll per broker waits for the next.

use std::collections::HashMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::assemble::Assembler;
use super::record::GroupRecord;
use super::seen::Seen;
use crate::batch;
use crate::tasks::brought;
use crate::wire::{self, Cluster, FetchOne, OffsetSpec, TopicPartition, WireError};

/// The coordinators' topic.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// How long a broker waits for the next commit.
const LONG_POLL: Duration = Duration::from_millis(500);
/// What one answer may bring.
const FETCH_BYTES: i32 = 4 * 1024 * 1024;
/// The pause after a broker couldn't answer.
const AGAIN: Duration = Duration::from_millis(200);

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
    /// The end when reading began: from there on it is news.
    caught_up_at: i64,
    assembler: Assembler,
}

type Answered = (
    i32,
    Result<HashMap<TopicPartition, Result<FetchOne, WireError>>, WireError>,
);

/// One reading of the whole log.
pub struct Tail<'a> {
    cluster: &'a Cluster,
    found: &'a mpsc::Sender<Seen>,
    positions: HashMap<TopicPartition, Position>,
    caught_up: bool,
    rounds: usize,
}

impl<'a> Tail<'a> {
    /// Finds the log's beginning and end. `None` while no group has ever committed: then the topic
    /// isn't there.
    ///
    /// # Errors
    /// When the topic may not be read, or a call failed.
    pub async fn open(
        cluster: &'a Cluster,
        found: &'a mpsc::Sender<Seen>,
    ) -> Result<Option<Self>, TailError> {
        let metadata = cluster.metadata(Some(&[OFFSETS_TOPIC.to_owned()])).await?;
        let topic = metadata.topics.get(OFFSETS_TOPIC);
        match topic.and_then(|topic| topic.error) {
            Some(ResponseError::UnknownTopicOrPartition) => return Ok(None),
            Some(ResponseError::TopicAuthorizationFailed) => return Err(TailError::NotAllowed),
            _ => {}
        }
        let partitions: Vec<TopicPartition> = topic
            .map(|topic| topic.partitions.iter())
            .into_iter()
            .flatten()
            .map(|partition| TopicPartition::new(OFFSETS_TOPIC, partition.index))
            .collect();
        if partitions.is_empty() {
            return Ok(None);
        }
        // The end first: what is appended in between counts as news, never as missing.
        let mut ends = wire::list_offsets(cluster, &partitions, OffsetSpec::Latest).await;
        let mut starts = wire::list_offsets(cluster, &partitions, OffsetSpec::Earliest).await;
        let mut positions = HashMap::with_capacity(partitions.len());
        for partition in partitions {
            let (Some(end), Some(start)) = (ends.remove(&partition), starts.remove(&partition))
            else {
                continue;
            };
            let position = Position {
                next: start?,
                caught_up_at: end?,
                assembler: Assembler::default(),
            };
            positions.insert(partition, position);
        }
        Ok(Some(Self {
            cluster,
            found,
            positions,
            caught_up: false,
            rounds: 0,
        }))
    }

    /// Reads on until something fails.
    ///
    /// # Errors
    /// Why it ended. The next reading begins at the log's beginning again.
    pub async fn run(mut self) -> TailError {
        let mut polls: JoinSet<Answered> = JoinSet::new();
        let mut polled: Vec<i32> = Vec::new();
        loop {
            if let Err(error) = self.note_caught_up().await {
                return error;
            }
            for (broker, asked) in self.by_leader() {
                if !polled.contains(&broker) {
                    polled.push(broker);
                    polls.spawn(poll(self.cluster.clone(), broker, asked, self.wait()));
                }
            }
            let Some(answered) = polls.join_next().await else {
                // No partition has a leader now.
                tokio::time::sleep(AGAIN).await;
                if let Err(error) = self.refresh().await {
                    return error;
                }
                continue;
            };
            let (broker, answer) = brought(answered);
            polled.retain(|other| *other != broker);
            let taken = match answer {
                Ok(answers) => self.take(answers).await,
                Err(error) => Err(TailError::Wire(error)),
            };
            match taken {
                Ok(()) => {}
                Err(TailError::Wire(error)) if error.is_retriable() => {
                    tracing::debug!(%error, "__consumer_offsets can't be read; tried again");
                    tokio::time::sleep(AGAIN).await;
                    if let Err(error) = self.refresh().await {
                        return error;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// Reads a little of one partition, to see whether that is allowed.
    pub async fn try_read(&self) -> Result<(), TailError> {
        let Some((partition, position)) = self.positions.iter().next() else {
            return Ok(());
        };
        wire::fetch_one(self.cluster, partition, position.next, 1).await?;
        Ok(())
    }

    /// While the beginning is read there is always more; afterwards the next commit is waited for.
    fn wait(&self) -> Duration {
        if self.caught_up {
            LONG_POLL
        } else {
            Duration::ZERO
        }
    }

    async fn refresh(&self) -> Result<(), TailError> {
        match self
            .cluster
            .metadata(Some(&[OFFSETS_TOPIC.to_owned()]))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_retriable() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What to ask of each broker. Only the first partition with data is sure to get a whole batch,
    /// however large (KIP-74), so that each is the first in its turn.
    fn by_leader(&mut self) -> HashMap<i32, Vec<(TopicPartition, i64, i32)>> {
        let metadata = self.cluster.cached();
        let mut asked: HashMap<i32, Vec<_>> = HashMap::new();
        for (partition, position) in &self.positions {
            let leader = metadata.leader(&partition.topic, partition.partition);
            if let Some((broker, epoch)) = leader {
                let one = (partition.clone(), position.next, epoch);
                asked.entry(broker).or_default().push(one);
            }
        }
        self.rounds = self.rounds.wrapping_add(1);
        for partitions in asked.values_mut() {
            let first = self.rounds % partitions.len();
            partitions.rotate_left(first);
        }
        asked
    }

    async fn note_caught_up(&mut self) -> Result<(), TailError> {
        let behind = |position: &Position| position.next < position.caught_up_at;
        if self.caught_up || self.positions.values().any(behind) {
            return Ok(());
        }
        self.caught_up = true;
        self.send(Seen::CaughtUp).await
    }

    async fn take(
        &mut self,
        answers: HashMap<TopicPartition, Result<FetchOne, WireError>>,
    ) -> Result<(), TailError> {
        let mut failed = None;
        let mut records = Vec::new();
        for (partition, answer) in answers {
            let Some(position) = self.positions.get_mut(&partition) else {
                continue;
            };
            match answer {
                Ok(fetched) => take_in(position, fetched, &mut records)
                    .map_err(|error| unreadable(self.cluster, &partition, &error))?,
                Err(error) if error.server_code() == Some(ResponseError::OffsetOutOfRange) => {
                    // The log lost its end, or its beginning moved past us. Only a new reading
                    // is sure to see everything.
                    return Err(TailError::Wire(error));
                }
                Err(error) => failed = Some(error),
            }
        }
        if !records.is_empty() {
            self.send(Seen::Records(records)).await?;
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    async fn send(&self, seen: Seen) -> Result<(), TailError> {
        self.found.send(seen).await.map_err(|_| TailError::Closed)
    }
}

async fn poll(
    cluster: Cluster,
    broker: i32,
    asked: Vec<(TopicPartition, i64, i32)>,
    wait: Duration,
) -> Answered {
    let answer = wire::fetch_many(&cluster, broker, &asked, wait, FETCH_BYTES).await;
    (broker, answer)
}

fn take_in(
    position: &mut Position,
    fetched: FetchOne,
    records: &mut Vec<GroupRecord>,
) -> Result<(), batch::BatchError> {
    let from = position.next;
    for batch in batch::split(fetched.records) {
        let batch = batch?;
        batch::verify_crc(&batch)?;
        position.assembler.take(&batch, from, records)?;
        position.next = position.next.max(batch.header.next_offset());
    }
    Ok(())
}

fn unreadable(
    cluster: &Cluster,
    partition: &TopicPartition,
    error: &batch::BatchError,
) -> TailError {
    let context = wire::ErrorContext {
        api: Some("Fetch"),
        subject: Some(partition.to_string()),
        ..wire::ErrorContext::cluster(cluster.name())
    };
    TailError::Wire(WireError::Decode {
        context: std::sync::Arc::new(context),
        detail: error.to_string(),
    })
}
