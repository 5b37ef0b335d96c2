//! Rights that real brokers refuse: the fake tells the truth.

use crate::fake::detect_rights::unseen_source;
use crate::support::KafkaVersion;
use crate::support::pool::fenceable_pair;

#[test]
fn a_source_topic_that_may_not_be_seen_is_not_taken_for_gone() {
    let (source, target) = fenceable_pair(KafkaVersion::V4_3);
    unseen_source(&source.bootstrap(), &target.bootstrap());
}
