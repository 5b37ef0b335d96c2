//! How much later a record can be read on the target than on the source, under a steady load.
//!
//! One thread produces, one reads the source, one reads the target. A value carries its number
//! and the time it was sent at. Arrival on the target minus arrival on the source, record by
//! record, is the delay; arrival minus sending is shown too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::brokers;
use crate::contestant::Contestant;
use crate::options::Options;
use crate::report::{Bar, Metric, Number, Numbers, Outcome};
use crate::scenarios::{PREFIX, await_topic};
use crate::support::{admin, create_topic};
use crate::watch::Watch;

const PARTITIONS: i32 = 8;
const INTERVAL: Duration = Duration::from_millis(1);
const VALUE_BYTES: usize = 1_024;
/// Nobody may take longer to deliver the last record.
const DEADLINE: Duration = Duration::from_secs(60);

const METRICS: [Metric; 6] = [
    Metric {
        key: "delay_p50_ms",
        title: "source to target, p50, ms",
        bar: Bar::AtMost(3.0),
    },
    Metric {
        key: "delay_p99_ms",
        title: "source to target, p99, ms",
        bar: Bar::AtMost(15.0),
    },
    Metric {
        key: "sent_to_source_p50_ms",
        title: "sent to read on the source, p50, ms",
        bar: Bar::None,
    },
    Metric {
        key: "sent_to_source_p99_ms",
        title: "sent to read on the source, p99, ms",
        bar: Bar::None,
    },
    Metric {
        key: "sent_to_target_p50_ms",
        title: "sent to read on the target, p50, ms",
        bar: Bar::None,
    },
    Metric {
        key: "sent_to_target_p99_ms",
        title: "sent to read on the target, p99, ms",
        bar: Bar::None,
    },
];

/// Runs it.
pub fn run(options: &Options) -> Outcome {
    let seconds = if options.quick { 10 } else { 30 };
    let numbers = options
        .contestants
        .iter()
        .map(|contestant| (*contestant, measure(*contestant, seconds)))
        .collect();
    Outcome {
        scenario: "latency",
        description: format!(
            "1,000 records of 1 KiB a second over {PARTITIONS} partitions for {seconds} s; what \
             a librdkafka consumer sees on either side"
        ),
        metrics: &METRICS,
        numbers,
    }
}

fn measure(contestant: Contestant, seconds: u64) -> Numbers {
    let source = brokers::start("source");
    let target = brokers::start("target");
    let topic = format!("{PREFIX}latency");
    create_topic(&source.bootstrap(), &topic, PARTITIONS, &[]);
    let clock = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    // The warm-up's records are not counted; they also make MirrorMaker 2's consumers settle.
    let warm_up = 10_000;
    let records = warm_up + usize::try_from(seconds).expect("small") * 1_000;

    let running = contestant.start(&source.bootstrap(), &target.bootstrap(), PREFIX);
    let watch = Watch::new(&target.bootstrap(), &topic, vec![0; PARTITIONS as usize]);
    await_topic(&watch, &running);
    let on_source = reader(&source.bootstrap(), &topic, records, clock, stop.clone());
    let on_target = reader(&target.bootstrap(), &topic, records, clock, stop.clone());
    let sent = produce(&source.bootstrap(), &topic, records, clock);
    let deadline = Instant::now() + DEADLINE;
    while !(on_source.is_finished() && on_target.is_finished()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Relaxed);
    let on_source = on_source.join().expect("the reader ends");
    let on_target = on_target.join().expect("the reader ends");

    let pick = |from: &[f64], to: &[f64]| -> Vec<f64> {
        let mut delays: Vec<f64> = (warm_up..records)
            .map(|number| to[number] - from[number])
            .collect();
        assert!(
            delays.iter().all(|delay| delay.is_finite()),
            "{}: records are missing:\n{}",
            contestant.title(),
            running.log_tail()
        );
        delays.sort_by(f64::total_cmp);
        delays
    };
    let delay = pick(&on_source, &on_target);
    let to_source = pick(&sent, &on_source);
    let to_target = pick(&sent, &on_target);
    let percentile = |delays: &[f64], share: f64| {
        Number::Is(delays[(delays.len() as f64 * share) as usize] * 1e3)
    };
    eprintln!(
        "   {}: p50 {:?}, p99 {:?}",
        contestant.title(),
        percentile(&delay, 0.5),
        percentile(&delay, 0.99)
    );
    Numbers::from([
        ("delay_p50_ms", percentile(&delay, 0.5)),
        ("delay_p99_ms", percentile(&delay, 0.99)),
        ("sent_to_source_p50_ms", percentile(&to_source, 0.5)),
        ("sent_to_source_p99_ms", percentile(&to_source, 0.99)),
        ("sent_to_target_p50_ms", percentile(&to_target, 0.5)),
        ("sent_to_target_p99_ms", percentile(&to_target, 0.99)),
    ])
}

/// Sends one record each millisecond; returns when, in seconds on `clock`.
fn produce(bootstrap: &str, topic: &str, records: usize, clock: Instant) -> Vec<f64> {
    let producer: BaseProducer = admin::client(bootstrap)
        .set("acks", "all")
        .set("linger.ms", "0")
        // Without a cap a slow moment piles up requests of one record each, and the load measures
        // its own queue for seconds.
        .set("max.in.flight.requests.per.connection", "5")
        .create()
        .expect("valid settings");
    let started = Instant::now();
    let mut sent = Vec::with_capacity(records);
    let mut value = vec![b'x'; VALUE_BYTES];
    for number in 0..records {
        let due = started + INTERVAL * u32::try_from(number).expect("fits");
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        value[..8].copy_from_slice(&(number as u64).to_be_bytes());
        sent.push(clock.elapsed().as_secs_f64());
        let record = BaseRecord::<(), [u8]>::to(topic)
            .partition((number % PARTITIONS as usize) as i32)
            .payload(&value);
        producer
            .send(record)
            .unwrap_or_else(|(error, _)| panic!("{error}"));
        producer.poll(Duration::ZERO);
    }
    producer
        .flush(Duration::from_secs(30))
        .expect("the broker takes everything");
    sent
}

/// Reads all partitions; returns the arrival of each number, NaN for what did not come.
fn reader(
    bootstrap: &str,
    topic: &str,
    records: usize,
    clock: Instant,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Vec<f64>> {
    let consumer: BaseConsumer = admin::client(bootstrap)
        .set("group.id", "bench-latency")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.min.bytes", "1")
        .set("fetch.error.backoff.ms", "1")
        .create()
        .expect("valid settings");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("a valid offset");
    }
    consumer.assign(&list).expect("partitions that exist");
    std::thread::spawn(move || {
        let mut arrived = vec![f64::NAN; records];
        let mut missing = records;
        while missing > 0 && !stop.load(Ordering::Relaxed) {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let at = clock.elapsed().as_secs_f64();
            let number = message
                .payload()
                .and_then(|value| value.get(..8))
                .map(|number| u64::from_be_bytes(number.try_into().expect("eight bytes")));
            let slot = number.and_then(|number| arrived.get_mut(number as usize));
            if let Some(slot) = slot.filter(|slot| slot.is_nan()) {
                *slot = at;
                missing -= 1;
            }
        }
        arrived
    })
}
