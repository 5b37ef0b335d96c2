//! A mirror is deleted on the target just when its holes are filled: the broker may never answer a
//! request for several partitions then. Whatever shares its connection goes on.

use std::time::Duration;

use fake_kafka::faults::{Action, Fault};
use fake_kafka::state::Options;
use kafka_protocol::messages::ApiKey;

use crate::support::fake::options;
use crate::support::flow::{is_caught_up, never_given_up};
use crate::support::{
    FakeCluster, Load, Transactions, Twinlog, await_all_same, create_topic, fake_pair,
};

const DEADLINE: Duration = Duration::from_secs(60);
/// Partitions of both are on each lane.
const STAYS: (&str, i32) = ("lane-a", 2);
const GOES: (&str, i32) = ("lane-c", 4);

/// A hole in each partition.
fn holes(source: &str, (topic, partitions): (&str, i32), round: u64) {
    let count = u64::try_from(partitions).expect("positive") * 2;
    let mut aborted = Transactions::new(Load::new(topic, count).first(round * 100), 1);
    aborted.abort_percent = 100;
    aborted.produce(source);
}

fn neighbours_go_on(source: &FakeCluster, target: &FakeCluster, rounds: u64) {
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for (topic, partitions) in [STAYS, GOES] {
        create_topic(&from, topic, partitions, &[]);
        Load::new(topic, 40).produce(&from);
    }
    let mut twinlog = Twinlog::start(&never_given_up(&Twinlog::config(&from, &to, "")));
    await_all_same(&from, &to, &[STAYS.0, GOES.0], DEADLINE);
    for round in 1..=rounds {
        // So that it meets all the holes at once.
        twinlog.signal("STOP");
        holes(&from, STAYS, round);
        holes(&from, GOES, round);
        let goes = Fault::on(ApiKey::WriteTxnMarkers).topic(GOES.0).times(1);
        let delete = Action::Arrives(Box::new(|state, _| {
            state.delete_topic(GOES.0);
        }));
        let deleted = target.fault(goes, delete);
        twinlog.signal("CONT");
        twinlog.wait_until(DEADLINE, "the neighbour goes on", |status| {
            target.fired(deleted) > 0
                && (0..STAYS.1).all(|partition| is_caught_up(status, STAYS.0, partition))
        });
        await_all_same(&from, &to, &[STAYS.0, GOES.0], DEADLINE);
    }
}

#[test]
fn a_mirror_that_is_deleted_while_its_holes_are_filled_stops_no_other() {
    let (source, target) = fake_pair();
    neighbours_go_on(&source, &target, 6);
}

/// Partitions with several replicas in sync share a request. The fake's replicas are as quick as
/// real ones never are: so it may go unanswered.
#[test]
fn fillers_that_are_never_answered_are_given_up_soon() {
    let start = |cluster_id| {
        FakeCluster::start(Options {
            brokers: 2,
            default_replication: 2,
            ..options(cluster_id)
        })
    };
    neighbours_go_on(&start("source"), &start("target"), 4);
}
