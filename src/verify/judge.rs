//! What differs between the records of a range, record by record. Pure.

use std::collections::{HashMap, VecDeque};

use super::digest::RecordDigest;

/// One record of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its source offset; on the target the one that its place stands for.
    pub source_offset: i64,
    /// Its target offset; on the source the place that it must have, if it has one.
    pub target_offset: Option<i64>,
    /// What must be the same.
    pub digest: RecordDigest,
}

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The key.
    Key,
    /// The value.
    Value,
    /// The headers: their number, order, keys and values.
    Headers,
    /// The timestamp.
    Timestamp,
}

impl Part {
    /// The word for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
            Self::Headers => "headers",
            Self::Timestamp => "timestamp",
        }
    }
}

/// One difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Both have a record there, and they aren't the same.
    Changed {
        /// The source's.
        source: Entry,
        /// The target's.
        target: Entry,
    },
    /// The target has nothing there.
    Missing(Entry),
    /// The source has nothing there.
    Added(Entry),
}

impl Finding {
    /// The source offset.
    pub fn source_offset(&self) -> i64 {
        match self {
            Self::Changed { source, .. } => source.source_offset,
            Self::Missing(entry) | Self::Added(entry) => entry.source_offset,
        }
    }
}

/// The parts that differ.
pub fn parts(source: &RecordDigest, target: &RecordDigest) -> Vec<Part> {
    let mut parts = Vec::new();
    if (source.key, source.key_bytes) != (target.key, target.key_bytes) {
        parts.push(Part::Key);
    }
    if (source.value, source.value_bytes) != (target.value, target.value_bytes) {
        parts.push(Part::Value);
    }
    if (source.headers, source.header_count) != (target.headers, target.header_count) {
        parts.push(Part::Headers);
    }
    if source.timestamp_ms != target.timestamp_ms {
        parts.push(Part::Timestamp);
    }
    parts
}

/// Everything that differs, in order. Both sides are in the order of their offsets.
pub fn compare(source: &[Entry], target: &[Entry]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut copies = target.iter().peekable();
    for entry in source {
        let Some(place) = entry.target_offset else {
            findings.push(Finding::Missing(*entry));
            continue;
        };
        while let Some(stray) = copies.next_if(|copy| copy.target_offset < Some(place)) {
            findings.push(Finding::Added(*stray));
        }
        match copies.next_if(|copy| copy.target_offset == Some(place)) {
            None => findings.push(Finding::Missing(*entry)),
            Some(copy) if copy.digest != entry.digest => findings.push(Finding::Changed {
                source: *entry,
                target: *copy,
            }),
            Some(_) => {}
        }
    }
    findings.extend(copies.map(|copy| Finding::Added(*copy)));
    findings
}

/// For each finding the one that it changed places with, if there is one.
pub fn swaps(findings: &[Finding]) -> Vec<Option<usize>> {
    let mut waiting: HashMap<(RecordDigest, RecordDigest), VecDeque<usize>> = HashMap::new();
    let mut partners = vec![None; findings.len()];
    for (index, finding) in findings.iter().enumerate() {
        let Finding::Changed { source, target } = finding else {
            continue;
        };
        let crosswise = (target.digest, source.digest);
        match waiting.get_mut(&crosswise).and_then(VecDeque::pop_front) {
            Some(partner) => {
                partners[index] = Some(partner);
                partners[partner] = Some(index);
            }
            None => {
                let own = (source.digest, target.digest);
                waiting.entry(own).or_default().push_back(index);
            }
        }
    }
    partners
}

