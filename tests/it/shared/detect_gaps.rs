//! What must never pass in silence, between real clusters: the fake tells the truth.

use crate::fake::detect_gaps::{gaps_are_recorded, stranger_writes_under_load};
use crate::support::{KafkaVersion, pair};

#[test]
fn a_recorded_gap_is_passed_at_the_same_offsets() {
    let (source, target) = pair(KafkaVersion::V4_3);
    gaps_are_recorded(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn a_strangers_write_under_load_stops_that_partition_for_good() {
    let (source, target) = pair(KafkaVersion::V4_3);
    stranger_writes_under_load(&source.bootstrap(), &target.bootstrap());
}
