//! One of the target's brokers hangs (SIGSTOP): its sockets stay open, and it answers nothing.

use std::time::Duration;

use crate::support::flow::{block_on, is_caught_up, wire_cluster};
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, await_same, create_topic,
};

const DEADLINE: Duration = Duration::from_secs(150);
/// Well below the time after which a request is given up (30 s).
const SOON: Duration = Duration::from_secs(20);
const TOPIC: &str = "spread";
const PARTITIONS: i32 = 6;
const RECORDS: u64 = 60_000;

#[test]
fn a_target_broker_that_hangs_starves_nobody() {
    let version = KafkaVersion::V4_3;
    let mut source = Cluster::launch(version, ClusterOptions::named("source"));
    let two = ClusterOptions {
        nodes: 3,
        ..ClusterOptions::named("target")
    }
    .with("default.replication.factor", 1);
    let mut target = Cluster::launch(version, two);
    source.await_ready();
    target.await_ready();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for cluster in [&from, &to] {
        create_topic(cluster, TOPIC, PARTITIONS, &[]);
    }
    let load = |round: u64| {
        let records = Load::new(TOPIC, RECORDS).first(round * RECORDS);
        records.value_bytes(1_000).produce(&from);
    };
    load(0);
    let lines = "limits: { in_flight: 8MiB, partition_in_flight: 4MiB }";
    let twinlog = Twinlog::start(&Twinlog::config(&from, &to, lines));
    await_same(&from, &to, TOPIC, DEADLINE);

    let leaders = wire_cluster(&to);
    let described = block_on(leaders.metadata(Some(&[TOPIC.to_owned()]))).expect("an answer");
    let leader = |partition| described.leader(TOPIC, partition).map_or(-1, |it| it.0);
    // Not the one that keeps the state: nothing goes on without it.
    let state = block_on(leaders.metadata(Some(&["__twinlog_state".to_owned()])))
        .expect("an answer")
        .leader("__twinlog_state", 0)
        .map_or(-1, |it| it.0);
    let hung = (1..=3).find(|id| *id != state && (0..PARTITIONS).any(|it| leader(it) == *id));
    let hung = hung.expect("another broker");
    let node = usize::try_from(hung).expect("small");
    target.signal(node, "STOP");
    for round in 1..3 {
        load(round);
        twinlog.wait_until(SOON, "the others are whole", |status| {
            let mut others = (0..PARTITIONS).filter(|it| leader(*it) != hung);
            others.all(|partition| is_caught_up(status, TOPIC, partition))
        });
    }
    target.signal(node, "CONT");
    await_same(&from, &to, TOPIC, DEADLINE);
}
