//! A partition that turned mapped, as real brokers and their clients see it.

use crate::fake::holes::a_partition_turns;
use crate::support::{KafkaVersion, pair};

#[test]
fn a_partition_that_turned_mapped_is_told_everywhere() {
    let (source, target) = pair(KafkaVersion::V4_3);
    a_partition_turns(&source.bootstrap(), &target.bootstrap());
}
