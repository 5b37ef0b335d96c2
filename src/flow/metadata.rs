//! The copy as the metadata follower sees it, and what it needs to know of a flow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::deleted::gone_topics;
use super::replication;
use super::shared::Flow;
use crate::config::{ClusterSection, FlowConfig};
use crate::metadata::{Context, MirroredTopic, Needs, Topics};
use crate::state::{StateStore, TopicRecord};
use crate::telemetry::metadata::Drift;
use crate::telemetry::progress::now_ms;
use crate::wire::{self, Cluster, Metadata};

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
            mirrored: mirrored.into(),
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
        let is_same = topic.error.is_none() && !wire::is_other_topic(id, topic.topic_id);
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

/// The copied topics as they were put together last: at rest they are the same at each look.
#[derive(Default)]
pub struct Copies {
    last: Mutex<Option<Seen>>,
    /// Counts topics that came, went, or have another shape.
    changes: AtomicU64,
}

/// What the copied topics are put together of.
#[derive(Clone, Debug)]
struct Basis {
    source: Arc<Metadata>,
    target: Arc<Metadata>,
    /// How often topics, and what their logs need, had changed.
    changes: [u64; 2],
}

impl Basis {
    fn is_same(&self, other: &Self) -> bool {
        self.changes == other.changes
            && Arc::ptr_eq(&self.source, &other.source)
            && Arc::ptr_eq(&self.target, &other.target)
    }
}

/// What was put together, and of what.
#[derive(Clone, Debug)]
struct Seen {
    basis: Basis,
    mirrored: Arc<[MirroredTopic]>,
    lacking: Arc<[Drift]>,
}

impl Copies {
    /// Notes a change, behind it.
    pub(super) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    fn of(&self, flow: &Flow) -> Seen {
        flow.end_passing_needs();
        let basis = Basis {
            source: flow.source.cached(),
            target: flow.target.cached(),
            changes: [self.changes.load(Ordering::Acquire), flow.needs.changes()],
        };
        self.seen(basis, |basis| {
            let both = (&*basis.source, &*basis.target);
            (flow.mirrored_now(both), flow.lacking_now(both))
        })
    }

    fn seen(
        &self,
        basis: Basis,
        put_together: impl FnOnce(&Basis) -> (Arc<[MirroredTopic]>, Arc<[Drift]>),
    ) -> Seen {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = last.as_ref().filter(|seen| seen.basis.is_same(&basis)) {
            return seen.clone();
        }
        let (mirrored, lacking) = put_together(&basis);
        let seen = Seen {
            basis,
            mirrored,
            lacking,
        };
        *last = Some(seen.clone());
        seen
    }
}

impl Flow {
    fn mirrored_now(&self, both: (&Metadata, &Metadata)) -> Arc<[MirroredTopic]> {
        let topics = self.topics.iter();
        topics
            .map(|topic| {
                let needs = self.needs_of(&topic);
                mirrored(&topic.source_topic, &topic.record, both, needs)
            })
            .collect()
    }

    fn lacking_now(&self, (source, target): (&Metadata, &Metadata)) -> Arc<[Drift]> {
        let lacking = self.topics.iter().filter_map(|topic| {
            let on_source = source.topics.get(&*topic.source_topic)?;
            replication::lack(&self.config, &topic.record, on_source, target)
        });
        lacking.collect()
    }
}

impl Topics for Flow {
    fn mirrored(&self) -> Arc<[MirroredTopic]> {
        self.copies.of(self).mirrored
    }

    fn drift(&self) -> Vec<Drift> {
        let lacking = self.copies.of(self).lacking;
        let gone = self.gone_topics().into_iter();
        gone.chain(lacking.iter().cloned()).collect()
    }

    fn configs_changed(&self, source_topics: &[String]) {
        self.note_stale(source_topics);
    }

    fn rest_on_others(&self, source_topic: &str, fingerprint: u64) -> bool {
        let topic = self.topics.get(source_topic);
        let are_others = topic.is_some_and(|topic| topic.rules_rest_on != fingerprint);
        if are_others {
            self.note_stale(&[source_topic.to_owned()]);
            // Before it is set right.
            self.doubts.note(source_topic);
        }
        are_others
    }
}

/// The copied topics as the state topic remembers them.
struct Remembered {
    mirrored: Arc<[MirroredTopic]>,
    differing: Vec<Drift>,
}

impl Topics for Remembered {
    fn mirrored(&self) -> Arc<[MirroredTopic]> {
        self.mirrored.clone()
    }

    fn drift(&self) -> Vec<Drift> {
        self.differing.clone()
    }

    fn configs_changed(&self, _source_topics: &[String]) {}

    fn rest_on_others(&self, _source_topic: &str, _fingerprint: u64) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::needs::TopicNeeds;

    /// A size that the log of one topic needs stays for good.
    #[test]
    fn copies_are_put_together_anew_only_where_something_has_changed() {
        let (copies, needs) = (Copies::default(), TopicNeeds::default());
        let (source, target) = (Arc::new(Metadata::empty()), Arc::new(Metadata::empty()));
        let look = || {
            let basis = Basis {
                source: source.clone(),
                target: target.clone(),
                changes: [copies.changes.load(Ordering::Acquire), needs.changes()],
            };
            let put_together = |_: &Basis| {
                let topic = MirroredTopic {
                    source_topic: "t".to_owned(),
                    source_id: uuid::Uuid::nil(),
                    target_topic: "t".to_owned(),
                    target_id: uuid::Uuid::nil(),
                    target_replicas: None,
                    was_there: false,
                    needs: needs.of("t"),
                };
                (Arc::from([topic]), Arc::from([]))
            };
            copies.seen(basis, put_together).mirrored
        };
        let widen = || needs.change("t", |needs| needs.take_size("max.message.bytes", 2_000_000));
        let plain = look();
        widen();
        let wide = look();
        assert_ne!(wide[0].needs, plain[0].needs);
        widen();
        assert!(Arc::ptr_eq(&look(), &wide), "it needs no more than before");
        copies.note_change();
        assert!(!Arc::ptr_eq(&look(), &wide));
    }
}
