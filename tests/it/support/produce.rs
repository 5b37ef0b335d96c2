//! Writing known data with librdkafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::admin::{client, partition_count};
use super::wait::eventually;

/// How long a flush, a commit or an abort may take; a broker may be restarting meanwhile.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long one call for that waits: it is called again until the deadline, which a busy machine puts off.
const TRY: Duration = Duration::from_secs(5);
/// A machine that stands still aborts no transaction. librdkafka would take this for the time of a request as well.
const TRANSACTION_TIMEOUT_MS: &str = "300000";
const REQUEST_TIMEOUT_MS: &str = "60000";

/// A compression codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// No compression.
    None,
    /// gzip.
    Gzip,
    /// Snappy (librdkafka writes it unframed, Java in xerial framing).
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// All five.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// As clients and topics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Which headers records carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderStyle {
    /// None.
    None,
    /// One ordinary header.
    #[allow(dead_code, reason = "the quickstart uses it")]
    Plain,
    /// In turn: none, ordinary, null value, empty value, empty key, the same key three times,
    /// a key outside ASCII, a binary value.
    Every,
}

/// Numbered records for one topic: value `TOPIC-N`, padded; key `key-(N % keys)`.
#[derive(Clone, Debug)]
pub struct Load {
    /// The topic; it must exist.
    pub topic: String,
    /// The number of the first record.
    pub first: u64,
    /// How many records.
    pub count: u64,
    /// The partition, or record N goes to partition N modulo their count.
    pub partition: Option<i32>,
    /// The codec.
    pub codec: Codec,
    /// The headers.
    pub headers: HeaderStyle,
    /// Values are padded to this many bytes; the padding compresses about 2:1.
    pub value_bytes: usize,
    /// How many different keys; 0 writes null keys.
    pub keys: u64,
    /// Every so many records one has the key `shared`, whatever `keys` says; 0 for none. Compaction
    /// then leaves a gap at each of them.
    pub shared_key_every: u64,
    /// Every so many records one is a tombstone; 0 for none.
    pub tombstone_every: u64,
    /// The create time of record N is this plus N; `None` leaves it to the client's clock.
    pub first_timestamp_ms: Option<i64>,
    /// More librdkafka properties, such as `linger.ms` or `batch.num.messages`.
    pub properties: Vec<(String, String)>,
}

impl Load {
    /// `count` small uncompressed records with 100 keys.
    pub fn new(topic: &str, count: u64) -> Self {
        Self {
            topic: topic.into(),
            first: 0,
            count,
            partition: None,
            codec: Codec::None,
            headers: HeaderStyle::None,
            value_bytes: 0,
            keys: 100,
            shared_key_every: 0,
            tombstone_every: 0,
            first_timestamp_ms: None,
            properties: Vec::new(),
        }
    }

    /// Starts numbering at `first`.
    #[must_use]
    pub fn first(mut self, first: u64) -> Self {
        self.first = first;
        self
    }

    /// Writes to one partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Compresses.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Adds headers.
    #[must_use]
    pub fn headers(mut self, headers: HeaderStyle) -> Self {
        self.headers = headers;
        self
    }

    /// Pads values to `bytes`.
    #[must_use]
    pub fn value_bytes(mut self, bytes: usize) -> Self {
        self.value_bytes = bytes;
        self
    }

    /// Uses `keys` different keys; 0 writes null keys.
    #[must_use]
    pub fn keys(mut self, keys: u64) -> Self {
        self.keys = keys;
        self
    }

    /// Gives every `every`-th record the same key.
    #[must_use]
    pub fn shared_key_every(mut self, every: u64) -> Self {
        self.shared_key_every = every;
        self
    }

    /// Makes every `every`-th record a tombstone.
    #[must_use]
    pub fn tombstone_every(mut self, every: u64) -> Self {
        self.tombstone_every = every;
        self
    }

    /// Sets create times: record N has `first_ms + N`.
    #[must_use]
    pub fn timestamps_from(mut self, first_ms: i64) -> Self {
        self.first_timestamp_ms = Some(first_ms);
        self
    }

