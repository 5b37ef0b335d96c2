//! A target that writes its own time into records is put right before the first one, or nothing is copied.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fake_kafka::faults::{Action, Fault};
use fake_kafka::state::Options;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use twinlog::state::{HeldConfigs, keys};

use crate::fake::metadata_configs::alter;
use crate::support::admin::add_partitions;
use crate::support::fake::options;
use crate::support::flow::{
    await_position, await_stopped, is_caught_up, partition_status, with_state,
};
use crate::support::produce::Transactions;
use crate::support::{
    FakeCluster, Load, Twinlog, await_same, create_topic, end_offset, eventually, fake_pair,
};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "events";
const STAMPS: (&str, &str) = ("message.timestamp.type", "LogAppendTime");
const ALONE: &str = "configs: { enabled: false }";
/// Long ago: no broker's own time.
const LONG_AGO_MS: i64 = 1_500_000_000_000;

fn load(count: u64) -> Load {
    Load::new(TOPIC, count).timestamps_from(LONG_AGO_MS)
}

fn await_put_right(target: &FakeCluster) {
    eventually(DEADLINE, "it is put right", || {
        let configs = target.look(|state| state.topics[TOPIC].configs.clone());
        match configs.get(STAMPS.0).map(String::as_str) {
            Some("CreateTime") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// The counterpart was made as the source's topics are made, to take the broker's time.
pub(crate) fn times_are_kept(from: &str, to: &str, lines: &str) {
    create_topic(from, TOPIC, 2, &[]);
    create_topic(to, TOPIC, 2, &[STAMPS]);
    load(1_000).produce(from);
    let _twinlog = Twinlog::start(&Twinlog::config(from, to, lines));
    await_same(from, to, TOPIC, DEADLINE);
}

#[test]
fn a_prepared_topic_that_takes_the_brokers_time_is_put_right_before_the_first_record() {
    for lines in ["", ALONE] {
        let (source, target) = (FakeCluster::named("source"), FakeCluster::named("target"));
        times_are_kept(&source.bootstrap(), &target.bootstrap(), lines);
        if lines == ALONE {
            // What the topic was is given back by a failover.
            let held = with_state(&target.bootstrap(), |store| {
                store.get::<HeldConfigs>(&keys::held_configs("dr", TOPIC))
            });
            let held = held.expect("readable").expect("held");
            assert_eq!(held.values[STAMPS.0].as_deref(), Some(STAMPS.1));
        }
    }
}

#[test]
fn so_is_one_that_has_it_from_the_brokers() {
    let source = FakeCluster::named("source");
    let target = FakeCluster::start(Options {
        broker_configs: [("log.message.timestamp.type", "LogAppendTime")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..options("target")
    });
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for cluster in [&from, &to] {
        create_topic(cluster, TOPIC, 1, &[]);
    }
    create_topic(&from, "new", 1, &[]);
    for topic in [TOPIC, "new"] {
        let load = Load::new(topic, 500).timestamps_from(LONG_AGO_MS);
        load.produce(&from);
    }
    let _twinlog = Twinlog::start(&Twinlog::config(&from, &to, ALONE));
    await_same(&from, &to, TOPIC, DEADLINE);
    await_same(&from, &to, "new", DEADLINE);
}

#[test]
fn where_it_may_not_be_changed_nothing_is_copied() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 1, &[]);
    create_topic(&to, TOPIC, 1, &[STAMPS]);
    load(100).produce(&from);
    target.fault(
        Fault::on(ApiKey::IncrementalAlterConfigs).topic(TOPIC),
        Action::Refuse(ResponseError::TopicAuthorizationFailed),
    );
    let twinlog = Twinlog::start(&Twinlog::config(&from, &to, ALONE));
    let status = twinlog.wait_until(DEADLINE, "it is refused by name", |status| {
        partition_status(status, TOPIC, 0)["reason"] == "log_append_time"
    });
    let detail = partition_status(&status, TOPIC, 0)["detail"].to_string();
    assert!(detail.contains("ALTER_CONFIGS"), "{detail}");
    assert_eq!(end_offset(&to, TOPIC, 0), 0);
    // Somebody who may does it.
    target.control(|state| state.faults.clear_all());
    alter(&to, TOPIC, &[(STAMPS.0, Some("CreateTime"))]);
    await_same(&from, &to, TOPIC, DEADLINE);
}

#[test]
fn changed_while_it_is_copied_it_stops_what_was_stamped_and_nothing_else() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 2, &[]);
    load(100).partition(0).produce(&from);
    load(100).partition(1).produce(&from);
    let mut twinlog = Twinlog::start(&Twinlog::config(&from, &to, ALONE));
    await_same(&from, &to, TOPIC, DEADLINE);

    alter(&to, TOPIC, &[(STAMPS.0, Some(STAMPS.1))]);
    // In one batch, however long it takes to write them: nothing leaves before the flush.
    let at_once = load(10).first(100).with("linger.ms", 60_000);
    at_once.partition(0).produce(&from);
    let status = await_stopped(&twinlog, TOPIC, 0, "log_append_time");
    let detail = partition_status(&status, TOPIC, 0)["detail"].to_string();
    assert!(detail.contains("100..110"), "{detail}");
    // Put right for the others, which no stop of the stamped one undoes.
    await_put_right(&target);
    load(10).first(100).partition(1).produce(&from);
    load(10).first(110).partition(0).produce(&from);
    twinlog.wait_until(DEADLINE, "the other goes on", |status| {
        is_caught_up(status, TOPIC, 1) && end_offset(&to, TOPIC, 1) == 110
    });
    // Partitions that are added have the topic prepared again.
    add_partitions(&from, TOPIC, 3);
    twinlog.wait_until(DEADLINE, "a third one is copied", |status| {
        is_caught_up(status, TOPIC, 2)
    });
    await_stopped(&twinlog, TOPIC, 0, "log_append_time");
    assert_eq!(end_offset(&to, TOPIC, 0), 110);

    // Who starts it again has read that.
    assert!(twinlog.terminate().success());
    twinlog.launch();
    twinlog.wait_until(DEADLINE, "it goes on", |status| {
        is_caught_up(status, TOPIC, 0) && end_offset(&to, TOPIC, 0) == 120
    });
}

/// Batches between markers are sent in steps, which no Produce answer tells of.
#[test]
fn batches_of_transactions_that_were_stamped_are_noticed_too() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 2, &[]);
    let twinlog = Twinlog::start(&Twinlog::config(&from, &to, ""));
    load(100).partition(1).produce(&from);
    let transactions = Transactions {
        load: load(3).partition(0),
        transactions: 1_000_000,
        abort_percent: 0,
    };
    let (is_noticed, began) = (AtomicBool::new(false), Instant::now());
    // In vain it goes on for longer than anybody waits.
    let is_enough = || is_noticed.load(Ordering::Relaxed) || began.elapsed() > 5 * DEADLINE;
    std::thread::scope(|scope| {
        // Without a pause: behind one, a batch goes alone, and its answer tells.
        scope.spawn(|| transactions.produce_until(&from, is_enough));
        await_position(&twinlog, TOPIC, 0, 100);
        // What of the other one came behind the change would be stamped, too.
        await_position(&twinlog, TOPIC, 1, 100);
        alter(&to, TOPIC, &[(STAMPS.0, Some(STAMPS.1))]);
        let status = await_stopped(&twinlog, TOPIC, 0, "log_append_time");
        is_noticed.store(true, Ordering::Relaxed);
        let detail = partition_status(&status, TOPIC, 0)["detail"].to_string();
        assert!(detail.contains("target offsets"), "{detail}");
    });
    // The topic is put right, and the other goes on.
    await_put_right(&target);
    load(10).first(100).partition(1).produce(&from);
    twinlog.wait_until(DEADLINE, "the other goes on", |status| {
        is_caught_up(status, TOPIC, 1) && end_offset(&to, TOPIC, 1) == 110
    });
}
