//! How far a topic has got, asked quickly and often.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::admin::client;

/// Watches the end offsets of one topic over one connection.
pub struct Ends {
    consumer: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl Ends {
    /// Watches `partitions` partitions of `topic`.
    pub fn new(bootstrap: &str, topic: &str, partitions: i32) -> Self {
        Self {
            consumer: client(bootstrap).create().expect("valid settings"),
            topic: topic.to_owned(),
            partitions,
        }
    }

    /// The sum of the high watermarks; what cannot be asked now counts as 0.
    pub fn total(&self) -> i64 {
        (0..self.partitions)
            .map(|partition| {
                self.consumer
                    .fetch_watermarks(&self.topic, partition, Duration::from_millis(500))
                    .map_or(0, |(_, high)| high)
            })
            .sum()
    }

    /// Waits until the total is above `before`; how long that took.
    ///
    /// # Panics
    /// At the deadline.
    pub fn await_above(&self, before: i64, deadline: Duration) -> Duration {
        let started = Instant::now();
        while self.total() <= before {
            assert!(
                started.elapsed() < deadline,
                "nothing new in {} within {deadline:?} (end offsets {} in total)",
                self.topic,
                self.total()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        started.elapsed()
    }
}
