//! Holes that cost more than they are worth: what is said of them before, and how a partition that
//! turned mapped goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use fake_kafka::cleaner::Cleaning;
use serde_json::Value;

use crate::support::flow::{await_position, flow_config, topic_status, with_state};
use crate::support::groups::{commit, committed};
use crate::support::mapped::{assert_same_sequence, stored_map, translate};
use crate::support::verified::assert_verified;
use crate::support::{
    Isolation, Load, Seen, Transactions, Twinlog, await_same, create_topic, end_offset, eventually,
    fake_pair, read_all,
};
use twinlog::offsets::{SourceOffset, TargetOffset, Translation};
use twinlog::state::{TopicRecord, keys};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "dear";
const LINES: &str = "offsets: { mode: auto, fill_limit: 1000 }";
/// Records of the aborted transaction; its marker is one offset more.
const ABORTED: u64 = 2_000;

#[test]
fn a_partition_that_turned_mapped_is_told_everywhere() {
    let (source, target) = fake_pair();
    a_partition_turns(&source.bootstrap(), &target.bootstrap());
}

/// One of two partitions turns while it is copied.
pub(crate) fn a_partition_turns(source: &str, target: &str) {
    create_topic(source, TOPIC, 2, &[]);
    Load::new(TOPIC, 50).partition(0).produce(source);
    Load::new(TOPIC, 40).partition(1).produce(source);
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, source, target, LINES));
    for (partition, end) in [(0, 50), (1, 40)] {
        await_position(&twinlog, TOPIC, partition, end);
    }
    commit(source, "early", &[(TOPIC, 0, 20), (TOPIC, 1, 20)]);
    abort(source, 0, ABORTED);
    Load::new(TOPIC, 30)
        .first(5_000)
        .partition(0)
        .produce(source);
    let hole = i64::try_from(ABORTED).expect("few") + 1;
    // In the hole, and behind it.
    commit(source, "in-the-hole", &[(TOPIC, 0, 60)]);
    commit(source, "late", &[(TOPIC, 0, 50 + hole + 10)]);
    await_position(&twinlog, TOPIC, 0, 80 + hole);
    let turned = with_state(target, |state| {
        let record = state.get::<TopicRecord>(&keys::topic("dr", TOPIC));
        record.expect("readable").expect("copied").turned[&0].clone()
    });
    // The hole comes batch by batch: what fits the limit is filled.
    let filled = turned.fillers;
    assert!(filled <= 1_000, "{turned:?}");
    assert_eq!(turned.from, 50 + filled);
    assert_eq!(end_offset(target, TOPIC, 0), 80 + filled);
    for (group, partition, offset) in [
        ("early", 0, 20),
        ("early", 1, 20),
        ("in-the-hole", 0, (50 + filled).min(60)),
        ("late", 0, 60 + filled),
    ] {
        eventually(
            DEADLINE,
            &format!("{group} has its place"),
            || match committed(target, group, TOPIC, 2)[partition] {
                Some(found) if found == offset => Ok(()),
                other => Err(other),
            },
        );
    }
    let told = twinlog.wait_until(DEADLINE, "it is told", |status| {
        topic_status(status, TOPIC)["offsets"] == "mapped"
    });
    let reason = topic_status(&told, TOPIC)["offsets_reason"].to_string();
    assert!(reason.contains("1 of 2 partition(s), 0: "), "{reason}");
    assert!(
        reason.contains("more than offsets.fill_limit 1000"),
        "{reason}"
    );

    // The next process knows it, and the counters of the target's brokers agree.
    twinlog.kill9();
    Load::new(TOPIC, 20).first(6_000).produce(source);
    abort(source, 1, 100);
    Load::new(TOPIC, 20).first(7_000).produce(source);
    twinlog.launch();
    for partition in 0..2 {
        let end = end_offset(source, TOPIC, partition);
        await_position(&twinlog, TOPIC, partition, end);
    }
    // `verify` judges by the stored map, which follows every few seconds.
    let end = end_offset(target, TOPIC, 0);
    eventually(DEADLINE, "the map is stored", || {
        match stored_map(target, TOPIC, 0).0.target_end() {
            TargetOffset(stored) if stored == end => Ok(()),
            other => Err(other),
        }
    });
    assert_verified(&twinlog, &["--full"]);
    assert!(twinlog.terminate().success());
    let (records, copies) = (
        read_all(source, TOPIC, Isolation::ReadCommitted),
        read_all(target, TOPIC, Isolation::ReadUncommitted),
    );
    assert_same_sequence(&records, &copies);
    assert_translated(&twinlog, &records, &copies);
    let (map, _) = stored_map(target, TOPIC, 0);
    for (source, target) in [
        (49, 49),
        (50, 50),
        (1_500, 50 + filled),
        (50 + hole, 50 + filled),
        (51 + hole, 51 + filled),
    ] {
        let exact = Translation::Exact(TargetOffset(target));
        assert_eq!(map.translate(SourceOffset(source)), exact, "{source}");
    }
}

