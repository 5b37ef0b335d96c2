//! A failback whose command or whose Twinlog dies at any moment: continued it ends as if nothing had
//! happened, undone the standby is the primary as before.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::failover::{
    Place, answer, assert_holds, assert_refused, await_failed_over, cutover_exiting_at, failback,
    failover, records, try_write, words,
};
use crate::support::flow::flow_config;
use crate::support::groups::{commit, committed};
use crate::support::pool::fenceable_both;
use crate::support::version::KafkaVersion;
use crate::support::{Load, Twinlog, await_caught_up, create_topic, end_offset, eventually};

const DEADLINE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 2;
const STEPS: [&str; 12] = [
    "copy_back",
    "catch_up",
    "fence",
    "prove",
    "drain",
    "stop_copying",
    "groups",
    "forks",
    "release",
    "unfence",
    "promote",
    "resume",
];

/// A flow of one topic that copies, with a hundred records.
struct Case {
    topic: &'static str,
    source: String,
    target: String,
    twinlog: Twinlog,
    /// The number of the next record.
    next: u64,
}

impl Case {
    fn start(topic: &'static str) -> Self {
        let (source, target) = fenceable_both(KafkaVersion::V4_3);
        let (source, target) = (source.bootstrap(), target.bootstrap());
        create_topic(&source, topic, PARTITIONS, &[]);
        let twinlog = Twinlog::start(&flow_config(topic, topic, &source, &target, ""));
        let mut case = Self {
            topic,
            source,
            target,
            twinlog,
            next: 0,
        };
        case.write(&case.source.clone(), 100);
        await_caught_up(&case.twinlog, DEADLINE);
        case
    }

    fn write(&mut self, bootstrap: &str, count: u64) {
        Load::new(self.topic, count)
            .first(self.next)
            .produce(bootstrap);
        self.next += count;
    }

    fn write_to_standby(&mut self, count: u64) {
        self.write(&self.target.clone(), count);
    }

    fn ends(&self, bootstrap: &str) -> Vec<i64> {
        (0..PARTITIONS)
            .map(|partition| end_offset(bootstrap, self.topic, partition))
            .collect()
    }

    fn fail_over(&self) {
        let report = answer(
            &failover(self.twinlog.config_file(), &["--yes", "--json"]),
            0,
        );
        assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
    }

    /// A failback that dies there.
    fn dies(&self, at: &str) {
        let config = self.twinlog.config_file();
        let crashed = cutover_exiting_at("failback", config, &["--yes"], Some(at));
        let code = crashed.status.code();
        assert_eq!(code, Some(137), "{at}: {}", words(&crashed));
    }

    /// The rest of it.
    fn ends_well(&self) {
        let config = self.twinlog.config_file();
        let report = answer(&failback(config, &["--yes", "--json"]), 0);
        assert_eq!(report["state"], "done", "{report:#}");
        assert_eq!(report["lost"]["is_proven"], true, "{report:#}");
        assert_eq!(report["lost"]["records"], 0, "{report:#}");
    }

    fn records(&self, bootstrap: &str) -> BTreeMap<Place, String> {
        records(bootstrap, &[self.topic])
    }

    /// The roles are as they were: all that was ever written is on both sides once, at the same
    /// offsets, and what comes next on the old primary follows.
    fn is_as_before(&mut self) {
        self.write(&self.source.clone(), 10);
        eventually(DEADLINE, "the standby follows again", || {
            match (self.ends(&self.source), self.ends(&self.target)) {
                (wanted, found) if wanted == found => Ok(()),
                different => Err(different),
            }
        });
        let here = self.records(&self.source);
        assert_eq!(here, self.records(&self.target));
        let written = here.values().filter(|value| *value != "one more");
        assert_eq!(written.count() as u64, self.next, "lost or doubled");
    }

    fn group_is_on_both(&self, group: &str, positions: &[i64]) {
        let wanted: Vec<Option<i64>> = positions.iter().copied().map(Some).collect();
        for cluster in [&self.source, &self.target] {
            let found = committed(cluster, group, self.topic, PARTITIONS);
            assert_eq!(found, wanted, "{group} on {cluster}");
        }
    }
}

