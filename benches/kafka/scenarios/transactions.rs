//! Many short transactions: every one ends with a marker, which is an offset without a record.

use std::time::Duration;

use crate::brokers;
use crate::contestant::Contestant;
use crate::options::Options;
use crate::proxy::Proxy;
use crate::report::{Bar, Metric, Number, Numbers, Outcome};
use crate::scenarios::{Copied, PREFIX, await_complete, await_topic};
use crate::support::cluster::Listener;
use crate::support::ports::Port;
use crate::support::{Cluster, create_topic, steps};
use crate::watch::{self, Watch};

/// Records of a transaction in each of its partitions.
const RECORDS: u64 = 5;
/// Each way.
const DISTANCE: Duration = Duration::from_millis(10);
/// Written to the target beforehand: a broker that was just started takes the first thousands slowly.
const WARM_UP: u64 = 5_000;
/// How long one contestant may take.
const DEADLINE: Duration = Duration::from_secs(300);

const METRICS: [Metric; 3] = [
    Metric {
        key: "transactions_per_second",
        title: "transactions/s",
        bar: Bar::TimesAtLeast(1.0),
    },
    Metric {
        key: "cpu_seconds_copying",
        title: "CPU-s after the first record",
        bar: Bar::None,
    },
    Metric {
        key: "memory_peak_mb",
        title: "peak memory, MB",
        bar: Bar::None,
    },
];

/// Where the target is, and what is copied to it.
struct Case {
    name: &'static str,
    transactions: u64,
    partitions: i32,
    distance: Duration,
}

/// All on one machine.
pub fn near(options: &Options) -> Outcome {
    run(
        options,
        &Case {
            name: "transactions",
            transactions: options.records / 400,
            partitions: 4,
            distance: Duration::ZERO,
        },
    )
}

/// One partition, the target behind a line.
pub fn far(options: &Options) -> Outcome {
    run(
        options,
        &Case {
            name: "transactions-far",
            transactions: options.records / 2_000,
            partitions: 1,
            distance: DISTANCE,
        },
    )
}

fn run(options: &Options, case: &Case) -> Outcome {
    let source = brokers::start("source");
    let topic = format!("{PREFIX}{}", case.name);
    create_topic(&source.bootstrap(), &topic, case.partitions, &[]);
    steps::plant(
        &source.bootstrap(),
        &topic,
        case.partitions,
        case.transactions,
        RECORDS,
    );
    let ends = watch::ends(&source.bootstrap(), &topic, case.partitions);
    let numbers = options
        .contestants
        .iter()
        .map(|contestant| {
            let numbers = copy(*contestant, case, &source.bootstrap(), &topic, &ends);
            (*contestant, numbers)
        })
        .collect();
    Outcome {
        scenario: case.name,
        description: format!(
            "{} transactions of {RECORDS} records in each of {} partition(s), committed; the target {} ms away, each way",
            case.transactions,
            case.partitions,
            case.distance.as_millis()
        ),
        metrics: &METRICS,
        numbers,
    }
}

fn copy(contestant: Contestant, case: &Case, source: &str, topic: &str, ends: &[i64]) -> Numbers {
    let (inside, outside) = (Port::reserve(), Port::reserve());
    let mut settings = brokers::options("target");
    settings.listeners.push(Listener {
        name: "LONG".into(),
        address: inside.address(),
        advertised: outside.address(),
    });
    let target = Cluster::start(brokers::VERSION, settings);
    create_topic(&target.bootstrap(), "warm-up", 1, &[]);
    steps::plant(&target.bootstrap(), "warm-up", 1, WARM_UP, RECORDS);
    let _proxy = Proxy::start(&outside.address(), &inside.address(), case.distance);
    let address = match case.distance.is_zero() {
        true => target.bootstrap(),
        false => outside.address(),
    };
    // Others copy the records only.
    let wanted = match contestant {
        Contestant::Twinlog => ends.to_vec(),
        _ => vec![i64::try_from(case.transactions * RECORDS).expect("fits"); ends.len()],
    };
    let all: i64 = wanted.iter().sum();
    let mut watch = Watch::new(&target.bootstrap(), topic, wanted);
    let running = contestant.start_reading_committed(source, &address, PREFIX);
    await_topic(&watch, &running);
    let pace = (Duration::from_millis(5), DEADLINE);
    let copied = await_complete(&mut watch, &running, pace);
    let Copied {
        first: (before, seen),
        last: after,
    } = copied;
    let share = 1.0 - seen as f64 / all as f64;
    let rate = case.transactions as f64 * share / (after.at - before.at).as_secs_f64();
    eprintln!("   {}: {rate:.0} transactions/s", contestant.title());
    Numbers::from([
        ("transactions_per_second", Number::Is(rate)),
        (
            "cpu_seconds_copying",
            Number::Is(after.cpu_seconds - before.cpu_seconds),
        ),
        ("memory_peak_mb", Number::Is(after.memory_peak_mb)),
    ])
}
