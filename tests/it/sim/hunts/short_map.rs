//! The process that copies by a map dies together with its source, and the map is stored every few seconds: what was copied
//! behind it is on both clusters, and nobody's orphan.

use fake_kafka::world::{self, World};
use twinlog::orphans::Stranded;
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write, names};

/// What happens to the old primary until it is back.
#[derive(Clone, Copy, PartialEq)]
enum Meanwhile {
    Nothing,
    /// Its cleaner runs.
    Compacts,
    /// It has lost the last 15 records that were copied.
    Loses,
    /// The same, and others are in their place.
    IsWrittenTo,
}

/// 100 records are in the stored map, 30 were copied behind it, and so many not at all. What is stranded.
fn fail_over(world: &mut World, not_copied: u64, meanwhile: Meanwhile) -> (Scene, Vec<Stranded>) {
    let mut scene = Scene::new(world, 1, "offsets: mapped");
    let how = match meanwhile {
        Meanwhile::Compacts => Write {
            keys: 7,
            ..Write::default()
        },
        _ => Write::default(),
    };
    let configs: &[(&str, &str)] = match meanwhile {
        Meanwhile::Compacts => &[("cleanup.policy", "compact")],
        _ => &[],
    };
    scene.topic("t", 1, 1, configs);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 100, how);
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(12_000);
    scene.write(world, Side::Primary, &place, 30, how);
    scene.must_copy(world, std::slice::from_ref(&place), 5_000);
    twinlog.process.kill();
    scene.write(world, Side::Primary, &place, not_copied, how);
    scene.lose_source(world);
    let unplanned = failover_options(CutoverKind::Unplanned);
    let failover = process::failover(world, "operator", &scene.text, unplanned);
    let (report, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    let fork = logs::newest(&scene.target, "__twinlog_state", "fork/dr/t").expect("it is there");
    let fork: serde_json::Value = serde_json::from_str(&fork).expect("a fork is JSON");
    assert_eq!(fork["partitions"][0]["source_end"], 100, "{fork:#}");
    assert_eq!(fork["partitions"][0]["target_end"], 130, "{fork:#}");
    match meanwhile {
        Meanwhile::Nothing => {}
        Meanwhile::Compacts => scene.compact(&place, 128),
        Meanwhile::Loses | Meanwhile::IsWrittenTo => {
            let cluster = &scene.source.cluster;
            cluster.control(|state| state.truncate("t", 0, 115));
        }
    }
    if meanwhile == Meanwhile::IsWrittenTo {
        scene.write(world, Side::Primary, &place, 4, how);
    }
    scene.write(world, Side::Standby, &place, 5, how);
    scene.find_source(world);
    let look = process::stranded(world, "operator-looks", &scene.text);
    let stranded = world.result(&look, 60_000).expect("both answer");
    (scene, stranded)
}

fn ranges(stranded: &[Stranded]) -> Vec<(i64, i64)> {
    stranded.iter().map(|it| (it.from, it.to)).collect()
}

/// Each record that a failback must leave on the old primary is there once.
fn fails_back(world: &mut World, scene: &Scene, accept_orphans: bool, records: usize) {
    let failback = process::failback(world, "operator-back", &scene.text, accept_orphans);
    let (report, error) = world.result(&failback, 300_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    assert_eq!(scene.role(), Side::Primary);
    let place = Place::new("t", 0);
    let mut found = names(&scene.source, &place);
    assert_eq!(found.len(), records, "{found:?}");
    found.sort();
    found.dedup();
    assert_eq!(found.len(), records, "some are there twice");
}

#[test]
fn what_was_copied_behind_the_stored_map_is_not_stranded() {
    world::run(1, |world| {
        let (scene, stranded) = fail_over(world, 0, Meanwhile::Nothing);
        assert!(stranded.is_empty(), "{stranded:?}");
        fails_back(world, &scene, false, 135);
    });
}

#[test]
fn of_what_lies_behind_the_stored_map_only_what_was_not_copied_is_stranded() {
    world::run(1, |world| {
        let (scene, stranded) = fail_over(world, 7, Meanwhile::Nothing);
        assert_eq!(ranges(&stranded), [(130, 137)]);
        fails_back(world, &scene, true, 142);
        let look = process::stranded(world, "operator-looks-again", &scene.text);
        let stranded = world.result(&look, 60_000).expect("both answer");
        assert!(stranded.is_empty(), "{stranded:?}");
    });
}

#[test]
fn while_it_is_copied_back_only_what_was_not_copied_is_stranded() {
    world::run(1, |world| {
        let (scene, _) = fail_over(world, 7, Meanwhile::Nothing);
        let begun = process::begin_back(world, "operator-back", &scene.text);
        let (report, error) = world.result(&begun, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let look = process::stranded(world, "operator-looks-again", &scene.text);
        let stranded = world.result(&look, 60_000).expect("both answer");
        assert_eq!(ranges(&stranded), [(130, 137)]);
    });
}

#[test]
fn what_a_cleaner_took_behind_the_stored_map_makes_no_orphans() {
    world::run(1, |world| {
        let (_, stranded) = fail_over(world, 0, Meanwhile::Compacts);
        assert!(stranded.is_empty(), "{stranded:?}");
    });
}

#[test]
fn what_the_old_primary_lost_behind_the_stored_map_is_copied_back() {
    world::run(1, |world| {
        let (scene, stranded) = fail_over(world, 0, Meanwhile::Loses);
        assert!(stranded.is_empty(), "{stranded:?}");
        fails_back(world, &scene, false, 135);
    });
}

#[test]
fn others_in_the_place_of_what_it_lost_there_are_stranded() {
    world::run(1, |world| {
        let (scene, stranded) = fail_over(world, 0, Meanwhile::IsWrittenTo);
        assert_eq!(ranges(&stranded), [(115, 119)]);
        fails_back(world, &scene, true, 139);
    });
}
