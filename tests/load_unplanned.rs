//! Unplanned failovers under the load of real applications, librdkafka and Java, whose broker is
//! killed: what was copied is there, the orphans are exactly what is missing, and nothing is read
//! again but what hadn't been committed.

mod support;

use std::time::Duration;

use support::book::now_ms;
use support::failover::{await_failed_over, records};
use support::laws::{assert_kept, orphans_are_what_is_missing, same_offsets};
use support::stage::{
    TOPICS, apps, await_orphans, clusters, ends, fail_over_unplanned, judge, old_records,
};
use support::{Cluster, KafkaVersion, Twinlog, eventually};

const DEADLINE: Duration = Duration::from_secs(60);

/// How the source dies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    /// All of a sudden, while everything is being copied.
    Sudden,
    /// After the copy has fallen behind.
    Behind,
}

impl Death {
    /// Lines of the flow's config.
    fn config(self) -> &'static str {
        match self {
            Self::Sudden => "",
            // Less than is written.
            Self::Behind => "limits: { bytes_per_second: 12KiB }",
        }
    }
}

/// Kills the source's broker; when.
fn kill(source: &mut Cluster, target: &str, twinlog: &Twinlog, death: Death) -> i64 {
    let bootstrap = source.bootstrap();
    let ahead = || {
        let (source, target) = (ends(&bootstrap), ends(target));
        source.values().sum::<i64>() - target.values().sum::<i64>()
    };
    if death == Death::Behind {
        eventually(DEADLINE, "the source is ahead", || match ahead() {
            many if many > 500 => Ok(()),
            few => Err(few),
        });
    }
    let killed_at_ms = now_ms();
    source.kill(1);
    twinlog.wait_until(DEADLINE, "the source is missed", |status| {
        status["flows"][0]["state"] == "waiting"
    });
    killed_at_ms
}

fn the_broker_is_killed_under_load(version: KafkaVersion, death: Death) {
    let (mut source, target) = clusters(version);
    let target = target.bootstrap();
    let config = Twinlog::config(&source.bootstrap(), &target, death.config());
    let twinlog = Twinlog::start(&config);
    let mut apps = apps(version, &source.bootstrap());
    apps.await_flowing(400);
    let killed_at_ms = kill(&mut source, &target, &twinlog, death);
    let copied = fail_over_unplanned(&apps, &twinlog, &target, 0, killed_at_ms);
    apps.switch(&target);
    apps.await_flowing(200);
    await_failed_over(&twinlog);
    source.restart(1);
    let source = source.bootstrap();
    let orphans = await_orphans(&twinlog, &source);
    if death == Death::Behind {
        assert!(!orphans.is_empty(), "nothing was stranded");
    }
    apps.quiet();
    let primary = records(&target, &TOPICS);
    apps.await_read(primary.keys());
    let pages = apps.stop();
    let old = old_records(&pages, &source, &primary);
    let missing = orphans_are_what_is_missing(&pages, &old, &copied.log, &orphans);
    assert_kept("orphans", &missing);
    assert_kept("offsets", &same_offsets(&old, &primary, &orphans));
    let moves = copied.again.into_iter();
    let moves = moves.map(|(group, again)| (group, vec![again])).collect();
    judge(&pages, &primary, &orphans, &moves);
}

#[test]
fn the_broker_is_killed_while_all_is_copied() {
    the_broker_is_killed_under_load(KafkaVersion::V4_3, Death::Sudden);
}

#[test]
fn the_broker_is_killed_while_the_copy_is_behind() {
    the_broker_is_killed_under_load(KafkaVersion::V4_3, Death::Behind);
}

#[test]
fn the_broker_is_killed_while_the_copy_is_behind_on_3_9() {
    the_broker_is_killed_under_load(KafkaVersion::V3_9, Death::Behind);
}
