//! A broker is away, and with it the only replica of some partitions: these wait, and only these.

use std::time::Duration;

use crate::support::fake::options;
use crate::support::flow::{is_caught_up, partition_status};
use crate::support::{FakeCluster, Load, Twinlog, await_same, create_topic, end_offset, fake_pair};
use fake_kafka::state::Options;

const DEADLINE: Duration = Duration::from_secs(60);
/// The living ones don't wait for the dead one.
const SOON: Duration = Duration::from_secs(20);
const TOPIC: &str = "orders";
const PARTITIONS: i32 = 6;

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
