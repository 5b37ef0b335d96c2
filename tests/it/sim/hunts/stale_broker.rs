//! A broker of the source that is cut off from the others, and not from us, describes topics as they were.

use fake_kafka::Options;
use fake_kafka::topics::NewTopic;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side};
use crate::sim::scene::{Scene, Write};

/// `t` is deleted on the source and made again while broker `stale` knows nothing of it.
fn play(world: &mut World, stale: i32) {
    let options = |brokers| Options {
        brokers,
        ..Options::default()
    };
    let mut scene = Scene::with(world, options(3), options(1), "on_recreate: recreate");
    scene.topic("t", 1, 3, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 20, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    scene.source.cluster.control(|state| {
        state.isolate_broker(stale);
        state.delete_topic("t");
        let new = NewTopic {
            partitions: 1,
            replication: 2,
            ..NewTopic::default()
        };
        state.create_topic("t", &new).expect("there is none");
    });
    scene.write(world, Side::Primary, &place, 7, Write::default());
    let copy = |scene: &Scene| {
        let cluster = scene.target.cluster.clone();
        cluster.look(|state| state.topics.get("t").map(|topic| topic.id))
    };
    let before = copy(&scene);
    scene.must_copy(world, std::slice::from_ref(&place), 120_000);
    let made = copy(&scene);
    assert_ne!(made, before, "the copy was replaced");
    for _ in 0..120 {
        world.run_for(1_000);
        assert_eq!(copy(&scene), made, "it was replaced once");
    }
    scene.write(world, Side::Primary, &place, 3, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    let found = scene.judge_copy(world, &twinlog, &place, Offsets::Identical, &[]);
    holds("a broker that knows the old topic", &found);
}

#[test]
fn a_recreated_topic_is_not_taken_for_the_old_one_by_the_word_of_one_broker() {
    for stale in 1..=3_i32 {
        world::run(u64::from(stale.unsigned_abs()), move |world| {
            play(world, stale)
        });
    }
}
