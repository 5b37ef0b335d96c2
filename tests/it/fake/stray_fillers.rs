//! Fillers that came too late, or not at all, cost no offset.

use std::time::Duration;

use crate::support::flow::{block_on, flow_config, is_caught_up, wire_cluster, with_state};
use crate::support::{Load, Transactions, Twinlog, await_all_same, create_topic, fake_pair};
use twinlog::state::FlowRecord;
use twinlog::wire::{self, Filler, Role, TopicPartition};

const DEADLINE: Duration = Duration::from_secs(60);

/// Writes one marker as the flow's filler, `ahead` of the newest running number.
fn fill_as_twinlog(target: &str, flow: &str, topic: &str, ahead: i32) {
    let key = format!("flow/{flow}");
    let record: Option<FlowRecord> =
        with_state(target, |state| state.get(&key).expect("a flow record"));
    let filler_id = record.expect("the flow ran").filler_producer_id;
    let cluster = wire_cluster(target);
    let place = TopicPartition::new(topic, 0);
    let response = block_on(async {
        let mut states =
            wire::describe_producers(&cluster, std::slice::from_ref(&place), |_, _| true).await;
        let states = states.remove(&place).expect("an answer").expect("states");
        let newest = states.iter().find(|state| state.producer_id == filler_id);
        let newest = newest.expect("fillers");
        let filler = Filler {
            producer_id: filler_id,
            producer_epoch: i16::try_from(newest.producer_epoch).expect("an epoch"),
            coordinator_epoch_first: newest.coordinator_epoch + ahead,
        };
        let (leader, _) = cluster.cached().leader(topic, 0).expect("a leader");
        let connection = cluster.connection(leader, Role::Admin).await?;
        let parts = [(TopicPartition::new(topic, 0), filler, 1)];
        let request = wire::write_markers_request(&parts);
        connection.call(request, 1).await
    });
    let markers = response.expect("an answer").markers;
    assert_eq!(markers[0].topics[0].partitions[0].error_code, 0);
}

/// A hole of four offsets: three aborted records and their marker.
fn abort(source: &str, topic: &str, first: u64) {
    let mut aborted = Transactions::new(Load::new(topic, 3).first(first), 1);
    aborted.abort_percent = 100;
    assert_eq!(aborted.produce(source), 0);
}

/// A topic that is copied and caught up, fillers included, by a Twinlog that wrote none of them.
fn caught_up(source: &str, target: &str, topic: &str) -> Twinlog {
    create_topic(source, topic, 1, &[]);
    Load::new(topic, 20).produce(source);
    abort(source, topic, 20);
    let mut twinlog = Twinlog::start(&flow_config(topic, topic, source, target, ""));
    await_all_same(source, target, &[topic], DEADLINE);
    assert!(twinlog.terminate().success());
    twinlog.launch();
    twinlog.wait_until(DEADLINE, "it is caught up", |status| {
        is_caught_up(status, topic, 0)
    });
    twinlog
}

#[test]
fn a_filler_that_lands_after_the_position_was_read_is_not_doubled() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let topic = "late-filler";
    let mut twinlog = caught_up(&source, &target, topic);
    // Frozen, so that it sees the hole and the filler at once.
    twinlog.signal("STOP");
    abort(&source, topic, 30);
    fill_as_twinlog(&target, topic, topic, 1);
    twinlog.signal("CONT");
    Load::new(topic, 20).first(40).produce(&source);
    await_all_same(&source, &target, &[topic], DEADLINE);
    twinlog.wait_until(DEADLINE, "it is caught up", |status| {
        is_caught_up(status, topic, 0)
    });
}

#[test]
fn a_filler_that_was_lost_among_its_neighbours_is_written_again() {
    let (source, target) = fake_pair();
    lost_among_its_neighbours(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn lost_among_its_neighbours(source: &str, target: &str) {
    let topic = "lost-filler";
    let mut twinlog = caught_up(source, target, topic);
    assert!(twinlog.terminate().success());
    abort(source, topic, 30);
    // Of two markers the first was refused and the second appended.
    fill_as_twinlog(target, topic, topic, 2);
    twinlog.launch();
    Load::new(topic, 20).first(40).produce(source);
    await_all_same(source, target, &[topic], DEADLINE);
    assert!(twinlog.log().contains("written again"), "{}", twinlog.log());

    // From there on the counts agree again.
    assert!(twinlog.terminate().success());
    abort(source, topic, 60);
    let before = twinlog.log().matches("written again").count();
    twinlog.launch();
    await_all_same(source, target, &[topic], DEADLINE);
    assert_eq!(twinlog.log().matches("written again").count(), before);
}
