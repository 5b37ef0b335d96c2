//! What the fake says of time is true of a real broker. The same holds on the fake, in the tests of its crate.

use fake_kafka::scenarios::{CHECK_INTERVAL_MS, EXPIRATION_MS, run_aging};

use crate::support::{Cluster, ClusterOptions, KafkaVersion};

#[test]
fn producers_and_keys_age_on_kafka_4_3() {
    let options = ClusterOptions::named("truth")
        .with("producer.id.expiration.ms", EXPIRATION_MS)
        .with(
            "producer.id.expiration.check.interval.ms",
            CHECK_INTERVAL_MS,
        )
        .with("log.cleaner.backoff.ms", 100);
    let broker = Cluster::start(KafkaVersion::V4_3, options);
    run_aging(&broker.bootstrap(), "truth-", &mut |_| {});
}
