//! The target loses the end of a mapped partition's log (an unclean election there): the stored map knows more than the log
//! has, and the copy goes on from where the log ends.

use fake_kafka::world::{self, World};

use crate::sim::model::{Offsets, Place, Says, Side};
use crate::sim::process::Running;
use crate::sim::scene::{Scene, Write, names, says};

/// What happens besides.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Besides {
    Nothing,
    /// Twinlog is dead when the target loses it.
    Dies,
    /// And the brokers have forgotten its producers.
    IsForgotten,
}

fn target_end(scene: &Scene) -> i64 {
    scene.target.cluster.look(|state| {
        let log = state.partition("t", 0).and_then(|it| it.leader_log());
        log.expect("it is led").end_offset()
    })
}

/// The target's log ends with the batch that has this offset.
fn cut_behind(scene: &Scene, offset: i64) -> i64 {
    let end = scene.target.cluster.look(|state| {
        let log = state.partition("t", 0).and_then(|it| it.leader_log());
        let mut batches = log.expect("it is led").batches();
        let batch = batches.find(|it| it.header.last_offset() >= offset);
        batch.expect("it is there").header.last_offset() + 1
    });
    let cluster = &scene.target.cluster;
    cluster.control(|state| state.truncate("t", 0, end));
    end
}

/// A partition of 60 records and 60 transactions is copied by a map that is stored, and loses all behind `offset`.
fn play(world: &mut World, lines: &str, offset: i64, besides: Besides) {
    let mut scene = Scene::new(world, 1, lines);
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let mut twinlog = scene.twinlog(world, "twinlog");
    let old = Write {
        age_ms: 3 * 24 * 3_600_000,
        ..Write::default()
    };
    scene.write(world, Side::Primary, &place, 60, old);
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    let old = Write {
        transaction: Some(true),
        ..old
    };
    for _ in 0..6 {
        // What comes at once is one batch on the target.
        scene.write(world, Side::Primary, &place, 10, old);
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    }
    // The map is stored every five seconds.
    world.run_for(12_000);
    if besides != Besides::Nothing {
        twinlog.process.kill();
    }
    let before = target_end(&scene);
    let cut = cut_behind(&scene, offset);
    assert!(cut < before, "{cut} of {before}");
    if besides == Besides::IsForgotten {
        let cluster = &scene.target.cluster;
        assert!(cluster.control(|state| state.expire_producers()) > 0);
    }
    if besides != Besides::Nothing {
        twinlog = scene.twinlog(world, "twinlog-again");
    }
    scene.write(world, Side::Primary, &place, 10, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 60_000);
    world.run_for(12_000);
    let said = says(world, &twinlog, &place);
    assert!(matches!(said, Says::Copying { lag: Some(0) }), "{said:?}");
    assert_eq!(
        scene.judge_copy(world, &twinlog, &place, Offsets::Mapped, &[]),
        []
    );
    // The map that is stored now is one that the next process can go on with.
    twinlog.process.kill();
    let twinlog = scene.twinlog(world, "twinlog-at-last");
    scene.write(world, Side::Primary, &place, 5, Write::COMMITTED);
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    assert_eq!(
        scene.judge_copy(world, &twinlog, &place, Offsets::Mapped, &[]),
        []
    );
}

#[test]
fn a_mapped_copy_goes_on_where_the_log_ends() {
    for besides in [Besides::Nothing, Besides::Dies, Besides::IsForgotten] {
        for offset in [0, 40, 80, 105] {
            println!("{besides:?}, behind {offset}");
            world::run(1, move |world| {
                play(world, "offsets: mapped", offset, besides)
            });
        }
    }
}

/// The target's names of what is copied, and how many others wrote there.
fn ours(scene: &Scene) -> (Vec<String>, usize) {
    let names = names(&scene.target, &Place::new("t", 0));
    let (ours, strangers): (Vec<String>, Vec<String>) = names
        .into_iter()
        .partition(|name| name.starts_with("Primary"));
    (ours, strangers.len())
}

/// Waits until all is copied, beside so many records of others.
fn must_have_copied(
    world: &mut World,
    scene: &Scene,
    twinlog: &Running,
    strangers: usize,
    seconds: u32,
) {
    let place = Place::new("t", 0);
    let expected = || (names(&scene.source, &place), strangers);
    for _ in 0..seconds {
        world.run_for(1_000);
        if ours(scene) == expected() {
            return;
        }
    }
    panic!("{:?} {:?}", says(world, twinlog, &place), ours(scene));
}

/// A partition to which somebody else wrote 7 records, at 60, and that loses all behind `offset`: so many of them are left.
fn with_strangers(world: &mut World, offset: i64, left: usize) {
    let mut scene = Scene::new(world, 1, "on_foreign_write: map");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 60, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    scene.write(world, Side::Standby, &place, 7, Write::default());
    scene.write(world, Side::Primary, &place, 60, Write::default());
    must_have_copied(world, &scene, &twinlog, 7, 60);
    world.run_for(12_000);
    cut_behind(&scene, offset);
    scene.write(world, Side::Primary, &place, 10, Write::default());
    must_have_copied(world, &scene, &twinlog, left, 60);
    world.run_for(12_000);
    twinlog.process.kill();
    let twinlog = scene.twinlog(world, "twinlog-again");
    scene.write(world, Side::Primary, &place, 10, Write::default());
    must_have_copied(world, &scene, &twinlog, left, 30);
}

#[test]
fn what_others_wrote_and_the_target_lost_is_counted_no_more() {
    for (offset, left) in [(30, 0), (62, 3), (90, 7)] {
        println!("behind {offset}");
        world::run(1, move |world| with_strangers(world, offset, left));
    }
}
