//! The fake Kafka tells enough of the truth for librdkafka, and for `twinlog run` to copy from one fake to another.

mod support;

use std::time::Duration;

use fake_kafka::state::Options;
use fake_kafka::tcp::Server;
use support::{
    Codec, HeaderStyle, Isolation, Load, Twinlog, await_same, create_topic, delete_records,
    read_all,
};

const DEADLINE: Duration = Duration::from_secs(30);
const TOPIC: &str = "orders";

/// A fake cluster and its sockets.
fn fake(cluster_id: &str, brokers: i32) -> (fake_kafka::Cluster, Server) {
    let cluster = fake_kafka::Cluster::new(Options {
        cluster_id: cluster_id.to_owned(),
        brokers,
        ..Options::default()
    });
    let server = Server::start(&cluster);
    (cluster, server)
}

#[test]
fn librdkafka_writes_and_reads() {
    let (_cluster, server) = fake("source", 2);
    let bootstrap = server.bootstrap();
    create_topic(&bootstrap, TOPIC, 3, &[]);
    for (codec, first) in Codec::ALL.into_iter().zip((0..).step_by(200)) {
        Load::new(TOPIC, 200)
            .first(first)
            .headers(HeaderStyle::Every)
            .with("compression.codec", codec.name())
            .produce(&bootstrap);
    }
    let seen = read_all(&bootstrap, TOPIC, Isolation::ReadCommitted);
    assert_eq!(seen.len(), 1_000);
}

#[test]
fn twinlog_copies_from_one_fake_to_another() {
    let (_source, from) = fake("source", 2);
    let (_target, to) = fake("target", 2);
    let (from, to) = (from.bootstrap(), to.bootstrap());
    create_topic(&from, TOPIC, 3, &[]);
    Load::new(TOPIC, 500).partition(0).produce(&from);
    delete_records(&from, TOPIC, 0, 123);
    Load::new(TOPIC, 1_000)
        .headers(HeaderStyle::Every)
        .produce(&from);
    let twinlog = Twinlog::between(&from, &to);
    let seen = await_same(&from, &to, TOPIC, DEADLINE);
    assert_eq!(seen.len(), 1_500 - 123);
    Load::new(TOPIC, 300).first(2_000).produce(&from);
    await_same(&from, &to, TOPIC, DEADLINE);
    drop(twinlog);
}
