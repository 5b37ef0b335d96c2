//! What all parts of a running flow share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::{DashMap, DashSet};
use tokio::sync::Notify;
use uuid::Uuid;

use super::budget::Budget;
use super::deleted::Undeleted;
use super::epochs::SourceEpochs;
use super::error::Trouble;
use super::fill::DearHole;
use super::fillers::Fillers;
use super::leaders::Left;
use super::left_behind::LeftBehind;
use super::metadata::Copies;
use super::missed::{Before, Compared};
use super::needs::TopicNeeds;
use super::partition::Partition;
use super::position::Producers;
use super::stamped::Doubts;
use super::throttle::Throttle;
use super::topics::TopicContext;
use super::turn::Settled;
use crate::config::FlowConfig;
use crate::state::keys::{self, MapKeys};
use crate::state::{StateStore, TopicSet};
use crate::telemetry::progress::{FlowProgress, PartitionKey};
use crate::telemetry::up_to_date::MissedDeletes;
use crate::wire::{Cluster, TopicPartition, WireError};

/// A running flow's connections, limits and state.
pub struct Flow {
    /// As configured.
    pub config: FlowConfig,
    /// Where records come from.
    pub source: Cluster,
    /// Where they go.
    pub target: Cluster,
    /// What is remembered on the target.
    pub store: Arc<StateStore>,
    /// The flow's producer ids.
    pub producers: Producers,
    /// Those of its fillers, for logs whose first ones were another flow's.
    pub fillers: Fillers,
    /// Whom the target's brokers take us for, if that is known.
    pub own_principal: Option<String>,
    /// Whether the target lets us fill holes (CLUSTER_ACTION or ALTER on the cluster).
    pub may_fill: bool,
    /// Where the flow is seen from outside.
    pub progress: Arc<FlowProgress>,
    /// Bytes in flight.
    pub budget: Arc<Budget>,
    /// Bytes per second.
    pub throttle: Arc<Throttle>,
    /// Partitions that are open now.
    pub open: DashMap<PartitionKey, Arc<Partition>>,
    /// Which target topic's positions the registry shows: that of the last opening.
    pub opened: DashMap<PartitionKey, Uuid>,
    /// Which epochs of the source were copied, also while a partition is closed.
    pub epochs: DashMap<PartitionKey, Arc<SourceEpochs>>,
    /// Where the source seemed to lack what was copied, and how, by the target topic's id: it goes on only where
    /// the records themselves say otherwise.
    pub truncated: DashMap<PartitionKey, (Uuid, Trouble)>,
    /// Partitions that turned mapped in a topic whose others aren't, or to which somebody else wrote: the
    /// target topic, and what of it isn't counted. Known from the stored record, before anything is written behind the turn.
    pub turned: DashMap<PartitionKey, (Uuid, Settled)>,
    /// Partitions in which somebody else's write was met while they were open, and that keep it.
    pub strangers: DashSet<PartitionKey>,
    /// Partitions in which the places of committed positions have changed since the groups were told.
    pub moved: Mutex<Vec<PartitionKey>>,
    /// Source topics that are copied since the groups were told.
    pub noted: Mutex<HashSet<Arc<str>>>,
    /// Tells the groups of either.
    pub told: Notify,
    /// Partitions that are to turn, at which hole.
    pub turning: DashMap<PartitionKey, DearHole>,
    /// What a broker that was given up may still carry out.
    pub left_behind: Arc<LeftBehind>,
    /// Partitions that were closed because another broker of the target leads them.
    pub left: Left,
    /// What processes before this one knew of the source's ends.
    pub before: Before,
    /// Partitions that may have missed deletes, which isn't stored yet.
    pub missed: DashMap<PartitionKey, MissedDeletes>,
    /// Partitions whose keys were compared, with what has to be done for it.
    pub compared: DashMap<PartitionKey, Compared>,
    /// Held while a topic's record is read, changed and written.
    pub records: tokio::sync::Mutex<()>,
    /// The topics that are copied, by their names on the source.
    pub topics: DashMap<Arc<str>, Arc<TopicContext>>,
    /// The source topic of each target topic.
    pub sources: DashMap<String, Arc<str>>,
    /// What the role kept from being copied when it began: `config` selects none of it.
    pub not_copied: Option<TopicSet>,
    /// Source topics whose copies' configs were changed: discovery prepares them again.
    pub stale: Mutex<HashSet<String>>,
    /// Topics whose copies may have been set to replace times.
    pub(super) doubts: Doubts,
    /// What the logs of source topics need beyond their settings.
    pub needs: TopicNeeds,
    /// The copied topics as whoever follows configs and ACLs saw them last.
    pub copies: Copies,
    /// Copies of gone topics that couldn't be deleted.
    pub undeleted: Undeleted,
    /// Whether it was said that the source's brokers don't tell where epochs end.
    pub said_untold_epochs: AtomicBool,
}

impl Flow {
    /// Whether some topics were failed over and aren't among those that `config` selects.
    pub fn has_failed_over(&self) -> bool {
        !self.config.is_back() && self.not_copied.is_some()
    }

    /// The source's brokers don't say where an epoch of this partition ends, and won't: it is said once.
    pub fn note_untold_epochs(&self, partition: &TopicPartition, error: &WireError) {
        if self.said_untold_epochs.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            flow = %self.config.name,
            %partition,
            %error,
            "the source doesn't tell where its epochs end (OffsetForLeaderEpoch, which wants DESCRIBE on the topic): a log that \
             was cut while Twinlog was away, and is as long again, isn't noticed"
        );
    }

    /// Notes a topic that is copied, or its new shape.
    pub fn note_topic(&self, context: &Arc<TopicContext>) {
        let name = &context.source_topic;
        let target = context.record.target_topic.clone();
        self.topics.insert(name.clone(), context.clone());
        self.sources.insert(target, name.clone());
        self.copies.note_change();
        // Behind the others: who is told looks at them.
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.insert(name.clone());
        self.told.notify_one();
    }

    /// Notes that committed positions have other places in a partition.
    pub fn note_moved(&self, partition: PartitionKey) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.push(partition);
        self.told.notify_one();
    }

    /// Forgets a topic that has no copy any more.
    pub fn drop_topic(&self, source_topic: &str, target_topic: &str) {
        self.topics.remove(source_topic);
        self.sources.remove(target_topic);
        self.copies.note_change();
    }

    /// Configs of these topics' copies were changed: what was derived from them is derived anew.
    pub fn note_stale(&self, source_topics: &[String]) {
        self.stale().extend(source_topics.iter().cloned());
    }

    /// See [`Flow::note_stale`].
    pub fn stale(&self) -> MutexGuard<'_, HashSet<String>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state key of a topic's record.
    pub fn topic_key(&self, source_topic: &str) -> String {
        keys::topic(&self.config.name, source_topic)
    }

    /// The state keys of a partition's offset map.
    pub fn map_keys(&self, source_topic: &str, partition: i32) -> MapKeys {
        MapKeys::new(&self.config.name, source_topic, partition)
    }

    /// The state key of what was seen of a topic.
    pub fn seen_key(&self, source_topic: &str) -> String {
        keys::seen(&self.config.name, source_topic)
    }

    /// Closes every open partition of a topic and waits until nothing of it is on its way.
    pub async fn close_topic(&self, source_topic: &str) {
        let open: Vec<Arc<Partition>> = self
            .open
            .iter()
            .filter(|entry| &*entry.key().0 == source_topic)
            .map(|entry| entry.value().clone())
            .collect();
        for partition in open {
            partition.close();
            partition.drained().await;
        }
    }
}
