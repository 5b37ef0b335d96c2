//! Copying between two real clusters: every kind of record arrives once, at the same offset.

use crate::fake::copy::everything_is_copied;
use crate::support::{KafkaVersion, pair};

fn copied(version: KafkaVersion) {
    let (source, target) = pair(version);
    everything_is_copied(&source.bootstrap(), &target.bootstrap(), Some(version));
}

#[test]
fn everything_is_copied_on_4_3() {
    copied(KafkaVersion::V4_3);
}

#[test]
fn everything_is_copied_on_3_9() {
    copied(KafkaVersion::V3_9);
}
