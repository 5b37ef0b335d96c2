//! Who writes to the source and commits there meanwhile: small, so that the machine has time for the
//! rest, and patient, so that nothing that happens to the source breaks it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::judge::{Expected, ID_HEADER};
use super::ledger::Ledger;
use super::topics::{TOPICS, Topic, Writers};
use crate::support::Codec;
use crate::support::admin::client;
use crate::support::groups::group_client;

/// How long anything may take: brokers are away for seconds, and everything is healed before the load
/// must end.
const PATIENCE: Duration = Duration::from_secs(180);
/// One call of a producer.
const CALL: Duration = Duration::from_secs(10);
/// How often a plain producer writes.
const TICK: Duration = Duration::from_millis(100);
/// How often a group commits.
const COMMIT_PAUSE: Duration = Duration::from_millis(400);
/// How long a producer rests that writes seldom: longer than the target remembers it.
const REST: Duration = Duration::from_secs(40);

/// The group that reads this topic.
pub fn group_of(topic: &str) -> String {
    format!("{topic}-readers")
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a writer knows.
#[derive(Clone, Debug)]
struct Job {
    bootstrap: String,
    topic: Topic,
    /// Begins the ids of its records.
    name: String,
    seed: u64,
    ledger: Arc<Ledger>,
    stopping: Arc<AtomicBool>,
}

impl Load {
    /// Starts the writers and groups of all topics. `round` makes their records' ids their own.
    pub fn start(bootstrap: &str, seed: u64, round: usize, ledger: &Arc<Ledger>) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (index, topic) in (0..).zip(TOPICS) {
            let job = |kind: &str| Job {
                bootstrap: bootstrap.to_owned(),
                topic,
                name: format!("{}-{kind}{round}", topic.name),
                seed: seed.wrapping_add(index),
                ledger: ledger.clone(),
                stopping: stopping.clone(),
            };
            let (plain, transactions, committer) = (job("p"), job("t"), job("g"));
            if topic.writers != Writers::Transactional {
                threads.push(spawn(plain, Job::write));
            }
            if matches!(topic.writers, Writers::Transactional | Writers::Both) {
                threads.push(spawn(transactions, Job::write_transactions));
            }
            threads.push(spawn(committer, Job::commit_positions));
        }
        Self { stopping, threads }
    }

    /// Lets everybody finish. What went wrong is in the ledger.
    pub fn stop(mut self) {
        self.stopping.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
    }
}

fn spawn(job: Job, work: fn(&Job) -> Result<(), String>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        if let Err(failure) = work(&job) {
            job.ledger.fail(format!("{}: {failure}", job.name));
        }
    })
}

