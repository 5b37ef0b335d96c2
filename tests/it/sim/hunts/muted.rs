//! A quota of producers on the cluster that has the state: what a cut-over writes there is answered, and then the broker
//! mutes the connection for seconds. The plan goes on when it may, and nothing is lost, whatever the copying process can say
//! of its end meanwhile.

use std::collections::BTreeMap;

use fake_kafka::world::{self, Brokers, Process, World};
use twinlog::cutover::Report;
use twinlog::state::CutoverKind;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, CutOver, failover_options};
use crate::sim::scene::{Scene, Write, names};

const PARTITIONS: i32 = 4;
/// The notes of a plan have some kilobytes.
const BYTES_PER_SECOND: f64 = 400.0;
/// What it takes without: the proof of quiet, and little more.
const UNHELD_S: f64 = 6.5;

fn limit(brokers: &Brokers) {
    brokers.cluster.control(|state| {
        let whom = BTreeMap::from([("client-id".to_owned(), Some("twinlog".to_owned()))]);
        let quota = BTreeMap::from([("producer_byte_rate".to_owned(), BYTES_PER_SECOND)]);
        state.quotas.insert(whom, quota);
    });
}

fn done(world: &mut World, command: &Process<CutOver>) -> Report {
    let (report, error) = world.result(command, 600_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    assert!(report.lost.is_proven, "{report:?}");
    for step in &report.steps {
        println!("  {:<14} {:>7.3} {}", step.step, step.seconds, step.result);
    }
    report
}

fn there_and_back(held: Side) {
    world::run(1, move |world| {
        let mut scene = Scene::new(world, 1, "offsets: identical");
        scene.topic("t", PARTITIONS, 1, &[]);
        let places: Vec<Place> = (0..PARTITIONS).map(|at| Place::new("t", at)).collect();
        scene.twinlog(world, "twinlog");
        for place in &places {
            scene.write(world, Side::Primary, place, 5, Write::default());
        }
        scene.must_copy(world, &places, 60_000);
        world.run_for(15_000);
        limit(scene.side(held));
        let options = failover_options(CutoverKind::Planned);
        let command = process::failover(world, "operator", &scene.text, options);
        let there = done(world, &command);
        assert_eq!(scene.role(), Side::Standby);
        for place in &places {
            scene.write(world, Side::Standby, place, 5, Write::default());
        }
        let command = process::failback(world, "operator-back", &scene.text, true);
        let back = done(world, &command);
        assert_eq!(scene.role(), Side::Primary);
        let slower = match held {
            Side::Standby => &there,
            Side::Primary => &back,
        };
        assert!(slower.seconds > UNHELD_S, "it was held: {slower:?}");
        for place in &places {
            let (on_source, on_target) = (names(&scene.source, place), names(&scene.target, place));
            assert_eq!(on_source.len(), 10, "{on_source:?}");
            assert_eq!(on_target, on_source);
        }
    });
}

#[test]
fn a_plan_whose_notes_a_quota_holds_up_goes_on() {
    there_and_back(Side::Standby);
}

#[test]
fn so_does_the_way_back_to_a_primary_with_a_quota() {
    there_and_back(Side::Primary);
}
