//! The state topic's reader and writer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kafka_protocol::ResponseError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys;
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
/// So many values of a claim's key are kept.
const CLAIMS_KEPT: usize = 64;

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

/// A key and its value; `None` removes it.
pub type StateRecord = (String, Option<Arc<[u8]>>);

/// The state topic, read and kept in memory.
#[derive(Debug)]
pub struct StateStore {
    cluster: Cluster,
    partition: TopicPartition,
    /// Of the offset maps' segments, only those with such keys are kept.
    segments: Option<String>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_offset: i64,
    last: BTreeMap<String, Entry>,
    /// The first value of each flow's own key since the last compaction: who was first, when two
    /// raced.
    first: HashMap<String, Arc<[u8]>>,
    /// The values of each claim's key in the log's order, with their offsets: whose claim stands
    /// isn't told by the newest alone.
    claims: HashMap<String, VecDeque<ClaimValue>>,
}

/// An offset and the value there.
type ClaimValue = (i64, Arc<[u8]>);

impl Inner {
    /// In the log's order, each once, also when two read the log at a time.
    fn note_claim(&mut self, key: &str, offset: i64, value: &Arc<[u8]>) {
        let claims = self.claims.entry(key.to_owned()).or_default();
        if claims.back().is_some_and(|(newest, _)| *newest >= offset) {
            return;
        }
        claims.push_back((offset, value.clone()));
        if claims.len() > CLAIMS_KEPT {
            claims.pop_front();
        }
    }
}

/// The newest record of a key.
#[derive(Debug)]
struct Entry {
    offset: i64,
    /// `None`: we removed it, and the log wasn't read up to there yet.
    value: Option<Arc<[u8]>>,
}

impl StateStore {
    /// Opens the state topic for a flow, making it if it isn't there, and reads all of it.
    ///
    /// # Errors
    /// When the target can't be reached, refuses the topic, or the state can't be read.
    pub async fn open(cluster: &Cluster, flow: &str) -> Result<Self, StateError> {
        let segments = Some(keys::segments_of_flow(flow));
        if let Some(store) = Self::read_existing(cluster, segments.clone()).await? {
            return Ok(store);
        }
        create(cluster, cluster.cached().brokers.len()).await?;
        let store = Self::at(cluster, segments);
        store.refresh().await?;
        Ok(store)
    }

    /// Opens the state topic for reading only, without offset maps: `None` when there is none.
    ///
    /// # Errors
    /// As [`StateStore::open`].
    pub async fn open_existing(cluster: &Cluster) -> Result<Option<Self>, StateError> {
        Self::read_existing(cluster, None).await
    }

    /// As [`StateStore::open_existing`], with what belongs to one partition's offset map.
    ///
    /// # Errors
    /// As [`StateStore::open`].
    pub async fn open_with_map(
        cluster: &Cluster,
        map: &keys::MapKeys,
    ) -> Result<Option<Self>, StateError> {
        Self::read_existing(cluster, Some(map.segments().to_owned())).await
    }

    async fn read_existing(
        cluster: &Cluster,
        segments: Option<String>,
    ) -> Result<Option<Self>, StateError> {
        let metadata = cluster.metadata(Some(&[STATE_TOPIC.to_owned()])).await?;
        if metadata
            .topics
            .get(STATE_TOPIC)
            .is_none_or(|topic| topic.error.is_some())
        {
            return Ok(None);
        }
        let store = Self::at(cluster, segments);
        store.refresh().await?;
        Ok(Some(store))
    }

