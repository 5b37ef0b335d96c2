//! The state topic's reader and writer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kafka_protocol::ResponseError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch;
use crate::telemetry::progress::now_ms;
use crate::wire::{self, Cluster, OffsetSpec, TopicPartition, WireError};

/// The name of the state topic on the target.
pub const STATE_TOPIC: &str = "__twinlog_state";
/// The state is small; a value that unpacks to more than this isn't ours.
const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A batch of many values is closed at this size.
const BATCH_BYTES: usize = 512 * 1024;
const FETCH_BYTES: i32 = 4 * 1024 * 1024;

/// Why the state can't be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// A call failed.
    #[error("state topic {STATE_TOPIC}: {0}")]
    Wire(#[from] WireError),
    /// A batch in the topic can't be read.
    #[error("state topic {STATE_TOPIC}: {0}")]
    Batch(#[from] batch::BatchError),
    /// A value isn't what its key says.
    #[error("state topic {STATE_TOPIC}: the value of {key} can't be read: {reason}")]
    Value {
        /// The key.
        key: String,
        /// The parser's words.
        reason: String,
    },
}

/// The state topic, read and kept in memory.
#[derive(Debug)]
pub struct StateStore {
    cluster: Cluster,
    partition: TopicPartition,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_offset: i64,
    last: HashMap<String, Vec<u8>>,
    /// The first value of each key since the last compaction: who was first, when two raced.
    first: HashMap<String, Vec<u8>>,
}

impl StateStore {
    /// Opens the state topic, making it if it isn't there, and reads all of it.
    ///
    /// # Errors
    /// When the target can't be reached, refuses the topic, or the state can't be read.
    pub async fn open(cluster: &Cluster) -> Result<Self, StateError> {
        if let Some(store) = Self::open_existing(cluster).await? {
            return Ok(store);
        }
        create(cluster, cluster.cached().brokers.len()).await?;
        let store = Self::at(cluster);
        store.refresh().await?;
        Ok(store)
    }

    /// Opens the state topic for reading only: `None` when there is none.
    ///
    /// # Errors
    /// As [`StateStore::open`].
    pub async fn open_existing(cluster: &Cluster) -> Result<Option<Self>, StateError> {
        let metadata = cluster.metadata(Some(&[STATE_TOPIC.to_owned()])).await?;
        if metadata
            .topics
            .get(STATE_TOPIC)
            .is_none_or(|topic| topic.error.is_some())
        {
            return Ok(None);
        }
        let store = Self::at(cluster);
        store.refresh().await?;
        Ok(Some(store))
    }

    fn at(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            partition: TopicPartition {
                topic: STATE_TOPIC.to_owned(),
                partition: 0,
            },
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Reads what was appended since the last time, by whomever.
    ///
    /// # Errors
    /// When the topic can't be read.
    pub async fn refresh(&self) -> Result<(), StateError> {
        let partitions = [self.partition.clone()];
        let mut ends = wire::list_offsets(&self.cluster, &partitions, OffsetSpec::Latest).await;
        let end = match ends.remove(&self.partition) {
            Some(end) => end?,
            None => return Ok(()),
        };
        loop {
            let from = self.inner().next_offset;
            if from >= end {
                return Ok(());
            }
            let fetched = match wire::fetch_one(&self.cluster, &self.partition, from, FETCH_BYTES)
                .await
            {
                Err(WireError::Server {
                    code: ResponseError::OffsetOutOfRange,
                    ..
                }) => {
                    let mut starts =
                        wire::list_offsets(&self.cluster, &partitions, OffsetSpec::Earliest).await;
                    let start = starts.remove(&self.partition).transpose()?.unwrap_or(end);
                    self.inner().next_offset = start.max(from + 1);
                    continue;
                }
                other => other?,
            };
            self.take_in(fetched.records, from)?;
        }
    }

    /// Reads the whole topic again, so that [`StateStore::first`] follows the log's order also for
    /// what this process wrote itself.
    ///
    /// # Errors
    /// When the topic can't be read.
    pub async fn reload(&self) -> Result<(), StateError> {
        *self.inner() = Inner::default();
        self.refresh().await
    }

    fn take_in(&self, records: bytes::Bytes, from: i64) -> Result<(), StateError> {
        let mut next = from + 1;
        for batch in batch::split(records) {
            let batch = batch?;
            batch::verify_crc(&batch)?;
            next = next.max(batch.header.next_offset());
            if batch.header.is_control() || batch.header.count == 0 {
                continue;
            }
            for record in batch::open(&batch, VALUE_BYTES_MAX)? {
                if record.offset < from {
                    continue;
                }
                let Some(key) = record
                    .key
                    .and_then(|key| String::from_utf8(key.to_vec()).ok())
                else {
                    continue;
                };
                self.keep(key, record.value.map(|value| value.to_vec()));
            }
        }
        self.inner().next_offset = next;
        Ok(())
    }

    fn keep(&self, key: String, value: Option<Vec<u8>>) {
        let mut inner = self.inner();
        match value {
            Some(value) => {
                inner
                    .first
                    .entry(key.clone())
                    .or_insert_with(|| value.clone());
                inner.last.insert(key, value);
            }
            None => {
                inner.first.remove(&key);
                inner.last.remove(&key);
            }
        }
    }

    /// The newest value of a key.
    ///
    /// # Errors
    /// When the value can't be read as `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StateError> {
        let bytes = self.inner().last.get(key).cloned();
        parse(key, bytes)
    }

    /// The oldest value of a key that is still in the log.
    ///
    /// # Errors
    /// When the value can't be read as `T`.
    pub fn first<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StateError> {
        let bytes = self.inner().first.get(key).cloned();
        parse(key, bytes)
    }

    /// The keys that begin with `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys: Vec<String> = self
            .inner()
            .last
            .keys()
            .filter(|key| key.starts_with(prefix))
            .cloned()
            .collect();
        keys.sort();
        keys
    }

    /// Writes a value and returns when all in-sync replicas have it.
    ///
    /// # Errors
    /// When the value wasn't (or may not have been) written.
    pub async fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StateError> {
        let bytes = encode(key, value)?;
        self.append(key, Some(&bytes)).await?;
        self.keep(key.to_owned(), Some(bytes));
        Ok(())
    }

    /// Writes many values, as many in one batch as fit; returns when all in-sync replicas have
    /// them.
    ///
    /// # Errors
    /// When not all of them were written (some may have been).
    pub async fn put_all<T: Serialize>(&self, values: &[(String, T)]) -> Result<(), StateError> {
        let mut batch: Vec<(&String, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for (key, value) in values {
            let value = encode(key, value)?;
            bytes += key.len() + value.len();
            batch.push((key, value));
            if bytes >= BATCH_BYTES {
                self.append_all(&mut batch).await?;
                bytes = 0;
            }
        }
        self.append_all(&mut batch).await
    }

    async fn append_all(&self, batch: &mut Vec<(&String, Vec<u8>)>) -> Result<(), StateError> {
        if batch.is_empty() {
            return Ok(());
        }
        let records: Vec<batch::KeyValue<'_>> = batch
            .iter()
            .map(|(key, value)| (Some(key.as_bytes()), Some(value.as_slice())))
            .collect();
        let encoded = batch::encode_simple(&records, now_ms());
        wire::produce_one(&self.cluster, &self.partition, encoded, -1).await?;
        for (key, value) in batch.drain(..) {
            self.keep(key.clone(), Some(value));
        }
        Ok(())
    }

    /// Removes a key.
    ///
    /// # Errors
    /// When the tombstone wasn't (or may not have been) written.
    pub async fn remove(&self, key: &str) -> Result<(), StateError> {
        self.append(key, None).await?;
        self.keep(key.to_owned(), None);
        Ok(())
    }

    async fn append(&self, key: &str, value: Option<&[u8]>) -> Result<(), StateError> {
        let batch = batch::encode_simple(&[(Some(key.as_bytes()), value)], now_ms());
        wire::produce_one(&self.cluster, &self.partition, batch, -1).await?;
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode<T: Serialize>(key: &str, value: &T) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec(value).map_err(|error| StateError::Value {
        key: key.to_owned(),
        reason: error.to_string(),
    })
}

fn parse<T: DeserializeOwned>(key: &str, bytes: Option<Vec<u8>>) -> Result<Option<T>, StateError> {
    bytes
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()
        .map_err(|error| StateError::Value {
            key: key.to_owned(),
            reason: error.to_string(),
        })
}

async fn create(cluster: &Cluster, brokers: usize) -> Result<(), WireError> {
    let replicas = i16::try_from(brokers.clamp(1, 3)).unwrap_or(1);
    let configs = BTreeMap::from([
        ("cleanup.policy".to_owned(), "compact".to_owned()),
        ("max.message.bytes".to_owned(), "16777216".to_owned()),
        (
            "min.insync.replicas".to_owned(),
            if replicas >= 3 { "2" } else { "1" }.to_owned(),
        ),
    ]);
    match wire::create_topic(cluster, STATE_TOPIC, 1, replicas, &configs).await {
        Err(WireError::Server {
            code: ResponseError::TopicAlreadyExists,
            ..
        }) => Ok(()),
        other => other.map(|_| ()),
    }
}
