//! Ranges that differ, looked at again after a pause, record by record.
//!
//! What a retention or a cleaner was just taking, or a leader that moved in between, is no
//! difference any more then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::VerifyError;
use super::board::Unit;
use super::configs::Compaction;
use super::judge::{self, Entry, Finding};
use super::listed::Listed;
use super::records::{Entries, Last, LastSeen};
use super::scope::Place;
use super::sweep::{Manner, Readers};

/// Partitions whose records are held in memory at once.
const OPEN_MAX: usize = 3;
/// Records of a compacted partition that only one side has and whose keys are looked for; with more the partition
/// isn't compared whole. 80 bytes each.
const CLEANABLE_MAX: usize = if cfg!(test) { 4 } else { 500_000 };

/// One partition to be looked at again.
pub(super) struct Suspect {
    pub place: Arc<Place>,
    pub compaction: Compaction,
    /// The first source offset that both logs have.
    pub from: i64,
    /// The source offset behind the last one that is compared: what the source has from there on is no fault of a copy
    /// that lacks it, and no excuse either.
    pub to: i64,
    /// Ranges of source offsets, in order.
    pub ranges: Vec<Range<i64>>,
}

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    pub listed: Listed,
    /// Records that only one side has, as it may be.
    pub compacted: u64,
    pub failure: Option<String>,
    /// Records whose keys weren't looked for.
    left_out: usize,
}

impl Confirmed {
    /// Records that only one side has, and that a cleaner may have taken from the other one, if there is one.
    fn explain(&mut self, compaction: &Compaction, records: usize) {
        match compaction {
            Compaction::Unknown(why) if records > 0 => self.doubt(why, records),
            _ => self.compacted += records as u64,
        }
    }

    /// Records that nobody has judged are no "same".
    fn own_up(&mut self) {
        if self.left_out > 0 && self.failure.is_none() {
            self.failure = Some(format!(
                "{} records are on one side only, beyond the first {CLEANABLE_MAX} of the partition, and weren't looked at",
                self.left_out
            ));
        }
    }

    fn doubt(&mut self, why: &str, records: usize) {
        self.failure = Some(format!(
            "{records} record(s) are on one side only, and whether the topic is compacted isn't known: {why}"
        ));
    }
}

/// Looks at all of them; the answers are in the same order.
pub(super) fn look(
    readers: &Readers<'_>,
    suspects: &[Suspect],
) -> Result<Vec<Confirmed>, VerifyError> {
    let mut confirmed: Vec<Confirmed> = suspects.iter().map(|_| Confirmed::default()).collect();
    let mut cleanable: BTreeMap<usize, Vec<Finding>> = BTreeMap::new();
    let (mut units, mut owners) = (Vec::new(), Vec::new());
    for (index, suspect) in suspects.iter().enumerate() {
        for range in &suspect.ranges {
            owners.push(index);
            units.push(Unit {
                place: suspect.place.clone(),
                from: range.start,
                to: range.end,
            });
        }
    }
    let manner = Manner {
        open_max: OPEN_MAX,
        counts: false,
    };
    let compare = |unit: usize, _chunk: i64, source: Option<Entries>, target: Option<Entries>| {
        let index = owners[unit];
        let (suspect, confirmed) = (&suspects[index], &mut confirmed[index]);
        let list = |entries: Option<Entries>| entries.unwrap_or_default().0;
        let mut findings = judge::compare(&list(source), &list(target));
        if suspect.compaction != Compaction::NotCompacted {
            let waiting = cleanable.entry(index).or_default();
            let is_one_sided = |finding: &Finding| one_sided(finding).is_some();
            let (one, both) = findings.into_iter().partition(is_one_sided);
            findings = both;
            let one: Vec<Finding> = one;
            let room = CLEANABLE_MAX.saturating_sub(waiting.len()).min(one.len());
            confirmed.left_out += one.len() - room;
            waiting.extend_from_slice(&one[..room]);
        }
        confirmed.listed.add(findings);
    };
    let failed = readers.read(&units, manner, &|_| Entries::default(), Box::new(compare))?;
    for (unit, reason) in failed {
        confirmed[owners[unit]].failure = Some(reason);
    }
    judge_cleaned(readers, suspects, &cleanable, &mut confirmed)?;
    for (confirmed, suspect) in confirmed.iter_mut().zip(suspects) {
        confirmed.own_up();
        confirmed.listed.settle(&suspect.place);
    }
    Ok(confirmed)
}

/// The record that only one side has.
fn one_sided(finding: &Finding) -> Option<&Entry> {
    match finding {
        Finding::Missing(entry) | Finding::Added(entry) => Some(entry),
        Finding::Changed { .. } => None,
    }
}

/// Whether the target lacks a tombstone: then it may show an older value of the key.
fn lacks_tombstone(finding: &Finding) -> bool {
    matches!(finding, Finding::Missing(entry) if entry.digest.is_tombstone())
}

