//! A broker hears of the fence late, and goes on accepting: nothing is proven before it refuses by its own word.

use fake_kafka::acls::{Operation, Permission, ResourceType};
use fake_kafka::world::{self, Process, World};
use twinlog::cutover::{FenceMode, Options};
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, CutOver, failover_options};
use crate::sim::scene::{Scene, Write, names};

/// Three brokers that have an authorizer; the leader of `t-0` hears of no ACL any more.
fn begun(world: &mut World) -> (Scene, Place, i32, Process<CutOver>) {
    let mut scene = Scene::new(world, 3, "");
    scene.source.cluster.control(|state| {
        state.acls.is_on = true;
        state.acls.allow_if_no_acl_found = true;
    });
    scene.topic("t", 3, 1, &[]);
    let place = Place::new("t", 0);
    scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 20, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    let late = scene.source.cluster.control(|state| {
        let leader = state.partition("t", 0).and_then(|it| it.leader);
        let leader = leader.expect("somebody leads");
        state.acls.hold(leader);
        leader
    });
    let options = Options {
        fence: FenceMode::Acl,
        ..failover_options(CutoverKind::Planned)
    };
    let command = process::failover(world, "operator", &scene.text, options);
    (scene, place, late, command)
}

/// A client writes to the late broker every three seconds, for as long as that lets it.
fn write_every_3_s(world: &mut World, scene: &mut Scene, place: &Place, late: i32, times: u32) {
    for _ in 0..times {
        world.run_for(3_000);
        let may_write = scene.source.cluster.control(|state| {
            let (who, what) = ("User:ANONYMOUS", ResourceType::Topic);
            state.acls.allow_at(late, who, Operation::Write, what, "t")
        });
        if may_write {
            scene.write(world, Side::Primary, place, 1, Write::default());
        }
    }
}

#[test]
fn a_producer_on_a_broker_that_hears_late_loses_nothing() {
    world::run(1, |world| {
        let (mut scene, place, late, command) = begun(world);
        write_every_3_s(world, &mut scene, &place, late, 7);
        assert_eq!(scene.role(), Side::Primary, "broker {late} takes records");
        let catch_up = |state: &mut fake_kafka::State| state.acls.catch_up(late);
        scene.source.cluster.control(catch_up);
        write_every_3_s(world, &mut scene, &place, late, 2);
        let (report, error) = world.result(&command, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        assert_eq!(scene.role(), Side::Standby);
        let on_source = names(&scene.source, &place);
        assert_eq!(on_source.len(), 27, "{on_source:?}");
        assert_eq!(names(&scene.target, &place), on_source);
    });
}

#[test]
fn a_broker_that_never_hears_of_it_is_named() {
    world::run(1, |world| {
        let (scene, _, late, command) = begun(world);
        let (report, error) = world.result(&command, 120_000).expect("it may begin");
        let error = error.unwrap_or_else(|| panic!("it is through: {report:?}"));
        let named = format!("broker {late} (it would take records of t)");
        assert!(error.message.contains(&named), "{error:?}");
        assert_eq!(scene.role(), Side::Primary);
    });
}

/// The late one is cut off from the controller as well: the others elect another leader and don't count it any more. It
/// goes on taking what clients send it with acks=1.
#[test]
fn a_broker_that_the_others_dont_count_any_more_is_named() {
    world::run(1, |world| {
        let (scene, _, late, command) = begun(world);
        scene
            .source
            .cluster
            .control(|state| state.isolate_broker(late));
        let (report, error) = world.result(&command, 120_000).expect("it may begin");
        let error = error.unwrap_or_else(|| panic!("it is through: {report:?}"));
        let named = format!("broker {late} (");
        assert!(error.message.contains(&named), "{error:?}");
        assert_eq!(scene.role(), Side::Primary);
    });
}

/// It hears of nothing any more behind the proof, as one does that comes back with old metadata: the running process
/// names it, and so does the report when it is asked for again.
#[test]
fn a_broker_that_takes_records_behind_the_promotion_is_named() {
    world::run(1, |world| {
        let (scene, _, late, command) = begun(world);
        let catch_up = |state: &mut fake_kafka::State| state.acls.catch_up(late);
        scene.source.cluster.control(catch_up);
        let (report, error) = world.result(&command, 120_000).expect("it may begin");
        assert!(
            error.is_none() && report.lost.is_proven,
            "{error:?} {report:?}"
        );
        scene.source.cluster.control(|state| {
            state.acls.forget(late);
            state.isolate_broker(late);
        });
        world.run_for(10_000);
        let looked = process::last_report(world, "operator-later", &scene.text);
        let report = world.result(&looked, 60_000).expect("there is a plan");
        assert!(!report.lost.is_proven, "{report:?}");
        let named = format!("broker {late} doesn't refuse writers");
        assert!(report.lost.text.contains(&named), "{report:?}");
    });
}

/// Who has shown the fence is set back later, and is still one of the others: the running process finds that.
#[test]
fn a_broker_that_is_set_back_is_asked_again() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 3, "");
        scene.source.cluster.control(|state| {
            state.acls.is_on = true;
            state.acls.super_users.insert("User:ANONYMOUS".to_owned());
        });
        scene.topic("t", 3, 1, &[]);
        let place = Place::new("t", 0);
        let twinlog = scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 20, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        let options = Options {
            fence: FenceMode::Acl,
            ..failover_options(CutoverKind::Planned)
        };
        let command = process::failover(world, "operator", &scene.text, options);
        let (report, error) = world.result(&command, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        world.run_for(10_000);
        let told = |world: &World| {
            let status = twinlog.status(world);
            let role = status.flows.into_iter().next().and_then(|it| it.role);
            role.and_then(|role| role.fence_problem).unwrap_or_default()
        };
        assert_eq!(told(world), "", "all show it");
        scene.source.cluster.control(|state| state.acls.forget(2));
        world.run_for(45_000);
        assert!(told(world).contains("broker 2"), "{}", told(world));
    });
}

/// Who looked after the old primary was killed when it had asked for the fence: that is made behind its lifting, and nobody
/// remembers it.
#[test]
fn a_denial_that_comes_behind_its_lifting_goes_with_the_failback() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.source.cluster.control(|state| {
            state.acls.is_on = true;
            state.acls.super_users.insert("User:ANONYMOUS".to_owned());
        });
        scene.topic("t", 1, 1, &[]);
        let place = Place::new("t", 0);
        scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 20, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        let options = Options {
            fence: FenceMode::Acl,
            ..failover_options(CutoverKind::Planned)
        };
        let command = process::failover(world, "operator", &scene.text, options);
        let (report, error) = world.result(&command, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        world.run_for(10_000);
        let denied = |state: &fake_kafka::State| {
            let all = state.acls.all.iter();
            let denies = all.filter(|acl| acl.permission == Permission::Deny);
            denies.cloned().collect::<Vec<_>>()
        };
        let fence = scene.source.cluster.look(denied);
        assert_eq!(fence.len(), 1, "{fence:?}");
        let command = process::failback(world, "operator-back", &scene.text, false);
        let source = scene.source.clone();
        world.must("the fence is lifted", 120_000, move |_| {
            logs::is_begun(&source, "cutover/dr~back", "promote")
        });
        scene
            .source
            .cluster
            .control(|state| state.acls.all.extend(fence));
        let (report, error) = world.result(&command, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        assert_eq!(scene.role(), Side::Primary);
        let left = scene.source.cluster.look(denied);
        assert!(left.is_empty(), "{left:?}");
    });
}
