//! What the steps of a plan work with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::available;
use super::error::CutoverError;
use super::journal::Journal;
use super::lease::Lease;
use super::options::Options;
use super::pairs::{CutTopic, Maps, Offsets, Pair, load_maps, pairs};
use super::unlisted::{self, Side};
use crate::config::{ClusterSection, FlowConfig};
use crate::environment::Machine;
use crate::flow::{self, FlowError};
use crate::state::{
    CutoverKind, FlowRecord, Primary, RoleRecord, StateStore, TopicRecord, TopicSet, keys,
};
use crate::telemetry::progress::{FlowProgress, now_ms};
use crate::wire::{self, Cluster, Metadata};

/// How long our own copying process may take to stop.
const RUNNER_STOPS: Duration = Duration::from_secs(10);

/// Where the operator reads how it goes.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// A flow's two clusters, its state, and what is cut over.
pub struct Scene {
    /// The flow.
    pub flow: FlowConfig,
    /// How the source is reached.
    pub source_section: ClusterSection,
    /// How the target is reached.
    pub target_section: ClusterSection,
    /// The source; in an unplanned failover nobody waits for it.
    pub source: Cluster,
    /// The target.
    pub target: Cluster,
    /// The state on the target.
    pub store: Arc<StateStore>,
    /// The topics that are cut over.
    pub topics: Vec<CutTopic>,
    /// Those that were asked for: also what is left out, and what has no copy.
    pub asked: TopicSet,
}

impl Scene {
    /// Of a flow with these topics; source and target in this order.
    pub fn new(
        flow: &FlowConfig,
        (source_section, target_section): (&ClusterSection, &ClusterSection),
        (source, target): (Cluster, Cluster),
        store: Arc<StateStore>,
        topics: Vec<CutTopic>,
    ) -> Self {
        // Clients wait for whatever a cut-over reads.
        store.hurry();
        Self {
            flow: flow.clone(),
            source_section: source_section.clone(),
            target_section: target_section.clone(),
            source,
            target,
            store,
            topics,
            asked: TopicSet::All,
        }
    }

    /// Where this process runs.
    pub fn machine(&self) -> &dyn Machine {
        self.target_section.environment.machine.as_ref()
    }

    /// What is remembered of the flow.
    ///
    /// # Errors
    /// When it can't be read, or isn't there.
    pub fn flow_record(&self) -> Result<FlowRecord, CutoverError> {
        let key = keys::flow(&self.flow.name);
        let record = self.store.get(&key)?;
        record.ok_or_else(|| CutoverError::failed(format!("{key} is missing")))
    }

    /// The partitions that are cut over.
    pub fn pairs(&self) -> Vec<Pair> {
        pairs(&self.topics)
    }

    /// The topics' names on the source.
    pub fn names(&self) -> Vec<String> {
        self.topics.iter().map(|topic| topic.name.clone()).collect()
    }

    /// The stored maps of mapped partitions.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn maps(&self, pairs: &[Pair]) -> Result<Maps, CutoverError> {
        load_maps(&self.store, &self.flow.name, pairs)
    }

    /// The role as it is written.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn role(&self) -> Result<Option<RoleRecord>, CutoverError> {
        Ok(self.store.get(&keys::role(&self.flow.name))?)
    }

    /// Writes the role.
    ///
    /// # Errors
    /// When it can't be written.
    pub async fn put_role(&self, role: &RoleRecord) -> Result<(), CutoverError> {
        Ok(self.store.put(&keys::role(&self.flow.name), role).await?)
    }

    /// Writes the role with which the flow begins to copy again: from its source as that is now, whenever it was built.
    ///
    /// # Errors
    /// When it can't be written.
    pub async fn begin_to_copy(&self, role: &RoleRecord) -> Result<(), CutoverError> {
        let flow = &self.flow.name;
        let role = StateStore::record(keys::role(flow), role)?;
        // The role behind it: whoever sees that notes the build anew.
        let records = vec![(keys::build(flow), None), role];
        Ok(self.store.write_all(records).await?)
    }

    /// The role with which the flow copies all of its topics, after `before`.
    pub fn copying_role(&self, plan: Uuid, before: Option<&RoleRecord>) -> RoleRecord {
        RoleRecord {
            v: 1,
            primary: Primary::Source,
            topics: TopicSet::All,
            epoch: before.map_or(1, |before| before.epoch + 1),
            plan,
            since_ms: now_ms(),
            source_cluster_id: self.source.cached().cluster_id.clone(),
            target_cluster_id: self.target.cached().cluster_id.clone(),
            is_copied_back: false,
            is_handed_back: false,
            is_kept_fenced: false,
        }
    }
}

