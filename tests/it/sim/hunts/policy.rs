//! A managed broker that says "slower" with POLICY_VIOLATION: the copy waits a little, and goes on.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world;

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side};
use crate::sim::scene::{Scene, Write, partition_status};

#[test]
fn batches_that_are_refused_by_a_policy_for_a_while_are_copied() {
    for times in [1, 4, 8] {
        for how in [Write::default(), Write::COMMITTED] {
            world::run(times, move |world| {
                let mut scene = Scene::new(world, 1, "offsets: identical");
                scene.topic("t", 1, 1, &[]);
                let place = Place::new("t", 0);
                let twinlog = scene.twinlog(world, "twinlog");
                scene.write(world, Side::Primary, &place, 3, Write::COMMITTED);
                scene.must_copy(world, std::slice::from_ref(&place), 30_000);
                let cluster = scene.target.cluster.clone();
                let fault = Fault::on_topic(ApiKey::Produce, "t").times(times);
                let slower = Action::Refuse(ResponseError::PolicyViolation);
                let fault = cluster.fault(fault, slower);
                scene.write(world, Side::Primary, &place, 20, how);
                scene.must_copy(world, std::slice::from_ref(&place), 60_000);
                assert!(scene.target.cluster.fired(fault) > 0);
                world.run_for(10_000);
                let found = scene.judge_copy(world, &twinlog, &place, Offsets::Identical, &[]);
                holds("in the end", &found);
            });
        }
    }
}

/// Every second request is refused for a minute, as a service does that throttles: the copy is slower, and current.
#[test]
fn a_service_that_refuses_every_second_request_is_copied_to() {
    const PARTITIONS: i32 = 4;
    for seed in crate::sim::seeds(3) {
        world::run(seed, |world| {
            let mut scene = Scene::new(world, 1, "");
            scene.topic("t", PARTITIONS, 1, &[]);
            let places: Vec<Place> = (0..PARTITIONS).map(|at| Place::new("t", at)).collect();
            let twinlog = scene.twinlog(world, "twinlog");
            for place in &places {
                scene.write(world, Side::Primary, place, 3, Write::default());
            }
            scene.must_copy(world, &places, 30_000);
            let cluster = scene.target.cluster.clone();
            let refuse = || {
                let second = Fault::on_topic(ApiKey::Produce, "t").nth(2).times(1);
                let slower = Action::Refuse(ResponseError::PolicyViolation);
                cluster.fault(second, slower)
            };
            let mut refused = 0;
            let mut fault = refuse();
            let began_ms = world.now_ms();
            while world.now_ms() < began_ms + 60_000 {
                if world.now_ms() % 1_000 < 20 {
                    for place in &places {
                        scene.write(world, Side::Primary, place, 5, Write::default());
                    }
                }
                world.run_for(20);
                if cluster.fired(fault) > 0 {
                    cluster.clear(fault);
                    refused += 1;
                    fault = refuse();
                }
                for place in &places {
                    let status = partition_status(world, &twinlog, place);
                    let state = status.map(|it| it.state);
                    assert_ne!(state.as_deref(), Some("stopped"), "{place}");
                }
            }
            assert!(refused >= 20, "{refused}");
            // It has kept up meanwhile.
            scene.must_copy(world, &places, 5_000);
            cluster.clear(fault);
            for place in &places {
                let offsets = Offsets::Identical;
                let found = scene.judge_copy(world, &twinlog, place, offsets, &[]);
                holds("in the end", &found);
            }
        });
    }
}

/// What is refused for minutes, however small, is refused by a policy: that partition stops, and no other.
#[test]
fn a_small_batch_that_is_refused_for_minutes_stops_its_partition() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 2, 1, &[]);
        let places: Vec<Place> = (0..2).map(|at| Place::new("t", at)).collect();
        let twinlog = scene.twinlog(world, "twinlog");
        for place in &places {
            scene.write(world, Side::Primary, place, 3, Write::default());
        }
        scene.must_copy(world, &places, 30_000);
        let fault = Fault::on(ApiKey::Produce).partition("t", 0);
        let refuse = Action::Refuse(ResponseError::PolicyViolation);
        scene.target.cluster.fault(fault, refuse);
        scene.write(world, Side::Primary, &places[0], 1, Write::default());
        world.run_for(240_000);
        let reason = |world: &world::World| {
            let status = partition_status(world, &twinlog, &places[0]).expect("it is known");
            (
                status.state,
                status.reason,
                status.detail.unwrap_or_default(),
            )
        };
        let (state, ..) = reason(world);
        assert_ne!(state, "stopped", "it may throttle");
        world.run_for(120_000);
        let (state, why, detail) = reason(world);
        assert_eq!(
            (state.as_str(), why.as_deref()),
            ("stopped", Some("policy_violation"))
        );
        assert!(
            detail.contains("either") && detail.contains("throttles"),
            "{detail}"
        );
        scene.write(world, Side::Primary, &places[1], 3, Write::default());
        scene.must_copy(world, &places[1..], 10_000);
    });
}
