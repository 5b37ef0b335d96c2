//! Topics come, grow and go (`ReplicationControlManager`).

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use crate::configs::Definition;
use crate::partition::Partition;
use crate::state::{State, Topic};

/// What a new topic should be like.
#[derive(Debug, Clone, Default)]
pub struct NewTopic {
    /// -1 or 0: the default.
    pub partitions: i32,
    /// -1 or 0: the default.
    pub replication: i16,
    /// Replicas by partition; empty: the controller chooses.
    pub assignments: BTreeMap<i32, Vec<i32>>,
    /// What is set on it.
    pub configs: BTreeMap<String, String>,
}

/// Why not: the code, and words for people.
pub type Refusal = (ResponseError, String);

/// `Topic.validate`.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good = !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= 249
        && name.chars().all(legal);
    if good {
        Ok(())
    } else {
        Err((
            ResponseError::InvalidTopicException,
            format!("Topic name is invalid: {name:?}"),
        ))
    }
}

/// `ControllerConfigurationValidator.validate`.
pub fn check_configs(configs: &BTreeMap<String, String>) -> Result<(), Refusal> {
    for (name, value) in configs {
        let complaint = match Definition::of_topic(name) {
            None => Some(format!("Unknown topic config name: {name}")),
            Some(definition) => definition.complaint(value),
        };
        if let Some(complaint) = complaint {
            return Err((ResponseError::InvalidConfig, complaint));
        }
    }
    Ok(())
}

impl State {
    /// Whether the topic could be made; its partitions' replicas if so.
    pub fn plan_topic(&self, name: &str, new: &NewTopic) -> Result<Vec<Vec<i32>>, Refusal> {
        check_name(name)?;
        if self.topics.contains_key(name) {
            return Err((
                ResponseError::TopicAlreadyExists,
                format!("Topic '{name}' already exists."),
            ));
        }
        // `Topic.hasCollision`: metrics can't tell a dot from an underscore.
        let flat = name.replace('.', "_");
        if let Some(other) = self
            .topics
            .keys()
            .find(|other| other.replace('.', "_") == flat)
        {
            return Err((
                ResponseError::InvalidTopicException,
                format!("Topic '{name}' collides with existing topic: {other}"),
            ));
        }
        check_configs(&new.configs)?;
        if new.assignments.is_empty() {
            self.place(new)
        } else {
            self.check_assignments(&new.assignments, 0)
        }
    }

    fn place(&self, new: &NewTopic) -> Result<Vec<Vec<i32>>, Refusal> {
        let partitions = match new.partitions {
            -1 => self.options.default_partitions,
            count => count,
        };
        if partitions <= 0 {
            return Err((
                ResponseError::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.".to_owned(),
            ));
        }
        let replication = match new.replication {
            -1 => self.options.default_replication,
            count => count,
        };
        (0..partitions)
            .map(|number| self.replicas_for(number, replication))
            .collect()
    }

    /// Brokers in turn, each partition beginning with the next one. As `StripedReplicaPlacer` does, one that the controller has
    /// fenced, as it is cut off from the others, is left out where the others are enough.
    pub(crate) fn replicas_for(&self, partition: i32, count: i16) -> Result<Vec<i32>, Refusal> {
        let alive: Vec<i32> = self
            .brokers
            .keys()
            .copied()
            .filter(|&id| self.is_alive(id))
            .collect();
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 || count > alive.len() {
            return Err((
                ResponseError::InvalidReplicationFactor,
                format!(
                    "Unable to replicate the partition {count} time(s): only {} broker(s) are registered.",
                    alive.len()
                ),
            ));
        }
        let mut chosen = alive.clone();
        chosen.retain(|id| !self.islands.contains_key(id));
        if count > chosen.len() {
            chosen = alive;
        }
        let first = usize::try_from(partition).unwrap_or(0);
        Ok((0..count)
            .map(|n| chosen[(first + n) % chosen.len()])
            .collect())
    }

    /// `ReplicationControlManager.validateManualPartitionAssignment`.
    pub(crate) fn check_assignments(
        &self,
        assignments: &BTreeMap<i32, Vec<i32>>,
        first: i32,
    ) -> Result<Vec<Vec<i32>>, Refusal> {
        let bad = |why: String| (ResponseError::InvalidReplicaAssignment, why);
        let size = assignments.values().next().map_or(0, Vec::len);
        for ((&number, replicas), expected) in assignments.iter().zip(first..) {
            if number != expected {
                return Err(bad("partitions should be a consecutive sequence".to_owned()));
            }
            let mut unique = replicas.clone();
            unique.sort_unstable();
            unique.dedup();
            if replicas.is_empty() || unique.len() != replicas.len() || replicas.len() != size {
                return Err(bad(format!("The replicas of partition {number} are wrong")));
            }
            if let Some(unknown) = replicas.iter().find(|id| !self.brokers.contains_key(id)) {
                return Err(bad(format!("no broker {unknown} is registered")));
            }
        }
        Ok(assignments.values().cloned().collect())
    }

    /// Makes a topic.
    pub fn create_topic(&mut self, name: &str, new: &NewTopic) -> Result<Uuid, Refusal> {
        let placed = self.plan_topic(name, new)?;
        let id = self.next_uuid();
        let partitions = (0..).zip(placed.into_iter().map(Partition::new)).collect();
        self.topics.insert(
            name.to_owned(),
            Topic {
                id,
                configs: new.configs.clone(),
                partitions,
                internal: name.starts_with("__consumer_offsets")
                    || name.starts_with("__transaction_state"),
            },
        );
        // Replicas on brokers that are gone don't lead.
        self.elect_where_needed();
        self.changed();
        Ok(id)
    }

    /// Takes a topic away; `false` if there is none.
    pub fn delete_topic(&mut self, name: &str) -> bool {
        let gone = self.topics.remove(name).is_some();
        self.forget_offsets_of_topic(name);
        self.changed();
        gone
    }
}
