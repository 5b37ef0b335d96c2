//! What the stored map of a copy with other offsets lacks, learned again from both logs.
//!
//! A map is stored every few seconds, behind the records. Where the process that copied and the source died together nobody
//! could complete it, so the fork names the stored map's end on the source, and the true one on the target:
//!
//! ```text
//! old primary:  ... the same | copied, not in the map | orphans ...
//! new primary:  ... the same | copied, not in the map | padding | new records
//!                         map's end                 fork
//! ```
//!
//! The records tell which of the old primary's are there. Mostly they follow each other on both sides; where a cleaner took
//! some of them [`Pairing`] knows the rest. What the old primary has lost isn't there to be paired: its fork is before that.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use super::compare::Shown;
use super::log::Log;
use super::{Job, PATIENCE, known};
use crate::cutover::error::CutoverError;
use crate::offsets::{OffsetMap, Paired, Pairing, Print, SourceOffset, TargetOffset};
use crate::wire::{self, Cluster, OffsetSpec, TopicPartition};

/// No map is so far behind.
const OFFSETS_MAX: i64 = 20_000_000;

/// What was learned.
pub(super) struct Learned {
    /// The map up to the fork.
    pub map: OffsetMap,
    /// How much of the copy the old primary has lost, by the target's offsets; the map ends before it.
    pub lost: i64,
}

/// Whether the map of a partition doesn't reach the fork.
pub(super) fn is_short(job: &Job) -> bool {
    let map = job.map.as_ref();
    map.is_some_and(|map| map.target_end().0 < job.fork.target_end)
}

/// Brings the map of such a partition to its fork.
///
/// # Errors
/// When a log can't be read up to there.
pub(super) async fn complete(
    old: &Cluster,
    new: &Cluster,
    job: &Job,
    map: &OffsetMap,
) -> Result<Learned, CutoverError> {
    let (from, on_target) = (map.source_end().0, map.target_end().0..job.fork.target_end);
    if on_target.end - on_target.start > OFFSETS_MAX {
        let text = "more of the copy isn't in its offset map than can be looked at";
        return Err(CutoverError::failed(format!("{}: {text}", job.copy)));
    }
    let (old_log, new_log) = (raw(old, &job.at), raw(new, &job.copy));
    let (old_start, old_end, new_start) = tokio::try_join!(
        offset(old, &job.at, OffsetSpec::Earliest),
        offset(old, &job.at, OffsetSpec::LatestStable),
        offset(new, &job.copy, OffsetSpec::Earliest),
    )?;
    let mut copies = Vec::new();
    let is_others = |offset: &i64| {
        let mut ranges = job.only_new.iter();
        ranges.any(|(from, to)| (*from..*to).contains(offset))
    };
    let first = on_target.start.max(new_start);
    let mut has_own_times = false;
    read(&new_log, first..on_target.end, |offset, shown| {
        if !is_others(&offset) {
            has_own_times |= shown.is_append_time;
            // Not the records: there may be millions of them.
            copies.push([true, false].map(|with_time| print(offset, &shown, with_time)));
        }
        true
    })
    .await?;
    let copies: Vec<Print> = copies
        .into_iter()
        .map(|[timed, timeless]| if has_own_times { timeless } else { timed })
        .collect();
    let has_others = on_target.clone().any(|offset| is_others(&offset));
    let mut pairing = Pairing::new(from, on_target.clone(), copies.clone());
    let mut lockstep = Lockstep::new(&copies);
    let mut may_pair = !has_others;
    read(&old_log, from.max(old_start)..old_end, |offset, shown| {
        let print = print(offset, &shown, !has_own_times);
        lockstep.take(print);
        may_pair = may_pair && pairing.take(print);
        lockstep.goes_on() || (may_pair && !lockstep.is_whole())
    })
    .await?;
    let (mut map, mut paired_map) = (map.clone(), map.clone());
    let is_in_order = lockstep.is_whole() && !copies.is_empty();
    if !is_in_order
        && !has_others
        && let Some(paired) = pairing.finish()
        && has_last(&paired, &copies)
        && extend(&mut paired_map, &paired, on_target.end).is_ok()
    {
        return Ok(Learned {
            map: paired_map,
            lost: 0,
        });
    }
    for (source, target) in &lockstep.pairs {
        let pushed = map.push_copied(SourceOffset(*source), TargetOffset(*target), 1);
        pushed.map_err(|error| CutoverError::failed(format!("{}: {error}", job.copy)))?;
    }
    let lost = match lockstep.is_whole() {
        true => {
            map.push_gap(TargetOffset(on_target.end));
            0
        }
        false => on_target.end - map.target_end().0,
    };
    Ok(Learned { map, lost })
}

