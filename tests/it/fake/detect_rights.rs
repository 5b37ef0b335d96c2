//! Missing rights are named, and never taken for something else.

use std::time::Duration;

use fake_kafka::acls::{Acl, ResourceType};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;

use crate::support::acls::{self, Operation, Resource};
use crate::support::fake::{fake_fenceable_pair, fake_pair};
use crate::support::flow::{flow_config, is_caught_up, partition_status, topic_status};
use crate::support::{
    Isolation, Load, Transactions, Twinlog, await_same, create_topic, delete_topic, eventually,
    read_all,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Allows one principal every operation on a resource. As soon as a resource has an ACL, nobody
/// without one has any right there.
fn allow(bootstrap: &str, resource: Resource, principal: &str) {
    acls::allow(bootstrap, principal, Operation::All, resource);
}

#[test]
fn a_copy_that_may_not_be_seen_is_not_taken_for_gone() {
    // The strict one is the target here.
    let (target, source) = fake_fenceable_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "hidden", 1, &[]);
    Load::new("hidden", 100).produce(&source);
    let twinlog = Twinlog::start(&flow_config("hidden", "hidden", &source, &target, ""));
    await_same(&source, &target, "hidden", DEADLINE);

    allow(&target, Resource::topic("hidden"), "User:somebody");
    let hint = "grant WRITE, READ and DESCRIBE on this topic";
    twinlog.wait_until(DEADLINE, "the missing right is named", |status| {
        let partition = partition_status(status, "hidden", 0);
        partition["state"] == "retrying"
            && partition["reason"] == "not_authorized"
            && partition["detail"].to_string().contains(hint)
    });
    Load::new("hidden", 100).first(100).produce(&source);
    allow(&target, Resource::topic("hidden"), "User:ANONYMOUS");
    await_same(&source, &target, "hidden", DEADLINE);
    assert!(!twinlog.log().contains("copied again"), "{}", twinlog.log());
}

#[test]
fn a_source_topic_that_may_not_be_seen_is_not_taken_for_gone() {
    let (source, target) = fake_fenceable_pair();
    unseen_source(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn unseen_source(source: &str, target: &str) {
    for topic in ["veiled", "veiled.deleted"] {
        create_topic(source, topic, 2, &[]);
        Load::new(topic, 100).produce(source);
    }
    let config = flow_config("veiled", "veiled.*", source, target, "");
    let mut twinlog = Twinlog::start(&config);
    for topic in ["veiled", "veiled.deleted"] {
        await_same(source, target, topic, DEADLINE);
    }

    allow(source, Resource::topic("veiled"), "User:somebody");
    let hint = "grant READ and DESCRIBE on this topic to Twinlog's principal on the source";
    let is_named = |status: &serde_json::Value| {
        (0..2).all(|number| {
            let partition = partition_status(status, "veiled", number);
            partition["state"] == "retrying"
                && partition["reason"] == "not_authorized"
                && partition["detail"].to_string().contains(hint)
        })
    };
    // A fetch that is refused says the same at once; a topic that really is gone leaves the
    // status in a later look, so by then the list without `veiled` has been judged too.
    twinlog.wait_until(DEADLINE, "the missing right is named", is_named);
    delete_topic(source, "veiled.deleted");
    twinlog.wait_until(DEADLINE, "only the deleted topic is gone", |status| {
        topic_status(status, "veiled.deleted").is_null() && is_named(status)
    });
    let gone = |log: &str| log.matches("the source topic is gone").count();
    let log = twinlog.await_log("it is logged", |log| gone(log) > 0);
    assert_eq!(gone(&log), 1, "{log}");

    // Also to a Twinlog that never saw it.
    assert!(twinlog.terminate().success());
    twinlog.launch();
    twinlog.wait_until(DEADLINE, "the missing right is named again", is_named);
    allow(source, Resource::topic("veiled"), "User:ANONYMOUS");
    Load::new("veiled", 100).first(100).produce(source);
    await_same(source, target, "veiled", DEADLINE);
}

/// Lists leave it out without a word, and its records may still be read.
#[test]
fn a_copied_topic_that_lists_leave_out_is_named_by_whoever_is_asked() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for topic in ["listed", "left-out"] {
        create_topic(&from, topic, 1, &[]);
        Load::new(topic, 20).produce(&from);
    }
    let mut twinlog = Twinlog::between(&from, &to);
    for topic in ["listed", "left-out"] {
        await_same(&from, &to, topic, DEADLINE);
    }
    twinlog.wait_until(DEADLINE, "it is ready", |status| status["ready"] == true);
    source.control(|state| {
        state.acls.is_on = true;
        state.acls.allow_if_no_acl_found = true;
        let who = "User:ANONYMOUS";
        let of = |operation| Acl::allow(who, operation, ResourceType::Topic, "left-out");
        let operation = fake_kafka::acls::Operation::Describe;
        state.acls.all.insert(of(operation).denied());
        state.acls.all.insert(of(fake_kafka::acls::Operation::Read));
    });
    let is_named = |status: &serde_json::Value| {
        let partition = partition_status(status, "left-out", 0);
        let checks = status["flows"][0]["failover"]["checks"].to_string();
        partition["reason"] == "not_authorized" && checks.contains("left-out")
    };
    twinlog.wait_until(DEADLINE, "the topic is named", |status| {
        is_named(status) && status["ready"] == false
    });
    for (command, arguments) in [
        ("status", &[][..]),
        ("check", &[]),
        ("plan", &["--exit-code"]),
        ("verify", &["--quick"]),
        ("verify", &["--full"]),
    ] {
        let done = twinlog.command(command, arguments);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.contains("left-out"), "{command}: {said}");
        if command != "status" {
            assert_eq!(done.status.code(), Some(1), "{command}: {said}");
        }
    }
    // Also by a process that never saw it.
    assert!(twinlog.terminate().success());
    twinlog.launch();
    twinlog.wait_until(DEADLINE, "the topic is named again", is_named);
}

