//! What a stored map lacks after a crash, learned again from both logs.
//!
//! The map is stored every few seconds, behind the records. What the target has behind the stored
//! map's end is ours, but only the records themselves tell where it came from: while nobody copied,
//! the source's cleaner may have taken some of them (offsets stay, records go, and no offset that
//! can be asked for tells), its retention the first of them, and the target's cleaner others.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use super::error::Trouble;
use super::foreign::{self, Foreign};
use super::log_reader::{End, LogReader, Seen};
use super::partition::ON_THE_WAY_OFFSETS;
use super::resume::Candidate;
use super::shared::Flow;
use crate::batch::Record;
use crate::offsets::{OffsetMap, Paired, Pairing, Print, SourceOffset, TargetOffset, Translation};

/// Offsets from the end that are compared.
const COMPARED: i64 = 500;
/// Offsets from the end that are compared by a map.
const BY_MAP: i64 = 100;
/// Offsets from the end that are compared first where they ought to be the source's, and at most.
const PLACES_FIRST: i64 = 32;
const PLACES_LAST: i64 = 1 << 20;

/// How far the two logs reach.
pub(super) struct Logs {
    /// Where the source's log begins.
    pub source_start: i64,
    /// The target's log.
    pub target: Range<i64>,
}

/// Brings a stored map to the target's log end.
///
/// # Errors
/// [`Trouble::MapMismatch`] when the source's records aren't those that the target has.
pub(super) async fn complete(
    flow: &Flow,
    one: &Candidate,
    logs: Logs,
    map: &mut OffsetMap,
) -> Result<(), Trouble> {
    let unknown = map.target_end().0..logs.target.end;
    if unknown.is_empty() {
        return Ok(());
    }
    let mismatch = Trouble::MapMismatch {
        map_end: unknown.start,
        log_end: unknown.end,
    };
    let by_key = one.topic.rules.source_compacted || one.topic.rules.target_compacted;
    let reader = Reader {
        by_key,
        foreign: Foreign::new(foreign::known(flow, one)?),
    };
    let start = map.source_end().0;
    // The source must still have each of them where nothing takes records.
    let is_whole = !one.topic.rules.source_compacted && logs.source_start <= start;
    let first = unknown.start.max(logs.target.start);
    let mut target = reader.target(flow, one, first..unknown.end).await?;
    // The laws of pairing hold for what is ours: others' offsets are counted out, and in again.
    let foreign = &reader.foreign;
    for print in &mut target {
        print.offset = foreign.out(print.offset);
    }
    let ours = foreign.out(unknown.start)..foreign.out(unknown.end);
    let pairing = Pairing::new(start, ours, target);
    let paired = reader
        .source(flow, one, start.max(logs.source_start), pairing)
        .await?
        .filter(|paired| !is_whole || paired.orphans == 0)
        .ok_or_else(|| mismatch.clone())?;
    tracing::info!(
        topic = &*one.topic.source_topic,
        partition = one.partition,
        records = paired.runs.iter().map(|run| run.len).sum::<u64>(),
        gone_from_source = paired.orphans,
        "the end of the offset map was learned again from the records"
    );
    extend(map, &paired, foreign, logs.target.end).map_err(|_| mismatch)
}

/// Whether the source has the last records of the copy, right before `next`: the same ones, at the same offsets
/// where these are kept. Some hundred are compared.
///
/// # Errors
/// When a log can't be read.
pub(super) async fn has_last_records(
    flow: &Flow,
    one: &Candidate,
    next: i64,
    logs: Logs,
) -> Result<bool, Trouble> {
    let reader = Reader {
        by_key: false,
        foreign: Foreign::new(foreign::known(flow, one)?),
    };
    let first = |start: i64, end: i64| start.max(end - COMPARED);
    let range = first(logs.target.start, logs.target.end)..logs.target.end;
    let target = reader.target(flow, one, range).await?;
    let range = first(logs.source_start, next)..next;
    let source = reader.committed(flow, one, range).await?;
    let is_mapped = flow.is_mapped(&one.topic, one.partition);
    let same = |(one, other): (&Print, &Print)| {
        one.record == other.record && (is_mapped || one.offset == other.offset)
    };
    let count = source.len().min(target.len());
    Ok(count > 0 && source.iter().rev().zip(target.iter().rev()).all(same))
}

