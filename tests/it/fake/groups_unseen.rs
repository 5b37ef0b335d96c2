//! Groups that can't be seen, or not any more: neither gone nor followed, and no reason to leave the others.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::readiness::says;
use crate::support::failover::{failover, words};
use crate::support::fake::{FakeCluster, options};
use crate::support::flow::{block_on, flow_config, wire_cluster, with_state};
use crate::support::groups::{commit, committed, has_had_groups};
use crate::support::{
    Load, Twinlog, await_caught_up, create_topic, delete_topic, eventually, fake_pair,
};
use fake_kafka::acls::{Acl, CLUSTER_NAME, Operation, ResourceType};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::groups::classic::Settings;
use fake_kafka::state::{Options, State};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use twinlog::state::keys;
use twinlog::wire::{self, GroupOffset, TopicPartition};

const DEADLINE: Duration = Duration::from_secs(60);
const LOG: &str = "__consumer_offsets";

/// Denies something to everybody. Where a resource has no ACL, everybody may do everything.
fn deny(state: &mut State, operation: Operation, kind: ResourceType, name: &str) {
    state.acls.is_on = true;
    state.acls.allow_if_no_acl_found = true;
    let denied = Acl::allow("User:ANONYMOUS", operation, kind, name).denied();
    state.acls.all.insert(denied);
}

/// The coordinators' log may be described and not read, so groups are asked for.
fn only_described(state: &mut State) {
    deny(state, Operation::Read, ResourceType::Topic, LOG);
    let may = Acl::allow(
        "User:ANONYMOUS",
        Operation::Describe,
        ResourceType::Topic,
        LOG,
    );
    state.acls.all.insert(may);
}

fn await_on_target(target: &str, group: &str, topic: &str, wanted: Option<i64>) {
    let what = format!("{group} is at {wanted:?} on the target");
    eventually(DEADLINE, &what, || {
        match committed(target, group, topic, 1)[0] {
            found if found == wanted => Ok(()),
            found => Err(found),
        }
    });
}

fn with_records(source: &str, topic: &str) {
    create_topic(source, topic, 1, &[]);
    Load::new(topic, 100).produce(source);
}

fn await_source(twinlog: &Twinlog, wanted: &str) {
    let what = format!("the source's groups are {wanted}");
    eventually(
        DEADLINE,
        &what,
        || match &twinlog.groups()["source"]["state"] {
            state if *state == wanted => Ok(()),
            state => Err(state.clone()),
        },
    );
}

fn delete_group(bootstrap: &str, group: &str) {
    let cluster = wire_cluster(bootstrap);
    let deleted = block_on(wire::delete_groups(&cluster, &[group.to_owned()]));
    assert!(deleted[group].is_ok(), "{deleted:?}");
}

/// Its log may be read, so it is followed; the last look of a failover needs the right on the group itself.
#[test]
fn a_group_that_may_not_be_described_is_named_before_a_failover_and_stops_nobody() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    commit(&from, "mine", &[("orders", 0, 30)]);
    commit(&from, "other", &[("orders", 0, 40)]);
    source.control(|state| deny(state, Operation::Describe, ResourceType::Group, "other"));
    let mut twinlog = Twinlog::between(&from, &to);
    await_caught_up(&twinlog, DEADLINE);
    await_on_target(&to, "mine", "orders", Some(30));
    await_on_target(&to, "other", "orders", Some(40));
    twinlog.wait_until(DEADLINE, "the group is named", |status| {
        let checks = &status["flows"][0]["failover"]["checks"];
        says(checks, "groups", "warning", "other (source)")
    });
    let config = twinlog.config_file().to_owned();
    assert!(twinlog.terminate().success());
    commit(&from, "mine", &[("orders", 0, 50)]);
    for (extra, named) in [
        (&["--fence", "manual"][..], "other (source)"),
        (&["--fence", "manual", "--yes"], "may not describe"),
    ] {
        let done = failover(&config, extra);
        let said = words(&done);
        assert_eq!(done.status.code(), Some(0), "{said}");
        assert!(said.contains(named) && said.contains("other"), "{said}");
        assert!(!said.contains("coordinator is away"), "{said}");
        assert!(!said.contains("nothing has to be reset"), "{said}");
    }
    await_on_target(&to, "mine", "orders", Some(50));
    await_on_target(&to, "other", "orders", Some(40));
}

