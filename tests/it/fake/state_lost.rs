//! A state topic that is deleted, made anew or cut short under a running flow.

use std::time::Duration;

use crate::support::fake::options;
use crate::support::flow::{
    block_on, flow_config, is_caught_up, is_stopped, opened_state, partition_status, wire_cluster,
};
use crate::support::wait::Stopwatch;
use crate::support::{
    FakeCluster, Load, Twinlog, await_all_same, create_topic, delete_topic, end_offset, eventually,
    fake_pair,
};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::state::Options;
use kafka_protocol::messages::ApiKey;
use twinlog::state::{Loss, STATE_TOPIC, StateError};

const DEADLINE: Duration = Duration::from_secs(60);
/// Less than any question has that is answered by nobody.
const LATE: Duration = Duration::from_secs(5);

fn copying(topic: &str, source: &str, target: &str) -> Twinlog {
    create_topic(source, topic, 1, &[]);
    Load::new(topic, 20).produce(source);
    let twinlog = Twinlog::start(&flow_config(topic, topic, source, target, ""));
    await_all_same(source, target, &[topic], DEADLINE);
    twinlog.wait_until(DEADLINE, "it is caught up", |status| {
        is_caught_up(status, topic, 0)
    });
    twinlog
}

fn assert_ends_by_name(twinlog: &mut Twinlog, words: &str) {
    let exit = eventually(DEADLINE, "it has ended", || {
        twinlog.ended().ok_or("it runs")
    });
    assert!(!exit.success(), "a lost state is a failure: {exit}");
    let log = twinlog.log();
    assert!(log.contains(words), "{log}");
    assert!(
        log.contains("restore it, or delete the flow's mirror topics"),
        "{log}"
    );
}

