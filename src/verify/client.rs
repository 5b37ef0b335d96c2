//! librdkafka clients for a cluster of the config.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::VerifyError;
use crate::config::ClusterSection;
use crate::connect::{self, Context};

/// How long a question may take.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub(super) type Consumer = Arc<BaseConsumer<Context>>;

/// The section's properties, and what brings tokens.
pub(super) fn settings(section: &ClusterSection) -> (ClientConfig, Context) {
    let (mut config, context) = connect::librdkafka(section);
    // Always from the leader: a follower's log may end earlier.
    config.remove("client.rack");
    (config, context)
}

/// A consumer that reads what consumers are shown, and never commits. It joins no group; the name
/// is only for asking what that group has committed.
pub(super) fn consumer(
    section: &ClusterSection,
    group: &str,
    properties: &[(&str, &str)],
) -> Result<Consumer, VerifyError> {
    let properties = [&[("check.crcs", "true")], properties].concat();
    connect::reader(section, group, &properties)
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
