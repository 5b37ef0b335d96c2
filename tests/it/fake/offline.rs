//! A broker is away, and with it the only replica of some partitions: these wait, and only these.

use std::process::Output;
use std::time::Duration;

use crate::support::failover::{failover, words};
use crate::support::fake::options;
use crate::support::flow::{block_on, flow_config, is_caught_up, partition_status, wire_cluster};
use crate::support::groups::{commit, committed};
use crate::support::wait::eventually;
use crate::support::{FakeCluster, Load, Twinlog, await_same, create_topic, end_offset, fake_pair};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::groups::TOPIC as OFFSETS_TOPIC;
use fake_kafka::groups::coordinator::partition_for;
use fake_kafka::state::Options;
use kafka_protocol::messages::ApiKey;
use twinlog::wire;

const DEADLINE: Duration = Duration::from_secs(60);
/// The living ones don't wait for the dead one.
const SOON: Duration = Duration::from_secs(20);
const TOPIC: &str = "orders";
const PARTITIONS: i32 = 6;
const GROUPS: usize = 30;

/// Nothing has a second replica, the coordinators' topic neither.
fn three_brokers(cluster_id: &str) -> FakeCluster {
    let cluster = FakeCluster::start(Options {
        brokers: 3,
        ..options(cluster_id)
    });
    cluster.control(|state| {
        state.groups.settings.topic_replication = 1;
        state.create_offsets_topic();
    });
    cluster
}

/// The partitions of a topic that broker leads.
fn led_by(cluster: &FakeCluster, topic: &str, broker: i32) -> Vec<i32> {
    cluster.look(|state| {
        let partitions = state.topics[topic].partitions.iter();
        let led = partitions.filter(|(_, it)| it.leader == Some(broker));
        led.map(|(number, _)| *number).collect()
    })
}

/// The partitions without a leader wait and are named, the others are caught up.
fn await_all_but(twinlog: &Twinlog, dead: &[i32]) {
    twinlog.wait_until(SOON, "all but the dead ones are copied", |status| {
        (0..PARTITIONS).all(|partition| {
            let found = partition_status(status, TOPIC, partition);
            match dead.contains(&partition) {
                true => found["state"] == "retrying" && found["reason"] == "no_leader",
                false => is_caught_up(status, TOPIC, partition),
            }
        })
    });
}

#[test]
fn a_topic_is_copied_but_for_its_leaderless_partitions() {
    for lines in ["", "offsets: mapped"] {
        let source = three_brokers("source");
        let (_, target) = fake_pair();
        let target = if lines.is_empty() {
            target
        } else {
            FakeCluster::named("other")
        };
        let (from, to) = (source.bootstrap(), target.bootstrap());
        create_topic(&from, TOPIC, PARTITIONS, &[]);
        Load::new(TOPIC, 600).produce(&from);
        let dead = led_by(&source, TOPIC, 2);
        assert_eq!(dead.len(), 2);
        source.control(|state| state.stop_broker(2));

        let mut twinlog = Twinlog::start(&Twinlog::config(&from, &to, lines));
        await_all_but(&twinlog, &dead);
        for partition in 0..PARTITIONS {
            assert_eq!(
                end_offset(&to, TOPIC, partition) == 0,
                dead.contains(&partition)
            );
        }
        // What isn't known yet isn't known after a restart either.
        assert!(twinlog.terminate().success());
        twinlog.launch();
        await_all_but(&twinlog, &dead);
        source.control(|state| state.start_broker(2));
        await_same(&from, &to, TOPIC, DEADLINE);
    }
}

#[test]
fn a_prepared_target_topic_is_filled_but_for_its_leaderless_partitions() {
    let (source, _) = fake_pair();
    let target = three_brokers("target");
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for cluster in [&from, &to] {
        create_topic(cluster, TOPIC, PARTITIONS, &[]);
    }
    Load::new(TOPIC, 600).produce(&from);
    let dead = led_by(&target, TOPIC, 2);
    // One of the dead ones holds a stranger's records: nobody can see that now.
    Load::new(TOPIC, 5).partition(dead[0]).produce(&to);
    target.control(|state| state.stop_broker(2));

    let twinlog = Twinlog::between(&from, &to);
    await_all_but(&twinlog, &dead);
    target.control(|state| state.start_broker(2));
    twinlog.wait_until(
        DEADLINE,
        "only the stranger's partition is left",
        |status| {
            (0..PARTITIONS).all(|partition| {
                let found = partition_status(status, TOPIC, partition);
                match partition == dead[0] {
                    true => found["state"] == "stopped" && found["reason"] == "target_not_empty",
                    false => is_caught_up(status, TOPIC, partition),
                }
            })
        },
    );
}

fn group(number: usize) -> String {
    format!("group-{number}")
}

/// The groups whose coordinator lives, and the others.
fn groups_of(cluster: &FakeCluster, broker: i32) -> (Vec<String>, Vec<String>) {
    let dead = led_by(cluster, OFFSETS_TOPIC, broker);
    let count = cluster.look(|state| state.topics[OFFSETS_TOPIC].partitions.len());
    let count = i32::try_from(count).expect("small");
    (0..GROUPS)
        .map(group)
        .partition(|group| !dead.contains(&partition_for(group, count)))
}

fn commit_all(bootstrap: &str, groups: &[String], offset: i64) {
    for group in groups {
        commit(bootstrap, group, &[(TOPIC, 0, offset)]);
    }
}

