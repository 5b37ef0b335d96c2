//! An owner is frozen with fetched records in its socket, another one takes the flow over and copies them, and the broker
//! forgets their producer, as it does with old records: the owner wakes up, and nothing refuses what it has.

use fake_kafka::world::{self, Phase, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side, Violation};
use crate::sim::process;
use crate::sim::scene::{Scene, Write};

fn play(world: &mut World, lines: &str, offsets: Offsets) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, lines);
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let old = Write {
        age_ms: 3 * 24 * 3_600_000,
        ..Write::default()
    };
    let first = scene.twinlog(world, "first");
    scene.write(world, Side::Primary, &place, 50, old);
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(12_000);
    first.process.freeze();
    world.run_for(10);
    // The waiting fetch is answered into its socket.
    scene.write_batch(world, Side::Primary, &place, 100, old);
    world.run_for(50);
    let second = process::run(world, "second", &scene.text);
    scene.must_copy(world, std::slice::from_ref(&place), 60_000);
    let cluster = &scene.target.cluster;
    assert!(cluster.control(|state| state.expire_producers()) > 0);
    // Longer than a process may be busy.
    world.run_for(20_000);
    first.process.thaw();
    world.run_for(15_000);
    scene.write(world, Side::Primary, &place, 10, Write::default());
    world.run_for(15_000);
    scene.judge_copy(world, &second, &place, offsets, &[])
}

#[test]
fn an_owner_that_wakes_up_behind_a_new_one_appends_nothing() {
    for (lines, offsets) in [
        ("", Offsets::Identical),
        ("offsets: mapped", Offsets::Mapped),
    ] {
        for seed in crate::sim::seeds(3) {
            holds(
                "a woken owner",
                &world::run(seed, move |world| play(world, lines, offsets)),
            );
        }
    }
}

/// A commit of the source is in its socket when it is frozen, and another one has committed later ones since.
#[test]
fn an_owner_that_wakes_up_behind_a_new_one_sets_no_group_back() {
    for frozen_ms in [4_000, 20_000] {
        for seed in crate::sim::seeds(3) {
            world::run(seed, move |world| group_goes_on(world, frozen_ms));
        }
    }
}

fn group_goes_on(world: &mut World, frozen_ms: i64) {
    const COMMITS: i64 = 40;
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    scene.write(world, Side::Primary, &place, 50, Write::default());
    let first = scene.twinlog(world, "first");
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(3_000);
    let group = scene.commits(world, COMMITS, 50);
    world.run_for(500);
    first.process.freeze();
    world.run_for(10);
    let second = process::run(world, "second", &scene.text);
    world.must("all is committed", 60_000, move |_| {
        group.phase() != Phase::Running
    });
    world.run_for(frozen_ms);
    assert_eq!(scene.judge_group("group", &place), [], "the second follows");
    first.process.thaw();
    world.run_for(15_000);
    assert_eq!(scene.judge_group("group", &place), [], "it stays so");
    // Who reads what is remembered takes none of it for somebody else's.
    second.process.kill();
    let third = process::run(world, "third", &scene.text);
    world.run_for(15_000);
    let status = third.status(world);
    let groups = status.flows[0].groups.as_ref().expect("they are followed");
    assert_eq!(groups.groups.get("followed"), Some(&1), "{groups:?}");
}
