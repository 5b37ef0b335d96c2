//! librdkafka clients for a cluster of the config.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::VerifyError;
use crate::config::ClusterSection;

/// How long a question may take.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What librdkafka logs goes where our logs go; a consumer has no group here, so there is nothing
/// to rebalance.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        // Retried by itself; what lasts fails the call or the partition, with its reason.
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

pub(super) type Consumer = Arc<BaseConsumer<Quiet>>;

/// The section's properties.
pub(super) fn settings(section: &ClusterSection) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in &section.properties {
        // Always from the leader: a follower's log may end earlier.
        if key != "client.rack" {
            config.set(key, value);
        }
    }
    config
}

/// A consumer that reads what consumers are shown, and never commits. It joins no group; the name
/// is only for asking what that group has committed.
pub(super) fn consumer(
    section: &ClusterSection,
    group: &str,
    properties: &[(&str, &str)],
) -> Result<Consumer, VerifyError> {
    let mut config = settings(section);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("check.crcs", "true");
    for (key, value) in properties {
        config.set(*key, *value);
    }
    config
        .create_with_context(Quiet)
        .map(Arc::new)
        .map_err(|error| failed(section, "creating a consumer", &error))
}

/// A question that failed.
pub(super) fn failed(
    section: &ClusterSection,
    doing: &'static str,
    error: &KafkaError,
) -> VerifyError {
    VerifyError::Cluster {
        cluster: section.name.clone(),
        doing,
        reason: error.to_string(),
    }
}