/// From where on the records of a copy aren't at the source's offsets any more, if so: looked at from the end of
/// the copy back. `places` are the offsets that both logs have.
///
/// Markers that were refused in the middle of a pipeline leave their offsets to what comes behind
/// ([`Partition::take_sendable`](super::partition::Partition::take_sendable)), so all of it up to the log's end stands
/// too low, by as many. The counts of our producers agree all the same. So the last records tell; that they are the
/// source's says nothing about times, which the target may have replaced.
///
/// # Errors
/// When a log can't be read.
pub(super) async fn parts_at(
    flow: &Flow,
    one: &Candidate,
    places: Range<i64>,
) -> Result<Option<i64>, Trouble> {
    let mut span = PLACES_FIRST;
    let (mut source, mut target) = (Held::default(), Held::default());
    let mut seen_from = places.end;
    loop {
        let first = places.start.max(places.end - span);
        let range = first..seen_from;
        if range.is_empty() {
            return Ok(None);
        }
        let (of_source, of_target) = (
            LogReader::of_source(flow, one).in_small_pieces(),
            LogReader::of_target(flow, one).in_small_pieces(),
        );
        let (before_source, before_target) = tokio::try_join!(
            held(&of_source, range.clone()),
            held(&of_target, range.clone()),
        )?;
        source.put_before(before_source);
        target.put_before(before_target);
        seen_from = first;
        let found = compare(&source, &target);
        let is_whole = first == places.start || span >= PLACES_LAST;
        let is_far = first == places.start || span >= ON_THE_WAY_OFFSETS;
        match found {
            Places::Agree if is_decisive(&source, &target) || is_far => return Ok(None),
            Places::Part { from: Some(from) } => return Ok(Some(from)),
            Places::Part { from: None } if is_whole => return Ok(Some(first)),
            Places::Unknown if is_whole => return Ok(None),
            Places::Part { from: None } | Places::Agree | Places::Unknown => span = wider(span),
        }
    }
}

/// Whether the last records of a mapped copy are those of the source to which its map leads; `None` where nothing can be
/// compared. `source` is what the source's log has up to the map's end. A record that a cleaner took says nothing.
///
/// # Errors
/// When a log can't be read.
pub(super) async fn compare_by_map(
    flow: &Flow,
    one: &Candidate,
    (map, foreign): (&OffsetMap, &Foreign),
    logs: &Logs,
    source: Range<i64>,
) -> Result<Option<bool>, Trouble> {
    let first = logs.target.start.max(logs.target.end - BY_MAP);
    let target = LogReader::of_target(flow, one).in_small_pieces();
    let copies = held(&target, first..logs.target.end).await?;
    let placed: Vec<(i64, i64)> = copies
        .records
        .keys()
        .filter(|offset| !foreign.has(**offset))
        .filter_map(|offset| Some((*offset, place(map, *offset)?)))
        .filter(|(_, from)| source.contains(from))
        .collect();
    let (Some((_, first)), Some((_, last))) = (placed.first(), placed.last()) else {
        return Ok(None);
    };
    // A hundred offsets of the target may span any number of the source's: those that aren't read say nothing.
    let first = (*first).max(*last + 1 - ON_THE_WAY_OFFSETS);
    let log = LogReader::of_source(flow, one);
    let records = held(&log, first..*last + 1).await?;
    let mut compared = None;
    for (offset, from) in placed {
        match records.records.get(&from) {
            Some(record) if copies.records.get(&offset) == Some(record) => compared = Some(true),
            Some(_) => return Ok(Some(false)),
            None if records.has_none(from) => return Ok(Some(false)),
            None => {}
        }
    }
    Ok(compared)
}

/// The source offset of which the map says that it is at this target offset.
fn place(map: &OffsetMap, offset: i64) -> Option<i64> {
    let Translation::Exact(source) = map.reverse(TargetOffset(offset)) else {
        return None;
    };
    // In a gap the next record is told.
    let is_there = map.translate(source) == Translation::Exact(TargetOffset(offset));
    is_there.then_some(source.0)
}

/// How much is looked at next: nothing is left out, and no more read than is asked for.
fn wider(span: i64) -> i64 {
    let most = match span < ON_THE_WAY_OFFSETS {
        true => ON_THE_WAY_OFFSETS,
        false => PLACES_LAST,
    };
    (span * 8).min(most)
}

