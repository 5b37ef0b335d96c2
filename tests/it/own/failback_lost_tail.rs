//! The way back to a primary that has lost what was copied from it, and has other records in its place.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::orphans::undecided;
use crate::support::failover::{answer, await_copying, failback, failover, start_fenceable_both};
use crate::support::groups::{commit, committed, next_values};
use crate::support::verified::assert_verified;
use crate::support::{
    Isolation, KafkaVersion, Load, Twinlog, await_caught_up, create_topic, end_offset, eventually,
    read_all, scratch,
};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let there = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy_folder(&path, &there),
            false => {
                fs::copy(&path, &there).expect("a copy");
            }
        }
    }
}

fn values(cluster: &str) -> Vec<Option<Vec<u8>>> {
    let records = read_all(cluster, TOPIC, Isolation::ReadCommitted);
    records.into_iter().map(|it| it.value).collect()
}

/// It comes back as it was 50 records ago, its controller too, so that it uses the same leader epochs
/// again; then clients that know of nothing write 200 there.
#[test]
fn a_tail_that_the_old_primary_lost_is_copied_back() {
    let (mut source, target) = start_fenceable_both(KafkaVersion::V4_3);
    let (old, new) = (source.bootstrap(), target.bootstrap());
    create_topic(&old, TOPIC, 1, &[]);
    Load::new(TOPIC, 950).produce(&old);
    source.kill(1);
    let aside = scratch::folder("set-back");
    copy_folder(&source.data_folder(1), &aside);
    source.restart(1);
    Load::new(TOPIC, 50).first(950).produce(&old);
    commit(&old, "in-the-tail", &[(TOPIC, 0, 975)]);
    let config = Twinlog::config(&old, &new, "");
    let mut twinlog = Twinlog::start(&config);
    await_caught_up(&twinlog, DEADLINE);
    eventually(DEADLINE, "the group has followed", || {
        match committed(&new, "in-the-tail", TOPIC, 1)[0] {
            Some(975) => Ok(()),
            found => Err(found),
        }
    });
    let config = twinlog.config_file().to_owned();
    twinlog.kill9();
    source.kill(1);
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    answer(&failover(&config, &arguments), 0);
    Load::new(TOPIC, 100).first(5_000).produce(&new);
    let before = next_values(&new, "in-the-tail", TOPIC, 1);

    fs::remove_dir_all(source.data_folder(1)).expect("it is removed");
    copy_folder(&aside, &source.data_folder(1));
    source.restart(1);
    assert_eq!(end_offset(&old, TOPIC, 0), 950, "it is set back");
    Load::new(TOPIC, 200).first(9_000).produce(&old);
    let strangers = values(&old).split_off(950);
    let stranded = undecided(&config);
    assert_eq!(stranded.len(), 1, "{stranded:?}");
    assert_eq!((stranded[0].from, stranded[0].to), (950, 1_150));

    twinlog.launch();
    let arguments = ["--yes", "--json", "--accept-orphans"];
    let report = answer(&failback(&config, &arguments), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    assert!(report.to_string().contains("had lost"), "{report:#}");
    await_copying(&twinlog);
    let here = || {
        let mut here = values(&old);
        here.retain(|value| !strangers.contains(value));
        here
    };
    assert_eq!(here(), values(&new), "lost, doubled or out of order");
    assert_eq!(next_values(&old, "in-the-tail", TOPIC, 1), before);
    Load::new(TOPIC, 20).first(20_000).produce(&old);
    eventually(DEADLINE, "it follows again", || {
        let (here, there) = (here(), values(&new));
        match here == there {
            true => Ok(()),
            false => Err((here.len(), there.len())),
        }
    });
    assert_verified(&twinlog, &["--full"]);
}
