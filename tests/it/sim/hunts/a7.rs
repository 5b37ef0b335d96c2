//! The owner is frozen with a fetched answer in its socket, while the source is lost and failed over from.

use std::collections::BTreeSet;

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, Phase, World};
use twinlog::cutover::{self, AcceptedLoss, Options};
use twinlog::state::CutoverKind;

use crate::sim::expected::holds;
use crate::sim::logs;
use crate::sim::model::{Case, Expected, Offsets, Place, Record, Says, Side, Violation, judge};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// What comes before the failover that is carried out.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// One that is refused, for it may lose more than is accepted, and is undone.
    Refused,
    /// The same, and somebody else has the flow then who never sees the source.
    Succeeded,
}

/// `wakes`: the frozen owner goes on behind the failover; else it never does.
fn play(world: &mut World, wakes: bool, before: Before) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 50, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(12_000);
    if before != Before::Nothing {
        // It goes on being written to, as far as anybody knows.
        for _ in 0..30 {
            scene.write(world, Side::Primary, &place, 20, Write::default());
            world.run_for(200);
        }
    }
    twinlog.process.freeze();
    world.run_for(10);
    // The waiting fetch is answered into its socket.
    scene.write_batch(world, Side::Primary, &place, 100, Write::default());
    world.run_for(50);
    scene.lose_source(world);
    if before != Before::Nothing {
        let options = Options {
            accept_loss: AcceptedLoss::Records(0),
            ..failover_options(CutoverKind::Unplanned)
        };
        refuse_and_undo(world, &scene, options);
    }
    if before == Before::Succeeded {
        succeed(world, &scene);
    }
    let failover = process::failover(
        world,
        "operator",
        &scene.text,
        failover_options(CutoverKind::Unplanned),
    );
    let (report, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    let copied = logs::read(&scene.target, &place);
    scene.write(world, Side::Standby, &place, 20, Write::default());
    if wakes {
        twinlog.process.thaw();
    } else {
        twinlog.process.kill();
    }
    world.run_for(15_000);
    judge(&new_primary(&scene, &place, copied.records))
}

/// Somebody has the flow for a while, and the source doesn't tell where `t` ends.
fn succeed(world: &mut World, scene: &Scene) {
    for key in [ApiKey::Fetch, ApiKey::ListOffsets] {
        let silent = Fault::on(key).partition("t", 0);
        scene.source.cluster.fault(silent, Action::Swallow);
    }
    scene.find_source(world);
    let before = logs::newest(&scene.target, "__twinlog_state", "claim/dr");
    let second = scene.twinlog(world, "second");
    let target = scene.target.clone();
    world.must("it has claimed the flow", 60_000, move |_| {
        logs::newest(&target, "__twinlog_state", "claim/dr") != before
    });
    world.run_for(3_000);
    second.process.stop();
    world.run_for(30_000);
    assert_eq!(second.process.phase(), Phase::Ended);
    scene.lose_source(world);
}

/// A failover that comes as far as its step `bound`, and is undone.
fn refuse_and_undo(world: &mut World, scene: &Scene, options: Options) {
    let text = scene.text.clone();
    let refused = world.process("refused", move |ctx| {
        let (config, options) = (process::read(&ctx, &text), options.clone());
        async move {
            let (flow, source, target) = process::only_flow(&config);
            let mut plan = cutover::look(flow, source, target, options).await?;
            // As if it had come while this one was decided.
            plan.checks.retain(|check| check.subject != "loss");
            cutover::apply(plan, std::sync::Arc::new(|_: &str| {})).await
        }
    });
    let (_, error) = world.result(&refused, 120_000).expect("it may begin");
    assert!(error.is_some_and(|error| error.loses_data));
    let undone = process::abort(world, "undone", &scene.text);
    let (report, error) = world.result(&undone, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
}

/// What was copied, then what clients wrote there; nothing else of the source's any more.
fn new_primary(scene: &Scene, place: &Place, copied: Vec<Record>) -> Case {
    let names: BTreeSet<&str> = copied.iter().map(|it| it.name.as_str()).collect();
    let late = scene.acked.iter().filter(|it| it.side == Side::Primary);
    let barred = late
        .filter(|it| !names.contains(it.name.as_str()))
        .map(|it| it.name.clone())
        .collect();
    let found = logs::read(&scene.target, place);
    let own = scene.acked.iter().filter(|it| it.side == Side::Standby);
    let own: BTreeSet<&str> = own.map(|it| it.name.as_str()).collect();
    let own = found
        .records
        .iter()
        .filter(|it| own.contains(it.name.as_str()));
    let expected = copied.iter().chain(own).map(|record| Expected {
        record: record.clone(),
        may_lack: false,
    });
    Case {
        place: place.clone(),
        offsets: Offsets::Identical,
        says: Says::Copying { lag: Some(0) },
        excuses: BTreeSet::new(),
        expected: expected.collect(),
        strangers: BTreeSet::new(),
        barred,
        found,
    }
}

#[test]
fn a_frozen_owner_appends_nothing_to_the_new_primary() {
    for seed in crate::sim::seeds(5) {
        holds(
            "it wakes up",
            &world::run(seed, |world| play(world, true, Before::Nothing)),
        );
    }
}

#[test]
fn it_is_barred_by_the_plan_behind_one_that_was_undone() {
    for seed in crate::sim::seeds(3) {
        let found = world::run(seed, |world| play(world, true, Before::Refused));
        holds("it wakes up", &found);
    }
}

/// Who comes behind it gives the flow back without having seen the source: what the frozen one has may still come.
#[test]
fn it_is_barred_behind_somebody_who_has_not_seen_the_source() {
    for seed in crate::sim::seeds(3) {
        let found = world::run(seed, |world| play(world, true, Before::Succeeded));
        holds("it wakes up", &found);
    }
}

#[test]
fn an_owner_that_never_wakes_up_appends_nothing() {
    for seed in crate::sim::seeds(3) {
        holds(
            "it never wakes up",
            &world::run(seed, |world| play(world, false, Before::Nothing)),
        );
    }
}
