//! Which offsets of a target log somebody else wrote (`on_foreign_write: map`).
//!
//! Two things tell. *How many* there are: the brokers count what our producers wrote, and the rest is
//! others'. *Where* they are: the log's batches have producer ids. The log is read from its end back,
//! until so many batches of ours in a row were met that no stranger's can lie below which isn't known
//! yet: the first answer behind a stranger closes the partition, so behind his batch there are at most
//! those of ours that were on their way, and behind these, while the partition is closed, others' alone.
//!
//! What the two say must agree. Where it doesn't, a batch may be hidden by the high watermark (it is
//! tried again), a batch of ours may be missing (its sequence tells, and the partition stops as
//! damaged), or the cleaner took what somebody wrote (a hole behind our last batch, or below the log's
//! start, is his). Anything else isn't guessed: the partition stops.

use std::ops::Range;

use super::error::Trouble;
use super::partition::STEPS_MAX;
use super::position::{self, Producers};
use super::resume::{self, Candidate};
use super::shared::Flow;
use super::tail;
use super::turn::Settled;
use crate::batch::BatchHeader;
use crate::offsets::{Run, SourceOffset, TargetOffset};
use crate::state::{Ranges, TopicRecord};
use crate::wire::ProducerState;

/// Batches of records of ours in a row that end the walk: twice as many as can be on their way at a
/// time ([`tail`]). Fillers don't count: many are written by one request.
const OURS_IN_A_ROW: usize = 2 * STEPS_MAX as usize;
/// Offsets that are read at a time, at first and at most.
const SPAN_FIRST: i64 = 1_000;
const SPAN_LAST: i64 = 200_000;
/// Offsets that are looked at in the end.
const LOOKED_AT: i64 = 20_000_000;

/// What was found in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Offsets of others that weren't known; in order.
    pub foreign: Ranges,
    /// Fillers of ours in the whole log.
    pub fillers: i64,
}

/// What is stored of somebody else's offsets in a partition's copy.
pub(super) fn known(flow: &Flow, one: &Candidate) -> Result<Ranges, Trouble> {
    let key = flow.topic_key(&one.topic.source_topic);
    let record = flow.store.get::<TopicRecord>(&key)?;
    let same = |it: &TopicRecord| it.target_topic_id == one.topic.record.target_topic_id;
    let record = record.filter(same);
    Ok(record.map_or_else(Vec::new, |it| it.foreign(one.partition).to_vec()))
}

/// Up to which offset a partition with the source's offsets is known to be copied, as it is stored now and then.
pub(super) fn copied(flow: &Flow, one: &Candidate) -> Option<i64> {
    let stored = resume::stored(flow, one).filter(|stored| stored.epoch >= 0);
    stored.map(|stored| stored.position)
}

/// Finds what somebody else wrote.
///
/// # Errors
/// `trouble`, which is what was found so far, where it can't be told exactly.
pub(super) async fn find(
    flow: &Flow,
    one: &Candidate,
    log: Range<i64>,
    (states, settled): (&[ProducerState], Option<Settled>),
    trouble: Trouble,
) -> Result<Found, Trouble> {
    let producers = one.topic.rules.producers;
    let base = one.topic.base(one.partition);
    let known = known(flow, one)?;
    let mut count = Count::of(states, producers, log.end - base, settled);
    if settled.is_none() {
        let copied = copied(flow, one);
        count.take_copied(copied.map(|copied| copied - base));
    }
    let target = one.topic.target(one.partition);
    let start = log.start.max(base);
    let mut walk = Walk::new(producers, &known, log.end);
    let mut span = SPAN_FIRST;
    while walk.below > start && !walk.is_over() {
        if log.end - walk.below > LOOKED_AT {
            return Err(trouble);
        }
        let from = (walk.below - span).max(start);
        let headers = tail::batches(flow, &target, from..walk.below).await?;
        walk.take(&headers, from);
        span = (span * 2).min(SPAN_LAST);
    }
    let reached_start = walk.below <= start;
    if count.foreign.is_none() {
        // Nothing else tells whether replicas lag.
        tail::settled(flow, &target, log.end).await?;
    }
    walk.judge(count, reached_start.then_some(start - base))
        .ok_or_else(|| trouble.clone())?
        .map_err(|mismatch| match mismatch {
            Mismatch::Hidden(hidden) => Trouble::TargetBehind {
                high_watermark: log.end,
                written: log.end + hidden,
            },
            Mismatch::Missing { at, missing } => Trouble::Overtaken {
                expected: at + missing,
                found: at,
            },
        })
}

