//! The standby dies while it is the primary, and the old primary becomes the primary again without it.

use fake_kafka::Options as Cluster;
use fake_kafka::acls::Permission;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, Brokers, Phase, Process, World};
use twinlog::cutover::{FenceMode, Options, Report};
use twinlog::state::{CutoverKind, CutoverState};

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, CutOver, Running, failover_options};
use crate::sim::scene::{Scene, Write, names};

const STATE: &str = "__twinlog_state";
const BACK: &str = "dr~back";
/// What the source has when it is failed over from, what the standby takes then, and what nobody copies.
const BEFORE: u64 = 30;
const COPIED: u64 = 20;
const LOST: u64 = 7;

fn done(ended: CutOver) -> Report {
    let (report, error) = ended.expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    assert_eq!(report.state, CutoverState::Done, "{report:?}");
    report
}

fn denied(brokers: &Brokers) -> usize {
    brokers.cluster.control(|state| {
        let denies = state
            .acls
            .all
            .iter()
            .filter(|acl| acl.permission == Permission::Deny);
        denies.count()
    })
}

fn strict(brokers: &Brokers) {
    brokers.cluster.control(|state| {
        state.acls.is_on = true;
        state.acls.allow_if_no_acl_found = true;
    });
}

fn place() -> Place {
    Place::new("t", 0)
}

