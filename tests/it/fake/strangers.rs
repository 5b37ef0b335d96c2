//! Somebody else writes to a copy and the flow keeps it: what clients, `translate` and `verify` see.

use std::time::Duration;

use crate::support::flow::{await_position, flow_config, topic_status};
use crate::support::groups::{commit, committed};
use crate::support::mapped::{assert_same_sequence, stored_map, translate};
use crate::support::verified::assert_verified;
use crate::support::{
    Isolation, Load, Twinlog, create_topic, end_offset, eventually, fake_pair, read_all,
};
use twinlog::offsets::TargetOffset;

const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const TOPIC: &str = "shared";

#[test]
fn what_somebody_else_wrote_is_known_everywhere() {
    let (source, target) = fake_pair();
    strangers_are_kept(&source.bootstrap(), &target.bootstrap());
}

/// Leaves a flow that copies two partitions: to the first one somebody else wrote seven records at 100 and, while
/// nobody copied, three at 157.
pub(crate) fn strangers_are_kept(source: &str, target: &str) -> Twinlog {
    create_topic(source, TOPIC, 2, &[]);
    Load::new(TOPIC, 100).partition(0).produce(source);
    Load::new(TOPIC, 100).partition(1).produce(source);
    let lines = "on_foreign_write: map";
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, source, target, lines));
    for partition in 0..2 {
        await_position(&twinlog, TOPIC, partition, 100);
    }
    commit(source, "at the end", &[(TOPIC, 0, 100)]);
    await_committed(target, "at the end", 100);
    Load::new(TOPIC, 7)
        .first(50_000)
        .partition(0)
        .produce(target);
    Load::new(TOPIC, 50)
        .first(1_000)
        .partition(0)
        .produce(source);
    Load::new(TOPIC, 50)
        .first(2_000)
        .partition(1)
        .produce(source);
    for partition in 0..2 {
        await_position(&twinlog, TOPIC, partition, 150);
    }
    assert_eq!(
        (end_offset(target, TOPIC, 0), end_offset(target, TOPIC, 1)),
        (157, 150)
    );
    commit(source, "late", &[(TOPIC, 0, 120)]);
    await_committed(target, "late", 127);
    await_committed(target, "at the end", 107);
    let said = [
        "1 of 2 partition(s), 0: somebody else wrote to the copy, from target offset 100 on",
        "the copy has 7 offset(s) that somebody else wrote",
    ];
    // The seven may come in two batches, and are counted by and by then.
    twinlog.wait_until(DEADLINE, "it is told", |status| {
        let of_topic = topic_status(status, TOPIC);
        let reason = of_topic["offsets_reason"].to_string();
        of_topic["offsets"] == "mapped" && said.iter().all(|said| reason.contains(said))
    });
    await_map(target, 157);
    for (asked, more, offset) in [
        (99, &[][..], 99),
        (100, &[], 107),
        (149, &[], 156),
        (103, &["--reverse"], 100),
        (156, &["--reverse"], 149),
    ] {
        let answer = translate(&twinlog, TOPIC, 0, asked, more);
        assert_eq!(answer["offset"], offset, "{answer:#}");
    }
    assert_verified(&twinlog, &["--full"]);
    twinlog.kill9();
    Load::new(TOPIC, 3)
        .first(60_000)
        .partition(0)
        .produce(target);
    Load::new(TOPIC, 30)
        .first(3_000)
        .partition(0)
        .produce(source);
    twinlog.launch();
    await_position(&twinlog, TOPIC, 0, 180);
    assert_eq!(end_offset(target, TOPIC, 0), 190);
    commit(source, "late", &[(TOPIC, 0, 170)]);
    await_committed(target, "late", 180);
    await_map(target, 190);
    assert_verified(&twinlog, &["--full"]);
    let mut copies = read_all(target, TOPIC, Isolation::ReadUncommitted);
    let is_foreign = |offset| (100..107).contains(&offset) || (157..160).contains(&offset);
    copies.retain(|it| it.partition != 0 || !is_foreign(it.offset));
    assert_same_sequence(&read_all(source, TOPIC, Isolation::ReadCommitted), &copies);
    twinlog
}

fn await_map(target: &str, end: i64) {
    eventually(DEADLINE, "the map is stored", || {
        match stored_map(target, TOPIC, 0).0.target_end() {
            TargetOffset(stored) if stored == end => Ok(()),
            other => Err(other),
        }
    });
}

fn await_committed(target: &str, group: &str, offset: i64) {
    let what = format!("{group} is at {offset}");
    eventually(DEADLINE, &what, || {
        match committed(target, group, TOPIC, 1)[0] {
            Some(at) if at == offset => Ok(()),
            other => Err(other),
        }
    });
}