/// Its positions were there when somebody saw them last, and a missing right says nothing of where they went.
#[test]
fn a_polled_group_that_is_hidden_when_the_process_starts_is_not_gone() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    with_records(&from, "hidden");
    commit(&from, "mine", &[("orders", 0, 30)]);
    commit(&from, "other", &[("hidden", 0, 20)]);
    commit(&from, "seen", &[("orders", 0, 10)]);
    source.control(|state| deny(state, Operation::Read, ResourceType::Topic, LOG));
    let mut twinlog = Twinlog::between(&from, &to);
    await_caught_up(&twinlog, DEADLINE);
    await_on_target(&to, "mine", "orders", Some(30));
    await_on_target(&to, "other", "hidden", Some(20));
    assert!(twinlog.terminate().success());
    source.control(|state| {
        deny(state, Operation::Describe, ResourceType::Group, "mine");
        deny(state, Operation::Describe, ResourceType::Topic, "hidden");
    });
    twinlog.launch();
    twinlog.await_group("seen", "followed", DEADLINE);
    twinlog.await_group("mine", "unknown", DEADLINE);
    twinlog.await_group("other", "unknown", DEADLINE);
    // Longer than a position must be missing to count as given up.
    std::thread::sleep(Duration::from_secs(13));
    for group in ["mine", "other"] {
        twinlog.await_group(group, "unknown", Duration::from_secs(1));
    }
    source.control(|state| {
        state
            .acls
            .all
            .retain(|acl| acl.operation != Operation::Describe);
    });
    twinlog.await_group("mine", "followed", DEADLINE);
    twinlog.await_group("other", "followed", DEADLINE);
    // Who is really gone is called so, after a while.
    assert!(twinlog.terminate().success());
    delete_group(&from, "mine");
    twinlog.launch();
    twinlog.await_group("mine", "gone_on_source", DEADLINE);
    await_on_target(&to, "mine", "orders", Some(30));
}

/// Who may not describe the coordinators' topic doesn't know whether somebody coordinates what nobody lists.
#[test]
fn coordinators_that_may_be_missing_are_not_taken_for_there() {
    let (source, _target) = fake_pair();
    let from = source.bootstrap();
    has_had_groups(&from);
    let look = || {
        let client = wire_cluster(&from);
        block_on(async {
            let listed = wire::list_groups(&client).await.expect("a list");
            let told = wire::open_transactions(&client).await;
            let why = (listed.why_incomplete(), listed.why_unanswered());
            (why, told.untold)
        })
    };
    let (why, untold) = look();
    assert_eq!(why, (None, None));
    assert!(untold.is_empty(), "{untold:?}");
    source.control(|state| {
        for topic in [LOG, "__transaction_state"] {
            deny(state, Operation::Describe, ResourceType::Topic, topic);
        }
    });
    let ((incomplete, unanswered), untold) = look();
    let says = |why: &String| why.contains("isn't known");
    assert!(incomplete.as_ref().is_some_and(says), "{incomplete:?}");
    assert_eq!(unanswered, None);
    assert!(untold.iter().any(says), "{untold:?}");
}

/// Brokers answer with an empty list, and without an error.
#[test]
fn groups_that_no_list_shows_are_no_success() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    commit(&from, "mine", &[("orders", 0, 30)]);
    source.control(|state| {
        deny(state, Operation::Describe, ResourceType::Group, "*");
        deny(
            state,
            Operation::Describe,
            ResourceType::Cluster,
            CLUSTER_NAME,
        );
        deny(state, Operation::Read, ResourceType::Topic, LOG);
    });
    let mut twinlog = Twinlog::between(&from, &to);
    await_caught_up(&twinlog, DEADLINE);
    twinlog.wait_until(DEADLINE, "it says that groups are hidden", |status| {
        let flow = &status["flows"][0];
        let detail = flow["groups"]["source"]["detail"].as_str();
        detail.is_some_and(|it| it.contains("DESCRIBE"))
            && says(
                &flow["failover"]["checks"],
                "groups",
                "warning",
                "can't be seen",
            )
            && status["ready"] == false
    });
    let config = twinlog.config_file().to_owned();
    assert!(twinlog.terminate().success());
    for (extra, named) in [
        (
            &["--fence", "manual"][..],
            "there may be groups that can't be seen",
        ),
        (
            &["--fence", "manual", "--yes"],
            "there may be others that can't be seen",
        ),
    ] {
        let done = failover(&config, extra);
        let said = words(&done);
        assert_eq!(done.status.code(), Some(0), "{said}");
        assert!(said.contains(named) && said.contains("DESCRIBE"), "{said}");
        assert!(!said.contains("nothing has to be reset"), "{said}");
    }
}