    fn at(cluster: &Cluster, segments: Option<String>) -> Self {
        Self {
            segments,
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
                let value = record.value.map(|value| Arc::from(&value[..]));
                self.take_in_record(key, value, record.offset);
            }
        }
        self.inner().next_offset = next;
        Ok(())
    }

    /// Notes a record that was read: also what we wrote ourselves comes by here, later.
    fn take_in_record(&self, key: String, value: Option<Arc<[u8]>>, offset: i64) {
        if !self.is_kept(&key) {
            return;
        }
        let mut inner = self.inner();
        if keys::is_flow(&key) {
            match &value {
                Some(value) => {
                    let first = inner.first.entry(key.clone());
                    first.or_insert_with(|| value.clone());
                }
                None => {
                    inner.first.remove(&key);
                }
            }
        }
        if let Some(value) = value.as_ref().filter(|_| keys::is_claim(&key)) {
            inner.note_claim(&key, offset, value);
        }
        // A segment that we wrote shares its bytes with its map: those stay.
        let is_known = |known: &Entry| {
            known.offset > offset || (known.offset == offset && known.value.is_some())
        };
        if inner.last.get(&key).is_some_and(is_known) {
            return;
        }
        if value.is_some() {
            inner.last.insert(key, Entry { offset, value });
        } else {
            inner.last.remove(&key);
        }
    }

    /// Notes a record that was written.
    fn keep(&self, key: String, value: Option<Arc<[u8]>>, offset: i64) {
        if !self.is_kept(&key) {
            return;
        }
        let mut inner = self.inner();
        let is_newer = |known: &Entry| known.offset > offset;
        if inner.last.get(&key).is_some_and(is_newer) {
            return;
        }
        if value.is_none() && inner.next_offset > offset {
            // It was read back already; nothing else would forget the key.
            inner.last.remove(&key);
        } else {
            inner.last.insert(key, Entry { offset, value });
        }
    }

    fn is_kept(&self, key: &str) -> bool {
        let kept = self.segments.as_deref();
        !keys::is_segment(key) || kept.is_some_and(|kept| key.starts_with(kept))
    }

    /// The newest value of a key.
    ///
    /// # Errors
    /// When the value can't be read as `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StateError> {
        parse(key, self.bytes(key).as_deref())
    }

    /// A value as it is.
    pub fn bytes(&self, key: &str) -> Option<Arc<[u8]>> {
        self.inner().last.get(key)?.value.clone()
    }

    /// The oldest value of a [`FlowRecord`](super::FlowRecord)'s key that is still in the log.
    ///
    /// # Errors
    /// When the value can't be read as `T`.
    pub fn first<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StateError> {
        let bytes = self.inner().first.get(key).cloned();
        parse(key, bytes.as_deref())
    }

    /// The values of a [`Claim`](super::Claim)'s key that are still in the log, in its order and as
    /// far as it was read: what was only just written isn't among them.
    ///
    /// # Errors
    /// When a value can't be read as `T`.
    pub fn in_order<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, StateError> {
        let claims = self.inner().claims.get(key).cloned().unwrap_or_default();
        let values = claims.iter().map(|(_, value)| parse(key, Some(value)));
        Ok(values
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// The keys that begin with `prefix`, in order.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let inner = self.inner();
        let from = inner.last.range(prefix.to_owned()..);
        let found = from.take_while(|(key, _)| key.starts_with(prefix));
        present(found)
    }

    /// The keys in a range, in order.
    pub fn keys_in(&self, range: Range<String>) -> Vec<String> {
        present(self.inner().last.range(range))
    }

    /// Writes a value and returns when all in-sync replicas have it.
    ///
    /// # Errors
    /// When the value wasn't (or may not have been) written.
    pub async fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StateError> {
        let value = encode(key, value)?;
        self.append_all(vec![(key.to_owned(), Some(value))]).await
    }

    /// Writes many values, as many in one batch as fit; returns when all in-sync replicas have
    /// them.
    ///
    /// # Errors
    /// When not all of them were written (some may have been).
    pub async fn put_all<T: Serialize>(&self, values: &[(String, T)]) -> Result<(), StateError> {
        let values = values
            .iter()
            .map(|(key, value)| Ok((key.clone(), Some(encode(key, value)?))));
        self.append_batches(values).await
    }

    /// Writes and removes many values in this order, as many in one batch as fit. A value is shared
    /// with what is remembered here, not copied.
    ///
    /// # Errors
    /// As [`StateStore::put_all`].
    pub async fn write_all(&self, records: Vec<StateRecord>) -> Result<(), StateError> {
        self.append_batches(records.into_iter().map(Ok)).await
    }

    /// Removes a key.
    ///
    /// # Errors
    /// When the tombstone wasn't (or may not have been) written.
    pub async fn remove(&self, key: &str) -> Result<(), StateError> {
        self.append_all(vec![(key.to_owned(), None)]).await
    }

    async fn append_batches(
        &self,
        records: impl Iterator<Item = Result<StateRecord, StateError>>,
    ) -> Result<(), StateError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for record in records {
            let (key, value) = record?;
            bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
            batch.push((key, value));
            if bytes >= BATCH_BYTES {
                self.append_all(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        self.append_all(batch).await
    }

    async fn append_all(&self, batch: Vec<StateRecord>) -> Result<(), StateError> {
        if batch.is_empty() {
            return Ok(());
        }
        let records: Vec<batch::KeyValue<'_>> = batch
            .iter()
            .map(|(key, value)| (Some(key.as_bytes()), value.as_deref()))
            .collect();
        let encoded = batch::encode_simple(&records, now_ms());
        let first = wire::produce_one(&self.cluster, &self.partition, encoded, -1).await?;
        for (offset, (key, value)) in (first..).zip(batch) {
            self.keep(key, value, offset);
        }
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn present<'a>(entries: impl Iterator<Item = (&'a String, &'a Entry)>) -> Vec<String> {
    entries
        .filter(|(_, entry)| entry.value.is_some())
        .map(|(key, _)| key.clone())
        .collect()
}

pub(super) fn encode<T: Serialize>(key: &str, value: &T) -> Result<Arc<[u8]>, StateError> {
    let bytes = serde_json::to_vec(value).map_err(|error| StateError::Value {
        key: key.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(bytes.into())
}

pub(super) fn parse<T: DeserializeOwned>(
    key: &str,
    bytes: Option<&[u8]>,
) -> Result<Option<T>, StateError> {
    bytes
        .map(serde_json::from_slice)
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
