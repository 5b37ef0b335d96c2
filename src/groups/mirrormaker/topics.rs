//! The topics on the target that MirrorMaker 2's tools look for, by Kafka's
//! `DefaultReplicationPolicy` with the separator "." (`IdentityReplicationPolicy` gives them the
//! same names).

use std::collections::BTreeMap;

use crate::wire::{self, Cluster, ResponseError, TopicPartition, WireError};

/// Not affected by policies and separators.
const HEARTBEATS: &str = "heartbeats";

/// Names of the topics of one flow.
///
/// `MirrorClient` takes the text before the first "." for a topic's source, so an alias with a
/// "." in it isn't seen in `upstreamClusters`; translating offsets works with any alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompatTopics {
    /// Heartbeats of every flow that ends at the target.
    pub heartbeats: String,
    /// The source's own heartbeats as a mirror has them; its name alone tells readers that the
    /// source is upstream, one hop away.
    pub source_heartbeats: String,
    /// The checkpoints of the source's groups.
    pub checkpoints: String,
}

impl CompatTopics {
    /// The names for a source with this alias.
    pub fn new(source_alias: &str) -> Self {
        Self {
            heartbeats: HEARTBEATS.to_owned(),
            source_heartbeats: format!("{source_alias}.{HEARTBEATS}"),
            checkpoints: format!("{source_alias}.checkpoints.internal"),
        }
    }

    /// Whether a topic of the target is one of these: a flow that writes them must not copy
    /// another topic into it, or it would have two writers.
    pub fn contains(&self, target_topic: &str) -> bool {
        self.all().contains(&target_topic)
    }

    fn all(&self) -> [&str; 3] {
        [&self.heartbeats, &self.source_heartbeats, &self.checkpoints]
    }

    /// Those that don't exist.
    ///
    /// # Errors
    /// When the cluster can't be asked.
    pub(super) async fn missing(&self, cluster: &Cluster) -> Result<Missing, WireError> {
        let names = self.all().map(str::to_owned);
        let metadata = cluster.metadata(Some(&names)).await?;
        // Any other error (such as a missing right) doesn't say that the topic is missing.
        let is_missing =
            |name: &String| metadata.error_of(name) == Some(ResponseError::UnknownTopicOrPartition);
        Ok(Missing {
            // MirrorMaker's default is 3, and it fails on smaller clusters.
            replicas: i16::try_from(metadata.brokers.len().clamp(1, 3)).unwrap_or(1),
            names: names.into_iter().filter(is_missing).collect(),
        })
    }
}

/// Topics to be made.
#[derive(Debug)]
pub(super) struct Missing {
    names: Vec<String>,
    replicas: i16,
}

impl Missing {
    pub(super) fn contains(&self, topic: &str) -> bool {
        self.names.iter().any(|name| name == topic)
    }

    /// Makes them: one partition, compacted.
    ///
    /// # Errors
    /// The first failure. A topic that somebody else made meanwhile is none.
    pub(super) async fn create(&self, cluster: &Cluster) -> Result<(), WireError> {
        for name in &self.names {
            create(cluster, name, self.replicas).await?;
        }
        Ok(())
    }
}

/// The only partition of a topic, the one that readers look at.
pub(super) fn partition(topic: &str) -> TopicPartition {
    TopicPartition {
        topic: topic.to_owned(),
        partition: 0,
    }
}

async fn create(cluster: &Cluster, name: &str, replicas: i16) -> Result<(), WireError> {
    let configs = BTreeMap::from([
        ("cleanup.policy".to_owned(), "compact".to_owned()),
        // Readers scan the whole topic at every call, and the segment that is written to is never
        // compacted: with the default of 1 GiB a scan would not end within their timeout.
        ("segment.bytes".to_owned(), "16777216".to_owned()),
    ]);
    match wire::create_topic(cluster, name, 1, replicas, &configs).await {
        Err(error) if error.server_code() == Some(ResponseError::TopicAlreadyExists) => Ok(()),
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::is_internal_topic;

    #[test]
    fn names_are_those_of_the_default_policy() {
        let topics = CompatTopics::new("primary");
        assert_eq!(
            topics.all(),
            [
                "heartbeats",
                "primary.heartbeats",
                "primary.checkpoints.internal"
            ]
        );
        assert!(topics.all().iter().all(|name| topics.contains(name)));
        assert!(!topics.contains("other.heartbeats") && !topics.contains("orders"));
    }

    /// On a source, another flow's checkpoints are left alone whatever is selected; heartbeats are
    /// not internal.
    #[test]
    fn checkpoints_are_internal() {
        let topics = CompatTopics::new("primary");
        assert_eq!(
            topics.all().map(is_internal_topic),
            [false, false, true],
            "{topics:?}"
        );
    }
}
