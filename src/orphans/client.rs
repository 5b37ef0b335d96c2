//! librdkafka consumers for a cluster of the config.

use rdkafka::consumer::BaseConsumer;

use super::OrphansError;
use crate::config::ClusterSection;
use crate::connect::{self, Context};

pub(super) type Consumer = BaseConsumer<Context>;

/// At most this much is fetched ahead of each partition, and one fetch more.
const PROPERTIES: [(&str, &str); 6] = [
    ("check.crcs", "true"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.message.max.bytes", "2097152"),
    ("fetch.max.bytes", "16777216"),
    ("fetch.wait.max.ms", "50"),
    ("fetch.queue.backoff.ms", "5"),
];

/// A consumer that reads what consumers are shown: no open and no aborted transactions. It joins no
/// group and never commits.
pub(super) fn consumer(section: &ClusterSection) -> Result<Consumer, OrphansError> {
    connect::reader(section, "twinlog-orphans", &PROPERTIES)
        .map_err(|error| OrphansError::doing(format!("a consumer on {}", section.name), error))
}
