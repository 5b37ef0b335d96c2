//! Ranges that differ, looked at again after a pause, record by record.
//!
//! What a retention or a cleaner was just taking, or a leader that moved in between, is no
//! difference any more then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::VerifyError;
use super::board::Unit;
use super::judge::{self, Entry, Finding};
use super::listed::Listed;
use super::records::{Entries, LastSeen};
use super::scope::Place;
use super::sweep::{Manner, Readers};

/// Partitions whose records are held in memory at once.
const OPEN_MAX: usize = 3;
/// Records of a compacted partition that only one side has and whose keys are looked for; more are
/// counted as not comparable. 80 bytes each.
const CLEANABLE_MAX: usize = 500_000;

/// One partition to be looked at again.
pub(super) struct Suspect {
    pub place: Arc<Place>,
    pub is_compacted: bool,
    /// Ranges of source offsets, in order.
    pub ranges: Vec<Range<i64>>,
}

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    pub listed: Listed,
    /// Records that only one side has, as it may be.
    pub compacted: u64,
    pub not_comparable: i64,
    pub failure: Option<String>,
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
        if suspect.is_compacted {
            let waiting = cleanable.entry(index).or_default();
            let is_one_sided = |finding: &Finding| one_sided(finding).is_some();
            let (one, both) = findings.into_iter().partition(is_one_sided);
            findings = both;
            let one: Vec<Finding> = one;
            let room = CLEANABLE_MAX.saturating_sub(waiting.len()).min(one.len());
            confirmed.not_comparable += (one.len() - room) as i64;
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

/// Looks for the keys of records that only one side has, up to the ends of both logs.
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
        let first = findings.iter().map(Finding::source_offset).min();
        units.push(Unit {
            place: suspects[**index].place.clone(),
            from: first.unwrap_or(0),
            to: i64::MAX,
        });
        let keys = findings.iter().filter_map(one_sided);
        wanted.push(Arc::new(
            keys.map(|entry| entry.digest.key).collect::<HashSet<u64>>(),
        ));
    }
    let mut last: Vec<HashMap<u64, i64>> = units.iter().map(|_| HashMap::new()).collect();
    let manner = Manner {
        open_max: OPEN_MAX,
        counts: false,
    };
    let merge = |unit: usize, _chunk: i64, source: Option<LastSeen>, target: Option<LastSeen>| {
        for seen in [source, target].into_iter().flatten() {
            for (key, offset) in seen.last {
                let known = last[unit].entry(key).or_insert(offset);
                *known = offset.max(*known);
            }
        }
    };
    let make = |unit: usize| LastSeen {
        wanted: wanted[unit].clone(),
        last: HashMap::new(),
    };
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
            one_sided(finding)
                .is_some_and(|entry| judge::is_cleaned(entry, last.get(&entry.digest.key).copied()))
        };
        let (cleaned, faults): (Vec<Finding>, Vec<Finding>) =
            findings.iter().copied().partition(is_cleaned);
        confirmed.compacted += cleaned.len() as u64;
        confirmed.listed.add(faults);
    }
    Ok(())
}
