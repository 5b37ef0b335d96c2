//! kill -9 under load: how soon it copies again, and what is lost or doubled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::brokers;
use crate::contestant::{Contestant, Running};
use crate::options::Options;
use crate::report::{Bar, Metric, Number, Numbers, Outcome};
use crate::scenarios::{PREFIX, await_topic};
use crate::support::{admin, create_topic};
use crate::watch::{self, Watch};

const PARTITIONS: i32 = 8;
const RECORDS_PER_SECOND: u64 = 5_000;
const VALUE_BYTES: usize = 256;
/// How long it copies before each kill.
const RUN: Duration = Duration::from_secs(4);

const METRICS: [Metric; 5] = [
    Metric {
        key: "kills",
        title: "kills",
        bar: Bar::None,
    },
    Metric {
        key: "restart_seconds_max",
        title: "restart to next new record, s (worst)",
        bar: Bar::AtMost(2.0),
    },
    Metric {
        key: "lost",
        title: "records lost",
        bar: Bar::AtMost(0.0),
    },
    Metric {
        key: "doubled",
        title: "records doubled",
        bar: Bar::AtMost(0.0),
    },
    Metric {
        key: "moved",
        title: "records at another offset than on the source",
        bar: Bar::AtMost(0.0),
    },
];

/// Runs it.
pub fn run(options: &Options) -> Outcome {
    let numbers = options
        .contestants
        .iter()
        .map(|contestant| (*contestant, measure(*contestant, options.quick)))
        .collect();
    Outcome {
        scenario: "crash",
        description: format!(
            "kill -9 while {RECORDS_PER_SECOND} records a second are produced into {PARTITIONS} \
             partitions, restarted at once"
        ),
        metrics: &METRICS,
        numbers,
    }
}

