//! A broker of the standby goes away when the forks are recorded already.

use fake_kafka::Options;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};
use twinlog::cutover::Report;
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

const TOPICS: [&str; 4] = ["t0", "t1", "t2", "t3"];

/// How the second broker goes.
#[derive(Clone, Copy, PartialEq)]
enum Gone {
    Dead,
    Hung,
    Not,
    /// It refuses the markers of `t0`, for too few are in sync.
    Refuses,
}

/// Of `t0` only the standby's second broker has all.
fn play(world: &mut World, gone: Gone) -> (Scene, Report, i64) {
    let options = |brokers| Options {
        brokers,
        ..Options::default()
    };
    let mut scene = Scene::with(world, options(2), options(2), "");
    for topic in TOPICS {
        scene.topic(topic, 1, 2, &[]);
    }
    let twinlog = scene.twinlog(world, "twinlog");
    for topic in TOPICS {
        let place = Place::new(topic, 0);
        scene.write(world, Side::Primary, &place, 20, Write::default());
    }
    let places = TOPICS.map(|topic| Place::new(topic, 0));
    scene.must_copy(world, &places, 30_000);
    world.run_for(12_000);
    scene.lose_source(world);
    twinlog.process.kill();
    let broker = scene.target.cluster.control(|state| {
        let at = state.partition("__twinlog_state", 0);
        let stays = at.and_then(|it| it.leader).expect("it is led");
        for topic in &TOPICS[1..] {
            state.move_leader(topic, 0, stays);
        }
        state.move_leader("t0", 0, 3 - stays);
        state.lag("t0", 0, stays);
        state.shrink_in_sync("t0", 0);
        3 - stays
    });
    let began_ms = world.now_ms();
    let unplanned = failover_options(CutoverKind::Unplanned);
    let failover = process::failover(world, "operator", &scene.text, unplanned);
    let target = scene.target.clone();
    world.must("the forks are recorded", 60_000, move |_| {
        logs::newest(&target, "__twinlog_state", "fork/dr/t0").is_some()
    });
    let cluster = scene.target.cluster.clone();
    match gone {
        Gone::Dead => cluster.control(|state| state.stop_broker(broker)),
        Gone::Hung => {
            cluster.control(|state| state.freeze_broker(broker));
            // Its controller notices (`broker.session.timeout.ms`).
            world.run_for(9_000);
            cluster.control(|state| state.fence_broker(broker));
        }
        Gone::Not => {}
        Gone::Refuses => {
            let fault = Fault::on(ApiKey::WriteTxnMarkers).partition("t0", 0);
            let refused = Action::Refuse(ResponseError::NotEnoughReplicas);
            cluster.fault(fault, refused);
        }
    }
    let (report, error) = world.result(&failover, 240_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    let took_ms = world.now_ms() - began_ms;
    (scene, report, took_ms)
}

fn end(scene: &Scene, topic: &str) -> i64 {
    scene.target.cluster.control(|state| {
        let found = state.partition(topic, 0).and_then(|it| it.leader_log());
        found.expect("it is led").end_offset()
    })
}

fn goes_on(gone: Gone) {
    world::run(1, move |world| {
        let (scene, report, took_ms) = play(world, gone);
        assert!(took_ms < 90_000, "{took_ms} ms");
        assert_eq!(scene.role(), Side::Standby);
        let told: Vec<&String> = report.for_the_operator.iter().collect();
        let is_named = |it: &&String| it.contains("couldn't be padded") && it.contains("t0-0");
        assert_eq!(told.iter().any(is_named), gone != Gone::Not, "{told:#?}");
        for topic in &TOPICS[1..] {
            let end = end(&scene, topic);
            assert!(end > 20, "{topic} is padded: {end}");
        }
        if gone == Gone::Refuses {
            // `t0` has the marker that bars the frozen Twinlog, from before it refused.
            let padded: i64 = TOPICS.iter().map(|topic| end(&scene, topic) - 20).sum();
            let told = report.padding.map(|it| it.markers);
            assert_eq!(told, u64::try_from(padded).ok(), "{report:#?}");
        }
    });
}

#[test]
fn padding_goes_on_without_a_partition_that_nobody_leads_any_more() {
    goes_on(Gone::Dead);
}

#[test]
fn padding_goes_on_without_a_broker_that_hangs() {
    goes_on(Gone::Hung);
}

#[test]
fn markers_that_are_refused_are_no_padding() {
    goes_on(Gone::Refuses);
}

#[test]
fn with_all_brokers_all_is_padded() {
    goes_on(Gone::Not);
}
