//! A target that makes few topics a minute (KIP-599, quotas of managed clusters): what is made is copied, and who comes or goes
//! meanwhile is seen.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world;

use crate::sim::model::{Place, Side};
use crate::sim::scene::{Scene, Write};

const TOPICS: usize = 60;
/// About 16 a second are asked for.
const REFUSED: u64 = 700;

#[test]
fn a_target_that_makes_few_topics_a_minute_keeps_nobody_waiting() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        let names = (0..TOPICS).map(|topic| format!("t{topic:02}"));
        let places: Vec<Place> = names.map(|name| Place::new(&name, 0)).collect();
        for place in &places {
            scene.topic(&place.topic, 1, 1, &[]);
            scene.write(world, Side::Primary, place, 1, Write::default());
        }
        let full = Action::Refuse(ResponseError::ThrottlingQuotaExceeded);
        // The first one is the state topic's.
        let creation = Fault::on(ApiKey::CreateTopics).nth(2).times(REFUSED);
        scene.target.cluster.fault(creation, full);
        let twinlog = scene.twinlog(world, "twinlog");
        let shown = twinlog.clone();
        world.must("it runs", 20_000, move |world| {
            let status = shown.status(world);
            status.flows.iter().any(|flow| flow.state == "running")
        });
        let made = scene.target.cluster.look(|state| state.topics.len());
        assert!(made < TOPICS, "it was to take longer");
        let status = twinlog.status(world);
        let left = status.flows.iter().map(|flow| flow.topics_to_prepare);
        assert!(left.sum::<u64>() > 0, "it isn't told");
        scene.must_copy(world, &places, 300_000);
        let shown = twinlog.clone();
        world.must("nothing is left", 5_000, move |world| {
            let status = shown.status(world);
            status.flows.iter().all(|flow| flow.topics_to_prepare == 0)
        });
        // It starts again where as many are still to be made, and none is: their names come first.
        let full = Action::Refuse(ResponseError::ThrottlingQuotaExceeded);
        scene
            .target
            .cluster
            .fault(Fault::on(ApiKey::CreateTopics), full);
        for topic in 0..TOPICS {
            scene.topic(&format!("a{topic:02}"), 1, 1, &[]);
        }
        twinlog.process.restart();
        for place in &places {
            scene.write(world, Side::Primary, place, 1, Write::default());
        }
        scene.must_copy(world, &places, 20_000);
    });
}
