//! The source is lost when what was seen of it is old, partial or changes quickly. What the report calls a bound
//! is one, or it says that nobody knows; and no offset of the new primary is one that the old primary gave out.

use fake_kafka::Options;
use fake_kafka::world::{self, World};
use twinlog::cutover::Report;
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, Running, failover_options};
use crate::sim::scene::{Scene, Write};

const EVERY_MS: i64 = 100;

/// Topic `t`, one partition led by each of two brokers.
fn scene(world: &mut World, lines: &str) -> (Scene, [Place; 2]) {
    let two = Options {
        brokers: 2,
        ..Options::default()
    };
    let scene = Scene::with(world, two.clone(), two, lines);
    scene.topic("t", 2, 1, &[]);
    (scene, [Place::new("t", 0), Place::new("t", 1)])
}

/// So many records a second, for so long. It goes on whoever reaches the source.
fn write_for(scene: &mut Scene, world: &mut World, at: &Place, per_second: u64, for_ms: i64) {
    let how = Write {
        bytes: 200,
        ..Write::default()
    };
    let each = per_second * EVERY_MS.unsigned_abs() / 1_000;
    for _ in 0..for_ms / EVERY_MS {
        if each > 0 {
            scene.write_batch(world, Side::Primary, at, each, how);
        }
        world.run_for(EVERY_MS);
    }
}

