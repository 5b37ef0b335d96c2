//! Planned cut-overs and the way back under the load of real applications, librdkafka and Java:
//! nothing acknowledged is lost, nothing is read twice, everything keeps its offset and its order.

use std::time::Duration;

use crate::support::failover::records;
use crate::support::laws::{OrphanRanges, assert_kept, same_offsets};
use crate::support::stage::{
    TOPICS, apps, await_same_ends, clusters, fail_back, fail_over, judge, planned_moves,
};
use crate::support::{KafkaVersion, Twinlog};

fn there_and_back(version: KafkaVersion, rounds: usize) {
    let (source, target) = clusters(version);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let twinlog = Twinlog::between(&source, &target);
    let mut apps = apps(version, &source);
    apps.await_flowing(200);
    for _ in 0..rounds {
        fail_over(&mut apps, &twinlog, &target);
        apps.await_flowing(200);
        fail_back(&mut apps, &twinlog, &source, &[]);
        apps.await_flowing(200);
    }
    apps.quiet();
    let primary = records(&source, &TOPICS);
    apps.await_read(primary.keys());
    let pages = apps.stop();
    assert!(pages.in_doubt.is_empty(), "{:?}", pages.in_doubt);
    let none = OrphanRanges::new();
    judge(&pages, &primary, &none, &planned_moves(2 * rounds));
    await_same_ends(&source, &target, Duration::from_secs(30));
    let standby = records(&target, &TOPICS);
    assert_kept("offsets", &same_offsets(&standby, &primary, &none));
    assert_eq!(standby.len(), primary.len());
}

#[test]
fn there_and_back_twice_on_4_3() {
    there_and_back(KafkaVersion::V4_3, 2);
}

#[test]
fn there_and_back_on_3_9() {
    there_and_back(KafkaVersion::V3_9, 1);
}
