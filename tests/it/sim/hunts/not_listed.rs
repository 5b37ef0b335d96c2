//! A list of all topics leaves out those that we may not describe: a cut-over doesn't take them for gone.

use std::collections::BTreeSet;

use fake_kafka::State;
use fake_kafka::acls::{Acl, Operation, Permission, ResourceType};
use fake_kafka::world::{self, Brokers, Process, World};
use twinlog::cutover::{self, BackScope, Check, FenceMode, Options, Weight};
use twinlog::state::{CutoverKind, CutoverState};
use twinlog::wire::TopicPartition;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, CutOver, failover_options};
use crate::sim::scene::{Scene, Write, names};

const TOPICS: [&str; 2] = ["t0", "t1"];

fn no_describe() -> Acl {
    let (who, what) = ("User:ANONYMOUS", ResourceType::Topic);
    Acl::allow(who, Operation::Describe, what, "t1").denied()
}

fn strict(state: &mut State) {
    state.acls.is_on = true;
    state.acls.allow_if_no_acl_found = true;
}

/// `t1` is hidden from everybody.
fn hide(state: &mut State) {
    strict(state);
    state.acls.all.insert(no_describe());
}

fn show(state: &mut State) {
    state.acls.all.remove(&no_describe());
}

/// Topics to which everybody is denied to write.
fn fenced(brokers: &Brokers) -> BTreeSet<String> {
    brokers.cluster.control(|state| {
        let denies =
            state.acls.all.iter().filter(|acl| {
                acl.permission == Permission::Deny && acl.operation == Operation::Write
            });
        denies.map(|acl| acl.name.clone()).collect()
    })
}

/// Two topics that are copied.
fn copied(world: &mut World) -> (Scene, process::Running) {
    let mut scene = Scene::new(world, 1, "");
    let places = TOPICS.map(|topic| Place::new(topic, 0));
    for place in &places {
        scene.topic(&place.topic, 1, 1, &[]);
    }
    let twinlog = scene.twinlog(world, "twinlog");
    for place in &places {
        scene.write(world, Side::Primary, place, 20, Write::default());
    }
    scene.must_copy(world, &places, 30_000);
    world.run_for(12_000);
    (scene, twinlog)
}

fn failover(world: &mut World, scene: &Scene, name: &str, kind: CutoverKind) -> CutOver {
    let command = process::failover(world, name, &scene.text, failover_options(kind));
    world.result(&command, 120_000)
}

#[test]
fn a_planned_failover_names_a_topic_that_the_source_hides() {
    world::run(1, |world| {
        let (scene, twinlog) = copied(world);
        twinlog.process.kill();
        scene.source.cluster.control(hide);
        let refused = failover(world, &scene, "operator", CutoverKind::Planned);
        let error = refused.expect_err("its writers would go on there");
        assert!(error.message.contains("t1"), "{error:?}");
        assert!(error.loses_data, "{error:?}");
        assert_eq!(scene.role(), Side::Primary);
        scene.source.cluster.control(show);
        let (report, error) =
            failover(world, &scene, "again", CutoverKind::Planned).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        for topic in TOPICS {
            let fork = logs::newest(
                &scene.target,
                "__twinlog_state",
                &format!("fork/dr/{topic}"),
            );
            assert!(fork.is_some(), "{topic} is failed over");
        }
    });
}

