//! The owner is frozen with a fetched answer in its socket, while the source is lost and failed over from.

use std::collections::BTreeSet;

use fake_kafka::world::{self, World};
use twinlog::state::CutoverKind;

use crate::sim::expected::holds;
use crate::sim::logs;
use crate::sim::model::{Case, Expected, Offsets, Place, Record, Says, Side, Violation, judge};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// `wakes`: the frozen owner goes on behind the failover; else it never does.
fn play(world: &mut World, wakes: bool) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 50, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(12_000);
    twinlog.process.freeze();
    world.run_for(10);
    // The waiting fetch is answered into its socket.
    scene.write_batch(world, Side::Primary, &place, 100, Write::default());
    world.run_for(50);
    scene.lose_source(world);
    let failover = process::failover(
        world,
        "operator",
        &scene.text,
        failover_options(CutoverKind::Unplanned),
    );
    let (report, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    let copied = logs::read(&scene.target, &place);
    scene.write(world, Side::Standby, &place, 20, Write::default());
    if wakes {
        twinlog.process.thaw();
    } else {
        twinlog.process.kill();
    }
    world.run_for(15_000);
    judge(&new_primary(&scene, &place, copied.records))
}

/// What was copied, then what clients wrote there; nothing else of the source's any more.
fn new_primary(scene: &Scene, place: &Place, copied: Vec<Record>) -> Case {
    let names: BTreeSet<&str> = copied.iter().map(|it| it.name.as_str()).collect();
    let late = scene.acked.iter().filter(|it| it.side == Side::Primary);
    let barred = late
        .filter(|it| !names.contains(it.name.as_str()))
        .map(|it| it.name.clone())
        .collect();
    let found = logs::read(&scene.target, place);
    let own = scene.acked.iter().filter(|it| it.side == Side::Standby);
    let own: BTreeSet<&str> = own.map(|it| it.name.as_str()).collect();
    let own = found
        .records
        .iter()
        .filter(|it| own.contains(it.name.as_str()));
    let expected = copied.iter().chain(own).map(|record| Expected {
        record: record.clone(),
        may_lack: false,
    });
    Case {
        place: place.clone(),
        offsets: Offsets::Identical,
        says: Says::Copying { lag: Some(0) },
        excuses: BTreeSet::new(),
        expected: expected.collect(),
        strangers: BTreeSet::new(),
        barred,
        found,
    }
}

#[test]
fn a_frozen_owner_appends_nothing_to_the_new_primary() {
    for seed in 1..=5 {
        holds("it wakes up", &world::run(seed, |world| play(world, true)));
    }
}

#[test]
fn an_owner_that_never_wakes_up_appends_nothing() {
    for seed in 1..=3 {
        holds(
            "it never wakes up",
            &world::run(seed, |world| play(world, false)),
        );
    }
}
