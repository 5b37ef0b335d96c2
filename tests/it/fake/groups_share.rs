//! Share groups where a fake tells more than real brokers do: who may not be seen, and what is left of whom.

use std::collections::BTreeMap;
use std::time::Duration;

use super::readiness::says;
use crate::support::failover::{failover, words};
use crate::support::fake::FakeCluster;
use crate::support::flow::with_state;
use crate::support::groups::has_had_groups;
use crate::support::{Load, Twinlog, await_caught_up, create_topic, eventually, fake_pair};
use fake_kafka::acls::{Acl, Operation, ResourceType};
use fake_kafka::faults::{Action, Fault};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use twinlog::state::keys;

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";

/// A topic that is copied, and share groups of the source that begin at 30.
fn begin(groups: &[&str]) -> (FakeCluster, FakeCluster) {
    let (source, target) = fake_pair();
    for cluster in [&source, &target] {
        has_had_groups(&cluster.bootstrap());
    }
    create_topic(&source.bootstrap(), TOPIC, 1, &[]);
    Load::new(TOPIC, 100).produce(&source.bootstrap());
    for group in groups {
        set(&source, group, 30);
    }
    (source, target)
}

fn set(cluster: &FakeCluster, group: &str, offset: i64) {
    let offsets = BTreeMap::from([((TOPIC.to_owned(), 0), offset)]);
    cluster.control(|state| state.groups.shares.insert(group.to_owned(), offsets));
}

fn await_start(cluster: &FakeCluster, group: &str, wanted: i64) {
    eventually(DEADLINE, "the share group begins there", || {
        let found = cluster.control(|state| {
            let offsets = state.groups.shares.get(group)?;
            offsets.get(&(TOPIC.to_owned(), 0)).copied()
        });
        match found == Some(wanted) {
            true => Ok(()),
            false => Err(found),
        }
    });
}

/// Its start offset can't be read, so it begins anew on the standby: that is said before, and stops nobody.
#[test]
fn a_share_group_that_may_not_be_described_is_named_before_a_failover() {
    let (source, target) = begin(&["mine", "hidden"]);
    source.control(|state| {
        state.acls.is_on = true;
        state.acls.allow_if_no_acl_found = true;
        let group = ResourceType::Group;
        let denied = Acl::allow("User:ANONYMOUS", Operation::Describe, group, "hidden");
        state.acls.all.insert(denied.denied());
    });
    let mut twinlog = Twinlog::between(&source.bootstrap(), &target.bootstrap());
    await_caught_up(&twinlog, DEADLINE);
    await_start(&target, "mine", 30);
    twinlog.wait_until(DEADLINE, "the group is named", |status| {
        let checks = &status["flows"][0]["failover"]["checks"];
        says(checks, "groups", "warning", "hidden (source)")
    });
    let config = twinlog.config_file().to_owned();
    assert!(twinlog.terminate().success());
    set(&source, "mine", 50);
    for extra in [&["--fence", "manual"][..], &["--fence", "manual", "--yes"]] {
        let done = failover(&config, extra);
        let said = words(&done);
        assert_eq!(done.status.code(), Some(0), "{said}");
        assert!(said.contains("hidden"), "{said}");
        assert!(!said.contains("nothing has to be reset"), "{said}");
    }
    await_start(&target, "mine", 50);
}

#[test]
fn a_share_group_that_neither_cluster_has_any_more_is_forgotten() {
    let (source, target) = begin(&["fleeting", "leaving"]);
    let to = target.bootstrap();
    let mut twinlog = Twinlog::between(&source.bootstrap(), &to);
    await_caught_up(&twinlog, DEADLINE);
    let is_kept = |group: &str| {
        with_state(&to, |store| {
            store.bytes(&keys::share("dr", group)).is_some()
        })
    };
    for group in ["fleeting", "leaving"] {
        await_start(&target, group, 30);
        assert!(is_kept(group));
    }
    let remove = |cluster: &FakeCluster, group: &str| {
        cluster.control(|state| state.groups.shares.remove(group));
    };
    let await_forgotten = |twinlog: &Twinlog, group: &str| {
        eventually(DEADLINE, "the group is forgotten", || {
            let groups = twinlog.groups();
            match groups.to_string().contains(group) || is_kept(group) {
                false => Ok(()),
                true => Err(groups),
            }
        });
    };
    remove(&source, "fleeting");
    twinlog.await_group("fleeting", "gone_on_source", DEADLINE);
    assert!(is_kept("fleeting"), "the target has it");
    remove(&target, "fleeting");
    await_forgotten(&twinlog, "fleeting");
    // While nobody looks.
    twinlog.kill9();
    remove(&source, "leaving");
    remove(&target, "leaving");
    twinlog.launch();
    await_forgotten(&twinlog, "leaving");
    set(&source, "leaving", 60);
    await_start(&target, "leaving", 60);
}

/// Nobody can be asked on the source: what was seen of them is remembered on the standby.
#[test]
fn share_groups_are_counted_when_the_source_is_lost() {
    let (source, target) = begin(&["set"]);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let twinlog = Twinlog::between(&from, &to);
    await_caught_up(&twinlog, DEADLINE);
    await_start(&target, "set", 30);
    // Behind the copy, which doesn't move: it is never set.
    target.fault(
        Fault::on(ApiKey::Produce).topic(TOPIC),
        Action::Refuse(ResponseError::NotEnoughReplicas),
    );
    Load::new(TOPIC, 100).first(100).produce(&from);
    set(&source, "waits", 150);
    twinlog.await_group("waits", "not_yet_copied", DEADLINE);
    let is_kept = || {
        with_state(&to, |store| {
            store.bytes(&keys::share("dr", "waits")).is_some()
        })
    };
    eventually(DEADLINE, "it is remembered", || match is_kept() {
        true => Ok(()),
        false => Err(()),
    });
    source.control(|state| state.stop_broker(1));
    let arguments = ["--unplanned", "--accept-loss", "any"];
    let said = words(&failover(twinlog.config_file(), &arguments));
    assert!(said.contains("2 group(s) are followed"), "{said}");
    assert!(
        said.contains("1 position(s) aren't on the standby"),
        "{said}"
    );
}
