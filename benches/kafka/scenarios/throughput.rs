//! A backlog is copied as fast as it goes.

use std::time::{Duration, Instant};

use crate::brokers;
use crate::contestant::Contestant;
use crate::load::Load;
use crate::options::Options;
use crate::report::{Bar, Metric, Number, Numbers, Outcome};
use crate::scenarios::{Copied, PREFIX, await_complete, await_topic};
use crate::support::create_topic;
use crate::usage;
use crate::watch::{self, Watch};

const PARTITIONS: i32 = 8;
/// How long one contestant may take.
const DEADLINE: Duration = Duration::from_secs(900);
/// Records that every target sees before it is measured, so that its JVM has compiled: with a tenth
/// of it, a third of the broker's CPU time in the run was the compiler's.
const WARM_UP_RECORDS: u64 = 3_000_000;
/// It has compiled when it uses less than this, cores.
const AT_REST_CORES: f64 = 0.1;

const fn metrics(rate: f64, cpu: f64, memory: Bar) -> [Metric; 6] {
    [
        Metric {
            key: "records_per_second",
            title: "records/s",
            bar: Bar::TimesAtLeast(rate),
        },
        Metric {
            key: "mb_per_second",
            title: "MB/s (values)",
            bar: Bar::None,
        },
        Metric {
            key: "cpu_seconds",
            title: "CPU-s of the replicator, all",
            bar: Bar::ShareAtMost(cpu),
        },
        Metric {
            key: "cpu_seconds_copying",
            title: "CPU-s after the first record",
            bar: Bar::None,
        },
        Metric {
            key: "target_cpu_seconds",
            title: "CPU-s of the target broker",
            bar: Bar::None,
        },
        Metric {
            key: "memory_peak_mb",
            title: "peak memory, MB",
            bar: memory,
        },
    ]
}

const LARGE: [Metric; 6] = metrics(7.0, 1.0 / 15.0, Bar::AtMost(150.0));
const SMALL: [Metric; 6] = metrics(2.0, 1.0 / 6.0, Bar::None);

/// 1 KiB JSON records, lz4.
pub fn large(options: &Options) -> Outcome {
    let records = options.records;
    run(
        options,
        &LARGE,
        "throughput",
        Case {
            description: format!(
                "{records} JSON records of 1 KiB in lz4 batches of up to 128 KiB (before \
             compression), {PARTITIONS} partitions"
            ),
            records,
            value_bytes: 1_024,
            settings: &[
                ("compression.type", "lz4"),
                ("linger.ms", "50"),
                ("batch.size", "131072"),
            ],
        },
    )
}

/// 100 B records in batches of five.
pub fn small(options: &Options) -> Outcome {
    let records = options.records * 3 / 8;
    run(
        options,
        &SMALL,
        "small",
        Case {
            description: format!(
                "{records} JSON records of 100 B in batches of 5, uncompressed, {PARTITIONS} partitions"
            ),
            records,
            value_bytes: 100,
            settings: &[("linger.ms", "1"), ("batch.num.messages", "5")],
        },
    )
}

struct Case {
    description: String,
    records: u64,
    value_bytes: usize,
    settings: &'static [(&'static str, &'static str)],
}

impl Case {
    fn produce(&self, bootstrap: &str, topic: &str, records: u64) {
        create_topic(bootstrap, topic, PARTITIONS, &[]);
        Load {
            topic,
            partitions: PARTITIONS,
            records,
            value_bytes: self.value_bytes,
            json: true,
            settings: self.settings,
        }
        .produce(bootstrap);
    }
}

fn run(options: &Options, metrics: &'static [Metric], name: &'static str, case: Case) -> Outcome {
    let source = brokers::start("source");
    let topic = format!("{PREFIX}{name}");
    let produced = Instant::now();
    case.produce(&source.bootstrap(), &topic, case.records);
    eprintln!("   produced in {:.1} s", produced.elapsed().as_secs_f64());
    let ends = watch::ends(&source.bootstrap(), &topic, PARTITIONS);
    let numbers = options
        .contestants
        .iter()
        .map(|contestant| {
            (
                *contestant,
                copy(*contestant, &case, &source.bootstrap(), &topic, &ends),
            )
        })
        .collect();
    Outcome {
        scenario: name,
        description: case.description,
        metrics,
        numbers,
    }
}

fn copy(contestant: Contestant, case: &Case, source: &str, topic: &str, ends: &[i64]) -> Numbers {
    let target = brokers::start("target");
    let warm_up = WARM_UP_RECORDS.min(case.records);
    case.produce(&target.bootstrap(), "warm-up", warm_up);
    await_rest(target.process_id(1));
    let mut watch = Watch::new(&target.bootstrap(), topic, ends.to_vec());
    let target_before = usage::of(target.process_id(1));
    let running = contestant.start(source, &target.bootstrap(), PREFIX);
    await_topic(&watch, &running);
    let pace = (Duration::from_millis(20), DEADLINE);
    let copied = await_complete(&mut watch, &running, pace);
    let target_after = usage::of(target.process_id(1));
    let Copied {
        first: (before, seen),
        last: after,
    } = copied;
    let records = case.records as f64 - seen as f64;
    let rate = records / (after.at - before.at).as_secs_f64();
    eprintln!("   {}: {rate:.0} records/s", contestant.title());
    Numbers::from([
        ("records_per_second", Number::Is(rate)),
        (
            "mb_per_second",
            Number::Is(rate * case.value_bytes as f64 / 1e6),
        ),
        ("cpu_seconds", Number::Is(after.cpu_seconds)),
        (
            "cpu_seconds_copying",
            Number::Is(after.cpu_seconds - before.cpu_seconds),
        ),
        (
            "target_cpu_seconds",
            Number::Is(target_after.cpu_seconds - target_before.cpu_seconds),
        ),
        ("memory_peak_mb", Number::Is(after.memory_peak_mb)),
    ])
}

/// Waits until a process has little to do: the JVM compiles in the background.
fn await_rest(process_id: u32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let before = usage::of(process_id);
        std::thread::sleep(Duration::from_secs(1));
        let after = usage::of(process_id);
        let seconds = (after.at - before.at).as_secs_f64();
        let cores = (after.cpu_seconds - before.cpu_seconds) / seconds;
        if cores < AT_REST_CORES || Instant::now() > deadline {
            return;
        }
    }
}
