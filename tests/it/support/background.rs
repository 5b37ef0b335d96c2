//! Load that goes on while a test breaks things.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::java::java_produce;
use super::produce::{Codec, HeaderStyle, Load, Transactions};
use super::version::KafkaVersion;

/// So long a producer rests at least, and as long as it has just worked: on a machine of two cores it leaves some of
/// them to the clusters and to what is tested, and what has to be compared afterwards stays within bounds.
const RESTS_AT_LEAST: Duration = Duration::from_millis(50);

/// Producer threads. Stop them with [`Self::stop`]; a dropped one only tells them to end.
#[derive(Debug, Default)]
pub struct Background {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Background {
    /// No load yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All partitions, every codec in turn, batches of one record and of many, headers of every
    /// kind, tombstones; `value_bytes` per value.
    pub fn plain(&mut self, bootstrap: &str, topic: &str, value_bytes: usize) {
        let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
        self.repeat(move |round, first| {
            let codec = Codec::ALL[usize::try_from(round % 5).expect("below 5")];
            let load = Load::new(&topic, 400)
                .first(first)
                .codec(codec)
                .headers(HeaderStyle::Every)
                .tombstone_every(11)
                .value_bytes(value_bytes)
                .with(
                    "batch.num.messages",
                    if round % 3 == 0 { "1" } else { "100" },
                );
            load.produce(&bootstrap);
            load.count
        });
    }

    /// Four producers at once, by librdkafka: three write transactions of 5 records, 30 % of them
    /// aborted; one aborts every other transaction of 1,500, which is a long hole to fill.
    pub fn transactions(&mut self, bootstrap: &str, topic: &str) {
        for producer in 0..4 {
            let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
            self.repeat(move |_, first| {
                let first = first + producer * 10_000_000;
                let mut load = Load::new(&topic, 5).first(first).with("linger.ms", "0");
                let (mut count, mut abort_percent) = (40, 30);
                if producer == 3 {
                    load.count = 1_500;
                    (count, abort_percent) = (2, 50);
                }
                let mut transactions = Transactions::new(load, count);
                transactions.abort_percent = abort_percent;
                transactions.produce(&bootstrap);
                transactions.load.count * count
            });
        }
    }

    /// Transactions of 7 records, one in three aborted, by the Java client.
    pub fn java_transactions(&mut self, version: KafkaVersion, bootstrap: &str, topic: &str) {
        let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
        self.repeat(move |_, first| {
            let first = format!("first={}", 1_000_000 + first);
            java_produce(
                version,
                &bootstrap,
                &topic,
                &[
                    "count=2100",
                    &first,
                    "transaction=7",
                    "abort_every=3",
                    "headers=true",
                ],
            );
            2100
        });
    }

    /// A few keys over and over, so that the cleaner finds work; some tombstones.
    pub fn few_keys(&mut self, bootstrap: &str, topic: &str) {
        let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
        self.repeat(move |round, first| {
            let codec = Codec::ALL[usize::try_from(round % 5).expect("below 5")];
            let load = Load::new(&topic, 300)
                .first(first)
                .codec(codec)
                .keys(37)
                .tombstone_every(13)
                .value_bytes(120)
                .with("batch.num.messages", "20");
            load.produce(&bootstrap);
            load.count
        });
    }

    /// Runs `round(number of the round, records so far)` until stopped; it returns how many
    /// records it wrote.
    fn repeat(&mut self, mut round: impl FnMut(u64, u64) -> u64 + Send + 'static) {
        let stopping = self.stopping.clone();
        self.threads.push(std::thread::spawn(move || {
            let mut records = 0;
            for number in 0.. {
                if stopping.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                records += round(number, records);
                std::thread::sleep(RESTS_AT_LEAST.max(began.elapsed()));
            }
            records
        }));
    }

    /// Lets every thread finish what it is writing; the records written.
    ///
    /// # Panics
    /// When one of them has failed.
    pub fn stop(mut self) -> u64 {
        self.stopping.store(true, Ordering::Relaxed);
        self.threads
            .drain(..)
            .map(|thread| thread.join().expect("the load is accepted"))
            .sum()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
