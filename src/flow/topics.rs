//! Which topics are copied, and their counterparts on the target: found, created, or refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;

use super::append_time;
use super::error::Trouble;
use super::fill::FillRule;
use super::intake::IntakeRules;
use super::missed;
use super::origins::{self, Waiting};
use super::shared::Flow;
use super::sparse;
use super::topic_config::{self, TopicConfigs};
use crate::config::{
    FlowConfig, OffsetsMode, OnForeignWrite, OnRecreate, Start, is_internal_to_flow,
};
use crate::groups::mirrormaker::CompatTopics;
use crate::metadata::fingerprint_of_rules;
use crate::offsets::{OffsetMap, SourceOffset, TargetOffset};
use crate::state::{MapRecord, RoleRecord, SourceIs, TopicRecord, TurnedPartition, keys, maps};
use crate::telemetry::progress::{TopicNote, now_ms};
use crate::wire::{self, Cluster, Metadata, OffsetSpec, TopicMetadata, TopicPartition, WireError};

/// A batch that unpacks to more than this is refused.
const DECOMPRESSED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Batches up to this size are merged with their neighbours.
const COALESCE_BELOW_BYTES: usize = 16 * 1024;
/// Merged batches grow to about this many source bytes.
const COALESCE_TO_BYTES: usize = 128 * 1024;
/// How long a plan waits for what can't be had.
const PATIENCE: Duration = Duration::from_secs(3);
/// `delete.retention.ms`, where nobody tells.
const DELETE_RETENTION_MS: i64 = 86_400_000;
/// Looks at a topic that was just deleted, and the pause between two of them: 5 s in all.
pub(super) const DELETED_LOOKS: u32 = 100;
const GONE_PAUSE: Duration = Duration::from_millis(50);

/// A topic that is being copied.
#[derive(Debug)]
pub struct TopicContext {
    /// Its name on the source.
    pub source_topic: Arc<str>,
    /// What is remembered about it.
    pub record: TopicRecord,
    /// What may pass as it is.
    pub rules: IntakeRules,
    /// The settings that the rules were made from, see [`fingerprint_of_rules`].
    pub rules_rest_on: u64,
    /// Why the partitions whose origin isn't known wait.
    pub waiting: Waiting,
    /// Whether old records of it may be in the source's remote storage.
    pub is_tiered: bool,
}

impl TopicContext {
    /// A partition's name on the source.
    pub fn source(&self, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: self.source_topic.to_string(),
            partition,
        }
    }

    /// The first target offset of a partition that is ours.
    pub fn base(&self, partition: i32) -> i64 {
        let continued = self.record.continued.as_ref();
        continued.map_or(0, |continued| continued.base(partition))
    }

    /// A position in the target's log, behind what it has of somebody else there.
    pub fn past_strangers(&self, partition: i32, position: i64) -> i64 {
        let continued = self.record.continued.as_ref();
        continued.map_or(position, |it| it.past_strangers(partition, position))
    }

    /// Whether the same partitions wait for their leaders, for the same reasons.
    pub fn waits_as(&self, other: &Self) -> bool {
        let reasons = |it: &Self| -> Vec<(i32, &'static str)> {
            let all = it.waiting.iter();
            all.map(|(number, why)| (*number, why.reason())).collect()
        };
        reasons(self) == reasons(other)
    }

    /// A partition's name on the target.
    pub fn target(&self, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: self.record.target_topic.clone(),
            partition,
        }
    }
}

/// The source topics that a flow copies.
pub fn selected<'a>(
    flow: &FlowConfig,
    metadata: &'a Metadata,
) -> Vec<(&'a String, &'a TopicMetadata)> {
    let compat = flow
        .mirrormaker_compat
        .then(|| CompatTopics::new(&flow.source));
    let is_ours = |name: &str| {
        let target = flow.rename.apply(&flow.source, name);
        compat
            .as_ref()
            .is_some_and(|topics| topics.contains(&target))
    };
    metadata
        .topics
        .iter()
        .filter(|(name, topic)| {
            !topic.internal
                && !is_ours(name)
                && topic.error.is_none()
                && !topic.partitions.is_empty()
                && !is_internal_to_flow(&flow.name, name)
                && flow.topics.matches(name)
        })
        .collect()
}

