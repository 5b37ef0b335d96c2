//! What the source has and the standby doesn't at all, and what the source hasn't any more: both are told from each other
//! when the source is lost.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::topics::NewTopic;
use fake_kafka::world::{self, World};
use twinlog::cutover::{AcceptedLoss, Options};
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, CutOver, failover_options};
use crate::sim::scene::{Scene, Write, names};

const STATE: &str = "__twinlog_state";

fn unplanned(world: &mut World, scene: &Scene, name: &str, accept_loss: AcceptedLoss) -> CutOver {
    let options = Options {
        accept_loss,
        ..failover_options(CutoverKind::Unplanned)
    };
    let command = process::failover(world, name, &scene.text, options);
    world.result(&command, 120_000)
}

/// Topic `t` is copied; `b` has another number of partitions on the standby.
fn refused(world: &mut World) -> Scene {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    scene.topic("b", 1, 1, &[]);
    scene.target.cluster.control(|state| {
        let new = NewTopic {
            partitions: 2,
            replication: 1,
            ..NewTopic::default()
        };
        state.create_topic("b", &new).expect("it can be made");
    });
    scene.twinlog(world, "twinlog");
    let (copied, other) = (Place::new("t", 0), Place::new("b", 0));
    scene.write(world, Side::Primary, &copied, 20, Write::default());
    scene.write(world, Side::Primary, &other, 100, Write::default());
    scene.must_copy(world, &[copied], 30_000);
    let target = scene.target.clone();
    world.must("its end is known", 60_000, move |_| {
        let ends = logs::newest(&target, STATE, "ends/dr/b");
        ends.is_some_and(|ends| ends.contains("[100]"))
    });
    world.run_for(15_000);
    scene
}

#[test]
fn what_is_not_copied_at_all_is_lost() {
    world::run(1, |world| {
        let scene = refused(world);
        scene.lose_source(world);
        world.run_for(3_000);
        let few = AcceptedLoss::Records(50);
        let error = unplanned(world, &scene, "operator", few).expect_err("100 are lost");
        assert!(
            error.loses_data && error.message.contains("100"),
            "{error:?}"
        );
        let (report, error) =
            unplanned(world, &scene, "again", AcceptedLoss::Any).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let lost = report.lost.topics.get("b").map(|it| it.records);
        assert_eq!(lost, Some(100), "{report:#?}");
        let told = report.for_the_operator.join("\n");
        assert!(
            told.contains("weren't copied") && told.contains('b'),
            "{told}"
        );
    });
}

#[test]
fn a_topic_that_was_never_copied_and_is_gone_is_no_loss() {
    world::run(1, |world| {
        let scene = refused(world);
        scene.source.cluster.control(|state| {
            state.delete_topic("b");
        });
        world.run_for(30_000);
        scene.lose_source(world);
        world.run_for(3_000);
        let none = AcceptedLoss::Records(0);
        let (report, error) = unplanned(world, &scene, "operator", none).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
    });
}

/// A look at the source's ends is under way while it is noted that the topic is gone, and writes behind that.
#[test]
fn what_is_seen_of_a_topic_while_it_is_forgotten_is_forgotten_too() {
    world::run(1, |world| {
        let mut scene = refused(world);
        let other = Place::new("b", 0);
        for _ in 0..30 {
            scene.write(world, Side::Primary, &other, 50, Write::default());
            world.run_for(1_000);
        }
        let late = Fault::on(ApiKey::Produce).partition(STATE, 0);
        let late = scene.target.cluster.fault(late, Action::AnswerLate(5_000));
        scene.source.cluster.control(|state| {
            state.delete_topic("b");
        });
        world.run_for(30_000);
        scene.target.cluster.clear(late);
        world.run_for(15_000);
        scene.lose_source(world);
        world.run_for(3_000);
        let none = AcceptedLoss::Records(0);
        let (report, error) = unplanned(world, &scene, "operator", none).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
    });
}

