//! Appends to the new primary in transactions: the records, and how far that is, or neither.
//!
//! The transactional id belongs to the flow. Whoever begins a replay fences whoever began one
//! before: what that process still had on its way is refused, and its open transaction aborted.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::OrphansError;
use super::json_line::ORIGIN_HEADER;
use crate::batch::Record;
use crate::config::ClusterSection;
use crate::connect::{self, Context};
use crate::metadata::acls::REPLAY_ID_PREFIX;
use crate::state::STATE_TOPIC;

/// How long the brokers may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// One try of it.
const TRY: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// Tests choose a moment to crash at, `sent:N` or `committed:N`: what a `kill -9` there leaves.
const EXIT_AT: &str = "TWINLOG_ORPHANS_EXIT_AT";

/// A record on its way.
pub(super) struct Outgoing {
    pub topic: String,
    pub partition: i32,
    pub record: Record,
    pub origin: String,
}

/// What is appended together.
#[derive(Default)]
pub(super) struct Transaction {
    pub records: Vec<Outgoing>,
    /// Keys and values for the state topic.
    pub positions: Vec<(String, Vec<u8>)>,
}

pub(super) struct Producer {
    inner: BaseProducer<Deliveries>,
    transactional_id: String,
    done: u64,
}

impl Producer {
    /// Connects, fences others, and waits until nothing of theirs is open.
    pub(super) fn open(section: &ClusterSection, flow: &str) -> Result<Self, OrphansError> {
        let transactional_id = format!("{REPLAY_ID_PREFIX}{flow}");
        let (mut config, context) = connect::librdkafka(section);
        config
            .set("transactional.id", &transactional_id)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("transaction.timeout.ms", "60000")
            .set("linger.ms", "5")
            // A record of any size that the topic takes; the topic's own limit counts.
            .set("message.max.bytes", "1000000000")
            .set("queue.buffering.max.kbytes", "1048576");
        let inner: BaseProducer<Deliveries> = config
            .create_with_context(Deliveries {
                inner: context,
                failure: Mutex::default(),
            })
            .map_err(|error| {
                OrphansError::doing(format!("a producer on {}", section.name), error)
            })?;
        let producer = Self {
            inner,
            transactional_id,
            done: 0,
        };
        producer.again(|inner| inner.init_transactions(TRY))?;
        Ok(producer)
    }

    /// Appends all of it, or nothing.
    pub(super) fn append(&mut self, transaction: &Transaction) -> Result<(), OrphansError> {
        self.inner
            .begin_transaction()
            .map_err(|error| self.failed(&error))?;
        let appended = self.append_open(transaction);
        if appended.is_err() {
            // If it can't be aborted now, the next replay does it.
            let _ = self.inner.abort_transaction(TRY);
        }
        appended?;
        self.done += 1;
        self.exit_if_told("committed", self.done);
        Ok(())
    }

    fn append_open(&self, transaction: &Transaction) -> Result<(), OrphansError> {
        for outgoing in &transaction.records {
            self.send(record(outgoing)?)?;
        }
        for (key, value) in &transaction.positions {
            let record = BaseRecord::to(STATE_TOPIC)
                .partition(0)
                .key(key.as_bytes())
                .payload(&value[..]);
            self.send(record)?;
        }
        self.inner
            .flush(PATIENCE)
            .map_err(|error| self.failed(&error))?;
        self.exit_if_told("sent", self.done + 1);
        self.again(|inner| inner.commit_transaction(TRY))
    }

    fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), OrphansError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            record = match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    back
                }
                Err((error, _)) => return Err(self.failed(&error)),
            };
            self.inner.poll(POLL);
        }
    }

    /// Tries again what may be tried again.
    fn again(
        &self,
        call: impl Fn(&BaseProducer<Deliveries>) -> Result<(), KafkaError>,
    ) -> Result<(), OrphansError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match call(&self.inner) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && Instant::now() < deadline => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    fn failed(&self, error: &KafkaError) -> OrphansError {
        use RDKafkaErrorCode as Code;
        let context = self.inner.context();
        let why = context.failure().or_else(|| context.inner.last_error());
        let text = match why {
            Some(why) if !error.to_string().contains(&why) => format!("{error} ({why})"),
            _ => error.to_string(),
        };
        let failed = OrphansError::new(format!("appending to the new primary: {text}"));
        match code(error) {
            Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => failed
                .with_hint(
                    "another replay of this flow has taken over; what was appended is recorded",
                ),
            Some(Code::TransactionalIdAuthorizationFailed) => failed.with_hint(format!(
                "grant WRITE on the transactional id {} on the new primary",
                self.transactional_id
            )),
            _ => failed.with_hint("nothing is appended twice: run it again to go on"),
        }
    }

    fn exit_if_told(&self, moment: &str, number: u64) {
        if std::env::var(EXIT_AT).is_ok_and(|at| at == format!("{moment}:{number}")) {
            std::process::exit(137);
        }
    }
}

fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    }
}

/// The same record, with one header more.
fn record(outgoing: &Outgoing) -> Result<BaseRecord<'_, [u8], [u8]>, OrphansError> {
    let from = &outgoing.record;
    let unfit = |why: &str| {
        OrphansError::new(format!("{}: {why}", outgoing.origin))
            .with_hint("export it, append it with another client, and dismiss it here")
    };
    let headers = from
        .header_list()
        .map_err(|error| unfit(&error.to_string()))?;
    let mut owned = OwnedHeaders::new_with_capacity(headers.len() + 1);
    for (key, value) in &headers {
        let key = std::str::from_utf8(key)
            .map_err(|_| unfit("a header's key isn't UTF-8, which librdkafka can't write"))?;
        owned = owned.insert(Header {
            key,
            value: value.as_deref(),
        });
    }
    owned = owned.insert(Header {
        key: ORIGIN_HEADER,
        value: Some(outgoing.origin.as_bytes()),
    });
    let mut record = BaseRecord::to(&outgoing.topic)
        .partition(outgoing.partition)
        .headers(owned);
    if let Some(key) = &from.key {
        record = record.key(&key[..]);
    }
    if let Some(value) = &from.value {
        record = record.payload(&value[..]);
    }
    // Without one librdkafka takes the time of now.
    if from.timestamp > 0 {
        record = record.timestamp(from.timestamp);
    }
    Ok(record)
}

/// Remembers why a record was refused; librdkafka's own errors say only that one was.
struct Deliveries {
    inner: Context,
    failure: Mutex<Option<String>>,
}

impl Deliveries {
    fn failure(&self) -> Option<String> {
        let failure = self.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.inner.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.inner.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.inner.generate_oauth_token(config)
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Err((error, _)) = result else { return };
        // What an abort throws away isn't why it was aborted.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PurgeQueue) {
            let failure = self.failure.lock();
            failure
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(|| error.to_string());
        }
    }
}
