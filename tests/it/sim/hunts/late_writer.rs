//! A producer that no ACL binds writes to the old primary some time after the promotion.

use fake_kafka::world;
use twinlog::state::CutoverKind;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// Whether somebody runs who counts it, and the old primary can be asked.
fn is_named(is_counted: bool, is_there: bool) {
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
        if !is_there {
            scene.lose_source(world);
        }
        let looked = process::last_report(world, "operator-later", &scene.text);
        let report = world.result(&looked, 60_000).expect("there is a plan");
        assert_eq!(report.lost.records, 3, "{report:?}");
        assert!(!report.lost.is_proven, "{report:?}");
        assert!(report.lost.text.contains("t-0 from 20"), "{report:?}");
    });
}

#[test]
fn the_report_says_so_when_it_is_asked_for_again() {
    is_named(false, true);
}

#[test]
fn so_it_does_when_the_old_primary_is_gone_by_then() {
    is_named(true, false);
}
