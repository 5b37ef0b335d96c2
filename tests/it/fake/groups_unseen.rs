//! Groups that can't be seen, or not any more: neither gone nor followed, and no reason to leave the others.

use std::time::Duration;

use super::readiness::says;
use crate::support::failover::{failover, words};
use crate::support::flow::{block_on, flow_config, wire_cluster, with_state};
use crate::support::groups::{commit, committed, has_had_groups};
use crate::support::{
    Load, Twinlog, await_caught_up, create_topic, delete_topic, eventually, fake_pair,
};
use fake_kafka::acls::{Acl, CLUSTER_NAME, Operation, ResourceType};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::state::State;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use twinlog::state::keys;
use twinlog::wire;

const DEADLINE: Duration = Duration::from_secs(60);
const LOG: &str = "__consumer_offsets";

/// Denies something to everybody. Where a resource has no ACL, everybody may do everything.
fn deny(state: &mut State, operation: Operation, kind: ResourceType, name: &str) {
    state.acls.is_on = true;
    state.acls.allow_if_no_acl_found = true;
    let denied = Acl::allow("User:ANONYMOUS", operation, kind, name).denied();
    state.acls.all.insert(denied);
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
    source.control(|state| deny(state, Operation::Read, ResourceType::Topic, LOG));
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