/// Whether a cleaner may have taken a record that only one side of a compacted topic has: a
/// tombstone, which goes after `delete.retention.ms`, one whose key was written again later, or one without
/// a key, from before it was compacted: it takes every one of those (`Cleaner.shouldRetainRecord`).
/// `last_seen` is where its key was seen last, on either side; `lives_on` whether the side without the
/// record shows an older value of its key. A cleaner takes that before the tombstone.
pub fn is_cleaned(entry: &Entry, last_seen: Option<i64>, lives_on: bool) -> bool {
    if !entry.digest.has_key() {
        return true;
    }
    let is_written_again = last_seen.is_some_and(|last| last > entry.source_offset);
    is_written_again || (entry.digest.is_tombstone() && !lives_on)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(number: u64) -> RecordDigest {
        RecordDigest {
            key: number % 3,
            value: number,
            headers: 0,
            timestamp_ms: 1_000 + number as i64,
            key_bytes: 1,
            value_bytes: 8,
            header_count: 0,
        }
    }

    fn entry(offset: i64) -> Entry {
        Entry {
            source_offset: offset,
            target_offset: Some(offset),
            digest: digest(offset as u64),
        }
    }

    fn range(offsets: std::ops::Range<i64>) -> Vec<Entry> {
        offsets.map(entry).collect()
    }

    proptest! {
        #[test]
        fn exactly_the_planted_faults_are_found(
            removed in proptest::collection::btree_set(0_i64..50, 0..5),
            added in proptest::collection::btree_set(50_i64..60, 0..5),
            changed in proptest::collection::btree_set(60_i64..100, 0..5),
        ) {
            // 50..60 is a hole on the source.
            let source: Vec<Entry> = range(0..100)
                .into_iter()
                .filter(|entry| !(50..60).contains(&entry.source_offset))
                .collect();
            let mut target = source.clone();
            target.retain(|entry| !removed.contains(&entry.source_offset));
            target.extend(added.iter().map(|offset| entry(*offset)));
            target.sort_by_key(|entry| entry.source_offset);
            for entry in &mut target {
                if changed.contains(&entry.source_offset) {
                    entry.digest.value += 1_000;
                }
            }
            let mut found: [Vec<i64>; 3] = Default::default();
            for finding in compare(&source, &target) {
                let kind = match finding {
                    Finding::Missing(_) => 0,
                    Finding::Added(_) => 1,
                    Finding::Changed { .. } => 2,
                };
                found[kind].push(finding.source_offset());
            }
            prop_assert_eq!(found, [removed, added, changed].map(|set| set.into_iter().collect::<Vec<_>>()));
        }
    }

    #[test]
    fn each_part_is_named() {
        let base = digest(1);
        let named = |other: RecordDigest| parts(&base, &other);
        assert_eq!(named(base), []);
        assert_eq!(
            named(RecordDigest {
                key_bytes: 0,
                ..base
            }),
            [Part::Key]
        );
        assert_eq!(
            named(RecordDigest {
                value_bytes: -1,
                value: 0,
                ..base
            }),
            [Part::Value]
        );
        assert_eq!(
            named(RecordDigest {
                header_count: 1,
                ..base
            }),
            [Part::Headers]
        );
        assert_eq!(
            named(RecordDigest {
                timestamp_ms: 0,
                ..base
            }),
            [Part::Timestamp]
        );
    }

    #[test]
    fn a_record_without_a_place_is_missing() {
        let mut lost = entry(3);
        lost.target_offset = None;
        assert_eq!(compare(&[lost], &[]), [Finding::Missing(lost)]);
    }

    #[test]
    fn two_records_that_changed_places_are_found() {
        let source = range(0..6);
        let mut target = source.clone();
        (target[1].digest, target[4].digest) = (target[4].digest, target[1].digest);
        target[2].digest.value = 77;
        let findings = compare(&source, &target);
        let offsets: Vec<i64> = findings.iter().map(Finding::source_offset).collect();
        assert_eq!(offsets, [1, 2, 4]);
        assert_eq!(swaps(&findings), [Some(2), None, Some(0)]);
    }

    #[test]
    fn a_cleaner_takes_only_what_was_written_again() {
        let record = entry(5);
        assert!(!is_cleaned(&record, None, false));
        assert!(!is_cleaned(&record, Some(5), false));
        assert!(is_cleaned(&record, Some(6), false));
        let mut tombstone = record;
        tombstone.digest.value_bytes = -1;
        assert!(is_cleaned(&tombstone, None, false));
        // The delete hasn't come: the key is alive there.
        assert!(!is_cleaned(&tombstone, Some(5), true));
        assert!(is_cleaned(&tombstone, Some(6), true));
    }

    #[test]
    fn a_cleaner_takes_what_has_no_key_whatever_came_later() {
        let mut record = entry(5);
        (record.digest.key, record.digest.key_bytes) = (0, -1);
        assert!(is_cleaned(&record, None, false));
        record.digest.key_bytes = 0;
        assert!(!is_cleaned(&record, None, false), "an empty key is a key");
    }
}