/// A standby that is the primary, by a fence of ACLs.
fn failed_over(world: &mut World) -> (Scene, Running) {
    let (mut scene, twinlog, place) = Scene::with_groups(world, 0, "twinlog");
    strict(&scene.source);
    strict(&scene.target);
    scene.write(world, Side::Primary, &place, BEFORE, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(12_000);
    let planned = Options {
        fence: FenceMode::Acl,
        ..failover_options(CutoverKind::Planned)
    };
    let failover = process::failover(world, "operator", &scene.text, planned);
    done(world.result(&failover, 120_000));
    assert!(denied(&scene.source) > 0, "it is fenced");
    (scene, twinlog)
}

/// The same, and what it took since is copied back.
fn copied_back(world: &mut World) -> (Scene, Running) {
    let (mut scene, twinlog) = failed_over(world);
    let back = process::begin_back(world, "operator-back", &scene.text);
    done(world.result(&back, 120_000));
    scene.write(world, Side::Standby, &place(), COPIED, Write::default());
    let source = scene.source.clone();
    world.must("it is copied back", 60_000, move |_| {
        names(&source, &place()).len() as u64 == BEFORE + COPIED
    });
    world.run_for(12_000);
    (scene, twinlog)
}

/// It takes `lost` more that nobody copies, and is gone.
fn die(world: &mut World, scene: &mut Scene, lost: u64) {
    scene.lose_target(world);
    scene.write(world, Side::Standby, &place(), lost, Write::default());
    world.run_for(3_000);
}

/// The old primary takes writes, at offsets that nothing on the standby has.
fn is_the_primary(world: &mut World, scene: &mut Scene) {
    assert_eq!(denied(&scene.source), 0, "nobody is kept away");
    let role = logs::newest(&scene.source, STATE, "role/dr");
    let role = role.expect("it was told");
    assert!(role.contains("\"primary\":\"source\""), "{role}");
    let there = logs::read(&scene.target, &place()).end;
    scene.write(world, Side::Primary, &place(), 1, Write::default());
    let here = logs::read(&scene.source, &place());
    let newest = here.records.last().expect("just written").offset;
    assert!(
        newest >= there,
        "offset {newest} is another record's, below {there}"
    );
}

fn of_partition(report: &Report) -> (Option<u64>, Option<u64>) {
    let account = report.given_up.as_ref().expect("there is an account");
    let of = account.topics["t"][0];
    (of.copied, of.missing)
}

#[test]
fn what_was_copied_back_is_accounted_for_and_the_fence_is_gone() {
    world::run(1, |world| {
        let (mut scene, _twinlog) = copied_back(world);
        die(world, &mut scene, LOST);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        let report = done(world.result(&command, 120_000));
        assert_eq!((&*report.kind, &*report.flow), ("give_up", "dr"));
        assert_eq!(report.primary, "primary");
        let (copied, missing) = of_partition(&report);
        assert_eq!(copied, Some(COPIED), "{report:?}");
        assert!(!report.lost.is_proven, "{report:?}");
        assert!(missing.is_none_or(|it| it >= LOST), "{report:?}");
        is_the_primary(world, &mut scene);

        // It wakes up: what it says of roles counts no more, and nothing of it is copied.
        let before = names(&scene.source, &place());
        scene.find_target(world);
        scene.write(world, Side::Standby, &place(), 5, Write::default());
        world.run_for(30_000);
        assert_eq!(denied(&scene.source), 0, "the primary isn't fenced");
        assert_eq!(names(&scene.source, &place()), before);
        let again = process::failback(world, "operator-late", &scene.text, true);
        let refused = world.result(&again, 120_000).expect_err("it is refused");
        assert!(refused.message.contains("given up"), "{refused:?}");
        assert!(refused.hint.is_some_and(|it| it.contains("anew")));
        // Given up twice is given up once.
        let again = process::give_up(world, "operator-again", &scene.text);
        let report = done(world.result(&again, 120_000));
        assert_eq!(of_partition(&report), (copied, missing));
    });
}

/// The standby hangs, and who copies back lives: it is told to end, and doesn't wait for the standby's answers.
#[test]
fn who_copies_back_from_a_standby_that_hangs_ends_soon() {
    for (seed, for_ms) in (60..).zip([0, 4_000, 30_000]) {
        world::run(seed, move |world| {
            let (mut scene, _twinlog) = copied_back(world);
            die(world, &mut scene, LOST);
            world.run_for(for_ms);
            let command = process::give_up(world, "operator-gives-up", &scene.text);
            let report = done(world.result(&command, 120_000));
            let stop = report.steps.iter().find(|it| it.step == "stop_copying");
            let stop = stop.expect("it stops the copy");
            assert!(stop.seconds <= 3.0, "{for_ms}: {stop:?}");
            is_the_primary(world, &mut scene);
        });
    }
}

/// Done twice it is done once, also while the standby is away.
#[test]
fn given_up_twice_is_given_up_once() {
    world::run(64, |world| {
        let (mut scene, _twinlog) = copied_back(world);
        die(world, &mut scene, LOST);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        let report = done(world.result(&command, 120_000));
        let again = process::give_up(world, "operator-again", &scene.text);
        let twice = done(world.result(&again, 120_000));
        assert_eq!(of_partition(&twice), of_partition(&report));
        is_the_primary(world, &mut scene);
    });
}

/// The command dies behind each of its writes, whatever it was doing.
#[test]
fn it_dies_at_every_moment() {
    world::run(2, |world| {
        let (mut scene, _twinlog) = copied_back(world);
        die(world, &mut scene, LOST);
        let mut report = None;
        for writes in 5..400 {
            let name = format!("operator-{writes}");
            let command = process::give_up(world, &name, &scene.text);
            command.kill_after_writes(writes);
            let watched = command.clone();
            world.must("it ends or dies", 120_000, move |_| {
                matches!(watched.phase(), Phase::Ended | Phase::Killed)
            });
            if command.phase() == Phase::Ended {
                let ended = command.take_result().expect("it ended");
                report = Some(done(ended.expect("it didn't panic")));
                break;
            }
        }
        let report = report.expect("it comes to its end");
        assert_eq!(of_partition(&report).0, Some(COPIED), "{report:?}");
        is_the_primary(world, &mut scene);
    });
}

#[test]
fn nothing_was_copied_back_and_nobody_can_say_what_is_missing() {
    world::run(3, |world| {
        let (mut scene, _twinlog) = failed_over(world);
        die(world, &mut scene, LOST);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        let report = done(world.result(&command, 120_000));
        assert_eq!(of_partition(&report), (Some(0), None), "{report:?}");
        assert!(report.lost.unknown_partitions > 0, "{report:?}");
        assert!(!report.lost.is_proven, "{report:?}");
        assert_eq!(denied(&scene.source), 0);
        scene.find_target(world);
        world.run_for(30_000);
        assert_eq!(denied(&scene.source), 0, "the primary isn't fenced");
    });
}

/// The failback has come to `step` when the standby dies.
fn dies_in(world: &mut World, step: &'static str, lost: u64) -> Scene {
    let (mut scene, _twinlog) = copied_back(world);
    let text = scene.text.clone();
    let command = process::failback_by_acl(world, "operator-back-2", &text);
    dies_while(world, &mut scene, command, step, lost);
    scene
}

fn dies_while(
    world: &mut World,
    scene: &mut Scene,
    command: Process<CutOver>,
    step: &'static str,
    lost: u64,
) {
    for brokers in [&scene.source, &scene.target] {
        world.path(&command, brokers, |path| {
            path.to_broker_us = 15_000;
            path.to_client_us = 15_000;
        });
    }
    let source = scene.source.clone();
    world.must("it has begun the step", 120_000, move |_| {
        let journal = logs::newest(&source, STATE, &format!("cutover/{BACK}"));
        journal.is_some_and(|it| it.contains(&format!("\"step\":\"{step}\",\"state\":\"doing\"")))
    });
    command.kill();
    die(world, scene, lost);
}

#[test]
fn it_is_given_up_at_every_step_of_a_failback() {
    let steps = ["copy_back", "fence", "stop_copying", "forks", "release"];
    for (seed, step) in (10..).zip(steps) {
        world::run(seed, move |world| {
            let mut scene = dies_in(world, step, 0);
            let command = process::give_up(world, "operator-gives-up", &scene.text);
            let report = done(world.result(&command, 120_000));
            assert_eq!(of_partition(&report).0, Some(COPIED), "{step}: {report:?}");
            let is_drained = ["stop_copying", "forks", "release"].contains(&step);
            assert_eq!(report.lost.is_proven, is_drained, "{step}: {report:?}");
            is_the_primary(world, &mut scene);
        });
    }
}

#[test]
fn what_is_handed_back_is_finished_and_nothing_is_missing() {
    for (seed, step) in (20..).zip(["unfence", "promote"]) {
        world::run(seed, move |world| {
            let mut scene = dies_in(world, step, 0);
            // Clients that are quick.
            scene.write(world, Side::Primary, &place(), 3, Write::default());
            let command = process::give_up(world, "operator-gives-up", &scene.text);
            let report = done(world.result(&command, 120_000));
            assert!(report.lost.is_proven, "{step}: {report:?}");
            assert_eq!(of_partition(&report), (Some(COPIED), Some(0)), "{step}");
            is_the_primary(world, &mut scene);
        });
    }
}

/// Nobody kept clients from the standby then: what it took behind the proof is nowhere else.
#[test]
fn what_is_handed_back_without_a_fence_is_no_proof() {
    world::run(22, |world| {
        let (mut scene, _twinlog) = copied_back(world);
        let text = scene.text.clone();
        let command = process::failback(world, "operator-back-2", &text, false);
        dies_while(world, &mut scene, command, "unfence", LOST);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        let report = done(world.result(&command, 120_000));
        assert!(!report.lost.is_proven, "{report:?}");
        assert_eq!(of_partition(&report), (Some(COPIED), None), "{report:?}");
        assert!(report.lost.unknown_partitions > 0, "{report:?}");
    });
}

/// Nothing had come for long when it was seen last, and much came before the standby died.
#[test]
fn a_quiet_partition_is_padded_as_one_of_which_nobody_knows() {
    world::run(41, |world| {
        let (mut scene, _twinlog) = copied_back(world);
        world.run_for(60_000);
        die(world, &mut scene, 600);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        let report = done(world.result(&command, 120_000));
        assert_eq!(of_partition(&report).1, None, "{report:?}");
        is_the_primary(world, &mut scene);
    });
}

/// Its clients would go on to write there.
#[test]
fn a_standby_that_answers_is_not_given_up() {
    world::run(42, |world| {
        let (scene, _twinlog) = copied_back(world);
        let before = denied(&scene.source);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        let refused = world.result(&command, 120_000).expect_err("it is refused");
        assert!(refused.message.contains("answers"), "{refused:?}");
        let role = logs::newest(&scene.source, STATE, "role/dr").expect("it was told");
        assert!(role.contains("\"primary\":\"target\""), "{role}");
        assert_eq!(denied(&scene.source), before);
    });
}

/// The standby was given up and wakes, and the old primary's state is slow to read.
#[test]
fn who_wakes_fences_nobody_before_it_knows() {
    for (seed, is_silent) in (43..).zip([false, true]) {
        world::run(seed, move |world| {
            let (mut scene, twinlog) = copied_back(world);
            die(world, &mut scene, LOST);
            let command = process::give_up(world, "operator-gives-up", &scene.text);
            done(world.result(&command, 120_000));
            twinlog.process.kill();
            let slow = match is_silent {
                true => Action::Swallow,
                false => Action::Delay(8_000),
            };
            let state = Fault::on(ApiKey::Fetch).topic(STATE);
            let source = scene.source.cluster.clone();
            let fault = source.fault(state, slow);
            scene.find_target(world);
            let awake = scene.twinlog(world, "twinlog-awake");
            for _ in 0..25 {
                world.run_for(1_000);
                assert_eq!(denied(&scene.source), 0, "the primary isn't fenced");
            }
            source.control(|at| at.faults.clear(fault));
            world.run_for(90_000);
            assert_eq!(denied(&scene.source), 0, "the primary isn't fenced");
            let role = logs::newest(&scene.source, STATE, "role/dr").expect("it was told");
            assert!(role.contains("\"primary\":\"source\""), "{role}");
            let told = awake.status(world);
            let role = told.flows[0].role.as_ref().expect("it has one");
            assert_eq!(role.old_primary, "given_up");
        });
    }
}

#[test]
fn past_the_point_of_no_return_it_is_refused() {
    world::run(30, |world| {
        let scene = dies_in(world, "resume", 0);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        let refused = world.result(&command, 120_000).expect_err("it is refused");
        assert!(refused.loses_data, "{refused:?}");
        let hint = refused.hint.expect("it names the way out");
        assert!(
            hint.contains("twinlog failback") && hint.contains("anew"),
            "{hint}"
        );
        assert_eq!(denied(&scene.source), 0);
    });
}

/// Who was never failed over from has nothing to give up.
#[test]
fn without_a_failover_there_is_nothing_to_give_up() {
    world::run(31, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        strict(&scene.source);
        scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place(), BEFORE, Write::default());
        scene.must_copy(world, &[place()], 30_000);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        let refused = world.result(&command, 120_000).expect_err("it is refused");
        assert!(refused.message.contains("is the primary"), "{refused:?}");
    });
}

