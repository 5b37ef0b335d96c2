//! What the failover tests share: a source whose writers can be refused, producers that keep a
//! ledger of what was acknowledged, the command.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use serde_json::Value;

use super::admin::client;
use super::cluster::{Cluster, ClusterOptions};
use super::read::{Isolation, read_all};
use super::strict::strict;
use super::twinlog::Twinlog;
use super::version::KafkaVersion;

/// A source whose writers can be refused.
pub fn fenceable(name: &str) -> ClusterOptions {
    strict(name)
}

/// Such a source, and a plain target, that the test may break.
pub fn start_fenceable_pair(version: KafkaVersion) -> (Cluster, Cluster) {
    let mut source = Cluster::launch(version, fenceable("source"));
    let mut target = Cluster::launch(version, ClusterOptions::named("target"));
    source.await_ready();
    target.await_ready();
    (source, target)
}

/// Runs `twinlog failover` to its end.
pub fn failover(config: &Path, arguments: &[&str]) -> Output {
    failover_exiting_at(config, arguments, None)
}

/// The same, with a crash at a moment of a step: `STEP:begun`, `STEP:worked`, `STEP:ended`.
pub fn failover_exiting_at(config: &Path, arguments: &[&str], at: Option<&str>) -> Output {
    cutover_exiting_at("failover", config, arguments, at)
}

/// `failover` or `failback`, with such a crash.
pub fn cutover_exiting_at(
    command: &str,
    config: &Path,
    arguments: &[&str],
    at: Option<&str>,
) -> Output {
    let name = command;
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinlog"));
    command.arg(name).arg("-c").arg(config).args(arguments);
    if let Some(at) = at {
        command.env("TWINLOG_CUTOVER_EXIT_AT", at);
    }
    command.output().expect("the built binary runs")
}

