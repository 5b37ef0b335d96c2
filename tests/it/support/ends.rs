//! How far a topic has got, asked quickly and often.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::admin::client;
use super::wait::Stopwatch;

/// Watches the end offsets of one topic over one connection.
pub struct Ends {
    consumer: BaseConsumer,
    topic: String,
    /// The last that each partition was seen to have.
    known: RefCell<Vec<i64>>,
}

impl Ends {
    /// Watches `partitions` partitions of `topic`.
    pub fn new(bootstrap: &str, topic: &str, partitions: i32) -> Self {
        Self {
            consumer: client(bootstrap).create().expect("valid settings"),
            topic: topic.to_owned(),
            known: RefCell::new(vec![0; usize::try_from(partitions).expect("positive")]),
        }
    }

    /// The sum of the high watermarks. What cannot be asked now counts as it was seen last: whoever waits for more waits
    /// for something new.
    pub fn total(&self) -> i64 {
        let mut known = self.known.borrow_mut();
        for (partition, known) in (0..).zip(known.iter_mut()) {
            let asked =
                self.consumer
                    .fetch_watermarks(&self.topic, partition, Duration::from_millis(500));
            *known = asked.map_or(*known, |(_, high)| high.max(*known));
        }
        known.iter().sum()
    }

    /// Waits until the total is above `before`; how long that took by the clock.
    ///
    /// # Panics
    /// At the deadline, which is that of a machine with a processor to spare ([`Stopwatch`]).
    pub fn await_above(&self, before: i64, deadline: Duration) -> Duration {
        let (started, watch) = (Instant::now(), Stopwatch::start());
        while self.total() <= before {
            assert!(
                watch.counted() < deadline,
                "nothing new in {} within {deadline:?} (end offsets {} in total)",
                self.topic,
                self.total()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        started.elapsed()
    }
}
