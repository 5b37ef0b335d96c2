//! Clusters on which no group has ever committed aren't asked for groups all the time, and the first one is followed.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::world::{self, World};
use kafka_protocol::messages::ApiKey;

use crate::sim::expected::holds;
use crate::sim::model::{Place, Side, Violation};
use crate::sim::scene::{Scene, Write};

const GROUPS: &str = "__consumer_offsets";
/// Nobody reads anything for so long,
const REST_MS: i64 = 60_000;
/// in which each cluster is asked for its groups' log so often at most: every 2 to 3 s.
const ASKED_MAX: u64 = 32;

fn play(world: &mut World) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 5, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);

    let asked = || Fault::on(ApiKey::Metadata).topic(GROUPS);
    let clusters = [&scene.source, &scene.target].map(|it| it.cluster.clone());
    let asked = clusters
        .each_ref()
        .map(|cluster| cluster.fault(asked(), Action::AnswerLate(1)));
    world.run_for(REST_MS);
    for (cluster, asked) in clusters.iter().zip(asked) {
        let times = cluster.fired(asked);
        assert!((1..=ASKED_MAX).contains(&times), "asked {times} times");
        cluster.clear(asked);
    }

    let group = scene.commits(world, 5, 20);
    world.result(&group, 60_000);
    world.run_for(5_000);
    scene.judge_group("group", &place)
}

#[test]
fn they_are_asked_for_them_seldom_and_the_first_is_followed() {
    holds("no groups yet", &world::run(1, play));
}
