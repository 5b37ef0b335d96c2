//! Quotas that are held until a failover, with the source gone.

use crate::shared::metadata_quotas::FOLLOWED;
use crate::shared::metadata_quotas::{DEFAULT_CLIENT, DEFAULT_USER, await_drift, quota, set};
use crate::support::flow::{block_on, flow_config, wire_cluster};
use crate::support::{Cluster, ClusterOptions, KafkaVersion, Twinlog, eventually};
use twinlog::metadata::quotas;
use twinlog::state::StateStore;

/// With the source gone, or not: it isn't asked.
#[test]
fn what_is_held_is_set_by_the_failover_and_can_be_taken_back() {
    let start = |name| Cluster::launch(KafkaVersion::V4_3, ClusterOptions::named(name));
    let (mut from, mut to) = (start("held-source"), start("held-target"));
    from.await_ready();
    to.await_ready();
    let (source, target) = (from.bootstrap(), to.bootstrap());
    // So high that nobody waits: the one on the target counts for Twinlog too.
    set(&source, DEFAULT_USER, "producer_byte_rate", Some(7e9));
    set(&source, DEFAULT_CLIENT, "consumer_byte_rate", Some(8e9));
    set(&target, DEFAULT_CLIENT, "consumer_byte_rate", Some(80e9));
    let mut twinlog = Twinlog::start(&flow_config("held", "held", &source, &target, ""));
    let (user, client) = (
        ("quota", "user <default>", "producer_byte_rate"),
        ("quota", "client-id <default>", "consumer_byte_rate"),
    );
    await_drift(&twinlog, user, "hold");
    await_drift(&twinlog, client, "hold");
    assert!(twinlog.terminate().success());
    drop(from);
    // What waits is listed from the target alone.
    let listed = twinlog.command("held", &[]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for line in [
        "held user <default>: producer_byte_rate=7000000000 (",
        "held client-id <default>: consumer_byte_rate=8000000000 (",
    ] {
        assert!(listed.contains(line), "{listed}");
    }

    let both = || {
        (
            quota(&target, DEFAULT_USER, "producer_byte_rate"),
            quota(&target, DEFAULT_CLIENT, "consumer_byte_rate"),
        )
    };
    block_on(async {
        let cluster = wire_cluster(&target);
        let open = || StateStore::open(&cluster, "held");
        let store = open().await.expect("the state");
        let held = quotas::held(&store, "held").expect("readable");
        let values: Vec<f64> = held.iter().map(|held| held.value).collect();
        assert_eq!(values, [8e9, 7e9], "{held:?}");
        let done = quotas::release(&cluster, &store, "held")
            .await
            .expect("done");
        assert_eq!(done.len(), 2);
        assert!(done.iter().all(|(_, outcome)| outcome.is_ok()), "{done:?}");
    });
    eventually(FOLLOWED, "both are set", || match both() {
        (Some(7e9), Some(8e9)) => Ok(()),
        found => Err(found),
    });
    // Another process goes on where the first one ended.
    block_on(async {
        let cluster = wire_cluster(&target);
        let store = StateStore::open(&cluster, "held").await.expect("the state");
        assert_eq!(quotas::held(&store, "held").expect("readable"), []);
        let again = quotas::release(&cluster, &store, "held")
            .await
            .expect("done");
        assert!(again.is_empty(), "{again:?}");
        let back = quotas::withdraw(&cluster, &store, "held")
            .await
            .expect("done");
        assert_eq!(back.len(), 2);
        assert!(back.iter().all(|(_, outcome)| outcome.is_ok()), "{back:?}");
        assert_eq!(quotas::held(&store, "held").expect("readable").len(), 2);
    });
    eventually(FOLLOWED, "what was there before is there", || {
        match both() {
            (None, Some(80e9)) => Ok(()),
            found => Err(found),
        }
    });
}
