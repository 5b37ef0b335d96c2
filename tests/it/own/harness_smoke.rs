//! A cluster of three nodes bears the death of one.

use crate::support::{
    Cluster, ClusterOptions, Isolation, KafkaVersion, Load, create_topic, read_all,
};

/// A node that was killed and one that was stopped come back on their ports with their data.
#[test]
fn three_nodes_survive_a_kill_and_a_restart() {
    let options = ClusterOptions {
        nodes: 3,
        authorizer: true,
        ..ClusterOptions::named("three")
    };
    let mut cluster = Cluster::start(KafkaVersion::V4_3, options);
    let bootstrap = cluster.bootstrap();
    create_topic(&bootstrap, "kept", 3, &[]);
    Load::new("kept", 300).produce(&bootstrap);
    let before = read_all(&bootstrap, "kept", Isolation::ReadCommitted);
    assert_eq!(before.len(), 300);
    cluster.kill(2);
    Load::new("kept", 300).first(300).produce(&bootstrap);
    cluster.restart(2);
    cluster.stop(1);
    cluster.restart(1);
    assert_eq!(cluster.bootstrap(), bootstrap);
    let after = read_all(&bootstrap, "kept", Isolation::ReadCommitted);
    assert_eq!(after.len(), 600);
}
