//! Reading (`ReplicaManager.fetchMessages`, `UnifiedLog.read`, `FetchSession`) and finding offsets (`UnifiedLog.fetchOffsetByTimestamp`).

use std::time::{Duration, Instant};

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::{DeleteRecordsRequest, FetchRequest, FetchResponse, TopicName};

use super::{Batch, FETCH, Stage, Want, fetch, now_ms, text};
use crate::batch::Record;

const OUT_OF_RANGE: i16 = 1;
const UNKNOWN_PARTITION: i16 = 3;
const SESSION_NOT_FOUND: i16 = 70;
const WRONG_SESSION_EPOCH: i16 = 71;

pub(super) fn ends(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    for _ in 0..3 {
        stage.write(&topic, Batch::of(4).bytes());
    }
    let answer = stage.fetch(&topic, Want::from(12));
    assert_eq!((answer.error_code, answer.high_watermark), (0, 12));
    assert_eq!(
        (answer.last_stable_offset, answer.log_start_offset),
        (12, 0)
    );
    assert!(answer.records.is_none_or(|records| records.is_empty()));
    // In the middle of a batch, the whole batch comes.
    assert_eq!(stage.read(&topic, 6)[0].0.base_offset, 4);
    for offset in [13, -1] {
        let answer = stage.fetch(&topic, Want::from(offset));
        assert_eq!(answer.error_code, OUT_OF_RANGE);
        assert_eq!((answer.high_watermark, answer.log_start_offset), (-1, -1));
    }
    assert_eq!(stage.delete(&topic, 13), (OUT_OF_RANGE, -1));
    assert_eq!(stage.delete(&topic, 6), (0, 6));
    assert_eq!(stage.list(&topic, 0, -2).offset, 6);
    assert_eq!(stage.fetch(&topic, Want::from(5)).error_code, OUT_OF_RANGE);
    assert_eq!(
        stage.read(&topic, 6)[0].0.base_offset,
        4,
        "batches stay whole"
    );
    // To where it already is, and back: nothing happens.
    assert_eq!(stage.delete(&topic, 3), (0, 6));
    assert_eq!(stage.delete(&topic, -1), (0, 12));
    assert_eq!(stage.list(&topic, 0, -2).offset, 12);
    assert_eq!(stage.write(&topic, Batch::of(1).bytes()), 12);
}

impl Stage {
    fn delete(&mut self, topic: &str, offset: i64) -> (i16, i64) {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(0)
            .with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let answer = self.call(&request, 2);
        let partition = &answer.topics[0].partitions[0];
        (partition.error_code, partition.low_watermark)
    }
}

pub(super) fn by_time(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    assert_eq!(stage.list(&topic, 0, -3).offset, -1, "an empty log");
    let start = now_ms() - 100_000;
    // 0..4 at 0, 10, 20, 30; compressed. Then 4 and 5 at 15. Then 6 at 40.
    let mut spread = Batch::of(4).at(start).with(|h| h.attributes = 1);
    for (record, delta) in spread.records.iter_mut().zip([0, 10, 20, 30]) {
        record.timestamp_delta = delta;
    }
    stage.write(&topic, spread.bytes());
    stage.write(&topic, Batch::of(2).at(start + 15).bytes());
    stage.write(&topic, Batch::of(1).at(start + 40).bytes());
    for (time, offset, found) in [(-5, 0, 0), (0, 0, 0), (11, 2, 20), (30, 3, 30), (31, 6, 40)] {
        let answer = stage.list(&topic, 0, start + time);
        assert_eq!(
            (answer.offset, answer.timestamp),
            (offset, start + found),
            "{time}"
        );
        assert_eq!(answer.leader_epoch, 0);
    }
    let answer = stage.list(&topic, 0, start + 41);
    assert_eq!(
        (answer.offset, answer.timestamp, answer.error_code),
        (-1, -1, 0)
    );
    let largest = stage.list(&topic, 0, -3);
    assert_eq!((largest.offset, largest.timestamp), (6, start + 40));
    let (header, _) = stage.read(&topic, 0)[0];
    assert_eq!(
        header.max_timestamp,
        start + 30,
        "the broker looked into the batch"
    );
    let nowhere = stage.name("nowhere");
    assert_eq!(stage.list(&nowhere, 0, -1).error_code, UNKNOWN_PARTITION);
}

