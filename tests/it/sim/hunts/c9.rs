//! A second failover while the topics of the first one are being copied back.

use std::collections::BTreeSet;

use fake_kafka::world::{self, World};
use twinlog::cutover::{CutoverError, Options};
use twinlog::state::CutoverKind;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write, names};

fn of(topic: &str, kind: CutoverKind) -> Options {
    Options {
        topics: BTreeSet::from([topic.to_owned()]),
        ..failover_options(kind)
    }
}

/// Topic `a` was failed over and is being copied back; `b` is copied as ever.
fn a_is_copied_back(world: &mut World) -> (Scene, Place) {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("a", 1, 1, &[]);
    scene.topic("b", 1, 1, &[]);
    let (a, b) = (Place::new("a", 0), Place::new("b", 0));
    scene.twinlog(world, "twinlog");
    for place in [&a, &b] {
        scene.write(world, Side::Primary, place, 20, Write::default());
    }
    scene.must_copy(world, &[a.clone(), b], 30_000);
    let options = of("a", CutoverKind::Planned);
    let failover = process::failover(world, "operator", &scene.text, options);
    in_order(world.result(&failover, 120_000));
    let back = process::begin_back(world, "operator-back", &scene.text);
    in_order(world.result(&back, 120_000));
    scene.write(world, Side::Standby, &a, 10, Write::default());
    let (source, place) = (scene.source.clone(), a.clone());
    world.must("a is copied back", 60_000, move |_| {
        names(&source, &place).len() == 30
    });
    (scene, a)
}

fn in_order(ended: process::CutOver) {
    let (report, error) = ended.expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
}

#[test]
fn a_planned_one_is_refused_and_the_copy_back_goes_on() {
    world::run(1, |world| {
        let (mut scene, a) = a_is_copied_back(world);
        let options = of("b", CutoverKind::Planned);
        let second = process::failover(world, "colleague", &scene.text, options);
        let refused: CutoverError = world.result(&second, 120_000).expect_err("it is refused");
        assert!(refused.message.contains("copied back"), "{refused:?}");
        assert!(refused.hint.is_some_and(|it| it.contains("failback")));
        scene.write(world, Side::Standby, &a, 10, Write::default());
        let (source, place) = (scene.source.clone(), a.clone());
        world.must("the copy back goes on", 60_000, move |_| {
            names(&source, &place).len() == 40
        });
    });
}

#[test]
fn an_emergency_goes_on() {
    world::run(1, |world| {
        let (scene, _) = a_is_copied_back(world);
        scene.source.cluster.control(|state| state.stop_broker(1));
        world.run_for(5_000);
        let options = of("b", CutoverKind::Unplanned);
        let second = process::failover(world, "colleague", &scene.text, options);
        in_order(world.result(&second, 120_000));
    });
}
