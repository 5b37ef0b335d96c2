//! What a target's brokers are set to must not keep a batch of the source's out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fake::settings::policies_are_obeyed;
use crate::support::flow::flow_config;
use crate::support::java::with_creation_policy;
use crate::support::topic_configs;
use crate::support::{
    Cluster, ClusterOptions, Codec, KafkaVersion, Load, Twinlog, await_same, create_topic,
    fake_pair,
};

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_creation_policy_costs_what_it_refuses_and_no_topic() {
    let version = KafkaVersion::V4_3;
    let options = with_creation_policy(version, ClusterOptions::named("managed"));
    let target = Cluster::start(version, options);
    policies_are_obeyed(&fake_pair().0.bootstrap(), &target.bootstrap());
}

/// Merged batches fit too: a segment that holds two of the source's batches, and a codec in which the
/// broker writes them four times as large.
#[test]
fn what_is_merged_fits_a_small_segment_and_another_codec() {
    let target = Cluster::start(KafkaVersion::V3_9, ClusterOptions::named("small-segments"));
    let (source, target) = (fake_pair().0.bootstrap(), target.bootstrap());
    let topic = "small";
    create_topic(&source, topic, 1, &[]);
    for first in (0..400).step_by(20) {
        Load::new(topic, 20)
            .first(first)
            .value_bytes(500)
            .codec(Codec::Lz4)
            .produce(&source);
    }
    let lines = "configs: { fixed: { segment.bytes: 16384, compression.type: uncompressed } }";
    let config = flow_config("small", topic, &source, &target, lines);
    let twinlog = Twinlog::start(&config);
    await_same(&source, &target, topic, DEADLINE);
    let log = twinlog.log();
    assert!(!log.contains("too_large"), "{log}");
}

/// Up to 3.9 the obsolete limit counts where the two newer ones have none (`LogConfig`).
#[test]
fn records_older_than_the_obsolete_limit_of_timestamps_are_copied() {
    let options = ClusterOptions::named("old-limit")
        .with("log.message.timestamp.difference.max.ms", 3_600_000);
    let target = Cluster::start(KafkaVersion::V3_9, options);
    let (source, target) = (fake_pair().0.bootstrap(), target.bootstrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later");
    let two_days_ago = now - Duration::from_secs(2 * 86_400);
    let two_days_ago_ms = i64::try_from(two_days_ago.as_millis()).expect("small");
    let topics = ["limit.new", "limit.undone"];
    for topic in topics {
        create_topic(&source, topic, 1, &[]);
        Load::new(topic, 100)
            .timestamps_from(two_days_ago_ms)
            .produce(&source);
    }
    let lines = "metadata_interval: 500ms";
    let config = flow_config("limit", "limit[.].*", &source, &target, lines);
    let twinlog = Twinlog::start(&config);
    for topic in topics {
        await_same(&source, &target, topic, DEADLINE);
    }
    // Whoever sets it back stops nothing for long.
    let key = "message.timestamp.difference.max.ms";
    topic_configs::set(&target, "limit.undone", key, "3600000");
    Load::new("limit.undone", 100)
        .first(100)
        .timestamps_from(two_days_ago_ms)
        .produce(&source);
    await_same(&source, &target, "limit.undone", DEADLINE);
    let log = twinlog.log();
    assert!(!log.contains("partition stopped"), "{log}");
}
