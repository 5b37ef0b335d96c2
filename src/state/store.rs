//! The state topic's reader and writer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::ResponseError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::keys;
use super::log::{Loss, Reached, Seen, loss};
use super::settings::{Misfit, at_creation, wanted_replicas};
use super::version::{VERSION, refuse_newer};
use super::writer::Writer;
use crate::batch;
use crate::tasks::brought;
use crate::wire::{
    self, Cluster, ErrorContext, Metadata, OffsetSpec, Role, TopicPartition, WireError,
};

/// The name of the state topic on the target.
pub const STATE_TOPIC: &str = "__twinlog_state";
/// The state is small; a value that unpacks to more than this isn't ours.
const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A batch of many values is closed at this size.
const BATCH_BYTES: usize = 512 * 1024;
const FETCH_BYTES: i32 = 4 * 1024 * 1024;
/// A loss is believed when this many looks tell the same: a broker may not have heard of a topic
/// yet, and a new leader's high watermark may lag.
const LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// So long a broker may take at least to say whether it knows the topic.
const ABSENT_WITHIN: Duration = Duration::from_secs(2);

/// What can be done about a lost state topic.
pub const LOST_HINT: &str = "Find out who deleted or shortened it and restore it, or delete the flow's mirror topics \
     so that they are copied again; then restart Twinlog";
/// What can be done about a state topic whose configs can't be set.
pub const SETTINGS_HINT: &str = "Set it with kafka-configs.sh --alter --entity-type topics, or grant ALTER_CONFIGS on this topic \
     to Twinlog's principal; then restart Twinlog";
/// What can be done about a value that is newer than this Twinlog.
pub const NEWER_HINT: &str =
    "run that version here, or a later one: an earlier one would lose what it doesn't know";
/// So many values of a claim's or a lease's key are kept.
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
    /// What was read isn't there any more.
    #[error("state topic {STATE_TOPIC}: {0}; what Twinlog knew of its flows is lost with it. {hint}", hint = LOST_HINT)]
    Lost(Loss),
    /// The topic can't be relied on as it is configured, and the target doesn't let us change that.
    #[error("state topic {STATE_TOPIC}: {misfit}; the target refuses to set it: {refusal}. {hint}", hint = SETTINGS_HINT)]
    Settings {
        /// What is wrong.
        misfit: Box<Misfit>,
        /// The target's words.
        refusal: String,
    },
    /// A newer Twinlog wrote it, in a format that this one doesn't know.
    #[error(
        "state topic {STATE_TOPIC}: {key} was written by a newer Twinlog (format {version}, this one knows {VERSION}); {hint}",
        hint = NEWER_HINT
    )]
    Newer {
        /// The key.
        key: String,
        /// Its version.
        version: u32,
    },
    /// Another writer has come, and the broker takes nothing of this one any more.
    #[error("state topic {STATE_TOPIC}: another process has taken over what this one was doing")]
    Overtaken,
    /// A write of this process may or may not have arrived.
    #[error(
        "state topic {STATE_TOPIC}: it isn't known whether the last write arrived; run the command again"
    )]
    Unsure,
    /// A value isn't what its key says.
    #[error("state topic {STATE_TOPIC}: the value of {key} can't be read: {reason}")]
    Value {
        /// The key.
        key: String,
        /// The parser's words.
        reason: String,
    },
}

impl StateError {
    /// The text without the hint, for where the hint has a place of its own.
    pub fn without_hint(&self) -> String {
        let text = self.to_string();
        let hint = format!("; {NEWER_HINT}");
        text.strip_suffix(&hint).map_or(text.clone(), str::to_owned)
    }

    /// See [`WireError::cure_if_not_reached`].
    pub fn cure_if_not_reached(&self) -> Option<&str> {
        match self {
            Self::Wire(error) => error.cure_if_not_reached(),
            _ => None,
        }
    }
}

/// A key and its value; `None` removes it.
pub type StateRecord = (String, Option<Arc<[u8]>>);

