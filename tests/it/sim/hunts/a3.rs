//! Twinlog crashes before it has stored a map, and the source's cleaner runs before it is back.

use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::logs;
use crate::sim::model::{Offsets, Place, Side, Violation};
use crate::sim::scene::{Scene, Write};
use crate::sim::stored::assert_map_is_exact;

const LINES: &str = "offsets: mapped";
const FEW_KEYS: Write = Write {
    transaction: None,
    bytes: 0,
    keys: 10,
    age_ms: 0,
};

/// 100 records are copied behind the stored map; then new ones come while nobody copies. `cleans`: of
/// the 100 only the newest of each key are left by then.
fn play(world: &mut World, cleans: bool) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, LINES);
    scene.topic("t", 1, 1, &[("cleanup.policy", "compact")]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 1, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    // The map is stored every 5 s while it changes.
    world.run_for(11_000);
    let stored = || logs::newest(&scene.target, "__twinlog_state", "map/dr/t/0");
    let before = stored();
    assert!(before.is_some(), "a map is stored");
    scene.write(world, Side::Primary, &place, 100, FEW_KEYS);
    scene.must_copy(world, std::slice::from_ref(&place), 4_000);
    twinlog.process.kill();
    world.run_for(10);
    let stored = logs::newest(&scene.target, "__twinlog_state", "map/dr/t/0");
    assert_eq!(stored, before, "it wasn't stored again");
    scene.write(world, Side::Primary, &place, 1, Write::default());
    if cleans {
        scene.compact(&place, 101);
        assert_eq!(scene.gone[&place].len(), 90);
    }
    scene.write(world, Side::Primary, &place, 200, Write::default());
    twinlog.process.restart();
    world.run_for(20_000);
    scene.judge_copy(world, &twinlog, &place, Offsets::Mapped, &[])
}

#[test]
fn what_a_stored_map_lacks_is_learned_from_the_records_behind_the_cleaner() {
    for seed in crate::sim::seeds(3) {
        holds(
            "the source's cleaner ran",
            &world::run(seed, |world| play(world, true)),
        );
    }
}

#[test]
fn what_a_stored_map_lacks_is_found_again() {
    for seed in crate::sim::seeds(3) {
        holds(
            "no cleaner ran",
            &world::run(seed, |world| play(world, false)),
        );
    }
}

/// Records of many transactions are one batch on the target, and only the records tell after a crash which holes
/// were between them.
fn transactions(world: &mut World, cleans: bool) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, LINES);
    scene.topic("t", 1, 1, &[("cleanup.policy", "compact")]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 1, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(11_000);
    twinlog.process.freeze();
    world.run_for(10);
    let before = logs::batches(&scene.target, &place);
    let (few, aborted) = (
        Write {
            keys: 10,
            ..Write::COMMITTED
        },
        Write {
            transaction: Some(false),
            ..Write::default()
        },
    );
    for _ in 0..20 {
        scene.write_batch(world, Side::Primary, &place, 5, few);
        scene.write(world, Side::Primary, &place, 1, aborted);
    }
    twinlog.process.thaw();
    scene.must_copy(world, std::slice::from_ref(&place), 4_000);
    let written = logs::batches(&scene.target, &place) - before;
    assert!(written <= 5, "{written} batches for 20 transactions");
    twinlog.process.kill();
    world.run_for(10);
    scene.write(world, Side::Primary, &place, 1, Write::default());
    if cleans {
        scene.compact(&place, 161);
    }
    scene.write(world, Side::Primary, &place, 50, Write::COMMITTED);
    twinlog.process.restart();
    world.run_for(20_000);
    let found = scene.judge_copy(world, &twinlog, &place, Offsets::Mapped, &[]);
    assert_map_is_exact(&scene, &place);
    found
}

#[test]
fn transactions_that_became_one_batch_are_told_apart_again() {
    for seed in crate::sim::seeds(4) {
        let found = world::run(seed, move |world| transactions(world, seed % 2 == 0));
        holds("killed behind transactions", &found);
    }
}
