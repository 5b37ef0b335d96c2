//! What a cut-over changes may be done although its answer was lost: asking again does no harm.

use fake_kafka::acls::Permission;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};
use twinlog::cutover::{CutoverError, FenceMode, Options, Report};
use twinlog::state::CutoverKind;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write, names};

/// What a command may ask a cluster to change.
const CHANGES: [ApiKey; 7] = [
    ApiKey::CreateAcls,
    ApiKey::DeleteAcls,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::Produce,
    ApiKey::OffsetCommit,
    ApiKey::CreateTopics,
    ApiKey::InitProducerId,
];

fn ended(done: Result<(Report, Option<CutoverError>), CutoverError>) -> Report {
    let (report, error) = done.expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    report
}

/// Fails over and back while the first `lost` answers to `key` are lost on both clusters, each time.
fn there_and_back(world: &mut World, key: ApiKey, lost: u64) {
    let (mut scene, _, place) = Scene::with_groups(world, 20, "twinlog");
    scene.source.cluster.control(|state| {
        state.acls.is_on = true;
        state.acls.allow_if_no_acl_found = true;
    });
    let commits = scene.commits(world, 5, 10);
    world.result(&commits, 30_000);
    world.run_for(12_000);
    let lose = |scene: &Scene| {
        for brokers in [&scene.source, &scene.target] {
            let fault = Fault::on(key).times(lost);
            brokers.cluster.fault(fault, Action::CutAfter);
        }
    };
    lose(&scene);
    let options = Options {
        fence: FenceMode::Acl,
        ..failover_options(CutoverKind::Planned)
    };
    let command = process::failover(world, "operator", &scene.text, options);
    let report = ended(world.result(&command, 300_000));
    assert!(report.lost.is_proven, "{key:?}: {report:?}");
    assert_eq!(scene.role(), Side::Standby, "{key:?}");
    assert_eq!(names(&scene.target, &place), names(&scene.source, &place));
    scene.write(world, Side::Standby, &place, 10, Write::default());
    world.run_for(5_000);
    lose(&scene);
    let command = process::failback(world, "operator-back", &scene.text, true);
    let report = ended(world.result(&command, 300_000));
    assert!(report.lost.is_proven, "{key:?}: {report:?}");
    assert_eq!(scene.role(), Side::Primary, "{key:?}");
    let here = names(&scene.source, &place);
    assert_eq!(here.len(), 30, "{key:?}: {here:?}");
    assert_eq!(names(&scene.target, &place), here, "{key:?}");
    // Nobody is kept away by what was made twice or forgotten.
    let left = scene.source.cluster.control(|state| {
        let denies = state
            .acls
            .all
            .iter()
            .filter(|acl| acl.principal == "User:*");
        denies
            .filter(|acl| acl.permission == Permission::Deny)
            .count()
    });
    assert_eq!(left, 0, "{key:?}: the fence is gone");
    scene.write(world, Side::Primary, &place, 5, Write::default());
    scene.must_copy(world, &[Place::new("t", 0)], 60_000);
}

#[test]
fn an_answer_that_is_lost_changes_nothing() {
    for key in CHANGES {
        world::run(1, move |world| there_and_back(world, key, 1));
    }
}

#[test]
fn nor_do_several() {
    for key in [ApiKey::CreateAcls, ApiKey::DeleteAcls, ApiKey::Produce] {
        world::run(2, move |world| there_and_back(world, key, 3));
    }
}
