//! A standby that has a source replica in its own rack fetches from it (KIP-392).

use std::time::Duration;

use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, await_same, create_topic,
};

const DEADLINE: Duration = Duration::from_secs(90);

#[test]
fn the_replica_in_our_rack_is_fetched_from() {
    let version = KafkaVersion::V4_3;
    let three = ClusterOptions {
        nodes: 3,
        ..ClusterOptions::named("source")
    }
    .with(
        "replica.selector.class",
        "org.apache.kafka.common.replica.RackAwareReplicaSelector",
    );
    let mut source_cluster = Cluster::launch(version, three);
    let mut target_cluster = Cluster::launch(version, ClusterOptions::named("target"));
    source_cluster.await_ready();
    target_cluster.await_ready();
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    // Six partitions with a replica everywhere: most have their leader in another rack.
    create_topic(&source, "orders", 6, &[]);
    Load::new("orders", 600).produce(&source);

    let config = Twinlog::config(&source, &target, "").replace(
        &format!("bootstrap.servers: \"{source}\""),
        &format!("bootstrap.servers: \"{source}\", client.rack: rack-2"),
    );
    let twinlog = Twinlog::start(&config);
    await_same(&source, &target, "orders", DEADLINE);
    twinlog.wait_until(
        DEADLINE,
        "every partition is fetched from broker 2",
        |status| {
            let partitions = status["flows"][0]["topics"][0]["partitions"].as_array();
            partitions.is_some_and(|all| {
                all.len() == 6 && all.iter().all(|one| one["source_broker"] == 2)
            })
        },
    );
    Load::new("orders", 600).first(600).produce(&source);
    await_same(&source, &target, "orders", DEADLINE);
}