/// The state topic, read and kept in memory.
#[derive(Debug)]
pub struct StateStore {
    cluster: Cluster,
    /// The same, by the connection for what is written. A broker answers one request of a connection after
    /// the other, and a record is answered when all in-sync replicas have it: while one of them hangs,
    /// questions go on, the look at the claim among them.
    written_to: Cluster,
    partition: TopicPartition,
    /// Of the offset maps' segments, only those with such keys are kept.
    segments: Option<String>,
    /// Whether the topic isn't there: so far it was only looked at.
    is_unmade: AtomicBool,
    /// One reader at a time: two would take in the same records in another order.
    reading: tokio::sync::Mutex<Shared>,
    /// How many looks at the log have begun.
    looks: AtomicU64,
    /// Whether every look is waited for, see [`StateStore::hurry`].
    hurries: AtomicBool,
    writer: Writer,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    reached: Reached,
    last: BTreeMap<String, Entry>,
    /// The first value of each flow's own key since the last compaction: who was first, when two
    /// raced.
    first: HashMap<String, Arc<[u8]>>,
    /// The values of each claim's and each lease's key in the log's order, with their offsets: whose it is
    /// isn't told by the newest alone.
    claims: HashMap<String, VecDeque<ClaimValue>>,
    /// How often the log was read anew because it had shrunk.
    shrunk: u64,
    /// Once set it stays: what is in the topic now isn't ours to add to.
    lost: Option<Loss>,
    /// What was written while the log is being read anew.
    meanwhile: Option<Vec<ReadRecord>>,
}

/// What readers leave each other.
#[derive(Debug, Default)]
struct Shared {
    /// The number of the last look that read all that was there when it began.
    whole: u64,
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

/// A record and its offset.
type ReadRecord = (String, Option<Arc<[u8]>>, i64);

/// What a fetch brought.
struct TakenIn {
    records: Vec<ReadRecord>,
    next_offset: i64,
    epoch: Option<i32>,
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

    /// As [`StateStore::open`], but nothing is made by looking: where there is no topic the store is empty, until
    /// [`StateStore::make`].
    ///
    /// # Errors
    /// As [`StateStore::open`].
    pub async fn open_to_look(cluster: &Cluster, flow: &str) -> Result<Self, StateError> {
        let segments = Some(keys::segments_of_flow(flow));
        if let Some(store) = Self::read_existing(cluster, segments.clone()).await? {
            return Ok(store);
        }
        let store = Self::at(cluster, segments);
        store.is_unmade.store(true, Ordering::Relaxed);
        Ok(store)
    }

    /// Makes the topic where it was only looked at and isn't there.
    ///
    /// # Errors
    /// As [`StateStore::open`].
    pub async fn make(&self) -> Result<(), StateError> {
        if !self.is_unmade.load(Ordering::Relaxed) {
            return Ok(());
        }
        create(&self.cluster, self.cluster.cached().brokers.len()).await?;
        self.refresh().await?;
        self.is_unmade.store(false, Ordering::Relaxed);
        Ok(())
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
        if !Self::exists(cluster).await? {
            return Ok(None);
        }
        let store = Self::at(cluster, segments);
        store.refresh().await?;
        Ok(Some(store))
    }

    /// Whether the cluster has a state topic. One that may not be seen or has no leader is there, as far as anybody can
    /// tell, and one that a single broker doesn't know may only be unknown to that one: it may be behind. That there is
    /// none is known from more than half of the brokers.
    ///
    /// # Errors
    /// When that isn't known.
    pub async fn exists(cluster: &Cluster) -> Result<bool, StateError> {
        let topics = [STATE_TOPIC.to_owned()];
        let metadata = cluster.metadata(Some(&topics)).await?;
        if is_described(cluster, &metadata)? {
            return Ok(true);
        }
        let mut asked = JoinSet::new();
        for broker in metadata.brokers.keys().copied() {
            let (cluster, topics) = (cluster.clone(), topics.clone());
            asked.spawn(async move { is_described_at(&cluster, broker, &topics).await });
        }
        let brokers = metadata.brokers.len();
        let (mut absent, mut silent) = (0, None);
        while let Some(answer) = asked.join_next().await {
            match brought(answer) {
                Ok(Ok(false)) => absent += 1,
                Ok(told) => return told,
                // Which cluster it is counts more than who is away.
                Err(error) if error.is_other_cluster() => silent = Some(error),
                Err(error) => silent = silent.or(Some(error)),
            }
        }
        if is_none(absent, brokers) {
            return Ok(false);
        }
        // Half of them may be the ones that are behind, and nobody is nobody's word.
        Err(silent.unwrap_or_else(|| nobody_tells(cluster)).into())
    }

