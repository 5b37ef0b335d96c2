//! A leader of the source that is cut off from the others, and not from Twinlog: it goes on answering, with a log of
//! yesterday.

use fake_kafka::Options;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::world::{self, World};
use kafka_protocol::messages::ApiKey;

use crate::sim::model::{Place, Says, Side};
use crate::sim::process::{self, Running, failover_options};
use crate::sim::scene::{Scene, Write, names, says};
use twinlog::state::CutoverKind;

/// Long enough for the others to be asked, and for a stopped partition to be looked at again.
const SOON_MS: i64 = 40_000;

/// 100 records are copied from a leader that is then cut off.
fn cut_off(world: &mut World, lines: &str) -> (Scene, Running, Place, i32) {
    let options = |brokers| Options {
        brokers,
        ..Options::default()
    };
    let mut scene = Scene::with(world, options(3), options(1), lines);
    scene.topic("t", 1, 3, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    write(world, &mut scene, &place, 100);
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    // What was seen of the source is stored every 30 s.
    world.run_for(40_000);
    let leader = scene.source.cluster.control(|state| {
        let leader = state.partition("t", 0).and_then(|it| it.leader);
        let leader = leader.expect("it is led");
        state.isolate_broker(leader);
        leader
    });
    // It is the one that is asked first.
    assert_eq!(leader, 1);
    (scene, twinlog, place, leader)
}

fn write(world: &World, scene: &mut Scene, place: &Place, count: u64) {
    scene.write_batch(world, Side::Primary, place, count, Write::default());
}

fn must_copy(world: &mut World, scene: &Scene, place: &Place) {
    scene.must_copy(world, std::slice::from_ref(place), SOON_MS);
}

fn rejoin(scene: &Scene, leader: i32) {
    scene
        .source
        .cluster
        .control(|state| state.rejoin_broker(leader));
}

#[test]
fn a_leader_that_is_cut_off_is_left() {
    for lines in ["", "offsets: mapped"] {
        world::run(1, |world| {
            let (mut scene, _twinlog, place, leader) = cut_off(world, lines);
            write(world, &mut scene, &place, 50);
            must_copy(world, &scene, &place);
            rejoin(&scene, leader);
            write(world, &mut scene, &place, 50);
            must_copy(world, &scene, &place);
        });
    }
}

#[test]
fn a_process_that_begins_at_it_waits() {
    for lines in ["", "offsets: mapped"] {
        for seed in crate::sim::seeds(3) {
            world::run(seed, |world| {
                let (mut scene, twinlog, place, leader) = cut_off(world, lines);
                write(world, &mut scene, &place, 50);
                must_copy(world, &scene, &place);
                // The new leader's epoch is stored within moments.
                world.run_for(8_000);
                twinlog.process.kill();
                let twinlog = scene.twinlog(world, "twinlog-again");
                for _ in 0..20 {
                    world.run_for(500);
                    let told = format!("{:?}", says(world, &twinlog, &place));
                    assert!(!told.contains("source_truncated"), "{told}");
                }
                write(world, &mut scene, &place, 50);
                must_copy(world, &scene, &place);
                rejoin(&scene, leader);
                write(world, &mut scene, &place, 50);
                must_copy(world, &scene, &place);
            });
        }
    }
}

/// Its log stands still, and that proves nothing.
#[test]
fn a_planned_failover_asks_who_else_leads() {
    for seed in crate::sim::seeds(3) {
        world::run(seed, |world| {
            let (mut scene, _twinlog, place, _) = cut_off(world, "");
            write(world, &mut scene, &place, 50);
            let options = failover_options(CutoverKind::Planned);
            let cut = process::failover(world, "operator", &scene.text, options);
            let (report, error) = world.result(&cut, 120_000).expect("it may begin");
            assert!(error.is_none(), "{error:?}");
            assert_eq!(report.lost.records, 0, "{report:?}");
            let copied = names(&scene.target, &place);
            let of_clients = copied.iter().filter(|name| name.starts_with("Primary"));
            assert_eq!(of_clients.count(), 150, "{copied:?}");
        });
    }
}

/// The process dies right behind the first records of the new epoch: nothing tells the next one that the leader
/// is none. What it says then is taken back when the records are there.
#[test]
fn a_process_that_knew_nothing_of_the_new_leader_goes_on() {
    for seed in crate::sim::seeds(3) {
        world::run(seed, |world| {
            let (mut scene, twinlog, place, leader) = cut_off(world, "");
            // The new leader is known by now.
            world.run_for(15_000);
            write(world, &mut scene, &place, 50);
            must_copy(world, &scene, &place);
            twinlog.process.kill();
            // Nobody else says who leads.
            let cluster = scene.source.cluster.clone();
            for broker in [2, 3] {
                let asked = Fault::on(ApiKey::Metadata).broker(broker);
                cluster.fault(asked, Action::Swallow);
            }
            let twinlog = scene.twinlog(world, "twinlog-again");
            world.run_for(3_000);
            let told = format!("{:?}", says(world, &twinlog, &place));
            assert!(told.contains("source_truncated"), "{told}");
            cluster.control(|state| state.faults.clear_all());
            rejoin(&scene, leader);
            write(world, &mut scene, &place, 50);
            must_copy(world, &scene, &place);
            assert!(matches!(
                says(world, &twinlog, &place),
                Says::Copying { .. }
            ));
        });
    }
}

/// The same where the source did lose records, has grown since, and nothing but the records tells.
#[test]
fn what_is_lost_is_not_found_by_growing() {
    for seed in crate::sim::seeds(3) {
        world::run(seed, |world| {
            let options = |brokers| Options {
                brokers,
                ..Options::default()
            };
            let mut scene = Scene::with(world, options(2), options(1), "");
            scene.topic("t", 1, 2, &[]);
            let place = Place::new("t", 0);
            let twinlog = scene.twinlog(world, "twinlog");
            write(world, &mut scene, &place, 100);
            scene.must_copy(world, std::slice::from_ref(&place), 30_000);
            world.run_for(40_000);
            write(world, &mut scene, &place, 100);
            scene.must_copy(world, std::slice::from_ref(&place), 10_000);
            twinlog.process.kill();
            let cluster = scene.source.cluster.clone();
            cluster.control(|state| state.truncate("t", 0, 150));
            let twinlog = scene.twinlog(world, "twinlog-again");
            world.run_for(3_000);
            // Two more leaders, and more records than were lost.
            for _ in 0..2 {
                cluster.control(|state| {
                    let leader = state.partition("t", 0).and_then(|it| it.leader);
                    state.move_leader("t", 0, 3 - leader.expect("it is led"));
                });
                write(world, &mut scene, &place, 100);
            }
            for _ in 0..4 {
                world.run_for(25_000);
                let told = format!("{:?}", says(world, &twinlog, &place));
                assert!(told.contains("source_truncated"), "{told}");
            }
        });
    }
}

/// What the others say is asked for every few seconds: until then it counts as fresh.
#[test]
fn a_leader_that_is_cut_off_is_left_within_seconds() {
    for seed in crate::sim::seeds(3) {
        world::run(seed, |world| {
            let (mut scene, _twinlog, place, _) = cut_off(world, "");
            write(world, &mut scene, &place, 50);
            scene.must_copy(world, std::slice::from_ref(&place), 8_000);
        });
    }
}
