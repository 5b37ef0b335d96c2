//! Failing over to a standby that is far away, and back.

use std::time::Duration;

use crate::support::failover::{answer, await_copying, await_failed_over, failback, failover};
use crate::support::ports::Port;
use crate::support::proxy::Proxy;
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, await_caught_up, create_topic, pair,
};

/// One way.
const DELAY: Duration = Duration::from_millis(25);
const DEADLINE: Duration = Duration::from_secs(120);
const TOPICS: usize = 8;
const PARTITIONS: i32 = 30;

/// The process that copies is alive and far from the standby: it ends in order and isn't called silent, however
/// many partitions it has to end.
#[test]
fn a_process_that_is_far_from_the_standby_ends_in_order() {
    let (source, _) = pair(KafkaVersion::V4_3);
    let entrance = Port::reserve();
    let options = ClusterOptions {
        proxy: Some(entrance.address()),
        ..ClusterOptions::named("far-cut")
    };
    let target = Cluster::start(KafkaVersion::V4_3, options);
    let proxy = Proxy::start(&entrance.address(), &target.behind_proxy(), Duration::ZERO);
    let from = source.bootstrap();
    let topics: Vec<String> = (0..TOPICS).map(|it| format!("far-{it}")).collect();
    for topic in &topics {
        create_topic(&from, topic, PARTITIONS, &[]);
        Load::new(topic, 300).produce(&from);
    }
    let twinlog = Twinlog::between(&from, &entrance.address());
    await_caught_up(&twinlog, DEADLINE);
    proxy.delay(DELAY);
    let manual = ["--yes", "--json", "--fence", "manual", "--quiet-for", "1"];
    let report = answer(&failover(twinlog.config_file(), &manual), 0);
    in_order(&report);
    await_failed_over(&twinlog);
    let report = answer(&failback(twinlog.config_file(), &manual), 0);
    in_order(&report);
    await_copying(&twinlog);
    assert!(
        !twinlog.log().contains("not every answer arrived in time"),
        "it came to its end"
    );
}

fn in_order(report: &serde_json::Value) {
    println!("{} s", report["seconds"]);
    let steps = report["steps"].as_array().expect("steps");
    for step in steps {
        println!("  {} {} {}", step["step"], step["seconds"], step["result"]);
    }
    let mut steps = steps.iter();
    let stop = steps.find(|it| it["step"] == "stop_copying");
    let result = &stop.expect("it stops the copy")["result"];
    assert_eq!(result, "the copying process has ended in order");
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
}