/// A list of groups that is short makes the list of their rights short.
#[test]
fn check_says_where_rights_cant_be_asked_for() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "t", 1, &[]);
    Load::new("t", 10).produce(&from);
    let twinlog = Twinlog::between(&from, &to);
    await_same(&from, &to, "t", DEADLINE);
    let said = |twinlog: &Twinlog| {
        let check = twinlog.command("check", &[]);
        String::from_utf8_lossy(&check.stdout).into_owned()
    };
    let short = "not all rights on groups are asked for";
    let before = said(&twinlog);
    assert!(!before.contains(short), "{before}");
    let refused = Action::Refuse(ResponseError::UnknownServerError);
    source.fault(Fault::on(ApiKey::ListGroups), refused);
    let after = said(&twinlog);
    assert!(after.contains(short), "{after}");
}

#[test]
fn without_the_right_to_write_markers_offsets_are_mapped_and_say_why() {
    // The strict one is the target here.
    let (target, source) = fake_fenceable_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "rights", 1, &[]);
    Transactions::new(Load::new("rights", 10), 6).produce(&source);
    let full = flow_config(
        "full",
        "rights",
        &source,
        &target,
        "rename: \"full.{topic}\"",
    );
    let full = Twinlog::start(&full);
    full.wait_until(DEADLINE, "the topic is copied", |status| {
        is_caught_up(status, "rights", 0)
    });
    assert_eq!(
        topic_status(&full.status(), "rights")["offsets"],
        "identical"
    );
    drop(full);

    allow(&target, Resource::cluster(), "User:somebody");
    let auto = Twinlog::start(&flow_config("auto", "rights", &source, &target, ""));
    let status = auto.wait_until(DEADLINE, "the topic is copied", |status| {
        is_caught_up(status, "rights", 0)
    });
    let topic = topic_status(&status, "rights");
    assert_eq!(topic["offsets"], "mapped", "{topic:#}");
    let reason = topic["offsets_reason"].to_string();
    assert!(reason.contains("CLUSTER_ACTION"), "{reason}");
    assert!(auto.log().contains("CLUSTER_ACTION"), "{}", auto.log());
    let (records, copies) = (
        read_all(&source, "rights", Isolation::ReadCommitted),
        read_all(&target, "rights", Isolation::ReadUncommitted),
    );
    let values = |seen: &[crate::support::Seen]| -> Vec<_> {
        seen.iter()
            .map(|record| (record.key.clone(), record.value.clone()))
            .collect()
    };
    assert_eq!(values(&records), values(&copies));

    let lines = "offsets: identical\nrename: \"same.{topic}\"";
    let identical = Twinlog::start(&flow_config("same", "rights", &source, &target, lines));
    let status = crate::support::flow::await_stopped(&identical, "rights", 0, "not_identical");
    assert_eq!(status["ready"], false);
    let check = identical.command("check", &[]);
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("CLUSTER_ACTION"), "{said}");
    assert_eq!(check.status.code(), Some(1), "{said}");
}

#[test]
fn groups_are_polled_where_the_coordinators_log_may_not_be_read() {
    let (source, target) = fake_fenceable_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "polled", 2, &[]);
    Load::new("polled", 100).produce(&source);
    crate::support::groups::commit(&source, "polled", &[("polled", 0, 7)]);
    allow(
        &source,
        Resource::topic("__consumer_offsets"),
        "User:somebody",
    );
    let lines = "groups: { include: [\"polled\"] }";
    let config = flow_config("polled", "polled", &source, &target, lines);
    let twinlog = Twinlog::start(&config);
    let await_on_target = |wanted: [Option<i64>; 2]| {
        eventually(DEADLINE, "the positions are followed", || {
            match crate::support::groups::committed(&target, "polled", "polled", 2) {
                found if found == wanted => Ok(()),
                found => Err(found),
            }
        });
    };
    await_on_target([Some(7), None]);
    assert_eq!(twinlog.groups()["source"]["way"], "poll");
    crate::support::groups::commit(&source, "polled", &[("polled", 0, 3), ("polled", 1, 9)]);
    await_on_target([Some(3), Some(9)]);
    let checked = twinlog.command("check", &[]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        said.contains("READ and DESCRIBE on topic __consumer_offsets"),
        "{said}"
    );
}
