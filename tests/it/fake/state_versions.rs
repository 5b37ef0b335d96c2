//! What a newer Twinlog wrote to the state topic is neither misread nor overwritten.

use std::sync::Arc;
use std::time::Duration;

use crate::support::flow::{block_on, flow_config, is_caught_up, opened_state, wire_cluster};
use crate::support::{
    Isolation, Load, Transactions, Twinlog, await_all_same, create_topic, eventually, fake_pair,
    groups, read_all,
};
use serde_json::{Value, json};
use twinlog::state::keys::{self, MapKeys};
use twinlog::state::{STATE_TOPIC, StateError, StateStore};

const DEADLINE: Duration = Duration::from_secs(60);

fn is_newer<T: std::fmt::Debug>(outcome: &Result<T, StateError>, key: &str) {
    assert!(
        matches!(outcome, Err(StateError::Newer { key: found, version: 2 }) if found == key),
        "{outcome:?}"
    );
}

/// Of every kind that there is.
fn keys_of(flow: &str) -> Vec<String> {
    let map = MapKeys::new(flow, "t", 0);
    vec![
        keys::flow(flow),
        keys::claim(flow),
        keys::turn(flow),
        keys::beat(flow),
        keys::topic(flow, "t"),
        map.head().to_owned(),
        map.segment(0),
        keys::seen(flow, "t"),
        keys::gap(flow, "t", 0, 1),
        keys::damage(flow, "t", 0),
        keys::group(flow, "g"),
        keys::share(flow, "g"),
        keys::role(flow),
        keys::cutover(flow),
        keys::cutover_lease(flow),
        keys::fork(flow, "t"),
        keys::fence(flow),
        keys::observed(flow),
        keys::ends(flow, "t"),
        keys::orphans(flow),
        keys::reign(flow),
        keys::reign_of_topic(flow, "t"),
        keys::orphan_decisions(flow, "t"),
        keys::orphans_replay(flow, "t", 0),
        keys::held_configs(flow, "t"),
        keys::gone(flow, "t"),
        keys::acl(flow, "a"),
        keys::release(flow),
        keys::quota(flow, "q"),
        keys::verify(flow),
        keys::drill(flow),
        keys::open_drill(flow, "d"),
    ]
}

async fn write(store: &StateStore, key: &str, value: &[u8]) {
    let record = (key.to_owned(), Some(Arc::from(value)));
    store.write_all(vec![record]).await.expect("it is written");
}

#[test]
fn a_newer_value_of_any_kind_is_refused_by_name_and_stays() {
    let (_, target) = fake_pair();
    let bootstrap = target.bootstrap();
    block_on(async {
        let (cluster, other) = (wire_cluster(&bootstrap), wire_cluster(&bootstrap));
        let store = opened_state(&cluster, "dr").await;
        let newer = opened_state(&other, "dr").await;
        for key in keys_of("dr") {
            store.refuse_newer("dr").expect("nothing is newer yet");
            let value: &[u8] = match key.starts_with("segment/") {
                true => &[2, 0],
                false => br#"{"v":2,"means":"something else"}"#,
            };
            write(&newer, &key, value).await;
            store.refresh().await.expect("it is read");
            is_newer(&store.get::<Value>(&key), &key);
            is_newer(&store.put(&key, &json!({ "v": 1 })).await, &key);
            is_newer(&store.remove(&key).await, &key);
            is_newer(&store.refuse_newer("dr"), &key);
            assert_eq!(store.bytes(&key).as_deref(), Some(value), "{key}");
            store.refuse_newer("d").expect("that is another flow's");
            // Whoever may, takes it away for the next one.
            force(&other, &key).await;
            store.refresh().await.expect("it is read");
        }
    });
}

/// Removes a key as its own version may.
async fn force(cluster: &twinlog::wire::Cluster, key: &str) {
    let place = twinlog::wire::TopicPartition::new(STATE_TOPIC, 0);
    let tombstone = twinlog::batch::encode_simple(
        &[(Some(key.as_bytes()), None)],
        1,
        twinlog::batch::Stamp::NONE,
    );
    let written = twinlog::wire::produce_one(cluster, &place, tombstone, -1).await;
    written.expect("it is written");
}

/// A copied topic with a hole and a group.
fn copied(topic: &str, source: &str, target: &str) -> Twinlog {
    create_topic(source, topic, 1, &[]);
    Load::new(topic, 20).produce(source);
    let mut aborted = Transactions::new(Load::new(topic, 3).first(20), 1);
    aborted.abort_percent = 100;
    assert_eq!(aborted.produce(source), 0);
    groups::commit(source, "readers", &[(topic, 0, 5)]);
    let twinlog = Twinlog::start(&flow_config(topic, topic, source, target, ""));
    await_all_same(source, target, &[topic], DEADLINE);
    twinlog.wait_until(DEADLINE, "it is caught up", |status| {
        is_caught_up(status, topic, 0)
    });
    twinlog
}

#[test]
fn a_flow_does_not_begin_on_what_a_newer_twinlog_wrote() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let topic = "versions";
    let mut twinlog = copied(topic, &source, &target);
    assert!(twinlog.terminate().success());
    let all = read_all(&target, STATE_TOPIC, Isolation::ReadUncommitted);
    for record in &all {
        let value = record.value.as_deref().unwrap_or(br#"{"v":1,"#);
        assert!(
            value.starts_with(br#"{"v":1,"#),
            "its version is first: {record:?}"
        );
    }

    let key = keys::seen(topic, topic);
    block_on(async {
        let store = opened_state(&wire_cluster(&target), topic).await;
        write(&store, &key, br#"{"v":2}"#).await;
    });
    twinlog.launch();
    let exit = eventually(DEADLINE, "it has ended", || {
        twinlog.ended().ok_or("it runs")
    });
    assert!(!exit.success());
    let log = twinlog.log();
    let words = format!("{key} was written by a newer Twinlog (format 2, this one knows 1)");
    assert!(
        log.contains(&words) && log.contains("run that version here"),
        "{log}"
    );
    let after = read_all(&target, STATE_TOPIC, Isolation::ReadUncommitted);
    assert_eq!(after.len(), all.len() + 1, "nothing is written");
}

#[test]
fn a_newer_claim_ends_a_running_flow() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let topic = "newer-claim";
    let mut twinlog = copied(topic, &source, &target);
    block_on(async {
        let store = opened_state(&wire_cluster(&target), topic).await;
        write(&store, &keys::claim(topic), br#"{"v":2}"#).await;
    });
    let exit = eventually(DEADLINE, "it has ended", || {
        twinlog.ended().ok_or("it runs")
    });
    assert!(!exit.success());
    assert!(
        twinlog.log().contains("another Twinlog took over"),
        "{}",
        twinlog.log()
    );
}
