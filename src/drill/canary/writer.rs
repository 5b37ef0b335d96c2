//! Writes numbered records and keeps a ledger of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::config::ClusterSection;
use crate::connect::{self, Context};
use crate::telemetry::progress::now_ms;

/// How long an ending writer waits for its last answers.
const FLUSH: Duration = Duration::from_secs(5);
/// When a record without an answer counts as failed, ms.
const ANSWER_MS: &str = "10000";

/// Where a record went, and when that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
}

/// What a writer wrote.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// By number.
    pub acked: BTreeMap<u64, Acked>,
    /// Records that were refused for want of a right.
    pub refused: u64,
    /// Records that failed otherwise: their fate isn't known.
    pub failed: u64,
}

impl Written {
    /// When the first record was acknowledged.
    pub fn first_ms(&self) -> Option<i64> {
        self.acked.values().map(|it| it.at_ms).min()
    }

    /// When the last record was acknowledged.
    pub fn last_ms(&self) -> Option<i64> {
        self.acked.values().map(|it| it.at_ms).max()
    }
}

struct Ledger {
    cluster: Context,
    acked: Mutex<BTreeMap<u64, Acked>>,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// The producer's end of a ledger.
struct Acks(Arc<Ledger>);

impl ClientContext for Acks {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.cluster.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.cluster.error(error, reason);
    }

    fn generate_oauth_token(
        &self,
        config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.0.cluster.generate_oauth_token(config)
    }
}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        match result {
            Ok(message) => {
                let acked = Acked {
                    partition: message.partition(),
                    offset: message.offset(),
                    at_ms: now_ms(),
                };
                let ledger = self.0.acked.lock();
                let mut ledger = ledger.unwrap_or_else(PoisonError::into_inner);
                ledger.insert(*number, acked);
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

/// A producer that goes on until it is stopped, whatever the cluster says.
pub struct Writer {
    ledger: Arc<Ledger>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// About `per_second` records a second with `acks=all`, numbered from `first`.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn start(
        section: &ClusterSection,
        topic: &str,
        first: u64,
        per_second: u32,
    ) -> Result<Self, KafkaError> {
        let (mut config, context) = connect::librdkafka(section);
        let ledger = Arc::new(Ledger {
            cluster: context,
            acked: Mutex::default(),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .set("message.timeout.ms", ANSWER_MS)
            .set("allow.auto.create.topics", "false");
        let producer: ThreadedProducer<Acks> = config.create_with_context(Acks(ledger.clone()))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, topic) = (stopping.clone(), topic.to_owned());
        let pause = Duration::from_secs(1) / per_second.max(1);
        let thread = std::thread::spawn(move || {
            for number in first.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let value = number.to_string();
                let record = BaseRecord::with_opaque_to(&topic, Box::new(number))
                    .key(&value)
                    .payload(&value);
                // A full queue is a cluster that doesn't answer: this number is left out.
                let _ = producer.send(record);
                std::thread::sleep(pause);
            }
            let _ = producer.flush(FLUSH);
        });
        Ok(Self {
            ledger,
            stopping,
            thread: Some(thread),
        })
    }

    /// What was written so far.
    pub fn so_far(&self) -> Written {
        let acked = self.ledger.acked.lock();
        Written {
            acked: acked.unwrap_or_else(PoisonError::into_inner).clone(),
            refused: self.ledger.refused.load(Ordering::Relaxed),
            failed: self.ledger.failed.load(Ordering::Relaxed),
        }
    }

    /// How many records were refused for want of a right.
    pub fn refused(&self) -> u64 {
        self.ledger.refused.load(Ordering::Relaxed)
    }

    /// How many were acknowledged.
    pub fn count(&self) -> usize {
        let acked = self.ledger.acked.lock();
        acked.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Sends nothing more from here on.
    pub fn cease(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Stops, and waits (5 s at most) until every record's fate is known. Blocks.
    pub fn stop(mut self) -> Written {
        self.cease();
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has written what its ledger says.
            let _ = thread.join();
        }
        self.so_far()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.cease();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
