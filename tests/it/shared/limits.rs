//! An orderly end between real clusters: the fake tells the truth.

use crate::fake::limits::ends_under_load;
use crate::support::{KafkaVersion, pair};

#[test]
fn a_termination_under_load_drains_and_exits_with_0() {
    let (source, target) = pair(KafkaVersion::V4_3);
    ends_under_load(&source.bootstrap(), &target.bootstrap());
}