/// Who asks for positions isn't told that he may not see a topic: the coordinator leaves it out.
#[test]
fn where_groups_are_asked_for_a_position_that_is_hidden_is_not_given_up() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    for topic in ["orders", "payments"] {
        with_records(&from, topic);
    }
    for (group, topic) in [
        ("gone", "orders"),
        ("kept", "orders"),
        ("beside", "payments"),
    ] {
        commit(&from, group, &[(topic, 0, 30)]);
    }
    source.control(|state| deny(state, Operation::Read, ResourceType::Topic, LOG));
    let lines = "groups: { include: [\".*\"], delete: true }\n";
    let twinlog = Twinlog::start(&flow_config("asked", ".*", &from, &to, lines));
    await_caught_up(&twinlog, DEADLINE);
    for (group, topic) in [
        ("gone", "orders"),
        ("kept", "orders"),
        ("beside", "payments"),
    ] {
        await_on_target(&to, group, topic, Some(30));
    }
    delete_group(&from, "gone");
    await_on_target(&to, "gone", "orders", None);
    source.control(|state| deny(state, Operation::Describe, ResourceType::Topic, "orders"));
    twinlog.await_group("kept", "unknown", DEADLINE);
    assert_eq!(committed(&to, "kept", "orders", 1), [Some(30)]);
    twinlog.await_group("beside", "followed", DEADLINE);
    // Who couldn't ask for a while doesn't take what is hidden for gone.
    let refuse = Action::Refuse(ResponseError::UnknownServerError);
    let fault = source.fault(Fault::on(ApiKey::ListGroups), refuse);
    await_source(&twinlog, "failing");
    source.clear(fault);
    await_source(&twinlog, "following");
    twinlog.await_group("beside", "followed", DEADLINE);
    let groups = twinlog.groups()["groups"].clone();
    let kept = groups
        .as_array()
        .and_then(|all| all.iter().find(|it| it["group"] == "kept"));
    assert!(
        kept.is_some_and(|it| it["state"] != "gone_on_source"),
        "{groups}"
    );
    twinlog.await_group("kept", "unknown", DEADLINE);
    source.control(|state| state.acls.all.retain(|acl| acl.name != "orders"));
    twinlog.await_group("kept", "followed", DEADLINE);
}

/// A source that is built anew, or restored without its groups, has none of them.
#[test]
fn where_groups_are_asked_for_a_source_without_any_does_not_empty_the_standby() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    for group in ["one", "two", "live"] {
        commit(&from, group, &[("orders", 0, 30)]);
    }
    source.control(only_described);
    let lines = "groups: { include: [\".*\"], delete: true }\n";
    let mut twinlog = Twinlog::start(&flow_config("emptied", ".*", &from, &to, lines));
    await_caught_up(&twinlog, DEADLINE);
    for group in ["one", "two", "live"] {
        await_on_target(&to, group, "orders", Some(30));
    }
    twinlog.signal("STOP");
    for group in ["one", "two", "live"] {
        delete_group(&from, group);
    }
    // Whoever coordinates afterwards has read what is left of the log.
    source.control(|state| {
        state.stop_broker(1);
        state.start_broker(1);
    });
    // Its consumers commit again before anybody could tell that the others are given up.
    commit(&from, "live", &[("orders", 0, 40)]);
    twinlog.signal("CONT");
    await_on_target(&to, "live", "orders", Some(40));
    for group in ["one", "two"] {
        twinlog.await_group(group, "gone_on_source", DEADLINE);
    }
    // What is deleted one by one is deleted, later than those would have been.
    for group in ["three", "four"] {
        commit(&from, group, &[("orders", 0, 10)]);
        await_on_target(&to, group, "orders", Some(10));
    }
    delete_group(&from, "three");
    await_on_target(&to, "three", "orders", None);
    for group in ["one", "two"] {
        assert_eq!(committed(&to, group, "orders", 1), [Some(30)]);
    }
}

