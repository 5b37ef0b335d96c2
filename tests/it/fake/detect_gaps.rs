//! What must never pass in silence: lost source records, replaced topics, strangers' writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::flow::{
    await_position, await_stopped, block_on, flow_config, is_caught_up, partition_status,
    topic_status, wire_cluster, with_state,
};
use crate::support::mapped::assert_same_sequence;
use crate::support::{
    Isolation, Load, Transactions, Twinlog, assert_same, await_same, create_topic, delete_records,
    delete_topic, end_offset, fake_pair, read_all,
};
use twinlog::batch::{self, Stamp};
use twinlog::state::{FlowRecord, GapRecord};
use twinlog::wire::{self, TopicPartition};

const DEADLINE: Duration = Duration::from_secs(60);

/// The lines of `/metrics` that begin like this.
fn metric(twinlog: &Twinlog, start: &str) -> Vec<String> {
    let metrics = twinlog.metrics();
    let lines = metrics.lines().filter(|line| line.starts_with(start));
    lines.map(str::to_owned).collect()
}

/// In the log it is behind what was `logged` before this run.
fn assert_seen_everywhere(
    twinlog: &Twinlog,
    logged: usize,
    flow: &str,
    reason: &str,
    stopped: u64,
) {
    let start =
        format!("twinlog_partitions{{flow=\"{flow}\",state=\"stopped\",reason=\"{reason}\"}}");
    assert_eq!(
        metric(twinlog, &start),
        [format!("{start} {stopped}")],
        "{}",
        twinlog.metrics()
    );
    twinlog.await_log("the log names it", |log| {
        let mut lines = log[logged..].lines();
        lines.any(|line| line.contains("partition stopped") && line.contains(reason))
    });
    assert_eq!(twinlog.status()["ready"], false);
}

#[test]
fn a_gap_stops_its_partition_and_no_other() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "gap-stop", 2, &[]);
    Load::new("gap-stop", 200).produce(&source);
    let config = flow_config("gap-stop", "gap-stop", &source, &target, "");
    let mut twinlog = Twinlog::start(&config);
    await_same(&source, &target, "gap-stop", DEADLINE);
    twinlog.terminate();

    Load::new("gap-stop", 200).first(200).produce(&source);
    delete_records(&source, "gap-stop", 0, 150);
    twinlog.launch();
    await_stopped(&twinlog, "gap-stop", 0, "gap");
    let status = twinlog.wait_until(DEADLINE, "the other partition goes on", |status| {
        is_caught_up(status, "gap-stop", 1)
    });
    let detail = partition_status(&status, "gap-stop", 0)["detail"].to_string();
    assert!(detail.contains("100..150"), "{detail}");
    assert_seen_everywhere(&twinlog, 0, "gap-stop", "gap", 1);
    assert_eq!(end_offset(&target, "gap-stop", 0), 100);
    assert_eq!(end_offset(&target, "gap-stop", 1), 200);
}

