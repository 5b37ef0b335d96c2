//! What must hold after every cut-over, whatever happened. Pure: applications' [`Pages`] are
//! compared with what is in the logs, and each law returns what breaks it, a line each.

use std::collections::{BTreeMap, BTreeSet};

use super::book::{Pages, Partition, Read};
use super::failover::Place;

/// What a reader finds in the topics of a cluster.
pub type Log = BTreeMap<Place, String>;

/// Offsets of the old primary that were never copied: from, to (exclusive); one for each unplanned
/// failover.
pub type OrphanRanges = BTreeMap<Partition, Vec<(i64, i64)>>;

/// What a group may read again after it was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// Nothing: the cut-over was planned.
    Nothing,
    /// What lies at or beyond the position that had been copied for it, by partition; without a
    /// position all of it.
    From(BTreeMap<Partition, i64>),
}

/// More than so many of a kind tell nothing new.
const SHOWN_MAX: usize = 8;

fn partition(place: &Place) -> Partition {
    (place.0.clone(), place.1)
}

/// Whether a place is one of these orphans.
pub fn is_orphan(ranges: &OrphanRanges, place: &Place) -> bool {
    let mut of_partition = ranges.get(&partition(place)).into_iter().flatten();
    of_partition.any(|(from, to)| (*from..*to).contains(&place.2))
}

/// A log without the orphans in it, as those see it who never meet them.
pub fn without_orphans(log: &Log, ranges: &OrphanRanges) -> Log {
    let kept = log.iter().filter(|(place, _)| !is_orphan(ranges, place));
    kept.map(|(place, value)| (place.clone(), value.clone()))
        .collect()
}

/// `PRODUCER NUMBER`.
fn author(value: &str) -> Option<(&str, u64)> {
    let (producer, number) = value.split_once(' ')?;
    Some((producer, number.parse().ok()?))
}

/// Every acknowledged record is in the primary's log where it was acknowledged, or it is an orphan,
/// never both; and the log holds nothing else but what was sent without an answer.
pub fn each_acknowledged_once_or_orphaned(
    pages: &Pages,
    primary: &Log,
    orphans: &OrphanRanges,
) -> Vec<String> {
    let mut broken = pages.clashes.clone();
    for (place, value) in &pages.acknowledged {
        let found = primary.get(place);
        match (found == Some(value), is_orphan(orphans, place)) {
            (true, false) | (false, true) if found.is_none() || found == Some(value) => {}
            (true, true) => broken.push(format!("{place:?} {value} is there and an orphan")),
            _ => broken.push(format!(
                "{place:?} {value} was acknowledged; there is {found:?}"
            )),
        }
    }
    let mut places: BTreeMap<(Partition, &str), Vec<i64>> = BTreeMap::new();
    for (place, value) in primary {
        let at = (partition(place), value.as_str());
        places.entry(at).or_default().push(place.2);
        let is_known = pages.acknowledged.get(place) == Some(value)
            || pages.in_doubt.contains(&(partition(place), value.clone()));
        if !is_known {
            broken.push(format!("{place:?} {value} is there and nobody's"));
        }
    }
    for ((partition, value), offsets) in places {
        let is_in_doubt = pages
            .in_doubt
            .contains(&(partition.clone(), value.to_owned()));
        if offsets.len() > 1 && !is_in_doubt {
            broken.push(format!("{partition:?} {value} is there at {offsets:?}"));
        }
    }
    broken
}

/// The orphans are exactly what was acknowledged and not copied: on the old primary, each offset
/// range holds what is missing on the new one and nothing that is there.
pub fn orphans_are_what_is_missing(
    pages: &Pages,
    old: &Log,
    copied: &Log,
    orphans: &OrphanRanges,
) -> Vec<String> {
    let mut broken = Vec::new();
    for (place, value) in old {
        let there = copied.get(place);
        match (there, is_orphan(orphans, place)) {
            (Some(there), false) if there == value => {}
            (None, true) => {}
            (there, said) => broken.push(format!(
                "{place:?} {value} of the old primary: copied {there:?}, said to be an orphan: {said}"
            )),
        }
    }
    // And each of them was somebody's: it was acknowledged, or will be sent again.
    for (place, value) in old.iter().filter(|(place, _)| is_orphan(orphans, place)) {
        let is_known = pages.acknowledged.get(place) == Some(value)
            || pages.in_doubt.contains(&(partition(place), value.clone()));
        if !is_known {
            broken.push(format!("orphan {place:?} {value} is nobody's"));
        }
    }
    broken
}

/// What both logs hold at one place is one record, and below the old primary's end nothing is
/// missing on either side except orphans.
pub fn same_offsets(old: &Log, new: &Log, orphans: &OrphanRanges) -> Vec<String> {
    let mut ends: BTreeMap<Partition, i64> = BTreeMap::new();
    for place in old.keys() {
        let end = ends.entry(partition(place)).or_default();
        *end = (*end).max(place.2);
    }
    let mut broken = Vec::new();
    for (place, value) in old {
        match new.get(place) {
            Some(there) if there == value => {}
            None if is_orphan(orphans, place) => {}
            there => broken.push(format!("{place:?} is {value} and {there:?}")),
        }
    }
    for (place, value) in new {
        let is_below = ends
            .get(&partition(place))
            .is_some_and(|end| place.2 <= *end);
        if is_below && !old.contains_key(place) {
            broken.push(format!("{place:?} {value} is only on the new primary"));
        }
    }
    broken
}