/// The names of the source topics that a flow copies, and how many partitions each has.
pub fn selected_topics(flow: &FlowConfig, metadata: &Metadata) -> Vec<(String, usize)> {
    let selected = selected(flow, metadata).into_iter();
    selected
        .map(|(name, topic)| (name.clone(), topic.partitions.len()))
        .collect()
}

/// One topic as discovery found it.
pub struct Found<'a> {
    /// The source topic's name.
    pub name: &'a str,
    /// The source topic.
    pub source: &'a TopicMetadata,
    /// Its counterpart, if the target has one.
    pub target: Option<&'a TopicMetadata>,
    /// Whether the topic was there when the flow first looked: only then `start: latest` applies;
    /// a later topic is copied from its first record.
    pub at_first_look: bool,
}

/// Makes sure that the topic's counterpart exists and is ours.
///
/// # Errors
/// A trouble for this topic alone.
pub async fn ensure(
    flow: &Flow,
    found: Found<'_>,
    configs: &TopicConfigs,
) -> Result<TopicContext, Trouble> {
    let key = flow.topic_key(found.name);
    let target_topic = flow.config.rename.apply(&flow.config.source, found.name);
    let mut record: Option<TopicRecord> = flow.store.get(&key)?;
    let (on_source, on_target);
    let mut found = found;
    has_id(&flow.source, "source", found.source)?;
    if let Some(known) = &record
        && known.source_topic_id != found.source.topic_id
    {
        on_source = as_most_say(&flow.source, "source", found.name).await?;
        has_id(&flow.source, "source", &on_source)?;
        found = Found {
            source: &on_source,
            ..found
        };
    }
    let mut target = found.target.filter(|topic| topic.error.is_none());
    if let (Some(known), Some(there)) = (&record, target)
        && wire::is_other_topic(known.target_topic_id, there.topic_id)
    {
        on_target = as_most_say(&flow.target, "target", &known.target_topic).await?;
        target = Some(&on_target);
    }

    if let Some(known) = &record {
        if target.is_none() {
            await_gone(flow, &known.target_topic, 1).await?;
        }
        if known.source_topic_id != found.source.topic_id {
            replace_recreated(flow, found.name, known, target).await?;
            (record, target) = (None, None);
        } else if target.is_none() {
            tracing::warn!(
                topic = found.name,
                "the target topic is gone; the topic is copied again from its start"
            );
            forget(flow, found.name, known).await?;
            record = None;
        }
    }
    let (record, waiting) = match (record, target) {
        (Some(record), Some(target)) => grow(flow, &key, record, &found, target).await?,
        (_, target) => begin(flow, &key, &found, target_topic, target, configs).await?,
    };
    let (mut rules, rules_rest_on) = rules(flow, found.name, &record.target_topic, configs).await?;
    if let Some(continued) = &record.continued {
        rules.producers = flow
            .fillers
            .producers(continued.data_producer_id, continued.filler_producer_id);
    }
    flow.note_turned(&Arc::from(found.name), &record);
    flow.progress.topics.insert(
        Arc::from(found.name),
        TopicNote {
            target_topic: record.target_topic.clone(),
            offsets: if record.has_maps() {
                "mapped"
            } else {
                "identical"
            },
            reason: record.why_mapped(),
        },
    );
    Ok(TopicContext {
        source_topic: Arc::from(found.name),
        record,
        rules,
        rules_rest_on,
        waiting,
        is_tiered: configs.source.get(found.name).is_some_and(is_tiered),
    })
}

/// A source's topic is fetched by its id, and known again by it.
fn has_id(cluster: &Cluster, role: &str, topic: &TopicMetadata) -> Result<(), Trouble> {
    match topic.topic_id.is_nil() {
        true => Err(Trouble::NoTopicId {
            cluster: format!("{role} ({})", cluster.name()),
        }),
        false => Ok(()),
    }
}

/// A topic that seems to be another one than before, as most of the brokers describe it: one alone may be behind.
pub(super) async fn as_most_say(
    cluster: &Cluster,
    role: &str,
    topic: &str,
) -> Result<TopicMetadata, Trouble> {
    let described = cluster.by_most(topic).await?;
    // It is looked at again, and said to be gone where it is.
    described.ok_or_else(|| Trouble::LeaderMoved {
        cluster: format!("{role} ({})", cluster.name()),
    })
}

