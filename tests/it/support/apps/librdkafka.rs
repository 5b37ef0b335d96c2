//! The same applications with librdkafka: a thread each.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::Topic;
use crate::support::admin::client;
use crate::support::book::{Book, Committed, Partition, Read, Told, now_ms};
use crate::support::wait::Stopwatch;

/// Unacknowledged records of a producer.
const OUTSTANDING_MAX: usize = 200;
/// A producer makes no more records, so that nothing grows for ever.
const RECORDS_MAX: u64 = 100_000;
/// Before what failed is tried again.
const REST: Duration = Duration::from_millis(300);
const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// A consumer whose cluster answers closes within this.
const CLOSES_WITHIN: Duration = Duration::from_secs(10);
/// How long a last answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// What isn't committed when a group leaves is read again: the cluster may stand still for a while.
const LEAVES_WITHIN: Duration = Duration::from_secs(15);

/// What an operator tells an application.
#[derive(Debug)]
struct Orders {
    bootstrap: Mutex<String>,
    switches: AtomicUsize,
    is_quiet: AtomicBool,
    is_stopped: AtomicBool,
}

impl Orders {
    fn new(bootstrap: &str) -> Arc<Self> {
        Arc::new(Self {
            bootstrap: Mutex::new(bootstrap.to_owned()),
            switches: AtomicUsize::new(0),
            is_quiet: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
        })
    }

    fn switch(&self, bootstrap: &str) {
        let mut place = self
            .bootstrap
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *place = bootstrap.to_owned();
        self.switches.fetch_add(1, Ordering::Relaxed);
    }

    fn bootstrap(&self) -> String {
        let place = self.bootstrap.lock();
        place.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// An application's thread. Dropped, it is only told to end.
#[derive(Debug)]
struct Running {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(name: &str, bootstrap: &str, run: impl FnOnce(&Orders) + Send + 'static) -> Self {
        let orders = Orders::new(bootstrap);
        let theirs = orders.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&theirs))
            .expect("a thread starts");
        Self {
            orders,
            thread: Some(thread),
        }
    }

    fn stop(&mut self) {
        self.orders.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the application doesn't panic");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.orders.is_stopped.store(true, Ordering::Relaxed);
    }
}

/// A record of an application.
#[derive(Clone, Debug)]
struct Item {
    order: u64,
    partition: Partition,
    value: String,
}

/// How a record's sending ended.
#[derive(Debug)]
enum Outcome {
    At(i64),
    Refused,
    InDoubt,
}

/// Takes outcomes while the producer is polled.
#[derive(Debug, Default)]
struct Outcomes(Mutex<Vec<(u64, Outcome)>>);

impl ClientContext for Outcomes {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {}
}

impl ProducerContext for Outcomes {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, order: Box<u64>) {
        let outcome = match result {
            Ok(message) => Outcome::At(message.offset()),
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(Code::TopicAuthorizationFailed) => Outcome::Refused,
                _ => Outcome::InDoubt,
            },
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((*order, outcome));
    }
}

/// An idempotent producer with many records on their way. What isn't acknowledged is kept, and
/// sent again in its order before anything new.
#[derive(Debug)]
pub(super) struct Writer(Running);

impl Writer {
    /// About `per_second` records a second, to every partition in turn.
    pub(super) fn start(
        name: &'static str,
        bootstrap: &str,
        topics: &[Topic<'_>],
        per_second: u32,
        book: Arc<Book>,
    ) -> Self {
        let partitions = topics
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(|number| ((*topic).to_owned(), number)))
            .collect();
        let pause = Duration::from_secs(1) / per_second;
        Self(Running::start(name, bootstrap, move |orders| {
            let mut writing = Writing {
                name,
                partitions,
                numbers: HashMap::new(),
                made: 0,
                outstanding: BTreeMap::new(),
                in_flight: 0,
                is_refused: false,
                book,
            };
            writing.run(orders, pause);
        }))
    }

    pub(super) fn switch(&self, bootstrap: &str) {
        self.0.orders.switch(bootstrap);
    }

    pub(super) fn switches(&self) -> usize {
        self.0.orders.switches.load(Ordering::Relaxed)
    }

    pub(super) fn quiet(&self) {
        self.0.orders.is_quiet.store(true, Ordering::Relaxed);
    }

    pub(super) fn stop(&mut self) {
        self.0.stop();
    }
}

struct Writing {
    name: &'static str,
    partitions: Vec<Partition>,
    numbers: HashMap<usize, u64>,
    made: u64,
    outstanding: BTreeMap<u64, Item>,
    in_flight: usize,
    /// Then it writes nothing more until it is moved.
    is_refused: bool,
    book: Arc<Book>,
}

