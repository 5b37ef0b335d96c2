//! Where a topic ends, looked at from outside.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::support::admin;

/// How long a broker may take to say where a partition ends.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Watches the high watermarks of one topic.
pub struct Watch {
    consumer: BaseConsumer,
    topic: String,
    ends: Vec<i64>,
    wanted: Vec<i64>,
}

impl Watch {
    /// Watches partitions 0 to `partitions`; those that have reached `wanted` are asked no more.
    pub fn new(bootstrap: &str, topic: &str, wanted: Vec<i64>) -> Self {
        Self {
            consumer: admin::client(bootstrap)
                .set("allow.auto.create.topics", "false")
                .create()
                .expect("valid settings"),
            topic: topic.to_owned(),
            ends: vec![0; wanted.len()],
            wanted,
        }
    }

    /// Whether the cluster has the topic, with every partition led.
    pub fn exists(&self) -> bool {
        self.consumer
            .fetch_metadata(None, ANSWER_TIMEOUT)
            .is_ok_and(|metadata| {
                metadata.topics().iter().any(|topic| {
                    topic.name() == self.topic
                        && topic.partitions().len() >= self.wanted.len()
                        && topic.partitions().iter().all(|part| part.leader() >= 0)
                })
            })
    }

    /// The sum of the end offsets.
    pub fn look(&mut self) -> i64 {
        let partitions = self.ends.iter_mut().zip(&self.wanted);
        for (index, (end, wanted)) in partitions.enumerate() {
            if *end >= *wanted {
                continue;
            }
            let partition = i32::try_from(index).expect("few partitions");
            let answer = self
                .consumer
                .fetch_watermarks(&self.topic, partition, ANSWER_TIMEOUT);
            // A leader that isn't known yet: the next look finds it.
            if let Ok((_, high)) = answer {
                *end = high;
            }
        }
        self.ends.iter().sum()
    }

    /// Whether every partition has reached what was wanted.
    pub fn is_complete(&self) -> bool {
        self.ends
            .iter()
            .zip(&self.wanted)
            .all(|(end, wanted)| end >= wanted)
    }
}

/// The end offsets of a topic as they are now.
pub fn ends(bootstrap: &str, topic: &str, partitions: i32) -> Vec<i64> {
    let mut watch = Watch::new(bootstrap, topic, vec![i64::MAX; partitions as usize]);
    watch.look();
    watch.ends
}
