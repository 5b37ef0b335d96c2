//! Groups that can't be seen, or not any more: neither gone nor followed, and no reason to leave the others.

use std::time::Duration;

use super::readiness::says;
use crate::support::failover::{failover, words};
use crate::support::groups::{commit, committed, has_had_groups};
use crate::support::{Load, Twinlog, await_caught_up, create_topic, eventually, fake_pair};
use fake_kafka::acls::{Acl, CLUSTER_NAME, Operation, ResourceType};
use fake_kafka::state::State;

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
