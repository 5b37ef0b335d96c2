//! A state topic that can't be seen isn't one that isn't there.

use std::time::Duration;

use fake_kafka::faults::{Action, Fault};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use twinlog::state::{STATE_TOPIC, StateStore};

use super::metadata_acls::start;
use crate::support::failover::words;
use crate::support::fake::{FakeCluster, fake_open_pair, options};
use crate::support::flow::{block_on, opened_state, wire_cluster};
use crate::support::{Load, add_acls, await_same, create_topic};

const DEADLINE: Duration = Duration::from_secs(60);

/// Each command says that it couldn't look, and none that there is nothing.
#[test]
fn a_state_topic_that_may_not_be_seen_is_none_to_nobody() {
    let (source, target) = fake_open_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "orders", 1, &[]);
    Load::new("orders", 20).produce(&from);
    let mut twinlog = start(&from, &to, "");
    await_same(&from, &to, "orders", DEADLINE);
    twinlog.kill9();
    let hidden = format!("DENY ALL User:ANONYMOUS * topic {STATE_TOPIC}");
    add_acls(&to, &[hidden]);
    for (command, arguments) in [
        ("held", &[][..]),
        ("verify", &[][..]),
        ("plan", &[][..]),
        ("groups", &["--remembered"][..]),
        ("orphans", &[][..]),
        ("failover", &["--yes"][..]),
        ("failover", &["--report"][..]),
        ("failover", &["--abort", "--yes"][..]),
        ("failback", &["--yes"][..]),
        ("failback", &["--lift-fence", "--yes"][..]),
        ("drill", &["--cleanup"][..]),
    ] {
        let told = twinlog.command(command, arguments);
        let said = words(&told);
        assert_eq!(
            told.status.code(),
            Some(1),
            "{command} {arguments:?}: {said}"
        );
        assert!(
            said.contains("TopicAuthorizationFailed"),
            "{command} {arguments:?}: {said}"
        );
    }
}

#[test]
fn a_broker_that_has_not_heard_of_the_state_topic_says_nothing() {
    let cluster = FakeCluster::start(fake_kafka::state::Options {
        brokers: 3,
        ..options("three")
    });
    let known = wire_cluster(&cluster.bootstrap());
    block_on(async { drop(opened_state(&known, "dr").await) });
    let late = |broker: i32| {
        let about = Fault::on(ApiKey::Metadata)
            .broker(broker)
            .topic(STATE_TOPIC);
        cluster.fault(
            about,
            Action::Refuse(ResponseError::UnknownTopicOrPartition),
        );
    };
    let all = cluster.bootstrap();
    let first = all.split(',').next().expect("an address");
    late(1);
    let found = block_on(StateStore::exists(&wire_cluster(first)));
    assert!(found.expect("it is known"));
    // Nor does it where the two others hang.
    cluster.control(|state| {
        state.freeze_broker(2);
        state.freeze_broker(3);
    });
    let found = block_on(StateStore::exists(&wire_cluster(first)));
    assert!(found.is_err(), "{found:?}");
}

#[test]
fn one_of_two_brokers_is_not_enough_to_say_that_there_is_none() {
    let cluster = FakeCluster::start(fake_kafka::state::Options {
        brokers: 2,
        ..options("two")
    });
    let all = cluster.bootstrap();
    let first = all.split(',').next().expect("an address");
    cluster.control(|state| state.freeze_broker(2));
    let found = block_on(StateStore::exists(&wire_cluster(first)));
    assert!(found.is_err(), "{found:?}");
    cluster.control(|state| state.thaw_broker(2));
    let found = block_on(StateStore::exists(&wire_cluster(first)));
    assert!(!found.expect("it is known"));
}

#[test]
fn where_there_is_none_it_is_made() {
    let cluster = FakeCluster::named("empty");
    let client = wire_cluster(&cluster.bootstrap());
    let (before, behind) = block_on(async {
        let before = StateStore::exists(&client).await;
        drop(opened_state(&client, "dr").await);
        (before, StateStore::exists(&client).await)
    });
    assert!(!before.expect("it is known"));
    assert!(behind.expect("it is known"));
}