/// Whether a topic is gone, from an answer about its name. A list of all topics leaves out those
/// that we may not describe, and a broker may not know every topic yet; asked for by name, a topic
/// that is hidden from us is TOPIC_AUTHORIZATION_FAILED (`KafkaApis.handleTopicMetadataRequest`).
///
/// # Errors
/// When the broker may not or can't say.
pub(super) fn is_gone(metadata: &Metadata, cluster: &str, topic: &str) -> Result<bool, Trouble> {
    let described = metadata.described(topic);
    let is_gone = described.map(|described| described.is_none());
    is_gone.map_err(|code| Trouble::broker(cluster, code, None))
}

/// What we remember about a copy isn't dropped before the target says that it is gone.
pub(super) async fn await_gone(flow: &Flow, target_topic: &str, looks: u32) -> Result<(), Trouble> {
    let cluster = format!("target ({})", flow.target.name());
    let name = [target_topic.to_owned()];
    for look in 1..=looks {
        let metadata = flow.target.metadata(Some(&name)).await?;
        if is_gone(&metadata, &cluster, target_topic)? {
            return Ok(());
        }
        if look < looks {
            tokio::time::sleep(GONE_PAUSE).await;
        }
    }
    Err(Trouble::LeaderMoved { cluster })
}

async fn replace_recreated(
    flow: &Flow,
    name: &str,
    known: &TopicRecord,
    target: Option<&TopicMetadata>,
) -> Result<(), Trouble> {
    // Nothing is ever deleted on the target that we did not create.
    let ours = target.is_none_or(|target| {
        known.created && wire::is_same_topic(known.target_topic_id, target.topic_id)
    });
    if flow.config.on_recreate == OnRecreate::Stop || !ours {
        return Err(Trouble::SourceRecreated);
    }
    // Where the operator has deleted the copy there is nothing left to keep.
    if target.is_some()
        && let SourceIs::BuiltAnew { why } =
            SourceIs::ask(&flow.store, &flow.config.name, &flow.source).await??
    {
        return Err(Trouble::SourceBuiltAnew(why));
    }
    tracing::warn!(
        topic = name,
        "the source topic was created again; its copy is replaced (on_recreate: recreate)"
    );
    // A produce names its topic, not its id: none may be on its way when the name gets a new log.
    flow.close_topic(name).await;
    if target.is_some() {
        let copy = as_most_say(&flow.target, "target", &known.target_topic).await?;
        if !wire::is_same_topic(known.target_topic_id, copy.topic_id) {
            return Err(Trouble::TargetRecreated);
        }
        delete_copy(flow, name, known).await?;
        // Deletion is asynchronous in the brokers; a create right behind it would be refused.
        await_gone(flow, &known.target_topic, DELETED_LOOKS).await?;
    }
    forget(flow, name, known).await
}

/// Deletes a copy by its id: its name may be another topic's by now. One that is gone is no error.
///
/// The process may have stood still since it was told to, while somebody failed the topic over: then it is nobody's copy any
/// more, under the same id. So the role is read right before.
///
/// # Errors
/// Why it can't be deleted, and [`Trouble::TargetRecreated`] where it is no copy any more.
pub(super) async fn delete_copy(
    flow: &Flow,
    topic: &str,
    known: &TopicRecord,
) -> Result<(), Trouble> {
    flow.store.refresh().await?;
    let role: Option<RoleRecord> = flow.store.get(&keys::role(&flow.config.name))?;
    let not_copied = role.as_ref().and_then(RoleRecord::not_copied);
    if not_copied.is_some_and(|topics| topics.contains(topic)) {
        return Err(Trouble::TargetRecreated);
    }
    let (name, id) = (&known.target_topic, known.target_topic_id);
    match wire::delete_topic_with_id(&flow.target, name, id).await {
        Err(error) if error.server_code() == Some(ResponseError::UnknownTopicId) => Ok(()),
        other => Ok(other?),
    }
}