/// It was written to until it was deleted, and its rate was high.
#[test]
fn a_copied_topic_that_is_gone_is_no_loss() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        for topic in ["t", "x"] {
            scene.topic(topic, 1, 1, &[]);
        }
        scene.twinlog(world, "twinlog");
        let places = ["t", "x"].map(|topic| Place::new(topic, 0));
        for place in &places {
            scene.write(world, Side::Primary, place, 20, Write::default());
        }
        for _ in 0..100 {
            scene.write(world, Side::Primary, &places[1], 50, Write::default());
            world.run_for(100);
        }
        scene.must_copy(world, &places, 30_000);
        scene.source.cluster.control(|state| {
            state.delete_topic("x");
        });
        let target = scene.target.clone();
        world.must("it is noted", 60_000, move |_| {
            logs::newest(&target, STATE, "gone/dr/x").is_some()
        });
        world.run_for(15_000);
        scene.lose_source(world);
        world.run_for(5_000);
        let none = AcceptedLoss::Records(0);
        let (report, error) = unplanned(world, &scene, "operator", none).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
    });
}

#[test]
fn a_topic_that_was_deleted_does_not_come_back_by_a_failback() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        let places = ["t", "x"].map(|topic| Place::new(topic, 0));
        for place in &places {
            scene.topic(&place.topic, 1, 1, &[]);
        }
        scene.twinlog(world, "twinlog");
        for place in &places {
            scene.write(world, Side::Primary, place, 20, Write::default());
        }
        scene.must_copy(world, &places, 30_000);
        scene.source.cluster.control(|state| {
            state.delete_topic("x");
        });
        let target = scene.target.clone();
        world.must("it is noted", 60_000, move |_| {
            logs::newest(&target, STATE, "gone/dr/x").is_some()
        });
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned);
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        scene.write(world, Side::Standby, &places[0], 5, Write::default());
        let back = process::failback(world, "operator-back", &scene.text, false);
        let (report, error) = world.result(&back, 240_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let is_back = |state: &mut fake_kafka::State| state.partition("x", 0).is_some();
        assert!(
            !scene.source.cluster.control(is_back),
            "it was deleted there"
        );
        assert!(scene.target.cluster.control(is_back), "its copy is kept");
    });
}

/// The process was about to delete the copy of a topic that is gone when it was frozen. Meanwhile clients write there.
#[test]
fn a_copy_that_was_failed_over_meanwhile_is_not_deleted() {
    world::run(1, |world| {
        let lines = "discovery_interval: 200ms\non_delete: { mode: delete, grace: 5s }";
        let mut scene = Scene::new(world, 1, lines);
        for topic in ["t", "x"] {
            scene.topic(topic, 1, 1, &[]);
        }
        let twinlog = scene.twinlog(world, "twinlog");
        let places = ["t", "x"].map(|topic| Place::new(topic, 0));
        for place in &places {
            scene.write(world, Side::Primary, place, 20, Write::default());
        }
        scene.must_copy(world, &places, 30_000);
        world.run_for(12_000);
        scene.source.cluster.control(|state| {
            state.delete_topic("x");
        });
        let target = scene.target.clone();
        world.must("it is noted", 60_000, move |_| {
            logs::newest(&target, STATE, "gone/dr/x").is_some()
        });
        let asked = Fault::on(ApiKey::Metadata).topic("x").times(1);
        let asked = scene.target.cluster.fault(asked, Action::Hold);
        let target = scene.target.clone();
        world.must("it is about to be deleted", 60_000, move |_| {
            target.cluster.fired(asked) > 0
        });
        twinlog.process.freeze();
        scene.target.cluster.clear(asked);
        scene.lose_source(world);
        let (report, error) =
            unplanned(world, &scene, "operator", AcceptedLoss::Any).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        scene.write(world, Side::Standby, &places[1], 3, Write::default());
        scene.find_source(world);
        twinlog.process.thaw();
        world.run_for(30_000);
        assert_eq!(names(&scene.target, &places[1]).len(), 23);
    });
}
