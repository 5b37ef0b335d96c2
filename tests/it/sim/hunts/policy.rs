//! A managed broker that says "slower" with POLICY_VIOLATION: the copy waits a little, and goes on.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world;

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side};
use crate::sim::scene::{Scene, Write};

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
