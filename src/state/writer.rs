//! A writer of the state topic whom the broker refuses once another one has come.
//!
//! A command may be frozen between its last look at the lease and its write, for a second or for a
//! night, while somebody else undoes what it was doing. No look can be late enough. So what a plan
//! writes carries a producer id and the lease's generation as its epoch: behind the first record of
//! a newer generation the partition takes nothing of an older one
//! (`ProducerAppendInfo.checkProducerEpoch`). The first batch of a generation has sequence 0, and
//! there is only one such batch: of two who take the same generation the broker keeps the first.
//!
//! The broker forgets a producer some time after its newest batch (`producer.id.expiration.ms`, a day, on some services an
//! hour), and then takes any epoch again. So whoever finds by the clock of the machine that he has stood still sends nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use super::StateError;
use crate::batch::{self, KeyValue, Stamp};
use crate::telemetry::progress::now_ms;
use crate::wire::{self, Cluster, TopicPartition};

/// How long one batch is sent again: the broker tells which it has already.
const AGAIN_FOR: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);
/// Who has the lease writes every second. Behind such a pause the broker may soon know nobody of those who came since.
const STOOD_STILL_MS: i64 = 600_000;

/// Who writes, and what comes next. One batch at a time: the order of sequences is theirs.
#[derive(Debug, Default)]
pub(super) struct Writer {
    fenced: Arc<Mutex<Option<Fenced>>>,
}

#[derive(Debug)]
struct Fenced {
    stamp: Stamp,
    /// Whether it isn't known if the last batch has arrived.
    is_unsure: bool,
    /// When this process was seen to run last, milliseconds since the epoch: the other clock stands still with the machine.
    awake_ms: i64,
}

/// A batch that was taken.
pub(super) struct Written {
    /// The first record's offset.
    pub offset: i64,
    /// The first batch of a generation may be answered with that of another writer: only the log tells.
    pub is_first: bool,
}

impl Writer {
    pub(super) async fn become_generation(&self, producer_id: i64, producer_epoch: i16) {
        *self.fenced.lock().await = Some(Fenced {
            stamp: Stamp {
                producer_id,
                producer_epoch,
                base_sequence: 0,
            },
            is_unsure: false,
            awake_ms: now_ms(),
        });
    }

    /// Notes that the process runs, though nothing can be written now: a state without a leader is no pause of ours. Behind
    /// a pause nothing is noted.
    pub(super) fn note_awake(&self) {
        // Whoever writes meanwhile notes it.
        if let Ok(mut writer) = self.fenced.try_lock()
            && let Some(fenced) = writer.as_mut()
            && !has_stood_still_since(fenced.awake_ms)
        {
            fenced.awake_ms = now_ms();
        }
    }

    pub(super) async fn write(
        &self,
        cluster: &Cluster,
        partition: &TopicPartition,
        records: &[KeyValue<'_>],
    ) -> Result<Written, StateError> {
        let guard = self.fenced.clone().lock_owned().await;
        let Some(fenced) = &*guard else {
            drop(guard);
            let batch = batch::encode_simple(records, now_ms(), Stamp::NONE);
            let offset = wire::produce_one(cluster, partition, batch, -1).await?;
            let is_first = false;
            return Ok(Written { offset, is_first });
        };
        if fenced.is_unsure {
            return Err(StateError::Unsure);
        }
        let batch = batch::encode_simple(records, now_ms(), fenced.stamp);
        let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
        let (cluster, partition) = (cluster.clone(), partition.clone());
        // Who is cancelled on the way leaves the next one a sequence that is known.
        let sent = tokio::spawn(write_fenced(guard, cluster, partition, batch, count));
        sent.await.unwrap_or(Err(StateError::Unsure))
    }
}

async fn write_fenced(
    mut writer: OwnedMutexGuard<Option<Fenced>>,
    cluster: Cluster,
    partition: TopicPartition,
    batch: Bytes,
    count: i32,
) -> Result<Written, StateError> {
    let Some(fenced) = writer.as_mut() else {
        return Err(StateError::Unsure);
    };
    let is_first = fenced.stamp.base_sequence == 0;
    fenced.is_unsure = true;
    // Not when the answer is read: that may be a night later.
    let sent_ms = now_ms();
    let offset = send(&cluster, &partition, &batch, (is_first, fenced.awake_ms)).await?;
    fenced.is_unsure = false;
    fenced.awake_ms = sent_ms;
    fenced.stamp.base_sequence += count;
    Ok(Written { offset, is_first })
}

fn has_stood_still_since(awake_ms: i64) -> bool {
    now_ms().saturating_sub(awake_ms) > STOOD_STILL_MS
}

async fn send(
    cluster: &Cluster,
    partition: &TopicPartition,
    batch: &Bytes,
    (is_first, before_ms): (bool, i64),
) -> Result<i64, StateError> {
    let deadline = Instant::now() + AGAIN_FOR;
    loop {
        if has_stood_still_since(before_ms) {
            return Err(StateError::Overtaken);
        }
        match wire::produce_one(cluster, partition, batch.clone(), -1).await {
            Ok(offset) => return Ok(offset),
            Err(error) => match error.server_code() {
                Some(ResponseError::InvalidProducerEpoch | ResponseError::ProducerFenced) => {
                    return Err(StateError::Overtaken);
                }
                // Somebody else has begun this generation, and gone on.
                Some(ResponseError::OutOfOrderSequenceNumber) if is_first => {
                    return Err(StateError::Overtaken);
                }
                _ if error.is_retriable() && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                _ => return Err(error.into()),
            },
        }
    }
}
