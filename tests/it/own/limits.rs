//! How fast a flow is whose source is far away.

use crate::fake::limits::{await_bytes, bytes_of, produce_kibs};
use crate::support::flow::{await_position, flow_config};
use crate::support::ports::Port;
use crate::support::proxy::Proxy;
use crate::support::{Cluster, ClusterOptions, KafkaVersion, Twinlog, create_topic, pair};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

#[test]
fn a_long_line_is_filled() {
    const RECORDS: usize = 160 * 1024;
    let entrance = Port::reserve();
    let options = ClusterOptions {
        proxy: Some(entrance.address()),
        ..ClusterOptions::named("far")
    };
    let source = Cluster::start(KafkaVersion::V4_3, options);
    let (_, target) = pair(KafkaVersion::V4_3);
    create_topic(&source.bootstrap(), "far", 1, &[]);
    produce_kibs(&source.bootstrap(), "far", 0, RECORDS);

    let _proxy = Proxy::start(
        &entrance.address(),
        &source.behind_proxy(),
        Duration::from_millis(50),
    );
    let config = flow_config("far", "far", &entrance.address(), &target.bootstrap(), "");
    let twinlog = Twinlog::start(&config);
    let (began, before) = await_bytes(&twinlog, 8 * MIB);
    let end = i64::try_from(RECORDS).expect("small");
    let status = await_position(&twinlog, "far", 0, end);
    let seconds = began.elapsed().as_secs_f64();
    let rate = (bytes_of(&status) - before) as f64 / seconds / 1e6;
    println!("{rate:.1} MB/s over a line with a round trip of 100 ms");
    assert!(rate > 15.0, "{rate:.1} MB/s: the line isn't filled");
}
