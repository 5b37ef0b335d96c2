//! Logs that are older than their topics' settings, on brokers that judge every batch.

use crate::fake::settings::{keyless_history_is_copied, lowered_limits_are_no_obstacle};
use crate::support::{KafkaVersion, pair};

#[test]
fn a_batch_from_before_the_limit_was_lowered_is_copied() {
    let (source, target) = pair(KafkaVersion::V4_3);
    lowered_limits_are_no_obstacle(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn records_without_a_key_from_before_a_topic_was_compacted_are_copied() {
    let (source, target) = pair(KafkaVersion::V4_3);
    keyless_history_is_copied(&source.bootstrap(), &target.bootstrap());
}
