//! A target that takes a few commits of each group per second gets the newest position of each, and no storm.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use twinlog::wire::{self, GroupOffset, TopicPartition};

use crate::support::failover::{failover, words};
use crate::support::fake::FakeCluster;
use crate::support::flow::{block_on, wire_cluster};
use crate::support::groups::has_had_groups;
use crate::support::{Load, Twinlog, await_caught_up, create_topic, eventually, fake_pair};

const DEADLINE: Duration = Duration::from_secs(60);
/// Until the target has what the source has.
const SOON: Duration = Duration::from_secs(5);
/// What is refused is counted for so long at least.
const LASTS: Duration = Duration::from_secs(10);
const GROUPS: usize = 50;
const RECORDS: i64 = 100_000;
/// As Azure Event Hubs documents it.
const PER_SECOND: u32 = 4;

/// All groups commit again and again on the source, each time at the next offset, until told to stop.
struct Committing {
    stop: Arc<AtomicBool>,
    at: Arc<AtomicI64>,
    thread: std::thread::JoinHandle<()>,
}

impl Committing {
    fn start(source: &str) -> Self {
        let (stop, at) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicI64::new(0)),
        );
        let (source, stopped, reached) = (source.to_owned(), stop.clone(), at.clone());
        let thread = std::thread::spawn(move || {
            let cluster = wire_cluster(&source);
            block_on(async {
                while !stopped.load(Ordering::Relaxed) {
                    let offset = reached.load(Ordering::Relaxed) + 1;
                    let all = (0..GROUPS).map(|group| (format!("g{group}"), position(offset)));
                    let all: HashMap<_, _> = all.collect();
                    for (group, answers) in wire::commit_group_offsets(&cluster, &all).await {
                        assert!(answers.values().all(Result::is_ok), "{group} {answers:?}");
                    }
                    reached.store(offset, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        });
        Self { stop, at, thread }
    }

    fn now(&self) -> i64 {
        self.at.load(Ordering::Relaxed)
    }

    /// Where all groups are.
    fn stop(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every commit is taken");
        self.at.load(Ordering::Relaxed)
    }
}

fn position(offset: i64) -> BTreeMap<TopicPartition, GroupOffset> {
    let commit = GroupOffset {
        offset,
        leader_epoch: -1,
        metadata: String::new(),
    };
    BTreeMap::from([(TopicPartition::new("orders", 0), commit)])
}

/// The one that is furthest back. A group that has nothing doesn't count.
fn slowest(target: &str) -> i64 {
    let cluster = wire_cluster(target);
    let groups: Vec<String> = (0..GROUPS).map(|group| format!("g{group}")).collect();
    let found = block_on(wire::fetch_group_offsets(&cluster, &groups));
    let at = TopicPartition::new("orders", 0);
    let offsets = found.values().filter_map(|positions| match positions {
        Ok(positions) => positions.get(&at).map(|position| position.offset),
        Err(_) => Some(-1),
    });
    offsets.min().unwrap_or(-1)
}

fn throttled(target: &FakeCluster) -> u64 {
    target.control(|state| state.groups.throttled)
}

#[test]
fn commits_are_merged_to_what_the_target_takes() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    create_topic(&from, "orders", 1, &[]);
    Load::new("orders", RECORDS as u64).produce(&from);
    target.control(|state| state.groups.commits_per_second = PER_SECOND);
    let twinlog = Twinlog::between(&from, &to);
    await_caught_up(&twinlog, DEADLINE);
    let (committing, began) = (Committing::start(&from), Instant::now());
    eventually(DEADLINE, "the groups are followed", || match slowest(&to) {
        1.. => Ok(()),
        at => Err(at),
    });
    while began.elapsed() < LASTS {
        let asked = committing.now();
        eventually(SOON, "the target has it", || match slowest(&to) {
            found if found >= asked => Ok(()),
            found => Err((found, asked)),
        });
    }
    // What is refused is asked for again with pauses: no more than some tries a second and group.
    let most = began.elapsed().as_secs() * GROUPS as u64 * 3;
    let refused = throttled(&target);
    assert!(refused <= most, "{refused} refusals");

    let config = twinlog.config_file().to_owned();
    let before = committing.now();
    let done = failover(&config, &["--fence", "manual", "--yes"]);
    let said = words(&done);
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(!said.contains("Throttling"), "{said}");
    let found = slowest(&to);
    assert!(found >= before, "{found} is before {before}: {said}");
    let last = committing.stop();
    assert!(last > before);
}

/// Who has a quota is where the source is as soon as the last commit is a second old.
#[test]
fn the_newest_position_wins() {
    let (source, target) = fake_pair();
    let (from, to) = (source.bootstrap(), target.bootstrap());
    has_had_groups(&to);
    create_topic(&from, "orders", 1, &[]);
    Load::new("orders", 10_000).produce(&from);
    target.control(|state| state.groups.commits_per_second = 1);
    let twinlog = Twinlog::between(&from, &to);
    await_caught_up(&twinlog, DEADLINE);
    let committing = Committing::start(&from);
    std::thread::sleep(Duration::from_secs(3));
    let last = committing.stop();
    eventually(
        Duration::from_secs(15),
        "all are at the newest",
        || match slowest(&to) {
            at if at == last => Ok(()),
            at => Err((at, last)),
        },
    );
    eventually(DEADLINE, "nothing would be read again", || {
        let group = twinlog.await_group("g0", "followed", DEADLINE);
        match group["reread_records"] == 0 {
            true => Ok(()),
            false => Err(group),
        }
    });
}
