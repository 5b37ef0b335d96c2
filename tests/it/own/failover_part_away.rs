//! The disaster takes a broker of the standby along: an unplanned failover goes on without what that led alone.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::support::failover::{answer, failover, try_write};
use crate::support::{
    Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, await_caught_up, create_topic,
    eventually, place_topic,
};

const DEADLINE: Duration = Duration::from_secs(90);
const TOPICS: [&str; 6] = ["t0", "t1", "t2", "t3", "t4", "t5"];
const LOST: usize = 2;

/// How the broker goes.
#[derive(Clone, Copy)]
enum Gone {
    Dead,
    Hung,
}

fn left_out(report: &Value) -> BTreeSet<&'static str> {
    let told = report["for_the_operator"].as_array().expect("a list");
    let line = told
        .iter()
        .filter_map(Value::as_str)
        .find(|line| line.contains("are left out"));
    let line = line.unwrap_or_else(|| panic!("{report:#}"));
    let is_named = |topic: &&str| line.contains(&format!("{topic} ("));
    TOPICS.into_iter().filter(is_named).collect()
}

fn goes_on(gone: Gone) {
    let three = ClusterOptions {
        nodes: 3,
        ..ClusterOptions::named("target")
    };
    let mut source = Cluster::launch(KafkaVersion::V4_3, ClusterOptions::named("source"));
    let mut target = Cluster::launch(KafkaVersion::V4_3, three);
    source.await_ready();
    target.await_ready();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for (topic, leader) in TOPICS.into_iter().zip([1, 1, 2, 2, 3, 3]) {
        create_topic(&from, topic, 1, &[]);
        place_topic(&to, topic, &[&[leader]], &[]);
        Load::new(topic, 20).produce(&from);
    }
    let lines = "replication_factor: 1\nfailover: { padding: 10 }";
    let mut twinlog = Twinlog::start(&Twinlog::config(&from, &to, lines));
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();
    twinlog.kill9();
    source.kill(1);
    match gone {
        Gone::Dead => target.kill(LOST),
        Gone::Hung => target.signal(LOST, "STOP"),
    }
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let report = answer(&failover(&config, &arguments), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    let away = left_out(&report);
    assert_eq!(away, BTreeSet::from(["t2", "t3"]), "what it led");
    for topic in TOPICS.into_iter().filter(|topic| !away.contains(topic)) {
        eventually(DEADLINE, "it takes writes", || try_write(&to, topic));
    }
    match gone {
        Gone::Dead => target.restart(LOST),
        Gone::Hung => target.signal(LOST, "CONT"),
    }
    target.await_ready();
    let report = answer(&failover(&config, &arguments), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    for topic in away {
        eventually(DEADLINE, "it takes writes, too", || try_write(&to, topic));
    }
}

#[test]
fn a_broker_that_is_dead_takes_its_topics_along_and_no_other() {
    goes_on(Gone::Dead);
}

#[test]
fn a_broker_that_hangs_does_too() {
    goes_on(Gone::Hung);
}
