//! The brokers of the bench: one node each, with the JVM's full compiler.

use crate::support::{Cluster, ClusterOptions, KafkaVersion};

/// The version that everything runs on, MirrorMaker 2 included.
pub const VERSION: KafkaVersion = KafkaVersion::V4_3;

/// Options of one broker. Tests run with a small heap and the quick compiler; a bench doesn't.
pub fn options(name: &str) -> ClusterOptions {
    let mut options = ClusterOptions::named(name)
        .with("auto.create.topics.enable", false)
        .with("log.retention.check.interval.ms", 300_000)
        .with("log.cleaner.backoff.ms", 15_000)
        .with("num.network.threads", 3)
        .with("num.io.threads", 8);
    options.jvm_arguments = vec![
        "-Xms512m".into(),
        "-Xmx512m".into(),
        "-XX:TieredStopAtLevel=4".into(),
    ];
    // More arguments, such as -XX:StartFlightRecording, to see what a broker's time goes to.
    if let Ok(more) = std::env::var("BENCH_BROKER_JVM_ARGUMENTS") {
        let more = more.split_whitespace().map(str::to_owned);
        options.jvm_arguments.extend(more);
    }
    options
}

/// Starts one broker.
pub fn start(name: &str) -> Cluster {
    Cluster::start(VERSION, options(name))
}