/// What each producer had acknowledged by a partition is there in the order of its numbers, and
/// no number is left out except orphans.
pub fn order_is_kept(pages: &Pages, primary: &Log, orphans: &OrphanRanges) -> Vec<String> {
    let mut broken = Vec::new();
    let mut last: BTreeMap<(Partition, &str), u64> = BTreeMap::new();
    let mut numbers: BTreeMap<(Partition, &str), BTreeSet<u64>> = BTreeMap::new();
    for (place, value) in &pages.acknowledged {
        let Some((producer, number)) = author(value) else {
            broken.push(format!("{place:?} {value} is no record of an application"));
            continue;
        };
        let by = (partition(place), producer);
        numbers.entry(by.clone()).or_default().insert(number);
        if primary.get(place) != Some(value) {
            if !is_orphan(orphans, place) {
                broken.push(format!("{place:?} {value} is missing"));
            }
            continue;
        }
        if let Some(before) = last.insert(by, number)
            && before >= number
        {
            broken.push(format!("{place:?} {value} comes after {before}"));
        }
    }
    for ((partition, producer), numbers) in numbers {
        let left_out = (0..)
            .zip(&numbers)
            .find(|(wanted, number)| wanted != *number);
        if let Some((wanted, _)) = left_out {
            broken.push(format!(
                "{producer} never had {wanted} acknowledged in {partition:?}"
            ));
        }
    }
    broken
}

/// Each group was shown every record of the primary's log, as it is there.
pub fn each_group_read_all(pages: &Pages, primary: &Log, groups: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for group in groups {
        let reads = pages.reads.get(*group).map_or(&[][..], Vec::as_slice);
        let mut seen: BTreeMap<&Place, &str> = BTreeMap::new();
        for read in reads {
            if let Some(before) = seen.insert(&read.place, &read.value)
                && before != read.value
            {
                let Read { place, value, .. } = read;
                broken.push(format!("{group} read {before} and {value} at {place:?}"));
            }
        }
        for (place, value) in primary {
            if seen.get(place) != Some(&value.as_str()) {
                let read = seen.get(place);
                broken.push(format!("{group} read {read:?} at {place:?}, not {value}"));
            }
        }
    }
    broken
}

/// Nothing is read twice, except what a cut-over lets be read again. `moves[n]` is about the
/// group's (n+1)th move.
pub fn nothing_is_read_again(pages: &Pages, group: &str, moves: &[Again]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut seen: BTreeMap<&Place, usize> = BTreeMap::new();
    for read in pages.reads.get(group).into_iter().flatten() {
        let Some(before) = seen.insert(&read.place, read.era) else {
            continue;
        };
        // Any of the moves between the two may have taken the group back.
        let is_allowed =
            moves
                .get(before..read.era)
                .unwrap_or_default()
                .iter()
                .any(|it| match it {
                    Again::Nothing => false,
                    Again::From(positions) => {
                        let position = positions.get(&partition(&read.place));
                        position.is_none_or(|position| read.place.2 >= *position)
                    }
                });
        if !is_allowed {
            let Read { era, place, value } = read;
            broken.push(format!(
                "{group} read {place:?} {value} in era {before} and again in era {era}"
            ));
        }
    }
    broken
}

/// The positions that were copied for a group are no older than what it had committed by `at_ms`,
/// some time before the copy stopped, as far as the records behind them had been copied then.
pub fn positions_are_fresh(
    pages: &Pages,
    group: &str,
    era: usize,
    copied: &BTreeMap<Partition, i64>,
    copied_ends: &BTreeMap<Partition, i64>,
    at_ms: i64,
) -> Vec<String> {
    let mut wanted: BTreeMap<&Partition, i64> = BTreeMap::new();
    for committed in pages.commits.get(group).into_iter().flatten() {
        let is_old = committed.at_ms <= at_ms;
        let end = copied_ends.get(&committed.partition).copied().unwrap_or(0);
        if committed.era == era && is_old && committed.offset <= end {
            wanted.insert(&committed.partition, committed.offset);
        }
    }
    wanted
        .into_iter()
        .filter(|(partition, wanted)| copied.get(*partition).is_none_or(|it| it < wanted))
        .map(|(partition, wanted)| {
            let copied = copied.get(partition);
            format!("{group} had committed {wanted} of {partition:?}; copied was {copied:?}")
        })
        .collect()
}

/// Fails with the first of what breaks a law.
///
/// # Panics
/// When anything does.
pub fn assert_kept(law: &str, broken: &[String]) {
    let shown = &broken[..broken.len().min(SHOWN_MAX)];
    assert!(
        broken.is_empty(),
        "{law}: broken {} times, first {shown:#?}",
        broken.len()
    );
}
