//! A source that was restored from a backup: its log is not what was copied.

use crate::fake::detect_gaps::stopped_where_the_source_is_cut;
use crate::support::flow::flow_config;
use crate::support::{Cluster, ClusterOptions, KafkaVersion, Load, Twinlog, create_topic, pair};
use std::path::Path;

#[test]
fn a_truncated_source_is_never_followed_in_silence() {
    let mut source = Cluster::launch(KafkaVersion::V4_3, ClusterOptions::named("restored"));
    source.await_ready();
    let (_, target) = pair(KafkaVersion::V4_3);
    let target = target.bootstrap();
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
    let twinlog = Twinlog::start(&config);
    let cut = || {
        source.stop(1);
        std::fs::remove_dir_all(source.data_folder(1)).expect("our folder is writable");
        std::fs::rename(&backup, source.data_folder(1)).expect("our folder is writable");
        source.restart(1);
    };
    stopped_where_the_source_is_cut(twinlog, &bootstrap, &target, cut);
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
