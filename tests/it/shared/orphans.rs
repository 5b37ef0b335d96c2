//! `twinlog orphans` after a planned failover whose fence somebody went around.

use crate::own::orphans::replaying;
use crate::own::orphans::{
    DEADLINE, ORDERS, end_sum, listed, orphans, replayed, undecided, unfence,
};
use crate::support::failover::{answer, await_failed_over, failover, words};
use crate::support::pool::fenceable_pair;
use crate::support::{
    Isolation, KafkaVersion, Load, Twinlog, await_caught_up, create_topic, eventually, read_all,
};
use std::collections::BTreeSet;
use std::path::Path;
use twinlog::batch;

/// Somebody goes around the fence of a planned failover; then two operators replay at once.
#[test]
fn the_second_replay_takes_over_from_the_first() {
    let (source_cluster, target_cluster) = fenceable_pair(KafkaVersion::V3_9);
    let (source, target) = (source_cluster.bootstrap(), target_cluster.bootstrap());
    create_topic(&source, "orders", ORDERS, &[]);
    create_topic(&source, "weird", 1, &[]);
    Load::new("orders", 60).produce(&source);
    let mut twinlog = Twinlog::between(&source, &target);
    await_caught_up(&twinlog, DEADLINE);
    eventually(DEADLINE, "everything is copied", || {
        match end_sum(&target) {
            60 => Ok(()),
            few => Err(few),
        }
    });
    let config = twinlog.config_file().to_owned();

    // Before a failover there is nothing to decide.
    let list = listed(&config);
    assert_eq!(list["totals"]["records"], 0, "{list:#}");
    let early = orphans(&config, &["--dismiss", "--yes"]);
    assert_eq!(early.status.code(), Some(1), "{}", words(&early));
    assert!(
        words(&early).contains("wasn't failed over"),
        "{}",
        words(&early)
    );

    let report = answer(&failover(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["state"], "done", "{report:#}");
    await_failed_over(&twinlog);
    assert_eq!(listed(&config)["totals"]["records"], 0);
    assert_eq!(undecided(&config), []);
    twinlog.kill9();
    unfence(&source);
    Load::new("orders", 900).first(1_000).produce(&source);

    let mut first = replaying(&config, "1");
    eventually(DEADLINE, "the first is under way", || {
        match end_sum(&target) {
            many if many > 100 => Ok(()),
            few => Err(few),
        }
    });
    let second = answer(&orphans(&config, &["--replay", "--yes", "--json"]), 0);
    let status = first.wait().expect("our child");
    let mut problem = String::new();
    if let Some(mut stderr) = first.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut problem).expect("text");
    }
    assert_eq!(status.code(), Some(1), "{problem}");
    assert!(problem.contains("taken over"), "{problem}");
    let by_second = second["replay"]["records"].as_u64().expect("a number");
    assert!((1..900).contains(&by_second), "{second:#}");
    let origins: Vec<String> = replayed(&target)
        .into_iter()
        .map(|(origin, _)| origin)
        .collect();
    assert_eq!(origins.len(), 900);
    assert_eq!(origins.iter().collect::<BTreeSet<_>>().len(), 900);
    assert_eq!(undecided(&config), []);

    // A record that librdkafka can't write is exported, not replayed and not lost.
    produce_unreadable_header(&config);
    let refused = orphans(&config, &["--replay", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    assert!(
        words(&refused).contains("primary/weird/0/0: a header's key isn't UTF-8"),
        "{}",
        words(&refused)
    );
    assert_eq!(undecided(&config).len(), 1);
    assert!(read_all(&target, "weird", Isolation::ReadCommitted).is_empty());
    let folder = config.with_file_name("weird");
    let path = folder.to_str().expect("UTF-8");
    let exported = orphans(&config, &["--export", path, "--topic", "weird"]);
    assert_eq!(exported.status.code(), Some(0), "{}", words(&exported));
    let line = std::fs::read_to_string(folder.join("weird-0/records.jsonl")).expect("written");
    assert!(
        line.ends_with("\"headers\":[{\"key_base64\":\"/w==\",\"value\":null}]}\n"),
        "{line}"
    );
    let dismissed = orphans(&config, &["--dismiss", "--topic", "weird", "--yes"]);
    assert_eq!(dismissed.status.code(), Some(0), "{}", words(&dismissed));
    assert_eq!(undecided(&config), []);
}

/// A record whose header's key is no text: only a client of one's own writes such.
fn produce_unreadable_header(config: &Path) {
    let config = twinlog::config::load(config).expect("a good config");
    let source = twinlog::connect::cluster(&config.clusters["primary"]);
    let at = twinlog::wire::TopicPartition::new("weird", 0);
    let record = batch::Record {
        offset: 0,
        timestamp: 1_000,
        key: None,
        value: Some(bytes::Bytes::from_static(b"v")),
        // Zig-zag lengths: the key 0xff, a null value.
        header_count: 1,
        headers: bytes::Bytes::from_static(&[2, 0xff, 1]),
    };
    let encoded = batch::encode(&[record], batch::Codec::None, batch::Stamp::NONE);
    let encoded = encoded.expect("one small record");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime
        .block_on(twinlog::wire::produce_one(&source, &at, encoded, -1))
        .expect("the broker minds no header");
}