fn measure(contestant: Contestant, quick: bool) -> Numbers {
    let (kills, patience) = match (contestant, quick) {
        // Connect's delayed rebalance takes five minutes.
        (Contestant::MirrorMaker2, false) => (1, Duration::from_secs(420)),
        (Contestant::MirrorMaker2, true) => (1, Duration::from_secs(30)),
        (_, false) => (5, Duration::from_secs(120)),
        (_, true) => (2, Duration::from_secs(60)),
    };
    let source = brokers::start("source");
    let target = brokers::start("target");
    let topic = format!("{PREFIX}crash");
    create_topic(&source.bootstrap(), &topic, PARTITIONS, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let produced = Arc::new(AtomicU64::new(0));
    let producer = {
        let (bootstrap, topic) = (source.bootstrap(), topic.clone());
        let (stop, produced) = (stop.clone(), produced.clone());
        std::thread::spawn(move || produce(&bootstrap, &topic, &stop, &produced))
    };
    let mut running = contestant.start(&source.bootstrap(), &target.bootstrap(), PREFIX);
    let mut watch = Watch::new(&target.bootstrap(), &topic, vec![i64::MAX; 8]);
    await_topic(&watch, &running);
    assert!(
        grows(&mut watch, 0, Duration::from_secs(120)).is_some(),
        "{}: nothing copied:\n{}",
        contestant.title(),
        running.log_tail()
    );
    let mut worst = Number::Is(0.0);
    for _ in 0..kills {
        let seconds = kill_once(&mut running, &mut watch, patience);
        eprintln!(
            "   {}: copies again after {seconds:?} s",
            contestant.title()
        );
        match seconds {
            Some(seconds) if matches!(worst, Number::Is(so_far) if seconds > so_far) => {
                worst = Number::Is(seconds);
            }
            Some(_) => {}
            None => worst = Number::MoreThan(patience.as_secs_f64()),
        }
        if seconds.is_none() {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer ends");
    let produced = produced.load(Ordering::Relaxed);
    let mut numbers = Numbers::from([
        ("kills", Number::Is(f64::from(kills))),
        ("restart_seconds_max", worst.clone()),
    ]);
    if matches!(worst, Number::Is(_)) {
        catch_up(&source.bootstrap(), &topic, &mut watch);
        drop(running);
        let original = read(&source.bootstrap(), &topic, produced);
        let copy = read(&target.bootstrap(), &topic, produced);
        let both = || original.iter().zip(&copy);
        let count = |which: &dyn Fn(&Seen, &Seen) -> u64| {
            Number::Is(
                both()
                    .map(|(original, copy)| which(original, copy))
                    .sum::<u64>() as f64,
            )
        };
        let lost = count(&|_, copy| u64::from(copy.times == 0));
        let doubled = count(&|_, copy| copy.times.saturating_sub(1));
        let moved =
            count(&|original, copy| u64::from(copy.times > 0 && copy.first != original.first));
        eprintln!("   of {produced}: lost {lost:?}, doubled {doubled:?}, moved {moved:?}");
        numbers.extend([("lost", lost), ("doubled", doubled), ("moved", moved)]);
    }
    numbers
}

/// Lets it copy for a while, kills it and starts it; seconds from there to the next new record.
fn kill_once(running: &mut Running, watch: &mut Watch, patience: Duration) -> Option<f64> {
    // Not a wait for something: this long it shall run undisturbed.
    std::thread::sleep(RUN);
    running.kill9();
    // What was on its way to the broker is appended now, not later: the connections are closed.
    let mut end = watch.look();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let next = watch.look();
        if next == end {
            break;
        }
        end = next;
    }
    running.restart();
    grows(watch, end, patience)
}

/// Seconds until the ends' sum passes `beyond`.
fn grows(watch: &mut Watch, beyond: i64, patience: Duration) -> Option<f64> {
    let started = Instant::now();
    while started.elapsed() < patience {
        if watch.look() > beyond {
            return Some(started.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Waits until the target has at least as much as the source, and rests.
fn catch_up(source: &str, topic: &str, watch: &mut Watch) {
    let wanted: i64 = watch::ends(source, topic, PARTITIONS).iter().sum();
    let started = Instant::now();
    let mut rested = (watch.look(), Instant::now());
    while started.elapsed() < Duration::from_secs(300) {
        std::thread::sleep(Duration::from_millis(100));
        let seen = watch.look();
        if seen != rested.0 {
            rested = (seen, Instant::now());
        } else if seen >= wanted && rested.1.elapsed() > Duration::from_secs(3) {
            return;
        } else if rested.1.elapsed() > Duration::from_secs(60) {
            eprintln!("   stuck at {seen} of {wanted}");
            return;
        }
    }
}

fn produce(bootstrap: &str, topic: &str, stop: &AtomicBool, produced: &AtomicU64) {
    let producer: BaseProducer = admin::client(bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        .create()
        .expect("valid settings");
    let started = Instant::now();
    let mut value = vec![b'x'; VALUE_BYTES];
    let mut number: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (started.elapsed().as_secs_f64() * RECORDS_PER_SECOND as f64) as u64;
        while number < due {
            value[..8].copy_from_slice(&number.to_be_bytes());
            let partition = number % u64::from(PARTITIONS.unsigned_abs());
            let record = BaseRecord::<(), [u8]>::to(topic)
                .partition(partition as i32)
                .payload(&value);
            producer
                .send(record)
                .unwrap_or_else(|(error, _)| panic!("{error}"));
            number += 1;
        }
        producer.poll(Duration::from_millis(2));
    }
    producer
        .flush(Duration::from_secs(60))
        .expect("the broker takes everything");
    produced.store(number, Ordering::Relaxed);
}

#[derive(Clone, Copy, Default)]
struct Seen {
    times: u64,
    first: i64,
}

/// How often and where each number is in the topic.
fn read(bootstrap: &str, topic: &str, records: u64) -> Vec<Seen> {
    let consumer: BaseConsumer = admin::client(bootstrap)
        .set("group.id", "bench-crash")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("valid settings");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("a valid offset");
    }
    consumer.assign(&list).expect("partitions that exist");
    let mut seen = vec![Seen::default(); usize::try_from(records).expect("fits")];
    let mut open = PARTITIONS;
    while open > 0 {
        match consumer.poll(Duration::from_secs(30)) {
            Some(Ok(message)) => {
                let value = message.payload().expect("every record has a value");
                let number = u64::from_be_bytes(value[..8].try_into().expect("eight bytes"));
                let slot = &mut seen[number as usize];
                if slot.times == 0 {
                    slot.first = message.offset();
                }
                slot.times += 1;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => eprintln!("{error}"),
            None => panic!("{topic} can't be read from {bootstrap}"),
        }
    }
    seen
}
