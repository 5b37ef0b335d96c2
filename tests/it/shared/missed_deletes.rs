//! Tombstones that a real cleaner removes before they are copied.

use std::time::Duration;

use crate::fake::missed_deletes::{TOPIC, delete, keys, missed, write};
use crate::support::flow::{await_position, flow_config};
use crate::support::{
    Isolation, KafkaVersion, Twinlog, create_topic, end_offset, eventually, pair, read_all,
};

const DEADLINE: Duration = Duration::from_secs(120);

/// Segments that roll and are cleaned at once.
fn configs(delete_retention_ms: &str) -> [(&str, &str); 5] {
    [
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", delete_retention_ms),
        ("segment.ms", "300"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "500"),
    ]
}

/// Waits until the source has no record of a key any more, or only its tombstone.
fn await_cleaned(source: &str, key: &str, records: usize) {
    let mut next = 1_000;
    eventually(DEADLINE, "the key is cleaned", || {
        // A segment rolls when something is appended to it.
        write(source, next, 1);
        next += 1;
        let all = read_all(source, TOPIC, Isolation::ReadUncommitted);
        let of_key = all
            .iter()
            .filter(|it| it.key.as_deref() == Some(key.as_bytes()));
        match of_key.count() {
            count if count <= records => Ok(()),
            count => Err(count),
        }
    });
}

#[test]
fn a_tombstone_that_was_removed_while_twinlog_was_down_is_named() {
    removed_while_down(KafkaVersion::V4_3, "", |_, target, twinlog| {
        twinlog.wait_until(DEADLINE, "it is named", |status| {
            missed(status)["from"] == 10
        });
        assert!(keys(target).contains(&"key-3".to_owned()));
    });
}

#[test]
fn a_tombstone_that_was_removed_while_twinlog_was_down_is_written_anew_on_4_3() {
    removed_and_mended(KafkaVersion::V4_3);
}

#[test]
fn a_tombstone_that_was_removed_while_twinlog_was_down_is_written_anew_on_3_9() {
    removed_and_mended(KafkaVersion::V3_9);
}

fn removed_and_mended(version: KafkaVersion) {
    let lines = "on_missed_deletes: mend";
    removed_while_down(version, lines, |source, target, twinlog| {
        twinlog.wait_until(DEADLINE, "it is mended", |status| missed(status).is_null());
        assert!(twinlog.log().contains("missed_deletes"), "it was noticed");
        assert_eq!(keys(target), keys(source));
        assert_eq!(end_offset(target, TOPIC, 0), end_offset(source, TOPIC, 0));
    });
}

/// `judge` is given the addresses and a Twinlog that has caught up again.
fn removed_while_down(
    version: KafkaVersion,
    lines: &str,
    judge: impl FnOnce(&str, &str, &Twinlog),
) {
    let pair = pair(version);
    let (source, target) = (pair.0.bootstrap(), pair.1.bootstrap());
    create_topic(&source, TOPIC, 1, &configs("1000"));
    write(&source, 0, 10);
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, &source, &target, lines));
    await_position(&twinlog, TOPIC, 0, 10);
    twinlog.kill9();
    delete(&source, 3, 1);
    await_cleaned(&source, "key-3", 0);
    twinlog.launch();
    let end = end_offset(&source, TOPIC, 0);
    await_position(&twinlog, TOPIC, 0, end);
    judge(&source, &target, &twinlog);
}

/// The same holes, and the tombstones have their time.
#[test]
fn a_log_that_was_cleaned_while_twinlog_was_down_for_a_moment_is_not_named() {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, TOPIC, 1, &configs("86400000"));
    write(&source, 0, 10);
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, &source, &target, ""));
    await_position(&twinlog, TOPIC, 0, 10);
    twinlog.kill9();
    delete(&source, 3, 1);
    // Its value goes, and the first tombstone by the second.
    delete(&source, 3, 1);
    await_cleaned(&source, "key-3", 1);
    twinlog.launch();
    let end = end_offset(&source, TOPIC, 0);
    let status = await_position(&twinlog, TOPIC, 0, end);
    assert!(missed(&status).is_null(), "{status:#}");
    assert_eq!(keys(&target), keys(&source));
}
