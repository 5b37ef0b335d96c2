//! A cut-over over a distance takes round trips, not fixed waits: planned failover and failback with either
//! side far away end in order, and from the fence to the promotion it is what it is next door and a few
//! round trips.

use fake_kafka::memory::Path;
use fake_kafka::world::{self, Brokers, Process, World};
use twinlog::cutover::{FenceMode, Options, Report};
use twinlog::state::CutoverKind;

use crate::sim::clients;
use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, CutOver, failover_options};
use crate::sim::scene::{Scene, Write};

const TOPICS: usize = 10;
const PARTITIONS: i32 = 20;
const GROUPS: usize = 20;
const ONE_WAY_US: i64 = 150_000;
const ROUND_TRIP_MS: i64 = 2 * ONE_WAY_US / 1_000;
/// From the fence to the promotion, beyond what it takes next door.
const MOST: i64 = 20;

/// Both ways of one run: from the fence to the promotion.
#[derive(Debug)]
struct Took {
    failover_ms: i64,
    failback_ms: i64,
}

fn places() -> Vec<Place> {
    let topics = 0..TOPICS;
    let of_topic = |topic| (0..PARTITIONS).map(move |at| Place::new(&format!("t{topic}"), at));
    topics.flat_map(of_topic).collect()
}

fn far(path: &mut Path) {
    (path.to_broker_us, path.to_client_us) = (ONE_WAY_US, ONE_WAY_US);
}

fn is_promoted(brokers: &Brokers, key: &str) -> bool {
    let role = logs::newest(brokers, "__twinlog_state", key);
    role.is_some_and(|it| it.contains(r#""primary":"target""#))
}

/// Lets a command go on to its end: how long it was from the fence to the promotion.
fn locked_out_ms(world: &mut World, to: &Brokers, flow: &str, command: &Process<CutOver>) -> i64 {
    let (at, key) = (to.clone(), format!("cutover/{flow}"));
    world.must("it fences", 120_000, move |_| {
        logs::is_begun(&at, &key, "fence")
    });
    let from_ms = world.now_ms();
    let (at, key) = (to.clone(), format!("role/{flow}"));
    world.must("it is the primary", 120_000, move |_| {
        is_promoted(&at, &key)
    });
    let took_ms = world.now_ms() - from_ms;
    let (report, error) = world.result(command, 300_000).expect("it may begin");
    for step in &report.steps {
        println!(
            "  {:<14} {:>6.3} s {}",
            step.step, step.seconds, step.result
        );
    }
    println!(
        "  fence to promotion {took_ms} ms, whole {:.3} s",
        report.seconds
    );
    assert!(error.is_none(), "{error:?} {report:?}");
    in_order(&report);
    took_ms
}

fn in_order(report: &Report) {
    let stop = report.steps.iter().find(|it| it.step == "stop_copying");
    let result = &stop.expect("it stops the copy").result;
    assert_eq!(result, "the copying process has ended in order");
}

/// Fails over and back while `far` is far away from everybody.
fn there_and_back(world: &mut World, far: Option<Side>, fence: FenceMode) -> Took {
    let mut scene = Scene::new(world, 3, "");
    if fence == FenceMode::Acl {
        for brokers in [&scene.source, &scene.target] {
            brokers.cluster.control(|state| {
                state.acls.is_on = true;
                state.acls.super_users.insert("User:ANONYMOUS".to_owned());
            });
        }
    }
    for topic in 0..TOPICS {
        scene.topic(&format!("t{topic}"), PARTITIONS, 1, &[]);
    }
    for brokers in [&scene.source, &scene.target] {
        brokers
            .cluster
            .control(|state| state.create_offsets_topic());
    }
    let places = places();
    scene.twinlog(world, "twinlog");
    for place in &places {
        scene.write(world, Side::Primary, place, 2, Write::default());
    }
    scene.must_copy(world, &places, 60_000);
    for group in 0..GROUPS {
        let source = scene.source.clone();
        let group: &'static str = format!("group-{group}").leak();
        let topic: &'static str = format!("t{}", group.len() % TOPICS).leak();
        let commits = world.process(group, move |ctx| {
            clients::commit_often(ctx, source.clone(), topic, group, 1, 1)
        });
        world.result(&commits, 30_000);
    }
    world.run_for(15_000);
    let far_from = far.map(|side| scene.side(side).clone());
    if let Some(side) = &far_from {
        world.paths(side, self::far);
    }
    world.run_for(15_000);
    let options = Options {
        fence,
        ..failover_options(CutoverKind::Planned)
    };
    let command = process::failover(world, "operator", &scene.text, options);
    if let Some(side) = &far_from {
        world.path(&command, side, self::far);
    }
    let failover_ms = locked_out_ms(world, &scene.target.clone(), "dr", &command);
    assert_eq!(scene.role(), Side::Standby);
    for place in &places {
        scene.write(world, Side::Standby, place, 2, Write::default());
    }
    world.run_for(10_000);
    let command = match fence {
        FenceMode::Acl => process::failback_by_acl(world, "operator-back", &scene.text),
        FenceMode::Manual => process::failback(world, "operator-back", &scene.text, true),
    };
    if let Some(side) = &far_from {
        world.path(&command, side, self::far);
    }
    let failback_ms = locked_out_ms(world, &scene.source.clone(), "dr~back", &command);
    assert_eq!(scene.role(), Side::Primary);
    Took {
        failover_ms,
        failback_ms,
    }
}

fn few_round_trips(far: Side, fence: FenceMode) {
    let near = world::run(1, move |world| there_and_back(world, None, fence));
    let took = world::run(1, move |world| there_and_back(world, Some(far), fence));
    let more = |near_ms: i64, far_ms: i64| (far_ms - near_ms) / ROUND_TRIP_MS;
    let there = more(near.failover_ms, took.failover_ms);
    let back = more(near.failback_ms, took.failback_ms);
    println!("{far:?} far: {there} and {back} round trips more; {near:?}, {took:?}");
    assert!(there <= MOST, "failover: {there} round trips more");
    assert!(back <= MOST, "failback: {back} round trips more");
}

#[test]
fn with_the_standby_far_away_it_takes_a_few_round_trips() {
    few_round_trips(Side::Standby, FenceMode::Manual);
}

#[test]
fn with_the_primary_far_away_it_takes_a_few_round_trips() {
    few_round_trips(Side::Primary, FenceMode::Manual);
}

#[test]
fn the_same_with_a_fence_around_a_near_primary() {
    few_round_trips(Side::Standby, FenceMode::Acl);
}

#[test]
fn the_same_with_a_fence_around_a_far_primary() {
    few_round_trips(Side::Primary, FenceMode::Acl);
}
