//! Planned cut-overs under the load of real applications, librdkafka and Java: nothing
//! acknowledged is lost, nothing is read twice, everything keeps its offset and its order.

mod support;

use std::path::Path;
use std::time::Duration;

use support::apps::{Apps, GROUPS, PRODUCERS};
use support::book::Pages;
use support::failover::{answer, await_failed_over, failover, fenceable, records};
use support::laws::{
    self, Again, OrphanRanges, assert_kept, each_acknowledged_once_or_orphaned,
    each_group_read_all, nothing_is_read_again, order_is_kept,
};
use support::{Cluster, ClusterOptions, KafkaVersion, Twinlog, create_topic, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const PLAIN: [(&str, i32); 2] = [("orders", 3), ("events", 2)];
const TRANSACTIONAL: [(&str, i32); 1] = [("payments", 2)];
const TOPICS: [&str; 3] = ["orders", "events", "payments"];
/// Records a second of each producer.
const PER_SECOND: u32 = 150;

/// Two clusters that can both be fenced, and topics on the first.
fn clusters(version: KafkaVersion) -> (Cluster, Cluster) {
    let mut source = Cluster::launch(version, fenceable("source"));
    let mut target = Cluster::launch(version, fenceable("target"));
    source.await_ready();
    target.await_ready();
    for (topic, partitions) in PLAIN.into_iter().chain(TRANSACTIONAL) {
        create_topic(&source.bootstrap(), topic, partitions, &[]);
    }
    (source, target)
}

/// Fails over under load and moves the applications as an operator does.
fn fail_over(apps: &mut Apps, twinlog: &Twinlog, target: &str) {
    let refused = refusals(apps);
    let report = answer(&failover(twinlog.config_file(), &["--yes", "--json"]), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    assert_eq!(report["lost"]["records"], 0, "{report:#}");
    println!("failover: {} s", report["seconds"]);
    eventually(DEADLINE, "every producer is refused", || {
        let now = refusals(apps);
        if now.iter().zip(&refused).all(|(now, before)| now > before) {
            Ok(())
        } else {
            Err(now)
        }
    });
    apps.switch(target);
}

fn refusals(apps: &Apps) -> Vec<u64> {
    apps.book.look(|pages| {
        PRODUCERS
            .iter()
            .map(|producer| pages.refused.get(*producer).copied().unwrap_or(0))
            .collect()
    })
}

/// Every law of a story in which everything was planned.
fn judge(pages: &Pages, primary: &laws::Log, moves: usize) {
    let none = OrphanRanges::new();
    assert!(
        pages.in_doubt.is_empty(),
        "producers had no answer: {:?}",
        pages.in_doubt
    );
    assert_kept(
        "what was acknowledged is there once",
        &each_acknowledged_once_or_orphaned(pages, primary, &none),
    );
    assert_kept("order", &order_is_kept(pages, primary, &none));
    assert_kept("all is read", &each_group_read_all(pages, primary, &GROUPS));
    for group in GROUPS {
        let moves = vec![Again::Nothing; moves];
        assert_kept(
            "nothing is read again",
            &nothing_is_read_again(pages, group, &moves),
        );
    }
    println!("{} records, {moves} moves", pages.acknowledged.len());
}

fn fails_over_under_load(version: KafkaVersion) {
    let (source, target) = clusters(version);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let twinlog = Twinlog::between(&source, &target);
    let mut apps = Apps::start(version, &source, &PLAIN, &TRANSACTIONAL, PER_SECOND);
    apps.await_flowing(300);
    fail_over(&mut apps, &twinlog, &target);
    await_failed_over(&twinlog);
    apps.await_flowing(200);
    apps.quiet();
    let primary = records(&target, &TOPICS);
    apps.await_read(primary.keys());
    let pages = apps.stop();
    judge(&pages, &primary, 1);
    let old = records(&source, &TOPICS);
    assert_kept(
        "offsets",
        &laws::same_offsets(&old, &primary, &OrphanRanges::new()),
    );
}

#[test]
fn fails_over_under_load_on_4_3() {
    fails_over_under_load(KafkaVersion::V4_3);
}

#[test]
fn fails_over_under_load_on_3_9() {
    fails_over_under_load(KafkaVersion::V3_9);
}