/// The topics of a flow that a cut-over is about: copied, selected by the config and the command
/// line, and there on the target, as far as that says: those that it hides are among them.
///
/// # Errors
/// When the state can't be read, the target doesn't answer, or a topic that was asked for isn't copied.
pub async fn topics(
    store: &StateStore,
    flow: &FlowConfig,
    asked: &TopicSet,
    target: &Cluster,
) -> Result<Vec<CutTopic>, CutoverError> {
    let mut found = remembered(store, flow, asked)?;
    unlisted::without_gone(target, &mut found, Side::Target).await?;
    refuse_uncopied(flow, asked, |name| found.iter().any(|it| it.name == name))?;
    Ok(found)
}

/// The topics that are asked for, as the state remembers them, whether the clusters still have them or not.
///
/// # Errors
/// When the state can't be read.
pub fn remembered(
    store: &StateStore,
    flow: &FlowConfig,
    asked: &TopicSet,
) -> Result<Vec<CutTopic>, CutoverError> {
    let prefix = keys::topic(&flow.name, "");
    let mut found = Vec::new();
    for key in store.keys(&prefix) {
        let name = &key[prefix.len()..];
        if !asked.contains(name) || !flow.topics.matches(name) {
            continue;
        }
        if let Some(record) = store.get::<TopicRecord>(&key)? {
            found.push(CutTopic {
                name: name.to_owned(),
                record,
            });
        }
    }
    Ok(found)
}

/// Whether both clusters have what is remembered.
pub fn is_there(topic: &CutTopic, source: Option<&Metadata>, target: &Metadata) -> bool {
    let record = &topic.record;
    let has = |cluster: &Metadata, name: &str, id: Uuid| {
        let topic = cluster.topics.get(name);
        topic.is_some_and(|it| it.error.is_none() && !wire::is_other_topic(id, it.topic_id))
    };
    source.is_none_or(|source| has(source, &topic.name, record.source_topic_id))
        && has(target, &record.target_topic, record.target_topic_id)
}