/// A standby that is built anew in the place of the dead one is copied, and failed over to.
fn fail_over_to_another(world: &mut World, scene: &mut Scene) -> Report {
    scene.target = world.cluster("rebuilt", Cluster::default());
    strict(&scene.target);
    scene
        .target
        .cluster
        .control(|state| state.create_offsets_topic());
    scene.text = process::config(&scene.source, &scene.target, "");
    scene.twinlog(world, "twinlog-anew");
    scene.must_copy(world, &[place()], 60_000);
    world.run_for(12_000);
    let planned = Options {
        fence: FenceMode::Acl,
        ..failover_options(CutoverKind::Planned)
    };
    let failover = process::failover(world, "operator-anew", &scene.text, planned);
    let report = done(world.result(&failover, 120_000));
    world.run_for(10_000);
    report
}

/// A standby that is built anew begins anew: copied, failed over to and back from as the first one.
#[test]
fn a_standby_that_is_built_anew_begins_anew() {
    world::run(40, |world| {
        let (mut scene, twinlog) = copied_back(world);
        twinlog.process.kill();
        die(world, &mut scene, LOST);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        done(world.result(&command, 120_000));
        scene.write(world, Side::Primary, &place(), 3, Write::default());

        let report = fail_over_to_another(world, &mut scene);
        assert!(report.lost.is_proven, "{report:?}");
        assert!(denied(&scene.source) > 0, "it is fenced as ever");
        scene.write(world, Side::Standby, &place(), 4, Write::default());
        let failback = process::failback_by_acl(world, "operator-back-anew", &scene.text);
        let report = done(world.result(&failback, 300_000));
        assert!(report.lost.is_proven, "{report:?}");
        assert_eq!(denied(&scene.source), 0);
        let here = names(&scene.source, &place());
        assert_eq!(here.len() as u64, BEFORE + COPIED + 3 + 4, "{here:?}");
        scene.write(world, Side::Primary, &place(), 2, Write::default());
        scene.must_copy(world, &[place()], 60_000);
    });
}

