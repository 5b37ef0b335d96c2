//! Topics, records and what lies in the fakes' logs.

use std::time::Duration;

use bytes::Bytes;
use fake_kafka::batch::Record;
use fake_kafka::topics::NewTopic;
use fake_kafka::world::{Brokers, Client, Ctx};

/// What one record is: its offset, key and value.
pub type Read = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

pub fn make_topic(brokers: &Brokers, name: &str, partitions: i32) {
    let new = NewTopic {
        partitions,
        replication: 1,
        ..NewTopic::default()
    };
    let made = brokers
        .cluster
        .control(|state| state.create_topic(name, &new));
    made.unwrap_or_else(|(error, why)| panic!("{error:?}: {why}"));
}

/// Everything in a partition, read from its leader's log.
pub fn read(brokers: &Brokers, topic: &str, partition: i32) -> Vec<Read> {
    brokers.cluster.look(|state| {
        let Some(topic) = state.topics.get(topic) else {
            return Vec::new();
        };
        let log = topic.partitions[&partition].leader_log().expect("a leader");
        let batches = log.batches().filter(|batch| !batch.header.is_control());
        batches
            .flat_map(|batch| {
                let base = batch.header.base_offset;
                let records = batch.records().expect("readable");
                let read = |record: Record| {
                    let bytes = |it: Option<Bytes>| it.map(|it| it.to_vec());
                    let offset = base + i64::from(record.offset_delta);
                    (offset, bytes(record.key), bytes(record.value))
                };
                records.into_iter().map(read).collect::<Vec<_>>()
            })
            .collect()
    })
}

/// Writes `count` records to each of the partitions, one to each every few milliseconds.
pub async fn write(ctx: Ctx, brokers: Brokers, partitions: i32, count: i32) {
    let mut client = Client::new(&ctx, &brokers);
    for number in 0..count {
        for partition in 0..partitions {
            let value = format!("{partition}/{number}");
            let record = Record::new(Some(b"key"), Some(value.as_bytes()));
            let written = client.produce("orders", partition, &[record]).await;
            written.expect("nothing is wrong with the source");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
