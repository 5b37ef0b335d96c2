//! Whether somebody may write or read: tried with librdkafka, and what it says when refused.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::admin::{client_as, client_with, partition_count};
use super::logins::Login;
use super::wait::Stopwatch;

/// How long a try may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Writes one record as a user whom the test has made.
///
/// # Errors
/// Why it wasn't taken.
pub fn try_produce_as(bootstrap: &str, user: &str, topic: &str) -> Result<(), KafkaError> {
    try_produce(client_as(bootstrap, user), topic)
}

/// Writes one record with any login.
///
/// # Errors
/// Why it wasn't taken.
pub fn try_produce_with(bootstrap: &str, login: &Login, topic: &str) -> Result<(), KafkaError> {
    try_produce(client_with(bootstrap, login), topic)
}

/// Reads a topic from its beginning to its end as a user whom the test has made, as no member of
/// any group; the number of records.
///
/// # Errors
/// Why it couldn't be read.
pub fn try_read_as(bootstrap: &str, user: &str, topic: &str) -> Result<usize, KafkaError> {
    let partitions = partition_count(bootstrap, topic);
    try_read(client_as(bootstrap, user), topic, partitions)
}

/// The same with any login.
///
/// # Errors
/// Why it couldn't be read.
pub fn try_read_with(bootstrap: &str, login: &Login, topic: &str) -> Result<usize, KafkaError> {
    let partitions = partition_count(bootstrap, topic);
    try_read(client_with(bootstrap, login), topic, partitions)
}

/// Whether this is a missing right, as a topic, group or cluster.
pub fn is_denied(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        ClusterAuthorizationFailed, GroupAuthorizationFailed, TopicAuthorizationFailed,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(TopicAuthorizationFailed | GroupAuthorizationFailed | ClusterAuthorizationFailed)
    )
}

/// What happens to a client that isn't told to the one who calls it.
#[derive(Default)]
struct Watch {
    /// It didn't get in.
    refused: Mutex<Option<KafkaError>>,
    /// What became of the record.
    delivered: Mutex<Option<Result<(), KafkaError>>>,
}

impl Watch {
    fn refused(&self) -> Option<KafkaError> {
        let refused = self.refused.lock();
        refused.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn delivered(&self) -> Option<Result<(), KafkaError>> {
        let delivered = self.delivered.lock();
        delivered.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Watch {
    fn error(&self, error: KafkaError, _: &str) {
        use RDKafkaErrorCode::{Authentication, SSL};
        if matches!(error.rdkafka_error_code(), Some(Authentication | SSL)) {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert(error);
        }
    }
}

impl ConsumerContext for Watch {}

impl ProducerContext for Watch {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(drop);
        let result = result.map_err(|(error, _)| error.clone());
        let mut delivered = self
            .delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        delivered.get_or_insert(result);
    }
}

fn try_produce(mut config: ClientConfig, topic: &str) -> Result<(), KafkaError> {
    let producer: BaseProducer<Watch> = config
        .set("message.timeout.ms", DEADLINE.as_millis().to_string())
        .set("linger.ms", "0")
        .create_with_context(Watch::default())?;
    let record = BaseRecord::to(topic).key("try").payload("try");
    producer.send(record).map_err(|(error, _)| error)?;
    loop {
        producer.poll(Duration::from_millis(50));
        if let Some(delivered) = producer.context().delivered() {
            return delivered;
        }
        if let Some(refused) = producer.context().refused() {
            return Err(refused);
        }
    }
}

fn try_read(mut config: ClientConfig, topic: &str, partitions: i32) -> Result<usize, KafkaError> {
    assert!(partitions > 0, "{topic} does not exist");
    let consumer: BaseConsumer<Watch> = config
        // librdkafka wants a name, although nothing is committed.
        .set("group.id", format!("try-{}", rand::random::<u64>()))
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "50")
        .create_with_context(Watch::default())?;
    await_visible(&consumer, topic)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut open, mut count) = (partitions, 0);
    let watch = Stopwatch::start();
    while open > 0 {
        if let Some(refused) = consumer.context().refused() {
            return Err(refused);
        }
        match consumer.poll(Duration::from_millis(50)) {
            None => {}
            Some(Ok(_)) => count += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            // The first two are said of every broken connection, also of those that librdkafka
            // mends; the third of the group, which isn't needed here.
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::GroupAuthorizationFailed,
            ))) => {}
            Some(Err(error)) => return Err(error),
        }
        if watch.counted() > DEADLINE {
            return Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::OperationTimedOut,
            ));
        }
    }
    Ok(count)
}

/// A consumer that may not even know of the topic waits for it without a word: its metadata say why.
fn await_visible(consumer: &BaseConsumer<Watch>, topic: &str) -> Result<(), KafkaError> {
    let watch = Stopwatch::start();
    loop {
        let answer = consumer.fetch_metadata(Some(topic), Duration::from_millis(200));
        let seen = match answer {
            Ok(metadata) => match metadata.topics().first().and_then(MetadataTopic::error) {
                None => return Ok(()),
                Some(error) => return Err(KafkaError::MetadataFetch(error.into())),
            },
            Err(error) => error,
        };
        // Nothing is assigned yet: this only lets librdkafka tell us that it was refused.
        let _ = consumer.poll(Duration::ZERO);
        if let Some(refused) = consumer.context().refused() {
            return Err(refused);
        }
        if watch.counted() > DEADLINE {
            return Err(seen);
        }
    }
}