#[test]
fn a_recorded_gap_is_passed_at_the_same_offsets() {
    let (source, target) = fake_pair();
    gaps_are_recorded(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn gaps_are_recorded(source: &str, target: &str) {
    create_topic(source, "gap-record", 1, &[]);
    Load::new("gap-record", 100).produce(source);
    let lines = "on_gap: record";
    let config = flow_config("gap-record", "gap-record", source, target, lines);
    let mut twinlog = Twinlog::start(&config);
    await_same(source, target, "gap-record", DEADLINE);

    // Once with Twinlog down.
    twinlog.kill9();
    Load::new("gap-record", 100).first(100).produce(source);
    delete_records(source, "gap-record", 0, 150);
    twinlog.launch();
    await_position(&twinlog, "gap-record", 0, 200);
    let gaps = assert_gaps_recorded(&twinlog, source, target, 150);
    assert_eq!(gaps, [(100, 150)]);

    // Once under its hands: the fetch that waits at the broker is answered with the first of
    // these records, and the next one finds them gone.
    twinlog.signal("STOP");
    Load::new("gap-record", 100).first(200).produce(source);
    Load::new("gap-record", 100).first(300).produce(source);
    delete_records(source, "gap-record", 0, 390);
    twinlog.signal("CONT");
    await_position(&twinlog, "gap-record", 0, 400);
    let gaps = assert_gaps_recorded(&twinlog, source, target, 390);
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert_eq!(gaps[1].1, 390);
    assert!(twinlog.log().contains("the gap is recorded"));
}

/// A gap that would cost too much to fill: `auto` goes on mapped from there, and a mapped partition
/// passes any gap.
#[test]
fn a_recorded_gap_beyond_every_limit_is_passed_by_a_map() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "gap-long", 2, &[]);
    Load::new("gap-long", 100).partition(0).produce(&source);
    Load::new("gap-long", 100).partition(1).produce(&source);
    let lines = "on_gap: record\noffsets: { mode: auto, burn_limit: 20, fill_limit: 40 }";
    let config = flow_config("dr", "gap-long", &source, &target, lines);
    let mut twinlog = Twinlog::start(&config);
    await_same(&source, &target, "gap-long", DEADLINE);
    let mut copied = 100;
    for (round, (first, from)) in [(100, 200), (300, 400)].into_iter().enumerate() {
        twinlog.terminate();
        Load::new("gap-long", 200)
            .first(first)
            .partition(0)
            .produce(&source);
        let end = end_offset(&source, "gap-long", 0);
        delete_records(&source, "gap-long", 0, from);
        twinlog.launch();
        await_position(&twinlog, "gap-long", 0, end);
        copied += 100;
        assert_eq!(end_offset(&target, "gap-long", 0), copied, "{round}");
    }
    let status = twinlog.wait_until(DEADLINE, "it is told", |status| {
        topic_status(status, "gap-long")["offsets"] == "mapped"
    });
    let reason = topic_status(&status, "gap-long")["offsets_reason"].to_string();
    let told = "1 of 2 partition(s), 0: 100 source offsets from 100 on have no record";
    assert!(reason.contains(told), "{reason}");
    let read = |cluster: &str, isolation| {
        let mut records = read_all(cluster, "gap-long", isolation);
        records.retain(|record| record.partition == 0);
        records
    };
    let there = read(&source, Isolation::ReadCommitted);
    let mut copies = read(&target, Isolation::ReadUncommitted);
    // The two gaps lie before what the source still has.
    let last = copies.split_off(copies.len() - there.len());
    assert_same_sequence(&there, &last);
    Load::new("gap-long", 10).partition(1).produce(&source);
    await_position(&twinlog, "gap-long", 1, 110);
}

#[test]
fn a_recorded_gap_that_identical_offsets_cannot_pass_says_why() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "gap-same", 1, &[]);
    Load::new("gap-same", 100).produce(&source);
    let lines = "on_gap: record\noffsets: { mode: identical, burn_limit: 20, fill_limit: 40 }";
    let config = flow_config("dr", "gap-same", &source, &target, lines);
    let mut twinlog = Twinlog::start(&config);
    await_same(&source, &target, "gap-same", DEADLINE);
    twinlog.terminate();
    Load::new("gap-same", 200).first(100).produce(&source);
    delete_records(&source, "gap-same", 0, 200);
    twinlog.launch();
    let status = await_stopped(&twinlog, "gap-same", 0, "not_identical");
    let detail = partition_status(&status, "gap-same", 0)["detail"].to_string();
    let told = "100 source offsets from 100 on have no record, more than offsets.fill_limit 40";
    assert!(detail.contains(told), "{detail}");
    assert!(detail.contains("set `offsets: auto`"), "{detail}");
}

/// Asserts that both sides are the same from the source's log start on, and that the gaps in the
/// state topic, which are returned, are the ones that were counted.
fn assert_gaps_recorded(
    twinlog: &Twinlog,
    source: &str,
    target: &str,
    start: i64,
) -> Vec<(i64, i64)> {
    let still_there = read_all(source, "gap-record", Isolation::ReadCommitted);
    assert_eq!(still_there[0].offset, start);
    let mut copied = read_all(target, "gap-record", Isolation::ReadUncommitted);
    copied.retain(|record| record.offset >= start);
    assert_same(&still_there, &copied);
    let mut gaps: Vec<(i64, i64)> = with_state(target, |state| {
        let keys = state.keys("gap/gap-record/gap-record/0/");
        let record = |key: &String| state.get::<GapRecord>(key).expect("a gap record");
        let records = keys.iter().filter_map(record);
        records.map(|record| (record.from, record.to)).collect()
    });
    gaps.sort_unstable();
    let lost: i64 = gaps.iter().map(|(from, to)| to - from).sum();
    let counted = metric(twinlog, "twinlog_flow_gap_offsets_total");
    assert!(counted[0].ends_with(&format!(" {lost}")), "{counted:?}");
    gaps
}