/// It is hidden when the plan was looked at already, and waits for a transaction.
#[test]
fn a_planned_failover_goes_no_further_without_a_topic_that_the_source_hides() {
    world::run(1, |world| {
        let (mut scene, _twinlog) = copied(world);
        scene.source.cluster.control(|state| {
            state.transactions.settings.abort_check_interval_ms = 3_600_000;
            state.create_transactions_topic();
        });
        let source = scene.source.clone();
        let client = world.process("client", move |ctx| {
            crate::sim::clients::register(ctx, source.clone(), "t0", "empty")
        });
        world.result(&client, 30_000);
        let planned = failover_options(CutoverKind::Planned);
        let command = process::failover(world, "operator", &scene.text, planned);
        world.run_for(10_000);
        scene.source.cluster.control(hide);
        let place = Place::new("t1", 0);
        scene.write(world, Side::Primary, &place, 5, Write::default());
        let end = |state: &mut State| state.time_out_transaction("empty");
        assert!(scene.source.cluster.control(end), "it is open");
        let ended = world.result(&command, 120_000);
        let (report, error) = ended.expect("it has begun");
        assert!(error.is_some(), "{report:?}");
        assert_eq!(scene.role(), Side::Primary);
    });
}

#[test]
fn an_unplanned_failover_leaves_out_a_topic_that_the_standby_hides() {
    world::run(1, |world| {
        let (scene, _twinlog) = copied(world);
        scene.target.cluster.control(hide);
        scene.lose_source(world);
        world.run_for(5_000);
        let (report, error) =
            failover(world, &scene, "operator", CutoverKind::Unplanned).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let said = format!("{report:?}");
        assert!(said.contains("left out") && said.contains("t1"), "{said}");
        let role = logs::newest(&scene.target, "__twinlog_state", "role/dr");
        let role = role.expect("there is one");
        assert!(role.contains("t0") && !role.contains("t1"), "{role}");
        // It follows when it can be seen again.
        scene.target.cluster.control(show);
        world.run_for(5_000);
        let (report, error) =
            failover(world, &scene, "again", CutoverKind::Unplanned).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let forks: BTreeSet<&str> = TOPICS
            .into_iter()
            .filter(|topic| {
                let key = format!("fork/dr/{topic}");
                logs::newest(&scene.target, "__twinlog_state", &key).is_some()
            })
            .collect();
        assert_eq!(forks, TOPICS.into());
    });
}

/// Twinlog has rights on the topics that it has seen, and on no other.
#[test]
fn topics_that_were_never_seen_are_not_said_to_be_none() {
    world::run(1, |world| {
        let (scene, _twinlog) = copied(world);
        let planned = failover_options(CutoverKind::Planned);
        let told = |world: &mut World, name: &str| {
            let looked = process::look(world, name, &scene.text, planned.clone());
            let checks = world.result(&looked, 60_000).expect("both answer");
            checks.iter().any(|check| check.subject == "hidden_topics")
        };
        assert!(!told(world, "sees-all"));
        scene.source.cluster.control(|state| {
            state.acls.is_on = true;
            let mut allow = |what, name: &str| {
                let acl = Acl::allow("User:ANONYMOUS", Operation::All, what, name);
                state.acls.all.insert(acl);
            };
            allow(ResourceType::Cluster, "kafka-cluster");
            allow(ResourceType::Group, "*");
            for topic in ["t0", "t1", "__twinlog_state", "__consumer_offsets"] {
                allow(ResourceType::Topic, topic);
            }
        });
        assert!(told(world, "sees-some"));
    });
}

/// Both topics were failed over, and the old primary is back.
fn failed_over(world: &mut World) -> (Scene, process::Running) {
    let (scene, twinlog) = copied(world);
    let (report, error) =
        failover(world, &scene, "operator", CutoverKind::Planned).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    (scene, twinlog)
}

fn hidden(checks: &[Check]) -> Option<&Check> {
    let mut of_it = checks.iter().filter(|it| it.subject == "hidden_topics");
    of_it.find(|it| it.weight == Weight::LosesData)
}