impl Writing {
    fn run(&mut self, orders: &Orders, pause: Duration) {
        let mut at = orders.bootstrap();
        let mut producer = idempotent(&at);
        // Whether what is outstanding waits to be sent again, and until when.
        let mut holding: Option<Instant> = None;
        let mut told_quiet = false;
        let mut next = Instant::now();
        while !orders.is_stopped() {
            if orders.bootstrap() != at {
                // An orderly end: what can still be answered is.
                flush(&producer);
                producer.purge(PurgeConfig::default().queue().inflight());
                flush(&producer);
                self.take_outcomes(&producer);
                self.in_flight = 0;
                self.is_refused = false;
                at = orders.bootstrap();
                producer = idempotent(&at);
                holding = Some(Instant::now());
                self.book.note(Told::Switched(self.name.to_owned()));
            }
            producer.poll(Duration::from_millis(1));
            if self.take_outcomes(&producer) {
                holding = Some(Instant::now() + REST);
            }
            if let Some(until) = holding {
                if !self.is_refused && self.in_flight == 0 && Instant::now() >= until {
                    let items = self.outstanding.clone();
                    let all_sent = items.values().all(|item| self.send(&producer, item));
                    holding = (!all_sent).then(|| Instant::now() + REST);
                }
                continue;
            }
            let is_quiet = orders.is_quiet.load(Ordering::Relaxed) || self.made >= RECORDS_MAX;
            if is_quiet && self.outstanding.is_empty() && !told_quiet {
                told_quiet = true;
                self.book.note(Told::Quiet(self.name.to_owned()));
            }
            if !is_quiet && self.outstanding.len() < OUTSTANDING_MAX && Instant::now() >= next {
                let item = self.make();
                self.outstanding.insert(item.order, item.clone());
                if !self.send(&producer, &item) {
                    holding = Some(Instant::now() + REST);
                }
                next = (next + pause).max(Instant::now() - Duration::from_millis(100));
            }
        }
        producer.purge(PurgeConfig::default().queue().inflight());
        self.book.note(Told::Stopped(self.name.to_owned()));
    }

    fn make(&mut self) -> Item {
        let count = self.partitions.len() as u64;
        let index = usize::try_from(self.made % count).expect("few partitions");
        let number = self.numbers.entry(index).or_default();
        let item = Item {
            order: self.made,
            partition: self.partitions[index].clone(),
            value: format!("{} {number}", self.name),
        };
        *number += 1;
        self.made += 1;
        item
    }

    /// Whether the client has taken it; what it knows to be forbidden it refuses by itself.
    fn send(&mut self, producer: &BaseProducer<Outcomes>, item: &Item) -> bool {
        let (topic, partition) = &item.partition;
        let record = BaseRecord::with_opaque_to(topic, Box::new(item.order))
            .partition(*partition)
            .key(&item.value)
            .payload(&item.value);
        let told = match producer.send(record) {
            Ok(()) => {
                self.in_flight += 1;
                return true;
            }
            Err((KafkaError::MessageProduction(Code::TopicAuthorizationFailed), _)) => {
                self.is_refused = true;
                Told::Refused(self.name.to_owned())
            }
            Err((error, _)) => Told::Failed(format!("{}: {error}", self.name)),
        };
        self.book.note(told);
        false
    }

    /// Whether anything has to be sent again.
    fn take_outcomes(&mut self, producer: &BaseProducer<Outcomes>) -> bool {
        let all = producer.context().0.lock();
        let all = std::mem::take(&mut *all.unwrap_or_else(PoisonError::into_inner));
        let mut again = false;
        for (order, outcome) in all {
            self.in_flight = self.in_flight.saturating_sub(1);
            let told = match outcome {
                Outcome::At(offset) => {
                    let Some(item) = self.outstanding.remove(&order) else {
                        continue;
                    };
                    let (topic, partition) = item.partition;
                    Told::Acknowledged {
                        place: (topic, partition, offset),
                        value: item.value,
                    }
                }
                Outcome::Refused => {
                    self.is_refused = true;
                    again = true;
                    Told::Refused(self.name.to_owned())
                }
                Outcome::InDoubt => {
                    again = true;
                    let Some(item) = self.outstanding.get(&order) else {
                        continue;
                    };
                    Told::InDoubt(item.partition.clone(), item.value.clone())
                }
            };
            self.book.note(told);
        }
        again
    }
}

/// Waits until each record has its outcome, or nobody has answered for too long for a machine with a processor to spare.
fn flush(producer: &BaseProducer<Outcomes>) {
    let watch = Stopwatch::start();
    while producer.flush(Duration::from_millis(200)).is_err() && watch.counted() < ANSWER {}
}

