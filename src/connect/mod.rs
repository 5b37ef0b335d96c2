//! From a cluster section of the config to both clients: our own (`wire`) and librdkafka.
//!
//! What a section says about TLS and authentication means the same to both, and what only one of
//! them could do is refused by the config.

mod access;
mod certificates;
mod check;
mod librdkafka;
mod oidc;
mod pem;
#[cfg(test)]
mod tests;
mod text;
mod tls;
mod verifiers;

use rdkafka::consumer::BaseConsumer;

use crate::config::ClusterSection;
use crate::wire::Cluster;

pub use access::Access;
pub use check::{check, notes, shared_endpoints};
pub use librdkafka::Context;
pub use text::base64;

/// Our own client for a cluster of the config. Connects nothing yet; a certificate or key that
/// can't be used is an error of connecting, and tried again like others.
pub fn cluster(section: &ClusterSection) -> Cluster {
    Access::new(section).cluster()
}

/// The configuration and the context of any rdkafka client for a cluster of the config.
pub fn librdkafka(section: &ClusterSection) -> (rdkafka::ClientConfig, Context) {
    Access::new(section).librdkafka()
}

/// An rdkafka consumer that reads what consumers are shown (no open and no aborted transactions) from
/// where it is told, and tells where a log ends. It joins no group and never commits: `group` is only
/// the name that librdkafka wants, or whose commits are asked for. `properties` come last.
///
/// # Errors
/// When librdkafka refuses a property.
pub fn reader(
    section: &ClusterSection,
    group: &str,
    properties: &[(&str, &str)],
) -> rdkafka::error::KafkaResult<BaseConsumer<Context>> {
    let (mut config, context) = librdkafka(section);
    // Always from the leader: a follower's log may end earlier.
    config.remove("client.rack");
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest");
    for (key, value) in properties {
        config.set(*key, *value);
    }
    config.create_with_context(context)
}