/// A right was lost on one side, or on both: then it is in no list.
#[test]
fn a_failback_names_a_topic_that_a_cluster_hides() {
    for (seed, (on_old, on_new)) in (1..).zip([(true, true), (true, false), (false, true)]) {
        world::run(seed, move |world| {
            let (mut scene, twinlog) = failed_over(world);
            twinlog.process.kill();
            let place = Place::new("t1", 0);
            scene.write(world, Side::Standby, &place, 7, Write::default());
            let sides = [
                (on_old, scene.source.clone()),
                (on_new, scene.target.clone()),
            ];
            let on_sides = |change: fn(&mut State)| {
                let of_it = sides.iter().filter(|(is_it, _)| *is_it);
                of_it.for_each(|(_, brokers)| brokers.cluster.control(change));
            };
            on_sides(hide);
            let looked = process::look_back(world, "operator-looks", &scene.text);
            let checks = world.result(&looked, 60_000).expect("it has a plan");
            let told = hidden(&checks).unwrap_or_else(|| panic!("it isn't named: {checks:#?}"));
            assert!(
                told.reason.contains("t1") && !told.reason.contains("t0"),
                "{told:?}"
            );
            let refused = process::failback(world, "operator-back", &scene.text, true);
            let refused = world.result(&refused, 120_000);
            let refused = refused.expect_err("its records would stay behind");
            assert!(
                refused.message.contains("t1") && refused.loses_data,
                "{refused:?}"
            );
            assert_eq!(scene.role(), Side::Standby);
            on_sides(show);
            let again = process::failback(world, "operator-again", &scene.text, true);
            let (report, error) = world.result(&again, 300_000).expect("it may begin");
            assert!(error.is_none(), "{error:?} {report:?}");
            assert_eq!(scene.role(), Side::Primary);
            assert_eq!(names(&scene.source, &place).len(), 27, "all of it is there");
        });
    }
}