/// What the brokers' counts say of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    /// Offsets that nobody of ours wrote and that aren't known; `None` where a count was forgotten.
    foreign: Option<i64>,
    /// Fillers, where they are known.
    fillers: Option<i64>,
    /// Offsets that aren't the data producer's and aren't known, if its count is there.
    not_data: Option<i64>,
    /// The data producer's last sequence.
    last_sequence: Option<i32>,
}

impl Count {
    fn of(
        states: &[ProducerState],
        producers: Producers,
        offsets: i64,
        settled: Option<Settled>,
    ) -> Self {
        let newest = position::newest_filler(states, producers).map(i64::from);
        let fillers = settled.map(|it| it.fillers).or(newest);
        let last_sequence = position::last_sequence(states, producers);
        let offsets = offsets - settled.map_or(0, |it| it.strangers);
        let not_data = last_sequence.map(|last| position::distance(offsets, i64::from(last) + 1));
        Self {
            foreign: not_data
                .zip(fillers)
                .map(|(rest, fillers)| position::distance(rest, fillers)),
            fillers,
            not_data,
            last_sequence,
        }
    }

    /// Takes in that so many offsets, at least, were copied one to one. Are they as many as the data
    /// producer's records, there was no filler among them. Behind them there is none either: a broker
    /// that knows the records knows the fillers that followed, by the times that they have.
    fn take_copied(&mut self, copied: Option<i64>) {
        let records = self.last_sequence.map(|last| i64::from(last) + 1);
        if self.fillers.is_none() && copied.is_some() && copied == records {
            self.fillers = Some(0);
            self.foreign = self.not_data;
        }
    }

    /// What is found, by these counts.
    fn found(&self, foreign: Ranges) -> Option<Found> {
        let implied = self.not_data.map(|rest| rest - len(&foreign));
        let fillers = self.fillers.or(implied).unwrap_or(0);
        (fillers >= 0).then_some(Found { foreign, fillers })
    }
}

/// Why what was read isn't what was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mismatch {
    /// So many offsets aren't seen yet.
    Hidden(i64),
    /// Records of ours aren't there that belong before `at`.
    Missing { at: i64, missing: i64 },
}

/// The log's batches, read from its end back.
#[derive(Debug)]
struct Walk<'a> {
    producers: Producers,
    known: &'a [(i64, i64)],
    end: i64,
    /// All from here on was read.
    below: i64,
    /// Newest first.
    foreign: Ranges,
    /// Offsets without a batch, newest first.
    holes: Ranges,
    /// Batches of records of ours since the last one of a stranger.
    in_a_row: usize,
    /// The first batch of records of ours that was met: the end of its offsets and its last sequence.
    last_data: Option<(i64, i32)>,
    /// Where the last batch of ours ends.
    last_own: Option<i64>,
    /// The lowest batch of records of ours so far: its offset and sequence.
    next_data: Option<(i64, i32)>,
    /// Offsets between it and what is read next that aren't records of ours, and holes.
    between: (i64, i64),
    missing: Option<(i64, i64)>,
}

impl<'a> Walk<'a> {
    fn new(producers: Producers, known: &'a [(i64, i64)], end: i64) -> Self {
        Self {
            producers,
            known,
            end,
            below: end,
            foreign: Vec::new(),
            holes: Vec::new(),
            in_a_row: 0,
            last_data: None,
            last_own: None,
            next_data: None,
            between: (0, 0),
            missing: None,
        }
    }

    fn is_over(&self) -> bool {
        self.in_a_row >= OURS_IN_A_ROW
    }

    /// Takes in the batches that hold the offsets from `from` up to where it stands.
    fn take(&mut self, headers: &[BatchHeader], from: i64) {
        for header in headers.iter().rev() {
            if header.base_offset >= self.below {
                continue;
            }
            self.note_hole(header.next_offset());
            self.note(header);
            self.below = header.base_offset;
        }
        if from < self.below {
            self.note_hole(from);
            self.below = from;
        }
    }

    fn note_hole(&mut self, from: i64) {
        let to = self.below;
        if from >= to {
            return;
        }
        self.between.1 += to - from;
        let is_known = self.known.iter().any(|it| it.0 <= from && to <= it.1);
        if !is_known {
            push_down(&mut self.holes, (from, to));
        }
    }

    fn note(&mut self, header: &BatchHeader) {
        let (from, to) = (header.base_offset, header.next_offset().min(self.below));
        if header.producer_id == self.producers.data_id {
            self.note_data(header);
            self.in_a_row += 1;
            self.last_own.get_or_insert(to);
            return;
        }
        self.between.0 += to - from;
        if self.producers.is_filler(header.producer_id) {
            self.last_own.get_or_insert(to);
            return;
        }
        let is_known = self.known.iter().any(|it| (it.0..it.1).contains(&from));
        if !is_known {
            self.in_a_row = 0;
            push_down(&mut self.foreign, (from, to));
        }
    }