    /// Sets a librdkafka property of the producer.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.properties.push((key.into(), value.to_string()));
        self
    }

    /// Writes the records and waits until all are acknowledged by all replicas.
    ///
    /// # Panics
    /// When one is not.
    pub fn produce(&self, bootstrap: &str) {
        let producer = self.producer(bootstrap, &[("enable.idempotence", "true")]);
        let partitions = self.partition_count(bootstrap);
        for number in self.first..self.first + self.count {
            self.send(&producer, number, partitions);
        }
        await_acknowledged(&producer);
        assert_eq!(producer.context().refused(), 0, "records were refused");
    }

    fn producer(&self, bootstrap: &str, properties: &[(&str, &str)]) -> BaseProducer<Deliveries> {
        let mut config: ClientConfig = client(bootstrap);
        config
            .set("compression.type", self.codec.name())
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("message.max.bytes", "20000000")
            .set("queue.buffering.max.messages", "1000000");
        for (key, value) in properties {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
            .create_with_context(Deliveries::default())
            .expect("valid settings")
    }

    fn partition_count(&self, bootstrap: &str) -> u64 {
        let count = partition_count(bootstrap, &self.topic);
        assert!(count > 0, "topic {} does not exist", self.topic);
        u64::try_from(count).expect("positive")
    }

    /// Queues record `number`, waiting while the queue is full.
    fn send(&self, producer: &BaseProducer<Deliveries>, number: u64, partitions: u64) {
        let shared = self.shared_key_every > 0 && number.is_multiple_of(self.shared_key_every);
        let key = match shared {
            true => Some("shared".to_owned()),
            false => (self.keys > 0).then(|| format!("key-{}", number % self.keys)),
        };
        let tombstone = self.tombstone_every > 0 && number.is_multiple_of(self.tombstone_every);
        let value = (!tombstone).then(|| self.value(number));
        let partition = self
            .partition
            .unwrap_or_else(|| i32::try_from(number % partitions).expect("few partitions"));
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&self.topic).partition(partition);
        if let Some(key) = &key {
            record = record.key(key.as_bytes());
        }
        if let Some(value) = &value {
            record = record.payload(value);
        }
        if let Some(first_ms) = self.first_timestamp_ms {
            record = record.timestamp(first_ms + i64::try_from(number).expect("small"));
        }
        if let Some(headers) = headers(self.headers, number) {
            record = record.headers(headers);
        }
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    producer.poll(Duration::from_millis(20));
                    record = back;
                }
                Err((error, _)) => panic!("producing to {}: {error}", self.topic),
            }
        }
        if number.is_multiple_of(1000) {
            producer.poll(Duration::ZERO);
        }
    }

    /// `TOPIC-N `, then padding of hexadecimal digits from a generator seeded with N.
    fn value(&self, number: u64) -> Vec<u8> {
        let mut value = format!("{}-{number} ", self.topic).into_bytes();
        let mut state = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
        while value.len() < self.value_bytes {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            value.extend_from_slice(format!("{:08x}", state >> 32).as_bytes());
        }
        if self.value_bytes > 0 {
            value.truncate(self.value_bytes.max(self.topic.len() + 21));
        }
        value
    }
}

/// Numbered records in transactions, some of them aborted.
#[derive(Clone, Debug)]
pub struct Transactions {
    /// What is written; `count` records per transaction.
    pub load: Load,
    /// How many transactions.
    pub transactions: u64,
    /// How many of 100 are aborted, spread evenly.
    pub abort_percent: u64,
}

impl Transactions {
    /// `transactions` of `load.count` records each, 30 % of them aborted.
    pub fn new(load: Load, transactions: u64) -> Self {
        Self {
            load,
            transactions,
            abort_percent: 30,
        }
    }

    /// Writes them, to their last marker; returns how many records were committed.
    ///
    /// # Panics
    /// When the broker refuses something for good.
    pub fn produce(&self, bootstrap: &str) -> u64 {
        self.produce_until(bootstrap, || false)
    }

    /// The same, of no more transactions than begin before it is enough.
    ///
    /// # Panics
    /// When the broker refuses something for good.
    pub fn produce_until(&self, bootstrap: &str, is_enough: impl Fn() -> bool) -> u64 {
        let id = format!("tx-{}-{}", self.load.topic, rand::random::<u64>());
        let producer = self.producer(bootstrap, &id);
        let partitions = self.load.partition_count(bootstrap);
        let mut committed = 0;
        for transaction in 0..self.transactions {
            if is_enough() {
                break;
            }
            producer
                .begin_transaction()
                .expect("no transaction is open");
            let first = self.load.first + transaction * self.load.count;
            for number in first..first + self.load.count {
                self.load.send(&producer, number, partitions);
            }
            if self.aborts(transaction) {
                // Only what has reached the broker is worth aborting.
                await_acknowledged(&producer);
                await_done("the abort succeeds", || producer.abort_transaction(TRY));
            } else {
                await_done("the commit succeeds", || producer.commit_transaction(TRY));
                committed += self.load.count;
            }
        }
        assert_eq!(producer.context().refused(), 0, "records were refused");
        // A commit is answered before its markers are written. The coordinator lets nobody else begin
        // with the id until they are (`TransactionCoordinator.handleInitProducerId`).
        self.producer(bootstrap, &id);
        committed
    }

