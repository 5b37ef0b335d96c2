//! What time does to a log: producers are forgotten (`ProducerStateManager.isProducerExpired`), keys are cleaned (`Cleaner`).

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{DescribeProducersRequest, TopicName};

use super::{Batch, Stage, now_ms, text};
use crate::batch::{Header, Record};

/// The brokers that these scenarios want: `producer.id.expiration.ms`.
pub const EXPIRATION_MS: i64 = 4_000;
/// The brokers that these scenarios want: `producer.id.expiration.check.interval.ms`.
pub const CHECK_INTERVAL_MS: i64 = 200;

const OUT_OF_ORDER: i16 = 45;

impl Stage {
    fn knows_producer(&mut self, topic: &str, id: i64) -> bool {
        let wanted = TopicRequest::default()
            .with_name(TopicName(text(topic)))
            .with_partition_indexes(vec![0]);
        let request = DescribeProducersRequest::default().with_topics(vec![wanted]);
        let answer = self.call(&request, 0);
        let partition = &answer.topics[0].partitions[0];
        let mut producers = partition.active_producers.iter();
        producers.any(|producer| producer.producer_id.0 == id)
    }
}

/// The time of its records counts, not the time at which they were written.
pub(super) fn producers_are_forgotten(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let old = stage.producer();
    let young = stage.producer();
    let batch = |id, sequence, age_ms: i64| {
        Batch::of(1)
            .at(now_ms() - age_ms)
            .by(id, 0, sequence)
            .bytes()
    };
    // Its record is a minute old when it is written, but this one's is of the future.
    stage.write(&topic, batch(young, 0, -600_000));
    stage.write(&topic, batch(old, 0, 60_000));
    stage.until(|stage| !stage.knows_producer(&topic, old));
    assert_eq!(
        stage.write(&topic, batch(old, 77, 60_000)),
        2,
        "it may begin anywhere"
    );
    assert!(stage.knows_producer(&topic, young));
    let answer = stage.produce(&topic, batch(young, 77, -600_000));
    assert_eq!(answer.error_code, OUT_OF_ORDER, "this one may not");
    assert_eq!(stage.write(&topic, batch(young, 1, -600_000)), 3);
}

/// The topic of [`keys_are_cleaned`], which has been written when `clean` is called.
pub(super) fn keys_are_cleaned(stage: &mut Stage, clean: &mut dyn FnMut(&str)) {
    let configs = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.0"),
        ("segment.ms", "50"),
    ];
    let topic = stage.topic("a", 1, &configs);
    let id = stage.producer();
    // All of it in the future, so that the producer isn't forgotten before the cleaner comes.
    let keyed = |keys: &[&[u8]]| {
        let mut batch = Batch::of(keys.len()).at(now_ms() + 600_000);
        for (record, key) in batch.records.iter_mut().zip(keys) {
            *record = Record::new(Some(key), Some(b"v"));
        }
        batch
    };
    // 0: superseded. 1: superseded, but the producer's last. 2 and 3: the first is superseded. 4: a new key. 5..7: all newest.
    stage.write(&topic, keyed(&[b"a"]).by(id, 0, 0).bytes());
    stage.write(&topic, keyed(&[b"b"]).by(id, 0, 1).bytes());
    stage.write(&topic, keyed(&[b"c", b"d"]).bytes());
    stage.write(&topic, keyed(&[b"e"]).bytes());
    stage.write(&topic, keyed(&[b"a", b"b", b"c"]).bytes());
    clean(&topic);
    // Segments end when something younger is written; the one that is written to is left alone.
    let mut next = 8;
    let mut filler = 0;
    stage.until(|stage| {
        std::thread::sleep(std::time::Duration::from_millis(60));
        filler += 1;
        let key = format!("filler {filler}");
        stage.write(&topic, keyed(&[key.as_bytes()]).bytes());
        next += 1;
        stage.read(&topic, 0)[0].0.base_offset != 0
    });
    let kept: Vec<Header> = stage
        .read(&topic, 0)
        .into_iter()
        .map(|(header, _)| header)
        .take_while(|header| header.base_offset < 8)
        .collect();
    let shape: Vec<(i64, i64, i32)> = kept
        .iter()
        .map(|header| (header.base_offset, header.last_offset(), header.count))
        .collect();
    assert_eq!(shape, [(1, 1, 0), (2, 3, 1), (4, 4, 1), (5, 7, 3)]);
    let (producer, sequence) = (kept[0].producer_id, kept[0].base_sequence);
    assert_eq!(
        (producer, sequence),
        (id, 1),
        "an empty batch that keeps the sequence"
    );
    assert_eq!(
        stage.list(&topic, 0, -2).offset,
        0,
        "the log still begins at zero"
    );
    assert_eq!(stage.list(&topic, 0, -1).offset, next);
    assert_eq!(
        stage.write(&topic, keyed(&[b"x"]).by(id, 0, 2).bytes()),
        next
    );
}