#[test]
fn a_recreated_source_topic_stops_and_its_copy_stays() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "anew-stop", 1, &[]);
    create_topic(&source, "anew-stop-other", 1, &[]);
    Load::new("anew-stop", 100).produce(&source);
    let config = flow_config("anew-stop", "anew-stop.*", &source, &target, "");
    let mut twinlog = Twinlog::start(&config);
    let copy = await_same(&source, &target, "anew-stop", DEADLINE);

    delete_topic(&source, "anew-stop");
    create_topic(&source, "anew-stop", 1, &[]);
    // More than the old one had: the offsets alone would look like a continuation.
    Load::new("anew-stop", 300).first(7_000).produce(&source);
    let mut logged = 0;
    for _ in 0..2 {
        await_stopped(&twinlog, "anew-stop", 0, "source_recreated");
        Load::new("anew-stop-other", 10).produce(&source);
        await_same(&source, &target, "anew-stop-other", DEADLINE);
        assert_seen_everywhere(&twinlog, logged, "anew-stop", "source_recreated", 1);
        assert_same(
            &copy,
            &read_all(&target, "anew-stop", Isolation::ReadUncommitted),
        );
        twinlog.kill9();
        logged = twinlog.log().len();
        twinlog.launch();
    }
}

#[test]
fn a_recreated_source_topic_can_replace_its_copy() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "anew", 1, &[]);
    Load::new("anew", 300).produce(&source);
    let config = flow_config("anew", "anew", &source, &target, "on_recreate: recreate");
    let mut twinlog = Twinlog::start(&config);
    await_same(&source, &target, "anew", DEADLINE);

    // Once with Twinlog down, once under its hands; once shorter, once longer than before.
    for (round, count) in [100_u64, 400].into_iter().enumerate() {
        if round == 0 {
            twinlog.kill9();
        }
        delete_topic(&source, "anew");
        create_topic(&source, "anew", 1, &[]);
        Load::new("anew", count).first(50_000).produce(&source);
        if round == 0 {
            twinlog.launch();
        }
        let end = i64::try_from(count).expect("small");
        twinlog.wait_until(DEADLINE, "the new topic is copied", |status| {
            partition_status(status, "anew", 0)["source_position"] == end
                && is_caught_up(status, "anew", 0)
        });
        await_same(&source, &target, "anew", DEADLINE);
    }
    assert!(twinlog.log().contains("its copy is replaced"));
}

#[test]
fn a_strangers_write_under_load_stops_that_partition_for_good() {
    let (source, target) = fake_pair();
    stranger_writes_under_load(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn stranger_writes_under_load(source: &str, target: &str) {
    create_topic(source, "foreign-load", 3, &[]);
    let config = flow_config("foreign-load", "foreign-load", source, target, "");
    let mut twinlog = Twinlog::start(&config);
    await_position(&twinlog, "foreign-load", 0, 0);

    let enough = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut first = 0;
            while !enough.load(Ordering::Relaxed) {
                let load = Load::new("foreign-load", 300).first(first);
                load.with("batch.num.messages", 10)
                    .value_bytes(200)
                    .produce(source);
                first += 300;
            }
            first
        });
        await_position(&twinlog, "foreign-load", 0, 100);
        Load::new("foreign-load", 3)
            .first(1_000_000)
            .partition(0)
            .produce(target);
        await_stopped(&twinlog, "foreign-load", 0, "foreign_write");
        let at = end_offset(target, "foreign-load", 1);
        await_position(&twinlog, "foreign-load", 1, at + 300);
        enough.store(true, Ordering::Relaxed);
        load.join().expect("the load was written")
    });
    let mut logged = 0;
    for _ in 0..2 {
        twinlog.wait_until(DEADLINE, "the other partitions are complete", |status| {
            (1..3).all(|partition| {
                partition_status(status, "foreign-load", partition)["source_position"]
                    == written / 3
                    && is_caught_up(status, "foreign-load", partition)
            })
        });
        await_stopped(&twinlog, "foreign-load", 0, "foreign_write");
        assert_seen_everywhere(&twinlog, logged, "foreign-load", "foreign_write", 1);
        // What Twinlog itself had on its way may lie behind the stranger's records: a restart
        // must not take that for a log of its own.
        twinlog.kill9();
        logged = twinlog.log().len();
        twinlog.launch();
    }
    let others = |bootstrap: &str| {
        let mut records = read_all(bootstrap, "foreign-load", Isolation::ReadCommitted);
        records.retain(|record| record.partition > 0);
        records
    };
    assert_same(&others(source), &others(target));
}

