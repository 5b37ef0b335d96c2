//! What the copy changes on its target may be done although the answer was lost: asking again does no harm.
//!
//! What commands change so is in `sim::hunts::lost_answers`.

use std::time::Duration;

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use twinlog::wire;

use crate::support::admin::await_partitions;
use crate::support::fake::fake_pair;
use crate::support::flow::{block_on, wire_cluster};
use crate::support::groups::{commit, committed};
use crate::support::{
    Load, Twinlog, add_partitions, await_all_same, await_caught_up, create_topic, eventually,
};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";

/// A flow that copies, and loses the first `lost` answers to `key` on its target.
fn losing(key: ApiKey, lost: u64) -> (Twinlog, String, String) {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 1, &[]);
    Load::new(TOPIC, 20).produce(&from);
    commit(&from, "billing", &[(TOPIC, 0, 10)]);
    let lines = "groups: { include: [\".*\"], delete: true }";
    let twinlog = Twinlog::start(&Twinlog::config(&from, &to, lines));
    await_caught_up(&twinlog, DEADLINE);
    target.fault(Fault::on(key).times(lost), Action::CutAfter);
    (twinlog, from, to)
}

#[test]
fn partitions_are_added_once() {
    let (_twinlog, from, to) = losing(ApiKey::CreatePartitions, 3);
    add_partitions(&from, TOPIC, 4);
    await_partitions(&to, TOPIC, 4);
    Load::new(TOPIC, 40).first(1_000).produce(&from);
    await_all_same(&from, &to, &[TOPIC], DEADLINE);
}

#[test]
fn a_group_is_deleted_once_and_followed_again_as_a_new_one() {
    let (_twinlog, from, to) = losing(ApiKey::DeleteGroups, 2);
    let is_at = |wanted: Option<i64>| {
        eventually(
            DEADLINE,
            &format!("the group is at {wanted:?}"),
            || match committed(&to, "billing", TOPIC, 1)[0] {
                found if found == wanted => Ok(()),
                found => Err(found),
            },
        );
    };
    is_at(Some(10));
    let group = ["billing".to_owned()];
    let deleted = block_on(wire::delete_groups(&wire_cluster(&from), &group));
    assert!(deleted[&group[0]].is_ok(), "{deleted:?}");
    is_at(None);
    commit(&from, "billing", &[(TOPIC, 0, 15)]);
    is_at(Some(15));
}