pub(super) async fn forget(flow: &Flow, name: &str, known: &TopicRecord) -> Result<(), Trouble> {
    flow.close_topic(name).await;
    for (partition, _) in (0..).zip(&known.origins) {
        if known.is_mapped(partition) {
            maps::remove(&flow.store, &flow.map_keys(name, partition)).await?;
        }
    }
    flow.strangers.retain(|(topic, _)| &**topic != name);
    flow.turned.retain(|(topic, _), _| &**topic != name);
    flow.left_behind.forget(name);
    flow.turning.retain(|(topic, _), _| &**topic != name);
    missed::forget(flow, name, known).await?;
    flow.store.remove(&flow.seen_key(name)).await?;
    let held = keys::held_configs(&flow.config.name, name);
    flow.store.remove(&held).await?;
    flow.store.remove(&flow.topic_key(name)).await?;
    Ok(())
}

/// A known topic: its counterpart must still be the one that we filled, with as many partitions.
async fn grow(
    flow: &Flow,
    key: &str,
    mut record: TopicRecord,
    found: &Found<'_>,
    target: &TopicMetadata,
) -> Result<(TopicRecord, Waiting), Trouble> {
    if wire::is_other_topic(record.target_topic_id, target.topic_id) {
        return Err(Trouble::TargetRecreated);
    }
    let wanted = found.source.partitions.len();
    match_partitions(flow, &record.target_topic, wanted, target).await?;
    let before = record.origins.clone();
    if record.origins.len() < wanted {
        // Added partitions are copied from their first record, whatever `start` says.
        record.origins.resize(wanted, 0);
    }
    let waiting = origins::learn(flow, found, &mut record).await;
    if record.origins != before {
        write_maps(flow, found.name, &record, found.source).await?;
        let _alone = flow.records.lock().await;
        // A partition may have turned meanwhile.
        if let Some(now) = flow.store.get::<TopicRecord>(key)? {
            record.turned.extend(now.turned);
        }
        flow.store.put(key, &record).await?;
    }
    Ok((record, waiting))
}

async fn match_partitions(
    flow: &Flow,
    target_topic: &str,
    wanted: usize,
    target: &TopicMetadata,
) -> Result<(), Trouble> {
    let there = target.partitions.len();
    if there > wanted {
        return Err(Trouble::TargetPartitions {
            target: there,
            source_count: wanted,
        });
    }
    if there < wanted {
        let total = i32::try_from(wanted).unwrap_or(i32::MAX);
        match wire::create_partitions(&flow.target, target_topic, total).await {
            // Another process was faster.
            Err(WireError::Server {
                code: ResponseError::InvalidPartitions,
                ..
            }) => {}
            other => other?,
        }
    }
    Ok(())
}

/// A topic that is new to the flow.
async fn begin(
    flow: &Flow,
    key: &str,
    found: &Found<'_>,
    target_topic: String,
    target: Option<&TopicMetadata>,
    configs: &TopicConfigs,
) -> Result<(TopicRecord, Waiting), Trouble> {
    let count = found.source.partitions.len();
    let known = target.map(|target| (target_topic.as_str(), target));
    let (origins, waiting) = origins::first(flow, found, known).await?;
    let mut chosen = choose_offsets(flow, &origins)?;
    if flow.config.offsets == OffsetsMode::Auto && chosen.mapped.is_none() {
        let is_compacted = configs.source.get(found.name).is_some_and(is_compacted);
        let sparse = foresee(
            &flow.config,
            &flow.source,
            found.name,
            &origins,
            is_compacted,
        )
        .await;
        chosen.turned.extend(sparse);
    }
    let (target_topic_id, created) = match target {
        Some(target) => {
            match_partitions(flow, &target_topic, count, target).await?;
            (target.topic_id, false)
        }
        None => (
            topic_config::create(flow, found, &target_topic, configs).await?,
            true,
        ),
    };
    let record = TopicRecord {
        v: 1,
        source_topic_id: found.source.topic_id,
        target_topic,
        target_topic_id,
        created,
        mapped: chosen.mapped.is_some(),
        reason: chosen.mapped.unwrap_or_default(),
        origins,
        continued: None,
        turned: chosen.turned,
        begun_at_ms: Some(now_ms()),
    };
    write_maps(flow, found.name, &record, found.source).await?;
    flow.store.put(key, &record).await?;
    Ok((record, waiting))
}