/// Its coordinators have removed them one by one, in one memory: that is no lost log.
#[test]
fn where_groups_are_asked_for_most_of_them_can_be_deleted_at_once() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    for group in ["one", "two", "stays"] {
        commit(&from, group, &[("orders", 0, 30)]);
    }
    source.control(only_described);
    let lines = "groups: { include: [\".*\"], delete: true }\n";
    let twinlog = Twinlog::start(&flow_config("emptied", ".*", &from, &to, lines));
    await_caught_up(&twinlog, DEADLINE);
    for group in ["one", "two", "stays"] {
        await_on_target(&to, group, "orders", Some(30));
    }
    for group in ["one", "two"] {
        delete_group(&from, group);
    }
    for group in ["one", "two"] {
        await_on_target(&to, group, "orders", None);
    }
    assert_eq!(committed(&to, "stays", "orders", 1), [Some(30)]);
}

#[test]
fn where_the_target_is_asked_a_position_that_was_lost_while_nobody_looked_comes_back() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    commit(&from, "idle", &[("orders", 0, 30)]);
    target.control(|state| deny(state, Operation::Read, ResourceType::Topic, LOG));
    let twinlog = Twinlog::between(&from, &to);
    await_on_target(&to, "idle", "orders", Some(30));
    twinlog.await_group("idle", "followed", DEADLINE);
    let refuse = Action::Refuse(ResponseError::UnknownServerError);
    let fault = target.fault(Fault::on(ApiKey::ListGroups), refuse);
    eventually(DEADLINE, "the target can't be asked", || {
        match &twinlog.groups()["target"]["state"] {
            state if *state == "failing" => Ok(()),
            state => Err(state.clone()),
        }
    });
    delete_group(&to, "idle");
    target.clear(fault);
    await_on_target(&to, "idle", "orders", Some(30));
}

/// A group has positions of its own on a topic of the standby that Twinlog may not describe: its coordinator leaves them out.
#[test]
fn where_the_target_is_asked_a_group_that_may_have_hidden_positions_is_not_deleted() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    with_records(&to, "their-own");
    commit(&from, "leaves", &[("orders", 0, 30)]);
    commit(&to, "leaves", &[("their-own", 0, 70)]);
    target.control(|state| {
        state.acls.is_on = true;
        let mut allow = |kind, name: &str| {
            let acl = Acl::allow("User:ANONYMOUS", Operation::All, kind, name);
            state.acls.all.insert(acl);
        };
        allow(ResourceType::Cluster, CLUSTER_NAME);
        allow(ResourceType::Group, "*");
        for topic in ["orders", "__twinlog_state"] {
            allow(ResourceType::Topic, topic);
        }
    });
    let lines = "groups: { include: [\".*\"], delete: true }\n";
    let twinlog = Twinlog::start(&flow_config("asked", "orders", &from, &to, lines));
    twinlog.await_followed("leaves", 30, DEADLINE);
    delete_group(&from, "leaves");
    eventually(DEADLINE, "it says why it stays", || match twinlog.log() {
        log if log.contains("no group is deleted on the target") => Ok(()),
        log => Err(log),
    });
    target.control(|state| state.acls.is_on = false);
    assert_eq!(committed(&to, "leaves", "their-own", 1), [Some(70)]);
    assert_eq!(committed(&to, "leaves", "orders", 1), [Some(30)]);
}

