//! Two people at two machines, who don't know of each other: whatever they type at the same time, one plan is carried out,
//! the other is refused, and what is left can be brought to its end.

use fake_kafka::acls::Permission;
use fake_kafka::world::{self, Brokers, Process, World};
use twinlog::cutover::{FenceMode, Options};
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, CutOver, failover_options};
use crate::sim::scene::{Scene, Write, names};

#[derive(Clone, Copy, Debug)]
enum Typed {
    Failover,
    AbortFailover,
    Failback,
    AbortFailback,
    LiftFence,
}

use Typed::{AbortFailback, AbortFailover, Failback, Failover, LiftFence};

/// A command that runs.
enum Running {
    CutOver(Process<CutOver>),
    Lift(Process<process::Lifted>),
}

impl Running {
    /// How it ended, in words.
    fn ended(&self, world: &mut World) -> String {
        match self {
            Self::CutOver(command) => match world.result(command, 300_000) {
                Ok((report, None)) => format!("{:?}", report.state),
                Ok((_, Some(error))) | Err(error) => error.message,
            },
            Self::Lift(command) => match world.result(command, 300_000) {
                Ok(kept) => format!("{kept:?}"),
                Err(error) => error.message,
            },
        }
    }
}

fn type_in(world: &mut World, scene: &Scene, who: &str, typed: Typed, one_way_us: i64) -> Running {
    let text = &scene.text;
    let planned = Options {
        fence: FenceMode::Acl,
        ..failover_options(CutoverKind::Planned)
    };
    let far = |path: &mut fake_kafka::memory::Path| {
        path.to_broker_us += one_way_us;
        path.to_client_us += one_way_us;
    };
    let command = match typed {
        Failover => process::failover(world, who, text, planned),
        AbortFailover => process::abort(world, who, text),
        Failback => process::failback_by_acl(world, who, text),
        AbortFailback => process::abort_back(world, who, text),
        LiftFence => {
            let lift = process::lift_fence(world, who, text);
            world.path(&lift, &scene.target, far);
            return Running::Lift(lift);
        }
    };
    for side in [&scene.source, &scene.target] {
        world.path(&command, side, far);
    }
    Running::CutOver(command)
}

fn denials(brokers: &Brokers) -> usize {
    brokers.cluster.look(|state| {
        let all = state.acls.all.iter();
        all.filter(|acl| acl.permission == Permission::Deny).count()
    })
}

/// The plan that is open on a cluster.
fn open(brokers: &Brokers, key: &str) -> Option<serde_json::Value> {
    let journal = logs::newest(brokers, "__twinlog_state", key)?;
    let journal: serde_json::Value = serde_json::from_str(&journal).expect("a journal is JSON");
    (journal["state"] == "open" || journal["state"] == "aborting").then_some(journal)
}

/// What is left open is brought to its end by what it was begun with.
fn finish(world: &mut World, scene: &Scene) {
    for turn in 0..3 {
        let left = [
            (&scene.source, "cutover/dr~back", [Failback, AbortFailback]),
            (&scene.target, "cutover/dr", [Failover, AbortFailover]),
        ];
        let mut all_done = true;
        for (brokers, key, [goes_on, undoes]) in left {
            let Some(journal) = open(brokers, key) else {
                continue;
            };
            all_done = false;
            let typed = match journal["state"] == "aborting" {
                true => undoes,
                false => goes_on,
            };
            let who = format!("finishes-{turn}-{key}");
            let ended = type_in(world, scene, &who, typed, 0).ended(world);
            world.tell(format!("{typed:?} of {key}: {ended}"));
        }
        if all_done {
            return;
        }
    }
    for (brokers, key) in [
        (&scene.source, "cutover/dr~back"),
        (&scene.target, "cutover/dr"),
    ] {
        let left = open(brokers, key);
        assert!(left.is_none(), "{key} can't be finished: {left:#?}");
    }
}

