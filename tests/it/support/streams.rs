//! Groups of Kafka Streams' own protocol (KIP-1071), through `tests/java/StreamsGroup.java`.

use std::process::Command;

use super::java::{arguments, compiled};
use super::version::KafkaVersion;

const SOURCE: &str = include_str!("../../java/StreamsGroup.java");

/// A member joins, commits this position on partition 0 of the topic, and leaves. Only 4.3's clients know the protocol.
pub fn commit_as_streams(bootstrap: &str, group: &str, topic: &str, offset: i64) {
    let version = KafkaVersion::V4_3;
    let classes = compiled(version, "StreamsGroup", SOURCE);
    let output = Command::new("java")
        .args(arguments(version, &classes))
        .arg("StreamsGroup")
        .args(["commit", bootstrap, group, topic, &offset.to_string()])
        .output()
        .expect("java is installed");
    assert!(
        output.status.success(),
        "StreamsGroup failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