/// One broker leads some partitions of the log of groups and is away when it is read from its beginning.
#[test]
fn groups_wait_only_for_their_own_partition_of_the_log() {
    for side in ["source", "target"] {
        let start = |name: &str| {
            FakeCluster::start(Options {
                brokers: if name == side { 2 } else { 1 },
                default_replication: 1,
                ..options(&format!("{name}-waits-on-{side}"))
            })
        };
        let (source, target) = (start("source"), start("target"));
        for cluster in [&source, &target] {
            cluster.control(|state| state.groups.settings.topic_replication = 1);
        }
        let (from, to) = (source.bootstrap(), target.bootstrap());
        has_had_groups(&to);
        with_records(&from, "orders");
        let names: Vec<String> = (0..12).map(|number| format!("g{number}")).collect();
        for name in &names {
            commit(&from, name, &[("orders", 0, 30)]);
        }
        let mut twinlog = Twinlog::start(&flow_config("dr", "orders", &from, &to, ""));
        for name in &names {
            await_on_target(&to, name, "orders", Some(30));
        }
        assert!(twinlog.terminate().success());
        let on = if side == "source" { &source } else { &target };
        let leader_of = |state: &State, topic: &str, partition: i32| {
            state.topics[topic].partitions[&partition].leader
        };
        let needed: Vec<Option<i32>> = on.look(|state| {
            let topics = ["orders", "__twinlog_state"].into_iter();
            let topics = topics.filter(|topic| state.topics.contains_key(*topic));
            topics.map(|topic| leader_of(state, topic, 0)).collect()
        });
        let away = if needed.contains(&Some(2)) { 1 } else { 2 };
        if needed.contains(&Some(away)) {
            // Nothing could be copied.
            continue;
        }
        let count = Settings::default().topic_partitions;
        let (lost, seen): (Vec<String>, Vec<String>) = on.look(|state| {
            names.iter().cloned().partition(|name| {
                let partition = wire::coordinator_partition(name, count);
                leader_of(state, LOG, partition) == Some(away)
            })
        });
        assert!(!lost.is_empty() && !seen.is_empty(), "{lost:?} {seen:?}");
        on.control(|state| state.stop_broker(away));
        twinlog.launch();
        for name in &seen {
            commit(&from, name, &[("orders", 0, 50)]);
            await_on_target(&to, name, "orders", Some(50));
        }
        for name in &lost {
            twinlog.await_group(name, "unknown", DEADLINE);
        }
        eventually(DEADLINE, "it is said why", || {
            let of = twinlog.groups()[side].clone();
            let says = of["detail"].as_str().unwrap_or_default();
            match says.contains(LOG) {
                true => Ok(()),
                false => Err(of),
            }
        });
        on.control(|state| state.start_broker(away));
        for name in &lost {
            commit(&from, name, &[("orders", 0, 50)]);
            await_on_target(&to, name, "orders", Some(50));
        }
    }
}

/// The commit is seen before it is known that its topic is another one now.
#[test]
fn a_commit_on_a_topic_that_was_made_anew_waits_for_its_copy() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    commit(&from, "reader", &[("orders", 0, 20)]);
    let mut twinlog = Twinlog::start(&flow_config(
        "anew",
        "orders",
        &from,
        &to,
        "on_recreate: recreate",
    ));
    await_on_target(&to, "reader", "orders", Some(20));
    for offset in [30, 40, 50] {
        twinlog.signal("STOP");
        delete_topic(&from, "orders");
        with_records(&from, "orders");
        commit(&from, "reader", &[("orders", 0, offset)]);
        twinlog.signal("CONT");
        await_on_target(&to, "reader", "orders", Some(offset));
    }
}

/// Nobody lists the source's groups during the failover. Those that are remembered are brought, and the rest is said.
#[test]
fn a_list_of_groups_that_can_not_be_had_does_not_stop_a_failover() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    commit(&from, "mine", &[("orders", 0, 30)]);
    let mut twinlog = Twinlog::between(&from, &to);
    await_caught_up(&twinlog, DEADLINE);
    await_on_target(&to, "mine", "orders", Some(30));
    let config = twinlog.config_file().to_owned();
    assert!(twinlog.terminate().success());
    commit(&from, "mine", &[("orders", 0, 50)]);
    let refuse = Action::Refuse(ResponseError::UnknownServerError);
    source.fault(Fault::on(ApiKey::ListGroups), refuse);
    let done = failover(&config, &["--fence", "manual", "--yes"]);
    let said = words(&done);
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(
        said.contains("there may be others that can't be seen"),
        "{said}"
    );
    await_on_target(&to, "mine", "orders", Some(50));
}