/// What a part of a log has at which offset.
#[derive(Debug, Default)]
struct Held {
    /// Records of readers by their offset, and what they say.
    records: BTreeMap<i64, u64>,
    /// Their times.
    times_ms: BTreeMap<i64, i64>,
    /// Those that are tombstones: one of the target's may be ours, which has no place on the source (`tombstones`).
    tombstones: HashSet<i64>,
    /// Offsets that are surely there, with a record or with something else.
    whole: Vec<Range<i64>>,
}

impl Held {
    /// Puts the part of the log before it, as it was read. A batch that is in both is told twice.
    fn put_before(&mut self, mut before: Self) {
        self.records.append(&mut before.records);
        self.times_ms.append(&mut before.times_ms);
        self.tombstones.extend(before.tombstones);
        before.whole.append(&mut self.whole);
        self.whole = before.whole;
    }

    /// Whether something is at this offset that is no record of readers: no cleaner took one there.
    fn has_none(&self, offset: i64) -> bool {
        let next = self.whole.partition_point(|run| run.end <= offset);
        let is_there = self.whole.get(next).is_some_and(|run| run.start <= offset);
        is_there && !self.records.contains_key(&offset)
    }
}

async fn held(log: &LogReader<'_>, range: Range<i64>) -> Result<Held, Trouble> {
    let mut held = Held::default();
    let take = |seen: Seen| {
        match seen {
            Seen::Whole(offsets) => held.whole.push(offsets),
            Seen::Record(record) => {
                if record.value.is_none() {
                    held.tombstones.insert(record.offset);
                }
                held.times_ms.insert(record.offset, record.timestamp);
                held.records.insert(record.offset, content(&record));
            }
        }
        true
    };
    log.see_all(range, take).await?;
    Ok(held)
}

/// What a record says, whenever it was written.
fn content(record: &Record) -> u64 {
    let mut whole = DefaultHasher::new();
    (&record.key, &record.value).hash(&mut whole);
    (record.header_count, &record.headers).hash(&mut whole);
    whole.finish()
}

/// What a comparison of records by their offsets says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Places {
    /// Those that both have are the same.
    Agree,
    /// They differ, from behind this offset of a record that both have.
    Part { from: Option<i64> },
    /// Both have none in common, and neither lacks one that it must have.
    Unknown,
}

/// Compares the same part of both logs. A record that is missing says nothing where the other log has nothing at
/// all at that offset: a cleaner took it, whatever the topic's policy is by now. It takes no record on one side whose
/// copy it leaves at another offset on the other.
fn compare(source: &Held, target: &Held) -> Places {
    let offsets: BTreeSet<i64> = source
        .records
        .keys()
        .chain(target.records.keys())
        .copied()
        .collect();
    let (mut from, mut copies_alone, mut records_alone) = (None, Vec::new(), HashSet::new());
    for offset in offsets {
        match (source.records.get(&offset), target.records.get(&offset)) {
            (Some(record), Some(copy)) if record == copy => from = Some(offset + 1),
            (None, Some(_)) if target.tombstones.contains(&offset) => {}
            (None, Some(copy)) if !source.has_none(offset) => copies_alone.push((*copy, from)),
            (Some(record), None) if !target.has_none(offset) => {
                records_alone.insert(*record);
            }
            _ => return Places::Part { from },
        }
    }
    let moved = copies_alone
        .iter()
        .find(|(copy, _)| records_alone.contains(copy));
    match (moved, from) {
        (Some(&(_, from)), _) => Places::Part { from },
        (None, Some(_)) => Places::Agree,
        (None, None) => Places::Unknown,
    }
}

/// Whether logs that agree couldn't do so as well if one were shifted: records that are all the same, as of a heartbeat,
/// agree with their neighbours too. So the first one in sight must be another than all behind it, by what it says and
/// when; where a log has times of its own they tell nothing. If this isn't decisive more is looked at, up to all that was on
/// the way: in there the shift began, where the source has no record and a copy stands.
fn is_decisive(source: &Held, target: &Held) -> bool {
    let said = |offset: &i64| Some((source.records.get(offset)?, source.times_ms.get(offset)?));
    let is_same_time = |offset: &i64| source.times_ms.get(offset) == target.times_ms.get(offset);
    let mut both = source
        .records
        .keys()
        .filter(|it| target.records.contains_key(it));
    let Some(first) = both.next() else {
        return false;
    };
    let has_times = is_same_time(first) && both.clone().all(is_same_time);
    has_times && both.all(|other| said(other) != said(first))
}

