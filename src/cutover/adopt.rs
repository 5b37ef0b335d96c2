//! A flow goes on behind the fork that another one left: the logs of the old primary are continued
//! where they end, not copied again.
//!
//! `ended` is the flow that was cut over, `begins` the one that copies the other way from now on.
//! What the fork calls the target is the source here.
//!
//! ```text
//! old primary:  ... copied | orphans (none after a planned failover)  > base
//! new primary:  ... copied | padding ............................... | new records
//!                       fork                                     padded_end
//! ```
//!
//! Where the old primary's log ends within the padding, offsets stay the same: the padding is
//! copied as what it is, offsets without a record. Where it ends beyond, or offsets weren't the same
//! before, the map of `ended` is turned round and goes on from there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use uuid::Uuid;

use super::agreement::{self, Agreed};
use super::buried;
use super::context::Scene;
use super::error::CutoverError;
use super::group_facts::remembered;
use super::pairs::{ends_or_why, present};
use super::unlisted;
use crate::config::{FlowConfig, OffsetsMode};
use crate::groups;
use crate::offsets::{OffsetMap, SourceOffset, TargetOffset};
use crate::state::keys::{self, MapKeys};
use crate::state::{
    ContinuedLog, Fork, ForkRecord, GroupPositions, Ranges, StateRecord, StateStore, TopicRecord,
    TurnedPartition, maps,
};
use crate::wire::{self, Cluster, OffsetSpec, TopicPartition};

/// How long a broker that doesn't answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// What to do where a partition can't be looked at.
pub const UNSEEN_HINT: &str =
    "wait until the leaders of these partitions answer on both clusters, and run this again";

/// What became of the topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Adoption {
    /// Topics whose offsets stay the same.
    pub identical: usize,
    /// Topics whose offsets differ, and a map tells.
    pub mapped: BTreeMap<String, String>,
    /// Topics that are copied from their first record: the old primary doesn't have them.
    pub anew: BTreeSet<String>,
    /// Topics that can't be copied back, and why.
    pub refused: BTreeMap<String, String>,
    /// By partition, copied offsets that the old primary has lost and gets again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<String, i64>,
    /// Partitions of the old primary of which it can't be said now how they go on, and why. Nothing of their
    /// topics is changed.
    #[serde(skip)]
    pub unseen: BTreeMap<TopicPartition, String>,
    /// The forks as the logs are now, by topic.
    #[serde(skip)]
    pub forks: BTreeMap<String, ForkRecord>,
    /// Topics that the cluster that is copied from hides, and those that the one that is copied to does, by their names
    /// there. Nothing of these is changed, and they have no fork above.
    #[serde(skip)]
    pub hidden: [BTreeMap<String, String>; 2],
}

