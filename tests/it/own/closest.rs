//! A standby that has a source replica in its own rack fetches from it (KIP-392).

use std::time::Duration;

use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};

use crate::support::flow::{block_on, partition_status, wire_cluster};
use crate::support::operator::{call, text};
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, await_same, create_topic,
};

const DEADLINE: Duration = Duration::from_secs(90);

/// Kafka's number for a broker as a resource of configs.
const BROKER: i8 = 4;

/// From now on replicas that aren't in sync get next to nothing.
fn throttle(bootstrap: &str) {
    let rate = AlterableConfig::default()
        .with_name(text("follower.replication.throttled.rate"))
        .with_value(Some(text("1")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(text(""))
        .with_configs(vec![rate]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let responses = call(bootstrap, request, 1).responses;
    assert_eq!(responses[0].error_code, 0, "{responses:?}");
}

#[test]
fn a_replica_that_falls_out_of_sync_is_left() {
    let version = KafkaVersion::V4_3;
    let three = ClusterOptions {
        nodes: 3,
        ..ClusterOptions::named("source")
    }
    .with(
        "replica.selector.class",
        "org.apache.kafka.common.replica.RackAwareReplicaSelector",
    )
    .with("replica.lag.time.max.ms", 2_000)
    .with("replica.fetch.max.bytes", 20_000)
    .with("replica.fetch.response.max.bytes", 20_000);
    let mut source_cluster = Cluster::launch(version, three);
    let mut target_cluster = Cluster::launch(version, ClusterOptions::named("target"));
    source_cluster.await_ready();
    target_cluster.await_ready();
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    let throttled = [("follower.replication.throttled.replicas", "*")];
    create_topic(&source, "orders", 1, &throttled);
    let load = |first| {
        let load = Load::new("orders", 500).first(first).value_bytes(1_000);
        load.with("batch.size", 10_000).produce(&source);
    };
    load(0);
    let metadata = block_on(wire_cluster(&source).metadata(None)).expect("an answer");
    let (leader, _) = metadata.leader("orders", 0).expect("it is led");
    let follower = leader % 3 + 1;

    let config = Twinlog::config(&source, &target, "").replace(
        &format!("bootstrap.servers: \"{source}\""),
        &format!("bootstrap.servers: \"{source}\", client.rack: rack-{follower}"),
    );
    let twinlog = Twinlog::start(&config);
    await_same(&source, &target, "orders", DEADLINE);
    let server = |status: &_| partition_status(status, "orders", 0)["source_broker"].as_i64();
    let follower_id = i64::from(follower);
    twinlog.wait_until(DEADLINE, "the follower serves it", |status| {
        server(status) == Some(follower_id)
    });

    throttle(&source);
    let frozen = usize::try_from(follower).expect("a number from 1");
    source_cluster.signal(frozen, "STOP");
    // Acknowledged by the others once it is out of sync.
    load(500);
    source_cluster.signal(frozen, "CONT");
    load(1_000);
    // By the leader, whichever of the others that is by now.
    twinlog.wait_until(DEADLINE, "another one serves it", |status| {
        server(status).is_some_and(|broker| broker != follower_id)
    });
    await_same(&source, &target, "orders", DEADLINE);
}

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
