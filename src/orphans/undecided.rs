//! Which offsets of an old primary are orphans, and which of them nobody has decided about.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use uuid::Uuid;

use super::OrphansError;
use super::fetched::{self, Fetched};
use super::ranges::{within, without};
use super::scene::Stranded;
use super::survey;
use crate::config::ClusterSection;
use crate::connect::cluster;
use crate::state::{ForkRecord, OrphanChoice, OrphanDecisions, RoleRecord, StateStore, keys};
use crate::wire::{Cluster, TopicPartition};

/// A log of the old primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub start: i64,
    /// Where `read_committed` readers end for now.
    pub stable_end: i64,
    /// The high watermark.
    pub end: i64,
}

/// Orphans that nobody has decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// The topic's name on the source.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first source offset.
    pub from: i64,
    /// The offset after the last one.
    pub to: i64,
}

/// What is stranded of a topic, by partition; partitions without anything are left out. Pure.
pub(super) fn stranded(
    topic: &str,
    fork: &ForkRecord,
    decisions: &OrphanDecisions,
    logs: &BTreeMap<i32, Log>,
) -> Vec<Stranded> {
    let mut found = Vec::new();
    for (partition, of_partition) in (0..).zip(&fork.partitions) {
        let Some(log) = logs.get(&partition) else {
            continue;
        };
        let from = of_partition.source_end.max(log.start);
        let expired = (log.start.min(log.end) - of_partition.source_end).max(0);
        if from >= log.end && expired == 0 {
            continue;
        }
        let from = from.min(log.end);
        let whole = from..log.end;
        let decided = decided(decisions, fork.plan, partition, &whole);
        let taken: Vec<Range<i64>> = decided.iter().map(|(range, _)| range.clone()).collect();
        let undecided = without(whole, &taken);
        let readable = from..log.stable_end.clamp(from, log.end);
        found.push(Stranded {
            topic: topic.to_owned(),
            target_topic: fork.target_topic.clone(),
            partition,
            plan: fork.plan,
            from,
            to: log.end,
            readable_to: readable.end,
            expired,
            padded_end: of_partition.padded_end,
            decided,
            can_decide: within(&undecided, &readable),
            undecided,
        });
    }
    found
}

/// What was decided about offsets of `whole`; the first decision about an offset counts.
fn decided(
    record: &OrphanDecisions,
    plan: Uuid,
    partition: i32,
    whole: &Range<i64>,
) -> Vec<(Range<i64>, OrphanChoice)> {
    let mut found: Vec<(Range<i64>, OrphanChoice)> = Vec::new();
    for decision in record.decisions.iter().filter(|it| it.plan == plan) {
        for (of, from, to) in &decision.ranges {
            if *of != partition {
                continue;
            }
            let before: Vec<Range<i64>> = found.iter().map(|(range, _)| range.clone()).collect();
            let new = within(&without(*from..*to, &before), whole);
            found.extend(new.into_iter().map(|range| (range, decision.decision)));
        }
    }
    found.sort_by_key(|(range, _)| range.start);
    found
}

/// The orphans of a flow that nobody has decided about, as the old primary has them now. Offsets
/// without a record (markers, aborted data) need no decision; what an open transaction holds back
/// does, and so does what can't be read. `store` is the state on the new primary, `source` the old
/// primary. Empty when the flow wasn't failed over.
///
/// # Errors
/// When the old primary or the state can't be read, or a partition can't be looked at.
pub async fn undecided(
    store: &StateStore,
    source: &Cluster,
    flow: &str,
) -> Result<Vec<Undecided>, OrphansError> {
    let (found, unseen) = look(store, source, flow).await?;
    match unseen.first_key_value() {
        None => Ok(found),
        Some((_, why)) => Err(OrphansError::new(format!(
            "{} partition(s) can't be looked at, such as {why}",
            unseen.len()
        ))
        .with_hint("wait until all of them have a leader that answers")),
    }
}

/// What nobody has decided about, and the partitions that can't be looked at, with the reason.
async fn look(
    store: &StateStore,
    source: &Cluster,
    flow: &str,
) -> Result<(Vec<Undecided>, BTreeMap<TopicPartition, String>), OrphansError> {
    store.refresh().await?;
    let role: Option<RoleRecord> = store.get(&keys::role(flow))?;
    let Some(topics) = role.as_ref().and_then(RoleRecord::not_copied) else {
        return Ok(Default::default());
    };
    let survey = survey::survey(store, source, flow, topics).await?;
    let mut found = Vec::new();
    for stranded in &survey.stranded {
        for range in &stranded.undecided {
            let has_records = range.end > stranded.readable_to
                || holds_records(source, stranded, range.clone())
                    .await
                    .unwrap_or(true);
            if has_records {
                found.push(Undecided {
                    topic: stranded.topic.clone(),
                    partition: stranded.partition,
                    from: range.start,
                    to: range.end,
                });
            }
        }
    }
    Ok((found, survey.unseen))
}