/// Refuses names that aren't of a copied topic.
///
/// # Errors
/// Those that aren't.
pub fn refuse_uncopied(
    flow: &FlowConfig,
    asked: &TopicSet,
    is_copied: impl Fn(&str) -> bool,
) -> Result<(), CutoverError> {
    let TopicSet::List(asked) = asked else {
        return Ok(());
    };
    let missing = asked.iter().map(String::as_str);
    let missing: Vec<&str> = missing.filter(|name| !is_copied(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(CutoverError::failed(format!(
        "flow {} doesn't copy {}",
        flow.name,
        missing.join(", ")
    ))
    .with_hint("name topics as on the source"))
}

/// A plan under way.
pub struct Cutover {
    /// What it works on.
    pub scene: Scene,
    /// Where it stands.
    pub journal: Journal,
    /// What was asked for.
    pub options: Options,
    /// Tells the operator how it goes.
    pub tell: Tell,
    /// Our own copying process, where no other one runs.
    pub runner: Option<Runner>,
    /// In a failback, the flow that was failed over: the scene is the way back.
    pub ended: Option<Scene>,
    /// The right to change what is remembered of that one.
    pub also: Option<Lease>,
    /// Topics of the source that this process has fenced.
    pub fenced: BTreeSet<String>,
}

impl Cutover {
    /// The flow that was failed over, in a failback.
    ///
    /// # Errors
    /// When this is none.
    pub fn ended(&self) -> Result<&Scene, CutoverError> {
        let ended = self.ended.as_ref();
        ended.ok_or_else(|| CutoverError::failed("this plan is no failback"))
    }

    /// Looks once more whether this plan is still ours, right before something is changed that no
    /// state topic guards: ACLs, groups, logs.
    ///
    /// # Errors
    /// When another process has taken it over.
    pub async fn still_ours(&self) -> Result<(), CutoverError> {
        self.journal.check().await
    }

    /// Takes in what the copy has found since: topics and partitions come while this runs.
    ///
    /// # Errors
    /// When a cluster or the state can't be read.
    pub async fn look_again(&mut self) -> Result<(), CutoverError> {
        self.scene.topics = self.topics_now().await?;
        Ok(())
    }

    /// The topics that are cut over by what both clusters and the state have now.
    ///
    /// # Errors
    /// As [`Cutover::look_again`].
    pub async fn topics_now(&self) -> Result<Vec<CutTopic>, CutoverError> {
        let scene = &self.scene;
        let read = async { Ok(scene.store.refresh().await?) };
        tokio::try_join!(
            async { Ok::<_, CutoverError>(scene.source.metadata(None).await?) },
            async { Ok::<_, CutoverError>(scene.target.metadata(None).await?) },
            read,
        )?;
        let record = &self.journal.record;
        let (store, flow) = (&scene.store, &scene.flow);
        let is_back = record.kind == CutoverKind::Failback;
        let asked = match is_back {
            true => &TopicSet::All,
            false => &record.topics,
        };
        let mut topics = remembered(store, flow, asked)?;
        if !is_back {
            leave_out(&mut topics, record.role_before.as_ref());
        }
        // What a list leaves out may be hidden from us, and then nobody would keep its writers away.
        tokio::try_join!(
            unlisted::refuse_hidden(&scene.source, &topics, Side::Source),
            unlisted::refuse_hidden(&scene.target, &topics, Side::Target),
        )?;
        let (from, to) = (scene.source.cached(), scene.target.cached());
        // A topic that the new primary has deleted since isn't passed over by a failback.
        let from = (!is_back).then_some(&*from);
        topics.retain(|it| is_there(it, from, &to));
        if !is_back {
            let (asked, before) = (&record.topics, record.role_before.as_ref());
            let elsewhere = before.and_then(RoleRecord::not_copied);
            refuse_uncopied(flow, asked, |name| {
                topics.iter().any(|it| it.name == name)
                    || elsewhere.is_some_and(|topics| topics.contains(name))
            })?;
        }
        Ok(topics)
    }

    /// Goes on without the topics that the target can't serve any more: they stay copies.
    ///
    /// # Errors
    /// When that can't be written down.
    pub async fn leave_out_unavailable(&mut self) -> Result<(), CutoverError> {
        let left_out = available::unavailable(&self.scene.target, &self.scene.topics).await;
        if left_out.is_empty() || !available::take_out(&mut self.scene.topics, &left_out) {
            return Ok(());
        }
        let text = available::in_words(&left_out);
        (self.tell)(&text);
        self.options.topics = available::names(&self.scene.topics);
        self.journal.record.topics = self.options.topic_set();
        let mut warnings: Vec<String> = self.journal.fact("warnings").unwrap_or_default();
        warnings.push(text);
        self.journal.note("warnings", &warnings);
        self.journal.save().await
    }

    /// Topics of the source, as it was looked at last, that should be copied and aren't, or not with
    /// all their partitions.
    pub fn without_copy(&self) -> Vec<String> {
        let record = &self.journal.record;
        // What a failback found before it began is another time's role.
        let role = record.role_before.as_ref();
        let role = role.filter(|_| record.kind != CutoverKind::Failback);
        without_copy(&self.scene, &record.topics, role)
    }

    /// The source's ends as they were proven to stand still.
    ///
    /// # Errors
    /// When they weren't.
    pub fn proven_ends(&self) -> Result<Offsets, CutoverError> {
        let ends: Vec<(String, i32, i64)> = self
            .journal
            .fact("source_ends")
            .ok_or_else(|| CutoverError::failed("the journal has no proven source ends"))?;
        Ok(ends
            .into_iter()
            .map(|(topic, partition, end)| {
                (crate::wire::TopicPartition::new(topic, partition), end)
            })
            .collect())
    }
}

/// What an earlier plan failed over is none of another one's business.
pub fn leave_out(topics: &mut Vec<CutTopic>, before: Option<&RoleRecord>) {
    if let Some(elsewhere) = before.and_then(RoleRecord::not_copied) {
        topics.retain(|topic| !elsewhere.contains(&topic.name));
    }
}

/// Topics of the source that are asked for and aren't copied, or not with all their partitions.
pub fn without_copy(scene: &Scene, asked: &TopicSet, role: Option<&RoleRecord>) -> Vec<String> {
    let elsewhere = role.and_then(RoleRecord::not_copied);
    let source = scene.source.cached();
    let selected = flow::selected_topics(&scene.flow, &source);
    let missing = selected.into_iter().filter(|(name, partitions)| {
        let copied = scene.topics.iter().find(|topic| topic.name == *name);
        asked.contains(name)
            && !elsewhere.is_some_and(|topics| topics.contains(name))
            && copied.is_none_or(|topic| topic.record.origins.len() < *partitions)
    });
    missing.map(|(name, _)| name).collect()
}

/// A flow that this process runs because nobody else does.
pub struct Runner {
    cancel: CancellationToken,
    task: JoinHandle<Result<(), FlowError>>,
}

impl Runner {
    /// Starts copying.
    pub fn start(scene: &Scene) -> Self {
        let cancel = CancellationToken::new();
        let flow = &scene.flow;
        let progress = FlowProgress::new(&flow.name, &flow.source, &flow.target);
        let task = tokio::spawn(flow::run_flow(
            flow.clone(),
            scene.source_section.clone(),
            scene.target_section.clone(),
            Arc::new(progress),
            cancel.clone(),
        ));
        Self { cancel, task }
    }

    /// Lets it end in order.
    pub async fn stop(self) {
        self.cancel.cancel();
        if tokio::time::timeout(RUNNER_STOPS, self.task).await.is_err() {
            tracing::warn!("the copy that this command ran did not end in time");
        }
    }
}
