//! Exactly once while the leaders of a three-node target move under load.

use std::time::Duration;

use crate::support::{
    Background, Cluster, ClusterOptions, Dice, Ends, KafkaVersion, Twinlog, await_all_same,
    await_caught_up, create_topic,
};

const DEADLINE: Duration = Duration::from_secs(150);

#[test]
fn leaders_move() {
    let mut dice = Dice::new("leaders_move");
    let version = KafkaVersion::V4_3;
    let mut source_cluster = Cluster::launch(version, ClusterOptions::named("source"));
    let three = ClusterOptions {
        nodes: 3,
        ..ClusterOptions::named("target")
    }
    .with("min.insync.replicas", 2);
    let mut target_cluster = Cluster::launch(version, three);
    source_cluster.await_ready();
    target_cluster.await_ready();
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    create_topic(&source, "plain", 3, &[]);
    create_topic(&source, "transactions", 3, &[]);
    let mut load = Background::new();
    load.plain(&source, "plain", 200);
    load.transactions(&source, "transactions");

    let mut twinlog = Twinlog::between(&source, &target);
    let ends = Ends::new(&target, "transactions", 3);
    ends.await_above(0, DEADLINE);
    for node in 1..=3 {
        dice.wait(100, 800);
        // One is stopped in order, the others die.
        if node == 1 {
            target_cluster.stop(node);
        } else {
            target_cluster.kill(node);
        }
        if node == 2 {
            twinlog.kill9();
            twinlog.launch();
        }
        // The copy goes on with two nodes.
        let took = ends.await_above(ends.total(), DEADLINE);
        println!("without node {node} the first new record came after {took:?}");
        dice.wait(100, 800);
        target_cluster.restart(node);
        ends.await_above(ends.total(), DEADLINE);
    }
    println!("{} records written", load.stop());
    await_caught_up(&twinlog, DEADLINE);
    await_all_same(&source, &target, &["plain", "transactions"], DEADLINE);
}
