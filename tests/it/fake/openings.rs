//! Partitions are opened one by one: none waits for another one that takes its time.

use std::time::Duration;

use crate::support::fake::options;
use crate::support::flow::{is_caught_up, never_given_up, partition_status, topic_status};
use crate::support::{
    FakeCluster, Load, Twinlog, await_same, create_topic, delete_records, fake_pair,
};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::state::Options;
use kafka_protocol::messages::ApiKey;

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_prefix_that_burns_holds_up_nobody_else() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "old", 2, &[]);
    create_topic(&from, "small", 1, &[]);
    Load::new("small", 10).produce(&from);
    for partition in 0..2 {
        Load::new("old", 300).partition(partition).produce(&from);
        delete_records(&from, "old", partition, 200);
    }
    let burns = Fault::on(ApiKey::Produce).topic("old").times(1);
    let burning = target.fault(burns, Action::Hold);

    let twinlog = Twinlog::start(&never_given_up(&Twinlog::config(&from, &to, "")));
    twinlog.wait_until(DEADLINE, "the small one is whole", |status| {
        let burning = |partition| {
            let found = partition_status(status, "old", partition);
            found["state"] == "opening" && found["reason"] == "burning"
        };
        is_caught_up(status, "small", 0) && (0..2).all(burning)
    });
    // What comes now passes too, and so does the look at whose turn it is.
    create_topic(&from, "later", 1, &[]);
    Load::new("later", 10).produce(&from);
    twinlog.wait_until(DEADLINE, "the later one is whole", |status| {
        is_caught_up(status, "later", 0)
    });
    target.clear(burning);
    for topic in ["old", "small", "later"] {
        await_same(&from, &to, topic, DEADLINE);
    }
}

#[test]
fn a_broker_that_does_not_answer_holds_up_only_its_partitions() {
    let (source, _) = fake_pair();
    let target = FakeCluster::start(Options {
        brokers: 3,
        ..options("target")
    });
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for cluster in [&from, &to] {
        create_topic(cluster, "spread", 6, &[]);
    }
    Load::new("spread", 600).produce(&from);
    let mut twinlog = Twinlog::start(&never_given_up(&Twinlog::config(&from, &to, "")));
    await_same(&from, &to, "spread", DEADLINE);
    assert!(twinlog.terminate().success());
    Load::new("spread", 600).first(600).produce(&from);
    let hung = Fault::on(ApiKey::ListOffsets).broker(2).topic("spread");
    let hung = target.fault(hung, Action::Swallow);

    twinlog.launch();
    twinlog.wait_until(DEADLINE, "the others are whole", |status| {
        let led_by_2 = |partition: i32| partition % 3 == 1;
        (0..6).all(|partition| led_by_2(partition) || is_caught_up(status, "spread", partition))
    });
    target.clear(hung);
    // Its question is never answered: another process asks anew.
    twinlog.kill9();
    twinlog.launch();
    await_same(&from, &to, "spread", DEADLINE);
}

/// Whoever waits until all is copied sees that it isn't.
#[test]
fn a_partition_that_is_not_open_yet_counts_as_one_whose_lag_is_unknown() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "open", 1, &[]);
    Load::new("open", 10).produce(&from);
    let twinlog = Twinlog::start(&never_given_up(&Twinlog::config(&from, &to, "")));
    twinlog.wait_until(DEADLINE, "the first one is whole", |status| {
        is_caught_up(status, "open", 0)
    });
    let asked = Fault::on(ApiKey::DescribeProducers).topic("later");
    let held = target.fault(asked, Action::Hold);
    create_topic(&from, "later", 2, &[]);
    Load::new("later", 10).produce(&from);
    twinlog.wait_until(DEADLINE, "the later one is shown", |status| {
        let flow = &status["flows"][0];
        topic_status(status, "later")["totals"]["opening"] == 2
            && flow["totals"]["partitions"] == 3
            && flow["totals"]["lag_unknown_partitions"] == 2
    });
    target.clear(held);
    await_same(&from, &to, "later", DEADLINE);
}