/// A mapped partition has a map from its first moment on: it can't be derived from the log.
async fn write_maps(
    flow: &Flow,
    name: &str,
    record: &TopicRecord,
    source: &TopicMetadata,
) -> Result<(), Trouble> {
    for partition in &source.partitions {
        if !record.is_mapped(partition.index) {
            continue;
        }
        let Some(origin) = record.origin(partition.index) else {
            continue;
        };
        let keys = flow.map_keys(name, partition.index);
        if flow.store.get::<MapRecord>(keys.head())?.is_none() {
            let map = OffsetMap::starting_at(SourceOffset(origin), TargetOffset(0));
            maps::save(&flow.store, &keys, &map).await?;
        }
    }
    Ok(())
}

/// One partition's answer out of many.
pub(super) fn take_offset(
    offsets: &mut HashMap<TopicPartition, Result<i64, WireError>>,
    partition: &TopicPartition,
    cluster: &str,
) -> Result<i64, Trouble> {
    match offsets.remove(partition) {
        Some(result) => Ok(result?),
        None => Err(Trouble::LeaderMoved {
            cluster: cluster.to_owned(),
        }),
    }
}

/// How a new topic's offsets begin.
#[derive(Debug, Default)]
struct Chosen {
    /// Why all of its partitions are mapped, if they are.
    mapped: Option<String>,
    /// Those that are mapped by themselves.
    turned: BTreeMap<i32, TurnedPartition>,
}

fn choose_offsets(flow: &Flow, origins: &[i64]) -> Result<Chosen, Trouble> {
    let mode = flow.config.offsets;
    let mut chosen = Chosen::default();
    if mode == OffsetsMode::Mapped {
        chosen.mapped = Some("asked for by `offsets: mapped`".to_owned());
    } else if !flow.may_fill {
        let obstacle =
            "Twinlog may not fill holes on the target: grant CLUSTER_ACTION on the cluster";
        chosen.mapped = Some(obstacle.to_owned());
    } else {
        let all = (0..).zip(origins);
        let beyond = all.filter_map(|(number, origin)| {
            let reason = beyond_burn_limit(&flow.config, *origin)?;
            Some((number, begun_mapped(*origin, reason)))
        });
        chosen.turned = beyond.collect();
    }
    let first = chosen.turned.values().next().map(|it| &it.reason);
    match chosen.mapped.as_ref().or(first) {
        Some(obstacle) if mode == OffsetsMode::Identical => {
            Err(Trouble::NotIdentical(obstacle.clone()))
        }
        _ => Ok(chosen),
    }
}

/// The partitions of a new topic that are mapped because they have too many holes.
async fn foresee(
    flow: &FlowConfig,
    source: &Cluster,
    topic: &str,
    origins: &[i64],
    is_compacted: bool,
) -> BTreeMap<i32, TurnedPartition> {
    if !is_compacted {
        return BTreeMap::new();
    }
    let known = (0..).zip(origins.iter().copied());
    let known: BTreeMap<i32, i64> = known.filter(|(_, origin)| *origin >= 0).collect();
    let dear = sparse::too_dear(source, topic, &known, flow.fill_limit).await;
    dear.into_iter()
        .map(|(number, reason)| (number, begun_mapped(known[&number], reason)))
        .collect()
}

/// What `run` would say of the offsets of topics that aren't copied yet, in their order; empty where
/// they stay the same as far as can be seen. `topics`: name, partitions, whether it compacts.
pub(super) async fn foreseen(
    flow: &FlowConfig,
    source: &Cluster,
    topics: &[(&str, usize, bool)],
) -> Vec<String> {
    let mut said = vec![String::new(); topics.len()];
    if flow.offsets == OffsetsMode::Mapped || flow.start == Start::Latest {
        return said;
    }
    let all = topics.iter().flat_map(|(topic, partitions, _)| {
        let numbers = (0..).take(*partitions);
        numbers.map(|number| TopicPartition::new(*topic, number))
    });
    let all: Vec<TopicPartition> = all.collect();
    let mut starts = wire::list_offsets_within(source, &all, OffsetSpec::Earliest, PATIENCE).await;
    for ((topic, partitions, is_compacted), said) in topics.iter().zip(&mut said) {
        let origins = (0..).take(*partitions).map(|number| {
            let start = starts.remove(&TopicPartition::new(*topic, number));
            start.and_then(Result::ok).unwrap_or(-1)
        });
        let origins: Vec<i64> = origins.collect();
        let beyond = (0..).zip(&origins).filter_map(|(number, origin)| {
            let reason = beyond_burn_limit(flow, *origin)?;
            Some((number, reason))
        });
        let mut dear: BTreeMap<i32, String> = beyond.collect();
        let sparse = foresee(flow, source, topic, &origins, *is_compacted).await;
        dear.extend(sparse.into_iter().map(|(number, it)| (number, it.reason)));
        if let Some((number, reason)) = dear.first_key_value() {
            let what = match flow.offsets {
                OffsetsMode::Identical => "identical offsets can't be had",
                _ => "offsets will be mapped",
            };
            let some = dear.len();
            *said = format!("; {what} in {some} of {partitions} partition(s), {number}: {reason}");
        }
    }
    said
}

