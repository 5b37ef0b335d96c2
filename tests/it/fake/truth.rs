//! What the fake does. The same scenarios are played on real brokers, by [`crate::shared::truth`].

use fake_kafka::state::Options;
use fake_kafka::tcp::Server;
use fake_kafka::{Cluster, scenarios};

#[test]
fn every_scenario_holds_on_the_fake() {
    let cluster = Cluster::new(Options::default());
    let server = Server::start(&cluster);
    scenarios::run_all(&server.bootstrap(), "");
}