fn extend(
    map: &mut OffsetMap,
    paired: &Paired,
    foreign: &Foreign,
    target_end: i64,
) -> Result<(), crate::offsets::MapError> {
    for run in paired.runs.iter().flat_map(|run| foreign.runs_of(*run)) {
        map.push_copied(run.source_start, run.target_start, run.len)?;
    }
    let from = map.source_end();
    let hole = u64::try_from(paired.source_next - from.0).unwrap_or(0);
    map.push_hole(SourceOffset(from.0), hole)?;
    map.push_gap(TargetOffset(target_end));
    Ok(())
}

/// Turns records into prints.
struct Reader {
    by_key: bool,
    /// What the target has of others came from nowhere.
    foreign: Foreign,
}

impl Reader {
    async fn target(
        &self,
        flow: &Flow,
        one: &Candidate,
        range: Range<i64>,
    ) -> Result<Vec<Print>, Trouble> {
        let mut prints = Vec::new();
        let take = |record: Record| {
            if !self.foreign.has(record.offset) {
                prints.push(self.print(&record));
            }
            true
        };
        LogReader::of_target(flow, one)
            .read_all(range, take)
            .await?;
        Ok(prints)
    }

    /// The source's committed records.
    async fn committed(
        &self,
        flow: &Flow,
        one: &Candidate,
        range: Range<i64>,
    ) -> Result<Vec<Print>, Trouble> {
        let mut prints = Vec::new();
        let take = |record: Record| {
            prints.push(self.print(&record));
            true
        };
        LogReader::of_source(flow, one)
            .read_all(range, take)
            .await?;
        Ok(prints)
    }

    /// Reads the source's records as long as they can be among those that were copied.
    async fn source(
        &self,
        flow: &Flow,
        one: &Candidate,
        start: i64,
        mut pairing: Pairing,
    ) -> Result<Option<Paired>, Trouble> {
        let log = LogReader::of_source(flow, one);
        let take = |record: Record| pairing.take(self.print(&record));
        if let End::Seen(high_watermark) = log.read(start..i64::MAX, take).await? {
            log.reaches(high_watermark, pairing.certain())?;
        }
        Ok(pairing.finish())
    }

