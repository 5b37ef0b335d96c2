//! The disaster has taken a broker of the standby along.

use fake_kafka::Options;
use fake_kafka::world::{self, World};
use twinlog::state::CutoverKind;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// How the second broker of the standby goes.
#[derive(Clone, Copy, PartialEq)]
enum Gone {
    Dead,
    Hung,
}

/// Four topics; of one only the standby's second broker has all. The source is lost and so is that broker.
fn play(world: &mut World, gone: Gone) -> (Scene, String, String, i32) {
    let options = |brokers| Options {
        brokers,
        ..Options::default()
    };
    let mut scene = Scene::with(world, options(2), options(2), "");
    let topics = ["t0", "t1", "t2", "t3"];
    for topic in topics {
        scene.topic(topic, 1, 2, &[]);
    }
    scene.twinlog(world, "twinlog");
    for topic in topics {
        let place = Place::new(topic, 0);
        scene.write(world, Side::Primary, &place, 20, Write::default());
    }
    let places = topics.map(|topic| Place::new(topic, 0));
    scene.must_copy(world, &places, 30_000);
    world.run_for(12_000);
    scene.lose_source(world);
    let (kept, lost, broker) = scene.target.cluster.control(|state| {
        let at = state.partition("__twinlog_state", 0);
        let stays = at.and_then(|it| it.leader).expect("it is led");
        let other = 3 - stays;
        for topic in &topics[1..] {
            state.move_leader(topic, 0, stays);
        }
        state.move_leader("t0", 0, other);
        state.lag("t0", 0, stays);
        state.shrink_in_sync("t0", 0);
        let (kept, lost) = ("t1".to_owned(), "t0".to_owned());
        match gone {
            Gone::Dead => state.stop_broker(other),
            Gone::Hung => state.freeze_broker(other),
        }
        (kept, lost, other)
    });
    (scene, kept, lost, broker)
}

fn goes_on(gone: Gone, within_ms: i64) {
    world::run(1, move |world| {
        let (scene, kept, lost, broker) = play(world, gone);
        let unplanned = failover_options(CutoverKind::Unplanned);
        let began_ms = world.now_ms();
        let failover = process::failover(world, "operator", &scene.text, unplanned);
        if gone == Gone::Hung {
            // Its controller notices (`broker.session.timeout.ms`), and it is in sync no more.
            world.run_for(9_000);
            let cluster = &scene.target.cluster;
            cluster.control(|state| state.fence_broker(broker));
        }
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let took_ms = world.now_ms() - began_ms;
        assert!(took_ms < within_ms, "{took_ms} ms");
        let said = format!("{report:?}");
        assert!(said.contains("left out") && said.contains(&lost), "{said}");
        let role = crate::sim::logs::newest(&scene.target, "__twinlog_state", "role/dr");
        let role = role.expect("there is one");
        assert!(role.contains(&kept) && !role.contains(&lost), "{role}");
        // What was left out follows when its broker is back.
        scene.target.cluster.control(|state| match gone {
            Gone::Dead => state.start_broker(broker),
            Gone::Hung => state.thaw_broker(broker),
        });
        world.run_for(5_000);
        let unplanned = failover_options(CutoverKind::Unplanned);
        let again = process::failover(world, "operator-again", &scene.text, unplanned);
        let (report, error) = world.result(&again, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let fork =
            crate::sim::logs::newest(&scene.target, "__twinlog_state", &format!("fork/dr/{lost}"));
        assert!(fork.is_some(), "{lost} has a fork");
    });
}

#[test]
fn an_unplanned_failover_goes_on_without_a_topic_that_nobody_leads() {
    goes_on(Gone::Dead, 40_000);
}

#[test]
fn a_broker_that_hangs_costs_an_unplanned_failover_seconds() {
    goes_on(Gone::Hung, 60_000);
}
