//! The producer id of the fillers has no more epochs: they go on under another one.

use std::time::Duration;

use fake_kafka::cleaner::Cleaning;

use crate::support::flow::{
    block_on, flow_config, is_caught_up, opened_state, wire_cluster, with_state,
};
use crate::support::{
    FakeCluster, Load, Transactions, Twinlog, await_all_same, create_topic, fake_pair,
};
use twinlog::state::{Claim, FillerRecord, FlowRecord, keys};
use twinlog::wire::{self, Filler, Role, TopicPartition};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "eras";
/// Generations for which one producer id has epochs.
const EPOCHS: u64 = 32_766;
/// The last of them, which ends them.
const CLOSING: i16 = 32_766;
const INVALID_PRODUCER_EPOCH: i16 = 47;

/// A hole of four offsets: three aborted records and their marker.
fn abort(source: &str, first: u64) {
    let mut aborted = Transactions::new(Load::new(TOPIC, 3).first(first), 1);
    aborted.abort_percent = 100;
    assert_eq!(aborted.produce(source), 0);
}

/// The next one who claims the flow has this generation.
fn next_generation(target: &str, generation: u64) {
    let claim: Option<Claim> = with_state(target, |state| {
        state.get(&keys::claim(TOPIC)).expect("it is read")
    });
    let claim = Claim {
        generation: generation - 1,
        released: true,
        ..claim.expect("the flow ran")
    };
    let cluster = wire_cluster(target);
    block_on(async {
        let state = opened_state(&cluster, TOPIC).await;
        state
            .put(&keys::claim(TOPIC), &claim)
            .await
            .expect("it is written");
    });
}

/// The producer ids and epochs of the fillers, in their order, repetitions left out.
fn fillers(target: &FakeCluster) -> Vec<(i64, i16)> {
    target.look(|state| {
        let partition = state.partition(TOPIC, 0).expect("it is there");
        let batches = partition.leader_log().expect("it is led").batches();
        let markers = batches.filter(|batch| batch.header.is_control());
        let mut found: Vec<_> = markers
            .map(|batch| (batch.header.producer_id, batch.header.producer_epoch))
            .collect();
        found.dedup();
        found
    })
}

/// What the broker says to a filler of an owner of this generation, however high its number.
fn fill_late(target: &str, producer_id: i64, producer_epoch: i16) -> i16 {
    let cluster = wire_cluster(target);
    let filler = Filler {
        producer_id,
        producer_epoch,
        coordinator_epoch_first: 1_000_000,
    };
    let answer = block_on(async {
        cluster.metadata(None).await?;
        let (leader, _) = cluster.cached().leader(TOPIC, 0).expect("a leader");
        let connection = cluster.connection(leader, Role::Admin).await?;
        let parts = [(TopicPartition::new(TOPIC, 0), filler, 1)];
        let request = wire::write_markers_request(&parts);
        connection.call(request, 1).await
    });
    answer.expect("an answer").markers[0].topics[0].partitions[0].error_code
}

#[test]
fn when_its_epochs_are_used_up_fillers_have_another_id() {
    let (source, target_cluster) = fake_pair();
    let (source, target) = (source.bootstrap(), target_cluster.bootstrap());
    create_topic(&source, TOPIC, 1, &[]);
    let mut first = 0;
    let mut twinlog = Twinlog::prepare(&flow_config(TOPIC, TOPIC, &source, &target, ""));
    let mut run = |twinlog: &mut Twinlog, holes: usize| {
        twinlog.launch();
        for _ in 0..holes {
            Load::new(TOPIC, 20).first(first).produce(&source);
            abort(&source, first + 20);
            first += 30;
            await_all_same(&source, &target, &[TOPIC], DEADLINE);
        }
        twinlog.wait_until(DEADLINE, "it is caught up", |status| {
            is_caught_up(status, TOPIC, 0)
        });
        assert!(twinlog.terminate().success());
    };
    run(&mut twinlog, 1);
    let record: Option<FlowRecord> = with_state(&target, |state| {
        state.get(&keys::flow(TOPIC)).expect("it is read")
    });
    let old = record.expect("the flow ran").filler_producer_id;
    next_generation(&target, EPOCHS - 1);
    run(&mut twinlog, 1);
    assert_eq!(
        fillers(&target_cluster).last(),
        Some(&(old, CLOSING - 1)),
        "the last one of the old id"
    );

    run(&mut twinlog, 2);
    let made: Vec<FillerRecord> = with_state(&target, |state| {
        let keys = state.keys(&keys::fillers(TOPIC));
        keys.iter()
            .filter_map(|key| state.get(key).expect("it is read"))
            .collect()
    });
    let [
        FillerRecord {
            era: 1,
            producer_id: new,
            ..
        },
    ] = made[..]
    else {
        panic!("one id for the new era: {made:?}");
    };
    let written = fillers(&target_cluster);
    assert_eq!(
        written[written.len() - 3..],
        [(old, CLOSING - 1), (old, CLOSING), (new, 0)]
    );
    // A frozen owner of before wakes up.
    assert_eq!(fill_late(&target, old, CLOSING - 1), INVALID_PRODUCER_EPOCH);

    // The next owner has the next epoch, and makes no other id.
    run(&mut twinlog, 1);
    let written = fillers(&target_cluster);
    assert_eq!(written[written.len() - 2..], [(new, 0), (new, 1)]);
    assert_eq!(fill_late(&target, new, 0), INVALID_PRODUCER_EPOCH);

    // Of the old ones the cleaner keeps the very last.
    target_cluster.control(|state| {
        let partition = state.partition(TOPIC, 0).expect("it is there");
        let below = partition.leader_log().expect("it is led").end_offset();
        let drops_tombstones = true;
        state.compact(
            TOPIC,
            0,
            Cleaning {
                drops_tombstones,
                below,
            },
        );
    });
    let kept = fillers(&target_cluster);
    assert_eq!(
        kept.iter().filter(|(id, _)| *id == old).count(),
        1,
        "{kept:?}"
    );
    assert!(kept.contains(&(old, CLOSING)), "{kept:?}");
}
