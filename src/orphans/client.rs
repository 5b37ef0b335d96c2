//! librdkafka consumers for a cluster of the config.

use rdkafka::consumer::BaseConsumer;

use super::OrphansError;
use crate::config::ClusterSection;
use crate::connect::{self, Context};

pub(super) type Consumer = BaseConsumer<Context>;

/// At most this much is fetched ahead of each partition, and one fetch more.
const FETCH: [(&str, &str); 5] = [
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.message.max.bytes", "2097152"),
    ("fetch.max.bytes", "16777216"),
    ("fetch.wait.max.ms", "50"),
    ("fetch.queue.backoff.ms", "5"),
];

/// A consumer that reads what consumers are shown: no open and no aborted transactions. It joins no
/// group and never commits.
pub(super) fn consumer(section: &ClusterSection) -> Result<Consumer, OrphansError> {
    let (mut config, context) = connect::librdkafka(section);
    // Always from the leader: a follower's log may end earlier.
    config.remove("client.rack");
    config
        // librdkafka wants a name even where nobody joins.
        .set("group.id", "twinlog-orphans")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("check.crcs", "true");
    for (key, value) in FETCH {
        config.set(key, value);
    }
    config
        .create_with_context(context)
        .map_err(|error| OrphansError::doing(format!("a consumer on {}", section.name), error))
}
