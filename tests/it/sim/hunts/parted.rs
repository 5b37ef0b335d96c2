//! An old primary is back, and one of its partitions can't be read: the others are compared once all the same.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world;
use twinlog::state::CutoverKind;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

#[test]
fn what_can_be_read_is_read_once_and_counted_when_the_rest_can() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        let places = ["read", "unread"].map(|topic| {
            scene.topic(topic, 1, 1, &[]);
            Place::new(topic, 0)
        });
        let twinlog = scene.twinlog(world, "twinlog");
        for place in &places {
            scene.write(world, Side::Primary, place, 50, Write::default());
        }
        scene.must_copy(world, &places, 30_000);
        world.run_for(12_000);
        scene.source.cluster.control(|state| state.stop_broker(1));
        let unplanned = failover_options(CutoverKind::Unplanned);
        let failover = process::failover(world, "operator", &scene.text, unplanned);
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let source = scene.source.cluster.clone();
        let refused = source.fault(
            Fault::on_topic(ApiKey::Fetch, "unread"),
            Action::Refuse(ResponseError::KafkaStorageError),
        );
        source.control(|state| state.start_broker(1));
        for place in &places {
            scene.write(world, Side::Primary, place, 4, Write::default());
        }
        world.run_for(30_000);
        assert!(source.fired(refused) > 1, "it is tried again");
        let counted = source.fault(Fault::on_topic(ApiKey::Fetch, "read"), Action::Delay(0));
        world.run_for(30_000);
        assert_eq!(source.fired(counted), 0, "it was read already");
        source.clear(refused);
        world.must("what is stranded is counted", 30_000, move |world| {
            let flow = twinlog.status(world).flows.into_iter().next();
            let role = flow.and_then(|flow| flow.role);
            role.is_some_and(|role| role.orphan_offsets == Some(8))
        });
    });
}
