//! A transaction has been told of a partition of the old primary, and has no record there: no end is held back by it,
//! and its marker comes when its time is over.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world;
use twinlog::state::{CutoverKind, CutoverState};

/// For how long a coordinator tells nothing.
const SILENT_MS: i64 = 4_000;

use crate::sim::clients;
use crate::sim::model::{Place, Says, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write, names, says};

#[test]
fn its_marker_comes_before_what_is_copied_back() {
    marker_comes_first(1, None);
}

/// The usual state of a primary that has just restarted: an empty list, and that it isn't all.
#[test]
fn a_coordinator_that_still_loads_is_waited_for() {
    let loads = ResponseError::CoordinatorLoadInProgress;
    marker_comes_first(2, Some((ApiKey::ListTransactions, Action::Refuse(loads))));
}

#[test]
fn a_coordinator_that_has_moved_is_looked_for() {
    let moved = ResponseError::NotCoordinator;
    let refuse = Action::Refuse(moved);
    marker_comes_first(3, Some((ApiKey::DescribeTransactions, refuse)));
}

#[test]
fn a_coordinator_that_is_silent_is_waited_for() {
    let silent = (ApiKey::ListTransactions, Action::Swallow);
    marker_comes_first(4, Some(silent));
}

/// Its client was fenced and is gone: its marker would come behind the proof, where it counts as a record that is lost.
#[test]
fn a_planned_failover_waits_for_its_marker() {
    world::run(5, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        let place = Place::new("t", 0);
        scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 20, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        scene.source.cluster.control(|state| {
            state.transactions.settings.abort_check_interval_ms = 3_600_000;
            state.create_transactions_topic();
        });
        let source = scene.source.clone();
        let client = world.process("client", move |ctx| {
            clients::register(ctx, source.clone(), "t", "empty")
        });
        world.result(&client, 30_000);
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned);
        world.run_for(15_000);
        assert_eq!(scene.role(), Side::Primary, "it is waited for");
        let was_open = |state: &mut fake_kafka::State| state.time_out_transaction("empty");
        assert!(scene.source.cluster.control(was_open), "it is open");
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        assert!(report.lost.is_proven, "{report:#?}");
        // Nothing comes behind: the copies go on at the same offsets.
        scene.write(world, Side::Standby, &place, 10, Write::default());
        let back = process::begin_back(world, "operator-back", &scene.text);
        let (report, error) = world.result(&back, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let source = scene.source.clone();
        let at = place.clone();
        world.must("all is copied back", 60_000, move |_| {
            names(&source, &at).len() == 30
        });
        let record = crate::sim::logs::newest(&scene.source, "__twinlog_state", "topic/dr~back/t");
        let record = record.expect("it is copied back");
        assert!(record.contains("\"mapped\":false"), "{record}");
    });
}

/// A coordinator that never answers keeps nobody from the standby: it is named.
#[test]
fn a_planned_failover_names_a_coordinator_that_does_not_tell() {
    world::run(6, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        let place = Place::new("t", 0);
        scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 20, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        scene
            .source
            .cluster
            .control(|state| state.create_transactions_topic());
        let loads = Action::Refuse(ResponseError::CoordinatorLoadInProgress);
        let source = &scene.source.cluster;
        source.fault(Fault::on(ApiKey::ListTransactions), loads);
        let began_ms = world.now_ms();
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned);
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let took_ms = world.now_ms() - began_ms;
        assert!(took_ms < 30_000, "{took_ms} ms");
        let told = report.for_the_operator.join("\n");
        assert!(told.contains("open transactions"), "{told}");
    });
}

fn marker_comes_first(seed: u64, coordinator: Option<(ApiKey, Action)>) {
    world::run(seed, move |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        let place = Place::new("t", 0);
        let twinlog = scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 20, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        scene.source.cluster.control(|state| {
            state.transactions.settings.abort_check_interval_ms = 3_600_000;
            state.create_transactions_topic();
        });
        let planned = failover_options(CutoverKind::Planned);
        let failover = process::failover(world, "operator", &scene.text, planned);
        let (report, error) = world.result(&failover, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        scene.write(world, Side::Standby, &place, 10, Write::default());
        // Of a client that no fence binds.
        let source = scene.source.clone();
        let client = world.process("client", move |ctx| {
            clients::register(ctx, source.clone(), "t", "empty")
        });
        world.result(&client, 30_000);
        let fault = coordinator.map(|(key, action)| {
            let source = &scene.source.cluster;
            source.fault(Fault::on(key), action)
        });
        let back = process::begin_back(world, "operator-back", &scene.text);
        if let Some(fault) = fault {
            world.run_for(SILENT_MS);
            scene
                .source
                .cluster
                .control(|state| state.faults.clear(fault));
        }
        world.run_for(8_000);
        let was_open = |state: &mut fake_kafka::State| state.time_out_transaction("empty");
        assert!(scene.source.cluster.control(was_open), "it is open");
        let (report, error) = world.result(&back, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        assert_eq!(report.state, CutoverState::Done);
        let source = scene.source.clone();
        let at = place.clone();
        world.must("all is copied back", 60_000, move |_| {
            names(&source, &at).len() == 30
        });
        scene.write(world, Side::Standby, &place, 5, Write::default());
        world.run_for(10_000);
        assert_eq!(names(&scene.source, &place).len(), 35);
        let said = says(world, &twinlog, &place);
        assert!(!matches!(said, Says::Stopped { .. }), "{said:?}");
    });
}
