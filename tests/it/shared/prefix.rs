//! Logs that start high, on brokers that compress anew and judge the size afterwards.

use crate::fake::prefix::high_starts_are_reached;
use crate::support::{KafkaVersion, pair};

#[test]
fn a_high_log_start_is_reached_within_the_topic_s_limits() {
    let (source, target) = pair(KafkaVersion::V4_3);
    high_starts_are_reached(&source.bootstrap(), &target.bootstrap());
}
