//! Comparing partitions: what there is on both sides, then their records. Blocks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::VerifyError;
use super::board::{OPEN_MAX, Side, Unit};
use super::client::{self, Consumer};
use super::configs::{Compaction, Forgets};
use super::digest::{CHUNK_OFFSETS, Hasher, LEAF_OFFSETS, differing_leaves};
use super::link::Link;
use super::listed::Listed;
use super::logs::{self, Counts, Ends};
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
    pub compaction: &'a dyn Fn(&str) -> Compaction,
    /// How its copy's log loses its oldest records by itself, if it does.
    pub forgets: &'a dyn Fn(&str) -> Option<Forgets>,
    /// How large the log of one of its partitions is on the source, or why that isn't known.
    pub source_bytes: &'a dyn Fn(&str, i32) -> Result<u64, String>,
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
    /// Why the newest look at these wasn't answered.
    pub unanswered: Option<String>,
    /// One broker of that side says that there is no such topic.
    pub gone_on: Option<Side>,
    /// Source offsets that the target once had.
    lost: Range<i64>,
    is_measured: bool,
}

/// What there is on both sides, asked again whenever it matters.
struct Sides<'a> {
    sections: (&'a ClusterSection, &'a ClusterSection),
    consumers: (Consumer, Consumer),
}

/// A cluster, and the consumer that asks it.
type Asked<'a> = (&'a ClusterSection, &'a Consumer);

impl<'a> Sides<'a> {
    fn source(&self) -> Asked<'_> {
        (self.sections.0, &self.consumers.0)
    }

    fn target(&self) -> Asked<'_> {
        (self.sections.1, &self.consumers.1)
    }

    fn new(sections: (&'a ClusterSection, &'a ClusterSection)) -> Result<Self, VerifyError> {
        let ask = |section| client::consumer(section, "twinlog-verify", &[]);
        Ok(Self {
            sections,
            consumers: (ask(sections.0)?, ask(sections.1)?),
        })
    }

    /// The target first: what is copied meanwhile is then never ahead of the source.
    fn logs(&self, places: &[Arc<Place>]) -> Vec<Result<Logs, String>> {
        let of = |name: fn(&Place) -> &str| -> Vec<(&str, i32)> {
            let names = places.iter();
            names.map(|place| (name(place), place.partition)).collect()
        };
        let target = logs::ends(
            self.sections.1,
            &self.consumers.1,
            &of(|place| &place.target_topic),
        );
        let source = logs::ends(
            self.sections.0,
            &self.consumers.0,
            &of(|place| &place.topic),
        );
        let both = |(source, target): (Ends, Ends)| {
            let source = source.map_err(|reason| format!("the source: {reason}"))?;
            let target = target.map_err(|reason| format!("the target: {reason}"))?;
            Ok(Logs { source, target })
        };
        source.into_iter().zip(target).map(both).collect()
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
    let mut source = count(sides.sections.0, &sides.consumers.0)?;
    let mut target = count(sides.sections.1, &sides.consumers.1)?;
    let add = |counts: &mut Counts, (section, consumer): Asked<'_>, name: fn(&Place) -> &str| {
        let names = inputs.places.iter().map(|place| name(place));
        logs::add_unlisted(section, consumer, counts, names, inputs.cancelled);
    };
    add(&mut source, sides.source(), |place| &place.topic);
    add(&mut target, sides.target(), |place| &place.target_topic);
    if inputs.cancelled.load(Ordering::Relaxed) {
        return Err(VerifyError::Cancelled);
    }
    let mut outcomes = Vec::new();
    let mut present = Vec::new();
    for place in inputs.places {
        let is_compacted = (inputs.compaction)(&place.topic) == Compaction::Compacted;
        let mut outcome = Outcome::new(place, is_compacted);
        let is_in = |counts: &Counts, topic: &str| {
            let count = counts.get(topic).cloned().unwrap_or(Ok(0))?;
            Ok(usize::try_from(place.partition).is_ok_and(|partition| partition < count))
        };
        let there: Result<bool, String> = is_in(&source, &place.topic);
        let here = is_in(&target, &place.target_topic);
        let is_none =
            |counts: &Counts, topic: &str| matches!(counts.get(topic), None | Some(Ok(0)));
        if there == Ok(false) && is_none(&source, &place.topic) {
            outcome.gone_on = Some(Side::Source);
        } else if here == Ok(false) && is_none(&target, &place.target_topic) {
            outcome.gone_on = Some(Side::Target);
        }
        match (there, here) {
            (Err(reason), _) => {
                outcome.report.failure = Some(format!("the source: {reason}"));
            }
            (Ok(false), _) => {
                outcome.report.skipped =
                    Some("the source has no such partition any more".to_owned());
            }
            (_, Err(reason)) => {
                outcome.report.failure = Some(format!("the target: {reason}"));
            }
            (Ok(true), Ok(false)) => {
                let detail = format!("{} has no such partition on the target", place.target_topic);
                let missing = Difference::new(DifferenceKind::Partitions, detail);
                outcome
                    .listed
                    .push(missing.at(&place.topic, place.partition));
            }
            (Ok(true), Ok(true)) => present.push(outcomes.len()),
        }
        outcomes.push(outcome);
    }
    note_too_many(inputs, sides, (&source, &target), &present, &mut outcomes);
    let places: Vec<Arc<Place>> = present
        .iter()
        .map(|index| inputs.places[*index].clone())
        .collect();
    for (index, logs) in present.into_iter().zip(sides.logs(&places)) {
        let outcome = &mut outcomes[index];
        match logs {
            Ok(logs) => outcome.measure(logs),
            Err(reason) => outcome.report.failure = Some(reason),
        }
    }
    judge_lost(inputs, sides, &mut outcomes);
    Ok(outcomes)
}

