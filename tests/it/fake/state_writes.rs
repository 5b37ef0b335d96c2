//! A record of the state topic waits for an in-sync replica that hangs.

use std::time::{Duration, Instant};

use crate::support::flow::flow_config;
use crate::support::{
    Load, Transactions, Twinlog, await_all_same, create_topic, eventually, fake_pair, groups,
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

/// A group's first commit waits for its record. More of them than are sent to one coordinator at a time.
#[test]
fn a_known_group_goes_on_while_the_first_commits_of_others_wait() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    groups::has_had_groups(&to);
    let topic = "unheld-groups";
    create_topic(&from, topic, 1, &[]);
    Load::new(topic, 100).produce(&from);
    let lines = "groups: { include: [\"known\", \"new-.*\"] }\n";
    let twinlog = Twinlog::start(&flow_config(topic, topic, &from, &to, lines));
    await_all_same(&from, &to, &[topic], DEADLINE);
    let await_known = |offset: i64, deadline| {
        eventually(
            deadline,
            "the known group goes on",
            || match groups::committed(&to, "known", topic, 1)[0] {
                Some(found) if found == offset => Ok(()),
                found => Err(found),
            },
        );
    };
    groups::commit(&from, "known", &[(topic, 0, 10)]);
    await_known(10, DEADLINE);

    let writes = Fault::on_topic(ApiKey::Produce, STATE_TOPIC);
    target.fault(writes, Action::Delay(HELD_MS));
    for number in 0..6 {
        let group = format!("new-{number}");
        groups::commit(&from, &group, &[(topic, 0, 20)]);
        eventually(DEADLINE, "the new group is seen", || {
            let all = twinlog.groups()["groups"].clone();
            let seen = all.as_array().into_iter().flatten();
            let found = seen.clone().any(|it| it["group"] == *group);
            found.then_some(()).ok_or(all)
        });
    }
    for offset in [30, 40] {
        groups::commit(&from, "known", &[(topic, 0, offset)]);
        await_known(offset, SOON);
    }
}
