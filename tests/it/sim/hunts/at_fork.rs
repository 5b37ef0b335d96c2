//! A group stands at the end of the copy when the source is lost.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::Side;
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

const RECORDS: i64 = 20;

/// What happens once the forks are recorded.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    /// A client of the standby writes before the padding.
    ClientWrites,
    /// The group's coordinator on the standby leaves these questions unanswered.
    Unanswered(ApiKey),
    /// It loads its groups, and lists none.
    Loads,
}

/// Where the group is on the standby behind the failover, and where the log ends, or has a record of the client.
fn play(world: &mut World, committed: i64, then: Then) -> (i64, i64, String) {
    let (mut scene, twinlog, place) = Scene::with_groups(world, RECORDS, "twinlog");
    let group = scene.commits(world, committed, 10);
    world.result(&group, 60_000);
    let cluster = scene.target.cluster.clone();
    let at = move |cluster: &fake_kafka::Cluster| {
        let found = cluster.control(|state| state.committed_offset("group", "t", 0));
        found.map(|it| it.offset)
    };
    world.must("the group has followed", 60_000, move |_| {
        at(&cluster) == Some(committed)
    });
    world.run_for(35_000);
    scene.lose_source(world);
    twinlog.process.kill();
    let unplanned = failover_options(CutoverKind::Unplanned);
    let failover = process::failover(world, "operator", &scene.text, unplanned);
    if then != Then::Nothing {
        let target = scene.target.clone();
        world.must("the forks are recorded", 60_000, move |_| {
            logs::newest(&target, "__twinlog_state", "fork/dr/t").is_some()
        });
        match then {
            Then::Unanswered(key) => {
                let fault = Fault::on(key).group("group");
                scene.target.cluster.fault(fault, Action::Swallow);
            }
            Then::Loads => {
                let loads = Action::Refuse(ResponseError::CoordinatorLoadInProgress);
                scene
                    .target
                    .cluster
                    .fault(Fault::on(ApiKey::ListGroups), loads);
            }
            _ => scene.write(world, Side::Standby, &place, 1, Write::default()),
        }
    }
    let (report, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    let log = logs::read(&scene.target, &place);
    let mut records = log.records.iter().map(|it| it.offset);
    let end = records.find(|at| *at >= RECORDS).unwrap_or(log.end);
    let told = report.for_the_operator.join("\n");
    (
        at(&scene.target.cluster).expect("it is committed"),
        end,
        told,
    )
}

#[test]
fn a_group_at_the_fork_goes_behind_the_padding() {
    world::run(1, |world| {
        let (group, end, told) = play(world, RECORDS, Then::Nothing);
        assert!(end > RECORDS, "it is padded");
        assert_eq!(group, end, "{told}");
        assert!(told.contains("moved behind the padding"), "{told}");
    });
}

#[test]
fn a_group_before_a_record_stays() {
    world::run(1, |world| {
        let (group, _, told) = play(world, RECORDS - 1, Then::Nothing);
        assert_eq!(group, RECORDS - 1, "{told}");
        assert!(!told.contains("behind the padding"), "{told}");
    });
}

#[test]
fn a_record_among_the_padding_is_not_skipped() {
    world::run(1, |world| {
        // A marker may stand before it.
        let (group, record, told) = play(world, RECORDS, Then::ClientWrites);
        assert!(group <= record, "{group} {record} {told}");
        assert!(record < RECORDS + 10, "it is among the padding: {record}");
    });
}

#[test]
fn a_group_that_cant_be_asked_is_named() {
    world::run(1, |world| {
        let unanswered = Then::Unanswered(ApiKey::OffsetFetch);
        let (at, _, told) = play(world, RECORDS, unanswered);
        assert_eq!(at, RECORDS, "{told}");
        assert!(
            told.contains("couldn't be asked whether they stand before the padding, and stay where they are: group"),
            "{told}"
        );
    });
}

#[test]
fn that_groups_cant_be_listed_is_told() {
    world::run(1, |world| {
        let (at, end, told) = play(world, RECORDS, Then::Loads);
        assert_eq!(at, end, "the one that is remembered is moved: {told}");
        assert!(told.contains("could be listed"), "{told}");
    });
}
