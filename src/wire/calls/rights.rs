//! What our own principal may do (KIP-430): brokers tell when they are asked. Without an authorizer
//! everybody may do everything.

use std::collections::HashMap;
use std::fmt;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{DescribeClusterRequest, MetadataRequest};

use super::partition::topic_name;
use super::retry::{BUDGET, ask_anyone};
use super::topics::outcome;
use crate::wire::{Cluster, WireError};

/// Version 8 is the first that tells rights on topics; later ones may ask by id.
const METADATA_VERSION: (i16, i16) = (8, 9);
const DESCRIBE_CLUSTER_VERSION_MAX: i16 = 0;
/// Topics in one request.
const AT_ONCE: usize = 500;

/// What can be allowed, by Kafka's numbers (`org.apache.kafka.common.acl.AclOperation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Operation {
    /// READ.
    Read = 3,
    /// WRITE.
    Write = 4,
    /// CREATE.
    Create = 5,
    /// DELETE.
    Delete = 6,
    /// ALTER.
    Alter = 7,
    /// DESCRIBE.
    Describe = 8,
    /// CLUSTER_ACTION.
    ClusterAction = 9,
    /// DESCRIBE_CONFIGS.
    DescribeConfigs = 10,
    /// ALTER_CONFIGS.
    AlterConfigs = 11,
}

impl Operation {
    /// As the protocol and the brokers' messages have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Create => "CREATE",
            Self::Delete => "DELETE",
            Self::Alter => "ALTER",
            Self::Describe => "DESCRIBE",
            Self::ClusterAction => "CLUSTER_ACTION",
            Self::DescribeConfigs => "DESCRIBE_CONFIGS",
            Self::AlterConfigs => "ALTER_CONFIGS",
        }
    }

    /// As `kafka-acls.sh --operation` takes it.
    pub fn option(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Create => "Create",
            Self::Delete => "Delete",
            Self::Alter => "Alter",
            Self::Describe => "Describe",
            Self::ClusterAction => "ClusterAction",
            Self::DescribeConfigs => "DescribeConfigs",
            Self::AlterConfigs => "AlterConfigs",
        }
    }
}

/// The operations that are allowed on one resource.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(u32);

impl Rights {
    /// As a broker says it: bit n is the operation of number n. Negative is the default of the
    /// protocol: the broker doesn't say, which it does for what may not even be seen.
    pub(super) fn from_bits(bits: i32) -> Self {
        Self(u32::try_from(bits).unwrap_or(0))
    }

    /// Whether the operation is allowed, on its own or by another that implies it.
    pub fn allow(self, operation: Operation) -> bool {
        self.0 >> (operation as u8) & 1 == 1
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({:#b})", self.0)
    }
}

/// What we may do on the cluster itself; `None` when brokers don't tell, since they do only with
/// DESCRIBE on the cluster (`AuthHelper.computeDescribeClusterResponse`).
///
/// # Errors
/// When no broker answers.
pub async fn cluster_rights(cluster: &Cluster) -> Result<Option<Rights>, WireError> {
    ask_anyone(cluster, BUDGET, |connection| async move {
        let request =
            DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let response = connection
            .call(request, DESCRIBE_CLUSTER_VERSION_MAX)
            .await?;
        let bits = response.cluster_authorized_operations;
        let answer = Some((response.error_code, response.error_message, bits));
        let bits = outcome(cluster, &connection, "DescribeCluster", "rights", answer)?;
        Ok((bits > 0).then(|| Rights::from_bits(bits)))
    })
    .await
}

/// What we may do on topics, whether they exist or not. A topic that may not be seen has no rights.
///
/// # Errors
/// When no broker answers.
pub async fn topic_rights(
    cluster: &Cluster,
    topics: &[String],
) -> Result<HashMap<String, Rights>, WireError> {
    let mut rights = HashMap::with_capacity(topics.len());
    for chunk in topics.chunks(AT_ONCE) {
        let told = ask_anyone(cluster, BUDGET, |connection| async move {
            let (least, most) = METADATA_VERSION;
            connection.version_at_least::<MetadataRequest>(least, most)?;
            let asked = chunk
                .iter()
                .map(|topic| MetadataRequestTopic::default().with_name(Some(topic_name(topic))));
            let request = MetadataRequest::default()
                .with_topics(Some(asked.collect()))
                .with_allow_auto_topic_creation(false)
                .with_include_topic_authorized_operations(true);
            Ok(connection.call(request, most).await?.topics)
        })
        .await?;
        for topic in told {
            if let Some(name) = topic.name {
                let bits = Rights::from_bits(topic.topic_authorized_operations);
                rights.insert(name.to_string(), bits);
            }
        }
    }
    Ok(rights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_operations() {
        let rights = Rights::from_bits(1 << 3 | 1 << 8);
        assert!(rights.allow(Operation::Read) && rights.allow(Operation::Describe));
        assert!(!rights.allow(Operation::Write) && !rights.allow(Operation::AlterConfigs));
        assert_eq!(Rights::from_bits(i32::MIN), Rights::default());
    }
}