    fn producer(&self, bootstrap: &str, id: &str) -> BaseProducer<Deliveries> {
        let properties = [
            ("transactional.id", id),
            ("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS),
            ("socket.timeout.ms", REQUEST_TIMEOUT_MS),
        ];
        let producer = self.load.producer(bootstrap, &properties);
        eventually(DEADLINE, "the transaction coordinator answers", || {
            begin(&producer).map_err(|error| error.to_string())
        });
        producer
    }

    /// Bresenham's rule: the aborted ones are spread over the run, not drawn.
    fn aborts(&self, transaction: u64) -> bool {
        (transaction + 1) * self.abort_percent / 100 > transaction * self.abort_percent / 100
    }
}

/// Waits until each record has its answer.
fn await_acknowledged<C: ProducerContext>(producer: &BaseProducer<C>) {
    eventually(DEADLINE, "all records are acknowledged", || {
        producer.flush(TRY)
    });
}

/// Calls again what wasn't done in the time of one call, and goes on meanwhile.
///
/// # Panics
/// At the deadline, or at once where another call can't help.
fn await_done(what: &str, mut call: impl FnMut() -> KafkaResult<()>) {
    eventually(DEADLINE, what, || match call() {
        Err(KafkaError::Transaction(error)) if !error.is_retriable() => panic!("{what}: {error}"),
        result => result,
    });
}

/// Lets a transactional producer begin. One that isn't connected yet looks for its coordinator half a second later.
///
/// # Errors
/// As the coordinator says.
pub fn begin<C: ProducerContext>(producer: &BaseProducer<C>) -> KafkaResult<()> {
    // Nobody may be there yet, which the coordinator is waited for.
    let _ = producer.client().fetch_metadata(None, DEADLINE);
    producer.init_transactions(DEADLINE)
}

/// Writes `count` numbered records to all partitions of `topic` with one codec.
pub fn produce_numbered(bootstrap: &str, topic: &str, count: u64, codec: Codec) {
    Load::new(topic, count).codec(codec).produce(bootstrap);
}

/// Writes transactions of 10 records each, 30 % of them aborted; returns the committed count.
pub fn produce_transactions(bootstrap: &str, topic: &str, transactions: u64) -> u64 {
    Transactions::new(Load::new(topic, 10), transactions).produce(bootstrap)
}

/// Counts what the broker refused.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    refused: Arc<AtomicU64>,
}

impl Deliveries {
    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            // Aborting throws away what is still queued: that is no refusal.
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PurgeQueue) {
                return;
            }
            eprintln!("refused by {}: {error}", message.topic());
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn headers(style: HeaderStyle, number: u64) -> Option<OwnedHeaders> {
    let list: Vec<(&str, Option<&[u8]>)> = match (style, number % 8) {
        (HeaderStyle::None, _) | (HeaderStyle::Every, 0) => return None,
        (HeaderStyle::Plain, _) | (HeaderStyle::Every, 1) => vec![("source", Some(b"test"))],
        (HeaderStyle::Every, 2) => vec![("null", None)],
        (HeaderStyle::Every, 3) => vec![("empty", Some(b""))],
        (HeaderStyle::Every, 4) => vec![("", Some(b"empty key"))],
        (HeaderStyle::Every, 5) => vec![("k", Some(b"1")), ("k", None), ("k", Some(b"1"))],
        (HeaderStyle::Every, 6) => vec![("größe-大小", Some("ü".as_bytes()))],
        (HeaderStyle::Every, _) => vec![("binary", Some(&[0, 255, 254, 10, 13]))],
    };
    let owned = OwnedHeaders::new_with_capacity(list.len());
    Some(list.into_iter().fold(owned, |headers, (key, value)| {
        headers.insert(Header { key, value })
    }))
}