    /// The cluster that it is on.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn at(cluster: &Cluster, segments: Option<String>) -> Self {
        Self {
            segments,
            cluster: cluster.apart(Role::State),
            written_to: cluster.apart(Role::StateWrites),
            partition: TopicPartition {
                topic: STATE_TOPIC.to_owned(),
                partition: 0,
            },
            is_unmade: AtomicBool::new(false),
            reading: tokio::sync::Mutex::default(),
            looks: AtomicU64::new(0),
            hurries: AtomicBool::new(false),
            writer: Writer::default(),
            inner: Mutex::default(),
        }
    }

    /// Reads what was appended since the last time, by whomever. A log that lost records is read
    /// anew, see [`StateStore::shrunk`].
    ///
    /// # Errors
    /// When the topic can't be read; [`StateError::Lost`], from then on always, when it was deleted
    /// or replaced.
    pub async fn refresh(&self) -> Result<(), StateError> {
        self.read_new(false).await
    }

    /// As [`StateStore::refresh`], for who expects something new and is waited for: that comes with the look, not behind it.
    ///
    /// # Errors
    /// As [`StateStore::refresh`].
    pub async fn refresh_ahead(&self) -> Result<(), StateError> {
        self.read_new(true).await
    }

    /// From now on clients wait for every look: what is new comes with it, not behind it. That is one round trip to a
    /// cluster that may be far away, for a question more.
    pub fn hurry(&self) {
        self.hurries.store(true, Ordering::Relaxed);
    }

    async fn read_new(&self, is_expected: bool) -> Result<(), StateError> {
        let before = self.looks.load(Ordering::SeqCst);
        let mut shared = self.reading.lock().await;
        if shared.whole > before {
            // A look that began behind this call has read what there is to read.
            return Ok(());
        }
        // Who asks in the same moment shares this one.
        tokio::task::yield_now().await;
        let number = self.looks.fetch_add(1, Ordering::SeqCst) + 1;
        self.read_once(is_expected || self.hurries.load(Ordering::Relaxed))
            .await?;
        shared.whole = number;
        Ok(())
    }

    async fn read_once(&self, is_expected: bool) -> Result<(), StateError> {
        // Of a reading anew that nobody waited for to its end.
        self.inner().meanwhile = None;
        if let Some(loss) = self.inner().lost {
            return Err(StateError::Lost(loss));
        }
        let from = self.inner().reached.next_offset;
        let ahead = async {
            // What was there before the log was cut counts no more, and the look says so.
            match is_expected && from > 0 {
                true => wire::fetch_one(&self.cluster, &self.partition, from, FETCH_BYTES)
                    .await
                    .ok(),
                false => None,
            }
        };
        let (look, ahead) = tokio::join!(self.look_until_sure(), ahead);
        let look = look?;
        if let (Look::Goes { .. }, Some(fetched)) = (&look, ahead)
            && !fetched.records.is_empty()
        {
            let taken = read_records(fetched.records, from)?;
            let mut inner = self.inner();
            self.apply(&mut inner, taken);
        }
        match look {
            Look::Goes { end } => match self.read_on(end).await {
                // It lost its beginning up to behind what was read, or its end just now.
                Err(StateError::Wire(error)) if is_out_of_range(&error) => self.shrink().await,
                other => other,
            },
            Look::Lost(Loss::Shrunk) => self.shrink().await,
            Look::Lost(loss) => {
                tracing::error!(loss = %loss, "the state topic {STATE_TOPIC} is lost: {loss}");
                self.inner().lost = Some(loss);
                Err(StateError::Lost(loss))
            }
        }
    }