#[test]
fn a_strangers_write_to_an_idle_partition_stops_it() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "foreign-idle", 3, &[]);
    // Partition 1 never had a record, partition 2 has fillers.
    Load::new("foreign-idle", 50).partition(0).produce(&source);
    Transactions::new(Load::new("foreign-idle", 10).partition(2), 3).produce(&source);
    let config = flow_config("foreign-idle", "foreign-idle", &source, &target, "");
    let twinlog = Twinlog::start(&config);
    await_same(&source, &target, "foreign-idle", DEADLINE);
    for partition in 0..3 {
        twinlog.wait_until(DEADLINE, "the partition is idle", |status| {
            is_caught_up(status, "foreign-idle", partition)
        });
        Load::new("foreign-idle", 1)
            .partition(partition)
            .produce(&target);
        await_stopped(&twinlog, "foreign-idle", partition, "foreign_write");
    }
    assert_seen_everywhere(&twinlog, 0, "foreign-idle", "foreign_write", 3);
}

#[test]
fn a_strangers_write_while_down_is_found_at_start() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "foreign-down", 5, &[]);
    for partition in [0, 3, 4] {
        Load::new("foreign-down", 50)
            .partition(partition)
            .produce(&source);
    }
    Transactions::new(Load::new("foreign-down", 10).partition(2), 3).produce(&source);
    let config = flow_config("foreign-down", "foreign-down", &source, &target, "");
    let mut twinlog = Twinlog::start(&config);
    await_same(&source, &target, "foreign-down", DEADLINE);
    for partition in 0..5 {
        twinlog.wait_until(DEADLINE, "everything is copied", |status| {
            is_caught_up(status, "foreign-down", partition)
        });
    }
    twinlog.kill9();
    for partition in 0..4 {
        Load::new("foreign-down", 1)
            .partition(partition)
            .produce(&target);
    }
    append_as_twinlog(&target, "foreign-down", "foreign-down", 3, 50);
    Load::new("foreign-down", 500).first(1_000).produce(&source);
    twinlog.launch();
    // 0: plain. 1: never had a record. 2: with fillers. 3: what Twinlog had on its way when it
    // was killed lies behind the stranger's record.
    for partition in 0..4 {
        await_stopped(&twinlog, "foreign-down", partition, "foreign_write");
    }
    await_position(&twinlog, "foreign-down", 4, 150);
    assert_seen_everywhere(&twinlog, 0, "foreign-down", "foreign_write", 4);
}

/// Appends one record as the flow's own data producer, with the sequence that target offset
/// `expected` would have: what a killed Twinlog's last request looks like.
fn append_as_twinlog(target: &str, flow: &str, topic: &str, partition: i32, expected: i32) {
    let key = format!("flow/{flow}");
    let record: Option<FlowRecord> =
        with_state(target, |state| state.get(&key).expect("a flow record"));
    let stamp = Stamp {
        producer_id: record.expect("the flow ran").data_producer_id,
        producer_epoch: 0,
        base_sequence: expected,
    };
    let late = batch::empty_records_batch(batch::Codec::Zstd, 1, 1_700_000_000_000, stamp);
    let cluster = wire_cluster(target);
    let place = TopicPartition::new(topic, partition);
    block_on(wire::produce_one(&cluster, &place, late, -1)).expect("the batch is appended");
}