impl Adoption {
    /// In one line.
    pub fn in_words(&self) -> String {
        let mut text = format!("{} topic(s) go on at the same offsets", self.identical);
        for (count, what) in [
            (self.mapped.len(), "by a map"),
            (self.anew.len(), "are copied from their first record"),
            (self.refused.len(), "can't be copied back"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        if !self.lost.is_empty() {
            text.push_str(&format!(
                ", {} offset(s) that the old primary had lost are copied back",
                self.lost.values().sum::<i64>()
            ));
        }
        text
    }
}

/// How one topic goes on.
enum Way {
    /// It does already: this fork was continued before.
    Known { is_mapped: bool },
    /// The old primary doesn't have it.
    Anew,
    /// Neither has it any more.
    Gone,
    /// Behind these records.
    Continued(Box<Continuation>),
    /// It can't.
    Refused(String),
}

struct Continuation {
    record: TopicRecord,
    /// By partition.
    maps: BTreeMap<i32, OffsetMap>,
}

/// A topic at its fork: `source` and `target` as `begins` has them.
struct Forked<'a> {
    source: &'a str,
    target: &'a str,
    fork: &'a ForkRecord,
    /// What `ended` remembers of it.
    ended: TopicRecord,
    /// What `begins` remembers of an earlier time.
    known: Option<TopicRecord>,
    /// Copied offsets that the old primary has lost, by partition.
    lost: BTreeMap<i32, i64>,
    /// Maps that reach further than the stored ones.
    learned: BTreeMap<i32, OffsetMap>,
}

/// The same as [`adopt`] with nothing left open: what it could, it has written down.
///
/// # Errors
/// As [`adopt`], and where a partition can't be looked at.
pub async fn adopt_all(
    begins: &Scene,
    ended: &Scene,
    forks: &BTreeMap<String, ForkRecord>,
) -> Result<Adoption, CutoverError> {
    let adoption = adopt(begins, ended, forks, true).await?;
    let clusters = [&begins.source, &begins.target];
    for (cluster, hidden) in clusters.into_iter().zip(&adoption.hidden) {
        unlisted::refuse(cluster, hidden)?;
    }
    let Some((_, why)) = adoption.unseen.first_key_value() else {
        return Ok(adoption);
    };
    let count = adoption.unseen.len();
    Err(CutoverError::failed(format!(
        "it can't be said how {count} partition(s) go on, such as {why}"
    ))
    .with_hint(UNSEEN_HINT))
}

/// Looks how each forked topic goes on, and writes it down if `apply`.
///
/// # Errors
/// When a cluster can't be asked at all, or the state can't be read or written.
pub async fn adopt(
    begins: &Scene,
    ended: &Scene,
    forks: &BTreeMap<String, ForkRecord>,
    apply: bool,
) -> Result<Adoption, CutoverError> {
    tokio::try_join!(begins.source.metadata(None), begins.target.metadata(None))?;
    // What a list leaves out isn't gone.
    let (source, target) = tokio::try_join!(
        begins
            .source
            .describe_unlisted(forks.values().map(|fork| &fork.target_topic)),
        begins.target.describe_unlisted(forks.keys()),
    )?;
    let hidden = hidden(begins, forks);
    let mut forks = forks.clone();
    forks.retain(|topic, fork| {
        !hidden[0].contains_key(&fork.target_topic) && !hidden[1].contains_key(topic)
    });
    let forks = &forks;
    let may_fill = wire::probe_marker_right(&begins.target).await?;
    let partitions: Vec<TopicPartition> = forks
        .keys()
        .flat_map(|topic| present(&target, topic, usize::MAX))
        .collect();
    let ((ends, mut unseen), starts) = tokio::join!(
        ends_or_why(&begins.target, &partitions, OffsetSpec::Latest),
        starts(&begins.source, &source, forks),
    );
    let agreed = agreed(begins, ended, forks).await?;
    unseen.extend(agreed.unseen.clone());
    let mut adoption = Adoption {
        lost: agreed
            .lost
            .iter()
            .map(|(at, lost)| (at.to_string(), *lost))
            .collect(),
        hidden,
        ..Adoption::default()
    };
    let mut open = Vec::new();
    for (topic, fork) in &agreed.forks {
        let known = begins
            .store
            .get(&keys::topic(&begins.flow.name, &fork.target_topic))?;
        if !is_begun(known.as_ref(), fork) && source.shows(&fork.target_topic) {
            open.push((topic.clone(), fork.clone(), bases(topic, fork, &ends)));
        }
    }
    let mut clear = buried::clear(&begins.source, open).await;
    let mut continued: Vec<(String, Continuation)> = Vec::new();
    let mut records: Vec<StateRecord> = Vec::new();
    for (topic, fork) in &agreed.forks {
        if unseen.keys().any(|at| at.topic == *topic) {
            continue;
        }
        let ended_key = keys::topic(&ended.flow.name, topic);
        let Some(record) = ended.store.get::<TopicRecord>(&ended_key)? else {
            continue;
        };
        let key = keys::topic(&begins.flow.name, &fork.target_topic);
        let known: Option<TopicRecord> = begins.store.get(&key)?;
        let clear = match clear.remove(topic) {
            None => fork.clone(),
            Some(Ok(clear)) => clear,
            Some(Err((number, error))) => {
                let why = format!("{topic}-{number}: {}", error.message);
                unseen.insert(TopicPartition::new(&**topic, number), why);
                continue;
            }
        };
        let forked = Forked {
            source: &fork.target_topic,
            target: topic,
            fork: &clear,
            ended: record,
            known,
            lost: agreed.lost_of(topic),
            learned: agreed.learned_of(topic),
        };
        let id = |metadata: &wire::Metadata, name: &str| {
            let topic = metadata.described(name).ok().flatten();
            topic.map(|topic| topic.topic_id)
        };
        let ids = (id(&source, forked.source), id(&target, forked.target));
        let way = way(begins, ended, &forked, ids, (&starts, &ends), may_fill)?;
        let name = topic.clone();
        match way {
            Way::Known { is_mapped: false } => adoption.identical += 1,
            Way::Known { is_mapped: true } => {
                let reason = forked.known.map(|known| known.why_mapped());
                let reason = reason.unwrap_or_default();
                adoption.mapped.insert(name, reason);
            }
            Way::Gone => records.extend(forget(begins, &forked)),
            Way::Anew => {
                adoption.anew.insert(name);
                records.extend(forget(begins, &forked));
            }
            Way::Refused(reason) => {
                adoption.refused.insert(name, reason);
                records.extend(forget(begins, &forked));
            }
            Way::Continued(way) => {
                if way.record.has_maps() {
                    adoption.mapped.insert(name, way.record.why_mapped());
                } else {
                    adoption.identical += 1;
                }
                continued.push((forked.source.to_owned(), *way));
            }
        }
    }
    if apply {
        keep_learned(ended, forks, &agreed).await?;
        begins.store.write_all(records).await?;
        write(begins, continued).await?;
    }
    adoption.forks = agreed.forks;
    adoption.unseen = unseen;
    Ok(adoption)
}

/// By what was asked so far, those of these topics that `begins` may not see on its source, and on its target.
fn hidden(begins: &Scene, forks: &BTreeMap<String, ForkRecord>) -> [BTreeMap<String, String>; 2] {
    let on_source = forks.values().map(|fork| &fork.target_topic);
    [
        unlisted::hidden(&begins.source, on_source),
        unlisted::hidden(&begins.target, forks.keys()),
    ]
}

/// What was learned of the copy is written down before it is copied back behind it: then the logs don't tell any more.
async fn keep_learned(
    ended: &Scene,
    forks: &BTreeMap<String, ForkRecord>,
    agreed: &Agreed,
) -> Result<(), CutoverError> {
    let mut records: BTreeMap<String, ForkRecord> = BTreeMap::new();
    // All in one write, however many partitions there are: the state may be far away.
    let mut changes: Vec<StateRecord> = Vec::new();
    for (at, map) in &agreed.learned {
        let keys = MapKeys::new(&ended.flow.name, &at.topic, at.partition);
        changes.extend(maps::changes(&*ended.store, &keys, map)?);
        let Some(recorded) = forks.get(&at.topic) else {
            continue;
        };
        let record = records
            .entry(keys::fork(&ended.flow.name, &at.topic))
            .or_insert_with(|| recorded.clone());
        let number = usize::try_from(at.partition).unwrap_or(usize::MAX);
        if let Some(fork) = record.partitions.get_mut(number) {
            fork.source_end = map.source_end().0;
        }
    }
    for (key, record) in records {
        changes.push(StateStore::record(key, &record)?);
    }
    Ok(ended.store.write_all(changes).await?)
}

/// The forks as the logs are now. What is copied back already was looked at when that began.
///
/// # Errors
/// When a log can't be read.
async fn agreed(
    begins: &Scene,
    ended: &Scene,
    forks: &BTreeMap<String, ForkRecord>,
) -> Result<Agreed, CutoverError> {
    let mut open = forks.clone();
    let mut begun = BTreeMap::new();
    for (topic, fork) in forks {
        let key = keys::topic(&begins.flow.name, &fork.target_topic);
        if is_begun(begins.store.get(&key)?.as_ref(), fork) {
            begun.extend(open.remove_entry(topic));
        }
    }
    let sides = (&begins.target, &begins.source);
    let mut agreed = agreement::look(sides, &ended.store, &ended.flow.name, &open).await?;
    agreed.forks.extend(begun);
    Ok(agreed)
}

/// Whether a topic is copied back from this fork already.
pub(super) fn is_begun(known: Option<&TopicRecord>, fork: &ForkRecord) -> bool {
    let continued = known.and_then(|known| known.continued.as_ref());
    continued.is_some_and(|continued| continued.plan == fork.plan)
}

/// What `begins` remembers of a topic that isn't continued says nothing about its log any more.
fn forget(begins: &Scene, forked: &Forked<'_>) -> Vec<StateRecord> {
    if forked.known.is_none() {
        return Vec::new();
    }
    let flow = &begins.flow.name;
    vec![
        (keys::topic(flow, forked.source), None),
        (keys::seen(flow, forked.source), None),
    ]
}

fn way(
    begins: &Scene,
    ended: &Scene,
    forked: &Forked<'_>,
    (source_id, target_id): (Option<Uuid>, Option<Uuid>),
    (starts, ends): (&HashMap<TopicPartition, i64>, &HashMap<TopicPartition, i64>),
    may_fill: bool,
) -> Result<Way, CutoverError> {
    let fork = forked.fork;
    let (source_id, target_id) = match (source_id, target_id) {
        (None, None) => return Ok(Way::Gone),
        // Whatever the primary has is copied from its beginning.
        (Some(_), None) => return Ok(Way::Anew),
        (None, Some(_)) => {
            let since = "was deleted since the failover";
            return Ok(Way::Refused(format!("topic {} {since}", forked.source)));
        }
        (Some(source_id), Some(target_id)) => (source_id, target_id),
    };
    if wire::is_other_topic(forked.ended.source_topic_id, target_id) {
        // Ours since an earlier beginning: what is remembered of it must stay.
        let ours = forked.known.as_ref().filter(|known| {
            wire::is_same_topic(known.target_topic_id, target_id)
                && wire::is_same_topic(known.source_topic_id, source_id)
        });
        if let Some(known) = ours {
            let is_mapped = known.has_maps();
            return Ok(Way::Known { is_mapped });
        }
        let has_records =
            |(at, end): (&TopicPartition, &i64)| at.topic == forked.target && *end > 0;
        if ends.iter().any(has_records) {
            let since = "was made again on the old primary since the failover, and has records";
            return Ok(Way::Refused(format!("topic {} {since}", forked.target)));
        }
        // An empty one is filled as any other.
        return Ok(Way::Anew);
    }
    if wire::is_other_topic(forked.ended.target_topic_id, source_id) {
        let again = "was made again since the failover";
        return Ok(Way::Refused(format!("topic {} {again}", forked.source)));
    }
    if let Some(known) = &forked.known
        && !wire::is_other_topic(known.target_topic_id, target_id)
        && let Some(continued) = &known.continued
        && continued.plan == fork.plan
    {
        let is_mapped = known.has_maps();
        return Ok(Way::Known { is_mapped });
    }
    let bases = bases(forked.target, fork, ends);
    let reason = not_identical(begins, forked, &bases, may_fill);
    let turned = match &reason {
        Some(_) => BTreeMap::new(),
        None => turned(begins, forked, &bases, starts),
    };
    let first = turned.values().next().map(|it| &it.reason);
    if let Some(obstacle) = reason.as_ref().or(first)
        && begins.flow.offsets == OffsetsMode::Identical
    {
        return Ok(Way::Refused(obstacle.clone()));
    }
    let mut continued_maps = BTreeMap::new();
    for (number, (at_fork, base)) in (0..).zip(fork.partitions.iter().zip(&bases)) {
        if reason.is_none() && !turned.contains_key(&number) {
            continue;
        }
        let keys = MapKeys::new(&ended.flow.name, forked.target, number);
        let map = match (forked.learned.get(&number), forked.ended.is_mapped(number)) {
            (Some(learned), _) => Some(learned.clone()),
            (None, true) => maps::load(&*ended.store, &keys)?,
            (None, false) => Some(identity(at_fork)),
        };
        match map.map(|map| continued_map(&map, at_fork, *base)) {
            Some(Ok(map)) => continued_maps.insert(number, map),
            Some(Err(why)) => {
                return Ok(Way::Refused(format!("{}-{number}: {why}", forked.target)));
            }
            None => {
                let at = format!("{}-{number}", forked.target);
                return Ok(Way::Refused(format!("the offset map of {at} is missing")));
            }
        };
    }
    let (only_on_target, only_on_source) = strangers(forked, &bases);
    Ok(Way::Continued(Box::new(Continuation {
        record: TopicRecord {
            // What the logs have in common is older.
            begun_at_ms: None,
            v: 1,
            source_topic_id: source_id,
            target_topic: forked.target.to_owned(),
            target_topic_id: target_id,
            // A topic that was there before is never deleted.
            created: forked.known.as_ref().is_some_and(|known| {
                known.created && wire::is_same_topic(known.target_topic_id, target_id)
            }),
            mapped: reason.is_some(),
            reason: reason.unwrap_or_default(),
            turned,
            origins: vec![0; fork.partitions.len()],
            continued: Some(ContinuedLog {
                plan: fork.plan,
                // Made when it is written.
                data_producer_id: -1,
                filler_producer_id: -1,
                bases,
                only_on_target,
                only_on_source,
            }),
        },
        maps: continued_maps,
    })))
}

/// Where the logs of a topic end on the old primary.
fn bases(topic: &str, fork: &ForkRecord, ends: &HashMap<TopicPartition, i64>) -> Vec<i64> {
    (0..)
        .zip(&fork.partitions)
        .map(|(number, _)| {
            let at = TopicPartition::new(topic, number);
            ends.get(&at).copied().unwrap_or(0)
        })
        .collect()
}

/// Why the old primary's log can't go on at the same offsets, if so.
fn not_identical(
    begins: &Scene,
    forked: &Forked<'_>,
    bases: &[i64],
    may_fill: bool,
) -> Option<String> {
    if forked.ended.mapped {
        return Some(NOT_BEFORE.to_owned());
    }
    if begins.flow.offsets == OffsetsMode::Mapped {
        return Some("asked for by `offsets: mapped`".to_owned());
    }
    if !may_fill {
        return Some(
            "Twinlog may not fill holes on the old primary: grant CLUSTER_ACTION on the cluster"
                .to_owned(),
        );
    }
    let partitions = (0..).zip(forked.fork.partitions.iter().zip(bases));
    // Those that have lost something are told apart one by one.
    let whole = partitions.filter(|(number, _)| !forked.lost.contains_key(number));
    let beyond = whole.filter(|(_, (fork, base))| **base > fork.padded_end);
    let furthest = beyond
        .map(|(_, (fork, base))| base - fork.padded_end)
        .max()?;
    Some(format!(
        "the old primary has offsets beyond the padding, up to {furthest} in a partition"
    ))
}

/// Offsets of such a partition stay different.
const NOT_BEFORE: &str = "offsets weren't the same before the failover";

/// The partitions that go on mapped while the topic's others don't.
fn turned(
    begins: &Scene,
    forked: &Forked<'_>,
    bases: &[i64],
    starts: &HashMap<TopicPartition, i64>,
) -> BTreeMap<i32, TurnedPartition> {
    let mut turned = BTreeMap::new();
    for (number, (fork, base)) in (0..).zip(forked.fork.partitions.iter().zip(bases)) {
        let start = starts.get(&TopicPartition::new(forked.source, number));
        let reason = match forked.ended.is_mapped(number) {
            true => Some(NOT_BEFORE.to_owned()),
            false => replaced(forked.lost.get(&number).copied(), fork, *base),
        };
        let reason = match reason {
            Some(reason) => Some(reason),
            None => begins_late(&begins.flow, *base, start.copied().unwrap_or(0)),
        };
        let turn = reason.map(|reason| TurnedPartition {
            from: fork.padded_end,
            // Those of another producer id don't count.
            fillers: 0,
            reason,
            foreign: Vec::new(),
        });
        turned.extend(turn.map(|turn| (number, turn)));
    }
    turned
}

/// Why offsets can't stay the same where the old primary lost a tail: others are in its place.
fn replaced(lost: Option<i64>, fork: &Fork, base: i64) -> Option<String> {
    let others = base - fork.source_end;
    let lost = lost.filter(|_| others > 0)?;
    Some(format!(
        "the old primary has lost the last {lost} offset(s) that were copied, and has {others} others from {} on",
        fork.source_end
    ))
}

/// Why what retention took on the new primary, from where the old one ends on, isn't filled there.
fn begins_late(flow: &FlowConfig, base: i64, start: i64) -> Option<String> {
    let gone = u64::try_from(start - base).unwrap_or(0);
    let limit = flow.fill_limit;
    (gone > limit).then(|| {
        format!(
            "the new primary's log starts at {start}, {gone} offsets behind the old one's end, more than \
             offsets.fill_limit {limit}"
        )
    })
}

/// Where the logs on the new primary start; what can't be had now is met by the copy.
async fn starts(
    source: &Cluster,
    metadata: &wire::Metadata,
    forks: &BTreeMap<String, ForkRecord>,
) -> HashMap<TopicPartition, i64> {
    let patience = source.or_longer(PATIENCE);
    let asked: Vec<TopicPartition> = forks
        .values()
        .flat_map(|fork| present(metadata, &fork.target_topic, usize::MAX))
        .collect();
    let answers = wire::list_offsets_within(source, &asked, OffsetSpec::Earliest, patience).await;
    let known = answers.into_iter();
    known
        .filter_map(|(at, answer)| Some((at, answer.ok()?)))
        .collect()
}

/// What an identical partition would have as a map.
fn identity(fork: &Fork) -> OffsetMap {
    let mut map = OffsetMap::identity_from(SourceOffset(0));
    let end = fork.source_end.min(fork.target_end);
    // An end is no negative number, and one run is never too long.
    let _ = map.advance(u64::try_from(end).unwrap_or(0));
    map
}

fn continued_map(map: &OffsetMap, fork: &Fork, base: i64) -> Result<OffsetMap, String> {
    let mut turned = map.cut_at(SourceOffset(fork.source_end)).turned();
    turned
        .continue_at(SourceOffset(fork.padded_end), TargetOffset(base))
        .map_err(|error| format!("the old primary has lost records that were copied: {error}"))?;
    Ok(turned)
}

/// What one side alone has: what earlier turns knew, and what was stranded at this fork.
fn strangers(forked: &Forked<'_>, bases: &[i64]) -> (Vec<Ranges>, Vec<Ranges>) {
    let before = forked.ended.continued.as_ref();
    let mut only_on_target = Vec::new();
    let mut only_on_source = Vec::new();
    for (number, (fork, base)) in (0..).zip(forked.fork.partitions.iter().zip(bases)) {
        // The other way round: what was the source is the target.
        let mut target = before.map_or_else(Vec::new, |it| it.only_on_source(number).to_vec());
        let mut source = before.map_or_else(Vec::new, |it| it.only_on_target(number).to_vec());
        source.extend(forked.ended.foreign(number));
        if *base > fork.source_end {
            target.push((fork.source_end, *base));
        }
        only_on_target.push(target);
        only_on_source.push(source);
    }
    (only_on_target, only_on_source)
}

/// Maps first: a record without its map would be believed to have none.
async fn write(begins: &Scene, continued: Vec<(String, Continuation)>) -> Result<(), CutoverError> {
    if continued.is_empty() {
        return Ok(());
    }
    let ((data_producer_id, _), (filler_producer_id, _)) = tokio::try_join!(
        wire::init_producer_id(&begins.target),
        wire::init_producer_id(&begins.target)
    )?;
    let flow = &begins.flow.name;
    let mut records = Vec::with_capacity(continued.len());
    let mut before: Vec<StateRecord> = Vec::with_capacity(continued.len());
    for (topic, mut continuation) in continued {
        for (&number, map) in &continuation.maps {
            let keys = MapKeys::new(flow, &topic, number);
            before.extend(maps::replacing(&begins.store, &keys, map)?);
        }
        if let Some(log) = &mut continuation.record.continued {
            log.data_producer_id = data_producer_id;
            log.filler_producer_id = filler_producer_id;
        }
        // Epochs that were seen of another time.
        before.push((keys::seen(flow, &topic), None));
        let key = keys::topic(flow, &topic);
        records.push(StateStore::record(key, &continuation.record)?);
    }
    before.extend(records);
    Ok(begins.store.write_all(before).await?)
}

/// Groups of the old primary are where they were at the failover. These positions are noted as
/// ours: what its clients committed then is no reason to leave them there. Returns what couldn't be
/// seen, a line each.
///
/// # Errors
/// When the old primary can't be asked, or the state can't be written.
pub async fn seed_groups(
    begins: &Scene,
    forks: &BTreeMap<String, ForkRecord>,
) -> Result<Vec<String>, CutoverError> {
    if begins.flow.groups.include().is_empty() {
        return Ok(Vec::new());
    }
    let selected = &begins.flow.groups;
    let listed = groups::listed_of_consumers(&begins.target, selected).await;
    // Those that are known need no list.
    let (names, mut unseen) = listed.unwrap_or_else(|error| (Vec::new(), vec![error.to_string()]));
    let names: BTreeSet<String> = names.into_iter().chain(remembered(begins)).collect();
    let names: Vec<String> = names.into_iter().collect();
    let mut records = Vec::new();
    for (group, positions) in wire::fetch_group_offsets(&begins.target, &names).await {
        let positions = match positions {
            Ok(positions) => positions,
            Err(error) => {
                unseen.push(format!("{group}: {error}"));
                continue;
            }
        };
        let key = keys::group(&begins.flow.name, &group);
        let known: GroupPositions = begins.store.get(&key)?.unwrap_or_default();
        let positions = positions.into_iter();
        let positions = positions.map(|(at, position)| (at, position.offset));
        records.extend(seeded(known, forks, positions).map(|record| (key, record)));
    }
    begins.store.put_all(&records).await?;
    Ok(unseen)
}

/// What is remembered of a group, with its positions in the forked topics in place of all that was known of these.
/// `None` where it has none there. What is known of other topics stays: some of it may be somebody else's commits.
fn seeded(
    mut known: GroupPositions,
    forks: &BTreeMap<String, ForkRecord>,
    positions: impl Iterator<Item = (TopicPartition, i64)>,
) -> Option<GroupPositions> {
    let forked: Vec<(&str, i32, i64)> = positions
        .filter_map(|(at, offset)| {
            Some((&*forks.get(&at.topic)?.target_topic, at.partition, offset))
        })
        .collect();
    if forked.is_empty() {
        return None;
    }
    for fork in forks.values() {
        known.topics.remove(&fork.target_topic);
        known.ahead.remove(&fork.target_topic);
        known.foreign.remove(&fork.target_topic);
        known.also.remove(&fork.target_topic);
    }
    known.v = 1;
    for (topic, partition, offset) in forked {
        // What was on the source matters to nobody: the next commit there is news.
        known.note((topic, partition), offset, offset);
    }
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_other_topics_outlasts_a_failback_of_some() {
        let known = GroupPositions {
            v: 1,
            seen_until_ms: 7,
            topics: [
                ("stays".to_owned(), vec![(0, 10, 10)]),
                ("forked".to_owned(), vec![(0, 20, 20), (1, 21, 21)]),
            ]
            .into(),
            ahead: [("forked".to_owned(), vec![(0, 99)])].into(),
            foreign: [
                ("stays".to_owned(), vec![(1, 30)]),
                ("forked".to_owned(), vec![(1, 31)]),
            ]
            .into(),
            also: [("forked".to_owned(), vec![(0, 19)])].into(),
            generation: 0,
        };
        let fork = ForkRecord {
            v: 1,
            plan: Uuid::nil(),
            target_topic: "forked".to_owned(),
            mapped: false,
            partitions: Vec::new(),
        };
        let forks = BTreeMap::from([("before".to_owned(), fork)]);
        let at = |topic: &str, offset| (TopicPartition::new(topic, 0), offset);
        let positions = [at("before", 55), at("other", 5)];
        let record = seeded(known.clone(), &forks, positions.into_iter()).expect("it stands there");
        assert_eq!(record.pair("stays", 0), Some((10, 10)));
        assert_eq!(record.strangers("stays", 1), Some(30), "its mark stays");
        assert_eq!(record.seen_until_ms, 7);
        assert_eq!(record.topics["forked"], [(0, 55, 55)]);
        assert!(!record.foreign.contains_key("forked") && record.ahead.is_empty());
        assert!(record.also.is_empty());
        let nothing = [at("other", 5)];
        assert_eq!(seeded(known, &forks, nothing.into_iter()), None);
    }
}
