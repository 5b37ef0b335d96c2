//! Bounds what is missing, and refuses when that is more than is accepted.

use std::collections::BTreeSet;

use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::give_up;
use crate::cutover::hidden::log_ends;
use crate::cutover::loss::{self, Bound, Loss, Seen};
use crate::cutover::options::AcceptedLoss;
use crate::cutover::padding::Reach;
use crate::cutover::pairs::{Pair, copied_end, ends, on_target};
use crate::cutover::reread;
use crate::state::{EndsRecord, ObservedRecord, RoleRecord, TopicRecord, TopicSet, keys};
use crate::telemetry::progress::now_ms;
use crate::wire::{OffsetSpec, TopicPartition};

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let pairs = it.scene.pairs();
    let mut found = look(&it.scene, &pairs).await?;
    let record = &it.journal.record;
    if give_up::about(record).is_none() {
        let before = record.role_before.as_ref();
        let asked: TopicSet = it.journal.fact(ASKED).unwrap_or_default();
        let uncopied = add_uncopied(&it.scene, &asked, before, &mut found.loss)?;
        it.journal.note(UNCOPIED, &uncopied);
    }
    if let Some(about) = give_up::about(&it.journal.record) {
        let account = give_up::account(&it.scene, &about, &mut found).await?;
        it.journal.note(give_up::ACCOUNT, &account);
    }
    let Found {
        loss, partitions, ..
    } = found;
    accept(&loss, it.options.accept_loss)?;
    let reaches: Vec<(String, i32, Reach)> = partitions
        .into_iter()
        .map(|of| (of.at.topic, of.at.partition, of.reach))
        .collect();
    it.journal.note("loss", &loss);
    it.journal.note("reaches", &reaches);
    // For information: what can't be told doesn't keep the standby from going on.
    match reread::look(&it.scene, &pairs).await {
        Ok(reread) => it.journal.note("reread", &reread),
        Err(error) => tracing::debug!(%error, "what groups read again can't be told"),
    }
    Ok(loss.in_words())
}

/// In the journal: the topics that were asked for, whatever of them is left out.
pub(in crate::cutover) const ASKED: &str = "asked";

/// In the journal: topics of the source that aren't copied, or not with all their partitions.
pub(in crate::cutover) const UNCOPIED: &str = "uncopied";

/// Refuses what isn't accepted.
pub(in crate::cutover) fn accept(loss: &Loss, accepted: AcceptedLoss) -> Result<(), CutoverError> {
    if loss.is_accepted(accepted) {
        return Ok(());
    }
    Err(CutoverError::refused(loss.in_words()).with_hint(loss.how_to_accept()))
}

/// What may be missing.
pub(in crate::cutover) struct Found {
    /// In all, by now.
    pub loss: Loss,
    /// Of each pair, in their order.
    pub partitions: Vec<OfPartition>,
}

/// What one partition may lack.
pub(in crate::cutover) struct OfPartition {
    /// On the source.
    pub at: TopicPartition,
    /// The first source offset that isn't on the target.
    pub copied: i64,
    /// Where the log ends on the target.
    pub target_end: i64,
    pub bound: Bound,
    /// How far the old primary may have gone.
    pub reach: Reach,
    /// The mean size of a record of its topic.
    pub record_bytes: u64,
}

