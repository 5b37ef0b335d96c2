//! A topic that is made on the old primary between the last look of a failover and its promotion: however long that takes,
//! nobody says that nothing was lost.

use fake_kafka::world::{self, Process, World};
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, CutOver, Running, failover_options};
use crate::sim::scene::{Scene, Write, names};

/// Waits until the plan's journal says this of a step. Whoever gives the command is far from the standby: next door there
/// is no time between one step's word and the next one's.
fn at_step(
    world: &mut World,
    scene: &Scene,
    (command, step, state): (&Process<CutOver>, &str, &str),
) {
    world.path(command, &scene.target, |path| {
        path.to_broker_us = 15_000;
        path.to_client_us = 15_000;
    });
    let target = scene.target.clone();
    let (step, state) = (step.to_owned(), state.to_owned());
    world.must("the plan is there", 60_000, move |_| {
        let journal = logs::newest(&target, "__twinlog_state", "cutover/dr");
        let journal = journal.map(|it| serde_json::from_str(&it).expect("a plan is JSON"));
        journal.is_some_and(|journal: serde_json::Value| {
            let steps = journal["steps"].as_array().expect("it has steps");
            let mut steps = steps.iter();
            steps.any(|it| it["step"] == *step && it["state"] == *state)
        })
    });
}

/// Topic `t` with 20 records, copied.
fn copied(world: &mut World) -> (Scene, Running, Place) {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 20, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    (scene, twinlog, place)
}

fn make_late(world: &mut World, scene: &mut Scene) -> Place {
    scene.topic("late", 1, 1, &[]);
    let late = Place::new("late", 0);
    scene.write(world, Side::Primary, &late, 10, Write::default());
    late
}

/// It is refused, can be undone, and the next one takes the topic with it.
fn is_refused_and_taken_by_the_next(
    world: &mut World,
    scene: &Scene,
    (command, late): (&str, &Place),
) {
    assert_eq!(scene.role(), Side::Primary, "{command}");
    let abort = process::abort(world, &format!("abort-of-{command}"), &scene.text);
    let (report, error) = world.result(&abort, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    scene.must_copy(world, std::slice::from_ref(late), 60_000);
    let planned = failover_options(CutoverKind::Planned);
    let failover = process::failover(world, "operator-anew", &scene.text, planned);
    let (report, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    assert!(report.lost.is_proven, "{report:?}");
    assert_eq!(scene.role(), Side::Standby);
    assert_eq!(names(&scene.target, late), names(&scene.source, late));
}

#[test]
fn a_topic_that_comes_behind_the_forks_is_no_proven_failover() {
    world::run(1, |world| {
        let (mut scene, _, _) = copied(world);
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned);
        at_step(world, &scene, (&failover, "release", "doing"));
        let late = make_late(world, &mut scene);
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        let error = error.unwrap_or_else(|| panic!("it is promoted: {:?}", report.lost));
        assert!(error.message.contains("late"), "{error}");
        is_refused_and_taken_by_the_next(world, &scene, ("operator", &late));
    });
}

#[test]
fn a_failover_that_is_continued_looks_for_what_came_meanwhile() {
    world::run(1, |world| {
        let (mut scene, _, _) = copied(world);
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned.clone());
        at_step(world, &scene, (&failover, "release", "doing"));
        failover.kill();
        world.run_for(60_000);
        let late = make_late(world, &mut scene);
        world.run_for(60_000);
        let again = process::failover(world, "operator-again", &scene.text, planned);
        let (report, error) = world.result(&again, 120_000).expect("it may begin");
        let error = error.unwrap_or_else(|| panic!("it is promoted: {:?}", report.lost));
        assert!(error.message.contains("late"), "{error}");
        is_refused_and_taken_by_the_next(world, &scene, ("operator-again", &late));
    });
}

