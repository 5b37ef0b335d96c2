//! A real broker that writes its own time into what it is sent.

use crate::fake::append_time::times_are_kept;
use crate::support::{KafkaVersion, pair};

#[test]
fn a_prepared_topic_that_takes_the_brokers_time_is_put_right_before_the_first_record() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let lines = "configs: { enabled: false }";
    times_are_kept(&source.bootstrap(), &target.bootstrap(), lines);
}