/// Looks for the keys of records that only one side has, up to the ends of both logs; from the beginning
/// where the target lacks a tombstone.
///
/// The target's cleaner takes a record only for a later one that the target has, or had: one within what is compared,
/// which is judged itself. A source that has gone on meanwhile explains nothing.
fn judge_cleaned(
    readers: &Readers<'_>,
    suspects: &[Suspect],
    cleanable: &BTreeMap<usize, Vec<Finding>>,
    confirmed: &mut [Confirmed],
) -> Result<(), VerifyError> {
    let asked: Vec<(&usize, &Vec<Finding>)> = cleanable
        .iter()
        .filter(|(_, findings)| !findings.is_empty())
        .collect();
    let mut units = Vec::new();
    let mut wanted = Vec::new();
    for (index, findings) in &asked {
        let suspect = &suspects[**index];
        let first = findings.iter().map(Finding::source_offset).min();
        let from = match findings.iter().any(lacks_tombstone) {
            true => suspect.from,
            false => first.unwrap_or(0),
        };
        units.push(Unit {
            place: suspect.place.clone(),
            from,
            to: i64::MAX,
        });
        let keys = findings.iter().filter_map(one_sided);
        wanted.push(Arc::new(
            keys.filter(|entry| entry.digest.has_key())
                .map(|entry| entry.digest.key)
                .collect::<HashSet<u64>>(),
        ));
    }
    let mut last: Vec<Seen> = units.iter().map(|_| Seen::default()).collect();
    let manner = Manner {
        open_max: OPEN_MAX,
        counts: false,
    };
    let merge = |unit: usize, _chunk: i64, source: Option<LastSeen>, target: Option<LastSeen>| {
        last[unit].add(source, target);
    };
    let make = |unit: usize| LastSeen::new(wanted[unit].clone(), suspects[*asked[unit].0].to);
    let failed = readers.read(&units, manner, &make, Box::new(merge))?;
    for (unit, reason) in failed {
        confirmed[*asked[unit].0].failure = Some(reason);
    }
    for ((index, findings), last) in asked.into_iter().zip(last) {
        let confirmed = &mut confirmed[*index];
        if confirmed.failure.is_some() {
            continue;
        }
        let is_cleaned = |finding: &Finding| {
            let Some(entry) = one_sided(finding) else {
                return false;
            };
            let key = entry.digest.key;
            let lives_on = lacks_tombstone(finding) && last.lives_on_target(key);
            let last_seen = match finding {
                Finding::Missing(_) => last.known_to_target.get(&key),
                _ => last.anywhere.get(&key),
            };
            judge::is_cleaned(entry, last_seen.copied(), lives_on)
        };
        let (cleaned, faults): (Vec<Finding>, Vec<Finding>) =
            findings.iter().copied().partition(is_cleaned);
        confirmed.explain(&suspects[*index].compaction, cleaned.len());
        confirmed.listed.add(faults);
    }
    Ok(())
}

/// Where keys were seen last, by source offset.
#[derive(Default)]
struct Seen {
    /// On either side.
    anywhere: HashMap<u64, i64>,
    /// On the target, or on the source within what is compared.
    known_to_target: HashMap<u64, i64>,
    on_target: HashMap<u64, Last>,
}

impl Seen {
    fn add(&mut self, source: Option<LastSeen>, target: Option<LastSeen>) {
        if let Some(source) = source {
            note(&mut self.anywhere, source.last.iter().chain(&source.later));
            note(&mut self.known_to_target, &source.last);
        }
        if let Some(target) = target {
            note(&mut self.anywhere, target.last.iter().chain(&target.later));
            note(
                &mut self.known_to_target,
                target.last.iter().chain(&target.later),
            );
            for (key, last) in target.last.into_iter().chain(target.later) {
                let known = self.on_target.entry(key).or_insert(last);
                *known = last.max(*known);
            }
        }
    }

    fn lives_on_target(&self, key: u64) -> bool {
        self.on_target.get(&key).is_some_and(|it| !it.is_tombstone)
    }
}

fn note<'a>(known: &mut HashMap<u64, i64>, seen: impl IntoIterator<Item = (&'a u64, &'a Last)>) {
    for (key, last) in seen {
        let known = known.entry(*key).or_insert(last.source_offset);
        *known = last.source_offset.max(*known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;

    /// What one side has of the key, by source offset, where 8 is the end of what is compared.
    fn side(offsets: &[i64]) -> Option<LastSeen> {
        let mut seen = LastSeen::new(Arc::default(), 8);
        for offset in offsets {
            let last = Last {
                source_offset: *offset,
                is_tombstone: false,
            };
            match *offset < 8 {
                true => seen.last.insert(KEY, last),
                false => seen.later.insert(KEY, last),
            };
        }
        Some(seen)
    }

    #[test]
    fn what_the_source_wrote_since_takes_nothing_from_the_target() {
        let mut seen = Seen::default();
        seen.add(side(&[5, 9]), side(&[]));
        assert_eq!(seen.known_to_target[&KEY], 5);
        assert_eq!(seen.anywhere[&KEY], 9, "its own cleaner takes for that");
        seen.add(None, side(&[9]));
        assert_eq!(seen.known_to_target[&KEY], 9, "the copy has gone on");
    }

    #[test]
    fn what_nobody_looked_at_is_said() {
        let mut confirmed = Confirmed::default();
        confirmed.own_up();
        assert_eq!(confirmed.failure, None);
        confirmed.left_out = 3;
        confirmed.own_up();
        let failure = confirmed.failure.unwrap_or_default();
        assert!(failure.starts_with("3 records"), "{failure}");
    }
}