fn idempotent(bootstrap: &str) -> BaseProducer<Outcomes> {
    client(bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2")
        // A busy machine is no dead broker: an answer that is late leaves nothing in doubt.
        .set("message.timeout.ms", "60000")
        .create_with_context(Outcomes::default())
        .expect("valid settings")
}

/// A group of one member that commits what it has read, often.
#[derive(Debug)]
pub(super) struct Group(Running);

impl Group {
    /// Reads these topics.
    pub(super) fn start(
        name: &'static str,
        bootstrap: &str,
        topics: &[&str],
        book: Arc<Book>,
    ) -> Self {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Self(Running::start(name, bootstrap, move |orders| {
            let mut at = orders.bootstrap();
            let mut reading = Reading::join(name, &at, &topics, 0, book.clone());
            while !orders.is_stopped() {
                let wanted = orders.bootstrap();
                if wanted != at {
                    reading.leave();
                    let era = reading.era + 1;
                    // The old consumer leaves its group before the new one joins.
                    close(reading);
                    at = wanted;
                    reading = Reading::join(name, &at, &topics, era, book.clone());
                    book.note(Told::Switched(name.to_owned()));
                }
                reading.work();
            }
            reading.leave();
            close(reading);
            book.note(Told::Stopped(name.to_owned()));
        }))
    }

    pub(super) fn switch(&self, bootstrap: &str) {
        self.0.orders.switch(bootstrap);
    }

    pub(super) fn stop(&mut self) {
        self.0.stop();
    }
}

/// Closes a consumer; one whose cluster is gone may wait for its last commit's answer for ever, and
/// is left to itself after a while. It ends with the process.
fn close(reading: Reading) {
    let (closed, is_closed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(reading);
        // Nobody may be waiting any more.
        let _ = closed.send(());
    });
    let _ = is_closed.recv_timeout(CLOSES_WITHIN);
}

fn positions(list: &TopicPartitionList) -> Vec<(Partition, i64)> {
    let elements = list.elements();
    let known = elements.iter().filter_map(|at| match at.offset() {
        Offset::Offset(offset) => Some(((at.topic().to_owned(), at.partition()), offset)),
        _ => None,
    });
    known.collect()
}

struct Reading {
    name: &'static str,
    era: usize,
    consumer: BaseConsumer,
    committed: HashMap<Partition, i64>,
    committed_at: Instant,
    book: Arc<Book>,
}

impl Reading {
    fn join(
        name: &'static str,
        bootstrap: &str,
        topics: &[String],
        era: usize,
        book: Arc<Book>,
    ) -> Self {
        let consumer: BaseConsumer = client(bootstrap)
            .set("group.id", name)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "15000")
            .set("heartbeat.interval.ms", "1000")
            // A cluster that is gone is left without waiting for it.
            .set("socket.timeout.ms", "2000")
            .set("fetch.wait.max.ms", "50")
            .create()
            .expect("valid settings");
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).expect("valid names");
        Self {
            name,
            era,
            consumer,
            committed: HashMap::new(),
            committed_at: Instant::now(),
            book,
        }
    }

    fn work(&mut self) {
        self.poll();
        if self.committed_at.elapsed() >= COMMIT_EVERY {
            self.commit();
        }
    }

    /// Reads one record at most.
    fn poll(&mut self) {
        // A cluster that is gone shows up as errors here; the client goes on trying.
        if let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(20)) {
            let value = message.payload().unwrap_or_default();
            let read = Read {
                era: self.era,
                place: (
                    message.topic().to_owned(),
                    message.partition(),
                    message.offset(),
                ),
                value: String::from_utf8_lossy(value).into_owned(),
            };
            self.book.note(Told::Read(self.name.to_owned(), read));
        }
    }

    /// Commits where it stands, also behind markers at a log's end; whether anything is still to
    /// be committed. Not synchronously: librdkafka would wait for ever for a cluster that is gone.
    /// The coordinator is asked instead, and answers in its turn.
    fn commit(&mut self) -> bool {
        self.committed_at = Instant::now();
        let mut moved = TopicPartitionList::new();
        for (at, offset) in self.consumer.position().iter().flat_map(positions) {
            if self.committed.get(&at) != Some(&offset) {
                let added = moved.add_partition_offset(&at.0, at.1, Offset::Offset(offset));
                added.expect("a valid offset");
            }
        }
        if moved.count() == 0 {
            return false;
        }
        // What isn't taken is committed the next time.
        if self.consumer.commit(&moved, CommitMode::Async).is_err() {
            return true;
        }
        for (partition, offset) in self.consumer.committed(ANSWER).iter().flat_map(positions) {
            if self.committed.insert(partition.clone(), offset) == Some(offset) {
                continue;
            }
            let committed = Committed {
                era: self.era,
                partition,
                offset,
                at_ms: now_ms(),
            };
            let told = Told::Committed(self.name.to_owned(), committed);
            self.book.note(told);
        }
        let wanted = positions(&moved);
        wanted
            .iter()
            .any(|(at, offset)| self.committed.get(at) != Some(offset))
    }

    /// Goes on until all that was read is committed, or nobody answers.
    fn leave(&mut self) {
        let watch = Stopwatch::start();
        while self.commit() && watch.counted() < LEAVES_WITHIN {
            self.poll();
        }
    }
}
