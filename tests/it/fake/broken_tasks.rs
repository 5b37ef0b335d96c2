//! A task of a flow that panics ends that flow, by name, and no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::flow::block_on;
use crate::support::{Load, await_same, create_topic, end_offset, eventually, fake_pair, groups};
use fake_kafka::faults::{Action, Fault, Hook};
use kafka_protocol::messages::ApiKey;
use tokio_util::sync::CancellationToken;
use twinlog::config::{self, Config};
use twinlog::environment::{Environment, ThisMachine};
use twinlog::flow::{AllEnded, run_flows};
use twinlog::telemetry::progress::{FlowState, Registry};
use twinlog::wire::{Dial, Dialing, Tcp};

const DEADLINE: Duration = Duration::from_secs(30);
/// Where other questions go over the same connection, whoever comes first connects again.
const ANY: &[&str] = &[" panicked"];

/// Whoever connects while it is armed, panics.
#[derive(Debug, Default)]
struct Trap {
    is_armed: AtomicBool,
    tcp: Tcp,
}

impl Dial for Trap {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        assert!(!self.is_armed.load(Ordering::Relaxed), "trapped");
        self.tcp.dial(address)
    }
}

/// Two flows of the same clusters, the first of which connects through the trap.
fn two_flows(source: &str, target: &str, trap: &Arc<Trap>) -> Config {
    let flow = |name: &str, from: &str, to: &str| {
        format!(
            "  {name}: {{ source: {from}, target: {to}, topics: {{ include: [{name}] }}, discovery_interval: 200ms }}\n"
        )
    };
    let text = format!(
        "clusters:\n  a1: {{ bootstrap.servers: \"{source}\", client.id: trapped }}\n  a2: {{ bootstrap.servers: \"{target}\", client.id: trapped }}\n  \
         b1: {{ bootstrap.servers: \"{source}\" }}\n  b2: {{ bootstrap.servers: \"{target}\" }}\nflows:\n{}{}",
        flow("trapped", "a1", "a2"),
        flow("spared", "b1", "b2"),
    );
    let parsed = config::parse_with_environment(&text, "test.yaml", &BTreeMap::new());
    let mut config = parsed.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    for name in ["a1", "a2"] {
        config
            .clusters
            .get_mut(name)
            .expect("it is there")
            .environment = Environment {
            dial: trap.clone(),
            machine: Arc::new(ThisMachine),
        };
    }
    config
}

fn state_of(registry: &Registry, flow: &str) -> FlowState {
    let found = registry.flows.get(flow);
    found.map_or(FlowState::Starting, |it| it.state())
}

fn why_stopped(registry: &Registry, flow: &str) -> Option<(&'static str, String)> {
    match state_of(registry, flow) {
        FlowState::Stopped { reason, detail } => Some((reason, detail)),
        _ => None,
    }
}

/// Breaks the connections that carry these requests, the first of which arms the trap: whoever has another reason to connect
/// isn't caught before. One of these tasks is named.
fn broken_by(fault: Fault, at_source: bool, tasks: &[&str]) {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    for topic in ["trapped", "spared"] {
        create_topic(&from, topic, 1, &[]);
        Load::new(topic, 20).produce(&from);
    }
    groups::commit(&from, "readers", &[("trapped", 0, 1)]);
    let trap = Arc::new(Trap::default());
    let registry = Arc::new(Registry::default());
    let cancel = CancellationToken::new();
    let config = two_flows(&from, &to, &trap);
    let (seen, told) = (registry.clone(), cancel.clone());
    let flows = std::thread::spawn(move || block_on(run_flows(config, &seen, &told)));
    for topic in ["trapped", "spared"] {
        await_same(&from, &to, topic, DEADLINE);
    }

    let side = if at_source { &source } else { &target };
    let (fault, armed) = (fault.client_id("trapped"), trap.clone());
    let arm: Hook = Box::new(move |_, _| armed.is_armed.store(true, Ordering::Relaxed));
    let broken = side.control(|state| {
        let arming = state.faults.add(fault.clone(), Action::Arrives(arm));
        [arming, state.faults.add(fault, Action::CutBefore)]
    });
    Load::new("trapped", 5).first(20).produce(&from);
    let (reason, detail) = eventually(DEADLINE, "the flow is stopped", || {
        why_stopped(&registry, "trapped").ok_or_else(|| state_of(&registry, "trapped"))
    });
    for fault in broken {
        side.clear(fault);
    }
    assert_eq!(reason, "defect", "{detail}");
    let is_named = tasks.iter().any(|task| detail.contains(task));
    assert!(is_named && detail.contains("trapped"), "{detail}");
    trap.is_armed.store(false, Ordering::Relaxed);

    let copied = end_offset(&to, "trapped", 0);
    Load::new("trapped", 5).first(25).produce(&from);
    Load::new("spared", 20).first(20).produce(&from);
    await_same(&from, &to, "spared", DEADLINE);
    assert_eq!(end_offset(&to, "trapped", 0), copied, "nobody copies it on");
    assert_eq!(why_stopped(&registry, "spared"), None);
    cancel.cancel();
    let ended = flows.join().expect("no panic").expect("known clusters");
    assert_eq!(ended, AllEnded::OneFailed);
}

#[test]
fn a_broken_fetch_session_ends_its_flow() {
    let cut = Fault::on_topic(ApiKey::Fetch, "trapped");
    broken_by(cut, true, &["fetch session"]);
}

#[test]
fn a_broken_lane_ends_its_flow() {
    let cut = Fault::on_topic(ApiKey::Produce, "trapped");
    broken_by(cut, false, &["lane to the target"]);
}

#[test]
fn a_broken_observer_of_groups_ends_its_flow() {
    let cut = Fault::on_topic(ApiKey::Fetch, "__consumer_offsets");
    broken_by(cut, true, &["observer of the source's groups"]);
}

#[test]
fn a_broken_discovery_ends_its_flow() {
    let cut = Fault::on(ApiKey::Metadata);
    broken_by(cut, true, ANY);
}

/// The one that keeps the claim is the flow's own: nothing goes on without it.
#[test]
fn a_broken_flow_leaves_nothing_running() {
    let cut = Fault::on_topic(ApiKey::ListOffsets, "__twinlog_state");
    broken_by(cut, false, ANY);
}
