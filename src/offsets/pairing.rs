//! Which source offsets the records of a target log came from, where no map says so any more.
//!
//! A map is stored every few seconds. After a crash the target has records behind the stored map's
//! end. Until they are paired, records may have gone on either side: retention takes a log's
//! beginning, and a cleaner takes a record only together with all older ones of its key
//! (`LogCleaner`: what is below the key's newest offset goes). So of each key a *suffix* is left.
//!
//! # Laws (property-tested below)
//!
//! 1. Both sides rise, and a pair's target offset rises no faster than its source offset: each
//!    target record had a source offset of its own.
//! 2. Of each key the pairs are the last ones on the target: counted from the end, never from the
//!    beginning.
//! 3. Source records below `source start + target records` were copied for certain.
//! 4. A source record whose copy is gone from the target has its place in a gap there.

use std::collections::HashMap;
use std::ops::Range;

use super::{Run, SourceOffset, TargetOffset};

/// One record that is to be paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print {
    /// Its offset.
    pub offset: i64,
    /// A hash of all of it.
    pub record: u64,
    /// A hash of its key; one number for all where no cleaner looks at keys.
    pub key: u64,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paired {
    /// What was copied where, in order.
    pub runs: Vec<Run>,
    /// The first source offset that may not have been copied.
    pub source_next: i64,
    /// Target records whose source record is gone.
    pub orphans: usize,
}

/// The target's records, and the source's as far as they were read.
#[derive(Debug)]
pub struct Pairing {
    source_start: i64,
    range: Range<i64>,
    target: Vec<Print>,
    by_record: HashMap<u64, Vec<usize>>,
    source: Vec<Print>,
    /// Records up to here can have been copied, by a walk from the beginning.
    copied: usize,
    /// The first target record behind the walk, the ends of its last pair, and the records
    /// since then that found none.
    next: usize,
    ends: (i64, i64),
    unpaired: usize,
}