/// A copy with more partitions than its source: once clients write there, keys go to others than before.
fn note_too_many(
    inputs: &Inputs<'_>,
    sides: &Sides<'_>,
    (source, target): (&Counts, &Counts),
    present: &[usize],
    outcomes: &mut [Outcome],
) {
    let count = |counts: &Counts, topic: &str| counts.get(topic).and_then(|it| it.clone().ok());
    // By topic: the first of its partitions, and how many the copy has.
    let mut wider: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for index in present {
        let place = &inputs.places[*index];
        let here = count(target, &place.target_topic);
        if here > count(source, &place.topic) {
            wider
                .entry(&place.topic)
                .or_insert((*index, here.unwrap_or(0)));
        }
    }
    // The source was asked first: it may have got some meanwhile, and the copy at once.
    let (section, consumer) = sides.source();
    let topics: Vec<&str> = wider.keys().copied().collect();
    let again = logs::counts_by_name(section, consumer, &topics, inputs.cancelled);
    for ((topic, (index, here)), there) in wider.into_iter().zip(again) {
        // None at all: it went meanwhile, or is only hidden, and how many there are isn't known.
        let Ok(there @ 1..) = there else {
            continue;
        };
        if here > there {
            let outcome = &mut outcomes[index];
            let detail = format!(
                "{} has {here} partitions on the target, the source has {there}",
                outcome.place.target_topic
            );
            let number = i32::try_from(there).unwrap_or(i32::MAX);
            let more = Difference::new(DifferenceKind::Partitions, detail);
            outcome.listed.push(more.at(topic, number));
        }
    }
}

