//! From the start of the process to the first record on the target.

use std::time::{Duration, Instant};

use crate::brokers;
use crate::contestant::Contestant;
use crate::load::Load;
use crate::options::Options;
use crate::report::{Bar, Metric, Number, Numbers, Outcome};
use crate::scenarios::{PREFIX, median};
use crate::support::create_topic;
use crate::watch::Watch;

/// MirrorMaker 2 takes long, but not so long.
const DEADLINE: Duration = Duration::from_secs(120);

const METRICS: [Metric; 2] = [
    Metric {
        key: "seconds",
        title: "start to first record, s (median)",
        bar: Bar::AtMost(1.0),
    },
    Metric {
        key: "seconds_max",
        title: "start to first record, s (worst)",
        bar: Bar::None,
    },
];

/// Runs it.
pub fn run(options: &Options) -> Outcome {
    let repetitions = if options.quick { 1 } else { 3 };
    let source = brokers::start("source");
    let topic = format!("{PREFIX}start");
    create_topic(&source.bootstrap(), &topic, 1, &[]);
    Load {
        topic: &topic,
        partitions: 1,
        records: 1_000,
        value_bytes: 1_024,
        json: true,
        settings: &[],
    }
    .produce(&source.bootstrap());
    let numbers = options
        .contestants
        .iter()
        .map(|contestant| {
            let mut seconds: Vec<f64> = (0..repetitions)
                .map(|_| once(*contestant, &source.bootstrap(), &topic))
                .collect();
            seconds.sort_by(f64::total_cmp);
            eprintln!("   {}: {seconds:.2?} s", contestant.title());
            let numbers = Numbers::from([
                ("seconds", Number::Is(median(&seconds))),
                ("seconds_max", Number::Is(seconds[seconds.len() - 1])),
            ]);
            (*contestant, numbers)
        })
        .collect();
    Outcome {
        scenario: "start",
        description: format!(
            "process start to first record readable on the target; the topic is on the source \
             only; a fresh target each time, {repetitions} times"
        ),
        metrics: &METRICS,
        numbers,
    }
}

fn once(contestant: Contestant, source: &str, topic: &str) -> f64 {
    let target = brokers::start("target");
    let mut watch = Watch::new(&target.bootstrap(), topic, vec![1]);
    let started = Instant::now();
    let running = contestant.start(source, &target.bootstrap(), PREFIX);
    while !(watch.exists() && watch.look() > 0) {
        assert!(
            started.elapsed() < DEADLINE,
            "{}: no record:\n{}",
            contestant.title(),
            running.log_tail()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed().as_secs_f64()
}
