//! Somebody else writes to a copy, and the flow keeps what was written (`on_foreign_write: map`).

use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::logs;
use crate::sim::model::{Offsets, Place, Side, Violation, judge};
use crate::sim::scene::{Scene, Write, partition_status, says};
use crate::sim::stored::{assert_map_is_exact, stored};

/// One run of it.
#[derive(Clone, Copy, Debug, Default)]
struct Case {
    /// The source's records are in transactions, so the target has fillers.
    transactional: bool,
    /// The flow's config says that all of its partitions are mapped.
    mapped: bool,
    /// Twinlog's own batches come right behind the stranger's.
    busy: bool,
    /// Twinlog is killed after so many writes behind the first of the stranger's.
    writes: Option<u64>,
}

/// Waits until the target has all that the source has.
fn await_copied(scene: &Scene, world: &mut World, place: &Place) {
    let (source, target, place) = (scene.source.clone(), scene.target.clone(), place.clone());
    world.must("all is copied beside the strangers", 30_000, move |_| {
        let copied = logs::read(&target, &place).records;
        let has = |name: &str| copied.iter().any(|it| it.name == name);
        logs::read(&source, &place)
            .records
            .iter()
            .all(|it| has(&it.name))
    });
}

fn play(world: &mut World, case: Case) -> Vec<Violation> {
    let mut lines = "on_foreign_write: map".to_owned();
    if case.mapped {
        lines.push_str("\noffsets: mapped");
    }
    let mut scene = Scene::new(world, 1, &lines);
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let ours = Write {
        transaction: case.transactional.then_some(true),
        ..Write::default()
    };
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 30, ours);
    await_copied(&scene, world, &place);
    world.run_for(1_000);
    let first = logs::read(&scene.target, &place).end;
    if case.busy {
        twinlog.process.freeze();
        world.run_for(10);
        scene.write(world, Side::Primary, &place, 40, ours);
        scene.write(world, Side::Standby, &place, 5, Write::default());
        twinlog.process.thaw();
    } else {
        scene.write(world, Side::Standby, &place, 5, Write::default());
    }
    if let Some(writes) = case.writes {
        twinlog.process.kill_after_writes(writes);
    }
    // Quiet partitions are compared every 5 s.
    world.run_for(12_000);
    if case.writes.is_some() {
        twinlog.process.restart();
        world.run_for(1_000);
    }
    scene.write(world, Side::Primary, &place, 20, ours);
    await_copied(&scene, world, &place);
    // Again, while nobody copies.
    twinlog.process.kill();
    world.run_for(10);
    scene.write(world, Side::Standby, &place, 3, Write::default());
    scene.write(world, Side::Primary, &place, 10, ours);
    twinlog.process.restart();
    await_copied(&scene, world, &place);
    twinlog.process.restart();
    scene.write(world, Side::Primary, &place, 10, ours);
    await_copied(&scene, world, &place);
    world.run_for(12_000);
    assert_map_is_exact(&scene, &place);
    let foreign = stored(&scene, "topic/dr/t")["turned"]["0"]["foreign"].clone();
    assert_eq!(
        foreign[0],
        serde_json::json!([first, first + 5]),
        "{foreign}"
    );
    assert_eq!(foreign.as_array().map(Vec::len), Some(2), "{foreign}");
    let mut judged = scene.case(&place, says(world, &twinlog, &place), Offsets::Mapped, &[]);
    let names = logs::read(&scene.target, &place).records.into_iter();
    judged.strangers = names
        .map(|it| it.name)
        .filter(|it| it.starts_with("Standby"))
        .collect();
    assert_eq!(judged.strangers.len(), 8, "what they wrote is kept");
    judge(&judged)
}

#[test]
fn what_somebody_else_wrote_is_kept_and_the_copy_goes_on_behind_it() {
    for seed in 1..=2 {
        for (transactional, busy, mapped) in [
            (false, false, false),
            (false, true, false),
            (true, false, false),
            (true, true, false),
            (false, true, true),
            (true, false, true),
        ] {
            let case = Case {
                transactional,
                mapped,
                busy,
                writes: None,
            };
            holds(
                &format!("{case:?}"),
                &world::run(seed, move |world| play(world, case)),
            );
        }
    }
}

#[test]
fn no_crash_hurts_while_what_somebody_else_wrote_is_found() {
    for writes in 0..14 {
        let case = Case {
            busy: true,
            transactional: writes % 2 == 0,
            writes: Some(writes),
            ..Case::default()
        };
        holds(
            &format!("{case:?}"),
            &world::run(writes, move |world| play(world, case)),
        );
    }
}

/// What the strangers do in [`odd`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Odd {
    /// They write before the first record of a new topic.
    First,
    /// They write in transactions; one is aborted.
    Transactions,
    /// They write twice before anything of the source comes.
    Twice,
    /// The target's brokers have forgotten our producers when they write.
    Forgotten,
    /// An operator deletes what they wrote while nobody copies.
    Deleted,
    /// The cleaner takes it while nobody copies.
    Cleaned,
    /// The flow was to stop there, and is told to go on.
    Stopped,
}

