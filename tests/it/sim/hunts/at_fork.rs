//! A group stands at the end of the copy when the source is lost.

use fake_kafka::world::{self, World};
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::Side;
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

const RECORDS: i64 = 20;

/// Where the group is on the standby behind the failover, and where the log ends, or where its newest record is. A client of the standby may be
/// there before the padding.
fn play(world: &mut World, committed: i64, is_client_early: bool) -> (i64, i64, String) {
    let (mut scene, twinlog, place) = Scene::with_groups(world, RECORDS, "twinlog");
    let group = scene.commits(world, committed, 10);
    world.result(&group, 60_000);
    let cluster = scene.target.cluster.clone();
    let at = move |cluster: &fake_kafka::Cluster| {
        let found = cluster.control(|state| state.committed_offset("group", "t", 0));
        found.map(|it| it.offset)
    };
    world.must("the group has followed", 60_000, move |_| {
        at(&cluster) == Some(committed)
    });
    world.run_for(35_000);
    scene.lose_source(world);
    twinlog.process.kill();
    let unplanned = failover_options(CutoverKind::Unplanned);
    let failover = process::failover(world, "operator", &scene.text, unplanned);
    if is_client_early {
        let target = scene.target.clone();
        world.must("the forks are recorded", 60_000, move |_| {
            logs::newest(&target, "__twinlog_state", "fork/dr/t").is_some()
        });
        scene.write(world, Side::Standby, &place, 1, Write::default());
    }
    let (report, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    let end = match is_client_early {
        true => {
            logs::read(&scene.target, &place)
                .records
                .last()
                .expect("some")
                .offset
        }
        false => scene.target.cluster.control(|state| {
            let found = state.partition("t", 0).and_then(|it| it.leader_log());
            found.expect("it is led").end_offset()
        }),
    };
    let told = report.for_the_operator.join("\n");
    (
        at(&scene.target.cluster).expect("it is committed"),
        end,
        told,
    )
}

#[test]
fn a_group_at_the_fork_goes_behind_the_padding() {
    world::run(1, |world| {
        let (group, end, told) = play(world, RECORDS, false);
        assert!(end > RECORDS, "it is padded");
        assert_eq!(group, end, "{told}");
        assert!(told.contains("moved behind the padding"), "{told}");
    });
}

#[test]
fn a_group_before_a_record_stays() {
    world::run(1, |world| {
        let (group, _, told) = play(world, RECORDS - 1, false);
        assert_eq!(group, RECORDS - 1, "{told}");
        assert!(!told.contains("behind the padding"), "{told}");
    });
}

#[test]
fn a_record_among_the_padding_is_not_skipped() {
    world::run(1, |world| {
        let (group, record, told) = play(world, RECORDS, true);
        assert!(record >= RECORDS, "{record}");
        assert!(
            (RECORDS..=record).contains(&group),
            "{group} {record}: {told}"
        );
    });
}