    /// Sequences of two batches that follow one another differ by the records between them.
    fn note_data(&mut self, header: &BatchHeader) {
        let next = position::next_sequence(header.base_sequence, header.last_offset_delta + 1);
        if let Some((at, sequence)) = self.next_data {
            let skipped = position::count_difference(i64::from(sequence), i64::from(next));
            let missing = skipped - self.between.1;
            if missing > 0 && self.missing.is_none() {
                self.missing = Some((at, missing));
            }
        }
        self.last_data
            .get_or_insert((header.next_offset(), position::next_sequence(next, -1)));
        self.next_data = Some((header.base_offset, header.base_sequence));
        self.between = (0, 0);
    }

    /// What follows from it; `None` where it can't be told. `trimmed` are the offsets of ours that are
    /// below the log's start, if the walk has reached it.
    fn judge(&self, count: Count, trimmed: Option<i64>) -> Option<Result<Found, Mismatch>> {
        let mut foreign = self.foreign.clone();
        foreign.reverse();
        let seen = len(&foreign);
        let Some(wanted) = count.foreign else {
            // What the cleaner took could be ours or theirs.
            let first = foreign.first().map_or(self.end, |it| it.0);
            let is_whole = self.holes.iter().all(|hole| hole.1 <= first);
            return (is_whole && self.missing.is_none())
                .then(|| count.found(foreign))?
                .map(Ok);
        };
        if seen > wanted {
            let hidden = seen - wanted;
            return match self.missing {
                Some((at, missing)) if missing == hidden => {
                    Some(Err(Mismatch::Missing { at, missing }))
                }
                _ => Some(Err(Mismatch::Hidden(hidden))),
            };
        }
        if seen < wanted {
            self.add_gone(&mut foreign, wanted - seen, count, trimmed)?;
        }
        count.found(foreign).map(Ok)
    }

    /// Adds what somebody wrote and nobody has any more: behind our last batch, or below the log's start.
    fn add_gone(
        &self,
        foreign: &mut Ranges,
        gone: i64,
        count: Count,
        trimmed: Option<i64>,
    ) -> Option<()> {
        let is_last = |(_, sequence): (i64, i32)| Some(sequence) == count.last_sequence;
        let last_own = self.last_data.filter(|it| is_last(*it)).and(self.last_own);
        let behind = |hole: &&(i64, i64)| last_own.is_some_and(|last| hole.0 >= last);
        let holes: Ranges = self.holes.iter().filter(behind).copied().collect();
        if len(&holes) == gone {
            foreign.extend(holes);
        } else if self.holes.is_empty() && trimmed.is_some_and(|trimmed| trimmed >= gone) {
            let below = (self.below - gone, self.below);
            let touches = |it: &(i64, i64)| it.0 < below.1 && below.0 < it.1;
            if self.known.iter().any(touches) {
                return None;
            }
            foreign.push(below);
        } else {
            return None;
        }
        *foreign = merged(std::mem::take(foreign));
        Some(())
    }
}

fn len(ranges: &[(i64, i64)]) -> i64 {
    ranges.iter().map(|(from, to)| to - from).sum()
}

/// Adds a range below all others.
fn push_down(ranges: &mut Ranges, (from, to): (i64, i64)) {
    match ranges.last_mut() {
        Some(last) if last.0 == to => last.0 = from,
        _ => ranges.push((from, to)),
    }
}

