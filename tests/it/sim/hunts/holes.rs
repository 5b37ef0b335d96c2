//! Holes that would cost more to fill than they are worth: the partition goes on mapped from there.

use fake_kafka::world::{self, World};
use serde_json::Value;

use crate::sim::expected::holds;
use crate::sim::logs;
use crate::sim::model::{Offsets, Place, Side, Violation};
use crate::sim::scene::{Scene, Write, partition_status};
use crate::sim::stored::assert_map_is_exact;

/// Of each key the cleaner leaves the newest record.
const FEW_KEYS: Write = Write {
    transaction: None,
    bytes: 0,
    keys: 5,
    age_ms: 0,
};
const LIMITED: &str = "offsets: { mode: auto, fill_limit: 100 }";

fn begin(world: &mut World, lines: &str) -> (Scene, Place) {
    let scene = Scene::new(world, 1, lines);
    scene.topic("t", 1, 1, &[("cleanup.policy", "compact")]);
    (scene, Place::new("t", 0))
}

/// `updates` of five keys, of which the cleaner leaves five records.
fn write_and_clean(scene: &mut Scene, world: &World, place: &Place, updates: u64) {
    scene.write(world, Side::Primary, place, updates, FEW_KEYS);
    let end = logs::read(&scene.source, place).end;
    scene.compact(place, end);
}

/// What is stored of the partition's turn.
fn turned(scene: &Scene) -> Option<Value> {
    let record = logs::newest(&scene.target, "__twinlog_state", "topic/dr/t")?;
    let record: Value = serde_json::from_str(&record).expect("a record is JSON");
    record["turned"].get("0").cloned()
}

/// The log was cleaned before the flow began.
fn old_log(world: &mut World, lines: &str, offsets: Offsets) -> (Vec<Violation>, usize) {
    let (mut scene, place) = begin(world, lines);
    write_and_clean(&mut scene, world, &place, 400);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.must_copy(world, std::slice::from_ref(&place), 10_000);
    scene.write(world, Side::Primary, &place, 20, Write::default());
    world.run_for(12_000);
    let found = scene.judge_copy(world, &twinlog, &place, offsets, &[]);
    let turned = turned(&scene);
    assert_eq!(turned.is_some(), offsets == Offsets::Mapped, "{turned:?}");
    if let Some(turned) = turned {
        assert_eq!(
            (&turned["from"], &turned["fillers"]),
            (&0.into(), &0.into())
        );
        assert!(
            turned["reason"]
                .to_string()
                .contains("offsets.fill_limit 100"),
            "{turned}"
        );
        assert_map_is_exact(&scene, &place);
    }
    (found, logs::markers(&scene.target, &place))
}

#[test]
fn a_log_of_few_records_and_many_holes_is_copied_without_filling_them() {
    let (found, markers) = world::run(1, |world| old_log(world, LIMITED, Offsets::Mapped));
    holds("more holes than the limit", &found);
    assert_eq!(markers, 0, "nothing is filled");
}

#[test]
fn a_log_with_holes_within_the_limit_keeps_its_offsets() {
    let (found, markers) = world::run(1, |world| {
        old_log(world, "offsets: auto", Offsets::Identical)
    });
    holds("fewer holes than the limit", &found);
    assert_eq!(markers, 395, "all is filled");
}

