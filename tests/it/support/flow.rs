//! One flow of several on the same pair of clusters, and what its status says.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use twinlog::config::ClusterSection;
use twinlog::state::StateStore;
use twinlog::wire;

use super::twinlog::Twinlog;

/// A config whose flow has this name and copies the topics that match; `lines` are more lines of
/// the flow. Tests that run side by side on one target need flows of different names.
pub fn flow_config(name: &str, topics: &str, source: &str, target: &str, lines: &str) -> String {
    let lines = format!("topics: {{ include: [\"{topics}\"] }}\n{lines}");
    Twinlog::config(source, target, &lines).replacen("\n  dr:\n", &format!("\n  {name}:\n"), 1)
}

/// The same config, whose clusters have so long for an answer.
pub fn with_timeout(config: &str, milliseconds: u64) -> String {
    let timeout = format!("request.timeout.ms: {milliseconds}, bootstrap.servers:");
    config.replace("bootstrap.servers:", &timeout)
}

/// The same config, whose clusters have longer for an answer than any test waits: who is waited for until a request is
/// given up is waited for in vain.
pub fn never_given_up(config: &str) -> String {
    with_timeout(config, 300_000)
}

/// One topic of the first flow in a status report.
pub fn topic_status<'a>(status: &'a Value, topic: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    status["flows"][0]["topics"]
        .as_array()
        .and_then(|topics| topics.iter().find(|found| found["name"] == topic))
        .unwrap_or(&NULL)
}

/// One partition of the first flow in a status report.
pub fn partition_status<'a>(status: &'a Value, topic: &str, partition: i32) -> &'a Value {
    static NULL: Value = Value::Null;
    topic_status(status, topic)["partitions"]
        .as_array()
        .and_then(|found| found.iter().find(|found| found["partition"] == partition))
        .unwrap_or(&NULL)
}

/// Whether a partition waits for an operator, for this reason.
pub fn is_stopped(status: &Value, topic: &str, partition: i32, reason: &str) -> bool {
    let found = partition_status(status, topic, partition);
    found["state"] == "stopped" && found["reason"] == reason
}

/// Whether a partition is being copied and has nothing left to copy.
pub fn is_caught_up(status: &Value, topic: &str, partition: i32) -> bool {
    let found = partition_status(status, topic, partition);
    found["state"] == "copying" && found["lag_records"] == 0
}

/// Waits until a partition is stopped for this reason.
pub fn await_stopped(twinlog: &Twinlog, topic: &str, partition: i32, reason: &str) -> Value {
    let what = format!("{topic}-{partition} is stopped: {reason}");
    twinlog.wait_until(Duration::from_secs(60), &what, |status| {
        is_stopped(status, topic, partition, reason)
    })
}

/// Waits until a partition's copy has reached this source offset and goes on.
pub fn await_position(twinlog: &Twinlog, topic: &str, partition: i32, position: i64) -> Value {
    let what = format!("{topic}-{partition} is copied up to {position}");
    twinlog.wait_until(Duration::from_secs(60), &what, |status| {
        let found = partition_status(status, topic, partition);
        found["state"] == "copying"
            && found["source_position"]
                .as_i64()
                .is_some_and(|at| at >= position)
    })
}

/// Our own wire client for a cluster, as the flows use it.
pub fn wire_cluster(bootstrap: &str) -> wire::Cluster {
    twinlog::connect::cluster(&section(bootstrap))
}

/// The cluster's section in a config of Twinlog's, as resolved.
///
/// # Panics
/// When the config refuses it.
pub fn section(bootstrap: &str) -> ClusterSection {
    let text = Twinlog::config(bootstrap, bootstrap, "");
    let config = twinlog::config::parse(&text, "test.yaml").expect("a config without problems");
    config.clusters["primary"].clone()
}

/// Runs async calls of the library to their end.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(future)
}

/// The state of a flow on a target, to be read and written; its topic is made if it isn't there.
///
/// # Panics
/// When it can't be read.
pub async fn opened_state(cluster: &wire::Cluster, flow: &str) -> StateStore {
    StateStore::open(cluster, flow)
        .await
        .expect("the state can be read")
}

/// Reads something out of the state topic on a target.
///
/// # Panics
/// When there is no state topic or it can't be read.
pub fn with_state<T>(target_bootstrap: &str, read: impl FnOnce(&StateStore) -> T) -> T {
    let cluster = wire_cluster(target_bootstrap);
    block_on(async {
        let store = StateStore::open_existing(&cluster)
            .await
            .expect("the state can be read")
            .expect("the state topic exists");
        read(&Arc::new(store))
    })
}