/// The operator's command, some time after everything of the old side is gone; what it says, and what is true.
fn fail_over(world: &mut World, scene: &Scene, twinlog: &Running, places: &[Place]) -> Report {
    scene.lose_source(world);
    twinlog.process.kill();
    let unplanned = failover_options(CutoverKind::Unplanned);
    let failover = process::failover(world, "operator", &scene.text, unplanned);
    let (report, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    let mut missing = 0;
    for place in places {
        let there = logs::read(&scene.target, place).records.len();
        missing += logs::read(&scene.source, place).records.len() - there;
        let given_out = end(scene, Side::Primary, place);
        let first_new = end(scene, Side::Standby, place);
        assert!(
            first_new >= given_out,
            "{place}: the old primary gave out {given_out} offsets, the first new one is {first_new}: {report:#?}"
        );
    }
    let is_unknown = report.lost.unknown_partitions > 0;
    assert!(
        is_unknown || report.lost.records >= missing as u64,
        "{missing} records are missing: {report:#?}"
    );
    report
}

fn end(scene: &Scene, side: Side, place: &Place) -> i64 {
    scene.side(side).cluster.control(|state| {
        let found = state.partition(&place.topic, place.partition);
        let log = found.and_then(|it| it.leader_log());
        log.expect("it is led").end_offset()
    })
}

#[test]
fn a_broker_that_hangs_is_not_seen_because_another_one_answers() {
    for seed in crate::sim::seeds(3) {
        world::run(seed, move |world| {
            let (mut scene, places) = scene(world, "");
            let twinlog = scene.twinlog(world, "twinlog");
            write_for(&mut scene, world, &places[0], 100, 8_000);
            let leader = scene.source.cluster.control(|state| {
                let leader = state.partition("t", 0).and_then(|it| it.leader);
                leader.expect("it is led")
            });
            let cluster = scene.source.cluster.clone();
            cluster.control(|state| state.freeze_broker(leader));
            write_for(&mut scene, world, &places[0], 100, 20_000);
            fail_over(world, &scene, &twinlog, &places);
        });
    }
}

#[test]
fn under_a_limit_the_growth_of_the_source_counts() {
    for seed in crate::sim::seeds(3) {
        world::run(seed, move |world| {
            let lines = "limits: { bytes_per_second: 20KiB }";
            let (mut scene, places) = scene(world, lines);
            let twinlog = scene.twinlog(world, "twinlog");
            world.run_for(5_000);
            write_for(&mut scene, world, &places[0], 400, 60_000);
            scene.lose_source(world);
            write_for(&mut scene, world, &places[0], 400, 10_000);
            fail_over(world, &scene, &twinlog, &places);
        });
    }
}

#[test]
fn a_rate_that_jumped_just_before_counts() {
    for seed in crate::sim::seeds(6) {
        world::run(seed, move |world| {
            let (mut scene, places) = scene(world, "");
            let twinlog = scene.twinlog(world, "twinlog");
            write_for(&mut scene, world, &places[0], 10, 20_000);
            world.run_for(100 + i64::try_from(seed).expect("small") * 300);
            write_for(&mut scene, world, &places[0], 200, 2_000);
            scene.lose_source(world);
            twinlog.process.kill();
            write_for(&mut scene, world, &places[0], 200, 8_000);
            fail_over(world, &scene, &twinlog, &places);
        });
    }
}

#[test]
fn a_partition_that_took_its_first_records_just_before_is_not_quiet() {
    for seed in crate::sim::seeds(4) {
        world::run(seed, move |world| {
            let (mut scene, places) = scene(world, "");
            let twinlog = scene.twinlog(world, "twinlog");
            world.run_for(20_000 + i64::try_from(seed).expect("small") * 500);
            write_for(&mut scene, world, &places[0], 100, 2_000);
            scene.lose_source(world);
            twinlog.process.kill();
            write_for(&mut scene, world, &places[0], 100, 8_000);
            fail_over(world, &scene, &twinlog, &places);
        });
    }
}

/// A batch of 1,000 records every 20 s: the rate has forgotten the last one when the next one comes, and nobody copies it.
#[test]
fn a_batch_that_comes_now_and_then_is_in_the_bound() {
    for seed in crate::sim::seeds(3) {
        world::run(seed, move |world| {
            let (mut scene, places) = scene(world, "");
            let twinlog = scene.twinlog(world, "twinlog");
            for _ in 0..4 {
                write_for(&mut scene, world, &places[0], 10_000, 100);
                world.run_for(19_900);
            }
            twinlog.process.kill();
            world.run_for(i64::try_from(seed).expect("small") * 300);
            write_for(&mut scene, world, &places[0], 10_000, 100);
            fail_over(world, &scene, &twinlog, &places);
        });
    }
}

/// The same of a log that has the broker's times, and of records of long ago.
#[test]
fn times_of_records_bound_nothing() {
    for settings in [
        [("message.timestamp.type", "LogAppendTime")],
        [("message.timestamp.type", "CreateTime")],
    ] {
        world::run(1, move |world| {
            let mut scene = Scene::new(world, 1, "");
            scene.topic("t", 1, 1, &settings);
            let places = [Place::new("t", 0)];
            let twinlog = scene.twinlog(world, "twinlog");
            let old = Write {
                age_ms: 36_000_000,
                ..Write::default()
            };
            for _ in 0..60 {
                scene.write_batch(world, Side::Primary, &places[0], 20, old);
                world.run_for(200);
            }
            twinlog.process.kill();
            for _ in 0..30 {
                scene.write_batch(world, Side::Primary, &places[0], 20, old);
                world.run_for(200);
            }
            let report = fail_over(world, &scene, &twinlog, &places);
            assert!(report.lost.records < 10_000, "{report:#?}");
        });
    }
}

/// The leader is cut off from the others and not from Twinlog. What it says looks new and stands still; meanwhile
/// another one takes records.
#[test]
fn what_a_leader_says_that_is_cut_off_is_as_old_as_the_cut() {
    for seed in crate::sim::seeds(6) {
        world::run(seed, move |world| {
            let three = |brokers| Options {
                brokers,
                ..Options::default()
            };
            let mut scene = Scene::with(world, three(3), three(1), "");
            scene.topic("t", 1, 3, &[]);
            let places = [Place::new("t", 0)];
            let twinlog = scene.twinlog(world, "twinlog");
            write_for(&mut scene, world, &places[0], 100, 20_000);
            let cluster = scene.source.cluster.clone();
            cluster.control(|state| {
                let leader = state.partition("t", 0).and_then(|it| it.leader);
                state.isolate_broker(leader.expect("it is led"));
            });
            let for_ms = 1_500 * i64::try_from(seed).expect("small");
            write_for(&mut scene, world, &places[0], 100, for_ms);
            fail_over(world, &scene, &twinlog, &places);
        });
    }
}

/// Half of the brokers are cut off from the others, and we with them: those that answer have each other in their lists.
#[test]
fn what_a_part_says_that_is_cut_off_with_its_leader_is_as_old_as_the_cut() {
    for seed in crate::sim::seeds(3) {
        behind_a_cut(seed, move |scene, world, twinlog, place| {
            let for_ms = 8_000 + 3_000 * i64::try_from(seed).expect("small");
            write_for(scene, world, place, 100, for_ms);
            twinlog
        });
    }
}

/// The same of a process that begins behind the cut, and never hears those on the other side itself.
#[test]
fn who_begins_behind_a_cut_knows_who_is_on_its_other_side() {
    for seed in crate::sim::seeds(3) {
        behind_a_cut(seed, move |scene, world, twinlog, place| {
            twinlog.process.kill();
            let again = scene.twinlog(world, "again");
            let for_ms = 60_000 + 3_000 * i64::try_from(seed).expect("small");
            write_for(scene, world, place, 100, for_ms);
            again
        });
    }
}

/// Fails over behind a cut and what happens `meanwhile`, which tells who copies at its end.
fn behind_a_cut(
    seed: u64,
    meanwhile: impl Fn(&mut Scene, &mut World, Running, &Place) -> Running + Send + 'static,
) {
    world::run(seed, move |world| {
        let brokers = |brokers| Options {
            brokers,
            ..Options::default()
        };
        let mut scene = Scene::with(world, brokers(6), brokers(1), "");
        scene.topic("t", 6, 3, &[]);
        let cluster = scene.source.cluster.clone();
        let cut = 1..=3;
        // Led by one of the part, and followed by one that isn't.
        let fits = |number: &i32| {
            cluster.look(|state| {
                let found = state.partition("t", *number).expect("it is there");
                let is_led_there = found.leader.is_some_and(|it| cut.contains(&it));
                is_led_there && found.in_sync.iter().any(|it| !cut.contains(it))
            })
        };
        let number = (0..6).find(fits).expect("replicas are spread");
        let places = [Place::new("t", number)];
        let twinlog = scene.twinlog(world, "twinlog");
        write_for(&mut scene, world, &places[0], 100, 20_000);
        cluster.control(|state| {
            cut.clone().for_each(|id| state.isolate_broker(id));
            (4..=6).for_each(|id| state.freeze_broker(id));
        });
        let copies = meanwhile(&mut scene, world, twinlog, &places[0]);
        fail_over(world, &scene, &copies, &places);
    });
}

#[test]
fn a_rate_that_nobody_measured_is_unknown() {
    world::run(1, |world| {
        let (mut scene, places) = scene(world, "");
        write_for(&mut scene, world, &places[0], 1_000, 500);
        let twinlog = scene.twinlog(world, "twinlog");
        let target = scene.target.clone();
        let is_seen = |it: &serde_json::Value| it["ends"][0].as_i64().unwrap_or(-1) > 0;
        world.must("its end is seen once", 20_000, move |_| {
            let seen = logs::newest(&target, "__twinlog_state", "ends/dr/t");
            let seen = seen.map(|it| serde_json::from_str(&it).expect("ends are JSON"));
            seen.as_ref().is_some_and(is_seen)
        });
        twinlog.process.kill();
        write_for(&mut scene, world, &places[0], 1_000, 3_000);
        let report = fail_over(world, &scene, &twinlog, &places);
        assert!(report.lost.unknown_partitions > 0, "{report:#?}");
        assert!(report.lost.text.contains("how fast"), "{report:#?}");
    });
}

#[test]
fn what_is_measured_and_quiet_is_known() {
    world::run(1, |world| {
        let (mut scene, places) = scene(world, "");
        let twinlog = scene.twinlog(world, "twinlog");
        write_for(&mut scene, world, &places[0], 100, 2_000);
        world.run_for(60_000);
        let report = fail_over(world, &scene, &twinlog, &places);
        assert_eq!(report.lost.records, 0, "{report:#?}");
        assert_eq!(report.lost.unknown_partitions, 0, "{report:#?}");
    });
}

#[test]
fn what_nobody_has_seen_since_a_restart_is_as_old_as_it_was() {
    for seed in 1..=2 {
        world::run(seed, |world| {
            let (mut scene, places) = scene(world, "");
            let twinlog = scene.twinlog(world, "twinlog");
            write_for(&mut scene, world, &places[0], 200, 12_000);
            twinlog.process.kill();
            write_for(&mut scene, world, &places[0], 200, 90_000);
            let cluster = scene.source.cluster.clone();
            cluster.control(|state| {
                let leader = state.partition("t", 0).and_then(|it| it.leader);
                state.freeze_broker(leader.expect("it is led"));
            });
            let again = scene.twinlog(world, "again");
            world.run_for(30_000);
            let report = fail_over(world, &scene, &again, &places);
            assert!(report.lost.unknown_partitions > 0, "{report:#?}");
        });
    }
}
