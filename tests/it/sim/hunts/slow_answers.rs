//! A target whose answers take more than a second, all of them: nothing is wrong, and nothing much is asked for that.

use fake_kafka::Options;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};

use crate::sim::model::{Place, Side};
use crate::sim::scene::{Scene, Write};

const TOPICS: usize = 40;
const PARTITIONS: i32 = 5;
const RECORDS: u64 = 20;
const ANSWER_MS: i64 = 1_200;

/// How many bytes the target has sent while records were copied, one after the other.
fn told(world: &mut World, is_slow: bool) -> u64 {
    let options = Options {
        brokers: 3,
        default_replication: 3,
        ..Options::default()
    };
    let mut scene = Scene::with(world, options.clone(), options, "");
    for number in 0..TOPICS {
        scene.topic(&format!("t{number}"), PARTITIONS, 3, &[]);
    }
    let places: Vec<Place> = (0..TOPICS)
        .map(|number| Place::new(&format!("t{number}"), 0))
        .collect();
    scene.twinlog(world, "twinlog");
    for place in &places {
        scene.write(world, Side::Primary, place, 1, Write::default());
    }
    scene.must_copy(world, &places, 60_000);
    world.run_for(10_000);
    if is_slow {
        let slow = Fault::on(ApiKey::Produce);
        let late = Action::AnswerLate(ANSWER_MS);
        scene.target.cluster.fault(slow, late);
    }
    let before = world.traffic(&scene.target).to_clients;
    for _ in 0..RECORDS {
        scene.write(world, Side::Primary, &places[0], 1, Write::default());
        world.run_for(ANSWER_MS + 300);
    }
    world.traffic(&scene.target).to_clients - before
}

#[test]
fn a_target_that_takes_long_is_not_asked_about_all_topics_for_that() {
    let [quick, slow] = [false, true].map(|it| world::run(1, move |world| told(world, it)));
    println!("{quick} bytes where answers are quick, {slow} where they are slow");
    assert!(slow * 100 <= quick * 125, "{slow} bytes, not {quick}");
}
