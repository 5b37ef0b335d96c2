//! A source whose leaders send us to a replica in our own rack.

use fake_kafka::Options;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::world::{self, World};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use twinlog::telemetry::status::PartitionStatus;

use crate::sim::model::{Place, Side};
use crate::sim::process::Running;
use crate::sim::scene::{Scene, Write, partition_status};

const RACK: &str = "ours";

struct Near {
    scene: Scene,
    twinlog: Running,
    place: Place,
    leader: i32,
    follower: i32,
}

impl Near {
    /// 100 records are copied from the follower.
    fn start(world: &mut World) -> Self {
        let options = |brokers| Options {
            brokers,
            broker_configs: [("replica.selector.class", "RackAwareReplicaSelector")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..Options::default()
        };
        let mut scene = Scene::with(world, options(2), options(1), "");
        scene.text = scene
            .text
            .replacen("\" }", &format!("\", client.rack: {RACK} }}"), 1);
        scene.topic("t", 1, 2, &[]);
        let place = Place::new("t", 0);
        let (leader, follower) = scene.source.cluster.control(|state| {
            let leader = state.partition("t", 0).and_then(|it| it.leader);
            let leader = leader.expect("it is led");
            let follower = 3 - leader;
            let near = state.brokers.get_mut(&follower).expect("there are two");
            near.rack = Some(RACK.to_owned());
            (leader, follower)
        });
        let twinlog = scene.twinlog(world, "twinlog");
        scene.write_batch(world, Side::Primary, &place, 100, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        world.run_for(2_000);
        let near = Self {
            scene,
            twinlog,
            place,
            leader,
            follower,
        };
        assert_eq!(near.status(world).source_broker, Some(near.follower.into()));
        near
    }

    fn status(&self, world: &World) -> PartitionStatus {
        partition_status(world, &self.twinlog, &self.place).expect("it is copied")
    }

    fn write(&mut self, world: &World) {
        let place = self.place.clone();
        self.scene
            .write_batch(world, Side::Primary, &place, 100, Write::default());
    }

    fn must_copy(&self, world: &mut World, within_ms: i64) {
        let places = std::slice::from_ref(&self.place);
        self.scene.must_copy(world, places, within_ms);
    }

    fn put_out_of_sync(&self) {
        self.scene.source.cluster.control(|state| {
            state.lag("t", 0, self.follower);
            state.shrink_in_sync("t", 0);
        });
    }
}

#[test]
fn a_replica_that_falls_behind_is_left() {
    for seed in crate::sim::seeds(3) {
        world::run(seed, |world| {
            let mut near = Near::start(world);
            near.put_out_of_sync();
            near.write(world);
            near.must_copy(world, 15_000);
            assert_eq!(near.status(world).source_broker, Some(near.leader.into()));
            // It comes back to it some time after it has caught up.
            let cluster = near.scene.source.cluster.clone();
            let follower = near.follower;
            cluster.control(|state| {
                state.catch_up("t", 0, follower);
                let found = state.partition_mut("t", 0).expect("it is there");
                found.in_sync.insert(follower);
            });
            world.run_for(90_000);
            assert_eq!(near.status(world).source_broker, Some(near.follower.into()));
            near.write(world);
            near.must_copy(world, 5_000);
        });
    }
}

#[test]
fn a_replica_that_keeps_up_is_not_left() {
    world::run(1, |world| {
        let mut near = Near::start(world);
        for _ in 0..20 {
            near.write(world);
            world.run_for(1_500);
            assert_eq!(near.status(world).source_broker, Some(near.follower.into()));
        }
        near.must_copy(world, 5_000);
    });
}

#[test]
fn a_replicas_end_never_passes_for_the_leaders() {
    world::run(1, |world| {
        let mut near = Near::start(world);
        near.put_out_of_sync();
        // The leader says where it ends, and gives nothing.
        let leader = near.leader;
        near.scene.source.cluster.fault(
            Fault::on(ApiKey::Fetch).broker(leader).topic("t"),
            Action::Refuse(ResponseError::KafkaStorageError),
        );
        near.write(world);
        world.run_for(10_000);
        let status = near.status(world);
        assert_eq!(status.source_high_watermark, Some(200), "{status:?}");
        assert_eq!(status.lag_records, Some(100), "{status:?}");
    });
}

#[test]
fn a_replica_is_asked_for_after_five_minutes() {
    world::run(1, |world| {
        let mut near = Near::start(world);
        let follower = near.follower;
        near.scene.source.cluster.control(|state| {
            let moved = state.brokers.get_mut(&follower).expect("there are two");
            moved.rack = Some("elsewhere".to_owned());
        });
        world.run_for(310_000);
        assert_eq!(near.status(world).source_broker, Some(near.leader.into()));
        near.write(world);
        near.must_copy(world, 5_000);
    });
}