/// One plan dies at every moment of every step, with a Twinlog that copies back meanwhile.
#[test]
fn it_dies_at_every_moment_of_one_plan() {
    let mut case = Case::start("dies");
    case.fail_over();
    await_failed_over(&case.twinlog);
    let mut positions = Vec::new();
    for (number, step) in STEPS.iter().enumerate() {
        for moment in ["begun", "worked", "ended"] {
            if number < 2 {
                case.write_to_standby(10);
                positions = case.ends(&case.target);
            }
            if (number, moment) == (2, "begun") {
                // Nobody is kept away before the fence stands.
                let places: Vec<(&str, i32, i64)> = (0..)
                    .zip(&positions)
                    .map(|(partition, end)| (case.topic, partition, *end - 3))
                    .collect();
                commit(&case.target, "at-the-end", &places);
            }
            case.dies(&format!("{step}:{moment}"));
            if *step == "prove" && moment == "ended" {
                assert_refused(&case.target, case.topic);
            }
        }
    }
    case.ends_well();
    let positions: Vec<i64> = positions.iter().map(|end| end - 3).collect();
    case.group_is_on_both("at-the-end", &positions);
    case.is_as_before();
}

/// Twinlog itself dies as well, or doesn't run at all, while the command goes on and dies.
#[test]
fn twinlog_dies_too_or_never_runs() {
    let mut case = Case::start("alone");
    // Killed at one step and back at another, in turns.
    case.fail_over();
    await_failed_over(&case.twinlog);
    case.write_to_standby(40);
    for (number, step) in STEPS.iter().enumerate() {
        match number % 4 {
            0 => case.twinlog.kill9(),
            2 => case.twinlog.launch(),
            _ => {}
        }
        case.dies(&format!("{step}:worked"));
    }
    case.ends_well();
    case.twinlog.kill9();
    case.twinlog.launch();
    case.is_as_before();

    // Nobody runs: the command copies the rest there and back.
    case.twinlog.kill9();
    case.write(&case.source.clone(), 30);
    case.fail_over();
    case.write_to_standby(30);
    for step in ["catch_up", "drain", "stop_copying", "forks", "resume"] {
        case.dies(&format!("{step}:worked"));
    }
    case.ends_well();
    assert_eq!(case.records(&case.source), case.records(&case.target));
    case.twinlog.launch();
    case.is_as_before();
}

/// Undone at every step, however far it was: the standby is the primary as before, and a new
/// failback works.
#[test]
fn it_is_undone_at_every_step() {
    let mut case = Case::start("undone");
    case.fail_over();
    await_failed_over(&case.twinlog);
    let config = case.twinlog.config_file().to_owned();
    let mut written = case.records(&case.target);
    for (number, step) in STEPS[..11].iter().enumerate() {
        let moment = ["worked", "ended", "begun"][number % 3];
        let at = format!("{step}:{moment}");
        case.write_to_standby(10);
        written.extend(case.records(&case.target));
        case.dies(&at);
        let report = answer(&failback(&config, &["--abort", "--yes", "--json"]), 0);
        assert_eq!(report["state"], "aborted", "{at}: {report:#}");
        eventually(DEADLINE, &format!("{at}: the standby takes writes"), || {
            try_write(&case.target, case.topic)
        });
        assert_holds(&case.records(&case.target), &written);
        await_failed_over(&case.twinlog);
    }
    // Undone twice is undone once.
    let again = failback(&config, &["--abort", "--yes"]);
    assert_eq!(again.status.code(), Some(1), "{}", words(&again));

    // Once the standby may have been told to follow, there is only the way on.
    case.write_to_standby(10);
    case.dies("resume:begun");
    let late = failback(&config, &["--abort", "--yes"]);
    assert_eq!(late.status.code(), Some(3), "{}", words(&late));
    case.ends_well();
    let late = failback(&config, &["--abort", "--yes"]);
    assert_eq!(late.status.code(), Some(3), "{}", words(&late));
    case.is_as_before();
    assert_holds(&case.records(&case.source), &written);
}

/// A failback that was never finished says nothing about the next failover.
#[test]
fn what_was_left_of_a_failback_does_not_undo_the_next_failover() {
    let mut case = Case::start("stale");
    case.fail_over();
    case.write_to_standby(20);
    case.dies("resume:worked");
    // The roles are as before, though the journal doesn't know it yet.
    case.write(&case.source.clone(), 20);
    await_caught_up(&case.twinlog, DEADLINE);
    case.fail_over();
    await_failed_over(&case.twinlog);
    case.write_to_standby(20);
    assert_refused(&case.source, case.topic);
    case.ends_well();
    case.is_as_before();
}
