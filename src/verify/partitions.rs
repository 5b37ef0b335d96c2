//! Comparing partitions: what there is on both sides, then their records. Blocks.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::VerifyError;
use super::board::{OPEN_MAX, Unit};
use super::client::{self, Consumer};
use super::digest::{CHUNK_OFFSETS, Hasher, LEAF_OFFSETS, differing_leaves};
use super::link::Link;
use super::listed::Listed;
use super::logs::{self, Ends};
use super::progress::{Phase, Progress};
use super::records::Digests;
use super::report::{Difference, DifferenceKind, PartitionReport};
use super::sample::Sampling;
use super::scope::Place;
use super::second_look::{self, Suspect};
use super::span::{Logs, Span};
use super::sweep::{Manner, Readers};
use crate::config::ClusterSection;
use crate::telemetry::progress::now_ms;

/// Between a difference and the second look at it.
pub(super) const PAUSE: Duration = Duration::from_secs(2);
/// How far the clocks of brokers may be apart.
const CLOCKS_MS: i64 = 60_000;
/// More ranges of a partition aren't told apart: the last one grows instead.
const SUSPECT_RANGES_MAX: usize = 10_000;
/// No more compared ranges of a partition are reported.
const COMPARED_LISTED_MAX: usize = 1_000;

/// Which records are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Depth {
    /// None.
    Ends,
    /// Some.
    Sample(Sampling),
    /// All.
    Full,
}

/// What the partitions are compared with.
pub(super) struct Inputs<'a> {
    pub sections: (&'a ClusterSection, &'a ClusterSection),
    pub places: &'a [Arc<Place>],
    /// Whether a topic, by its name on the source, is compacted there.
    pub is_compacted: &'a dyn Fn(&str) -> bool,
    /// Whether its copy's log loses its oldest records by itself, and how old they are then: see
    /// [`forgets_after_ms`](super::configs::forgets_after_ms).
    pub forgets_after_ms: &'a dyn Fn(&str) -> Option<Option<i64>>,
    pub depth: Depth,
    pub bytes_per_second: Option<u64>,
    pub open_max: usize,
    pub progress: &'a Progress,
    pub cancelled: &'a AtomicBool,
}

/// One compared partition.
pub(super) struct Outcome {
    pub place: Arc<Place>,
    pub report: PartitionReport,
    pub listed: Listed,
    /// Offsets that both sides should have.
    pub comparable: i64,
    /// Target offsets after those of everything that the source has.
    pub beyond: Option<Range<i64>>,
    /// Source offsets that the target once had.
    lost: Range<i64>,
    is_measured: bool,
}

/// What there is on both sides, asked again whenever it matters.
struct Sides<'a> {
    sections: (&'a ClusterSection, &'a ClusterSection),
    consumers: (Consumer, Consumer),
}

impl<'a> Sides<'a> {
    fn new(sections: (&'a ClusterSection, &'a ClusterSection)) -> Result<Self, VerifyError> {
        let ask = |section| client::consumer(section, "twinlog-verify", &[]);
        Ok(Self {
            sections,
            consumers: (ask(sections.0)?, ask(sections.1)?),
        })
    }

    /// The target first: what is copied meanwhile is then never ahead of the source.
    fn logs(&self, places: &[Arc<Place>]) -> Result<Vec<Result<Logs, String>>, VerifyError> {
        let of = |name: fn(&Place) -> &str| -> Vec<(&str, i32)> {
            let names = places.iter();
            names.map(|place| (name(place), place.partition)).collect()
        };
        let target = logs::ends(
            self.sections.1,
            &self.consumers.1,
            &of(|place| &place.target_topic),
        )?;
        let source = logs::ends(
            self.sections.0,
            &self.consumers.0,
            &of(|place| &place.topic),
        )?;
        let both = |(source, target): (Ends, Ends)| {
            let source = source.map_err(|reason| format!("the source: {reason}"))?;
            let target = target.map_err(|reason| format!("the target: {reason}"))?;
            Ok(Logs { source, target })
        };
        Ok(source.into_iter().zip(target).map(both).collect())
    }
}

