//! The copy as the metadata follower sees it, and what it needs to know of a flow.

use std::sync::Arc;

use super::deleted::gone_topics;
use super::replication;
use super::shared::Flow;
use crate::config::{ClusterSection, FlowConfig};
use crate::metadata::{Context, MirroredTopic, Needs, Topics};
use crate::state::{StateStore, TopicRecord};
use crate::telemetry::metadata::Drift;
use crate::telemetry::progress::now_ms;
use crate::wire::{Cluster, Metadata};

/// What following a running flow's metadata needs.
pub(super) fn context(flow: &Arc<Flow>) -> Context {
    Context {
        flow: flow.config.name.clone(),
        source_name: flow.config.source.clone(),
        source: flow.source.clone(),
        target: flow.target.clone(),
        store: Some(flow.store.clone()),
        opposite: flow.config.opposite.clone(),
        selected: flow.config.topics.clone(),
        rename: flow.config.rename.clone(),
        groups: flow.config.groups.clone(),
        topics: flow.clone(),
        rules: flow.config.metadata.clone(),
        own_principal: flow.own_principal.clone(),
        own_client_id: flow.target.config().client_id.clone(),
        apply: true,
    }
}

/// What comparing a flow's metadata needs while nothing runs: what is remembered says which topics
/// are copied. Nothing is applied.
pub(super) fn context_for_plan(
    config: &FlowConfig,
    target_section: &ClusterSection,
    (source, target): (&Cluster, &Cluster),
    store: Option<Arc<StateStore>>,
    (mirrored, lacking): (Vec<MirroredTopic>, Vec<Drift>),
) -> Context {
    let on_delete = config.metadata.on_delete;
    let gone = store
        .as_deref()
        .map(|store| gone_topics(store, &config.name, on_delete, now_ms()));
    let gone = gone.into_iter().flatten().map(|(_, drift)| drift);
    let differing = gone.chain(lacking).collect();
    Context {
        flow: config.name.clone(),
        source_name: config.source.clone(),
        source: source.clone(),
        target: target.clone(),
        store,
        opposite: config.opposite.clone(),
        selected: config.topics.clone(),
        rename: config.rename.clone(),
        groups: config.groups.clone(),
        topics: Arc::new(Remembered {
            mirrored,
            differing,
        }),
        rules: config.metadata.clone(),
        own_principal: own_principal(config, target_section),
        own_client_id: target_section.client_id.clone(),
        apply: false,
    }
}

/// Whom the target's brokers take us for, as far as the config tells: with SASL the user name, on a
/// plaintext listener nobody. The name that a broker makes of a certificate is its own business
/// (`ssl.principal.mapping.rules`).
pub fn own_principal(config: &FlowConfig, target: &ClusterSection) -> Option<String> {
    let written = config.metadata.acls.principal.clone();
    written.or_else(|| target.principal())
}

/// A copied topic. Of one that was created again, on either side, nothing may be followed: with
/// another `retention.ms` the copy that is kept would lose its records.
pub(super) fn mirrored(
    source_topic: &str,
    record: &TopicRecord,
    (source, target): (&Metadata, &Metadata),
    needs: Needs,
) -> MirroredTopic {
    let known = |metadata: &Metadata, name: &str, id| {
        let topic = metadata.topics.get(name)?;
        let is_same = topic.error.is_none() && topic.topic_id == id;
        let replicas = topic.partitions.iter().map(|p| p.replicas.len());
        is_same.then(|| replicas.min())?
    };
    let target_replicas = known(source, source_topic, record.source_topic_id)
        .and_then(|_| known(target, &record.target_topic, record.target_topic_id));
    MirroredTopic {
        source_topic: source_topic.to_owned(),
        source_id: record.source_topic_id,
        target_topic: record.target_topic.clone(),
        target_id: record.target_topic_id,
        target_replicas,
        was_there: record.continued.is_some(),
        needs,
    }
}

impl Topics for Flow {
    fn mirrored(&self) -> Vec<MirroredTopic> {
        let (source, target) = (self.source.cached(), self.target.cached());
        let topics = self.topics.iter();
        topics
            .map(|topic| {
                let needs = self.needs_of(&topic);
                let both = (&*source, &*target);
                mirrored(&topic.source_topic, &topic.record, both, needs)
            })
            .collect()
    }

    fn drift(&self) -> Vec<Drift> {
        let (source, target) = (self.source.cached(), self.target.cached());
        let lacking = self.topics.iter().filter_map(|topic| {
            let on_source = source.topics.get(&*topic.source_topic)?;
            replication::lack(&self.config, &topic.record, on_source, &target)
        });
        self.gone_topics().into_iter().chain(lacking).collect()
    }

    fn configs_changed(&self, source_topics: &[String]) {
        self.note_stale(source_topics);
    }
}

/// The copied topics as the state topic remembers them.
struct Remembered {
    mirrored: Vec<MirroredTopic>,
    differing: Vec<Drift>,
}

impl Topics for Remembered {
    fn mirrored(&self) -> Vec<MirroredTopic> {
        self.mirrored.clone()
    }

    fn drift(&self) -> Vec<Drift> {
        self.differing.clone()
    }

    fn configs_changed(&self, _source_topics: &[String]) {}
}
