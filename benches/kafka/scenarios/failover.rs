//! How long failovers and a failback of a thousand partitions and a hundred groups take. Only Twinlog takes part:
//! MirrorMaker 2 has no such command.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::brokers;
use crate::contestant::Contestant;
use crate::options::Options;
use crate::report::{Bar, Metric, Number, Numbers, Outcome};
use crate::scenarios::PREFIX;
use crate::support::failover::{answer, await_failed_over, fenceable};
use crate::support::groups::commit;
use crate::support::{Cluster, Load, Twinlog, await_caught_up, create_topic};

const TOPICS: usize = 100;
const PARTITIONS: i32 = 10;
const GROUPS: usize = 100;
/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(300);

const METRICS: [Metric; 6] = [
    Metric {
        key: "planned_seconds",
        title: "planned: all steps, s",
        bar: Bar::AtMost(10.0),
    },
    Metric {
        key: "planned_command_seconds",
        title: "planned: the whole command, with all that is looked at before, s",
        bar: Bar::None,
    },
    Metric {
        key: "failback_seconds",
        title: "failback after it, 100 records of 1 KB new in each topic: all steps, s",
        bar: Bar::None,
    },
    Metric {
        key: "unplanned_seconds",
        title: "unplanned, the source's broker killed: all steps, s",
        bar: Bar::AtMost(5.0),
    },
    Metric {
        key: "unplanned_command_seconds",
        title: "unplanned: the whole command, s",
        bar: Bar::None,
    },
    Metric {
        key: "lost_records",
        title: "lost in the planned one and in the failback, by their own proofs",
        bar: Bar::AtMost(0.0),
    },
];

/// Runs it.
pub fn run(options: &Options) -> Outcome {
    let topics = if options.quick { TOPICS / 10 } else { TOPICS };
    let groups = if options.quick { GROUPS / 10 } else { GROUPS };
    let numbers = if options.contestants.contains(&Contestant::Twinlog) {
        vec![(Contestant::Twinlog, measure(topics, groups))]
    } else {
        Vec::new()
    };
    Outcome {
        scenario: "failover",
        description: format!(
            "{} partitions in {topics} topics, {groups} groups",
            topics * PARTITIONS as usize
        ),
        metrics: &METRICS,
        numbers,
    }
}

fn measure(topics: usize, groups: usize) -> Numbers {
    let (mut source, target) = (start("source"), start("target"));
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let names: Vec<String> = (0..topics)
        .map(|it| format!("{PREFIX}failover-{it}"))
        .collect();
    for name in &names {
        create_topic(&from, name, PARTITIONS, &[]);
    }
    let twinlog = Twinlog::between(&from, &to);
    // Several appends to each log: its first index entry makes the broker map a file, which takes
    // longer than everything that is measured here.
    for _ in 0..3 {
        for name in &names {
            Load::new(name, 100).value_bytes(1_000).produce(&from);
        }
        await_caught_up(&twinlog, DEADLINE);
    }
    for (group, name) in (0..groups).zip(names.iter().cycle()) {
        let positions: Vec<(&str, i32, i64)> =
            (0..PARTITIONS).map(|it| (name.as_str(), it, 3)).collect();
        commit(&from, &format!("group-{group}"), &positions);
    }

    let (planned, planned_command) = timed(&twinlog, "failover", &["--yes", "--json"]);
    await_failed_over(&twinlog);
    for name in &names {
        Load::new(name, 100).value_bytes(1_000).produce(&to);
    }
    let (back, _) = timed(&twinlog, "failback", &["--yes", "--json"]);
    await_caught_up(&twinlog, DEADLINE);
    source.kill(1);
    let arguments = ["--unplanned", "--yes", "--json", "--accept-loss", "any"];
    let (unplanned, unplanned_command) = timed(&twinlog, "failover", &arguments);
    Numbers::from([
        ("planned_seconds", Number::Is(seconds(&planned))),
        ("planned_command_seconds", Number::Is(planned_command)),
        ("failback_seconds", Number::Is(seconds(&back))),
        ("unplanned_seconds", Number::Is(seconds(&unplanned))),
        ("unplanned_command_seconds", Number::Is(unplanned_command)),
        ("lost_records", Number::Is(lost(&planned) + lost(&back))),
    ])
}

/// A broker whose writers a fence binds, with the JVM of the other scenarios.
fn start(name: &str) -> Cluster {
    let plain = brokers::options(name);
    let mut options = fenceable(name);
    options.extra_properties.extend(plain.extra_properties);
    options.jvm_arguments = plain.jvm_arguments;
    Cluster::start(brokers::VERSION, options)
}

/// Runs the command; its report, and how long all of it took.
fn timed(twinlog: &Twinlog, command: &str, arguments: &[&str]) -> (Value, f64) {
    let began = Instant::now();
    let output = twinlog.command(command, arguments);
    let seconds = began.elapsed().as_secs_f64();
    let report = answer(&output, 0);
    for step in report["steps"].as_array().into_iter().flatten() {
        eprintln!(
            "   {} {} s {}",
            step["step"].as_str().unwrap_or_default(),
            step["seconds"],
            step["result"].as_str().unwrap_or_default()
        );
    }
    (report, seconds)
}

fn lost(report: &Value) -> f64 {
    match report["lost"]["is_proven"] == true {
        true => report["lost"]["records"].as_f64().unwrap_or(f64::NAN),
        false => f64::NAN,
    }
}

fn seconds(report: &Value) -> f64 {
    report["seconds"].as_f64().unwrap_or(f64::NAN)
}
