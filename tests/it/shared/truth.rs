//! The fake tells the truth: what holds on it holds on real brokers. The same holds on the fake, in the tests of its crate.

use fake_kafka::scenarios;

use crate::support::pool::fenceable_pair;
use crate::support::{KafkaVersion, pair};

#[test]
fn every_scenario_holds_on_kafka_4_3() {
    let (broker, _other) = pair(KafkaVersion::V4_3);
    scenarios::run_all(&broker.bootstrap(), "truth-");
}

#[test]
fn every_scenario_holds_on_kafka_3_9() {
    let (broker, _other) = pair(KafkaVersion::V3_9);
    scenarios::run_all(&broker.bootstrap(), "truth-");
}

#[test]
fn every_scenario_of_rights_holds_on_kafka_4_3() {
    let (broker, _other) = fenceable_pair(KafkaVersion::V4_3);
    scenarios::run(
        scenarios::WITH_AUTHORIZER,
        &broker.bootstrap(),
        "truth-rights-",
    );
}
