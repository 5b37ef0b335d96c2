//! A group that is too large for one batch of the target's coordinators.

use std::time::Duration;

use crate::support::groups::{commit_with, committed};
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, create_topic, eventually,
};

const DEADLINE: Duration = Duration::from_secs(60);
const GROUP: &str = "large";
const PARTITIONS: i32 = 60;

/// 60 positions with 1 kB beside each, one with 6 kB: the target's log of groups takes batches of 20 kB.
fn follows(version: KafkaVersion) {
    let source = ClusterOptions::named("source").with("offset.metadata.max.bytes", 16_384);
    let target = ClusterOptions::named("target").with("message.max.bytes", 20_000);
    let source = Cluster::start(version, source);
    let target = Cluster::start(version, target);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, GROUP, PARTITIONS, &[]);
    Load::new(GROUP, 600).produce(&from);
    for partition in 0..PARTITIONS {
        let bytes = if partition == 7 { 6_000 } else { 1_000 };
        commit_with(&from, GROUP, partition, 3, &"x".repeat(bytes));
    }
    let _twinlog = Twinlog::between(&from, &to);
    eventually(DEADLINE, "all positions are there", || {
        let found = committed(&to, GROUP, GROUP, PARTITIONS);
        match found.iter().all(|position| *position == Some(3)) {
            true => Ok(()),
            false => Err(found),
        }
    });
}

#[test]
fn it_is_committed_in_several_on_4_3() {
    follows(KafkaVersion::V4_3);
}

/// It says INVALID_COMMIT_OFFSET_SIZE where later ones can't say what is wrong.
#[test]
fn it_is_committed_in_several_on_3_9() {
    follows(KafkaVersion::V3_9);
}
