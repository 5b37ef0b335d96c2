//! Brokers that take only so many connections, or so many in a second.

use std::time::Duration;

use fake_kafka::state::Options;

use crate::support::fake::options;
use crate::support::flow::flow_config;
use crate::support::{FakeCluster, Load, Twinlog, await_same, create_topic, fake_pair};

const DEADLINE: Duration = Duration::from_secs(60);

/// One that is closed as soon as it is accepted looks like a broker that dies, or one that doesn't want us.
#[test]
fn a_limit_of_connections_is_named_and_over_when_it_is_raised() {
    for side in ["source", "target"] {
        let limited = FakeCluster::start(Options {
            connections_max: Some(2),
            ..options(side)
        });
        let other = FakeCluster::named("other");
        let (source, target) = match side {
            "source" => (limited.clone(), other),
            _ => (other, limited.clone()),
        };
        let (from, to) = (source.bootstrap(), target.bootstrap());
        limited.control(|state| state.options.connections_max = None);
        create_topic(&from, "limited", 1, &[]);
        Load::new("limited", 10).produce(&from);
        limited.control(|state| state.options.connections_max = Some(2));
        let twinlog = Twinlog::start(&flow_config("limited", "limited", &from, &to, ""));
        crate::support::eventually(DEADLINE, "the limit is named", || {
            let log = twinlog.log();
            let is_named = log.contains("max.connections.per.ip");
            if is_named { Ok(()) } else { Err(log) }
        });
        let log = twinlog.log();
        assert!(!log.contains("password"), "{side}: {log}");
        limited.control(|state| state.options.connections_max = None);
        await_same(&from, &to, "limited", DEADLINE);
    }
}

/// The acceptor takes its time: connections that wait for it aren't silent brokers, and everything comes in the end.
#[test]
fn a_rate_of_connections_delays_and_stops_nothing() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "slowly", 1, &[]);
    Load::new("slowly", 10).produce(&from);
    for cluster in [&source, &target] {
        cluster.control(|state| state.options.connection_pause_ms = 400);
    }
    let twinlog = Twinlog::start(&flow_config("slowly", "slowly", &from, &to, ""));
    await_same(&from, &to, "slowly", DEADLINE);
    twinlog.wait_until(DEADLINE, "it is ready", |status| status["ready"] == true);
}