/// It is hidden when what is new is being copied back already.
#[test]
fn a_failback_goes_no_further_without_a_topic_that_both_clusters_hide() {
    world::run(1, |world| {
        let (mut scene, _twinlog) = failed_over(world);
        let begun = process::begin_back(world, "operator-begins", &scene.text);
        let (report, error) = world.result(&begun, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let place = Place::new("t1", 0);
        scene.write(world, Side::Standby, &place, 7, Write::default());
        let command = process::failback(world, "operator-back", &scene.text, true);
        let source = scene.source.clone();
        world.must("it has a plan", 60_000, move |_| {
            let journal = logs::newest(&source, "__twinlog_state", "cutover/dr~back");
            journal.is_some_and(|it| it.contains("\"catch_up\""))
        });
        for brokers in [&scene.source, &scene.target] {
            brokers.cluster.control(hide);
        }
        let ended = world.result(&command, 300_000);
        let (report, error) = ended.expect("it has begun");
        assert!(error.is_some(), "{report:?}");
        assert_eq!(scene.role(), Side::Standby);
    });
}

/// Who counted what is stranded found nothing, and who looked whether all of it is decided did.
#[test]
fn what_nobody_has_decided_about_is_judged_whoever_has_seen_it() {
    world::run(1, |world| {
        let (scene, _twinlog) = failed_over(world);
        let text = scene.text.clone();
        let looked: Process<process::LookedBack> = world.process("operator-looks", move |ctx| {
            let config = process::read(&ctx, &text);
            async move {
                let (flow, source, target) = process::only_flow(&config);
                let scope = BackScope {
                    undecided: [TopicPartition::new("t0", 0)].into(),
                    ..BackScope::default()
                };
                let options = failover_options(CutoverKind::Failback);
                let plan = cutover::look_back(flow, source, target, options, scope).await?;
                Ok(plan.checks)
            }
        });
        let checks = world.result(&looked, 60_000).expect("it has a plan");
        let orphans = checks.iter().find(|it| it.subject == "orphans");
        let orphans = orphans.unwrap_or_else(|| panic!("nobody judges: {checks:#?}"));
        assert_eq!(orphans.weight, Weight::LosesData);
        assert!(orphans.reason.contains("t0-0"), "{orphans:?}");
    });
}

#[test]
fn writers_are_kept_from_a_topic_that_the_old_primary_hides() {
    world::run(1, |world| {
        let (scene, _twinlog) = failed_over(world);
        scene.source.cluster.control(hide);
        let source = scene.source.clone();
        world.must("both are fenced", 120_000, move |_| {
            fenced(&source) == names_of_topics()
        });
    });
}

fn names_of_topics() -> BTreeSet<String> {
    TOPICS.map(str::to_owned).into()
}

/// A planned failover that keeps writers away, and waits for a transaction.
fn fenced_and_waiting(world: &mut World) -> (Scene, process::Running, Process<CutOver>) {
    let (scene, twinlog) = copied(world);
    for brokers in [&scene.source, &scene.target] {
        brokers.cluster.control(strict);
    }
    scene.source.cluster.control(|state| {
        state.transactions.settings.abort_check_interval_ms = 3_600_000;
        state.create_transactions_topic();
    });
    let source = scene.source.clone();
    let client = world.process("client", move |ctx| {
        crate::sim::clients::register(ctx, source.clone(), "t0", "empty")
    });
    world.result(&client, 30_000);
    let planned = Options {
        fence: FenceMode::Acl,
        ..failover_options(CutoverKind::Planned)
    };
    let command = process::failover(world, "operator", &scene.text, planned);
    world.run_for(10_000);
    assert_eq!(fenced(&scene.source), names_of_topics());
    (scene, twinlog, command)
}

#[test]
fn an_abort_leaves_no_topic_fenced_that_the_standby_hides() {
    world::run(1, |world| {
        let (scene, _twinlog, command) = fenced_and_waiting(world);
        command.kill();
        scene.target.cluster.control(hide);
        let aborted = process::abort(world, "operator-aborts", &scene.text);
        let (report, error) = world.result(&aborted, 120_000).expect("there is a plan");
        assert!(error.is_none(), "{error:?} {report:?}");
        assert_eq!(report.state, CutoverState::Aborted);
        assert_eq!(fenced(&scene.source), BTreeSet::new());
    });
}

/// Clients may have written there since the failover: copying on would bury that.
#[test]
fn an_abort_names_a_topic_that_can_t_be_looked_at() {
    world::run(1, |world| {
        let (mut scene, _twinlog) = failed_over(world);
        let place = Place::new("t1", 0);
        scene.write(world, Side::Standby, &place, 3, Write::default());
        scene.target.cluster.control(hide);
        let aborted = process::abort(world, "operator-aborts", &scene.text);
        let refused = world.result(&aborted, 120_000);
        let refused = refused.expect_err("what was written there would be lost");
        assert!(
            refused.message.contains("t1") && refused.loses_data,
            "{refused:?}"
        );
        assert_eq!(scene.role(), Side::Standby);
    });
}

#[test]
fn nobody_is_let_in_to_a_topic_that_the_old_primary_hides_when_the_standby_is_given_up() {
    world::run(1, |world| {
        let (mut scene, twinlog) = failed_over(world);
        for brokers in [&scene.source, &scene.target] {
            brokers.cluster.control(strict);
        }
        let begun = process::begin_back(world, "operator-begins", &scene.text);
        let (report, error) = world.result(&begun, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        let place = Place::new("t1", 0);
        scene.write(world, Side::Standby, &place, 7, Write::default());
        let source = scene.source.clone();
        world.must("it is copied back", 60_000, move |_| {
            names(&source, &Place::new("t1", 0)).len() == 27
        });
        scene.lose_target(world);
        world.run_for(3_000);
        twinlog.process.kill();
        scene.source.cluster.control(hide);
        let refused = process::give_up(world, "operator-gives-up", &scene.text);
        let refused = world.result(&refused, 120_000);
        let refused = refused.expect_err("its offsets wouldn't be passed");
        assert!(
            refused.message.contains("t1") && refused.loses_data,
            "{refused:?}"
        );
        scene.source.cluster.control(show);
        let again = process::give_up(world, "operator-again", &scene.text);
        let (report, error) = world.result(&again, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        assert_eq!(report.state, CutoverState::Done);
    });
}