/// The given-up standby wakes when a new one has been failed over to, whose fence looks like its own.
#[test]
fn a_late_waker_leaves_the_new_standbys_fence() {
    world::run(45, |world| {
        let (mut scene, twinlog) = copied_back(world);
        twinlog.process.kill();
        die(world, &mut scene, LOST);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        done(world.result(&command, 120_000));
        let (old, old_text) = (scene.target.clone(), scene.text.clone());

        fail_over_to_another(world, &mut scene);
        let fence = denied(&scene.source);
        assert!(fence > 0, "it is fenced");

        let gone = std::mem::replace(&mut scene.target, old);
        scene.find_target(world);
        scene.target = gone;
        let awake = process::run(world, "twinlog-awake", &old_text);
        let source = scene.source.clone();
        for _ in 0..60 {
            world.run_for(1_000);
            assert_eq!(denied(&source), fence, "it stays fenced");
        }
        let told = awake.status(world);
        let role = told.flows[0].role.as_ref().expect("it has one");
        assert_eq!(role.old_primary, "given_up");
    });
}

/// Who copies back is frozen with something in hand, and wakes up when clients write to the old primary again.
#[test]
fn a_copier_that_was_frozen_appends_nothing_when_it_wakes() {
    for seed in 50..54 {
        world::run(seed, move |world| {
            let (mut scene, twinlog) = copied_back(world);
            scene.write(world, Side::Standby, &place(), 40, Write::default());
            // It has asked for them, has them, or has sent some, each time another.
            world.run_for(i64::try_from(seed - 50).expect("small") + 1);
            twinlog.process.freeze();
            die(world, &mut scene, LOST);
            let command = process::give_up(world, "operator-gives-up", &scene.text);
            let report = done(world.result(&command, 120_000));
            let told = report.for_the_operator.join("\n");
            assert!(told.contains("gave no sign"), "{told}");
            let copied = names(&scene.source, &place());
            scene.write(world, Side::Primary, &place(), 5, Write::default());
            scene.find_target(world);
            twinlog.process.thaw();
            world.run_for(30_000);
            let here = names(&scene.source, &place());
            assert_eq!(here.len(), copied.len() + 5, "seed {seed}: {here:?}");
            assert_eq!(here[..copied.len()], copied, "seed {seed}");
            assert_eq!(denied(&scene.source), 0, "the primary isn't fenced");
        });
    }
}

/// Connecting and asking takes some round trips: one that lives far away isn't gone.
#[test]
fn a_standby_that_is_far_away_is_not_given_up() {
    world::run(1, |world| {
        let (scene, _twinlog) = failed_over(world);
        let command = process::give_up(world, "operator-gives-up", &scene.text);
        world.path(&command, &scene.target, |path| {
            (path.to_broker_us, path.to_client_us) = (250_000, 250_000);
        });
        let error = world
            .result(&command, 120_000)
            .expect_err("nothing is begun");
        assert!(error.message.contains("standby answers"), "{error:?}");
        assert!(denied(&scene.source) > 0, "nothing was changed");
    });
}
