//! The way back of share groups, and of topics that one side has lost.

use crate::own::failback::{ORDERS, await_same_ends};
use crate::support::admin::partition_count;
use crate::support::failover::{
    answer, await_copying, await_failed_over, failback, failover, records,
};
use crate::support::pool::fenceable_both;
use crate::support::share::{begin_at_earliest, set_start_offset, start_offsets};
use crate::support::{
    KafkaVersion, Load, Twinlog, await_caught_up, create_topic, delete_topic, eventually,
};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// Nobody follows when the start offset moves: the last barrier of each change sets it, there and
/// back.
#[test]
fn a_share_group_comes_along_both_ways() {
    let (source, target) = fenceable_both(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let name = "shared";
    create_topic(&source, name, 1, &[]);
    Load::new(name, 60).produce(&source);
    begin_at_earliest(&source, name);
    set_start_offset(&source, name, name, 0, 7);
    let mut twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    twinlog.kill9();
    let key = (name.to_owned(), 0);
    let mut wanted = 7;
    for round in 0..2 {
        wanted += 10;
        set_start_offset(&source, name, name, 0, wanted);
        let report = answer(&failover(&config, &["--yes", "--json"]), 0);
        let found = start_offsets(&target, name).get(&key).copied();
        assert_eq!(found, Some(wanted), "{round}: {report:#}");
        wanted += 10;
        set_start_offset(&target, name, name, 0, wanted);
        let report = answer(&failback(&config, &["--yes", "--json"]), 0);
        let found = start_offsets(&source, name).get(&key).copied();
        assert_eq!(found, Some(wanted), "{round}: {report:#}");
    }
}

/// What the old primary has lost is copied from its first record, also when the way back is gone in
/// two goes; what nobody has any more is in nobody's way.
#[test]
fn lost_topics_come_back_in_two_goes() {
    let (source, target) = fenceable_both(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    for topic in ["orders", "dropped"] {
        create_topic(&source, topic, ORDERS, &[]);
        Load::new(topic, 30).produce(&source);
    }
    let twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    answer(&failover(&config, &["--yes", "--json"]), 0);
    await_failed_over(&twinlog);
    delete_topic(&source, "orders");
    delete_topic(&source, "dropped");
    delete_topic(&target, "dropped");
    answer(&failback(&config, &["--start", "--yes", "--json"]), 0);
    twinlog.wait_until(DEADLINE, "it copies back", |status| {
        let flows = status["flows"].as_array().expect("a list");
        let back = flows.iter().find(|flow| flow["name"] == "dr~back");
        back.is_some_and(|back| back["state"] == "running")
    });
    eventually(DEADLINE, "orders are on the old primary again", || {
        // Whoever copies back may still be about to make it.
        if partition_count(&source, "orders") < ORDERS {
            return Err((0, 0));
        }
        let (here, there) = (records(&source, &["orders"]), records(&target, &["orders"]));
        match here == there {
            true => Ok(()),
            false => Err((here.len(), there.len())),
        }
    });
    let report = answer(&failback(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    await_copying(&twinlog);
    Load::new("orders", 60).first(1_000).produce(&source);
    await_same_ends(&source, &target, "orders");
    assert_eq!(records(&source, &["orders"]), records(&target, &["orders"]));
}