/// Whether the last copy was found. One that wasn't is what an old primary lacks that has lost a tail: a cleaner leaves the
/// newest records.
fn has_last(paired: &Paired, copies: &[Print]) -> bool {
    let Some(last) = copies.last() else {
        return true;
    };
    let end = paired.runs.last().map(|run| run.target_end());
    end == Some(TargetOffset(last.offset + 1))
}

fn extend(
    map: &mut OffsetMap,
    paired: &Paired,
    target_end: i64,
) -> Result<(), crate::offsets::MapError> {
    for run in &paired.runs {
        map.push_copied(run.source_start, run.target_start, run.len)?;
    }
    let from = map.source_end();
    let hole = u64::try_from(paired.source_next - from.0).unwrap_or(0);
    map.push_hole(from, hole)?;
    map.push_gap(TargetOffset(target_end));
    Ok(())
}

/// Records that follow each other on both sides, from the first ones on.
struct Lockstep<'a> {
    copies: &'a [Print],
    pairs: Vec<(i64, i64)>,
    is_over: bool,
}

impl<'a> Lockstep<'a> {
    fn new(copies: &'a [Print]) -> Self {
        Self {
            copies,
            pairs: Vec::new(),
            is_over: copies.is_empty(),
        }
    }

    fn take(&mut self, print: Print) {
        if self.is_over {
            return;
        }
        match self.copies.get(self.pairs.len()) {
            Some(copy) if copy.record == print.record => {
                self.pairs.push((print.offset, copy.offset));
                self.is_over = self.is_whole();
            }
            _ => self.is_over = true,
        }
    }

    fn goes_on(&self) -> bool {
        !self.is_over
    }

    /// Whether every copy was found.
    fn is_whole(&self) -> bool {
        self.pairs.len() == self.copies.len()
    }
}

fn raw<'a>(cluster: &'a Cluster, at: &'a TopicPartition) -> Log<'a> {
    Log {
        cluster,
        at,
        map: None,
    }
}

async fn offset(
    cluster: &Cluster,
    at: &TopicPartition,
    spec: OffsetSpec,
) -> Result<i64, CutoverError> {
    let asked = [at.clone()];
    let answers = wire::list_offsets_within(cluster, &asked, spec, PATIENCE).await;
    known(&answers, at, cluster).map_err(CutoverError::failed)
}

/// Shows the records of a range in order, until `take` has enough.
async fn read(
    log: &Log<'_>,
    range: Range<i64>,
    mut take: impl FnMut(i64, Shown) -> bool,
) -> Result<(), CutoverError> {
    let mut next = range.start;
    while next < range.end {
        let piece = log.read(next, range.end).await?;
        for (offset, shown) in piece.records {
            if range.contains(&offset) && !take(offset, shown) {
                return Ok(());
            }
        }
        next = piece.to;
    }
    Ok(())
}

fn print(offset: i64, shown: &Shown, with_time: bool) -> Print {
    let record = &shown.record;
    let (mut key, mut whole) = (DefaultHasher::new(), DefaultHasher::new());
    record.key.hash(&mut key);
    if with_time {
        record.timestamp.hash(&mut whole);
    }
    (&record.key, &record.value).hash(&mut whole);
    (record.header_count, &record.headers).hash(&mut whole);
    Print {
        offset,
        record: whole.finish(),
        key: key.finish(),
    }
}