/// Deletes a topic of the test's target. It may be made anew at once: nobody waits to see it gone.
fn delete_copy(topic: &str) {
    let (_, target) = fake_pair();
    let was_there = target.control(|state| state.delete_topic(topic));
    assert!(was_there, "{topic} is there");
}

#[test]
fn a_target_topic_with_data_is_refused_and_an_empty_one_adopted() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    for topic in ["taken-full", "taken-empty", "taken-small", "taken-none"] {
        create_topic(&source, topic, 3, &[]);
        Load::new(topic, 90).produce(&source);
    }
    create_topic(&target, "taken-full", 3, &[]);
    Load::new("taken-full", 5).first(900).produce(&target);
    create_topic(&target, "taken-empty", 3, &[]);
    create_topic(&target, "taken-small", 1, &[]);
    let before = read_all(&target, "taken-full", Isolation::ReadUncommitted);

    let config = flow_config("taken", "taken-.*", &source, &target, "");
    let twinlog = Twinlog::start(&config);
    for topic in ["taken-empty", "taken-small", "taken-none"] {
        await_same(&source, &target, topic, DEADLINE);
    }
    for partition in 0..3 {
        await_stopped(&twinlog, "taken-full", partition, "target_not_empty");
    }
    assert_seen_everywhere(&twinlog, 0, "taken", "target_not_empty", 3);
    assert_same(
        &before,
        &read_all(&target, "taken-full", Isolation::ReadUncommitted),
    );

    // Once the operator has made room, it is copied without a restart.
    delete_copy("taken-full");
    await_same(&source, &target, "taken-full", DEADLINE);
}

#[test]
fn a_deleted_target_topic_is_copied_again() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "dropped", 2, &[]);
    Load::new("dropped", 200).produce(&source);
    let config = flow_config("dropped", "dropped", &source, &target, "");
    let mut twinlog = Twinlog::start(&config);
    await_same(&source, &target, "dropped", DEADLINE);

    delete_copy("dropped");
    await_same(&source, &target, "dropped", DEADLINE);
    twinlog.kill9();
    delete_copy("dropped");
    Load::new("dropped", 100).first(200).produce(&source);
    twinlog.launch();
    await_same(&source, &target, "dropped", DEADLINE);
    assert!(
        twinlog
            .log()
            .contains("the topic is copied again from its start")
    );
}

/// Its epochs end earlier than what was copied: a restored backup, or an unclean election.
#[test]
fn a_truncated_source_is_never_followed_in_silence() {
    let (cluster, target) = fake_pair();
    let (source, target) = (cluster.bootstrap(), target.bootstrap());
    create_topic(&source, "restored", 2, &[]);
    Load::new("restored", 400).produce(&source);
    let config = flow_config("restored", "restored", &source, &target, "");
    let twinlog = Twinlog::start(&config);
    let cut = || cluster.control(|state| state.truncate("restored", 0, 100));
    stopped_where_the_source_is_cut(twinlog, &source, &target, cut);
}

/// Everything of `restored` is copied, then `cut` takes the end of partition 0 away.
pub(crate) fn stopped_where_the_source_is_cut(
    mut twinlog: Twinlog,
    source: &str,
    target: &str,
    cut: impl FnOnce(),
) {
    let copy = await_same(source, target, "restored", DEADLINE);
    // Caught up, so that the epochs of the last records are known.
    twinlog.wait_until(DEADLINE, "everything is copied", |status| {
        (0..2).all(|partition| is_caught_up(status, "restored", partition))
    });
    cut();
    let mut logged = 0;
    for _ in 0..2 {
        await_stopped(&twinlog, "restored", 0, "source_truncated");
        twinlog.wait_until(DEADLINE, "the whole partition goes on", |status| {
            is_caught_up(status, "restored", 1)
        });
        assert_seen_everywhere(&twinlog, logged, "restored", "source_truncated", 1);
        assert_same(
            &copy,
            &read_all(target, "restored", Isolation::ReadUncommitted),
        );
        twinlog.kill9();
        logged = twinlog.log().len();
        twinlog.launch();
    }
}
