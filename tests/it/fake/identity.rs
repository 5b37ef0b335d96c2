//! Another cluster answers where the source or the target should be: nothing is made there, nothing of
//! the copy is deleted, and the status says it.

use std::sync::Arc;
use std::time::Duration;

use fake_kafka::faults::{Action, Fault};
use fake_kafka::state::Options;
use kafka_protocol::messages::ApiKey;

use crate::support::failover::{failover, words};
use crate::support::fake::options;
use crate::support::flow::{block_on, flow_config, is_caught_up, partition_status, wire_cluster};
use crate::support::{FakeCluster, Load, Twinlog, await_same, create_topic, end_offset, fake_pair};

const DEADLINE: Duration = Duration::from_secs(60);

fn await_waiting(twinlog: &Twinlog, reason: &str, both_named: [&str; 2]) {
    twinlog.wait_until(DEADLINE, reason, |status| {
        let flow = &status["flows"][0];
        let detail = flow["detail"].as_str().unwrap_or_default();
        flow["state"] == "waiting"
            && flow["reason"] == reason
            && both_named.iter().all(|id| detail.contains(id))
    });
}

/// The brokers of the first send their clients to the second.
fn advertise(cluster: &FakeCluster, other: &FakeCluster) {
    let address = other.bootstrap();
    let (host, port) = address.rsplit_once(':').expect("host:port");
    cluster.control(|state| {
        for broker in state.brokers.values_mut() {
            broker.host = host.to_owned();
            broker.port = port.parse().expect("a port");
        }
    });
}

fn topics(cluster: &FakeCluster) -> Vec<String> {
    cluster.look(|state| state.topics.keys().cloned().collect())
}

#[test]
fn a_target_that_leads_to_the_source_is_not_written_to() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "mixed-up", 1, &[]);
    Load::new("mixed-up", 1).produce(&from);
    let before = topics(&source);
    advertise(&target, &source);
    let twinlog = Twinlog::start(&flow_config("mixed-up", "mixed-up", &from, &to, ""));
    await_waiting(
        &twinlog,
        "target_replaced",
        ["plain-source", "plain-target"],
    );
    assert_eq!(topics(&source), before, "nothing was made on the source");
    assert_eq!(end_offset(&from, "mixed-up", 0), 1);

    let check = twinlog.command("check", &[]);
    assert_eq!(check.status.code(), Some(1), "{}", words(&check));
    assert!(
        words(&check).contains("another cluster"),
        "{}",
        words(&check)
    );
}

#[test]
fn a_target_that_comes_to_lead_to_the_source_is_left() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "turned", 1, &[]);
    Load::new("turned", 10).produce(&from);
    let mut twinlog = Twinlog::start(&flow_config("turned", "turned", &from, &to, ""));
    await_same(&from, &to, "turned", DEADLINE);
    let before = topics(&source);
    // As behind a restart with other `advertised.listeners`: connections are cut.
    advertise(&target, &source);
    target.control(|state| state.stop_broker(1));
    target.control(|state| state.start_broker(1));
    Load::new("turned", 10).first(10).produce(&from);
    await_waiting(
        &twinlog,
        "target_replaced",
        ["plain-source", "plain-target"],
    );
    assert_eq!(topics(&source), before);
    assert_eq!(end_offset(&from, "turned", 0), 20);
    assert!(twinlog.terminate().success());
}

#[test]
fn a_source_that_was_built_anew_deletes_nothing_and_can_be_failed_over_from() {
    let (source, target) = (
        FakeCluster::named("the-first"),
        FakeCluster::named("standby"),
    );
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "kept", 1, &[]);
    Load::new("kept", 100).produce(&from);
    let lines =
        "discovery_interval: 200ms\non_recreate: recreate\non_delete: { mode: delete, grace: 1s }";
    let mut twinlog = Twinlog::start(&flow_config("kept", "kept", &from, &to, lines));
    await_same(&from, &to, "kept", DEADLINE);

    source.control(|state| state.replace_cluster("the-second"));
    create_topic(&from, "kept", 1, &[]);
    await_waiting(&twinlog, "source_replaced", ["the-first", "the-second"]);
    assert_eq!(end_offset(&to, "kept", 0), 100, "the only copy");

    // Nor is it taken for the source by the next process.
    assert!(twinlog.terminate().success());
    twinlog.launch();
    await_waiting(&twinlog, "source_replaced", ["the-first", "the-second"]);
    assert_eq!(end_offset(&to, "kept", 0), 100);

    let config = twinlog.config_file().to_owned();
    let planned = failover(&config, &["--yes"]);
    assert_ne!(planned.status.code(), Some(0), "{}", words(&planned));
    assert!(
        words(&planned).contains("another cluster"),
        "{}",
        words(&planned)
    );
    let unplanned = failover(&config, &["--unplanned", "--yes", "--accept-loss", "any"]);
    assert_eq!(unplanned.status.code(), Some(0), "{}", words(&unplanned));
    assert!(end_offset(&to, "kept", 0) >= 100);
}

