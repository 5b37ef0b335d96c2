//! A source whose brokers have other defaults.

use crate::shared::metadata_configs::{
    Following, PROMISED, alter, await_held, await_override, obstacles, overridden,
};
use crate::support::{Cluster, ClusterOptions, KafkaVersion, create_topic, pair};

/// As MirrorMaker 2's `testReplicateTargetDefault`, and what it doesn't do: a default of the
/// source that readers would notice.
#[test]
fn a_default_of_the_source_that_differs_is_written_out() {
    let options = ClusterOptions::named("other-defaults")
        .with("log.retention.ms", 86_400_000)
        .with("message.max.bytes", 2_000_000)
        .with("log.segment.bytes", 50_000_000);
    let source = Cluster::start(KafkaVersion::V3_9, options);
    let source = source.bootstrap();
    let target = pair(KafkaVersion::V4_3).1.bootstrap();
    for (topic, on_source) in [
        ("defaults.none", &[][..]),
        (
            "defaults.removed",
            &[("segment.ms", "1000000"), ("cleanup.policy", "compact")][..],
        ),
    ] {
        create_topic(&source, topic, 1, on_source);
        create_topic(&target, topic, 1, &[]);
    }
    let topics = ["defaults.none", "defaults.removed"];
    let following = Following::start("defaults", &source, &target, "", &topics);
    for topic in topics {
        await_override(&target, topic, "retention.ms", Some("86400000"), PROMISED);
        await_override(
            &target,
            topic,
            "max.message.bytes",
            Some("2000000"),
            PROMISED,
        );
        // Segments are the target's own affair.
        assert_eq!(overridden(&target, topic, "segment.bytes"), None);
    }
    let topic = "defaults.removed";
    await_override(&target, topic, "cleanup.policy", Some("compact"), PROMISED);
    alter(
        &source,
        topic,
        &[("segment.ms", None), ("cleanup.policy", None)],
    );
    await_override(&target, topic, "segment.ms", None, PROMISED);
    await_override(&target, topic, "cleanup.policy", None, PROMISED);

    // A 4.x target would refuse timestamps an hour ahead, a 3.x source takes them.
    let held = await_held(&target, "defaults", topic);
    let no_limit = i64::MAX.to_string();
    assert_eq!(
        held.values["message.timestamp.after.max.ms"],
        Some(no_limit)
    );
    assert_eq!(held.values["message.timestamp.type"], None);
    let report = following.report();
    assert!(obstacles(&report).is_empty(), "{report:#?}");
}