/// Compares them all.
pub(super) fn compare(inputs: &Inputs<'_>) -> Result<Vec<Outcome>, VerifyError> {
    inputs.progress.enter(Phase::Preparing);
    let sides = Sides::new(inputs.sections)?;
    let mut outcomes = survey(inputs, &sides)?;
    if inputs.depth == Depth::Ends {
        return Ok(outcomes);
    }
    let readers = Readers::new(
        inputs.sections,
        inputs.bytes_per_second,
        Hasher::new(rand::random()),
        inputs.progress,
        inputs.cancelled,
    )?;
    let suspects = sweep(inputs, &readers, &mut outcomes)?;
    if suspects.is_empty() {
        return Ok(outcomes);
    }
    inputs.progress.enter(Phase::SecondLook);
    pause(inputs.cancelled)?;
    confirm(inputs, &sides, &readers, &mut outcomes, suspects)?;
    Ok(outcomes)
}

/// Sleeps, unless the run is ended.
fn pause(cancelled: &AtomicBool) -> Result<(), VerifyError> {
    let until = Instant::now() + PAUSE;
    while Instant::now() < until {
        if cancelled.load(Ordering::Relaxed) {
            return Err(VerifyError::Cancelled);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What there is on both sides, and what of it can be compared.
fn survey(inputs: &Inputs<'_>, sides: &Sides<'_>) -> Result<Vec<Outcome>, VerifyError> {
    let count = |section, consumer| logs::partition_counts(section, consumer);
    let source = count(sides.sections.0, &sides.consumers.0)?;
    let target = count(sides.sections.1, &sides.consumers.1)?;
    let mut outcomes = Vec::new();
    let mut present = Vec::new();
    for place in inputs.places {
        let mut outcome = Outcome::new(place, (inputs.is_compacted)(&place.topic));
        let is_in = |counts: &HashMap<String, usize>, topic: &str| {
            let count = counts.get(topic).copied().unwrap_or(0);
            usize::try_from(place.partition).is_ok_and(|partition| partition < count)
        };
        if !is_in(&source, &place.topic) {
            outcome.report.skipped = Some("the source has no such partition any more".to_owned());
        } else if !is_in(&target, &place.target_topic) {
            let detail = format!("{} has no such partition on the target", place.target_topic);
            let missing = Difference::new(DifferenceKind::Partitions, detail);
            outcome
                .listed
                .push(missing.at(&place.topic, place.partition));
        } else {
            present.push(outcomes.len());
        }
        outcomes.push(outcome);
    }
    let places: Vec<Arc<Place>> = present
        .iter()
        .map(|index| inputs.places[*index].clone())
        .collect();
    for (index, logs) in present.into_iter().zip(sides.logs(&places)?) {
        let outcome = &mut outcomes[index];
        match logs {
            Ok(logs) => outcome.measure(logs),
            Err(reason) => outcome.report.failure = Some(reason),
        }
    }
    judge_lost(inputs, sides, &mut outcomes);
    Ok(outcomes)
}

/// What the target's log lost at its beginning is in order if its own retention took it. Then every record
/// of it is older than that: a log loses whole segments, and a segment is as young as its youngest record
/// (`UnifiedLog.deleteRetentionMsBreachedSegments`).
fn judge_lost(inputs: &Inputs<'_>, sides: &Sides<'_>, outcomes: &mut [Outcome]) {
    let now = now_ms();
    let mut asked = Vec::new();
    for (index, outcome) in outcomes.iter_mut().enumerate() {
        if outcome.lost.is_empty() {
            continue;
        }
        match (inputs.forgets_after_ms)(&outcome.place.topic) {
            // By size: what that takes can't be told.
            Some(None) => outcome.lost = 0..0,
            Some(Some(ms)) => asked.push((index, now.saturating_sub(ms).saturating_add(CLOCKS_MS))),
            None => {}
        }
    }
    let places: Vec<((&str, i32), i64)> = asked
        .iter()
        .map(|(index, at_ms)| {
            let place = &inputs.places[*index];
            ((&*place.topic, place.partition), *at_ms)
        })
        .collect();
    let young = logs::at_times(sides.sections.0, &sides.consumers.0, &places);
    for ((index, _), young) in asked.iter().zip(young) {
        let Outcome { lost, report, .. } = &mut outcomes[*index];
        // Where it can't be asked nothing is explained.
        let young = young.unwrap_or_else(|reason| {
            report.failure = Some(format!("what its retention took: {reason}"));
            lost.start
        });
        *lost = lost.start.max(young.min(lost.end))..lost.end;
    }
    for outcome in outcomes {
        let lost = outcome.lost.end - outcome.lost.start;
        outcome.report.lost_offsets = lost;
        outcome.comparable += lost;
    }
}

impl Outcome {
    fn new(place: &Arc<Place>, is_compacted: bool) -> Self {
        let offsets = match place.link {
            Link::Identical => "identical",
            Link::Mapped(_) => "mapped",
        };
        Self {
            place: place.clone(),
            report: PartitionReport {
                topic: place.topic.clone(),
                target_topic: place.target_topic.clone(),
                partition: place.partition,
                offsets: offsets.to_owned(),
                is_compacted,
                missed_deletes: place.missed_deletes,
                ..PartitionReport::default()
            },
            listed: Listed::default(),
            comparable: 0,
            beyond: None,
            lost: 0..0,
            is_measured: false,
        }
    }

    /// Whether both sides have it, as far as could be asked.
    pub(super) fn is_measured(&self) -> bool {
        self.is_measured
    }

    fn measure(&mut self, logs: Logs) {
        let span = Span::of(&self.place, logs);
        let report = &mut self.report;
        (report.source_start, report.source_end) = logs.source;
        (report.target_start, report.target_end) = logs.target;
        (report.from, report.to) = (span.range.start, span.range.end);
        report.not_comparable_offsets = span.not_comparable;
        report.lag_offsets = span.lag;
        report.begins_at = self.place.origin;
        report.before_copy_offsets = span.before;
        self.lost = span.lost;
        self.comparable = span.range.end - span.range.start;
        self.beyond = span.beyond;
        self.is_measured = true;
    }
}

/// Reads digests, and gives what differs, by outcome.
fn sweep(
    inputs: &Inputs<'_>,
    readers: &Readers<'_>,
    outcomes: &mut [Outcome],
) -> Result<BTreeMap<usize, Vec<Range<i64>>>, VerifyError> {
    inputs.progress.enter(Phase::Records);
    let (mut units, mut owners) = (Vec::new(), Vec::new());
    for (index, outcome) in outcomes.iter_mut().enumerate() {
        let whole = outcome.report.from..outcome.report.to;
        let drawn = match inputs.depth {
            Depth::Ends => Vec::new(),
            Depth::Full if whole.is_empty() => Vec::new(),
            Depth::Full => vec![whole],
            Depth::Sample(sampling) => sampling.draw(whole, outcome.place.salt()),
        };
        for range in drawn {
            outcome.report.compared_offsets += range.end - range.start;
            if outcome.report.compared.len() < COMPARED_LISTED_MAX {
                outcome.report.compared.push((range.start, range.end));
            }
            owners.push(index);
            units.push(Unit {
                place: outcome.place.clone(),
                from: range.start,
                to: range.end,
            });
        }
    }
    let total = outcomes
        .iter()
        .map(|outcome| outcome.report.compared_offsets);
    inputs
        .progress
        .total_offsets
        .store(total.sum(), Ordering::Relaxed);
    let mut suspects: BTreeMap<usize, Vec<Range<i64>>> = BTreeMap::new();
    let hasher = readers.hasher;
    let compare = |unit: usize, chunk: i64, source: Option<Digests>, target: Option<Digests>| {
        let report = &mut outcomes[owners[unit]].report;
        let (source, target) = (source.unwrap_or_default(), target.unwrap_or_default());
        report.records += source.records;
        report.bytes += source.bytes;
        report.unreadable_headers += source.unreadable_headers;
        for leaves in differing_leaves(hasher, &source.chunk, &target.chunk) {
            let offset = |leaf: usize| chunk * CHUNK_OFFSETS + leaf as i64 * LEAF_OFFSETS;
            let from = offset(leaves.start).max(units[unit].from);
            let to = offset(leaves.end).min(units[unit].to);
            suspect(suspects.entry(owners[unit]).or_default(), from..to);
        }
    };
    let manner = Manner {
        open_max: inputs.open_max.min(OPEN_MAX),
        counts: true,
    };
    let failed = readers.read(&units, manner, &|_| Digests::default(), Box::new(compare))?;
    for (unit, reason) in failed {
        let report = &mut outcomes[owners[unit]].report;
        report.compared_offsets -= units[unit].to - units[unit].from;
        report.compared.retain(|range| range.0 != units[unit].from);
        report.failure = Some(reason);
    }
    Ok(suspects)
}

/// Adds a range behind the others.
fn suspect(ranges: &mut Vec<Range<i64>>, range: Range<i64>) {
    let is_full = ranges.len() >= SUSPECT_RANGES_MAX;
    match ranges.last_mut() {
        Some(last) if last.end == range.start || is_full => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Looks at what differs again, and takes in what is confirmed.
fn confirm(
    inputs: &Inputs<'_>,
    sides: &Sides<'_>,
    readers: &Readers<'_>,
    outcomes: &mut [Outcome],
    suspects: BTreeMap<usize, Vec<Range<i64>>>,
) -> Result<(), VerifyError> {
    let places: Vec<Arc<Place>> = suspects
        .keys()
        .map(|index| outcomes[*index].place.clone())
        .collect();
    let logs = sides.logs(&places)?;
    let (mut owners, mut list) = (Vec::new(), Vec::new());
    for ((index, mut ranges), logs) in suspects.into_iter().zip(logs) {
        let outcome = &mut outcomes[index];
        let from = match logs {
            Ok(logs) => Span::of(&outcome.place, logs).range.start,
            Err(reason) => {
                outcome.report.failure = Some(reason);
                continue;
            }
        };
        // What one of the two logs has lost since the beginning can't be compared any more.
        let gone = (from.min(outcome.report.to) - outcome.report.from).max(0);
        outcome.report.not_comparable_offsets += gone;
        ranges.retain_mut(|range| {
            range.start = range.start.max(from);
            !range.is_empty()
        });
        owners.push(index);
        list.push(Suspect {
            place: outcome.place.clone(),
            is_compacted: (inputs.is_compacted)(&outcome.place.topic),
            ranges,
        });
    }
    for (index, confirmed) in owners.into_iter().zip(second_look::look(readers, &list)?) {
        let outcome = &mut outcomes[index];
        outcome.report.compacted = confirmed.compacted;
        outcome.report.not_comparable_offsets += confirmed.not_comparable;
        if let Some(failure) = confirmed.failure {
            outcome.report.failure = Some(failure);
        }
        outcome.listed.merge(confirmed.listed);
    }
    Ok(())
}

/// What can be compared now; `None` where it can't be asked.
pub(super) fn spans(
    inputs: &Inputs<'_>,
    places: &[Arc<Place>],
) -> Result<Vec<Option<Span>>, VerifyError> {
    let logs = Sides::new(inputs.sections)?.logs(places)?;
    let spans = places
        .iter()
        .zip(logs)
        .map(|(place, logs)| logs.ok().map(|logs| Span::of(place, logs)));
    Ok(spans.collect())
}

/// The topics that the source has, and how many partitions.
pub(super) fn source_topics(inputs: &Inputs<'_>) -> Result<HashMap<String, usize>, VerifyError> {
    let section = inputs.sections.0;
    let consumer = client::consumer(section, "twinlog-verify", &[])?;
    logs::partition_counts(section, &consumer)
}

/// How many offsets these partitions of the source have, or why one can't be asked.
pub(super) fn source_offsets(
    inputs: &Inputs<'_>,
    partitions: &[(String, i32)],
) -> Result<Vec<Result<i64, String>>, VerifyError> {
    let section = inputs.sections.0;
    let consumer = client::consumer(section, "twinlog-verify", &[])?;
    let asked: Vec<(&str, i32)> = partitions
        .iter()
        .map(|(topic, it)| (&**topic, *it))
        .collect();
    let ends = logs::ends(section, &consumer, &asked)?;
    let count = |ends: Ends| ends.map(|(start, end)| end - start);
    Ok(ends.into_iter().map(count).collect())
}
