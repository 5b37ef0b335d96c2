//! Nothing happens, in many partitions.

use std::time::{Duration, Instant};

use crate::brokers;
use crate::contestant::Contestant;
use crate::options::Options;
use crate::report::{Bar, Metric, Number, Numbers, Outcome};
use crate::scenarios::PREFIX;
use crate::support::{admin, create_topic};
use crate::usage;

const TOPICS: usize = 500;
const PARTITIONS: i32 = 4;
/// How long it may take until the target has every topic.
const DEADLINE: Duration = Duration::from_secs(300);

const METRICS: [Metric; 3] = [
    Metric {
        key: "cores",
        title: "CPU, cores",
        bar: Bar::AtMost(0.01),
    },
    Metric {
        key: "memory_mb",
        title: "resident memory, MB",
        bar: Bar::AtMost(60.0),
    },
    Metric {
        key: "memory_peak_mb",
        title: "peak memory, MB",
        bar: Bar::None,
    },
];

/// Runs it.
pub fn run(options: &Options) -> Outcome {
    let (settle, window) = if options.quick { (15, 15) } else { (45, 30) };
    let source = brokers::start("source");
    for number in 0..TOPICS {
        create_topic(
            &source.bootstrap(),
            &format!("{PREFIX}idle-{number}"),
            PARTITIONS,
            &[],
        );
    }
    let numbers = options
        .contestants
        .iter()
        .map(|contestant| {
            let numbers = measure(*contestant, &source.bootstrap(), settle, window);
            (*contestant, numbers)
        })
        .collect();
    Outcome {
        scenario: "idle",
        description: format!(
            "{TOPICS} topics of {PARTITIONS} partitions without traffic, {window} s, {settle} s \
             after the target has them all"
        ),
        metrics: &METRICS,
        numbers,
    }
}

fn measure(contestant: Contestant, source: &str, settle: u64, window: u64) -> Numbers {
    let target = brokers::start("target");
    let running = contestant.start(source, &target.bootstrap(), PREFIX);
    let started = Instant::now();
    while topics(&target.bootstrap()) < TOPICS {
        assert!(
            started.elapsed() < DEADLINE,
            "{}: topics are missing:\n{}",
            contestant.title(),
            running.log_tail()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    // Time is what is measured here: there is no condition to wait for.
    std::thread::sleep(Duration::from_secs(settle));
    let before = usage::of(running.id());
    std::thread::sleep(Duration::from_secs(window));
    let after = usage::of(running.id());
    let seconds = (after.at - before.at).as_secs_f64();
    let cores = (after.cpu_seconds - before.cpu_seconds) / seconds;
    eprintln!(
        "   {}: {cores:.4} cores, {:.0} MB",
        contestant.title(),
        after.memory_mb
    );
    Numbers::from([
        ("cores", Number::Is(cores)),
        ("memory_mb", Number::Is(after.memory_mb)),
        ("memory_peak_mb", Number::Is(after.memory_peak_mb)),
    ])
}

fn topics(bootstrap: &str) -> usize {
    admin::topic_names(bootstrap)
        .iter()
        .filter(|name| name.starts_with(PREFIX))
        .count()
}
