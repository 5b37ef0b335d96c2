//! The plain librdkafka loop: consume, produce, nothing else. What a program of 100 lines reaches.
//!
//! It is this same executable with another first argument, so that it is a process of its own.
//! At least once: it commits every five seconds what the target has acknowledged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{admin, create_topic};

/// The first argument that makes the executable this loop.
pub const COMMAND: &str = "librdkafka-loop";

const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

type Positions = Arc<Mutex<HashMap<(String, i32), i64>>>;

/// Remembers the last acknowledged source offset of each partition.
struct Acknowledged(Positions);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, source_offset: Self::DeliveryOpaque) {
        // A record that can't be delivered ends the loop: going on would lose it.
        let message = match result {
            Ok(message) => message,
            Err((error, _)) => {
                eprintln!("not delivered: {error}");
                std::process::exit(1);
            }
        };
        let key = (message.topic().to_owned(), message.partition());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, *source_offset + 1);
    }
}

/// Runs until killed. Arguments: source address, target address, prefix of the topics' names.
pub fn run(arguments: &[String]) {
    let [source, target, prefix] = arguments else {
        panic!("{COMMAND} SOURCE TARGET PREFIX");
    };
    let consumer: BaseConsumer = admin::client(source)
        .set("group.id", "librdkafka-loop")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.max.bytes", "52428800")
        .set("max.partition.fetch.bytes", "4194304")
        .set("queued.max.messages.kbytes", "65536")
        .create()
        .expect("valid settings");
    let positions = Positions::default();
    let producer: BaseProducer<Acknowledged> = admin::client(target)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("batch.size", "131072")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "131072")
        .create_with_context(Acknowledged(positions.clone()))
        .expect("valid settings");
    assign(&consumer, target, prefix);
    let mut committed_at = Instant::now();
    loop {
        match consumer.poll(Duration::from_millis(5)) {
            Some(Ok(message)) => send(&producer, &message),
            Some(Err(error)) => eprintln!("{error}"),
            None => {}
        }
        producer.poll(Duration::ZERO);
        if committed_at.elapsed() >= COMMIT_INTERVAL {
            commit(&consumer, &positions);
            committed_at = Instant::now();
        }
    }
}

/// Takes every partition of the topics, from what was committed, and makes the topics on the
/// target.
fn assign(consumer: &BaseConsumer, target: &str, prefix: &str) {
    const TIMEOUT: Duration = Duration::from_secs(20);
    let metadata = consumer
        .fetch_metadata(None, TIMEOUT)
        .expect("the source answers");
    let mut list = TopicPartitionList::new();
    for topic in metadata.topics() {
        if !topic.name().starts_with(prefix) {
            continue;
        }
        let count = i32::try_from(topic.partitions().len()).expect("few partitions");
        list.add_partition_range(topic.name(), 0, count - 1);
        if admin::partition_count(target, topic.name()) == 0 {
            create_topic(target, topic.name(), count, &[]);
        }
    }
    let mut list = consumer
        .committed_offsets(list, TIMEOUT)
        .expect("the source answers");
    let unset: Vec<(String, i32)> = list
        .elements()
        .iter()
        .filter(|element| element.offset() == Offset::Invalid)
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect();
    for (topic, partition) in unset {
        list.set_partition_offset(&topic, partition, Offset::Beginning)
            .expect("a valid offset");
    }
    consumer.assign(&list).expect("partitions of the source");
}

fn send(producer: &BaseProducer<Acknowledged>, message: &BorrowedMessage<'_>) {
    let mut record = BaseRecord::with_opaque_to(message.topic(), Box::new(message.offset()))
        .partition(message.partition());
    record.key = message.key();
    record.payload = message.payload();
    record.timestamp = message.timestamp().to_millis();
    record.headers = message.headers().map(BorrowedHeaders::detach);
    while let Err((error, returned)) = producer.send::<[u8], [u8]>(record) {
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            eprintln!("{error}");
            std::process::exit(1);
        }
        producer.poll(Duration::from_millis(10));
        record = returned;
    }
}

fn commit(consumer: &BaseConsumer, positions: &Positions) {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), next) in positions
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .drain()
    {
        list.add_partition_offset(&topic, partition, Offset::Offset(next))
            .expect("a valid offset");
    }
    if list.count() > 0
        && let Err(error) = consumer.commit(&list, CommitMode::Async)
    {
        eprintln!("{error}");
    }
}