    fn print(&self, record: &Record) -> Print {
        let mut key = DefaultHasher::new();
        if self.by_key {
            record.key.hash(&mut key);
        }
        let mut whole = DefaultHasher::new();
        record.timestamp.hash(&mut whole);
        (&record.key, &record.value).hash(&mut whole);
        (record.header_count, &record.headers).hash(&mut whole);
        Print {
            offset: record.offset,
            record: whole.finish(),
            key: key.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records at these offsets, and nothing but what a cleaner left of others; all below `whole` is there.
    fn log(records: &[(i64, u64)], whole: i64) -> Held {
        Held {
            records: records.iter().copied().collect(),
            times_ms: records
                .iter()
                .map(|(offset, _)| (*offset, *offset))
                .collect(),
            tombstones: HashSet::new(),
            whole: std::iter::once(0..whole).collect(),
        }
    }

    #[test]
    fn as_much_is_looked_at_as_was_on_the_way_and_no_more() {
        let spans: Vec<i64> = std::iter::successors(Some(PLACES_FIRST), |span| Some(wider(*span)))
            .take(7)
            .collect();
        let of_both = [32, 256, 2_048, 16_384, 32_768, 262_144, 1_048_576];
        assert_eq!(spans, of_both);
        assert!(spans.contains(&ON_THE_WAY_OFFSETS));
        assert_eq!(wider(PLACES_LAST), PLACES_LAST);
    }

    #[test]
    fn a_log_that_is_read_piece_by_piece_is_one() {
        let mut one = Held {
            whole: vec![3..6, 6..9],
            ..log(&[(5, 12), (7, 13)], 0)
        };
        one.put_before(Held {
            // The batch that begins before the piece is in this one, too.
            whole: vec![0..2, 3..6],
            tombstones: HashSet::from([1]),
            ..log(&[(1, 11), (4, 10)], 0)
        });
        assert_eq!(one.records.len(), 4);
        assert!(one.tombstones.contains(&1));
        let none: Vec<i64> = (0..10).filter(|offset| one.has_none(*offset)).collect();
        assert_eq!(none, [0, 3, 6, 8], "nothing is known of 2 and 9");
    }

    #[test]
    fn records_behind_a_lost_marker_part_from_the_last_that_is_at_its_place() {
        let source = [(0, 10), (1, 11), (3, 12), (5, 13)];
        let all = || log(&source, 7);
        assert_eq!(compare(&all(), &all()), Places::Agree);
        let lower = [(0, 10), (1, 11), (2, 12), (4, 13)];
        // Whatever a cleaner took of the fillers.
        for (whole, of_copy) in [(7, 6), (0, 6), (7, 0), (0, 0)] {
            let parts = compare(&log(&source, whole), &log(&lower, of_copy));
            assert_eq!(parts, Places::Part { from: Some(2) }, "{whole}, {of_copy}");
        }
        let lacking = log(&[(0, 10), (3, 12), (5, 13)], 6);
        assert_eq!(compare(&all(), &lacking), Places::Part { from: Some(1) });
        // Nothing of it is in sight that is at its place.
        let parts = compare(&log(&source[2..], 7), &log(&lower[3..], 6));
        assert_eq!(parts, Places::Part { from: None });
    }

    #[test]
    fn the_same_records_a_marker_apart_are_told_by_their_places() {
        let source = log(&[(0, 7), (2, 7), (4, 7)], 6);
        let lower = log(&[(0, 7), (2, 7), (3, 7)], 5);
        assert_eq!(compare(&source, &lower), Places::Part { from: Some(3) });
    }

    /// A heartbeat, again and again: a shifted log agrees with itself.
    #[test]
    fn records_that_are_all_the_same_decide_nothing_without_their_times() {
        let same: Vec<(i64, u64)> = (0..32).map(|offset| (offset, 7)).collect();
        let shifted = Held {
            times_ms: (0..32).map(|offset| (offset, offset + 1)).collect(),
            ..log(&same, 32)
        };
        assert_eq!(compare(&log(&same, 32), &shifted), Places::Agree);
        assert!(!is_decisive(&log(&same, 32), &shifted));
        assert!(
            is_decisive(&log(&same, 32), &log(&same, 32)),
            "their times are others"
        );
        let at_once = || Held {
            times_ms: (0..32).map(|offset| (offset, 5)).collect(),
            ..log(&same, 32)
        };
        assert!(!is_decisive(&at_once(), &at_once()));
        // Wherever the shift began, the source has no record and the copy has one.
        let with_hole: Vec<_> = same.iter().copied().filter(|(at, _)| *at != 3).collect();
        let part = compare(&log(&with_hole, 32), &shifted);
        assert_eq!(part, Places::Part { from: Some(3) });
    }

    #[test]
    fn what_a_cleaner_took_on_either_side_parts_nothing() {
        let (all, some) = ([(0, 10), (1, 11), (3, 12)], [(1, 11), (3, 12)]);
        let cleaned = || Held {
            whole: std::iter::once(1..4).collect(),
            ..log(&some, 0)
        };
        assert_eq!(compare(&log(&all, 4), &cleaned()), Places::Agree);
        assert_eq!(compare(&cleaned(), &log(&all, 4)), Places::Agree);
        // Something else is there instead.
        let part = Places::Part { from: None };
        assert_eq!(compare(&log(&all, 4), &log(&some, 4)), part);
        assert_eq!(compare(&log(&some, 4), &log(&all, 4)), part);
        assert_eq!(compare(&log(&[], 0), &log(&[], 0)), Places::Unknown);
        assert_eq!(compare(&log(&[], 0), &log(&all, 4)), Places::Unknown);
    }

    #[test]
    fn a_tombstone_of_ours_has_no_place_on_the_source() {
        let source = log(&[(0, 10), (3, 12)], 4);
        let target = Held {
            tombstones: HashSet::from([2]),
            ..log(&[(0, 10), (2, 99), (3, 12)], 4)
        };
        assert_eq!(compare(&source, &target), Places::Agree);
    }
}