fn await_positions(bootstrap: &str, groups: &[String], offset: i64) {
    for group in groups {
        eventually(
            SOON,
            &format!("{group} is at {offset}"),
            || match committed(bootstrap, group, TOPIC, 1)[0] {
                Some(found) if found == offset => Ok(()),
                found => Err(found),
            },
        );
    }
}

#[test]
fn groups_of_living_coordinators_are_followed() {
    for dies in ["source", "target"] {
        let (three, one) = (three_brokers(dies), FakeCluster::named("one"));
        let (source, target) = match dies {
            "source" => (three.clone(), one),
            _ => (one, three.clone()),
        };
        let (from, to) = (source.bootstrap(), target.bootstrap());
        // Of one partition, which the first broker leads.
        create_topic(&from, TOPIC, 1, &[]);
        Load::new(TOPIC, 100).produce(&from);
        let all: Vec<String> = (0..GROUPS).map(group).collect();
        commit_all(&from, &all, 10);
        let mut twinlog = Twinlog::between(&from, &to);
        await_positions(&to, &all, 10);
        let (living, dead) = groups_of(&three, 2);
        assert!(!living.is_empty() && !dead.is_empty());

        three.control(|state| state.stop_broker(2));
        commit_all(&from, &living, 50);
        await_positions(&to, &living, 50);
        assert!(twinlog.terminate().success());
        twinlog.launch();
        commit_all(&from, &living, 90);
        await_positions(&to, &living, 90);
        twinlog.wait_until(SOON, "the status says what can't be seen", |status| {
            status["flows"][0]["groups"]
                .to_string()
                .contains(OFFSETS_TOPIC)
        });
        // They aren't gone, and nobody knows where they are.
        for group in &dead {
            twinlog.await_group(group, "unknown", SOON);
        }
        for group in &living {
            twinlog.await_group(group, "followed", SOON);
        }

        three.control(|state| state.start_broker(2));
        commit_all(&from, &all, 95);
        await_positions(&to, &all, 95);
        for group in &all {
            twinlog.await_group(group, "followed", SOON);
        }
    }
}

/// A coordinator that doesn't answer to a deletion holds up no group of another one, and the deletion is made later.
#[test]
fn a_deletion_that_is_not_answered_holds_up_no_other_coordinator() {
    let (source, target) = (FakeCluster::named("source"), three_brokers("target"));
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 1, &[]);
    Load::new(TOPIC, 100).produce(&from);
    let all: Vec<String> = (0..GROUPS).map(group).collect();
    commit_all(&from, &all, 10);
    let lines = "groups: { include: [\".*\"], delete: true }";
    let _twinlog = Twinlog::start(&flow_config("dr", TOPIC, &from, &to, lines));
    await_positions(&to, &all, 10);
    let (others, its) = groups_of(&target, 2);
    let held = target.fault(Fault::on(ApiKey::DeleteGroups).broker(2), Action::Swallow);
    let goes = &its[..1];
    let deleted = block_on(wire::delete_groups(&wire_cluster(&from), goes));
    assert!(deleted[&goes[0]].is_ok(), "{deleted:?}");
    eventually(SOON, "the deletion is asked for", || {
        match target.fired(held) {
            0 => Err(0),
            _ => Ok(()),
        }
    });
    // No answer comes, and its time is longer than each of the others has: they go on meanwhile.
    commit_all(&from, &others, 30);
    await_positions(&to, &others, 30);
    target.clear(held);
    eventually(DEADLINE, "the group is gone", || {
        match committed(&to, &goes[0], TOPIC, 1)[0] {
            None => Ok(()),
            found => Err(found),
        }
    });
    // As a new one it is followed again.
    commit_all(&from, goes, 60);
    await_positions(&to, goes, 60);
}

#[test]
fn a_failover_names_the_groups_whose_coordinator_is_away() {
    for dies in ["source", "target"] {
        let one = FakeCluster::named("one");
        let three = three_brokers(dies);
        let (source, target) = match dies {
            "source" => (three.clone(), one),
            _ => (one, three.clone()),
        };
        let (from, to) = (source.bootstrap(), target.bootstrap());
        create_topic(&from, TOPIC, 1, &[]);
        Load::new(TOPIC, 100).produce(&from);
        let all: Vec<String> = (0..GROUPS).map(group).collect();
        commit_all(&from, &all, 10);
        let mut twinlog = Twinlog::between(&from, &to);
        await_positions(&to, &all, 10);
        let config = twinlog.config_file().to_owned();
        assert!(twinlog.terminate().success());
        let (living, dead) = groups_of(&three, 2);
        three.control(|state| state.stop_broker(2));
        commit_all(&from, if dies == "source" { &living } else { &all }, 50);

        let names_the_dead = |output: &Output| {
            let said = words(output);
            let is_named = |group: &String| {
                let end = |text: &str| !text.starts_with(|c: char| c.is_ascii_digit());
                said.match_indices(group.as_str())
                    .any(|(at, _)| end(&said[at + group.len()..]))
            };
            assert!(dead.iter().all(is_named), "{said}");
            assert!(!living.iter().any(is_named), "{said}");
            assert!(!said.contains("nothing has to be reset"), "{said}");
        };
        names_the_dead(&failover(&config, &["--fence", "manual"]));
        let done = failover(&config, &["--fence", "manual", "--yes"]);
        assert_eq!(done.status.code(), Some(0), "{}", words(&done));
        names_the_dead(&done);
        await_positions(&to, &living, 50);
    }
}