#[test]
fn a_failover_that_is_continued_proves_again_that_nothing_is_written() {
    world::run(1, |world| {
        let (mut scene, _, place) = copied(world);
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned.clone());
        at_step(world, &scene, (&failover, "release", "doing"));
        failover.kill();
        world.run_for(60_000);
        // A client on each side: by its end the copy has all that the source has.
        scene.write(world, Side::Primary, &place, 3, Write::default());
        scene.write(world, Side::Standby, &place, 5, Write::default());
        let again = process::failover(world, "operator-again", &scene.text, planned);
        let (report, error) = world.result(&again, 120_000).expect("it may begin");
        let error = error.unwrap_or_else(|| panic!("it is promoted: {:?}", report.lost));
        assert!(error.message.contains("after the proof"), "{error}");
        assert_eq!(scene.role(), Side::Primary);
    });
}

#[test]
fn a_failover_that_is_continued_brings_the_groups_again() {
    world::run(1, |world| {
        let (scene, _, place) = Scene::with_groups(world, 40, "twinlog");
        let group = scene.commits(world, 20, 50);
        world.result(&group, 60_000);
        world.run_for(12_000);
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned.clone());
        at_step(world, &scene, (&failover, "release", "doing"));
        failover.kill();
        // Its consumers read the source to its end.
        let group = scene.commits(world, 40, 50);
        world.result(&group, 60_000);
        world.run_for(12_000);
        let again = process::failover(world, "operator-again", &scene.text, planned);
        let (report, error) = world.result(&again, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let found = scene.judge_group("group", &place);
        assert!(found.is_empty(), "{found:?}");
        let stands = scene.target.cluster.control(|state| {
            let committed = state.committed_offset("group", "t", 0);
            committed.map(|it| it.offset)
        });
        assert_eq!(stands, Some(40), "nothing is read again");
    });
}

#[test]
fn a_topic_that_is_made_on_the_old_primary_later_is_in_the_account() {
    world::run(1, |world| {
        let (mut scene, twinlog, _) = copied(world);
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned);
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(
            error.is_none() && report.lost.is_proven,
            "{error:?} {report:?}"
        );
        twinlog.process.kill();
        make_late(world, &mut scene);
        scene.topic("empty", 1, 1, &[]);
        let looked = process::last_report(world, "operator-later", &scene.text);
        let report = world.result(&looked, 60_000).expect("there is a plan");
        assert_eq!(report.lost.records, 10, "{report:?}");
        assert!(!report.lost.is_proven, "{report:?}");
        assert!(report.lost.text.contains("late-0 from 0"), "{report:?}");
    });
}

#[test]
fn a_source_that_dies_before_the_promotion_is_no_proof() {
    world::run(1, |world| {
        let (scene, twinlog, _) = copied(world);
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned);
        at_step(world, &scene, (&failover, "release", "doing"));
        scene.lose_source(world);
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        assert_eq!(scene.role(), Side::Standby);
        assert!(!report.lost.is_proven, "{:?}", report.lost);
        twinlog.process.kill();
        scene.find_source(world);
        let looked = process::last_report(world, "operator-later", &scene.text);
        let report = world.result(&looked, 60_000).expect("there is a plan");
        assert!(report.lost.is_proven, "{:?}", report.lost);
    });
}

#[test]
fn who_looks_after_the_old_primary_counts_what_was_never_copied() {
    world::run(1, |world| {
        let (mut scene, twinlog, _) = copied(world);
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned);
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        make_late(world, &mut scene);
        let counts = twinlog.clone();
        world.must("it is counted", 120_000, move |world| {
            let mut flows = counts.status(world).flows.into_iter();
            let role = flows.find_map(|flow| flow.role);
            role.is_some_and(|role| role.orphan_offsets == Some(10))
        });
        scene.lose_source(world);
        let looked = process::last_report(world, "operator-later", &scene.text);
        let report = world.result(&looked, 60_000).expect("there is a plan");
        assert_eq!(report.lost.records, 10, "{report:?}");
    });
}
