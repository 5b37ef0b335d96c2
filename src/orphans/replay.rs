//! Appends orphans to the new primary, each exactly once, however often it is begun again.

use std::collections::BTreeMap;

use serde::Serialize;

use super::decide::{Decided, settle};
use super::fetched::{self, Fetched};
use super::position::{self, Positions};
use super::producer::{Outgoing, Producer, Transaction};
use super::scene::{Scene, Stranded};
use super::{OrphansError, Phase, Progress};
use crate::state::{ReplayRecord, keys};
use crate::wire::TopicPartition;

/// A transaction is closed at this many bytes.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// How to replay.
#[derive(Clone, Copy, Debug)]
pub struct ReplayOptions {
    /// Records in one transaction at most.
    pub records_per_transaction: usize,
}

/// What was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReplayResult {
    /// Records that were appended now.
    pub records: u64,
    /// The same by topic.
    pub by_topic: BTreeMap<String, u64>,
    /// Transactions that were committed now.
    pub transactions: u64,
    /// What was recorded, about what earlier tries had appended too.
    pub decided: Vec<Decided>,
}

/// Appends everything that is undecided in a scene and can be read: same key, value, headers,
/// timestamp and partition number, and a header that names the origin. In the end that is recorded
/// as the decision.
///
/// # Errors
/// When it can't begin or go on. What was appended is recorded; another call goes on there.
pub async fn replay(
    scene: &mut Scene,
    options: ReplayOptions,
    progress: &Progress,
) -> Result<ReplayResult, OrphansError> {
    scene.may_decide().await?;
    let (section, flow) = (scene.target_section.clone(), scene.flow.name.clone());
    let producer = in_thread(move || Producer::open(&section, &flow)).await?;
    // Only now nobody else can append any more.
    let positions = position::read(scene).await?;
    let decided = settle(scene, &positions).await?;
    let mut run = Run {
        producer: Some(producer),
        options,
        positions,
        open: Transaction::default(),
        open_bytes: 0,
        open_positions: BTreeMap::new(),
        result: ReplayResult {
            decided,
            ..ReplayResult::default()
        },
    };
    let total = scene.stranded.iter().flat_map(|it| &it.can_decide);
    let total = total.map(|range| range.end - range.start).sum();
    progress.enter(Phase::Replaying, total);
    let ended = run.all(scene, progress).await;
    let settled = match position::read(scene).await {
        Ok(positions) => settle(scene, &positions).await,
        Err(error) => Err(error),
    };
    ended?;
    run.result.decided.extend(settled?);
    Ok(run.result)
}

struct Run {
    /// Lent to a thread while it appends.
    producer: Option<Producer>,
    options: ReplayOptions,
    positions: Positions,
    open: Transaction,
    open_bytes: usize,
    open_positions: BTreeMap<(String, i32), ReplayRecord>,
    result: ReplayResult,
}

impl Run {
    async fn all(&mut self, scene: &Scene, progress: &Progress) -> Result<(), OrphansError> {
        for stranded in &scene.stranded {
            for range in &stranded.can_decide {
                self.range(scene, stranded, range.clone(), progress).await?;
            }
        }
        self.close(scene).await
    }

    async fn range(
        &mut self,
        scene: &Scene,
        stranded: &Stranded,
        range: std::ops::Range<i64>,
        progress: &Progress,
    ) -> Result<(), OrphansError> {
        let at = TopicPartition::new(&*stranded.topic, stranded.partition);
        let mut fetched = Fetched::new(&scene.source, at, range.clone());
        let mut before = fetched.position();
        while let Some(batches) = fetched.next().await? {
            for batch in &batches {
                for record in fetched::records(batch, &range)? {
                    self.take(scene, stranded, record);
                    progress.passed(1, 0);
                    let is_full = self.open.records.len() >= self.options.records_per_transaction
                        || self.open_bytes >= BYTES_MAX;
                    if is_full {
                        self.close(scene).await?;
                    }
                }
            }
            progress.passed(0, fetched.position() - before);
            before = fetched.position();
        }
        // Offsets without a record are passed as well.
        self.position(stranded).next = range.end;
        Ok(())
    }

    fn take(&mut self, scene: &Scene, stranded: &Stranded, record: crate::batch::Record) {
        let position = self.position(stranded);
        position.next = record.offset + 1;
        position.records += 1;
        let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
        self.open_bytes += length(&record.key) + length(&record.value) + record.headers.len();
        self.open.records.push(Outgoing {
            topic: stranded.target_topic.clone(),
            partition: stranded.partition,
            origin: format!(
                "{}/{}/{}/{}",
                scene.flow.source, stranded.topic, stranded.partition, record.offset
            ),
            record,
        });
        let of_topic = self.result.by_topic.entry(stranded.topic.clone());
        *of_topic.or_default() += 1;
    }

    /// The position that the open transaction will write.
    fn position(&mut self, stranded: &Stranded) -> &mut ReplayRecord {
        let place = (stranded.topic.clone(), stranded.partition);
        let known = self
            .positions
            .get(&place)
            .filter(|it| it.plan == stranded.plan);
        self.open_positions
            .entry(place)
            .or_insert_with(|| match known {
                Some(known) => known.clone(),
                None => ReplayRecord {
                    v: 1,
                    plan: stranded.plan,
                    next: stranded.from,
                    records: 0,
                },
            })
    }

    /// Commits what is open.
    async fn close(&mut self, scene: &Scene) -> Result<(), OrphansError> {
        if self.open_positions.is_empty() {
            return Ok(());
        }
        let mut transaction = std::mem::take(&mut self.open);
        for ((topic, partition), position) in &self.open_positions {
            let key = keys::orphans_replay(&scene.flow.name, topic, *partition);
            let value =
                serde_json::to_vec(position).map_err(|error| OrphansError::doing(&key, error))?;
            transaction.positions.push((key, value));
        }
        let records = transaction.records.len() as u64;
        let mut producer = self
            .producer
            .take()
            .ok_or_else(|| OrphansError::new("the producer is gone"))?;
        self.producer =
            Some(in_thread(move || producer.append(&transaction).map(|()| producer)).await?);
        self.positions.append(&mut self.open_positions);
        self.open_bytes = 0;
        self.result.records += records;
        self.result.transactions += 1;
        Ok(())
    }
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OrphansError> + Send + 'static,
) -> Result<T, OrphansError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(OrphansError::doing("replaying", error)))
}