/// What the target's log lost at its beginning is in order if its own retention took it. Then every record
/// of it is older than that: a log loses whole segments, and a segment is as young as its youngest record
/// (`UnifiedLog.deleteRetentionMsBreachedSegments`). What retention by size took can't be told from what somebody
/// deleted, unless the log can't have grown so large.
fn judge_lost(inputs: &Inputs<'_>, sides: &Sides<'_>, outcomes: &mut [Outcome]) {
    let now = now_ms();
    let mut asked = Vec::new();
    for (index, outcome) in outcomes.iter_mut().enumerate() {
        if outcome.lost.is_empty() {
            continue;
        }
        let Some(forgets) = (inputs.forgets)(&outcome.place.topic) else {
            continue;
        };
        let place = &outcome.place;
        match may_be_too_large(forgets, || {
            (inputs.source_bytes)(&place.topic, place.partition)
        }) {
            Ok(false) => {}
            Ok(true) => {
                outcome.lost = 0..0;
                continue;
            }
            Err(why) => {
                let failure = format!(
                    "whether the copy's retention.bytes took its oldest records isn't known, since the source doesn't \
                     tell how large its log is: {why}"
                );
                outcome.report.failure = Some(failure);
                outcome.lost = 0..0;
                continue;
            }
        }
        if let Some(ms) = forgets.after_ms {
            asked.push((index, now.saturating_sub(ms).saturating_add(CLOCKS_MS)));
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

/// Whether a copy may have been so large that its retention by size took something. It is about as large as the source's
/// log; batches that are opened or filled make some difference.
fn may_be_too_large(
    forgets: Forgets,
    source_bytes: impl FnOnce() -> Result<u64, String>,
) -> Result<bool, String> {
    let Some(above) = forgets.above_bytes else {
        return Ok(false);
    };
    let bytes = source_bytes()?;
    Ok(bytes.saturating_add(bytes / 4) >= above)
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
            unanswered: None,
            gone_on: None,
            lost: 0..0,
            is_measured: false,
        }
    }

    /// Whether both sides have it, as far as could be asked.
    pub(super) fn is_measured(&self) -> bool {
        self.is_measured
    }

    /// The brokers of a side don't all say that it is gone: then it wasn't compared, and that is no difference.
    pub(super) fn doubt(&mut self, side: Side, why: &str) {
        let side = match side {
            Side::Source => "source",
            Side::Target => "target",
        };
        self.listed = Listed::default();
        self.report.skipped = None;
        self.report.failure = Some(format!(
            "the {side}: one broker says that there is no such topic: {why}"
        ));
    }

    /// Takes in another look at what is beyond: what was there at first and is explained by now is none, what came later
    /// isn't asked, and who doesn't answer explains nothing.
    pub(super) fn look_beyond_again(&mut self, span: Result<Span, String>) {
        let first = self.beyond.clone().unwrap_or_default();
        match span {
            Ok(span) => {
                let now = span.beyond.filter(|now| now.start < first.end);
                self.beyond = now.map(|now| now.start..first.end);
                self.unanswered = None;
            }
            Err(why) => self.unanswered = Some(why),
        }
    }

    /// What is still beyond after all looks differs, or couldn't be looked at again.
    pub(super) fn conclude_beyond(&mut self) {
        let Some(beyond) = self.beyond.take() else {
            return;
        };
        if let Some(why) = self.unanswered.take() {
            self.report.failure = Some(format!(
                "the target seems to go on where the source ends, and can't be asked again: {why}"
            ));
            return;
        }
        let detail = format!(
            "the target has {} offset(s) from {} on that are no copies",
            beyond.end - beyond.start,
            beyond.start
        );
        let place = &self.place;
        let mut found =
            Difference::new(DifferenceKind::AddedAtEnd, detail).at(&place.topic, place.partition);
        found.target_offset = Some(beyond.start);
        self.listed.push(found);
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
    let logs = sides.logs(&places);
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
            compaction: (inputs.compaction)(&outcome.place.topic),
            from,
            to: outcome.report.to,
            ranges,
        });
    }
    for (index, confirmed) in owners.into_iter().zip(second_look::look(readers, &list)?) {
        let outcome = &mut outcomes[index];
        outcome.report.compacted = confirmed.compacted;
        if let Some(failure) = confirmed.failure {
            outcome.report.failure = Some(failure);
        }
        outcome.listed.merge(confirmed.listed);
    }
    Ok(())
}

/// What can be compared now, or why that can't be asked.
pub(super) fn spans(
    inputs: &Inputs<'_>,
    places: &[Arc<Place>],
) -> Result<Vec<Result<Span, String>>, VerifyError> {
    let logs = Sides::new(inputs.sections)?.logs(places);
    let spans = places
        .iter()
        .zip(logs)
        .map(|(place, logs)| logs.map(|logs| Span::of(place, logs)));
    Ok(spans.collect())
}

/// The topics that the source has, and how many partitions.
pub(super) fn source_topics(inputs: &Inputs<'_>) -> Result<Counts, VerifyError> {
    let section = inputs.sections.0;
    let consumer = client::consumer(section, "twinlog-verify", &[])?;
    logs::partition_counts(section, &consumer)
}

/// How many partitions these topics have on the source, also those that aren't listed.
pub(super) fn source_counts(inputs: &Inputs<'_>, topics: &[String]) -> Result<Counts, VerifyError> {
    let section = inputs.sections.0;
    let consumer = client::consumer(section, "twinlog-verify", &[])?;
    let mut counts = logs::partition_counts(section, &consumer)?;
    let names = topics.iter().map(String::as_str);
    logs::add_unlisted(section, &consumer, &mut counts, names, inputs.cancelled);
    Ok(counts)
}

/// The topics that the target has, and how many partitions.
pub(super) fn target_topics(inputs: &Inputs<'_>) -> Result<Counts, VerifyError> {
    let section = inputs.sections.1;
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
    let ends = logs::ends(section, &consumer, &asked);
    let count = |ends: Ends| ends.map(|(start, end)| end - start);
    Ok(ends.into_iter().map(count).collect())
}
