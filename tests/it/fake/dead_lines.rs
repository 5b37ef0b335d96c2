//! Lines that die without a word, and addresses at which nobody is.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::ports::Port;
use crate::support::proxy::Proxy;
use crate::support::{FakeCluster, Load, Twinlog, await_same, create_topic, fake_pair};

const DEADLINE: Duration = Duration::from_secs(60);
/// Firewalls forget what was idle for a minute or more; tests are in a hurry.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(18);
const SILENCE: Duration = Duration::from_secs(25);
/// Well below the time after which a request is given up (30 s).
const SOON: Duration = Duration::from_secs(6);

/// A way to a cluster, and where it begins; its brokers send their clients there.
fn through_proxy(cluster: &FakeCluster) -> (Port, Proxy) {
    let entrance = Port::reserve();
    let to = cluster.bootstrap();
    let proxy = Proxy::start(&entrance.address(), &to, Duration::ZERO);
    let address = entrance.address();
    let (host, port) = address.rsplit_once(':').expect("host:port");
    cluster.control(|state| {
        for broker in state.brokers.values_mut() {
            broker.host = host.to_owned();
            broker.port = port.parse().expect("a port");
        }
    });
    (entrance, proxy)
}

#[test]
fn a_record_after_silence_is_copied_although_the_line_forgets_idle_connections() {
    let (source, target) = fake_pair();
    let (near, near_proxy) = through_proxy(&source);
    let (far, far_proxy) = through_proxy(&target);
    let (from, to) = (near.address(), far.address());
    create_topic(&from, "rare", 2, &[]);
    Load::new("rare", 10).produce(&from);
    let twinlog = Twinlog::between(&from, &to);
    await_same(&from, &to, "rare", DEADLINE);
    for proxy in [&near_proxy, &far_proxy] {
        proxy.forget_idle(FORGOTTEN_AFTER);
    }
    for round in 1..3 {
        std::thread::sleep(SILENCE);
        Load::new("rare", 10).first(round * 10).produce(&from);
        let began = Instant::now();
        await_same(&from, &to, "rare", SOON);
        println!("round {round}: {:?}", began.elapsed());
    }
    let log = twinlog.log();
    assert!(!log.contains("no answer within"), "{log}");
}

/// Somebody takes connections at the first address, as a load balancer does, and nobody is behind it.
#[test]
fn an_address_with_nobody_behind_it_costs_seconds_and_check_names_it() {
    let (source, target) = fake_pair();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = silent.local_addr().map(|address| (silent, address));
    let (_listener, nobody) = silent.expect("bound");
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "found", 1, &[]);
    Load::new("found", 10).produce(&from);
    let servers = |alive: &str| format!("{nobody},{alive}");
    let began = Instant::now();
    let twinlog = Twinlog::between(&servers(&from), &servers(&to));
    await_same(&from, &to, "found", SOON);
    println!("copied after {:?}", began.elapsed());
    let check = twinlog.command("check", &[]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    let named = format!("{nobody}: accepted, but silent");
    assert_eq!(said.matches(&named).count(), 2, "{said}");
    assert!(said.contains("connections to each broker of"), "{said}");
}