/// By a topic's configs.
pub(super) fn is_compacted(configs: &wire::ConfigValues) -> bool {
    topic_config::value(configs, "cleanup.policy").is_some_and(|policy| policy.contains("compact"))
}

fn is_tiered(configs: &wire::ConfigValues) -> bool {
    topic_config::value(configs, "remote.storage.enable").is_some_and(|it| it == "true")
}

/// A partition that is mapped from its first record on.
pub(super) fn begun_mapped(origin: i64, reason: String) -> TurnedPartition {
    TurnedPartition {
        from: origin,
        fillers: 0,
        reason,
        foreign: Vec::new(),
    }
}

/// Why the offsets below a log's start aren't burned, if so.
pub(super) fn beyond_burn_limit(flow: &FlowConfig, origin: i64) -> Option<String> {
    let limit = flow.burn_limit;
    let is_beyond = u64::try_from(origin).unwrap_or(0) > limit;
    let reason = || format!("the source log starts at {origin}, beyond offsets.burn_limit {limit}");
    is_beyond.then(reason)
}

async fn rules(
    flow: &Flow,
    name: &str,
    target_topic: &str,
    configs: &TopicConfigs,
) -> Result<(IntakeRules, u64), Trouble> {
    let target = match configs.target.get(target_topic) {
        Some(target) => target.clone(),
        None => topic_config::of_target(flow, target_topic).await?,
    };
    append_time::keep_off(flow, name, target_topic, &target).await?;
    let empty = BTreeMap::new();
    let source = configs.source.get(name).unwrap_or(&empty);
    let bytes = |key: &str| topic_config::value(&target, key)?.parse::<usize>().ok();
    // A batch must also fit one segment: `UnifiedLog.append` (RECORD_LIST_TOO_LARGE).
    let segment_bytes = bytes("segment.bytes").unwrap_or(usize::MAX);
    let max_batch_bytes = bytes("max.message.bytes").unwrap_or(1_048_588);
    let max_batch_bytes = max_batch_bytes.min(segment_bytes);
    // Another codec than the source's is the broker's work, and it judges what comes out.
    let keeps_codec =
        topic_config::value(&target, "compression.type").is_none_or(|codec| codec == "producer");
    // The target's was the source's before: what the cleaner does with a tombstone is decided at its first pass.
    let delete_retention_ms = [source, &target]
        .into_iter()
        .filter_map(|it| topic_config::value(it, "delete.retention.ms")?.parse().ok())
        .min();
    let rules = IntakeRules {
        delete_retention_ms: delete_retention_ms.unwrap_or(DELETE_RETENTION_MS),
        producers: flow.producers,
        max_batch_bytes,
        min_in_sync: bytes("min.insync.replicas"),
        target_compacted: is_compacted(&target),
        source_compacted: is_compacted(source),
        coalesce_below_bytes: COALESCE_BELOW_BYTES.min(max_batch_bytes / 4),
        coalesce_to_bytes: COALESCE_TO_BYTES.min(max_batch_bytes / 2),
        max_decompressed_bytes: DECOMPRESSED_BYTES_MAX,
        max_merged_bytes: match keeps_codec {
            true => DECOMPRESSED_BYTES_MAX,
            false => max_batch_bytes,
        },
        fill: FillRule {
            limit: i64::try_from(flow.config.fill_limit).unwrap_or(i64::MAX),
            may_map: flow.config.offsets == OffsetsMode::Auto,
        },
        keeps_foreign: flow.config.on_foreign_write == OnForeignWrite::Map,
    };
    Ok((rules, fingerprint_of_rules(source, &target)))
}