/// What may be missing by now in all, and of each partition.
pub(in crate::cutover) async fn look(scene: &Scene, pairs: &[Pair]) -> Result<Found, CutoverError> {
    scene.store.refresh().await?;
    let flow = &scene.flow.name;
    let observed: Option<ObservedRecord> = scene.store.get(&keys::observed(flow))?;
    let observed_ms = observed.map(|observed| observed.at_ms);
    let age_ms = age_ms(observed_ms);
    let gone = gone(scene);
    let target_ends = ends(&scene.target, &on_target(pairs), OffsetSpec::Latest).await?;
    let target_ends = log_ends(&scene.target, target_ends).await?;
    let maps = scene.maps(pairs)?;
    let mut loss = Loss {
        seconds: age_ms.and_then(|age| u64::try_from(age / 1_000).ok()),
        ..Loss::default()
    };
    let mut partitions = Vec::with_capacity(pairs.len());
    let mut record: Option<(String, Option<EndsRecord>)> = None;
    for pair in pairs {
        let at = &pair.source;
        if record.as_ref().is_none_or(|(topic, _)| *topic != at.topic) {
            let key = keys::ends(flow, &at.topic);
            record = Some((at.topic.clone(), scene.store.get(&key)?));
        }
        let ends = record.as_ref().and_then(|(_, record)| record.as_ref());
        let end = target_ends.get(&pair.target).copied().unwrap_or(0);
        let seen = Seen {
            copied: copied_end(pair, end, &maps),
            observed: loss::observed_end(ends, at.partition),
            per_second: loss::rate(ends, at.partition),
            habit: loss::habit(ends, at.partition),
        };
        let is_gone = gone.contains(&at.topic);
        let bound = match is_gone {
            // Whoever deleted the topic has taken what it had.
            true => Bound::NOTHING,
            false => bound_of(seen, age_ms),
        };
        let per_second = seen.per_second.filter(|_| !is_gone).unwrap_or(0);
        loss.per_second = loss.per_second.saturating_add(per_second);
        let record_bytes = ends.map_or(0, |it| it.record_bytes);
        loss.add(&at.topic, bound, record_bytes);
        let quiet_ms = observed_ms.and_then(|at_ms| loss::quiet_ms(ends, at.partition, at_ms));
        let reach = Reach::of(bound, quiet_ms, age_ms);
        let carried = loss::carried(ends, (at.partition, seen.copied), now_ms());
        let carried = carried.filter(|_| !is_gone);
        partitions.push(OfPartition {
            at: at.clone(),
            copied: seen.copied,
            target_end: end,
            bound,
            reach: reach.with_carried(carried),
            record_bytes,
        });
    }
    Ok(Found { loss, partitions })
}

fn age_ms(observed_ms: Option<i64>) -> Option<i64> {
    observed_ms.map(|at_ms| (now_ms() - at_ms).max(0))
}

fn bound_of(seen: Seen, age_ms: Option<i64>) -> Bound {
    match age_ms {
        Some(age_ms) => loss::bound(seen, age_ms),
        // Nobody knows when that was: it is no bound, and still missing.
        None => Bound {
            unseen: None,
            ..loss::bound(seen, 0)
        },
    }
}

/// Topics that the source had deleted when it was seen last. What was known of their ends until then says nothing of what
/// is missing now.
pub(in crate::cutover) fn gone(scene: &Scene) -> BTreeSet<String> {
    let prefix = keys::all_gone(&scene.flow.name);
    let keys = scene.store.keys(&prefix).into_iter();
    keys.map(|key| key[prefix.len()..].to_owned()).collect()
}

/// Adds what was seen of topics that a failover is about and that aren't copied at all, and of partitions that were added
/// and aren't copied yet; their names.
///
/// # Errors
/// When the state can't be read.
pub(in crate::cutover) fn add_uncopied(
    scene: &Scene,
    asked: &TopicSet,
    before: Option<&RoleRecord>,
    loss: &mut Loss,
) -> Result<Vec<String>, CutoverError> {
    let flow = &scene.flow;
    let elsewhere = before.and_then(RoleRecord::not_copied);
    let observed: Option<ObservedRecord> = scene.store.get(&keys::observed(&flow.name))?;
    let age_ms = age_ms(observed.map(|observed| observed.at_ms));
    let gone = gone(scene);
    let prefix = keys::all_ends(&flow.name);
    let mut uncopied = Vec::new();
    for key in scene.store.keys(&prefix) {
        let topic = &key[prefix.len()..];
        let is_asked = asked.contains(topic) && flow.topics.matches(topic);
        let is_elsewhere = elsewhere.is_some_and(|topics| topics.contains(topic));
        if !is_asked || is_elsewhere || gone.contains(topic) {
            continue;
        }
        let record: Option<EndsRecord> = scene.store.get(&key)?;
        // Also of one that is left out: it has a copy.
        let known: Option<TopicRecord> = scene.store.get(&keys::topic(&flow.name, topic))?;
        let copied = known.map_or(0, |it| it.origins.len());
        let ends = record.as_ref();
        let count = ends.map_or(0, |it| it.ends.len());
        if copied >= count {
            continue;
        }
        uncopied.push(topic.to_owned());
        for number in (0..).take(count).skip(copied) {
            let seen = Seen {
                copied: 0,
                observed: loss::observed_end(ends, number),
                per_second: loss::rate(ends, number),
                habit: loss::habit(ends, number),
            };
            let per_second = seen.per_second.unwrap_or(0);
            loss.per_second = loss.per_second.saturating_add(per_second);
            let record_bytes = ends.map_or(0, |it| it.record_bytes);
            loss.add(topic, bound_of(seen, age_ms), record_bytes);
        }
    }
    Ok(uncopied)
}
