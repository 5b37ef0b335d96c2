//! What is copied lands at the same offsets, and a seed is a run.

use fake_kafka::Options;
use fake_kafka::batch::Record;
use fake_kafka::topics::NewTopic;
use fake_kafka::world::{self, Brokers, Client, Ctx, World};

use crate::process;

/// What one record is: its offset, key and value.
type Read = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn make_topic(brokers: &Brokers, name: &str, partitions: i32) {
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
fn read(brokers: &Brokers, topic: &str, partition: i32) -> Vec<Read> {
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
                    let bytes = |it: Option<bytes::Bytes>| it.map(|it| it.to_vec());
                    let offset = base + i64::from(record.offset_delta);
                    (offset, bytes(record.key), bytes(record.value))
                };
                records.into_iter().map(read).collect::<Vec<_>>()
            })
            .collect()
    })
}

/// Writes `count` records to each of the partitions, one after the other.
async fn write(ctx: Ctx, brokers: Brokers, partitions: i32, count: i32) {
    let mut client = Client::new(&ctx, &brokers);
    for number in 0..count {
        for partition in 0..partitions {
            let value = format!("{partition}/{number}");
            let record = Record::new(Some(b"key"), Some(value.as_bytes()));
            let written = client.produce("orders", partition, &[record]).await;
            written.expect("nothing is wrong with the source");
        }
    }
}

fn copy(world: &mut World) -> (Vec<Vec<Read>>, u64, u64) {
    let source = world.cluster("source", Options::default());
    let target = world.cluster("target", Options::default());
    make_topic(&source, "orders", 2);
    let text = process::config(&source, &target, "");
    process::run(world, "twinlog", &text);
    let brokers = source.clone();
    let writer = world.process("writer", move |ctx| write(ctx, brokers.clone(), 2, 200));
    world.result(&writer, 60_000);
    let whole: Vec<_> = (0..2).map(|at| read(&source, "orders", at)).collect();
    let wanted = whole.clone();
    world.must("all is copied", 60_000, move |_| {
        (0..2).all(|at| read(&target, "orders", at) == wanted[at as usize])
    });
    world.run_for(10_000);
    (whole, world.trace().hash(), world.trace().events())
}

#[test]
fn records_land_at_their_offsets_and_a_seed_is_a_run() {
    let (whole, hash, events) = world::run(1, copy);
    assert!(whole.iter().all(|of| of.len() == 200), "200 in each");
    assert!(events > 1_000, "{events} events");
    assert_eq!(
        world::run(1, copy),
        (whole.clone(), hash, events),
        "the same seed"
    );
    assert_ne!(world::run(2, copy).1, hash, "another seed");
}
