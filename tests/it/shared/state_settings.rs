//! The state topic's configs on real brokers.

use crate::fake::state_settings::{put_right, told_beside};
use crate::support::{KafkaVersion, pair};

#[test]
fn a_state_topic_that_somebody_made_otherwise_is_put_right() {
    let (source, target) = pair(KafkaVersion::V4_3);
    put_right(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn what_holds_without_an_override_is_told_beside_it() {
    for version in [KafkaVersion::V4_3, KafkaVersion::V3_9] {
        let (_, target) = pair(version);
        told_beside(&target.bootstrap());
    }
}