/// Both outputs, for messages.
pub fn words(output: &Output) -> String {
    format!(
        "exit {:?}\n{}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The JSON on stdout of a command that ended with this code.
///
/// # Panics
/// When it ended with another code, or wrote something else.
pub fn answer(output: &Output, code: i32) -> Value {
    assert_eq!(output.status.code(), Some(code), "{}", words(output));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error} in {}", words(output)))
}

/// Waits until the running Twinlog says that its flow was failed over.
pub fn await_failed_over(twinlog: &Twinlog) -> Value {
    twinlog.wait_until(Duration::from_secs(60), "the flow has stopped", |status| {
        let flow = &status["flows"][0];
        flow["state"] == "stopped"
            && flow["reason"] == "failed_over"
            && flow["role"]["primary"] == "target"
    })
}

/// Where a record is: topic, partition, offset.
pub type Place = (String, i32, i64);

/// Every record that was acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    acknowledged: Mutex<BTreeMap<Place, String>>,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Ledger {
    /// All that was acknowledged so far.
    pub fn acknowledged(&self) -> BTreeMap<Place, String> {
        let ledger = self.acknowledged.lock();
        ledger.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many records were refused for want of a right.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many records weren't acknowledged for another reason.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// The producer's end of a ledger.
struct Acks(Arc<Ledger>);

impl ClientContext for Acks {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {}
}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<String>;

    fn delivery(&self, result: &DeliveryResult<'_>, value: Box<String>) {
        use rdkafka::types::RDKafkaErrorCode as Code;
        match result {
            Ok(message) => {
                let place = (
                    message.topic().to_owned(),
                    message.partition(),
                    message.offset(),
                );
                let ledger = self.0.acknowledged.lock();
                let mut ledger = ledger.unwrap_or_else(PoisonError::into_inner);
                ledger.insert(place, *value);
            }
            Err((error, _))
                if error.rdkafka_error_code() == Some(Code::TopicAuthorizationFailed) =>
            {
                self.0.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.0.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn pause_nanos(per_second: u32) -> u64 {
    1_000_000_000 / u64::from(per_second)
}

/// A producer that goes on until it is stopped, whatever the cluster says.
pub struct Writer {
    /// What was acknowledged.
    pub ledger: Arc<Ledger>,
    stopping: Arc<AtomicBool>,
    pause_nanos: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// At most `per_second` records a second to these topics in turn, with acks=all.
    pub fn start(bootstrap: &str, topics: &[&str], per_second: u32) -> Self {
        Self::begin(bootstrap, topics, per_second, false)
    }

    /// The same, of an application that ends when it is refused, and is moved by its operators.
    pub fn start_until_refused(bootstrap: &str, topics: &[&str], per_second: u32) -> Self {
        Self::begin(bootstrap, topics, per_second, true)
    }

    fn begin(bootstrap: &str, topics: &[&str], per_second: u32, until_refused: bool) -> Self {
        let ledger = Arc::new(Ledger::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let producer: ThreadedProducer<Acks> = client(bootstrap)
            .set("acks", "all")
            .set("linger.ms", "2")
            .set("message.timeout.ms", "3000")
            .set("sticky.partitioning.linger.ms", "0")
            .create_with_context(Acks(ledger.clone()))
            .expect("valid settings");
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let stop = stopping.clone();
        let pause_nanos = Arc::new(AtomicU64::new(pause_nanos(per_second)));
        let (pause, told) = (pause_nanos.clone(), ledger.clone());
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                let is_refused = until_refused && told.refused() > 0;
                if is_refused || stop.load(Ordering::Relaxed) {
                    break;
                }
                let topic = &topics[number % topics.len()];
                let value = format!("{topic}-{number}");
                let record = BaseRecord::with_opaque_to(topic, Box::new(value.clone()))
                    .key(&value)
                    .payload(&value);
                // A full queue is a cluster that doesn't answer.
                let _ = producer.send(record);
                std::thread::sleep(Duration::from_nanos(pause.load(Ordering::Relaxed)));
            }
            let _ = producer.flush(Duration::from_secs(30));
        });
        Self {
            ledger,
            stopping,
            pause_nanos,
            thread: Some(thread),
        }
    }

    /// At most so many records a second from now on.
    pub fn slow_down(&self, per_second: u32) {
        let pause = pause_nanos(per_second);
        self.pause_nanos.store(pause, Ordering::Relaxed);
    }

    /// Stops, and waits until every record's fate is known.
    pub fn stop(mut self) -> Arc<Ledger> {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the writer doesn't panic");
        }
        self.ledger.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// Every record of these topics as librdkafka reads them.
pub fn records(bootstrap: &str, topics: &[&str]) -> BTreeMap<Place, String> {
    let mut found = BTreeMap::new();
    for topic in topics {
        for record in read_all(bootstrap, topic, Isolation::ReadCommitted) {
            let value = record.value.unwrap_or_default();
            let value = String::from_utf8_lossy(&value).into_owned();
            found.insert(
                ((*topic).to_owned(), record.partition, record.offset),
                value,
            );
        }
    }
    found
}

/// Asserts that every record of the ledger is where it was acknowledged.
pub fn assert_holds(found: &BTreeMap<Place, String>, ledger: &BTreeMap<Place, String>) {
    let missing: Vec<_> = ledger
        .iter()
        .filter(|(place, value)| found.get(*place) != Some(*value))
        .take(5)
        .collect();
    assert!(
        missing.is_empty(),
        "acknowledged and not there: {missing:?}"
    );
}

/// Tries to write one record that is read as any other, and says why it couldn't.
///
/// # Errors
/// Why the record wasn't acknowledged.
pub fn try_write(bootstrap: &str, topic: &str) -> Result<(), String> {
    let ledger = Arc::new(Ledger::default());
    let producer: ThreadedProducer<Acks> = client(bootstrap)
        .set("message.timeout.ms", "30000")
        .create_with_context(Acks(ledger.clone()))
        .expect("valid settings");
    let value = "one more".to_owned();
    let record = BaseRecord::with_opaque_to(topic, Box::new(value.clone()))
        .key("one more")
        .payload(&value);
    producer
        .send(record)
        .map_err(|(error, _)| error.to_string())?;
    producer
        .flush(Duration::from_secs(60))
        .map_err(|error| error.to_string())?;
    match (ledger.acknowledged().len(), ledger.refused()) {
        (1, _) => Ok(()),
        (_, 1) => Err("refused".to_owned()),
        _ => Err("failed".to_owned()),
    }
}

/// Asserts that nobody may write to a topic.
pub fn assert_refused(bootstrap: &str, topic: &str) {
    assert_eq!(try_write(bootstrap, topic), Err("refused".to_owned()));
}

/// A pair whose writers can be refused on both sides, and that the test may break.
pub fn start_fenceable_both(version: KafkaVersion) -> (Cluster, Cluster) {
    let mut source = Cluster::launch(version, fenceable("source"));
    let mut target = Cluster::launch(version, fenceable("target"));
    source.await_ready();
    target.await_ready();
    (source, target)
}

/// Runs `twinlog failback` to its end.
pub fn failback(config: &Path, arguments: &[&str]) -> Output {
    cutover_exiting_at("failback", config, arguments, None)
}

/// Waits until the running Twinlog copies in the config's direction.
pub fn await_copying(twinlog: &Twinlog) -> Value {
    twinlog.wait_until(Duration::from_secs(60), "the flow copies", |status| {
        status["flows"][0]["state"] == "running"
    })
}
