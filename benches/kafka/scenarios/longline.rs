//! The source is 50 ms away, each way, and one partition is busy.

use std::time::{Duration, Instant};

use crate::brokers;
use crate::contestant::Contestant;
use crate::load::Load;
use crate::options::Options;
use crate::proxy::Proxy;
use crate::report::{Bar, Metric, Number, Numbers, Outcome};
use crate::scenarios::{PREFIX, await_topic};
use crate::support::cluster::Listener;
use crate::support::ports::Port;
use crate::support::{Cluster, create_topic};
use crate::usage;
use crate::watch::Watch;

const DELAY: Duration = Duration::from_millis(50);
/// A slow contestant is measured for so long.
const WINDOW: Duration = Duration::from_secs(60);
const VALUE_BYTES: usize = 1_024;

const METRICS: [Metric; 3] = [
    Metric {
        key: "mb_per_second",
        title: "MB/s",
        bar: Bar::AtLeast(50.0),
    },
    Metric {
        key: "cpu_seconds_per_gb",
        title: "CPU-s of the replicator per GB",
        bar: Bar::None,
    },
    Metric {
        key: "memory_peak_mb",
        title: "peak memory, MB",
        bar: Bar::AtMost(150.0),
    },
];

/// Runs it.
pub fn run(options: &Options) -> Outcome {
    let records = options.records / 4;
    let (inside, outside) = (Port::reserve(), Port::reserve());
    let mut settings = brokers::options("source");
    settings.listeners.push(Listener {
        name: "LONG".into(),
        address: inside.address(),
        advertised: outside.address(),
    });
    let source = Cluster::start(brokers::VERSION, settings);
    let _proxy = Proxy::start(&outside.address(), &inside.address(), DELAY);
    let topic = format!("{PREFIX}longline");
    create_topic(&source.bootstrap(), &topic, 1, &[]);
    Load {
        topic: &topic,
        partitions: 1,
        records,
        value_bytes: VALUE_BYTES,
        json: false,
        settings: &[("linger.ms", "50"), ("batch.size", "131072")],
    }
    .produce(&source.bootstrap());
    let numbers = options
        .contestants
        .iter()
        .map(|contestant| {
            let numbers = copy(*contestant, &outside.address(), &topic, records);
            (*contestant, numbers)
        })
        .collect();
    Outcome {
        scenario: "longline",
        description: format!(
            "{records} records of 1 KiB that don't compress, one partition, the source behind a \
             proxy with {} ms each way",
            DELAY.as_millis()
        ),
        metrics: &METRICS,
        numbers,
    }
}

fn copy(contestant: Contestant, source: &str, topic: &str, records: u64) -> Numbers {
    let target = brokers::start("target");
    let wanted = i64::try_from(records).expect("fits");
    let mut watch = Watch::new(&target.bootstrap(), topic, vec![wanted]);
    let running = contestant.start(source, &target.bootstrap(), PREFIX);
    await_topic(&watch, &running);
    let mut first = None;
    let started = Instant::now();
    let last = loop {
        let seen = watch.look();
        let usage = usage::of(running.id());
        if first.is_none() && seen > 0 {
            first = Some((usage, seen));
        }
        let full = first.is_some_and(|(first, _)| first.at.elapsed() > WINDOW);
        if full || watch.is_complete() {
            break (usage, seen);
        }
        assert!(
            started.elapsed() < 4 * WINDOW,
            "{}: nothing copied:\n{}",
            contestant.title(),
            running.log_tail()
        );
        std::thread::sleep(Duration::from_millis(20));
    };
    let (first, seen) = first.expect("the loop ends after the first record");
    let megabytes = (last.1 - seen) as f64 * VALUE_BYTES as f64 / 1e6;
    let rate = megabytes / (last.0.at - first.at).as_secs_f64();
    eprintln!("   {}: {rate:.1} MB/s", contestant.title());
    Numbers::from([
        ("mb_per_second", Number::Is(rate)),
        (
            "cpu_seconds_per_gb",
            Number::Is((last.0.cpu_seconds - first.cpu_seconds) / megabytes * 1e3),
        ),
        ("memory_peak_mb", Number::Is(last.0.memory_peak_mb)),
    ])
}