/// A group gives one position up and commits another one much later, while nobody follows it. Whoever reads its log anew
/// reads the tombstone long before that commit; until then the group looks as if it had none.
fn a_living_group_stays_while_its_log_is_read(fetch_takes_ms: i64, log_bytes: usize) {
    const METADATA: usize = 30_000;
    const FILLER_PARTITIONS: usize = 20;
    const SLOW_FOR: Duration = Duration::from_secs(25);
    let (source, target) = fake_pair();
    source.control(|state| state.groups.settings.offset_metadata_max = 32_000);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    for topic in ["orders", "later"] {
        with_records(&from, topic);
    }
    commit(&from, "both", &[("orders", 0, 30)]);
    let lines = "groups: { include: [both], delete: true }\n";
    let mut twinlog = Twinlog::start(&flow_config("anew", ".*", &from, &to, lines));
    await_caught_up(&twinlog, DEADLINE);
    await_on_target(&to, "both", "orders", Some(30));
    assert!(twinlog.terminate().success());
    delete_group(&from, "both");
    create_topic(
        &from,
        "filler",
        i32::try_from(FILLER_PARTITIONS).expect("few"),
        &[],
    );
    let count = Settings::default().topic_partitions;
    let of = |name: &str| wire::coordinator_partition(name, count);
    let mut names = (0..).map(|number| format!("beside-{number}"));
    let beside = names.find(|name| of(name) == of("both")).expect("a name");
    let filled = (0..FILLER_PARTITIONS).map(|number| {
        let number = i32::try_from(number).expect("few");
        let offset = GroupOffset {
            offset: 0,
            leader_epoch: -1,
            metadata: "x".repeat(METADATA),
        };
        (TopicPartition::new("filler", number), offset)
    });
    let filled: HashMap<_, BTreeMap<_, _>> = [(beside.clone(), filled.collect())].into();
    let client = wire_cluster(&from);
    // A connection lives as long as the runtime that made it.
    block_on(async {
        for _ in 0..=log_bytes / (METADATA * FILLER_PARTITIONS) {
            let done = wire::commit_group_offsets(&client, &filled).await;
            assert!(done[&beside].values().all(Result::is_ok), "{done:?}");
        }
    });
    commit(&from, "both", &[("later", 0, 5)]);
    let slow = source.fault(
        Fault::on(ApiKey::Fetch).topic(LOG),
        Action::Delay(fetch_takes_ms),
    );
    twinlog.launch();
    // The tombstone is read by then, and the log not to its end: that takes a minute like this.
    std::thread::sleep(SLOW_FOR);
    assert_eq!(committed(&to, "both", "orders", 1), [Some(30)]);
    source.clear(slow);
    await_on_target(&to, "both", "later", Some(5));
    assert_eq!(committed(&to, "both", "orders", 1), [Some(30)]);
}

/// Whoever answers within seconds is waited for: the reading goes on all the while.
#[test]
fn a_tombstone_deletes_no_group_whose_log_is_still_being_read() {
    a_living_group_stays_while_its_log_is_read(2_400, 14_000_000);
}

/// The others are followed meanwhile.
#[test]
fn a_tombstone_deletes_no_group_whose_log_a_silent_broker_tells() {
    a_living_group_stays_while_its_log_is_read(7_000, 5_000_000);
}