impl Pairing {
    /// `target` are the records in `range`, which begin no earlier than `source_start`.
    pub fn new(source_start: i64, range: Range<i64>, target: Vec<Print>) -> Self {
        let mut by_record: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, print) in target.iter().enumerate() {
            by_record.entry(print.record).or_default().push(index);
        }
        Self {
            source_start,
            ends: (source_start, range.start),
            range,
            target,
            by_record,
            source: Vec::new(),
            copied: 0,
            next: 0,
            unpaired: 0,
        }
    }

    /// Source records below this offset were copied for certain (law 3).
    pub fn certain(&self) -> i64 {
        self.source_start + (self.range.end - self.range.start)
    }

    /// Takes in the next source record; false when neither this one nor a later one can be paired.
    pub fn take(&mut self, print: Print) -> bool {
        let is_certain = print.offset < self.certain();
        let left = self.target.len() - self.next;
        if left == 0 && !is_certain {
            return false;
        }
        self.source.push(print);
        if let Some(index) = self.find(print) {
            self.next = index + 1;
            self.ends = (print.offset + 1, self.target[index].offset + 1);
            self.unpaired = 0;
            self.copied = self.source.len();
            return true;
        }
        self.unpaired += 1;
        is_certain || gaps(self.ends.1..self.range.end, left) >= self.unpaired
    }

    /// The first target record that this one can be, by the laws that hold whatever follows.
    fn find(&self, print: Print) -> Option<usize> {
        let same = self.by_record.get(&print.record)?;
        let from = same.partition_point(|index| *index < self.next);
        let last = self.ends.1 + (print.offset - self.ends.0);
        let fits = |index: &usize| {
            let range = self.ends.1..self.target[*index].offset;
            range.end <= last && gaps(range, *index - self.next) >= self.unpaired
        };
        same[from..].iter().copied().find(fits)
    }

    /// Pairs as many source records as the laws allow; `None` when they contradict what is there.
    pub fn finish(self) -> Option<Paired> {
        /// A walk that went too far did so by records that were written again with the same bytes.
        const STEPS: usize = 32;
        let certain = self.certain();
        let least = self.source.partition_point(|it| it.offset < certain);
        let mut count = self.copied.max(least);
        for step in 0.. {
            let failed_at = match self.pair(count) {
                Ok(paired) => return Some(paired),
                Err(failed_at) => failed_at,
            };
            if count <= least {
                return None;
            }
            let next = if step < STEPS { count - 1 } else { failed_at };
            count = next.min(count - 1).max(least);
        }
        None
    }

    /// Pairs the first `count` source records, or tells at which it failed.
    fn pair(&self, count: usize) -> Result<Paired, usize> {
        let mut of_key: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, print) in self.target.iter().enumerate() {
            of_key.entry(print.key).or_default().push(index);
        }
        let mut partners = vec![None; count];
        let mut before = self.target.len();
        for (at, print) in self.source[..count].iter().enumerate().rev() {
            let Some(index) = of_key.get_mut(&print.key).and_then(Vec::pop) else {
                continue;
            };
            if index >= before || self.target[index].record != print.record {
                return Err(at);
            }
            (partners[at], before) = (Some(index), index);
        }
        self.place(&partners)
    }

    /// Gives each record its target offset: its partner's, or the next one in a gap.
    fn place(&self, partners: &[Option<usize>]) -> Result<Paired, usize> {
        let start = (self.source_start, self.range.start);
        let (mut runs, mut index): (Vec<Run>, _) = (Vec::new(), 0);
        // The ends of all that was placed, and of the last pair.
        let (mut ends, mut pair_ends) = (start, start);
        let lowest = self.lowest(partners);
        for (at, partner) in partners.iter().enumerate() {
            let source = self.source[at].offset;
            let target = match partner {
                Some(partner) => self.target[*partner].offset,
                None => self.next_gap(ends.1.max(lowest[at]), &mut index),
            };
            if target < ends.1 || target >= self.range.end {
                return Err(at);
            }
            if let Some(partner) = partner {
                if target - pair_ends.1 > source - pair_ends.0 {
                    return Err(at);
                }
                index = partner + 1;
                pair_ends = (source + 1, target + 1);
            }
            ends = (source + 1, target + 1);
            push(&mut runs, source, target);
        }
        let source_next = ends.0.max(pair_ends.0 + (self.range.end - pair_ends.1));
        let next = self.source.get(partners.len());
        if next.is_some_and(|next| next.offset < source_next) {
            return Err(partners.len().saturating_sub(1));
        }
        Ok(Paired {
            runs,
            source_next,
            orphans: self.target.len() - partners.iter().flatten().count(),
        })
    }

    /// How low each record's place can be: between it and the next pair, the target's offsets are
    /// no more than the source's.
    fn lowest(&self, partners: &[Option<usize>]) -> Vec<i64> {
        let mut lowest = vec![self.range.start; partners.len()];
        let mut next_pair = None;
        for (at, partner) in partners.iter().enumerate().rev() {
            let source = self.source[at].offset;
            if let Some(partner) = partner {
                next_pair = Some((source, self.target[*partner].offset));
            }
            if let Some((next_source, next_target)) = next_pair {
                lowest[at] = next_target - (next_source - source);
            }
        }
        lowest
    }

    /// The first target offset from `from` on that holds no record.
    fn next_gap(&self, from: i64, index: &mut usize) -> i64 {
        let mut offset = from;
        while let Some(print) = self.target.get(*index) {
            if print.offset > offset {
                break;
            }
            offset = offset.max(print.offset + 1);
            *index += 1;
        }
        offset
    }
}

fn push(runs: &mut Vec<Run>, source: i64, target: i64) {
    match runs.last_mut() {
        Some(last) if last.ends() == (SourceOffset(source), TargetOffset(target)) => last.len += 1,
        _ => runs.push(Run {
            source_start: SourceOffset(source),
            target_start: TargetOffset(target),
            len: 1,
        }),
    }
}

