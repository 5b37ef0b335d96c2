//! A source that was restored from a backup: its log is not what was copied.

use crate::shared::detect_gaps::{addresses, assert_seen_everywhere};
use crate::support::flow::{await_stopped, flow_config, is_caught_up};
use crate::support::{
    Cluster, ClusterOptions, Isolation, KafkaVersion, Load, Twinlog, assert_same, await_same,
    create_topic, read_all,
};
use std::path::Path;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_truncated_source_is_never_followed_in_silence() {
    let mut source = Cluster::launch(KafkaVersion::V4_3, ClusterOptions::named("restored"));
    source.await_ready();
    let (_, target) = addresses();
    let bootstrap = source.bootstrap();
    create_topic(&bootstrap, "restored", 2, &[]);
    Load::new("restored", 200).produce(&bootstrap);
    source.stop(1);
    let backup = source.data_folder(1).with_file_name("backup");
    copy_folder(&source.data_folder(1), &backup);
    source.restart(1);
    Load::new("restored", 200)
        .first(200)
        .partition(0)
        .produce(&bootstrap);
    let config = flow_config("restored", "restored", &bootstrap, &target, "");
    let mut twinlog = Twinlog::start(&config);
    let copy = await_same(&bootstrap, &target, "restored", DEADLINE);
    // Caught up, so that the epochs of the last records are known.
    twinlog.wait_until(DEADLINE, "everything is copied", |status| {
        (0..2).all(|partition| is_caught_up(status, "restored", partition))
    });

    source.stop(1);
    std::fs::remove_dir_all(source.data_folder(1)).expect("our folder is writable");
    std::fs::rename(&backup, source.data_folder(1)).expect("our folder is writable");
    source.restart(1);
    for _ in 0..2 {
        await_stopped(&twinlog, "restored", 0, "source_truncated");
        twinlog.wait_until(DEADLINE, "the whole partition goes on", |status| {
            is_caught_up(status, "restored", 1)
        });
        assert_seen_everywhere(&twinlog, "restored", "source_truncated", 1);
        assert_same(
            &copy,
            &read_all(&target, "restored", Isolation::ReadUncommitted),
        );
        twinlog.kill9();
        twinlog.launch();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("our folder is writable");
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let place = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).expect("our folder is writable");
        }
    }
}
