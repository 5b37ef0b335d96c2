//! Whether two logs hold the same in a range of offsets. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::batch::Record;

/// What a log has from one offset up to another, by the source's offsets.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Records that readers are shown.
    pub records: BTreeMap<i64, Shown>,
    /// Offsets of markers and of aborted records: taken, and by no record.
    pub taken: Vec<Range<i64>>,
    /// What is at this offset and behind it isn't known.
    pub to: i64,
}

/// A record, and whether its time is the broker's.
#[derive(Debug)]
pub(super) struct Shown {
    pub record: Record,
    pub is_append_time: bool,
}

impl Piece {
    fn is_taken(&self, offset: i64) -> bool {
        self.taken.iter().any(|range| range.contains(&offset))
    }
}

/// What is no sign of a difference, by the source's offsets.
pub(super) struct Rules<'a> {
    /// What one side alone has since earlier cut-overs.
    pub is_excused: &'a (dyn Fn(i64) -> bool + Sync),
    /// Whether a record of the source here was copied, as its map tells; `None` without a map.
    pub is_mapped: &'a (dyn Fn(i64) -> Option<bool> + Sync),
}

/// What a comparison has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Records before the first difference that both have.
    pub same: u64,
    /// The first offset at which they differ.
    pub differs_at: Option<i64>,
}

/// Compares `old`, a log that was copied, with `new`, its copy. What a cleaner removed from either
/// of them says nothing: only what stands in its place does.
pub(super) fn compare(old: &Piece, new: &Piece, range: Range<i64>, rules: &Rules<'_>) -> Compared {
    let mut compared = Compared::default();
    let within = |piece: &Piece| -> Vec<i64> {
        let records = piece.records.range(range.clone());
        records.map(|(offset, _)| *offset).collect()
    };
    let offsets: BTreeSet<i64> = within(old).into_iter().chain(within(new)).collect();
    for offset in offsets {
        if (rules.is_excused)(offset) {
            continue;
        }
        let is_same = match (old.records.get(&offset), new.records.get(&offset)) {
            (Some(old), Some(new)) => {
                let is_same = are_same(old, new);
                compared.same += u64::from(is_same);
                is_same
            }
            (Some(_), None) => match (rules.is_mapped)(offset) {
                Some(was_copied) => was_copied,
                None => !new.is_taken(offset),
            },
            (None, _) => !old.is_taken(offset),
        };
        if !is_same {
            compared.differs_at = Some(offset);
            break;
        }
    }
    compared
}

fn are_same(old: &Shown, new: &Shown) -> bool {
    let content = |it: &Record| {
        let headers = (it.header_count, it.headers.clone());
        (it.key.clone(), it.value.clone(), headers)
    };
    let has_time = !new.is_append_time;
    content(&old.record) == content(&new.record)
        && (!has_time || old.record.timestamp == new.record.timestamp)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn shown(offset: i64, value: &str) -> (i64, Shown) {
        let record = Record {
            offset,
            timestamp: 7,
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            header_count: 0,
            headers: Bytes::new(),
        };
        let is_append_time = false;
        let shown = Shown {
            record,
            is_append_time,
        };
        (offset, shown)
    }

    fn piece(records: &[(i64, &str)], taken: &[i64]) -> Piece {
        Piece {
            records: records.iter().map(|(at, it)| shown(*at, it)).collect(),
            taken: taken.iter().map(|at| *at..at + 1).collect(),
            to: 10,
        }
    }

    fn found(old: &Piece, new: &Piece) -> (u64, Option<i64>) {
        let rules = Rules {
            is_excused: &|offset| offset == 9,
            is_mapped: &|_| None,
        };
        let found = compare(old, new, 0..10, &rules);
        (found.same, found.differs_at)
    }

    #[test]
    fn another_record_is_a_difference() {
        let old = piece(&[(0, "a"), (1, "b"), (2, "x")], &[]);
        let new = piece(&[(0, "a"), (1, "b"), (2, "c")], &[]);
        assert_eq!(found(&old, &new), (2, Some(2)));
        assert_eq!(found(&new, &new), (3, None));
    }

    #[test]
    fn what_a_cleaner_took_says_nothing() {
        let old = piece(&[(0, "a"), (2, "c")], &[]);
        let new = piece(&[(1, "b"), (2, "c")], &[]);
        assert_eq!(found(&old, &new), (1, None));
    }

    #[test]
    fn a_marker_in_a_records_place_is_a_difference() {
        let records = piece(&[(0, "a"), (1, "b")], &[]);
        let marker = piece(&[(0, "a")], &[1]);
        assert_eq!(found(&records, &marker), (1, Some(1)));
        assert_eq!(found(&marker, &records), (1, Some(1)));
        assert_eq!(found(&marker, &marker), (1, None));
    }

    #[test]
    fn what_only_one_side_ever_had_is_excused() {
        let old = piece(&[(0, "a"), (9, "stranger")], &[]);
        let new = piece(&[(0, "a")], &[9]);
        assert_eq!(found(&old, &new), (1, None));
    }

    #[test]
    fn a_time_of_the_brokers_own_is_no_difference() {
        let old = piece(&[(0, "a")], &[]);
        let mut new = piece(&[(0, "a")], &[]);
        let copy = new.records.get_mut(&0).expect("it is there");
        copy.record.timestamp = 8;
        assert_eq!(found(&old, &new), (0, Some(0)));
        let copy = new.records.get_mut(&0).expect("it is there");
        copy.is_append_time = true;
        assert_eq!(found(&old, &new), (1, None));
    }

    #[test]
    fn the_map_tells_what_was_copied() {
        let old = piece(&[(0, "a"), (1, "b"), (2, "c")], &[]);
        let new = piece(&[(0, "a")], &[]);
        let rules = Rules {
            is_excused: &|_| false,
            is_mapped: &|offset| Some(offset != 2),
        };
        let found = compare(&old, &new, 0..10, &rules);
        assert_eq!(found.differs_at, Some(2));
    }
}