/// One transaction that is aborted.
fn abort(source: &str, partition: i32, records: u64) {
    let load = Load::new(TOPIC, records).first(100_000);
    let mut aborted = Transactions::new(load.partition(partition), 1);
    aborted.abort_percent = 100;
    aborted.produce(source);
}

/// Every record has its place by `translate`, the other partition's the same.
fn assert_translated(twinlog: &Twinlog, records: &[Seen], copies: &[Seen]) {
    let places: BTreeMap<_, _> = copies
        .iter()
        .map(|it| ((it.partition, it.value.clone()), it.offset))
        .collect();
    for record in records.iter().step_by(13) {
        let copy = places[&(record.partition, record.value.clone())];
        let answer = translate(twinlog, TOPIC, record.partition, record.offset, &[]);
        assert_eq!(answer["offset"], copy, "{answer:#}");
        let way = match record.partition {
            0 => "mapped",
            _ => "identical",
        };
        assert_eq!(answer["offsets"], way, "{answer:#}");
        assert!(record.partition == 0 || record.offset == copy, "{record:?}");
    }
}

/// A compacted log that lost nearly all before the flow began.
#[test]
fn a_log_of_few_records_in_many_offsets_is_foreseen_and_not_filled() {
    let (source, target) = fake_pair();
    create_topic(
        &source.bootstrap(),
        "old",
        1,
        &[("cleanup.policy", "compact")],
    );
    create_topic(
        &source.bootstrap(),
        "young",
        1,
        &[("cleanup.policy", "compact")],
    );
    let load = Load::new("old", 3_000)
        .keys(5)
        .with("batch.num.messages", 10);
    load.produce(&source.bootstrap());
    Load::new("young", 300).keys(5).produce(&source.bootstrap());
    for topic in ["old", "young"] {
        clean(&source, topic);
    }
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let mut twinlog = Twinlog::prepare(&flow_config("dr", "old|young", &from, &to, LINES));
    let planned = twinlog.command("plan", &["--json"]);
    let planned: Value = serde_json::from_slice(&planned.stdout).expect("a plan is JSON");
    let told = |topic: &str| {
        let all = planned["changes"].as_array().expect("a list").iter();
        let mut found = all.filter(|it| it["subject"] == format!("topic {topic}"));
        found.next().expect("it is planned")["detail"].to_string()
    };
    let dear = told("old");
    assert!(
        dear.contains("offsets will be mapped in 1 of 1 partition(s), 0: about 29"),
        "{dear}"
    );
    assert!(
        dear.contains("of its 3000 offsets have no record"),
        "{dear}"
    );
    assert!(!told("young").contains("mapped"), "{}", told("young"));

    twinlog.launch();
    await_position(&twinlog, "old", 0, 3_000);
    assert!(end_offset(&to, "old", 0) < 20, "nothing is filled");
    let read = |cluster: &str| read_all(cluster, "old", Isolation::ReadUncommitted);
    assert_same_sequence(&read(&from), &read(&to));
    await_same(&from, &to, "young", DEADLINE);
    let status = twinlog.status();
    assert_eq!(topic_status(&status, "old")["offsets"], "mapped");
    assert_eq!(topic_status(&status, "young")["offsets"], "identical");
}

/// Leaves each key's newest record.
fn clean(cluster: &crate::support::fake::FakeCluster, topic: &str) {
    cluster.control(|state| {
        let end = {
            let found = state.partition(topic, 0).expect("it is there");
            found.leader_log().expect("it is led").end_offset()
        };
        let cleaning = Cleaning {
            drops_tombstones: false,
            below: end,
        };
        state.compact(topic, 0, cleaning);
    });
}