#[test]
fn a_deleted_state_topic_ends_the_flow_and_commands_say_so() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let mut twinlog = copying("state-deleted", &source, &target);
    delete_topic(&target, STATE_TOPIC);
    assert_ends_by_name(&mut twinlog, "it was deleted");
    let output = twinlog.command("failover", &["--dry-run"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(
        words.contains("its state topic __twinlog_state was deleted"),
        "{words}"
    );
}

/// The second one makes the topic anew: without a look at the topic itself, the first would copy on
/// beside it for ever.
#[test]
fn the_first_of_two_sees_that_the_state_topic_was_made_anew() {
    let (source, target_cluster) = fake_pair();
    let (source, target) = (source.bootstrap(), target_cluster.bootstrap());
    let topic = "state-anew";
    let mut first = copying(topic, &source, &target);
    first.signal("STOP");
    target_cluster.control(|state| state.recreate_topic(STATE_TOPIC));
    let second = Twinlog::start(&flow_config(topic, topic, &source, &target, ""));
    // It is counted as an error a moment before the partition says it.
    second.wait_until(DEADLINE, "it refuses the copy, and says why", |status| {
        let words = partition_status(status, topic, 0)["detail"].to_string();
        is_stopped(status, topic, 0, "target_not_empty")
            && words.contains("__twinlog_state lost its record")
    });
    first.signal("CONT");
    assert_ends_by_name(&mut first, "it was deleted and created again");
}

/// An unclean election takes the newer claim's topic below what the first has read.
#[test]
fn a_log_that_lost_everything_ends_the_flow() {
    let (source, target_cluster) = fake_pair();
    let (source, target) = (source.bootstrap(), target_cluster.bootstrap());
    let mut twinlog = copying("state-emptied", &source, &target);
    target_cluster.control(|state| state.truncate(STATE_TOPIC, 0, 0));
    assert_ends_by_name(&mut twinlog, "producer ids among them");
}

#[test]
fn after_a_lost_tail_the_flow_begins_again_and_a_newer_claim_is_seen() {
    let (source, target_cluster) = fake_pair();
    let (source, target) = (source.bootstrap(), target_cluster.bootstrap());
    let topic = "state-shrunk";
    let mut first = copying(topic, &source, &target);
    assert!(first.terminate().success());
    let end = end_offset(&target, STATE_TOPIC, 0);
    first.launch();
    first.wait_until(DEADLINE, "it is caught up", |status| {
        is_caught_up(status, topic, 0)
    });
    // Its claim is gone, and whom it took it from is the newest again.
    target_cluster.control(|state| state.truncate(STATE_TOPIC, 0, end));
    eventually(DEADLINE, "it begins again", || {
        first
            .log()
            .contains("begins again by what is left")
            .then_some(())
            .ok_or("it goes on")
    });
    Load::new(topic, 20).first(20).produce(&source);
    await_all_same(&source, &target, &[topic], DEADLINE);
    let second = Twinlog::start(&flow_config(topic, topic, &source, &target, ""));
    first.wait_until(DEADLINE, "the first waits for its turn", |status| {
        status["flows"][0]["reason"] == "superseded"
    });
    second.wait_until(DEADLINE, "it is caught up", |status| {
        is_caught_up(status, topic, 0)
    });
}

#[test]
fn a_store_sees_forks_and_never_writes_into_a_topic_that_was_made_anew() {
    let (_, target) = fake_pair();
    let bootstrap = target.bootstrap();
    block_on(async {
        let cluster = wire_cluster(&bootstrap);
        let (store, other) = (
            opened_state(&cluster, "dr").await,
            opened_state(&wire_cluster(&bootstrap), "dr").await,
        );
        for value in 0..5 {
            store.put("ends/dr/a", &value).await.expect("it is written");
        }
        store.refresh().await.expect("it is read");

        // Two values are lost, and others grow past them.
        target.control(|state| state.truncate(STATE_TOPIC, 0, 3));
        for value in 10..14 {
            other.put("ends/dr/b", &value).await.expect("it is written");
        }
        store.refresh().await.expect("it is read");
        assert_eq!(store.shrunk(), 1);
        assert_eq!(store.get::<i32>("ends/dr/a").expect("a value"), Some(2));
        assert_eq!(store.get::<i32>("ends/dr/b").expect("a value"), Some(13));

        // The log begins behind what was read.
        for value in 14..20 {
            other.put("ends/dr/b", &value).await.expect("it is written");
        }
        target.control(|state| state.raise_log_start(STATE_TOPIC, 0, 11));
        store.refresh().await.expect("it is read");
        assert_eq!(store.shrunk(), 2);
        assert_eq!(store.get::<i32>("ends/dr/a").expect("a value"), None);
        assert_eq!(store.get::<i32>("ends/dr/b").expect("a value"), Some(19));

        target.control(|state| state.recreate_topic(STATE_TOPIC));
        let refused = store.refresh().await;
        assert!(
            matches!(refused, Err(StateError::Lost(Loss::Replaced))),
            "{refused:?}"
        );
        let refused = store.put("ends/dr/a", &7).await;
        assert!(
            matches!(refused, Err(StateError::Lost(Loss::Replaced))),
            "{refused:?}"
        );
        assert_eq!(end_offset(&bootstrap, STATE_TOPIC, 0), 0);
    });
}

/// Whose claim stands is known for 2 s: fillers wait for a look that takes longer.
#[test]
fn a_look_waits_for_nobody_but_the_leader_and_not_for_all_it_is_asked() {
    let target = FakeCluster::start(Options {
        brokers: 3,
        ..options("three")
    });
    block_on(async {
        let cluster = wire_cluster(&target.bootstrap());
        let store = opened_state(&cluster, "dr").await;
        target.control(|state| state.move_leader(STATE_TOPIC, 0, 3));
        store.refresh().await.expect("it is read");
        // The connection to it is open: it is the first that is asked about anything.
        cluster.metadata(None).await.expect("it is known");
        target.control(|state| state.freeze_broker(1));
        let watch = Stopwatch::start();
        store.refresh().await.expect("it is read");
        assert!(watch.counted() < LATE, "{:?}", watch.counted());

        target.fault(Fault::on(ApiKey::Metadata), Action::Swallow);
        let watch = Stopwatch::start();
        store.refresh().await.expect("it is read");
        assert!(watch.counted() < LATE, "{:?}", watch.counted());
    });
}
