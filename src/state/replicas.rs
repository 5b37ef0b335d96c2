//! Whether the state topic has the replicas that it needs: brokers that were away when it was made have none
//! of it when they are back.

use super::settings::wanted_replicas;
use super::store::STATE_TOPIC;
use crate::shell::{self, Command};
use crate::wire::Metadata;

/// Replicas that the state topic lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingReplicas {
    /// How many it has.
    pub has: usize,
    /// How many it should have.
    pub wanted: usize,
    /// The brokers that should have it, those that have it first.
    brokers: Vec<i32>,
}

/// What the state topic lacks with the brokers that are up now; `None` where it lacks nothing.
pub fn missing_replicas(metadata: &Metadata) -> Option<MissingReplicas> {
    let topic = metadata.topics.get(STATE_TOPIC)?;
    let partition = topic.partitions.iter().find(|it| it.index == 0)?;
    let has = partition.replicas.len();
    // One that is away isn't in its place.
    let up = metadata.brokers.len().max(has);
    let wanted = wanted_replicas(up);
    if has == 0 || has >= wanted {
        return None;
    }
    let mut others: Vec<i32> = metadata.brokers.keys().copied().collect();
    others.retain(|broker| !partition.replicas.contains(broker));
    others.sort_unstable();
    let brokers = partition.replicas.iter().copied().chain(others);
    Some(MissingReplicas {
        has,
        wanted,
        brokers: brokers.take(wanted).collect(),
    })
}

impl MissingReplicas {
    /// The command that adds them.
    pub fn command(&self, servers: &[String]) -> String {
        let brokers: Vec<String> = self.brokers.iter().map(i32::to_string).collect();
        let brokers = brokers.join(",");
        let wanted = format!(
            "{{\"version\":1,\"partitions\":[{{\"topic\":\"{STATE_TOPIC}\",\"partition\":0,\"replicas\":[{brokers}]}}]}}"
        );
        let reassign = Command::kafka("kafka-reassign-partitions.sh", servers)
            .flag("--execute")
            .option("--reassignment-json-file", "state.json")
            .note("then restart Twinlog, which sets min.insync.replicas");
        format!("echo {} > state.json; {reassign}", shell::word(&wanted))
    }
}

impl std::fmt::Display for MissingReplicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the state topic {STATE_TOPIC} has {} of {} replicas: without a broker that has it, nothing is filled and nothing \
             can be failed over",
            self.has, self.wanted
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;
    use crate::wire::{BrokerAddress, PartitionMetadata, TopicMetadata};

    fn missing(replicas: &[i32], up: &[i32]) -> Option<MissingReplicas> {
        let partition = PartitionMetadata {
            index: 0,
            leader: 1,
            leader_epoch: 0,
            replicas: replicas.to_vec(),
            in_sync: replicas.to_vec(),
            offline: Vec::new(),
            error: None,
        };
        let topic = TopicMetadata {
            topic_id: uuid::Uuid::nil(),
            internal: false,
            error: None,
            partitions: vec![partition],
        };
        let address = BrokerAddress {
            host: "host".to_owned(),
            port: 1,
            rack: None,
        };
        let brokers: HashMap<_, _> = up.iter().map(|it| (*it, address.clone())).collect();
        missing_replicas(&Metadata {
            cluster_id: None,
            controller_id: 1,
            brokers,
            topics: BTreeMap::from([(STATE_TOPIC.to_owned(), topic)]),
            absent: BTreeMap::new(),
        })
    }

    #[test]
    fn brokers_that_are_back_are_missing_replicas() {
        assert_eq!(missing(&[1], &[1]), None);
        assert_eq!(missing(&[1, 2, 3], &[1]), None, "two are away");
        assert_eq!(missing(&[1, 2, 3], &[1, 2, 3, 4]), None);
        let found = missing(&[2], &[4, 1, 2, 3]).expect("two are missing");
        assert_eq!((found.has, found.wanted), (1, 3));
        assert_eq!(found.brokers, [2, 1, 3]);
        assert!(
            found
                .command(&["a:1".to_owned()])
                .contains("\"replicas\":[2,1,3]")
        );
    }
}
