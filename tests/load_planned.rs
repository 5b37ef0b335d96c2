//! Planned cut-overs under the load of real applications, librdkafka and Java: nothing
//! acknowledged is lost, nothing is read twice, everything keeps its offset and its order.

mod support;

use support::failover::{await_failed_over, records};
use support::laws::{OrphanRanges, assert_kept, same_offsets};
use support::stage::{TOPICS, apps, clusters, fail_over, judge, planned_moves};
use support::{KafkaVersion, Twinlog};

fn fails_over_under_load(version: KafkaVersion) {
    let (source, target) = clusters(version);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let twinlog = Twinlog::between(&source, &target);
    let mut apps = apps(version, &source);
    apps.await_flowing(300);
    fail_over(&mut apps, &twinlog, &target);
    await_failed_over(&twinlog);
    apps.await_flowing(200);
    apps.quiet();
    let primary = records(&target, &TOPICS);
    apps.await_read(primary.keys());
    let pages = apps.stop();
    assert!(pages.in_doubt.is_empty(), "{:?}", pages.in_doubt);
    let none = OrphanRanges::new();
    judge(&pages, &primary, &none, &planned_moves(1));
    let old = records(&source, &TOPICS);
    assert_kept("offsets", &same_offsets(&old, &primary, &none));
}

#[test]
fn fails_over_under_load_on_4_3() {
    fails_over_under_load(KafkaVersion::V4_3);
}

#[test]
fn fails_over_under_load_on_3_9() {
    fails_over_under_load(KafkaVersion::V3_9);
}
