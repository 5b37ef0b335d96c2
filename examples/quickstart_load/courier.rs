//! A producer and a consumer group that go on while the primary changes, and the account of it.
//!
//! Both are what a team has in production: they stop at an error that isn't theirs to solve, get a
//! new address, and go on. The file `primary` in the folder says `ADDRESS WHY SECONDS`; a change of it
//! is the deployment that restarts them. `flows` holds the address at which both are at work, `stop`
//! ends it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use crate::admin;

/// What is written and read.
pub const TOPIC: &str = "parcels";
const GROUP: &str = "courier";
/// 500 records a second.
const PACE: Duration = Duration::from_millis(2);
/// So many records after a move show that it flows.
const FLOWING: usize = 300;
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the last records may take to be acknowledged and read.
const END_DEADLINE: Duration = Duration::from_secs(60);

/// A partition and an offset: the same on both clusters.
type Place = (i32, i64);

/// One stay at one cluster.
#[derive(Debug)]
struct Stay {
    address: String,
    why: String,
    /// How long the command took that moved the primary here.
    command_seconds: String,
    first_acknowledged: Option<Instant>,
    last_acknowledged: Option<Instant>,
    acknowledged: usize,
    read: usize,
}

/// What happened.
#[derive(Debug, Default)]
struct Ledger {
    stays: Vec<Stay>,
    acknowledged: BTreeMap<Place, u64>,
    read: BTreeMap<Place, (u64, usize)>,
    /// Numbers to be sent again: the cluster didn't take them.
    again: VecDeque<u64>,
    /// How many times a record was refused for want of a right: the fence.
    refused: usize,
    /// How many times a record wasn't acknowledged for another reason.
    failed: usize,
}

#[derive(Clone)]
struct Shared {
    ledger: Arc<Mutex<Ledger>>,
    folder: PathBuf,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.folder.join("stop").exists()
    }

    /// Which stay it is, and where. The writer of the file renames it into its place.
    fn primary(&self) -> (usize, String) {
        let text = std::fs::read_to_string(self.folder.join("primary")).unwrap_or_default();
        let mut words = text.split_whitespace().map(str::to_owned);
        let mut ledger = self.ledger();
        if let (Some(address), Some(why)) = (words.next(), words.next())
            && ledger
                .stays
                .last()
                .is_none_or(|stay| stay.address != address)
        {
            ledger.stays.push(Stay {
                address,
                why,
                command_seconds: words.next().unwrap_or_default(),
                first_acknowledged: None,
                last_acknowledged: None,
                acknowledged: 0,
                read: 0,
            });
        }
        let address = ledger.stays.last().map(|stay| stay.address.clone());
        (
            ledger.stays.len().saturating_sub(1),
            address.unwrap_or_default(),
        )
    }
}

/// The producer's end of the ledger.
struct Acks {
    shared: Shared,
    stay: usize,
}

impl ClientContext for Acks {
    // A failover breaks connections; that is no news here.
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {}
}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        let mut ledger = self.shared.ledger();
        match result {
            Ok(message) => {
                let place = (message.partition(), message.offset());
                ledger.acknowledged.insert(place, *number);
                if let Some(stay) = ledger.stays.get_mut(self.stay) {
                    stay.acknowledged += 1;
                    stay.first_acknowledged.get_or_insert_with(Instant::now);
                    stay.last_acknowledged = Some(Instant::now());
                }
            }
            Err((error, _)) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
                    ledger.refused += 1;
                } else {
                    ledger.failed += 1;
                }
                ledger.again.push_back(*number);
            }
        }
    }
}

/// Goes on until it is told to stop; prints the account. It fails when anything was lost or read
/// again.
pub fn run(folder: &Path) -> ExitCode {
    let shared = Shared {
        ledger: Arc::default(),
        folder: folder.to_owned(),
    };
    shared.primary();
    let writer = std::thread::spawn({
        let shared = shared.clone();
        move || write(&shared)
    });
    read(&shared, || writer.is_finished());
    if writer.join().is_err() {
        return ExitCode::FAILURE;
    }
    account(&shared.ledger())
}

fn write(shared: &Shared) {
    let mut numbers = 0..;
    loop {
        let (stay, address) = shared.primary();
        // A new producer for each cluster: an idempotent one has its id from the cluster it began with.
        let acks = Acks {
            shared: shared.clone(),
            stay,
        };
        let producer: ThreadedProducer<Acks> = admin::client(&address)
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("message.timeout.ms", "30000")
            .create_with_context(acks)
            .expect("valid settings");
        let mut looked_at = Instant::now();
        let mut left = std::mem::take(&mut shared.ledger().again);
        loop {
            if looked_at.elapsed() >= LOOK_EVERY {
                looked_at = Instant::now();
                if shared.is_stopping() || shared.primary().0 != stay {
                    break;
                }
            }
            std::thread::sleep(PACE);
            if !shared.ledger().again.is_empty() {
                // This cluster doesn't take them: what there is waits for another primary.
                continue;
            }
            let number = left.pop_front().or_else(|| numbers.next());
            send(&producer, number.unwrap_or_default(), shared);
        }
        shared.ledger().again.append(&mut left);
        // After this the fate of every record is known.
        let _ = producer.flush(END_DEADLINE);
        if shared.is_stopping() {
            let left: Vec<u64> = shared.ledger().again.drain(..).collect();
            for number in left {
                send(&producer, number, shared);
            }
            let _ = producer.flush(END_DEADLINE);
            return;
        }
    }
}

