//! Topics: created, changed and asked about through librdkafka.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::logins::{self, Login};
use super::wait::eventually;

/// How long the cluster may take to do what was asked.
const DEADLINE: Duration = Duration::from_secs(30);

/// A client configuration for `bootstrap` that reconnects quickly and gets in where the cluster
/// is secured.
pub fn client(bootstrap: &str) -> ClientConfig {
    let login = logins::find(bootstrap).map(|entry| entry.clients);
    client_with(bootstrap, &login.unwrap_or_default())
}

/// The same with another login.
pub fn client_with(bootstrap: &str, login: &Login) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200");
    login.apply(&mut config);
    config
}

/// The same as a user whom the test has made.
pub fn client_as(bootstrap: &str, user: &str) -> ClientConfig {
    client_with(bootstrap, &logins::user(bootstrap, user))
}

/// Creates a topic with the cluster's default replication and waits until clients see it.
pub fn create_topic(bootstrap: &str, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
    let replicas = TopicReplication::Fixed(-1);
    create(bootstrap, topic, partitions, replicas, configs);
}

/// The same with each partition's replicas where a test needs them; the first one leads. Left to itself a cluster places
/// the replicas of every topic by chance.
pub fn place_topic(bootstrap: &str, topic: &str, replicas: &[&[i32]], configs: &[(&str, &str)]) {
    let partitions = i32::try_from(replicas.len()).expect("few partitions");
    let replicas = TopicReplication::Variable(replicas);
    create(bootstrap, topic, partitions, replicas, configs);
}

fn create(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    replicas: TopicReplication<'_>,
    configs: &[(&str, &str)],
) {
    let new = configs.iter().fold(
        NewTopic::new(topic, partitions, replicas),
        |new, (key, value)| new.set(key, value),
    );
    let admin = admin(bootstrap);
    let results = block_on(admin.create_topics([&new], &AdminOptions::new()))
        .unwrap_or_else(|error| panic!("creating {topic}: {error}"));
    for result in results {
        result.unwrap_or_else(|(topic, error)| panic!("creating {topic}: {error}"));
    }
    await_partitions(bootstrap, topic, partitions);
}

/// Deletes a topic and waits until it is gone.
pub fn delete_topic(bootstrap: &str, topic: &str) {
    let admin = admin(bootstrap);
    let results = block_on(admin.delete_topics(&[topic], &AdminOptions::new()))
        .unwrap_or_else(|error| panic!("deleting {topic}: {error}"));
    for result in results {
        result.unwrap_or_else(|(topic, error)| panic!("deleting {topic}: {error}"));
    }
    eventually(DEADLINE, "the topic is gone", || {
        match partition_count(bootstrap, topic) {
            0 => Ok(()),
            count => Err(count),
        }
    });
}

/// Raises a topic's partition count to `total` and waits until clients see it.
pub fn add_partitions(bootstrap: &str, topic: &str, total: usize) {
    let admin = admin(bootstrap);
    let new = NewPartitions::new(topic, total);
    let results = block_on(admin.create_partitions([&new], &AdminOptions::new()))
        .unwrap_or_else(|error| panic!("adding partitions to {topic}: {error}"));
    for result in results {
        result.unwrap_or_else(|(topic, error)| panic!("adding partitions to {topic}: {error}"));
    }
    await_partitions(bootstrap, topic, i32::try_from(total).expect("small"));
}

/// Moves the log start of a partition up to `before`.
pub fn delete_records(bootstrap: &str, topic: &str, partition: i32, before: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(before))
        .expect("an offset");
    block_on(admin(bootstrap).delete_records(&list, &AdminOptions::new()))
        .unwrap_or_else(|error| panic!("deleting records of {topic}: {error}"));
}

/// Low and high watermark of a partition.
pub fn watermarks(bootstrap: &str, topic: &str, partition: i32) -> (i64, i64) {
    let consumer: BaseConsumer = client(bootstrap).create().expect("valid settings");
    eventually(DEADLINE, "the partition has watermarks", || {
        consumer
            .fetch_watermarks(topic, partition, Duration::from_secs(5))
            .map_err(|error| error.to_string())
    })
}

/// The high watermark of a partition.
pub fn end_offset(bootstrap: &str, topic: &str, partition: i32) -> i64 {
    watermarks(bootstrap, topic, partition).1
}

/// The number of partitions; 0 while the topic does not exist. Never creates it.
pub fn partition_count(bootstrap: &str, topic: &str) -> i32 {
    let consumer: BaseConsumer = client(bootstrap)
        .set("allow.auto.create.topics", "false")
        .create()
        .expect("valid settings");
    eventually(DEADLINE, "the cluster answers", || {
        let metadata = consumer
            .fetch_metadata(None, Duration::from_secs(5))
            .map_err(|error| error.to_string())?;
        let count = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic)
            .map_or(0, |found| found.partitions().len());
        Ok::<_, String>(i32::try_from(count).expect("small"))
    })
}

/// The names of all topics.
pub fn topic_names(bootstrap: &str) -> Vec<String> {
    let consumer: BaseConsumer = client(bootstrap).create().expect("valid settings");
    eventually(DEADLINE, "the cluster answers", || {
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(5))?;
        let names = metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned());
        Ok::<_, rdkafka::error::KafkaError>(names.collect())
    })
}

/// Waits until every partition is known and has a leader.
pub fn await_partitions(bootstrap: &str, topic: &str, partitions: i32) {
    let consumer: BaseConsumer = client(bootstrap).create().expect("valid settings");
    eventually(DEADLINE, "every partition has a leader", || {
        let metadata = consumer
            .fetch_metadata(None, Duration::from_secs(5))
            .map_err(|error| error.to_string())?;
        let led = metadata
            .topics()
            .iter()
            .filter(|found| found.name() == topic)
            .flat_map(|found| found.partitions())
            .filter(|found| found.leader() >= 0)
            .count();
        if i32::try_from(led).expect("small") == partitions {
            Ok(())
        } else {
            Err(format!("{led} of {partitions}"))
        }
    });
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    client(bootstrap).create().expect("valid settings")
}

/// Runs one admin call to its end on a runtime of its own.
fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(future)
}