/// In order, and one where several touch.
pub(super) fn merged(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut merged: Ranges = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// Offsets of a target log as they would be without what somebody else wrote there.
#[derive(Clone, Debug, Default)]
pub(super) struct Foreign(Ranges);

impl Foreign {
    pub(super) fn new(ranges: Ranges) -> Self {
        Self(merged(ranges))
    }

    pub(super) fn has(&self, offset: i64) -> bool {
        self.0.iter().any(|it| (it.0..it.1).contains(&offset))
    }

    /// An offset without those before it.
    pub(super) fn out(&self, offset: i64) -> i64 {
        let before = |(from, to): &(i64, i64)| (offset.min(*to) - from).max(0);
        offset - self.0.iter().map(before).sum::<i64>()
    }

    /// The target offsets of a run that was counted without others: one run more for each range in it.
    pub(super) fn runs_of(&self, run: Run) -> Vec<Run> {
        let mut runs = Vec::new();
        let (mut source, mut ours) = (run.source_start.0, run.target_start.0);
        let end = ours.saturating_add_unsigned(run.len);
        let mut shift = 0;
        for (from, to) in self.0.iter().copied().chain([(i64::MAX, i64::MAX)]) {
            // Where the range would be without itself and those before it.
            let len = (from - shift).min(end) - ours;
            if len > 0 {
                runs.push(Run {
                    source_start: SourceOffset(source),
                    target_start: TargetOffset(ours + shift),
                    len: u64::try_from(len).unwrap_or(0),
                });
                (source, ours) = (source + len, ours + len);
            }
            shift += to - from;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flow::position::producer_state;

    const OURS: Producers = Producers::first(7, 8);

    /// Who wrote a batch of so many offsets.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Part {
        Data(i32),
        Filler,
        Other(i32),
    }

    /// A log of these batches, and the data producer's next sequence behind them.
    fn log(parts: &[Part]) -> (Vec<BatchHeader>, i32) {
        let (mut offset, mut sequence, mut headers) = (0, 0, Vec::new());
        for part in parts {
            let (producer_id, count, base_sequence) = match *part {
                Part::Data(count) => (OURS.data_id, count, sequence),
                Part::Filler => (OURS.filler_id, 1, -1),
                Part::Other(count) => (-1, count, -1),
            };
            headers.push(BatchHeader {
                base_offset: offset,
                length: 0,
                leader_epoch: 0,
                magic: 2,
                crc: 0,
                attributes: 0,
                last_offset_delta: count - 1,
                base_timestamp: 0,
                max_timestamp: 0,
                producer_id,
                producer_epoch: 0,
                base_sequence,
                count,
            });
            offset += i64::from(count);
            if matches!(part, Part::Data(_)) {
                sequence += count;
            }
        }
        (headers, sequence)
    }

    fn end(headers: &[BatchHeader]) -> i64 {
        headers.last().map_or(0, BatchHeader::next_offset)
    }

    fn states(sequence: Option<i32>, fillers: Option<i32>) -> Vec<ProducerState> {
        let data = sequence.map(|next| producer_state(OURS.data_id, next - 1, -1));
        let filler = fillers.map(|count| producer_state(OURS.filler_id, -1, count));
        data.into_iter().chain(filler).collect()
    }

    /// Reads a log from its end back in spans of `span`, as [`find`] does.
    fn judged(
        headers: &[BatchHeader],
        (start, end): (i64, i64),
        known: &[(i64, i64)],
        (states, settled): (&[ProducerState], Option<Settled>),
        span: i64,
    ) -> Option<Result<Found, Mismatch>> {
        let count = Count::of(states, OURS, end, settled);
        let mut walk = Walk::new(OURS, known, end);
        while walk.below > start && !walk.is_over() {
            let range = (walk.below - span).max(start)..walk.below;
            let read: Vec<BatchHeader> = headers
                .iter()
                .filter(|it| it.next_offset() > range.start && it.base_offset < range.end)
                .copied()
                .collect();
            walk.take(&read, range.start);
        }
        walk.judge(count, (walk.below <= start).then_some(start))
    }

    fn foreign_of(parts: &[Part]) -> Ranges {
        let (headers, _) = log(parts);
        let others = headers.iter().filter(|it| it.producer_id == -1);
        merged(
            others
                .map(|it| (it.base_offset, it.next_offset()))
                .collect(),
        )
    }

    fn fillers_of(parts: &[Part]) -> i32 {
        parts.iter().filter(|it| **it == Part::Filler).count() as i32
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            (1..20_i32).prop_map(Part::Data),
            Just(Part::Filler),
            (1..20_i32).prop_map(Part::Other),
        ]
    }

    proptest! {
        /// Whatever is known of the counts: what is found is exact.
        #[test]
        fn strangers_are_found_among_what_was_on_its_way(
            before in prop::collection::vec((1..20_i32).prop_map(Part::Data), 0..150),
            behind in prop::collection::vec(part(), 0..40),
            (knows_data, knows_fillers) in (any::<bool>(), any::<bool>()),
            span in 1..500_i64,
        ) {
            let parts = [before, behind].concat();
            let (headers, next) = log(&parts);
            let sequence = Some(next).filter(|next| knows_data && *next > 0);
            let fillers = Some(fillers_of(&parts)).filter(|count| knows_fillers && *count > 0);
            let states = states(sequence, fillers);
            let found = judged(&headers, (0, end(&headers)), &[], (&states, None), span);
            let found = found.expect("nothing is missing").expect("nothing is hidden");
            prop_assert_eq!(&found.foreign, &foreign_of(&parts));
            if sequence.is_some() {
                prop_assert_eq!(found.fillers, i64::from(fillers_of(&parts)));
            }
        }

        /// What the high watermark hides is waited for.
        #[test]
        fn what_is_hidden_is_waited_for(
            parts in prop::collection::vec(part(), 1..40),
            hidden in 1..5_usize,
        ) {
            let (headers, next) = log(&parts);
            let seen = &headers[..headers.len().saturating_sub(hidden)];
            let states = states(Some(next).filter(|next| *next > 0), Some(fillers_of(&parts)));
            prop_assume!(next > 0);
            let judged = judged(seen, (0, end(seen)), &[], (&states, None), 100);
            let ours = |part: &&Part| !matches!(part, Part::Other(_));
            let is_ours_hidden = parts[seen.len()..].iter().any(|it| ours(&it));
            match judged {
                Some(Ok(found)) => {
                    prop_assert!(!is_ours_hidden);
                    prop_assert_eq!(found.foreign, foreign_of(&parts[..seen.len()]));
                }
                Some(Err(mismatch)) => prop_assert!(matches!(mismatch, Mismatch::Hidden(_))),
                // Nothing was seen at all.
                None => prop_assert!(is_ours_hidden),
            }
        }

        /// Counted out and in again, every offset that is ours is where it was.
        #[test]
        fn runs_step_over_strangers(parts in prop::collection::vec(part(), 0..40)) {
            let (headers, _) = log(&parts);
            let foreign = Foreign::new(foreign_of(&parts));
            let end = end(&headers);
            let run = Run {
                source_start: SourceOffset(0),
                target_start: TargetOffset(0),
                len: foreign.out(end) as u64,
            };
            let mut offsets = Vec::new();
            for run in foreign.runs_of(run) {
                prop_assert_eq!(run.source_start.0, foreign.out(run.target_start.0));
                offsets.extend(run.target_start.0..run.target_start.0 + run.len as i64);
            }
            let ours: Vec<i64> = (0..end).filter(|at| !foreign.has(*at)).collect();
            prop_assert_eq!(offsets, ours);
        }
    }

    #[test]
    fn what_is_known_is_not_found_again() {
        let parts = [
            Part::Data(10),
            Part::Other(5),
            Part::Data(3),
            Part::Other(2),
        ];
        let (headers, next) = log(&parts);
        let settled = Settled {
            fillers: 0,
            strangers: 5,
        };
        let states = states(Some(next), None);
        let found = judged(&headers, (0, 20), &[(10, 15)], (&states, Some(settled)), 7);
        let foreign = vec![(18, 20)];
        assert_eq!(
            found,
            Some(Ok(Found {
                foreign,
                fillers: 0
            }))
        );
    }

    #[test]
    fn what_the_cleaner_or_an_operator_took_of_a_stranger_was_at_the_end() {
        let parts = [Part::Data(10), Part::Other(5), Part::Other(2)];
        let (headers, next) = log(&parts);
        let states = states(Some(next), Some(0));
        let exact = Some(Ok(Found {
            foreign: vec![(10, 17)],
            fillers: 0,
        }));
        // The cleaner left the last of them, or none.
        let last = [headers[0], headers[2]];
        assert_eq!(judged(&last, (0, 17), &[], (&states, None), 7), exact);
        assert_eq!(judged(&last[..1], (0, 17), &[], (&states, None), 7), exact);
        // Nobody sees what is below the log's start.
        assert_eq!(judged(&headers, (17, 17), &[], (&states, None), 7), exact);
        // What is gone between batches of ours may be anybody's.
        let (headers, next) = log(&[Part::Data(10), Part::Other(5), Part::Data(2)]);
        let states = self::states(Some(next), Some(0));
        let left = [headers[0], headers[2]];
        assert_eq!(judged(&left, (0, 17), &[], (&states, None), 7), None);
    }

    #[test]
    fn a_batch_of_ours_that_is_missing_is_no_strangers_work() {
        let (mut headers, next) = log(&[
            Part::Data(10),
            Part::Other(5),
            Part::Data(3),
            Part::Data(5),
            Part::Data(2),
        ]);
        // The one of five was refused, and the broker had forgotten the producer.
        headers.remove(3);
        headers[3].base_offset -= 5;
        let states = states(Some(next), Some(0));
        let missing = Mismatch::Missing { at: 18, missing: 5 };
        let found = judged(&headers, (0, 20), &[], (&states, None), 7);
        assert_eq!(found, Some(Err(missing)));
    }
}
