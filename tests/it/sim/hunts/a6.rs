//! Topics that are made while a planned failover runs.

use fake_kafka::world::{self, World};
use twinlog::cutover::{CutoverError, Report};

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process;
use crate::sim::scene::{Scene, Write, names};

use super::far_operator;

type Ended = (Scene, Report, Option<CutoverError>);

/// Topic `late` is made, with 30 records, when the journal says that `step` goes on. `holds`: somebody
/// writes to the other topic until then and for a while, so that the proof of quiet waits.
fn play(world: &mut World, step: &'static str, holds: bool) -> Ended {
    let (mut scene, place, command) = far_operator::begun(world, step);
    if holds {
        scene.write(world, Side::Primary, &place, 1, Write::default());
        world.run_for(3_000);
        scene.write(world, Side::Primary, &place, 1, Write::default());
    }
    scene.topic("late", 2, 1, &[]);
    for number in 0..2 {
        let late = Place::new("late", number);
        scene.write(world, Side::Primary, &late, 15, Write::default());
    }
    let (report, error) = world.result(&command, 300_000).expect("it may begin");
    (scene, report, error)
}

#[test]
fn what_is_made_while_quiet_is_proven_is_failed_over_too() {
    for seed in crate::sim::seeds(3) {
        world::run(seed, |world| {
            let (scene, report, error) = play(world, "prove", true);
            assert!(error.is_none(), "{error:?} {report:?}");
            assert_eq!(scene.role(), Side::Standby);
            for number in 0..2 {
                let late = Place::new("late", number);
                let there = names(&scene.target, &late);
                assert_eq!(there.len(), 15, "{there:?}");
                assert_eq!(names(&scene.source, &late), there);
            }
            let fork = logs::newest(&scene.target, "__twinlog_state", "fork/dr/late");
            assert!(fork.is_some(), "it has a fork");
        });
    }
}

#[test]
fn what_is_made_behind_the_copy_is_refused_by_name() {
    world::run(1, move |world| {
        let (scene, report, error) = play(world, "groups", false);
        let error = error.unwrap_or_else(|| panic!("it is through: {report:?}"));
        assert!(
            error.loses_data && error.message.contains("late"),
            "{error:?}"
        );
        assert_ne!(scene.role(), Side::Standby);
        let abort = process::abort(world, "colleague", &scene.text);
        let (_, error) = world.result(&abort, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?}");
        let places = [Place::new("late", 0), Place::new("late", 1)];
        scene.must_copy(world, &places, 60_000);
    });
}
