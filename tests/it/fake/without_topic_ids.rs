//! Brokers that tell no topic ids, as with ZooKeeper before `inter.broker.protocol.version` 2.8: an id that isn't told is
//! neither the same nor another one.

use std::time::Duration;

use fake_kafka::state::Options;

use crate::support::fake::options;
use crate::support::flow::{is_caught_up, partition_status};
use crate::support::{
    FakeCluster, Load, Twinlog, await_same, create_topic, end_offset, eventually, fake_pair,
};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";
const LINES: &str = "discovery_interval: 200ms";

fn tell_ids(cluster: &FakeCluster, are_told: bool) {
    cluster.control(|state| state.options.without_topic_ids = !are_told);
}

#[test]
fn a_source_without_ids_is_named_and_copied_once_it_has_them() {
    let source = FakeCluster::start(Options {
        without_topic_ids: true,
        ..options("old-source")
    });
    let target = FakeCluster::named("target");
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 1, &[]);
    Load::new(TOPIC, 10).produce(&from);
    let twinlog = Twinlog::start(&Twinlog::config(&from, &to, LINES));
    let status = twinlog.wait_until(DEADLINE, "it is named", |status| {
        partition_status(status, TOPIC, 0)["reason"] == "no_topic_id"
    });
    let detail = partition_status(&status, TOPIC, 0)["detail"].to_string();
    assert!(detail.contains("inter.broker.protocol.version"), "{detail}");
    let checked = twinlog.command("check", &[]);
    assert!(!checked.status.success());
    let words = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(words.contains("tells no id of 1 topic: nothing"), "{words}");
    tell_ids(&source, true);
    await_same(&from, &to, TOPIC, DEADLINE);
}

/// As a broker does for a moment that is older than its cluster: nothing was created anew, so nothing is replaced.
#[test]
fn an_id_that_is_not_told_any_more_is_no_other_one() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 1, &[]);
    Load::new(TOPIC, 10).produce(&from);
    let lines = format!("{LINES}\non_recreate: recreate");
    let twinlog = Twinlog::start(&Twinlog::config(&from, &to, &lines));
    await_same(&from, &to, TOPIC, DEADLINE);
    let id = |cluster: &FakeCluster| cluster.look(|state| state.topics[TOPIC].id);
    let before = id(&target);
    // Of the source: nothing new is fetched meanwhile.
    tell_ids(&source, false);
    twinlog.wait_until(DEADLINE, "it is named", |status| {
        partition_status(status, TOPIC, 0)["reason"] == "no_topic_id"
    });
    tell_ids(&source, true);
    twinlog.wait_until(DEADLINE, "it goes on", |status| {
        is_caught_up(status, TOPIC, 0)
    });
    // Of the target: another topic shows when it was looked at.
    tell_ids(&target, false);
    create_topic(&from, "next", 1, &[]);
    twinlog.wait_until(DEADLINE, "it was looked at", |status| {
        is_caught_up(status, "next", 0) && is_caught_up(status, TOPIC, 0)
    });
    tell_ids(&target, true);
    Load::new(TOPIC, 10).first(10).produce(&from);
    eventually(DEADLINE, "the copy goes on", || {
        match end_offset(&to, TOPIC, 0) {
            20 => Ok(()),
            other => Err(other),
        }
    });
    assert_eq!(id(&target), before, "it is the same copy");
    assert!(
        !twinlog.log().contains("created again"),
        "{}",
        twinlog.log()
    );
}

/// Records go to a target's topic by its name.
#[test]
fn a_target_without_ids_is_copied_to_and_may_get_them_later() {
    let source = FakeCluster::named("source");
    let target = FakeCluster::start(Options {
        without_topic_ids: true,
        ..options("old-target")
    });
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 1, &[]);
    Load::new(TOPIC, 10).produce(&from);
    let mut twinlog = Twinlog::start(&Twinlog::config(&from, &to, LINES));
    await_same(&from, &to, TOPIC, DEADLINE);
    assert!(twinlog.terminate().success());
    tell_ids(&target, true);
    Load::new(TOPIC, 10).first(10).produce(&from);
    twinlog.launch();
    await_same(&from, &to, TOPIC, DEADLINE);
}
