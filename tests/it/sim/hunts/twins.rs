//! Two processes for one flow, both of which live for long: each is frozen, thawed and killed at any moment.

use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side, Violation};
use crate::sim::process::{self, Running};
use crate::sim::scene::{Scene, Write};

const PARTITIONS: i32 = 3;
/// One of the two, or both, don't run for a while, in one way or another.
fn trouble(world: &mut World, scene: &mut Scene, twins: &[Running; 2]) {
    let kind = world.random(6);
    let for_ms = [300, 2_500, 6_000, 25_000][usize::try_from(world.random(4)).expect("small")];
    let one = &twins[usize::try_from(world.random(2)).expect("small")].process;
    match kind {
        // Not a paused virtual machine, whose clock stands still too: see GUARANTEES, "frozen while it sends".
        0..=2 => one.freeze(),
        3 => one.kill(),
        4 => one.power_off(),
        _ => twins.iter().for_each(|it| it.process.freeze()),
    }
    world.tell(format!("trouble {kind} for {for_ms} ms"));
    scene.commit_for(world, PARTITIONS, for_ms, 50);
    match kind {
        3 | 4 => one.restart(),
        _ => twins.iter().for_each(|it| it.process.thaw()),
    }
    let then_ms = world.random(3_000).cast_signed();
    scene.commit_for(world, PARTITIONS, then_ms, 50);
}

fn play(world: &mut World, rounds: u64) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", PARTITIONS, 1, &[]);
    let places: Vec<Place> = (0..PARTITIONS).map(|at| Place::new("t", at)).collect();
    let first = scene.twinlog(world, "first");
    scene.commit_for(world, PARTITIONS, 1_000, 50);
    scene.must_copy(world, &places, 30_000);
    let twins = [first, process::run(world, "second", &scene.text)];
    for _ in 0..rounds {
        trouble(world, &mut scene, &twins);
    }
    let both = twins.clone();
    world.must(
        "one has the flow, and the other waits",
        60_000,
        move |world| {
            let having = both.iter().filter(|it| it.has_the_flow(world));
            let waiting = both.iter().filter(|it| it.waits(world));
            having.count() == 1 && waiting.count() == 1
        },
    );
    world.run_for(10_000);
    let owner = twins.iter().find(|it| it.has_the_flow(world));
    let owner = owner.expect("it has the flow");
    places
        .iter()
        .flat_map(|at| scene.judge_copy(world, owner, at, Offsets::Identical, &[]))
        .collect()
}

#[test]
fn of_two_that_live_one_copies_whatever_happens_to_them() {
    for seed in crate::sim::seeds(5) {
        holds("two at a time", &world::run(seed, |world| play(world, 10)));
    }
}

/// A thousand rounds, in parts that several processors can share.
mod a_thousand_rounds {
    use std::ops::Range;

    use super::{holds, play, world};

    fn rounds(seeds: Range<u64>) {
        for seed in seeds {
            let found = world::run(seed, |world| play(world, 25));
            holds(&format!("two at a time, seed {seed}"), &found);
        }
    }

    #[test]
    fn leave_no_foreign_offset_1() {
        rounds(101..111);
    }

    #[test]
    fn leave_no_foreign_offset_2() {
        rounds(111..121);
    }

    #[test]
    fn leave_no_foreign_offset_3() {
        rounds(121..131);
    }

    #[test]
    fn leave_no_foreign_offset_4() {
        rounds(131..141);
    }
}

/// What the waiting one does when the other ends in order, dies, or is silent.
#[test]
fn who_waits_takes_over_when_the_other_is_gone() {
    let takes_over_after = |end: fn(&Running), at_most_ms: i64| {
        world::run(7, move |world| {
            let mut scene = Scene::new(world, 1, "");
            scene.topic("t", 1, 1, &[]);
            let place = Place::new("t", 0);
            let first = scene.twinlog(world, "first");
            scene.write(world, Side::Primary, &place, 1, Write::COMMITTED);
            scene.must_copy(world, std::slice::from_ref(&place), 30_000);
            let second = process::run(world, "second", &scene.text);
            let waiting = first.clone();
            world.must("the first one waits", 30_000, move |world| {
                waiting.waits(world)
            });
            // As long as the other lives, for more questions than are asked of the dead.
            world.run_for(60_000);
            assert!(first.waits(world) && second.has_the_flow(world));
            end(&second);
            let next = first.clone();
            world.must("it takes over", at_most_ms, move |world| {
                next.has_the_flow(world)
            });
            scene.write(world, Side::Primary, &place, 1, Write::COMMITTED);
            world.run_for(10_000);
            scene.judge_copy(world, &first, &place, Offsets::Identical, &[])
        })
    };
    let in_order = takes_over_after(|it| it.process.stop(), 5_000);
    holds("it was stopped", &in_order);
    holds(
        "it was killed",
        &takes_over_after(|it| it.process.kill(), 25_000),
    );
    holds(
        "it was frozen",
        &takes_over_after(|it| it.process.freeze(), 25_000),
    );
}