/// Both type at nearly the same time; `is_failed_over` or not.
fn play(world: &mut World, pair: [Typed; 2], is_failed_over: bool) {
    let mut scene = Scene::new(world, 1, "");
    for brokers in [&scene.source, &scene.target] {
        brokers.cluster.control(|state| {
            state.acls.is_on = true;
            state.acls.super_users.insert("User:ANONYMOUS".to_owned());
        });
    }
    scene.topic("t", 2, 1, &[]);
    let places = [Place::new("t", 0), Place::new("t", 1)];
    scene.twinlog(world, "twinlog");
    for place in &places {
        scene.write(world, Side::Primary, place, 10, Write::default());
    }
    scene.must_copy(world, &places, 30_000);
    world.run_for(12_000);
    if is_failed_over {
        let ended = type_in(world, &scene, "before", Failover, 0).ended(world);
        assert_eq!(ended, "Done");
        for place in &places {
            scene.write(world, Side::Standby, place, 5, Write::default());
        }
        world.run_for(10_000);
    }
    let later_ms = world.random(4_000).cast_signed();
    let one_way_us = [0, 100_000, 400_000][usize::try_from(world.random(3)).expect("small")];
    let one = type_in(world, &scene, "one", pair[0], 0);
    world.run_for(later_ms);
    let other = type_in(world, &scene, "other", pair[1], one_way_us);
    let ended = [one.ended(world), other.ended(world)];
    let told = format!("{pair:?}, {later_ms} ms later, {one_way_us} us away: {ended:#?}");
    println!("{told}");
    finish(world, &scene);
    world.run_for(30_000);
    let primary = scene.role();
    assert_eq!(denials(scene.side(primary)), 0, "{primary:?}: {told}");
    for place in &places {
        scene.write(world, primary, place, 1, Write::default());
        let there = names(scene.side(primary), place);
        let acked = scene.acked.iter().filter(|it| it.place == *place);
        for acked in acked {
            let found = there.iter().filter(|name| **name == acked.name).count();
            assert_eq!(found, 1, "{} on {primary:?}: {there:?} {told}", acked.name);
        }
    }
    if primary == Side::Primary {
        scene.must_copy(world, &places, 60_000);
    }
}

fn each_seed(pairs: &[[Typed; 2]], is_failed_over: bool) {
    for (number, pair) in (1..).zip(pairs) {
        for seed in 1..=3 {
            let pair = *pair;
            world::run(number * 100 + seed, move |world| {
                play(world, pair, is_failed_over)
            });
        }
    }
}

#[test]
fn two_at_a_primary_don_t_get_in_each_other_s_way() {
    let pairs = [
        [Failover, Failover],
        [Failover, AbortFailover],
        [AbortFailover, Failover],
        [Failover, Failback],
        [Failover, LiftFence],
        [LiftFence, Failover],
    ];
    each_seed(&pairs, false);
}

#[test]
fn two_at_a_standby_that_is_the_primary_don_t_get_in_each_other_s_way() {
    let pairs = [
        [Failback, Failback],
        [Failback, AbortFailback],
        [AbortFailback, Failback],
        [Failback, LiftFence],
        [LiftFence, Failback],
        [Failback, Failover],
    ];
    each_seed(&pairs, true);
}

/// Who is far away decides by what he saw, and gets the right to act when the other is through.
#[test]
fn who_waited_for_another_begins_no_second_plan() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        let place = Place::new("t", 0);
        scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 10, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        world.run_for(12_000);
        let options = Options {
            quiet_for: Some(std::time::Duration::from_millis(200)),
            ..failover_options(CutoverKind::Planned)
        };
        let far = process::failover(world, "far", &scene.text, options.clone());
        for side in [&scene.source, &scene.target] {
            world.path(&far, side, |path| {
                (path.to_broker_us, path.to_client_us) = (700_000, 700_000);
            });
        }
        world.run_for(4_000);
        let near = process::failover(world, "near", &scene.text, options);
        let (report, error) = world.result(&near, 60_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let ended = world.result(&far, 120_000);
        assert!(ended.is_err(), "{ended:?}");
        let journal = logs::newest(&scene.target, "__twinlog_state", "cutover/dr");
        let journal = journal.expect("there is a plan");
        assert!(journal.contains(&report.plan.to_string()), "{journal}");
        assert_eq!(scene.role(), Side::Standby);
    });
}