/// The partitions of [`undecided`], and apart from them those that can't be looked at, for a flow whose clusters nobody has
/// asked yet. A cluster that doesn't answer is no concern of this: whoever goes on finds out.
///
/// # Errors
/// When the old primary or the state can't be read.
pub async fn undecided_partitions(
    flow: &str,
    source: &ClusterSection,
    target: &ClusterSection,
) -> Result<(BTreeSet<TopicPartition>, BTreeSet<TopicPartition>), OrphansError> {
    let nothing = Ok(Default::default());
    let (source, target) = (cluster(source), cluster(target));
    let answers = tokio::join!(source.metadata(None), target.metadata(None));
    let (Ok(_), Ok(_)) = answers else {
        return nothing;
    };
    let Some(store) = StateStore::open_existing(&target).await? else {
        return nothing;
    };
    let (found, unseen) = look(&store, &source, flow).await?;
    let found = found.into_iter();
    let undecided = found.map(|it| TopicPartition::new(it.topic, it.partition));
    Ok((undecided.collect(), unseen.into_keys().collect()))
}

/// Reads up to the first record.
async fn holds_records(
    source: &Cluster,
    stranded: &Stranded,
    range: Range<i64>,
) -> Result<bool, OrphansError> {
    let at = TopicPartition::new(&*stranded.topic, stranded.partition);
    let mut fetched = Fetched::new(source, at, range.clone());
    while let Some(batches) = fetched.next().await? {
        for batch in &batches {
            if !fetched::records(batch, &range)?.is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range is meant")]
mod tests {
    use super::*;
    use crate::state::{Fork, Operator, OrphanDecision};

    const PLAN: Uuid = Uuid::from_u128(7);

    fn fork(ends: &[i64]) -> ForkRecord {
        let fork = |end: &i64| Fork {
            source_end: *end,
            source_epoch: -1,
            source_epoch_to: -1,
            target_end: *end,
            padded_end: *end + 100,
            observed_end: -1,
        };
        ForkRecord {
            v: 1,
            plan: PLAN,
            target_topic: "copy".to_owned(),
            mapped: false,
            partitions: ends.iter().map(fork).collect(),
        }
    }

    fn logs(ends: &[(i64, i64, i64)]) -> BTreeMap<i32, Log> {
        let log = |(start, stable_end, end): &(i64, i64, i64)| Log {
            start: *start,
            stable_end: *stable_end,
            end: *end,
        };
        (0..).zip(ends.iter().map(log)).collect()
    }

    fn made(plan: Uuid, decision: OrphanChoice, ranges: &[(i32, i64, i64)]) -> OrphanDecision {
        OrphanDecision {
            plan,
            decision,
            operator: Operator::default(),
            at_ms: 1,
            ranges: ranges.to_vec(),
            records: 1,
        }
    }

    fn found(decisions: &[OrphanDecision], logs: &BTreeMap<i32, Log>) -> Vec<Stranded> {
        let decisions = OrphanDecisions {
            v: 1,
            decisions: decisions.to_vec(),
        };
        stranded("orders", &fork(&[10, 20, 30]), &decisions, logs)
    }

    #[test]
    fn orphans_are_what_lies_beyond_the_fork() {
        let found = found(&[], &logs(&[(0, 10, 10), (0, 25, 25), (0, 12, 12)]));
        assert_eq!(found.len(), 1, "equal and shorter logs have none");
        assert_eq!(
            (found[0].partition, found[0].from, found[0].to),
            (1, 20, 25)
        );
        assert_eq!(found[0].undecided, [20..25]);
        assert_eq!(found[0].padded_end, 120);
    }

    #[test]
    fn later_orphans_are_undecided_again() {
        let dismissed = [made(PLAN, OrphanChoice::Dismiss, &[(1, 20, 25)])];
        let first = found(&dismissed, &logs(&[(0, 10, 10), (0, 25, 25), (0, 30, 30)]));
        assert_eq!(first[0].undecided, []);
        let later = found(&dismissed, &logs(&[(0, 10, 10), (0, 28, 28), (0, 30, 30)]));
        assert_eq!(later[0].undecided, [25..28]);
        assert_eq!(later[0].decided, [(20..25, OrphanChoice::Dismiss)]);
    }

    #[test]
    fn a_decision_of_another_fork_says_nothing() {
        let logs = logs(&[(0, 12, 12), (0, 20, 20), (0, 30, 30)]);
        let old = [made(Uuid::from_u128(8), OrphanChoice::Keep, &[(0, 10, 12)])];
        assert_eq!(found(&old, &logs)[0].undecided, [10..12]);
    }

    #[test]
    fn the_first_decision_counts() {
        let logs = logs(&[(0, 20, 20), (0, 20, 20), (0, 30, 30)]);
        let two = [
            made(PLAN, OrphanChoice::Replay, &[(0, 10, 14)]),
            made(PLAN, OrphanChoice::Dismiss, &[(0, 0, 18), (1, 0, 99)]),
        ];
        let found = found(&two, &logs);
        assert_eq!(
            found[0].decided,
            [
                (10..14, OrphanChoice::Replay),
                (14..18, OrphanChoice::Dismiss)
            ]
        );
        assert_eq!(found[0].undecided, [18..20]);
    }

    #[test]
    fn what_a_transaction_holds_back_waits() {
        let found = found(&[], &logs(&[(0, 15, 20), (0, 20, 20), (0, 30, 30)]));
        assert_eq!(found[0].undecided, [10..20]);
        assert_eq!(found[0].can_decide, [10..15]);
    }

    #[test]
    fn what_retention_took_is_told() {
        let found = found(&[], &logs(&[(15, 18, 18), (40, 40, 40), (0, 30, 30)]));
        assert_eq!((found[0].from, found[0].to, found[0].expired), (15, 18, 5));
        assert_eq!((found[1].from, found[1].to, found[1].expired), (40, 40, 20));
        assert_eq!(found[1].undecided, []);
    }
}
