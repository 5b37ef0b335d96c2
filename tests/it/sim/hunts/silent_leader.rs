//! One leader that doesn't answer is named, and stops nobody else; one question that fails is asked again.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};
use twinlog::cutover::{Check, Weight};
use twinlog::state::CutoverKind;

use super::far_operator;
use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// Both partitions of `t` were failed over, unplanned, and the old primary is back.
fn failed_over(world: &mut World) -> Scene {
    let mut scene = Scene::new(world, 2, "");
    scene.topic("t", 2, 1, &[]);
    let places: Vec<Place> = (0..2).map(|number| Place::new("t", number)).collect();
    scene.twinlog(world, "twinlog");
    for place in &places {
        scene.write(world, Side::Primary, place, 20, Write::default());
    }
    scene.must_copy(world, &places, 30_000);
    world.run_for(12_000);
    let both = [1, 2];
    let stop = |id| scene.source.cluster.control(|state| state.stop_broker(id));
    both.into_iter().for_each(stop);
    let unplanned = failover_options(CutoverKind::Unplanned);
    let failover = process::failover(world, "operator", &scene.text, unplanned);
    let (report, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    let start = |id| scene.source.cluster.control(|state| state.start_broker(id));
    both.into_iter().for_each(start);
    world.run_for(5_000);
    scene
}

fn unseen(checks: &[Check]) -> Option<&Check> {
    checks.iter().find(|check| check.subject == "unseen")
}

/// What a failback's plan says while these requests about `t-1` fail at the old primary, and how it ends
/// once they don't.
fn play(world: &mut World, key: ApiKey, action: Action) {
    let scene = failed_over(world);
    let fault = Fault::on(key).partition("t", 1);
    let fault = scene.source.cluster.fault(fault, action);
    let look = process::look_back(world, "operator-looks", &scene.text);
    let checks = world.result(&look, 60_000).expect("it has a plan");
    let unseen = unseen(&checks).unwrap_or_else(|| panic!("nothing is unseen: {checks:#?}"));
    assert_eq!(unseen.weight, Weight::Blocker);
    assert!(unseen.reason.contains("t-1"), "{unseen:?}");
    assert!(!unseen.reason.contains("t-0"), "{unseen:?}");
    let subjects: Vec<&str> = checks.iter().map(|it| it.subject.as_str()).collect();
    assert!(
        subjects.contains(&"to_copy"),
        "the rest is told: {subjects:?}"
    );
    scene.source.cluster.clear(fault);
    let failback = process::failback(world, "operator-back", &scene.text, true);
    let (report, error) = world.result(&failback, 300_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    assert_eq!(scene.role(), Side::Primary);
}

#[test]
fn a_partition_whose_epochs_cant_be_asked_is_named_by_a_failback() {
    world::run(1, |world| {
        play(world, ApiKey::OffsetForLeaderEpoch, Action::Swallow);
    });
}

#[test]
fn a_partition_whose_end_cant_be_asked_is_named_by_a_failback() {
    world::run(1, |world| {
        let refused = Action::Refuse(ResponseError::KafkaStorageError);
        play(world, ApiKey::ListOffsets, refused);
    });
}

#[test]
fn a_partition_that_cant_be_read_is_named_by_a_failback() {
    world::run(1, |world| {
        let refused = Action::Refuse(ResponseError::KafkaStorageError);
        play(world, ApiKey::Fetch, refused);
    });
}

#[test]
fn a_standby_that_is_silent_for_a_moment_doesnt_end_the_drain() {
    world::run(1, |world| {
        let (scene, _, command) = far_operator::begun(world, "drain");
        let target = scene.target.clone();
        target.cluster.control(|state| state.freeze_broker(1));
        world.run_for(12_000);
        target.cluster.control(|state| state.thaw_broker(1));
        let (report, error) = world.result(&command, 300_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        assert_eq!(scene.role(), Side::Standby);
    });
}

#[test]
fn what_was_copied_back_is_not_stranded_where_the_old_primarys_state_cant_be_read() {
    world::run(1, |world| {
        let mut scene = failed_over(world);
        let begun = process::begin_back(world, "operator-back", &scene.text);
        let (report, error) = world.result(&begun, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        scene.twinlog(world, "back");
        let place = Place::new("t", 0);
        scene.write(world, Side::Standby, &place, 5, Write::default());
        let source = scene.source.clone();
        world.must("it is copied back", 60_000, move |_| {
            logs::read(&source, &place).records.len() == 25
        });
        let none = process::undecided(world, "operator-looks", &scene.text);
        let none = world.result(&none, 60_000).expect("its state can be read");
        assert!(none.0.is_empty() && none.1.is_empty(), "{none:?}");
        let fault = Fault::on(ApiKey::ListOffsets).partition("__twinlog_state", 0);
        let refused = Action::Refuse(ResponseError::KafkaStorageError);
        scene.source.cluster.fault(fault, refused);
        let look = process::undecided(world, "operator-looks-again", &scene.text);
        let error = world.result(&look, 120_000).expect_err("it can't be told");
        assert!(error.message.contains("copied back"), "{error}");
    });
}

/// The disaster takes the broker along that leads the state, and the controller hasn't missed it yet.
#[test]
fn a_failover_waits_for_another_leader_of_the_state() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 2, "");
        scene.topic("t", 2, 2, &[]);
        let places: Vec<Place> = (0..2).map(|number| Place::new("t", number)).collect();
        let twinlog = scene.twinlog(world, "twinlog");
        for place in &places {
            scene.write(world, Side::Primary, place, 20, Write::default());
        }
        scene.must_copy(world, &places, 30_000);
        world.run_for(12_000);
        twinlog.process.kill();
        let stop = |id| scene.source.cluster.control(|state| state.stop_broker(id));
        [1, 2].into_iter().for_each(stop);
        let dead = scene.target.cluster.control(|state| {
            let leader = state
                .partition("__twinlog_state", 0)
                .and_then(|it| it.leader);
            let leader = leader.expect("somebody leads it");
            state.crash_broker(leader);
            leader
        });
        let unplanned = failover_options(CutoverKind::Unplanned);
        let failover = process::failover(world, "operator", &scene.text, unplanned);
        world.run_for(9_000);
        scene
            .target
            .cluster
            .control(|state| state.fence_broker(dead));
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        assert_eq!(scene.role(), Side::Standby);
    });
}
