//! A source that tells no cluster id may be another cluster: nothing is taken away from the standby for what it lacks.

use std::time::Duration;

use crate::fake::metadata_acls::{DEADLINE, OFTEN, SOON, await_held, await_looks, start};
use crate::support::fake::fake_authorized_pair;
use crate::support::flow::{block_on, flow_config, wire_cluster};
use crate::support::groups::{commit, committed, has_had_groups};
use crate::support::{
    FakeCluster, Load, Twinlog, acls, add_acls, await_acls, await_caught_up, create_topic,
    eventually, fake_pair, remove_acls,
};
use serde_json::Value;
use twinlog::wire;

const READ: &str = "ALLOW READ User:alice * topic orders";
const DENIED: &str = "DENY READ User:mallory * topic orders";
const WRITE: &str = "ALLOW WRITE User:shop * topic orders";

/// From here on the cluster at these addresses has this id; an empty one is told to nobody.
fn be_called(cluster: &FakeCluster, id: &str) {
    cluster.control(|state| id.clone_into(&mut state.cluster_id));
}

/// What the status says of ACLs that can't be followed, by reason and whether it is a problem.
fn obstacles(status: &Value) -> Vec<(String, bool)> {
    let obstacles = status["flows"][0]["metadata"]["obstacles"].as_array();
    let of_acls = obstacles
        .into_iter()
        .flatten()
        .filter(|it| it["kind"] == "acl");
    of_acls
        .map(|it| {
            let reason = it["reason"].as_str().unwrap_or_default();
            (reason.to_owned(), it["is_problem"] == true)
        })
        .collect()
}

/// What the status asks the operator to look at: the subjects' details.
fn attention(status: &Value) -> Vec<String> {
    let all = status["flows"][0]["metadata"]["attention"].as_array();
    let details = all.into_iter().flatten().map(|it| it["detail"].as_str());
    details
        .map(|it| it.unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn acls_stay_while_a_source_does_not_say_who_it_is() {
    let (source, target) = fake_authorized_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "orders", 1, &[]);
    add_acls(&from, &[READ, DENIED, WRITE]);
    let twinlog = start(&from, &to, OFTEN);
    await_acls(&to, &[READ, DENIED], DEADLINE);
    let held = "topic orders: ALLOW WRITE User:shop from *";
    await_held(&twinlog, &[held]);

    be_called(&source, "");
    remove_acls(&from, &[READ, DENIED, WRITE]);
    await_looks(&twinlog, 4);
    await_acls(&to, &[READ, DENIED], SOON);
    await_held(&twinlog, &[held]);
    let untold = [("untold_cluster".to_owned(), true)];
    twinlog.wait_until(DEADLINE, "it is said why they stay", |status| {
        obstacles(status) == untold
    });
    // What it has more still follows.
    let more = "DENY WRITE User:mallory * topic orders";
    add_acls(&from, &[more]);
    await_acls(&to, &[READ, DENIED, more], DEADLINE);

    // It is the one that it was: what it lacks is gone there.
    be_called(&source, "authorized-source");
    await_acls(&to, &[more], DEADLINE);
    await_held(&twinlog, &[]);
    assert!(obstacles(&await_looks(&twinlog, 1)).is_empty());
}

#[test]
fn an_id_that_comes_later_takes_no_acl_away() {
    let (source, target) = fake_authorized_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    be_called(&source, "");
    create_topic(&from, "orders", 1, &[]);
    add_acls(&from, &[READ, DENIED]);
    let twinlog = start(&from, &to, OFTEN);
    await_acls(&to, &[READ, DENIED], DEADLINE);
    remove_acls(&from, &[READ]);
    await_looks(&twinlog, 4);
    await_acls(&to, &[READ, DENIED], SOON);
    // For such a service that is as usual: nobody is woken, and the operator can remove it.
    let status = twinlog.wait_until(DEADLINE, "the operator is told", |status| {
        attention(status) == ["ALLOW READ User:alice from *"]
    });
    assert!(obstacles(&status).is_empty(), "{status:#}");

    be_called(&source, "at-last");
    remove_acls(&from, &[DENIED]);
    await_looks(&twinlog, 4);
    await_acls(&to, &[READ, DENIED], SOON);
    remove_acls(&to, &[READ]);
    twinlog.wait_until(DEADLINE, "the other one is left", |status| {
        attention(status) == ["DENY READ User:mallory from *"]
    });
    assert_eq!(acls(&to).len(), 1);
}

#[test]
fn groups_stay_while_a_source_does_not_say_who_it_is() {
    for (name, later) in [("before", ""), ("from-the-beginning", "at-last")] {
        let (source, target) = match later {
            "" => fake_pair(),
            _ => (FakeCluster::named(""), FakeCluster::named("other")),
        };
        let (from, to) = (source.bootstrap(), target.bootstrap());
        has_had_groups(&to);
        create_topic(&from, name, 1, &[]);
        Load::new(name, 100).produce(&from);
        commit(&from, name, &[(name, 0, 20)]);
        let lines = format!("groups: {{ include: [\"{name}\"], delete: true }}");
        let twinlog = Twinlog::start(&flow_config(name, name, &from, &to, &lines));
        await_caught_up(&twinlog, DEADLINE);
        let on_target = || committed(&to, name, name, 1)[0];
        eventually(DEADLINE, "it is followed", || match on_target() {
            Some(20) => Ok(()),
            found => Err(found),
        });
        be_called(&source, later);
        // What is known of the source is as old as the last look at it.
        std::thread::sleep(Duration::from_secs(2));
        let group = [name.to_owned()];
        let deleted = block_on(wire::delete_groups(&wire_cluster(&from), &group));
        assert!(deleted[name].is_ok(), "{deleted:?}");
        twinlog.await_group(name, "gone_on_source", DEADLINE);
        eventually(DEADLINE, "it is held back", || {
            let log = twinlog.log();
            match log.contains("no group is deleted for what it lacks") {
                true => Ok(()),
                false => Err(log),
            }
        });
        assert_eq!(on_target(), Some(20), "{}", twinlog.log());
    }
}
