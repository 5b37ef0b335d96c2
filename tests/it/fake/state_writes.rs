//! A record of the state topic waits for an in-sync replica that hangs.

use std::time::{Duration, Instant};

use crate::support::flow::{block_on, flow_config, never_given_up, opened_state, wire_cluster};
use crate::support::{
    Load, Transactions, Twinlog, await_all_same, create_topic, eventually, fake_pair, groups,
};
use fake_kafka::faults::{Action, Fault};
use kafka_protocol::messages::ApiKey;
use twinlog::state::STATE_TOPIC;

const DEADLINE: Duration = Duration::from_secs(60);
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
    let config = flow_config(topic, topic, &from, &to, "");
    let _twinlog = Twinlog::start(&never_given_up(&config));
    await_all_same(&from, &to, &[topic], DEADLINE);

    let writes = Fault::on_topic(ApiKey::Produce, STATE_TOPIC);
    let held = target.fault(writes, Action::Hold);
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
    await_all_same(&from, &to, &[topic], DEADLINE);
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
    let config = flow_config(topic, topic, &from, &to, lines);
    let twinlog = Twinlog::start(&never_given_up(&config));
    await_all_same(&from, &to, &[topic], DEADLINE);
    let await_known = |offset: i64| {
        eventually(
            DEADLINE,
            "the known group goes on",
            || match groups::committed(&to, "known", topic, 1)[0] {
                Some(found) if found == offset => Ok(()),
                found => Err(found),
            },
        );
    };
    groups::commit(&from, "known", &[(topic, 0, 10)]);
    await_known(10);

    let writes = Fault::on_topic(ApiKey::Produce, STATE_TOPIC);
    target.fault(writes, Action::Hold);
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
        await_known(offset);
    }
}

/// Who looks in the same moment looks once; who looks behind a write of somebody else sees that.
#[test]
fn looks_of_the_same_moment_are_one() {
    let (_, target) = fake_pair();
    block_on(async {
        let cluster = wire_cluster(&target.bootstrap());
        let other = opened_state(&wire_cluster(&target.bootstrap()), "one").await;
        other.put("note/one", &0).await.expect("written");
        let store = opened_state(&cluster, "one").await;
        store.hurry();
        for round in 0..20_u64 {
            other.put("note/one", &round).await.expect("written");
            let ends = Fault::on_topic(ApiKey::ListOffsets, STATE_TOPIC);
            let looks = target.fault(ends, Action::Delay(0));
            let looked = tokio::join!(store.refresh(), store.refresh(), store.refresh());
            for it in [looked.0, looked.1, looked.2] {
                it.expect("it is read");
            }
            let found: Option<u64> = store.get("note/one").expect("a number");
            assert_eq!(found, Some(round));
            assert_eq!(target.fired(looks), 1);
            target.clear(looks);
        }
    });
}
