//! A fake cluster to play with: `cargo run -p fake-kafka --example serve -- [BROKERS [CLUSTER_ID]]`. It says where it listens,
//! and serves until its input ends. Two of them are a pair only with ids of their own.

use std::io::Read;

use fake_kafka::tcp::Server;
use fake_kafka::{Cluster, Options};

fn main() {
    let brokers = std::env::args().nth(1).map_or(1, |brokers| {
        brokers
            .parse()
            .expect("usage: serve [BROKERS [CLUSTER_ID]]")
    });
    let defaults = Options::default();
    let cluster = Cluster::new(Options {
        brokers,
        auto_create_topics: true,
        cluster_id: std::env::args().nth(2).unwrap_or(defaults.cluster_id),
        ..Options::default()
    });
    let server = Server::start(&cluster);
    println!("{}", server.bootstrap());
    // It serves as long as whoever started it holds its input.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
