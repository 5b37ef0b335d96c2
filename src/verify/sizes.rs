//! How large the source's logs are: what a copy's retention by size can't have taken. librdkafka can't ask for that.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::ClusterSection;
use crate::connect;
use crate::wire::{self, TopicPartition};

/// Nobody waits longer than so long and a little for each partition, since a broker adds up the sizes of all its logs.
const ANSWER: Duration = Duration::from_secs(10);
const PER_PARTITION: Duration = Duration::from_millis(5);

/// The sizes that were told, and why others weren't.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    bytes: BTreeMap<TopicPartition, u64>,
    why_not: Option<String>,
}

impl Sizes {
    /// Asks every broker of a cluster about these partitions.
    pub(super) async fn ask(section: &ClusterSection, partitions: &[TopicPartition]) -> Self {
        if partitions.is_empty() {
            return Self::default();
        }
        let cluster = connect::cluster(section);
        let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        let patience = ANSWER.saturating_add(PER_PARTITION.saturating_mul(count));
        let known = tokio::time::timeout(ANSWER, cluster.metadata(Some(&[]))).await;
        let why_not = match known {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", ANSWER.as_secs())),
        };
        if why_not.is_some() {
            return Self {
                why_not,
                ..Self::default()
            };
        }
        let (bytes, silent) = wire::partition_sizes(&cluster, partitions, patience).await;
        Self {
            bytes,
            why_not: silent.first().map(ToString::to_string),
        }
    }

    /// How large the log is, or why that isn't known.
    pub(super) fn of(&self, topic: &str, partition: i32) -> Result<u64, String> {
        let at = TopicPartition::new(topic, partition);
        let told = self.bytes.get(&at).copied();
        // The leader may be among those who didn't tell, and a follower has less.
        match &self.why_not {
            Some(why) => Err(why.clone()),
            None => told.ok_or_else(|| "no broker tells it".to_owned()),
        }
    }
}
