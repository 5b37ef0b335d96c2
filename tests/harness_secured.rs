//! The secured clusters of the harness, judged by foreign clients only: who gets in, who doesn't,
//! and what those who are in may do.

mod support;

use support::{
    Cluster, ClusterOptions, Isolation, KafkaVersion, Load, Security, assert_same, create_topic,
    java_produce, java_read, read_all,
};

/// Both clients write and read through SASL and TLS.
fn clients_get_in(version: KafkaVersion, mechanism: &'static str) {
    let security = Security {
        mechanism,
        ..Security::default()
    };
    let cluster = Cluster::start(version, ClusterOptions::secured("secured", security));
    let bootstrap = cluster.bootstrap();
    create_topic(&bootstrap, "both", 2, &[]);
    Load::new("both", 100).produce(&bootstrap);
    java_produce(version, &bootstrap, "both", &["count=50", "first=100"]);
    let seen = read_all(&bootstrap, "both", Isolation::ReadCommitted);
    assert_eq!(seen.len(), 150);
    let by_java = java_read(version, &bootstrap, "both", Isolation::ReadCommitted);
    assert_same(&seen, &by_java);
}

#[test]
fn clients_get_in_on_kafka_4_3() {
    clients_get_in(KafkaVersion::V4_3, "SCRAM-SHA-512");
}

#[test]
fn clients_get_in_on_kafka_3_9() {
    clients_get_in(KafkaVersion::V3_9, "SCRAM-SHA-256");
}
