//! Bounds what is missing, and refuses when that is more than is accepted.

use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::give_up;
use crate::cutover::hidden::log_ends;
use crate::cutover::loss::{self, Bound, Loss, Seen};
use crate::cutover::options::AcceptedLoss;
use crate::cutover::padding::Reach;
use crate::cutover::pairs::{Pair, copied_end, ends, on_target};
use crate::cutover::reread;
use crate::state::{EndsRecord, ObservedRecord, keys};
use crate::telemetry::progress::now_ms;
use crate::wire::{OffsetSpec, TopicPartition};

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let pairs = it.scene.pairs();
    let mut found = look(&it.scene, &pairs).await?;
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
    let age_ms = observed.map(|observed| (now_ms() - observed.at_ms).max(0));
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
        };
        let bound = age_ms.map_or(Bound::UNKNOWN, |age_ms| loss::bound(seen, age_ms));
        let per_second = seen.per_second.unwrap_or(0);
        loss.per_second = loss.per_second.saturating_add(per_second);
        let record_bytes = ends.map_or(0, |it| it.record_bytes);
        loss.add(&at.topic, bound, record_bytes);
        let quiet_ms =
            observed.and_then(|observed| loss::quiet_ms(ends, at.partition, observed.at_ms));
        let reach = Reach::of(bound, quiet_ms, age_ms);
        let carried = loss::carried(ends, (at.partition, seen.copied), now_ms());
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