/// Thirty records are copied; then the cleaner leaves a hole before the next ones. `writes`: Twinlog is
/// killed after so many writes of the time when it meets the hole.
fn turn(world: &mut World, writes: Option<u64>) -> (Vec<Violation>, bool) {
    let (mut scene, place) = begin(world, LIMITED);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 30, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(6_000);
    twinlog.process.freeze();
    world.run_for(10);
    write_and_clean(&mut scene, world, &place, 400);
    scene.write(world, Side::Primary, &place, 20, Write::default());
    if let Some(writes) = writes {
        twinlog.process.kill_after_writes(writes);
    }
    twinlog.process.thaw();
    // Long enough for all of these writes: what is left of them would kill the next process.
    world.run_for(10_000);
    let was_turned = turned(&scene).is_some();
    if writes.is_some() {
        twinlog.process.restart();
    }
    world.run_for(2_000);
    // Of fillers and sequences the target's counters must agree at every opening from now on.
    scene.write(world, Side::Primary, &place, 10, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 20_000);
    twinlog.process.restart();
    scene.write(world, Side::Primary, &place, 10, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 20_000);
    world.run_for(12_000);
    let found = scene.judge_copy(world, &twinlog, &place, Offsets::Mapped, &[]);
    let turned = turned(&scene).expect("it has turned");
    assert_eq!(
        (&turned["from"], &turned["fillers"]),
        (&30.into(), &0.into())
    );
    assert_map_is_exact(&scene, &place);
    assert_eq!(logs::markers(&scene.target, &place), 0);
    (found, was_turned)
}

#[test]
fn a_partition_that_meets_a_dear_hole_goes_on_mapped() {
    for seed in crate::sim::seeds(3) {
        let (found, _) = world::run(seed, |world| turn(world, None));
        holds("it runs", &found);
    }
}

#[test]
fn no_crash_in_the_middle_of_a_turn_hurts() {
    let mut before_and_after = [false; 2];
    for writes in 0..24 {
        let (found, was_turned) = world::run(writes, move |world| turn(world, Some(writes)));
        holds(&format!("killed after {writes} writes"), &found);
        before_and_after[usize::from(was_turned)] = true;
    }
    assert_eq!(
        before_and_after, [true; 2],
        "it was killed before and behind the turn"
    );
}

#[test]
fn identical_offsets_stop_at_a_dear_hole_and_say_how_dear() {
    let stopped = world::run(1, |world| {
        let (mut scene, place) = begin(world, "offsets: { mode: identical, fill_limit: 100 }");
        write_and_clean(&mut scene, world, &place, 400);
        let twinlog = scene.twinlog(world, "twinlog");
        world.run_for(5_000);
        partition_status(world, &twinlog, &place).expect("it is there")
    });
    assert_eq!(stopped.state, "stopped");
    assert_eq!(stopped.reason.as_deref(), Some("not_identical"));
    let told = stopped.detail.expect("words");
    assert!(
        told.contains("395 source offsets from 0 on have no record"),
        "{told}"
    );
    assert!(
        told.contains("raise `offsets.fill_limit`, or set `offsets: auto`"),
        "{told}"
    );
}

/// Sixty holes of fifteen offsets, one record behind each.
#[test]
fn many_small_holes_count_together_while_much_is_left() {
    let (found, markers) = world::run(1, |world| {
        let (mut scene, place) = begin(world, LIMITED);
        let twinlog = scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 5, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 20_000);
        twinlog.process.freeze();
        world.run_for(10);
        for _ in 0..60 {
            scene.write(
                world,
                Side::Primary,
                &place,
                15,
                Write {
                    keys: 1,
                    ..FEW_KEYS
                },
            );
            scene.write(world, Side::Primary, &place, 1, Write::default());
        }
        let end = logs::read(&scene.source, &place).end;
        scene.compact(&place, end);
        twinlog.process.thaw();
        scene.must_copy(world, std::slice::from_ref(&place), 20_000);
        world.run_for(12_000);
        let found = scene.judge_copy(world, &twinlog, &place, Offsets::Mapped, &[]);
        assert_map_is_exact(&scene, &place);
        let turned = turned(&scene).expect("it has turned");
        assert_eq!(turned["fillers"], logs::markers(&scene.target, &place));
        // At its end the flow and a new process know the fillers from before.
        twinlog.process.restart();
        scene.write(world, Side::Primary, &place, 10, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 20_000);
        (found, logs::markers(&scene.target, &place))
    });
    holds("many small holes", &found);
    assert!(
        (1..=150).contains(&markers),
        "{markers} of 900 holes are filled"
    );
}
