//! Topics that grow or go on a real source: the fake tells the truth.

use crate::fake::metadata_deletion::{deleted_after_the_grace_period, new_partitions_follow};
use crate::support::{KafkaVersion, pair};

#[test]
fn new_partitions_follow_in_time() {
    let (source, target) = pair(KafkaVersion::V4_3);
    new_partitions_follow(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn a_copy_is_deleted_after_the_grace_period_and_a_restart_does_not_prolong_it() {
    let (source, target) = pair(KafkaVersion::V4_3);
    deleted_after_the_grace_period(&source.bootstrap(), &target.bootstrap());
}
