//! Transactions copied to a target that is far away.

use std::time::Duration;

use crate::support::flow::{await_position, flow_config};
use crate::support::ports::Port;
use crate::support::proxy::Proxy;
use crate::support::steps::plant;
use crate::support::verified::assert_verified;
use crate::support::wait::Stopwatch;
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Transactions, Twinlog, await_same, create_topic,
    end_offset, pair,
};

/// One way. What a busy machine does meanwhile is little beside it.
const DELAY: Duration = Duration::from_millis(100);
const TRANSACTIONS: u64 = 500;
const RECORDS: u64 = 5;

/// Each transaction has records and a marker, which took two round trips when nothing was sent behind a marker.
fn a_far_target_takes_many_transactions_at_a_time(version: KafkaVersion) {
    let (source, _) = pair(version);
    let entrance = Port::reserve();
    let options = ClusterOptions {
        proxy: Some(entrance.address()),
        ..ClusterOptions::named("far")
    };
    let target = Cluster::start(version, options);
    let from = source.bootstrap();
    create_topic(&from, "far", 1, &[]);
    let load = Load::new("far", RECORDS).partition(0);
    Transactions::new(load, TRANSACTIONS).produce(&from);
    let end = end_offset(&from, "far", 0);
    let proxy = Proxy::start(&entrance.address(), &target.behind_proxy(), DELAY);
    let config = flow_config(
        "far",
        "far",
        &from,
        &entrance.address(),
        "offsets: identical",
    );
    let twinlog = Twinlog::start(&config);
    await_position(&twinlog, "far", 0, 6);
    let watch = Stopwatch::start();
    await_position(&twinlog, "far", 0, end);
    let round_trips = watch.counted().as_millis() / (2 * DELAY.as_millis());
    println!("{round_trips} round trips for {TRANSACTIONS} transactions");
    assert!(
        round_trips < u128::from(TRANSACTIONS) / 4,
        "{round_trips} round trips"
    );
    proxy.delay(Duration::ZERO);
    assert_eq!(end_offset(&entrance.address(), "far", 0), end);
    await_same(&from, &entrance.address(), "far", Duration::from_secs(60));
    assert_verified(&twinlog, &["--full"]);
}

#[test]
fn a_far_target_takes_many_transactions_at_a_time_on_4_3() {
    a_far_target_takes_many_transactions_at_a_time(KafkaVersion::V4_3);
}

#[test]
fn a_far_target_takes_many_transactions_at_a_time_on_3_9() {
    a_far_target_takes_many_transactions_at_a_time(KafkaVersion::V3_9);
}

/// Every second offset has no record, as behind a cleaner that took it: between continents that were hours.
#[test]
fn ten_thousand_holes_between_continents_take_some_dozens_of_round_trips() {
    const FAR: Duration = Duration::from_millis(100);
    const HOLES: u64 = 10_000;
    let (source, _) = pair(KafkaVersion::V4_3);
    let entrance = Port::reserve();
    let options = ClusterOptions {
        proxy: Some(entrance.address()),
        ..ClusterOptions::named("farther")
    };
    let target = Cluster::start(KafkaVersion::V4_3, options);
    let from = source.bootstrap();
    create_topic(&from, "holes", 1, &[]);
    plant(&from, "holes", 1, HOLES, 1);
    let end = end_offset(&from, "holes", 0);
    let proxy = Proxy::start(&entrance.address(), &target.behind_proxy(), FAR);
    let config = flow_config(
        "far",
        "holes",
        &from,
        &entrance.address(),
        "offsets: identical",
    );
    let twinlog = Twinlog::start(&config);
    await_position(&twinlog, "holes", 0, 2);
    let watch = Stopwatch::start();
    await_position(&twinlog, "holes", 0, end);
    let round_trips = watch.counted().as_millis() / (2 * FAR.as_millis());
    println!("{round_trips} round trips for {HOLES} holes");
    assert!(round_trips < 150, "{round_trips} round trips");
    proxy.delay(Duration::ZERO);
    await_same(&from, &entrance.address(), "holes", Duration::from_secs(60));
}
