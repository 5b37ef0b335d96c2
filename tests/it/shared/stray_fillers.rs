//! Fillers that came too late, or not at all, between real clusters: the fake tells the truth.

use crate::fake::stray_fillers::lost_among_its_neighbours;
use crate::support::{KafkaVersion, pair};

#[test]
fn a_filler_that_was_lost_among_its_neighbours_is_written_again() {
    let (source, target) = pair(KafkaVersion::V4_3);
    lost_among_its_neighbours(&source.bootstrap(), &target.bootstrap());
}
