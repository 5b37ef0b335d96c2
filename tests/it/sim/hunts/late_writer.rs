//! A producer that no ACL binds writes to the old primary some time after the promotion.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world;
use twinlog::state::CutoverKind;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// Who answers for the old primary when the report is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Itself,
    Nobody,
    AnotherCluster,
}

/// Whether somebody runs who counts it. How many records the report names.
fn named(is_counted: bool, answers: Answers) -> u64 {
    world::run(1, move |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        let place = Place::new("t", 0);
        let twinlog = scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 20, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned);
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        assert!(report.lost.is_proven, "{report:?}");
        if !is_counted {
            twinlog.process.kill();
        }
        world.run_for(5_000);
        scene.write(world, Side::Primary, &place, 3, Write::default());
        world.run_for(20_000);
        match answers {
            Answers::Itself => {}
            Answers::Nobody => scene.lose_source(world),
            Answers::AnotherCluster => {
                let other = Action::OtherCluster("another".to_owned());
                let cluster = &scene.source.cluster;
                cluster.fault(Fault::on(ApiKey::Metadata), other);
            }
        }
        let looked = process::last_report(world, "operator-later", &scene.text);
        let report = world.result(&looked, 60_000).expect("there is a plan");
        if report.lost.records > 0 {
            assert!(!report.lost.is_proven, "{report:?}");
            assert!(report.lost.text.contains("t-0 from 20"), "{report:?}");
        }
        report.lost.records
    })
}

#[test]
fn the_report_says_so_when_it_is_asked_for_again() {
    assert_eq!(named(false, Answers::Itself), 3);
}

#[test]
fn so_it_does_when_the_old_primary_is_gone_by_then() {
    assert_eq!(named(true, Answers::Nobody), 3);
    assert_eq!(named(true, Answers::AnotherCluster), 3);
}

#[test]
fn what_another_cluster_has_is_not_counted() {
    assert_eq!(named(false, Answers::AnotherCluster), 0);
}