    /// Reads the whole topic again, so that [`StateStore::first`] follows the log's order also for
    /// what this process wrote itself.
    ///
    /// # Errors
    /// When the topic can't be read.
    pub async fn reload(&self) -> Result<(), StateError> {
        self.refresh().await?;
        let _reading = self.reading.lock().await;
        self.read_anew().await
    }

    /// How often the log was read anew because acknowledged records were lost from it: whoever
    /// decided something by what it read before must decide again.
    pub fn shrunk(&self) -> u64 {
        self.inner().shrunk
    }

    async fn shrink(&self) -> Result<(), StateError> {
        tracing::error!(
            "the state topic {STATE_TOPIC} lost records that were acknowledged; it is read anew"
        );
        self.read_anew().await?;
        self.inner().shrunk += 1;
        Ok(())
    }

    /// Looks at the log; again, while it seems lost and isn't sure.
    async fn look_until_sure(&self) -> Result<Look, StateError> {
        let mut looks = 1;
        loop {
            let look = self.look().await?;
            if matches!(look, Look::Goes { .. }) || looks == LOOKS {
                return Ok(look);
            }
            looks += 1;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn look(&self) -> Result<Look, StateError> {
        let reached = self.inner().reached;
        let end = async {
            self.offset(OffsetSpec::Latest)
                .await
                .map_err(StateError::Wire)
        };
        // A broker answers in the order of its questions: where the log ends comes first.
        let (end, described) = match tokio::try_join!(end, self.describe(&reached)) {
            Ok(seen) => seen,
            Err(StateError::Lost(loss)) => return Ok(Look::Lost(loss)),
            Err(error) => return Err(error),
        };
        let may_have_forked = match described {
            Some((_, leader_epoch)) => leader_epoch > reached.epoch,
            // Whatever is new may be of another epoch.
            None => end > reached.next_offset,
        };
        let epoch_end = if reached.epoch >= 0 && may_have_forked {
            self.end_of_epoch(reached.epoch).await?
        } else {
            None
        };
        let topic_id = described.map_or(Uuid::nil(), |(topic_id, _)| topic_id);
        let seen = Seen {
            topic_id,
            end,
            epoch_end,
        };
        Ok(match loss(&reached, &seen) {
            Some(loss) => Look::Lost(loss),
            None => {
                if !topic_id.is_nil() {
                    self.inner().reached.topic_id = topic_id;
                }
                Look::Goes { end }
            }
        })
    }

    /// The topic's id and its leader's epoch, as its leader tells them: a broker that hangs and leads
    /// nothing of it isn't waited for. `None` where nobody tells in time; what was told before says
    /// nothing of now.
    async fn describe(&self, reached: &Reached) -> Result<Option<(Uuid, i32)>, StateError> {
        let topics = [self.partition.topic.clone()];
        let asking = async {
            match self.cluster.cached().leader(STATE_TOPIC, 0) {
                Some((leader, _)) => self.cluster.metadata_at(leader, &topics).await,
                None => self.cluster.metadata(Some(&topics)).await,
            }
        };
        // A look tells whose claim stands, and is worth nothing when it comes late: which topic it is may be told by the
        // next one.
        let within = self.cluster.answers_within();
        let metadata = match tokio::time::timeout(within, asking).await {
            Ok(Ok(metadata)) => metadata,
            Ok(Err(error)) if error.is_other_cluster() => return Err(error.into()),
            Ok(Err(_)) | Err(_) => return Ok(None),
        };
        match metadata.described(STATE_TOPIC) {
            Ok(Some(topic)) => {
                let leader = metadata.leader(STATE_TOPIC, 0);
                let leader_epoch = leader.map_or(-1, |(_, epoch)| epoch);
                Ok(Some((topic.topic_id, leader_epoch)))
            }
            // A topic that was just made may not be known everywhere; the look at its end waits.
            _ if reached.topic_id.is_nil() => Ok(None),
            // Whatever it is, the look at the end meets it and has the words.
            Err(_) => Ok(None),
            Ok(None) => Err(StateError::Lost(Loss::Deleted)),
        }
    }

    async fn offset(&self, spec: OffsetSpec) -> Result<i64, WireError> {
        let partitions = [self.partition.clone()];
        let mut answers = wire::list_offsets(&self.cluster, &partitions, spec).await;
        answers.remove(&self.partition).unwrap_or_else(|| {
            let context = self.context();
            let detail = "the answer doesn't mention it".to_owned();
            Err(WireError::Decode {
                context: Arc::new(context),
                detail,
            })
        })
    }

    fn context(&self) -> ErrorContext {
        ErrorContext {
            subject: Some(self.partition.to_string()),
            ..ErrorContext::cluster(self.cluster.name())
        }
    }

    /// `None` where the broker doesn't know the epoch: compaction may have taken all of its records.
    async fn end_of_epoch(&self, epoch: i32) -> Result<Option<i64>, WireError> {
        let asked = [(self.partition.clone(), epoch)];
        let mut answers = wire::offset_for_leader_epoch(&self.cluster, &asked).await;
        let answer = answers.remove(&self.partition).transpose()?;
        Ok(answer.map(|(_, end)| end).filter(|end| *end >= 0))
    }

    /// Reads up to `end`.
    async fn read_on(&self, end: i64) -> Result<(), StateError> {
        loop {
            let from = self.inner().reached.next_offset;
            if from >= end {
                return Ok(());
            }
            let from = match from {
                0 => self.offset(OffsetSpec::Earliest).await?,
                from => from,
            };
            let taken = self.fetch(from, end).await?;
            let mut inner = self.inner();
            self.apply(&mut inner, taken);
        }
    }

    /// Reads the log from its beginning; until that is done, what was known stays.
    async fn read_anew(&self) -> Result<(), StateError> {
        self.inner().meanwhile = Some(Vec::new());
        let read = self.read_all().await;
        let mut inner = self.inner();
        let meanwhile = inner.meanwhile.take().unwrap_or_default();
        let mut read = read?;
        read.reached.topic_id = inner.reached.topic_id;
        read.shrunk = inner.shrunk;
        *inner = read;
        for (key, value, offset) in meanwhile {
            inner.keep(key, value, offset);
        }
        Ok(())
    }

    async fn read_all(&self) -> Result<Inner, StateError> {
        let (start, end) = tokio::try_join!(
            self.offset(OffsetSpec::Earliest),
            self.offset(OffsetSpec::Latest)
        )?;
        let mut inner = Inner::default();
        inner.reached.next_offset = start;
        while inner.reached.next_offset < end {
            let taken = self.fetch(inner.reached.next_offset, end).await?;
            self.apply(&mut inner, taken);
        }
        Ok(inner)
    }

    /// Below `end` nothing is passed over: a new leader's high watermark may lag for a moment.
    async fn fetch(&self, from: i64, end: i64) -> Result<TakenIn, StateError> {
        for _ in 0..LOOKS {
            let fetched =
                wire::fetch_one(&self.cluster, &self.partition, from, FETCH_BYTES).await?;
            if !fetched.records.is_empty() {
                return read_records(fetched.records, from);
            }
            if fetched.high_watermark >= end {
                // Compaction left nothing up to the end.
                return Ok(TakenIn {
                    records: Vec::new(),
                    next_offset: end,
                    epoch: None,
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let code = ResponseError::OffsetNotAvailable;
        Err(WireError::server(self.context(), code, None).into())
    }

    /// Notes records that were read: also what we wrote ourselves comes by here, later.
    fn apply(&self, inner: &mut Inner, taken: TakenIn) {
        for (key, value, offset) in taken.records {
            if self.is_kept(&key) {
                inner.take_in(key, value, offset);
            }
        }
        inner.reached.next_offset = taken.next_offset;
        inner.reached.epoch = taken.epoch.unwrap_or(inner.reached.epoch);
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

    /// Refuses a flow of whose state a newer Twinlog wrote anything.
    ///
    /// # Errors
    /// [`StateError::Newer`] with the first such key.
    pub fn refuse_newer(&self, flow: &str) -> Result<(), StateError> {
        let inner = self.inner();
        let of_flow = inner.last.iter().filter(|(key, _)| keys::is_of(key, flow));
        of_flow
            .filter_map(|(key, entry)| Some((key, entry.value.as_deref()?)))
            .try_for_each(|(key, value)| refuse_newer(key, value))
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

    /// The values of a [`Claim`](super::Claim)'s or a [`LeaseRecord`](super::LeaseRecord)'s key that are still in
    /// the log, in its order and as far as it was read: what was only just written isn't among them.
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

    /// Where the newest of [`StateStore::in_order`] is in the log: as long as it is the same, so are they.
    pub fn newest_in_order(&self, key: &str) -> Option<i64> {
        let inner = self.inner();
        let (offset, _) = inner.claims.get(key)?.back()?;
        Some(*offset)
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

    /// Everything that this store writes from now on carries this producer id and epoch, beginning
    /// with the next record: the broker refuses it once somebody has written with a higher epoch.
    pub async fn write_as(&self, producer_id: i64, producer_epoch: i16) {
        let writer = &self.writer;
        writer.become_generation(producer_id, producer_epoch).await;
    }

    /// Notes that this process runs, where nothing can be written now: behind a long pause it writes nothing any more.
    pub fn note_awake(&self) {
        self.writer.note_awake();
    }

    /// Writes a value and returns when all in-sync replicas have it.
    ///
    /// # Errors
    /// When the value wasn't (or may not have been) written.
    pub async fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StateError> {
        let value = encode(key, value)?;
        self.append_all(vec![(key.to_owned(), Some(value))]).await
    }

    /// A value as it is written, for [`StateStore::write_all`].
    ///
    /// # Errors
    /// When it can't be encoded.
    pub fn record<T: Serialize>(key: String, value: &T) -> Result<StateRecord, StateError> {
        let value = encode(&key, value)?;
        Ok((key, Some(value)))
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
        if self.may_be_another_topic() {
            self.refresh().await?;
        }
        if let Some(loss) = self.inner().lost {
            return Err(StateError::Lost(loss));
        }
        let read_before = self.before_writing(&batch)?;
        let written = self
            .writer
            .write(&self.written_to, &self.partition, &records);
        let written = written.await?;
        let first = written.offset;
        if first < read_before || written.is_first {
            // It landed below what was read before it was sent: the log isn't the one that was
            // read. The look at it says how, and takes in what was written.
            return self.refresh().await;
        }
        let mut inner = self.inner();
        for (offset, (key, value)) in (first..).zip(batch) {
            if !self.is_kept(&key) {
                continue;
            }
            if let Some(meanwhile) = &mut inner.meanwhile {
                meanwhile.push((key.clone(), value.clone(), offset));
            }
            inner.keep(key, value, offset);
        }
        Ok(())
    }

    /// How far the log was read, unless something newer would be overwritten.
    fn before_writing(&self, batch: &[StateRecord]) -> Result<i64, StateError> {
        let inner = self.inner();
        for (key, _) in batch {
            let known = inner.last.get(key).and_then(|it| it.value.as_deref());
            known.map_or(Ok(()), |known| refuse_newer(key, known))?;
        }
        Ok(inner.reached.next_offset)
    }

    /// Whether somebody's metadata already knows the topic by another id. It costs nothing, and
    /// nothing is written into a topic that was made anew.
    fn may_be_another_topic(&self) -> bool {
        let known = self.inner().reached.topic_id;
        let cached = self.cluster.cached();
        let cached = cached.topics.get(STATE_TOPIC);
        cached.is_some_and(|topic| topic.error.is_some() || topic.topic_id != known)
            && !known.is_nil()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look at the log found.
enum Look {
    /// It goes on where it was read.
    Goes {
        /// Where readers end.
        end: i64,
    },
    /// It isn't the log that was read.
    Lost(Loss),
}

impl Inner {
    fn take_in(&mut self, key: String, value: Option<Arc<[u8]>>, offset: i64) {
        if keys::is_flow(&key) {
            match &value {
                Some(value) => {
                    let first = self.first.entry(key.clone());
                    first.or_insert_with(|| value.clone());
                }
                None => {
                    self.first.remove(&key);
                }
            }
        }
        if let Some(value) = value.as_ref().filter(|_| keys::is_ordered(&key)) {
            self.note_claim(&key, offset, value);
        }
        // A segment that we wrote shares its bytes with its map: those stay.
        let is_known = |known: &Entry| {
            known.offset > offset || (known.offset == offset && known.value.is_some())
        };
        let last = self.last.get(&key);
        if last.is_some_and(is_known) {
            return;
        }
        let was = last.and_then(|known| known.value.as_deref());
        if keys::is_group(&key) && is_of_an_owner_before(was, value.as_deref()) {
            return;
        }
        if value.is_some() {
            self.last.insert(key, Entry { offset, value });
        } else {
            self.last.remove(&key);
        }
    }

    /// Notes a record that was written.
    fn keep(&mut self, key: String, value: Option<Arc<[u8]>>, offset: i64) {
        let known = self.last.get(&key).map(|known| known.offset);
        // Where the log was read up to there, it has said what holds: its answer to a write may
        // come later than a newer value, or than its removal.
        let is_old = match known {
            Some(known) => known > offset || (known < offset && offset < self.reached.next_offset),
            None => offset < self.reached.next_offset,
        };
        if !is_old {
            self.last.insert(key, Entry { offset, value });
        }
    }
}

/// Whether an owner of a lower generation has written this: it was cut off from the target with this on its way, and another one
/// has stored the same group since. What names no generation counts.
fn is_of_an_owner_before(known: Option<&[u8]>, now: Option<&[u8]>) -> bool {
    #[derive(serde::Deserialize)]
    struct Of {
        #[serde(default)]
        generation: u64,
    }
    let generation = |value: &[u8]| serde_json::from_slice(value).map_or(0, |it: Of| it.generation);
    let (Some(known), Some(now)) = (known, now) else {
        return false;
    };
    let now = generation(now);
    now > 0 && now < generation(known)
}

/// Reads the records from `from` on.
fn read_records(records: bytes::Bytes, from: i64) -> Result<TakenIn, StateError> {
    let mut taken = TakenIn {
        records: Vec::new(),
        next_offset: from + 1,
        epoch: None,
    };
    for batch in batch::split(records) {
        let batch = batch?;
        batch::verify_crc(&batch)?;
        taken.next_offset = taken.next_offset.max(batch.header.next_offset());
        taken.epoch = Some(batch.header.leader_epoch);
        if batch.header.is_control() || batch.header.count == 0 {
            continue;
        }
        for record in batch::open(&batch, VALUE_BYTES_MAX)? {
            let key = record
                .key
                .and_then(|key| String::from_utf8(key.to_vec()).ok());
            if let Some(key) = key.filter(|_| record.offset >= from) {
                let value = record.value.map(|value| Arc::from(&value[..]));
                taken.records.push((key, value, record.offset));
            }
        }
    }
    Ok(taken)
}

fn is_out_of_range(error: &WireError) -> bool {
    error.server_code() == Some(ResponseError::OffsetOutOfRange)
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

/// Reads the value of a key as it is in the topic.
///
/// # Errors
/// When it can't be read as `T`, or a newer Twinlog wrote it.
pub fn parse<T: DeserializeOwned>(
    key: &str,
    bytes: Option<&[u8]>,
) -> Result<Option<T>, StateError> {
    if let Some(bytes) = bytes {
        refuse_newer(key, bytes)?;
    }
    bytes
        .map(serde_json::from_slice)
        .transpose()
        .map_err(|error| StateError::Value {
            key: key.to_owned(),
            reason: error.to_string(),
        })
}

/// The answer about the topic named no broker that could be asked.
fn nobody_tells(cluster: &Cluster) -> WireError {
    WireError::NoBroker {
        context: Arc::new(ErrorContext::cluster(cluster.name())),
        detail: format!("it names no brokers, so whether it has {STATE_TOPIC} isn't known"),
    }
}

/// Whether there is no such topic, where so many of the brokers don't know it: one that doesn't may be behind.
fn is_none(absent: usize, brokers: usize) -> bool {
    absent * 2 > brokers
}

/// Whether the topic is in an answer about it.
fn is_described(cluster: &Cluster, metadata: &Metadata) -> Result<bool, StateError> {
    let described = metadata.described(STATE_TOPIC);
    let described = described.map_err(|code| {
        let context = ErrorContext {
            api: Some("Metadata"),
            subject: Some(STATE_TOPIC.to_owned()),
            ..ErrorContext::cluster(cluster.name())
        };
        WireError::server(context, code, None)
    })?;
    Ok(described.is_some())
}

/// The same, as one broker says it; or why that one says nothing.
async fn is_described_at(
    cluster: &Cluster,
    broker: i32,
    topics: &[String],
) -> Result<Result<bool, StateError>, WireError> {
    let asking = cluster.metadata_at(broker, topics);
    let within = cluster.or_longer(ABSENT_WITHIN);
    let answer = tokio::time::timeout(within, asking).await;
    let metadata = answer.unwrap_or_else(|_| {
        let context = ErrorContext {
            broker: Some(broker),
            api: Some("Metadata"),
            subject: Some(STATE_TOPIC.to_owned()),
            ..ErrorContext::cluster(cluster.name())
        };
        Err(WireError::Timeout {
            context: Arc::new(context),
            after: within,
        })
    })?;
    Ok(is_described(cluster, &metadata))
}

async fn create(cluster: &Cluster, brokers: usize) -> Result<(), WireError> {
    let replicas = wanted_replicas(brokers);
    let [all, least] = at_creation(replicas);
    let create = |configs| async move {
        let replicas = i16::try_from(replicas).unwrap_or(1);
        wire::create_topic(cluster, STATE_TOPIC, 1, replicas, &configs).await
    };
    let created = match create(all).await {
        // What this target doesn't allow must not keep it from being made; `mend_settings` says what.
        Err(WireError::Server {
            code: ResponseError::InvalidConfig | ResponseError::PolicyViolation,
            ..
        }) => create(least).await,
        other => other,
    };
    match created {
        Err(WireError::Server {
            code: ResponseError::TopicAlreadyExists,
            ..
        }) => Ok(()),
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was cut off with this on its way, and another one has ended in order since.
    #[test]
    fn what_an_owner_before_had_on_its_way_does_not_count() {
        let of = |generation: &str| format!("{{\"v\":1{generation}}}").into_bytes();
        let (none, first, second) = (of(""), of(",\"generation\":1"), of(",\"generation\":2"));
        assert!(is_of_an_owner_before(Some(&second), Some(&first)));
        for (known, now) in [
            (&first, &second),
            (&second, &second),
            (&second, &none),
            (&none, &first),
        ] {
            assert!(!is_of_an_owner_before(Some(known), Some(now)));
        }
        assert!(!is_of_an_owner_before(None, Some(&first)));
        assert!(
            !is_of_an_owner_before(Some(&second), None),
            "it is forgotten"
        );
    }

    #[test]
    fn that_there_is_none_is_more_than_half_of_the_brokers_word() {
        for (absent, brokers, expected) in [
            (0, 0, false),
            (1, 1, true),
            (1, 2, false),
            (2, 3, true),
            (2, 4, false),
            (3, 4, true),
        ] {
            assert_eq!(is_none(absent, brokers), expected, "{absent} of {brokers}");
        }
    }
}
