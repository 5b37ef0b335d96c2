//! ACLs follow, between real clusters: the fake tells the truth, and thousands are one look's work.

use crate::fake::metadata_acls::{
    DEADLINE, OFTEN, SOON, acls_follow, applied, await_looks, compared_at, renamed_acls, start,
};
use crate::support::pool::authorized_pair;
use crate::support::{KafkaVersion, add_acls, await_acls, create_topic, remove_acls};
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
    twinlog.launch();
    let status = twinlog.wait_until(DEADLINE, "a look", |status| compared_at(status) > 0);
    let took = |status: &Value| status["flows"][0]["metadata"]["took_ms"].as_u64();
    assert!(took(&status).is_some_and(|ms| ms < 5_000), "{status:#}");
    assert_eq!(applied(&status), 0);
    let status = await_looks(&twinlog, 2);
    assert!(took(&status).is_some_and(|ms| ms < 1_000), "{status:#}");
    assert_eq!(applied(&status), 0);
    // A change among so many is found.
    remove_acls(&source, &all[..1]);
    await_acls(&target, &all[1..], SOON);
    assert_eq!(applied(&twinlog.status()), 1);
}
