//! What was copied stands above the standby's high watermark when the source is lost: readers don't see it, forks count it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::failover::{answer, await_copying, failback, failover, fenceable};
use crate::support::{
    Cluster, ClusterOptions, Isolation, KafkaVersion, Load, Twinlog, await_caught_up, create_topic,
    end_offset, eventually, place_topic, read_all,
};

const DEADLINE: Duration = Duration::from_secs(90);
const TOPIC: &str = "orders";
const STATE: &str = "__twinlog_state";
/// A follower of the copy, and of nothing else.
const LAGS: usize = 3;
const COPIED: u64 = 100;
const HIDDEN: u64 = 30;
/// Nobody misses the follower while this test lasts.
const MISSED_AFTER_MS: u64 = 600_000;

/// Topics whose replicas are where this test needs them: the state waits for nobody who hangs.
fn place(bootstrap: &str) {
    place_topic(bootstrap, TOPIC, &[&[1, 3]], &[]);
    let compacted = [("cleanup.policy", "compact")];
    place_topic(bootstrap, STATE, &[&[1, 2]], &compacted);
}

/// Where the copy's log ends on its leader, whatever readers see.
fn log_end(target: &Cluster) -> i64 {
    let folder = target.data_folder(1).join(format!("{TOPIC}-0"));
    let log = std::fs::read(folder.join("00000000000000000000.log")).expect("it leads the copy");
    let number = |at: usize| {
        log.get(at..at + 4)
            .map(|it| i32::from_be_bytes([it[0], it[1], it[2], it[3]]))
    };
    let (mut at, mut end) = (0, 0);
    // A batch begins with its first offset in eight bytes, of which four are enough here, and the length of what comes
    // behind twelve; behind 23 bytes it says how far its last offset is from the first.
    while let (Some(first), Some(length), Some(last)) =
        (number(at + 4), number(at + 8), number(at + 23))
    {
        end = i64::from(first) + i64::from(last) + 1;
        at += 12 + usize::try_from(length).expect("a length");
    }
    end
}

fn values(bootstrap: &str) -> Vec<Vec<u8>> {
    let records = read_all(bootstrap, TOPIC, Isolation::ReadCommitted);
    records.into_iter().filter_map(|it| it.value).collect()
}

fn fork(bootstrap: &str) -> Option<serde_json::Value> {
    let records = read_all(bootstrap, STATE, Isolation::ReadUncommitted);
    let key = format!("fork/dr/{TOPIC}");
    let of_it = records
        .into_iter()
        .rev()
        .find(|it| it.key.as_deref() == Some(key.as_bytes()));
    serde_json::from_slice(&of_it?.value?).ok()
}

#[test]
fn it_is_counted_and_never_copied_twice() {
    let three = ClusterOptions {
        nodes: 3,
        ..fenceable("target")
    }
    .with("min.insync.replicas", 1)
    .with("replica.lag.time.max.ms", MISSED_AFTER_MS)
    .with("broker.session.timeout.ms", MISSED_AFTER_MS);
    let mut source = Cluster::launch(KafkaVersion::V4_3, fenceable("source"));
    let mut target = Cluster::launch(KafkaVersion::V4_3, three);
    source.await_ready();
    target.await_ready();
    let (old, new) = (source.bootstrap(), target.bootstrap());
    place(&new);
    create_topic(&old, TOPIC, 1, &[]);
    Load::new(TOPIC, COPIED).produce(&old);
    let mut twinlog = Twinlog::start(&Twinlog::config(&old, &new, "failover: { padding: 100 }"));
    await_caught_up(&twinlog, DEADLINE);
    let config = twinlog.config_file().to_owned();

    target.signal(LAGS, "STOP");
    Load::new(TOPIC, HIDDEN).first(1_000).produce(&old);
    eventually(
        DEADLINE,
        "all of it is in the leader's log",
        || match log_end(&target) {
            130 => Ok(()),
            end => Err(end),
        },
    );
    // Readers have time to see it.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(end_offset(&new, TOPIC, 0), 100, "readers see it already");
    twinlog.kill9();
    source.kill(1);
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let command = {
        let config = config.clone();
        std::thread::spawn(move || failover(&config, &arguments))
    };
    eventually(DEADLINE, "the fork is recorded", || {
        fork(&new).map(drop).ok_or("none")
    });
    assert_eq!(end_offset(&new, TOPIC, 0), 100, "its follower lags still");
    let recorded = fork(&new).expect("it is there");
    assert_eq!(recorded["partitions"][0]["source_end"], 130, "{recorded:#}");
    assert_eq!(recorded["partitions"][0]["target_end"], 130, "{recorded:#}");
    target.signal(LAGS, "CONT");
    let first = command.join().expect("it ended");
    let report = match first.status.success() {
        true => answer(&first, 0),
        false => answer(&failover(&config, &arguments), 0),
    };
    assert_eq!(report["state"], "done", "{report:#}");
    eventually(DEADLINE, "all that was copied is there", || {
        match values(&new).len() {
            130 => Ok(()),
            found => Err(found),
        }
    });

    // The old primary has nothing more, and nothing goes back that came from there.
    source.restart(1);
    twinlog.launch();
    twinlog.wait_until(DEADLINE, "nothing is stranded there", |status| {
        status["flows"][0]["role"]["orphan_offsets"] == 0
    });
    Load::new(TOPIC, 20).first(5_000).produce(&new);
    let report = answer(&failback(&config, &["--yes", "--json"]), 0);
    assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    await_copying(&twinlog);
    let there = values(&old);
    let once: BTreeSet<&Vec<u8>> = there.iter().collect();
    assert_eq!((there.len(), once.len()), (150, 150));
    assert_eq!(there, values(&new));
}