fn send(producer: &ThreadedProducer<Acks>, number: u64, shared: &Shared) {
    let text = number.to_string();
    let record = BaseRecord::with_opaque_to(TOPIC, Box::new(number))
        .key(&text)
        .payload(&text);
    if producer.send(record).is_err() {
        shared.ledger().again.push_back(number);
    }
}

/// Reads and commits at whatever is the primary, until the writer has ended and all is read.
fn read(shared: &Shared, has_writer_ended: impl Fn() -> bool) {
    let mut deadline = None;
    loop {
        let (stay, address) = shared.primary();
        let consumer: BaseConsumer = admin::client(&address)
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("valid settings");
        consumer.subscribe(&[TOPIC]).expect("a valid topic name");
        while shared.primary().0 == stay {
            if has_writer_ended() {
                let end = *deadline.get_or_insert_with(|| Instant::now() + END_DEADLINE);
                let ledger = shared.ledger();
                let is_all = ledger
                    .acknowledged
                    .keys()
                    .all(|it| ledger.read.contains_key(it));
                if is_all || Instant::now() >= end {
                    return;
                }
            }
            if take(shared, &consumer, stay) > 0 {
                // A group that is moved meanwhile refuses it; then it is read again and counted.
                let _ = consumer.commit_consumer_state(CommitMode::Sync);
            }
            let ledger = shared.ledger();
            let flows = ledger.stays[stay].acknowledged.min(ledger.stays[stay].read) >= FLOWING;
            drop(ledger);
            if flows {
                let _ = std::fs::write(shared.folder.join("flows"), &address);
            }
        }
        // Dropped here: it leaves the group.
    }
}

/// Takes what has come within a moment.
fn take(shared: &Shared, consumer: &BaseConsumer, stay: usize) -> usize {
    let began = Instant::now();
    let mut taken = 0;
    while began.elapsed() < LOOK_EVERY {
        if let Some(Ok(message)) = consumer.poll(LOOK_EVERY) {
            let text = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
            let place = (message.partition(), message.offset());
            let mut ledger = shared.ledger();
            let times = &mut ledger.read.entry(place).or_default();
            times.0 = text.parse().unwrap_or(u64::MAX);
            times.1 += 1;
            ledger.stays[stay].read += 1;
            taken += 1;
        }
    }
    taken
}

fn account(ledger: &Ledger) -> ExitCode {
    let is_read = |(place, number): &(&Place, &u64)| {
        let found = ledger.read.get(place);
        found.is_some_and(|(value, _)| value == *number)
    };
    let lost = ledger.acknowledged.iter().filter(|it| !is_read(it)).count();
    let again: usize = ledger.read.values().map(|(_, times)| times - 1).sum();
    let numbers: BTreeSet<u64> = ledger.read.values().map(|(number, _)| *number).collect();
    let doubled = ledger.read.len() - numbers.len();
    println!(
        "  {:<10} {:<18} {:>12} {:>8} {:>10} {:>18}",
        "", "written to", "acknowledged", "read", "command", "writers waited"
    );
    for (index, stay) in ledger.stays.iter().enumerate() {
        let before = index
            .checked_sub(1)
            .and_then(|it| ledger.stays[it].last_acknowledged);
        let waited = match (before, stay.first_acknowledged) {
            (Some(last), Some(first)) => {
                format!("{:.1} s", first.duration_since(last).as_secs_f64())
            }
            _ => String::new(),
        };
        let command = match stay.command_seconds.as_str() {
            "" => String::new(),
            seconds => format!("{seconds} s"),
        };
        println!(
            "  {:<10} {:<18} {:>12} {:>8} {command:>10} {waited:>18}",
            stay.why, stay.address, stay.acknowledged, stay.read
        );
    }
    println!(
        "  {} record(s) refused by a fence or not answered, sent again to the next primary",
        ledger.refused + ledger.failed
    );
    let moves: Vec<String> = ledger
        .stays
        .iter()
        .skip(1)
        .map(|stay| format!("{} {} s", stay.why, stay.command_seconds))
        .collect();
    println!();
    println!(
        "  lost {lost}, doubled {doubled}, re-read {again}; {}",
        moves.join(", ")
    );
    if lost + doubled + again == 0 && !ledger.acknowledged.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