#[test]
fn positions_on_topics_that_are_not_copied_are_no_trouble_and_are_looked_at_when_they_are() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "narrow-a");
    with_records(&from, "elsewhere");
    commit(&from, "stranger", &[("elsewhere", 0, 30)]);
    let mut twinlog = Twinlog::start(&flow_config("narrow", "narrow-.*", &from, &to, ""));
    await_caught_up(&twinlog, DEADLINE);
    twinlog.await_group("stranger", "not_copied", DEADLINE);
    let listed = twinlog.command("groups", &["--troubled"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(!listed.contains("stranger"), "{listed}");
    // Its topic is found after its commit was seen.
    twinlog.signal("STOP");
    with_records(&from, "narrow-b");
    commit(&from, "early", &[("narrow-b", 0, 30)]);
    twinlog.signal("CONT");
    await_on_target(&to, "early", "narrow-b", Some(30));
}

#[test]
fn a_group_that_neither_cluster_has_any_more_is_forgotten() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    let mut twinlog = Twinlog::between(&from, &to);
    await_caught_up(&twinlog, DEADLINE);
    let key = |group: &str| keys::group("dr", group);
    let is_kept = |group: &str| with_state(&to, |store| store.bytes(&key(group)).is_some());
    let await_forgotten = |twinlog: &Twinlog, group: &str| {
        eventually(DEADLINE, "the group is forgotten", || {
            let groups = twinlog.groups();
            match groups.to_string().contains(group) || is_kept(group) {
                false => Ok(()),
                true => Err(groups),
            }
        });
    };
    for group in ["fleeting", "leaving"] {
        commit(&from, group, &[("orders", 0, 30)]);
        await_on_target(&to, group, "orders", Some(30));
        assert!(is_kept(group));
    }
    delete_group(&from, "fleeting");
    twinlog.await_group("fleeting", "gone_on_source", DEADLINE);
    assert!(is_kept("fleeting"), "the target has it");
    delete_group(&to, "fleeting");
    await_forgotten(&twinlog, "fleeting");
    // While nobody looks.
    twinlog.kill9();
    delete_group(&from, "leaving");
    delete_group(&to, "leaving");
    twinlog.launch();
    await_forgotten(&twinlog, "leaving");
    commit(&from, "leaving", &[("orders", 0, 60)]);
    await_on_target(&to, "leaving", "orders", Some(60));
}

/// What the preflight says of groups that the config leaves out is no more than what was answered.
#[test]
fn groups_that_are_left_out_and_can_not_be_asked_for_are_no_fewer() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    with_records(&from, "orders");
    for group in ["mine", "named", "silent"] {
        commit(&from, group, &[("orders", 0, 30)]);
    }
    let config = flow_config("dr", ".*", &from, &to, "groups: { include: [mine] }");
    let twinlog = Twinlog::start(&config);
    await_caught_up(&twinlog, DEADLINE);
    await_on_target(&to, "mine", "orders", Some(30));
    let config = twinlog.config_file().to_owned();
    let refuse = || Action::Refuse(ResponseError::UnknownServerError);
    let shown = || words(&failover(&config, &["--fence", "manual"]));

    source.fault(Fault::on(ApiKey::OffsetFetch).group("silent"), refuse());
    let said = shown();
    assert!(said.contains("not followed by the config: named"), "{said}");
    let incomplete = "not all groups that the config leaves out could be asked for";
    assert!(said.contains(&format!("{incomplete}: silent")), "{said}");

    source.fault(Fault::on(ApiKey::ListGroups), refuse());
    let said = shown();
    assert!(said.contains(incomplete), "{said}");

    // Where the standby doesn't tell a position, there isn't none.
    target.fault(Fault::on(ApiKey::OffsetFetch).group("mine"), refuse());
    let told = words(&twinlog.command("groups", &["--remembered"]));
    assert!(
        told.contains("mine: ") && told.contains("OffsetFetch"),
        "{told}"
    );

    // What the standby's topics ask of a write isn't taken for little because nobody tells.
    target.fault(Fault::on(ApiKey::DescribeConfigs).topic("orders"), refuse());
    let said = shown();
    assert!(said.contains("min.insync.replicas can't be read"), "{said}");
}

/// A service that takes its time for each topic isn't away, and one broker's silence is no other's.
#[test]
fn what_is_slow_is_waited_for_as_long_as_there_are_topics() {
    const TOPICS: usize = 150;
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    for number in 0..TOPICS {
        create_topic(&from, &format!("orders-{number}"), 4, &[]);
    }
    let twinlog = Twinlog::start(&flow_config("dr", ".*", &from, &to, ""));
    twinlog.wait_until(DEADLINE, "all are copied", |status| {
        let topics = status["flows"][0]["topics"].as_array();
        topics.is_some_and(|topics| topics.len() == TOPICS)
    });
    for cluster in [&source, &target] {
        let asked = Fault::on(ApiKey::DescribeConfigs);
        cluster.fault(asked, Action::AnswerLate(2_500));
    }
    target.fault(
        Fault::on(ApiKey::DescribeLogDirs),
        Action::AnswerLate(3_300),
    );
    let said = words(&failover(twinlog.config_file(), &["--fence", "manual"]));
    assert!(!said.contains("to compare"), "{said}");
    assert!(said.contains("are free on"), "{said}");
}
