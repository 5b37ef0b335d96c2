//! What a failover between real clusters waits for, and how it is undone: the fake tells the truth.

use crate::fake::failover_refusals::{abort_that_dies, hanging_transaction, late_topics};
use crate::support::KafkaVersion;
use crate::support::pool::fenceable_pair;

#[test]
fn a_hanging_transaction_is_named() {
    let (source, target) = fenceable_pair(KafkaVersion::V4_3);
    hanging_transaction(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn an_abort_that_dies_is_finished_by_the_next() {
    let (source, target) = fenceable_pair(KafkaVersion::V4_3);
    abort_that_dies(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn topics_that_come_while_it_runs_are_failed_over_too() {
    let (source, target) = fenceable_pair(KafkaVersion::V4_3);
    late_topics(&source.bootstrap(), &target.bootstrap());
}
