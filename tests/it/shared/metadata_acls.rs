//! ACLs follow, between real clusters: the fake tells the truth, and thousands are one look's work.

use std::time::{Duration, Instant};

use crate::fake::metadata_acls::{
    DEADLINE, OFTEN, SOON, acls_follow, applied, await_looks, compared_at, renamed_acls, start,
};
use crate::support::pool::authorized_pair;
use crate::support::wait::Stopwatch;
use crate::support::{KafkaVersion, Twinlog, add_acls, await_acls, create_topic, remove_acls};
use serde_json::Value;

#[test]
fn acls_follow_and_what_could_change_a_copy_is_held() {
    let (source, target) = authorized_pair(KafkaVersion::V4_3);
    acls_follow(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn acls_are_renamed_with_their_topics() {
    let (source, target) = authorized_pair(KafkaVersion::V3_9);
    renamed_acls(&source.bootstrap(), &target.bootstrap());
}

#[test]
fn five_thousand_acls_are_compared_in_one_pass() {
    let (source, target) = authorized_pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, "orders", 1, &[]);
    let all: Vec<String> = (0..5_000)
        .map(|n| format!("ALLOW READ User:u{} 10.0.0.{} topic t-{n}", n % 50, n % 9))
        .collect();
    add_acls(&source, &all);
    let twinlog = start(&source, &target, OFTEN);
    await_acls(&target, &all, DEADLINE);
    // Once more from the beginning: everything is read, decoded and compared, nothing is changed.
    let mut twinlog = twinlog;
    twinlog.kill9();
    let (began, watch) = (Instant::now(), Stopwatch::start());
    twinlog.launch();
    let status = twinlog.wait_until(DEADLINE, "a look", |status| compared_at(status) > 0);
    // The look was a part of that, and may have stood in line meanwhile.
    let stood = began.elapsed().saturating_sub(watch.counted());
    let most = Duration::from_secs(5) + stood;
    assert!(took(&status) < most, "{status:#}");
    assert_eq!(applied(&status), 0);
    await_looks(&twinlog, 2);
    let status = await_quick_look(&twinlog);
    assert_eq!(applied(&status), 0);
    // A change among so many is found.
    remove_acls(&source, &all[..1]);
    await_acls(&target, &all[1..], SOON);
    // A look tells what it has changed when it is over.
    twinlog.wait_until(DEADLINE, "the change is counted", |status| {
        applied(status) > 0
    });
    assert_eq!(applied(&await_looks(&twinlog, 1)), 1);
}

/// How long the last look took.
fn took(status: &Value) -> Duration {
    let took = status["flows"][0]["metadata"]["took_ms"].as_u64();
    took.map_or(Duration::MAX, Duration::from_millis)
}

/// Waits for one that took less than a second: of many that nothing follows from, not each is held up by a busy machine.
fn await_quick_look(twinlog: &Twinlog) -> Value {
    twinlog.wait_until(DEADLINE, "a quick look", |status| {
        took(status) < Duration::from_secs(1)
    })
}