fn odd(world: &mut World, odd: Odd, transactional: bool) -> Vec<Violation> {
    let line = match odd {
        Odd::Stopped => "on_foreign_write: stop",
        _ => "on_foreign_write: map",
    };
    let mut scene = Scene::new(world, 1, line);
    let policy = match odd {
        Odd::Cleaned => "compact",
        _ => "delete",
    };
    scene.topic("t", 1, 1, &[("cleanup.policy", policy)]);
    let place = Place::new("t", 0);
    let ours = Write {
        transaction: transactional.then_some(true),
        ..Write::default()
    };
    let theirs = Write {
        transaction: (odd == Odd::Transactions).then_some(true),
        keys: 1,
        ..Write::default()
    };
    let twinlog = scene.twinlog(world, "twinlog");
    if odd == Odd::First {
        let target = scene.target.clone();
        world.must("the copy is made", 30_000, move |_| {
            target
                .cluster
                .look(|state| state.partition("t", 0).is_some())
        });
    } else {
        scene.write(world, Side::Primary, &place, 30, ours);
        await_copied(&scene, world, &place);
        // How far it was copied is stored by then.
        world.run_for(32_000);
    }
    let is_down = matches!(odd, Odd::Deleted | Odd::Cleaned);
    if is_down {
        twinlog.process.kill();
        world.run_for(10);
    }
    if odd == Odd::Forgotten {
        scene.target.cluster.control(|state| {
            let partition = state.partition_mut("t", 0).expect("it is there");
            let log = partition.leader_log_mut().expect("it is led");
            let ids: Vec<i64> = log.batches().map(|it| it.header.producer_id).collect();
            for id in ids {
                log.forget_producer(id);
            }
        });
    }
    let first = logs::read(&scene.target, &place).end;
    scene.write(world, Side::Standby, &place, 4, theirs);
    if odd == Odd::Transactions {
        let aborted = Write {
            transaction: Some(false),
            ..theirs
        };
        scene.write(world, Side::Standby, &place, 2, aborted);
    }
    if odd == Odd::Twice {
        world.run_for(12_000);
        scene.write(world, Side::Standby, &place, 3, theirs);
    }
    let end = logs::read(&scene.target, &place).end;
    match odd {
        Odd::Deleted => scene
            .target
            .cluster
            .control(|state| state.raise_log_start("t", 0, end)),
        Odd::Cleaned => {
            logs::compact(&scene.target, &place, end);
        }
        _ => {}
    }
    world.run_for(12_000);
    let mut twinlog = twinlog;
    if odd == Odd::Stopped {
        let said = says(world, &twinlog, &place);
        assert!(format!("{said:?}").contains("foreign_write"), "{said:?}");
        twinlog.process.kill();
        world.run_for(1_000);
        scene.text = scene.text.replace(": stop", ": map");
        twinlog = scene.twinlog(world, "told to go on");
    } else if is_down {
        twinlog.process.restart();
    }
    let deleted: Vec<String> = match odd {
        Odd::Deleted => crate::sim::scene::names(&scene.source, &place),
        _ => Vec::new(),
    };
    scene.write(world, Side::Primary, &place, 20, ours);
    let (source, target, at) = (scene.source.clone(), scene.target.clone(), place.clone());
    world.run_for(20_000);
    let copied = logs::read(&target, &at).records;
    let has = |name: &str| copied.iter().any(|it| it.name == name);
    let lacks: Vec<String> = logs::read(&source, &at)
        .records
        .into_iter()
        .map(|it| it.name)
        .filter(|name| !has(name) && !deleted.contains(name))
        .collect();
    let said = partition_status(world, &twinlog, &place);
    assert!(lacks.is_empty(), "{odd:?}: {lacks:?} are missing; {said:?}");
    let foreign = stored(&scene, "topic/dr/t")["turned"]["0"]["foreign"].clone();
    assert_eq!(foreign, serde_json::json!([[first, end]]), "{odd:?}");
    if odd == Odd::Deleted {
        return Vec::new();
    }
    assert_map_is_exact(&scene, &place);
    let mut judged = scene.case(&place, says(world, &twinlog, &place), Offsets::Mapped, &[]);
    let names = logs::read(&scene.target, &place).records.into_iter();
    judged.strangers = names
        .map(|it| it.name)
        .filter(|it| it.starts_with("Standby"))
        .collect();
    judge(&judged)
}

#[test]
fn whatever_strangers_do_their_offsets_are_known() {
    for transactional in [false, true] {
        for case in [
            Odd::First,
            Odd::Transactions,
            Odd::Twice,
            Odd::Forgotten,
            Odd::Deleted,
            Odd::Cleaned,
            Odd::Stopped,
        ] {
            holds(
                &format!("{case:?}, {transactional}"),
                &world::run(1, move |world| odd(world, case, transactional)),
            );
        }
    }
}

/// What nobody sees any more could be taken for fillers that the broker has forgotten: as many records of the
/// source would be skipped.
#[test]
fn what_strangers_wrote_and_an_operator_deleted_stops_the_partition() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        let place = Place::new("t", 0);
        let twinlog = scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 30, Write::default());
        await_copied(&scene, world, &place);
        world.run_for(32_000);
        twinlog.process.kill();
        world.run_for(10);
        scene.write(world, Side::Standby, &place, 4, Write::default());
        let end = logs::read(&scene.target, &place).end;
        scene
            .target
            .cluster
            .control(|state| state.raise_log_start("t", 0, end));
        scene.write(world, Side::Primary, &place, 20, Write::default());
        twinlog.process.restart();
        world.run_for(12_000);
        let said = says(world, &twinlog, &place);
        assert!(format!("{said:?}").contains("foreign_write"), "{said:?}");
        assert_eq!(logs::read(&scene.target, &place).end, end);
    });
}