/// The address of broker 1: who begins there isn't sent to the others by his own list.
fn first_address(cluster: &FakeCluster) -> String {
    let all = cluster.bootstrap();
    all.split(',').next().expect("an address").to_owned()
}

#[test]
fn check_names_a_broker_that_freezes_at_the_question_for_its_cluster() {
    let source = FakeCluster::start(Options {
        brokers: 2,
        ..options("two")
    });
    let (_, target) = fake_pair();
    let (from, to) = (first_address(&source), target.bootstrap());
    create_topic(&from, "asked", 1, &[]);
    source.fault(Fault::on(ApiKey::Metadata).broker(2), Action::Swallow);
    // What else `check` asks of that broker isn't what this is about.
    let servers = format!("bootstrap.servers: \"{from}\"");
    let sooner = format!("{servers}, request.timeout.ms: 12000");
    let config = flow_config("asked", "asked", &from, &to, "").replace(&servers, &sooner);
    let twinlog = Twinlog::start(&config);
    let check = words(&twinlog.command("check", &[]));
    let mut lines = check.lines().filter(|line| line.contains("broker 2 at"));
    let line = lines.next().unwrap_or_else(|| panic!("not named: {check}"));
    assert!(line.starts_with("warning"), "{line}");
    assert!(
        line.contains("accepted, told its versions, and silent since"),
        "{line}"
    );
}

#[test]
fn a_broker_that_alone_leads_to_another_cluster_stops_what_it_leads() {
    const TOPIC: &str = "split";
    let source = FakeCluster::start(Options {
        brokers: 3,
        ..options("ours")
    });
    let stranger = FakeCluster::named("stranger");
    let (_, target) = fake_pair();
    let (from, to) = (first_address(&source), target.bootstrap());
    create_topic(&from, TOPIC, 3, &[]);
    create_topic(&stranger.bootstrap(), TOPIC, 3, &[]);
    for partition in 0..3 {
        Load::new(TOPIC, 100).partition(partition).produce(&from);
        let other = Load::new(TOPIC, 70).partition(partition);
        other.produce(&stranger.bootstrap());
    }
    let led = source.look(|state| {
        let partitions = state.topics[TOPIC].partitions.iter();
        let mut led = partitions.filter(|(_, it)| it.leader == Some(2));
        *led.next().expect("it leads one").0
    });
    let at = |address: &str| {
        let (host, port) = address.rsplit_once(':').expect("host:port");
        (host.to_owned(), port.parse().expect("a port"))
    };
    let own = source.control(|state| {
        let broker = state.brokers.get_mut(&2).expect("it is there");
        let own = (broker.host.clone(), broker.port);
        (broker.host, broker.port) = at(&stranger.bootstrap());
        own
    });

    let twinlog = Twinlog::start(&flow_config("split", TOPIC, &from, &to, ""));
    let status = twinlog.wait_until(DEADLINE, "the others are copied", |status| {
        let is_as_it_should = |partition| match partition == led {
            true => partition_status(status, TOPIC, partition)["reason"] == "other_cluster",
            false => is_caught_up(status, TOPIC, partition),
        };
        status["flows"][0]["state"] == "running" && (0..3).all(is_as_it_should)
    });
    let detail = partition_status(&status, TOPIC, led)["detail"].to_string();
    assert!(
        detail.contains("ours") && detail.contains("stranger"),
        "{detail}"
    );
    assert_eq!(end_offset(&to, TOPIC, led), 0);
    let check = twinlog.command("check", &[]);
    assert_eq!(check.status.code(), Some(1), "{}", words(&check));
    assert!(words(&check).contains("stranger"), "{}", words(&check));

    // Its address is its own again.
    source.control(|state| {
        let broker = state.brokers.get_mut(&2).expect("it is there");
        (broker.host, broker.port) = own;
    });
    await_same(&from, &to, TOPIC, DEADLINE);
}

/// Brokers with KRaft call any of themselves the controller, each time another one.
#[test]
fn what_says_nothing_new_leaves_what_is_known_as_it_is() {
    let fake = FakeCluster::start(Options {
        brokers: 3,
        ..options("said-again")
    });
    create_topic(&fake.bootstrap(), "t", 3, &[]);
    let cluster = wire_cluster(&fake.bootstrap());
    block_on(async {
        let about = ["t".to_owned()];
        cluster.metadata(None).await.expect("an answer");
        let known = cluster.metadata(None).await.expect("an answer");
        for _ in 0..10 {
            let all = cluster.metadata(None).await.expect("an answer");
            assert!(Arc::ptr_eq(&known, &all), "all topics");
            let one = cluster.metadata(Some(&about)).await.expect("an answer");
            assert!(Arc::ptr_eq(&known, &one), "one topic");
        }
    });
}
