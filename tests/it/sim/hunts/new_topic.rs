//! A topic that was just made stays unknown to one of the target's brokers for half a minute, as on large and managed
//! clusters: that is no error, nothing is made again, and nobody else waits.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Says, Side};
use crate::sim::scene::{Scene, Write, says};

const PARTITIONS: i32 = 3;
const UNKNOWN_FOR_MS: i64 = 30_000;

fn play(world: &mut World, late: i32) {
    let mut scene = Scene::new(world, PARTITIONS, "");
    let places = |topic| (0..PARTITIONS).map(move |at| Place::new(topic, at));
    let old: Vec<Place> = places("old").collect();
    let new: Vec<Place> = places("new").collect();
    scene.topic("old", PARTITIONS, 1, &[]);
    let twinlog = scene.twinlog(world, "twinlog");
    for place in &old {
        scene.write(world, Side::Primary, place, 1, Write::default());
    }
    scene.must_copy(world, &old, 30_000);
    let cluster = scene.target.cluster.clone();
    let faults: Vec<_> = [
        ApiKey::Metadata,
        ApiKey::Produce,
        ApiKey::Fetch,
        ApiKey::ListOffsets,
        ApiKey::DescribeProducers,
        ApiKey::DescribeConfigs,
        ApiKey::WriteTxnMarkers,
        ApiKey::OffsetForLeaderEpoch,
    ]
    .into_iter()
    .map(|key| {
        let unknown = Action::Refuse(ResponseError::UnknownTopicOrPartition);
        cluster.fault(Fault::on(key).topic("new").broker(late), unknown)
    })
    .collect();
    scene.topic("new", PARTITIONS, 1, &[]);
    for place in &new {
        scene.write(world, Side::Primary, place, 3, Write::default());
    }
    let id = |scene: &Scene| {
        let cluster = scene.target.cluster.clone();
        cluster.control(|state| state.topics.get("new").map(|topic| topic.id))
    };
    let known = cluster.clone();
    world.must("it is made", 20_000, move |_| {
        known.control(|state| state.topics.contains_key("new"))
    });
    let made = id(&scene);
    let began_ms = world.now_ms();
    while world.now_ms() < began_ms + UNKNOWN_FOR_MS {
        for place in &old {
            scene.write(world, Side::Primary, place, 1, Write::default());
        }
        scene.must_copy(world, &old, 1_000);
        world.run_for(500);
        for place in &new {
            let said = says(world, &twinlog, place);
            let reason = match &said {
                Says::Stopped { reason } => reason.as_str(),
                Says::Copying { .. } => "",
            };
            let harsh = ["recreated", "deleted", "source_truncated", "topic_deleted"];
            assert!(!harsh.contains(&reason), "{place}: {said:?}");
        }
    }
    for fault in faults {
        cluster.clear(fault);
    }
    scene.must_copy(world, &new, 15_000);
    assert_eq!(id(&scene), made, "it was made once");
    for place in old.iter().chain(&new) {
        let found = scene.judge_copy(world, &twinlog, place, Offsets::Identical, &[]);
        holds("a broker that knows late", &found);
    }
}

#[test]
fn a_new_topic_that_a_broker_knows_late_is_no_error_and_holds_up_no_other() {
    for late in 1..=PARTITIONS {
        world::run(u64::from(late.unsigned_abs()), move |world| {
            play(world, late)
        });
    }
}

/// As brokers do that get the controller's log late: such a topic isn't in what they list, either. What others lead is
/// copied meanwhile.
fn plays_unheard(world: &mut World, late: i32) {
    let mut scene = Scene::new(world, PARTITIONS, "");
    let places = |topic| (0..PARTITIONS).map(move |at| Place::new(topic, at));
    let old: Vec<Place> = places("old").collect();
    let new: Vec<Place> = places("new").collect();
    scene.topic("old", PARTITIONS, 1, &[]);
    let twinlog = scene.twinlog(world, "twinlog");
    for place in &old {
        scene.write(world, Side::Primary, place, 1, Write::default());
    }
    scene.must_copy(world, &old, 30_000);
    let cluster = scene.target.cluster.clone();
    cluster.control(|state| state.hears_late(late, "new"));
    scene.topic("new", PARTITIONS, 1, &[]);
    for place in &new {
        scene.write(world, Side::Primary, place, 3, Write::default());
    }
    let known = cluster.clone();
    world.must("it is made", 20_000, move |_| {
        known.look(|state| state.topics.contains_key("new"))
    });
    let id = cluster.look(|state| state.topics["new"].id);
    let (led, others): (Vec<Place>, Vec<Place>) = new.iter().cloned().partition(|place| {
        let leader = cluster.look(|state| {
            let found = state.partition("new", place.partition);
            found.and_then(|it| it.leader)
        });
        leader == Some(late)
    });
    let began_ms = world.now_ms();
    scene.must_copy(world, &others, 5_000);
    println!(
        "late {late}: the others after {} ms",
        world.now_ms() - began_ms
    );
    while world.now_ms() < began_ms + UNKNOWN_FOR_MS {
        for place in &old {
            scene.write(world, Side::Primary, place, 1, Write::default());
        }
        scene.must_copy(world, &old, 1_000);
        world.run_for(500);
        for place in &new {
            let said = says(world, &twinlog, place);
            assert!(matches!(said, Says::Copying { .. }), "{place}: {said:?}");
        }
    }
    cluster.control(|state| state.has_heard(late));
    scene.must_copy(world, &led, 10_000);
    assert_eq!(
        cluster.look(|state| state.topics["new"].id),
        id,
        "it was made once"
    );
    for place in old.iter().chain(&new) {
        let found = scene.judge_copy(world, &twinlog, place, Offsets::Identical, &[]);
        holds("a broker that hears late", &found);
    }
}

#[test]
fn a_new_topic_that_a_broker_has_not_heard_of_is_copied_where_others_lead() {
    for late in 1..=PARTITIONS {
        world::run(u64::from(late.unsigned_abs()), move |world| {
            plays_unheard(world, late)
        });
    }
}
