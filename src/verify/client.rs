//! librdkafka clients for a cluster of the config.

use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;

use super::VerifyError;
use crate::config::ClusterSection;
use crate::connect::{self, Context};

/// How long an answer about all topics is waited for, in thirds of what any answer may take, one time after the
/// other: whoever is asked may hang, and the next time it may be somebody else.
const METADATA_THIRDS: [u32; 3] = [1, 2, 6];

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

/// What brokers say of all topics.
pub(super) fn metadata(
    section: &ClusterSection,
    consumer: &Consumer,
    doing: &'static str,
) -> Result<Metadata, VerifyError> {
    let mut answer = Err(KafkaError::Canceled);
    for thirds in METADATA_THIRDS {
        answer = consumer.fetch_metadata(None, section.request_timeout * thirds / 3);
        if answer.is_ok() {
            break;
        }
    }
    answer.map_err(|error| failed(section, doing, &error))
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