impl Job {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Rests, but not for long when it has to stop.
    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_stopping() {
            std::thread::sleep(TICK.min(time));
        }
    }

    /// Writes a few records at each tick, and now and then many at once.
    fn write(&self) -> Result<(), String> {
        let mut dice = StdRng::seed_from_u64(self.seed);
        let producer = self.producer(&mut dice, None)?;
        let mut number = 0;
        while !self.is_stopping() {
            let burst = dice.random_bool(0.01);
            let count = if burst { 300 } else { dice.random_range(0..6) };
            for _ in 0..count {
                self.send(&producer, number, &mut dice)?;
                number += 1;
            }
            producer.poll(Duration::ZERO);
            let seldom = self.topic.writers == Writers::Seldom && dice.random_bool(0.05);
            self.rest(if seldom { REST } else { TICK });
        }
        patiently(|| producer.flush(CALL)).map_err(|error| format!("flush: {error}"))
    }

    /// Writes transactions, one in four of them aborted, some of them long.
    fn write_transactions(&self) -> Result<(), String> {
        let mut dice = StdRng::seed_from_u64(self.seed ^ 1);
        let mut number = 0;
        let mut producer = self.transactional(&mut dice)?;
        while !self.is_stopping() {
            let count = if dice.random_bool(0.03) {
                400
            } else {
                dice.random_range(1..8)
            };
            if let Err(error) = self.transaction(&producer, &mut number, count, &mut dice) {
                // Another producer with the id ends what this one has begun.
                println!("{}: a new producer after: {error}", self.name);
                producer = self.transactional(&mut dice)?;
            }
            self.rest(Duration::from_millis(dice.random_range(50..400)));
        }
        // Markers are written before somebody else may begin with the id.
        self.transactional(&mut dice).map(drop)
    }

    /// One transaction. An error leaves it in doubt: the source will tell.
    fn transaction(
        &self,
        producer: &BaseProducer<Reports>,
        number: &mut u64,
        count: u64,
        dice: &mut StdRng,
    ) -> Result<(), String> {
        let told = |what: &str, error: KafkaError| format!("{what}: {error}");
        producer.context().take();
        producer
            .begin_transaction()
            .map_err(|it| told("begin", it))?;
        for _ in 0..count {
            self.send(producer, *number, dice)?;
            *number += 1;
        }
        patiently(|| producer.flush(CALL)).map_err(|it| told("flush", it))?;
        if dice.random_bool(0.25) {
            return patiently(|| producer.abort_transaction(CALL)).map_err(|it| told("abort", it));
        }
        patiently(|| producer.commit_transaction(CALL)).map_err(|it| told("commit", it))?;
        for (partition, offset, record) in producer.context().take() {
            self.ledger
                .acknowledge(self.topic.name, partition, offset, record);
        }
        Ok(())
    }

    fn transactional(&self, dice: &mut StdRng) -> Result<BaseProducer<Reports>, String> {
        let id = format!("{}-writer", self.topic.name);
        let producer = self.producer(dice, Some(&id))?;
        patiently(|| producer.init_transactions(CALL)).map_err(|error| format!("init: {error}"))?;
        Ok(producer)
    }

    fn producer(
        &self,
        dice: &mut StdRng,
        transactional_id: Option<&str>,
    ) -> Result<BaseProducer<Reports>, String> {
        let codec = Codec::ALL[dice.random_range(0..Codec::ALL.len())];
        let mut config: ClientConfig = client(&self.bootstrap);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", codec.name())
            .set("linger.ms", dice.random_range(0..30).to_string())
            // It waits for a source that is away for as long as that takes.
            .set("message.timeout.ms", PATIENCE.as_millis().to_string());
        if let Some(id) = transactional_id {
            config
                .set("transactional.id", id)
                .set("transaction.timeout.ms", PATIENCE.as_millis().to_string());
        }
        let reports = Reports {
            ledger: self.ledger.clone(),
            topic: self.topic.name,
            held: transactional_id.map(|_| Mutex::default()),
        };
        config
            .create_with_context(reports)
            .map_err(|error| error.to_string())
    }

    fn send(
        &self,
        producer: &BaseProducer<Reports>,
        number: u64,
        dice: &mut StdRng,
    ) -> Result<(), String> {
        let id = format!("{}-{number}", self.name);
        let few = self.topic.writers == Writers::FewKeys;
        let key = format!("key-{}", dice.random_range(0..if few { 25 } else { 1_000 }));
        let value: Vec<u8> = {
            let length = dice.random_range(0..300);
            let letters = (0..length).map(|_| dice.random_range(b'a'..b'i'));
            letters.collect()
        };
        let mut headers = OwnedHeaders::new().insert(Header {
            key: ID_HEADER,
            value: Some(&id),
        });
        if number.is_multiple_of(3) {
            headers = headers.insert(Header {
                key: "null",
                value: None::<&[u8]>,
            });
        }
        let tombstone = number.is_multiple_of(17);
        let partition = dice.random_range(0..self.topic.partitions);
        let sent = Box::new(Expected {
            id: id.clone(),
            key: Some(key.clone().into_bytes()),
        });
        let mut record: BaseRecord<'_, [u8], [u8], Box<Expected>> =
            BaseRecord::with_opaque_to(self.topic.name, sent)
                .partition(partition)
                .key(key.as_bytes())
                .headers(headers);
        if !tombstone {
            record = record.payload(&value);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < until =>
                {
                    producer.poll(TICK);
                    record = back;
                }
                Err((error, _)) => return Err(format!("sending {id}: {error}")),
            }
        }
    }

    /// Commits a group's positions, forward and sometimes back.
    fn commit_positions(&self) -> Result<(), String> {
        let mut dice = StdRng::seed_from_u64(self.seed ^ 2);
        let group = group_of(self.topic.name);
        let consumer = group_client(&self.bootstrap, &group);
        while !self.is_stopping() {
            let mut list = TopicPartitionList::new();
            for partition in 0..self.topic.partitions {
                let end = self.ledger.end(self.topic.name, partition);
                let back = if dice.random_bool(0.1) { 20 } else { 0 };
                let position = Offset::Offset((end - back).max(0));
                list.add_partition_offset(self.topic.name, partition, position)
                    .map_err(|error| error.to_string())?;
            }
            // A coordinator that is away answers the next time.
            let _ = consumer.commit(&list, CommitMode::Async);
            self.rest(COMMIT_PAUSE);
        }
        Ok(())
    }
}

/// Does it again as long as it may be done again.
fn patiently(mut work: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match work() {
            Err(error) if may_be_done_again(&error) && Instant::now() < until => {
                std::thread::sleep(TICK);
            }
            done => return done,
        }
    }
}

fn may_be_done_again(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

/// Where a record was written.
type Written = (i32, i64, Expected);

/// What a producer is told of its records.
#[derive(Debug)]
struct Reports {
    ledger: Arc<Ledger>,
    topic: &'static str,
    /// Of a transaction: those that wait for its end.
    held: Option<Mutex<Vec<Written>>>,
}

impl Reports {
    /// The records of a transaction.
    fn take(&self) -> Vec<Written> {
        let held = self.held.as_ref();
        held.map_or_else(Vec::new, |held| {
            std::mem::take(&mut *held.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Expected>;

    fn delivery(&self, result: &DeliveryResult<'_>, record: Box<Expected>) {
        match (result, &self.held) {
            (Ok(message), None) => {
                self.ledger
                    .acknowledge(self.topic, message.partition(), message.offset(), *record);
            }
            (Ok(message), Some(held)) => {
                let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                held.push((message.partition(), message.offset(), *record));
            }
            // The transaction fails with it.
            (Err(_), Some(_)) => {}
            (Err((error, _)), None) => self.ledger.fail(format!("{}: {error}", record.id)),
        }
    }
}