/// How many offsets of a range hold none of so many records.
fn gaps(range: Range<i64>, records: usize) -> usize {
    usize::try_from(range.end - range.start).map_or(0, |offsets| offsets.saturating_sub(records))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(offset: i64, key: u64, value: u64) -> Print {
        Print {
            offset,
            record: key << 32 | value,
            key,
        }
    }

    fn paired(
        source_start: i64,
        range: Range<i64>,
        target: &[Print],
        source: &[Print],
    ) -> Option<Paired> {
        let mut pairing = Pairing::new(source_start, range, target.to_vec());
        for print in source {
            if !pairing.take(*print) {
                break;
            }
        }
        pairing.finish()
    }

    fn pairs(paired: &Paired) -> Vec<(i64, i64)> {
        let runs = paired.runs.iter();
        runs.flat_map(|run| {
            (0..run.len as i64).map(|i| (run.source_start.0 + i, run.target_start.0 + i))
        })
        .collect()
    }

    /// What a cleaner leaves of records up to `end`: the newest of each key.
    fn clean(log: &[Print], end: usize) -> Vec<Print> {
        let newest: HashMap<u64, i64> = log[..end].iter().map(|it| (it.key, it.offset)).collect();
        let stays = |(at, it): &(usize, &Print)| *at >= end || newest[&it.key] == it.offset;
        log.iter()
            .enumerate()
            .filter(stays)
            .map(|(_, it)| *it)
            .collect()
    }

    #[test]
    fn what_the_cleaner_left_keeps_its_place_and_new_records_are_new() {
        let log: Vec<Print> = (0..40)
            .map(|i| print(100 + i, i as u64 % 4, i as u64))
            .collect();
        let target: Vec<Print> = (0..20)
            .map(|i| print(50 + i, i as u64 % 4, i as u64))
            .collect();
        let found = paired(100, 50..70, &target, &clean(&log, 20)).unwrap();
        assert_eq!(pairs(&found), [(116, 66), (117, 67), (118, 68), (119, 69)]);
        assert_eq!((found.source_next, found.orphans), (120, 16));
        // All of the copied ones were replaced meanwhile.
        let found = paired(100, 50..70, &target, &clean(&log, 40)).unwrap();
        assert_eq!((pairs(&found), found.source_next), (vec![], 120));
    }

    #[test]
    fn an_old_value_that_is_written_again_is_new() {
        let (z, y) = (7, 8);
        let target = [print(0, 1, z), print(1, 1, y)];
        let found = paired(0, 0..2, &target, &[print(2, 1, z)]).unwrap();
        assert_eq!((found.runs.len(), found.source_next), (0, 2));
    }

    #[test]
    fn of_equal_records_the_last_is_left() {
        let target = [print(0, 1, 7), print(1, 1, 7), print(2, 2, 0)];
        let found = paired(0, 0..3, &target, &[print(1, 1, 7), print(2, 2, 0)]).unwrap();
        assert_eq!(pairs(&found), [(1, 1), (2, 2)]);
    }

    #[test]
    fn other_records_contradict_the_target() {
        let target = [print(0, 0, 1), print(1, 0, 2)];
        assert_eq!(
            paired(0, 0..2, &target, &[print(0, 0, 5), print(1, 0, 6)]),
            None
        );
    }

    proptest! {
        /// A source with holes is copied up to some record; then either side is cleaned up to some
        /// record and loses its beginning. Each value is written once.
        #[test]
        fn every_record_that_is_left_keeps_its_place(
            keys in prop::collection::vec((0..4_u64, 0..3_i64), 1..60),
            copied in 0..60_usize,
            cleaned in 0..60_usize,
            target_cleaned in 0..60_usize,
            lost in 0..60_usize,
        ) {
            let mut offset = 10;
            let log: Vec<Print> = keys.iter().enumerate().map(|(at, (key, hole))| {
                offset += 1 + hole;
                print(offset, *key, at as u64)
            }).collect();
            let copied = copied.min(log.len());
            let full: Vec<Print> = (0..copied).map(|at| Print { offset: 5 + at as i64, ..log[at] }).collect();
            let true_next = copied.checked_sub(1).map_or(10, |last| log[last].offset + 1);
            // The active segment, so the newest record, is never cleaned.
            let target = clean(&full, target_cleaned.min(copied.saturating_sub(1)));
            let mut source = clean(&log, cleaned.min(log.len() - 1));
            source.retain(|it| it.offset > log[lost.min(log.len() - 1)].offset || lost >= copied);
            let found = paired(10, 5..5 + copied as i64, &target, &source).unwrap();
            let there: HashMap<u64, i64> = target.iter().map(|it| (it.record, it.offset)).collect();
            let by_offset: HashMap<i64, Print> = source.iter().map(|it| (it.offset, *it)).collect();
            for (from, to) in pairs(&found) {
                let print = by_offset[&from];
                prop_assert!(from < true_next, "{from} was never copied");
                match there.get(&print.record) {
                    Some(at) => prop_assert_eq!(*at, to),
                    None => prop_assert!(!target.iter().any(|it| it.offset == to)),
                }
            }
            prop_assert!(found.source_next <= true_next);
            // What is copied again is what the target has no record of, or has by now.
            for print in source.iter().filter(|it| it.offset < true_next && it.offset >= found.source_next) {
                prop_assert!(!there.contains_key(&print.record), "{print:?} is copied again");
            }
        }
    }
}