pub(super) fn sizes(stage: &mut Stage) {
    let topic = stage.topic("a", 2, &[]);
    let mut large = Batch::of(1);
    large.records = vec![Record::new(None, Some(&[b'x'; 10_000]))];
    for partition in [0, 1] {
        for _ in 0..3 {
            stage.produce_to(&topic, partition, large.bytes());
        }
    }
    let size = large.bytes().len();
    let want = |partition, max_bytes| Want {
        partition,
        max_bytes,
        ..Want::from(0)
    };
    // The first batch comes whole, however small the limits are, and no other.
    let tiny = fetch(&topic, &[want(0, 1), want(1, 1)]).with_max_bytes(1);
    let answer = stage.call(&tiny, FETCH);
    let lengths = |answer: &FetchResponse| -> Vec<usize> {
        let partitions = &answer.responses[0].partitions;
        partitions
            .iter()
            .map(|p| p.records.as_ref().map_or(0, |records| records.len()))
            .collect()
    };
    assert_eq!(lengths(&answer), [size, 0]);
    // A partition's limit cuts the last batch off.
    let cut = fetch(&topic, &[want(0, 15_000), want(1, 12_000)]);
    assert_eq!(lengths(&stage.call(&cut, FETCH)), [15_000, 12_000]);
    // So does the request's; the rest gets nothing.
    let cut = fetch(&topic, &[want(0, 1 << 20), want(1, 1 << 20)]).with_max_bytes(25_000);
    assert_eq!(lengths(&stage.call(&cut, FETCH)), [25_000, 0]);
}

pub(super) fn sessions(stage: &mut Stage) {
    let topic = stage.topic("a", 2, &[]);
    let both = [0, 1].map(|partition| Want {
        partition,
        ..Want::from(0)
    });
    let first = stage.call(&fetch(&topic, &both).with_session_epoch(0), FETCH);
    assert!(first.session_id != 0);
    assert_eq!(first.responses[0].partitions.len(), 2);
    let next = |epoch: i32| -> FetchRequest {
        fetch(&topic, &[])
            .with_topics(Vec::new())
            .with_session_id(first.session_id)
            .with_session_epoch(epoch)
    };
    let told = |answer: &FetchResponse| -> Vec<i32> {
        let topics = answer.responses.iter();
        let partitions = topics.flat_map(|topic| &topic.partitions);
        partitions.map(|p| p.partition_index).collect()
    };
    let answer = stage.call(&next(1), FETCH);
    assert_eq!(
        (answer.session_id, told(&answer)),
        (first.session_id, vec![])
    );
    stage.produce_to(&topic, 1, Batch::of(1).bytes());
    assert_eq!(told(&stage.call(&next(2), FETCH)), [1], "only what is new");
    assert_eq!(stage.call(&next(2), FETCH).error_code, WRONG_SESSION_EPOCH);
    let forgotten = ForgottenTopic::default()
        .with_topic(TopicName(text(&topic)))
        .with_partitions(vec![1]);
    let answer = stage.call(&next(3).with_forgotten_topics_data(vec![forgotten]), FETCH);
    assert_eq!(told(&answer), Vec::<i32>::new(), "forgotten");
    stage.produce_to(&topic, 0, Batch::of(1).bytes());
    assert_eq!(told(&stage.call(&next(4), FETCH)), [0]);
    let unknown = next(1).with_session_id(first.session_id.wrapping_add(77));
    assert_eq!(stage.call(&unknown, FETCH).error_code, SESSION_NOT_FOUND);
    assert_eq!(stage.call(&next(-1), FETCH).error_code, 0, "closed");
    assert_eq!(stage.call(&next(5), FETCH).error_code, SESSION_NOT_FOUND);
}

pub(super) fn waits(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let request = |min_bytes, max_wait_ms| {
        fetch(&topic, &[Want::from(0)])
            .with_min_bytes(min_bytes)
            .with_max_wait_ms(max_wait_ms)
    };
    let started = Instant::now();
    stage.call(&request(1, 300), FETCH);
    assert!(started.elapsed() >= Duration::from_millis(280), "it waited");
    stage.client.send(&request(1, 90_000), FETCH).expect("sent");
    let mut other = Stage {
        client: stage.another(),
        address: stage.address.clone(),
        prefix: stage.prefix.clone(),
    };
    let started = Instant::now();
    other.write(&topic, Batch::of(1).bytes());
    let answer = stage
        .client
        .receive::<FetchRequest>(FETCH)
        .expect("an answer");
    assert!(started.elapsed() < Duration::from_secs(45), "it was woken");
    let partition = &answer.responses[0].partitions[0];
    assert!(
        partition
            .records
            .as_ref()
            .is_some_and(|records| !records.is_empty())
    );
    // An error is told at once.
    let started = Instant::now();
    let wrong = fetch(&topic, &[Want::from(99)]).with_max_wait_ms(90_000);
    let answer = stage.call(&wrong, FETCH);
    assert_eq!(answer.responses[0].partitions[0].error_code, OUT_OF_RANGE);
    assert!(started.elapsed() < Duration::from_secs(45));
}
