//! A record of the state topic waits for an in-sync replica that hangs.

use std::time::{Duration, Instant};

use crate::support::flow::flow_config;
use crate::support::{
    Load, Transactions, Twinlog, await_all_same, create_topic, eventually, fake_pair,
};
use fake_kafka::faults::{Action, Fault};
use kafka_protocol::messages::ApiKey;
use twinlog::state::STATE_TOPIC;

const DEADLINE: Duration = Duration::from_secs(60);
/// Half of what a request may take before its connection is given up.
const SOON: Duration = Duration::from_secs(15);
/// Longer than everything that is waited for.
const HELD_MS: i64 = 120_000;
/// So long after a look at the claim fillers may be written.
const LOOK_COUNTS_FOR: Duration = Duration::from_secs(2);

/// No filler is written without a fresh look at the claim, and that is a question to the same broker.
#[test]
fn fillers_go_on_while_a_record_of_the_state_waits() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let topic = "unheld";
    create_topic(&from, topic, 1, &[]);
    Load::new(topic, 20).produce(&from);
    let _twinlog = Twinlog::start(&flow_config(topic, topic, &from, &to, ""));
    await_all_same(&from, &to, &[topic], DEADLINE);

    let writes = Fault::on_topic(ApiKey::Produce, STATE_TOPIC);
    let held = target.fault(writes, Action::Delay(HELD_MS));
    // The ends that it observes are remembered.
    Load::new(topic, 20).first(20).produce(&from);
    eventually(DEADLINE, "a record of the state waits", || {
        match target.control(|state| state.faults.fired(held)) {
            0 => Err(()),
            fired => Ok(fired),
        }
    });
    // Holes come for longer than a look at the claim counts.
    let until = Instant::now() + 2 * LOOK_COUNTS_FOR;
    let mut first = 40;
    while Instant::now() < until {
        let mut transactions = Transactions::new(Load::new(topic, 30).first(first), 3);
        transactions.abort_percent = 50;
        transactions.produce(&from);
        first += 30;
    }
    await_all_same(&from, &to, &[topic], SOON);
}
