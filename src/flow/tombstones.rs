//! Tombstones that take the place of fillers. Pure.
//!
//! A tombstone that the source's cleaner removed left a hole, and the hole is filled on the target, offset by offset.
//! So there is a place for a tombstone of ours for each key that was missed, at an offset that no record of the
//! source has or will ever have, in front of whatever the source wrote to that key later.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::batch::Record;

/// What a record takes beside its key, at most.
const RECORD_BYTES: usize = 36;

/// Keys that the source has no more.
#[derive(Debug, Default)]
pub struct Tombstones {
    keys: VecDeque<Bytes>,
    /// Behind this source offset a key may be there again: it was looked for only up to there.
    until: i64,
    /// Their record time, milliseconds since the epoch.
    at_ms: i64,
    /// The first source offset behind the newest one.
    placed_to: i64,
    /// How many are placed.
    placed: u64,
}

/// How far the tombstones of a partition are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Keys whose tombstone is on the target.
    pub placed: u64,
    /// Keys for which there was no place.
    pub left: u64,
}

impl Tombstones {
    /// For these keys, which the source doesn't have before `until`.
    pub fn new(keys: Vec<Bytes>, until: i64, at_ms: i64) -> Self {
        Self {
            keys: keys.into(),
            until,
            at_ms,
            ..Self::default()
        }
    }

    /// Whether none is left to be placed.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The tombstones that take the first source offsets of the hole `from..to`, in one batch of at most `bytes`; none if
    /// none is left, or none may be there.
    pub fn place(&mut self, (from, to): (i64, i64), bytes: usize) -> Vec<Record> {
        let (mut records, mut left) = (Vec::new(), bytes);
        for offset in from..to.min(self.until) {
            let Some(key) = self.keys.front() else { break };
            let size = key.len() + RECORD_BYTES;
            if size > left {
                break;
            }
            left -= size;
            records.push(Record {
                offset,
                timestamp: self.at_ms,
                key: self.keys.pop_front(),
                value: None,
                header_count: 0,
                headers: Bytes::new(),
            });
            self.placed_to = offset + 1;
            self.placed += 1;
        }
        records
    }

    /// What became of them, once all up to `copied` is on the target: `None` before there is no more to come of it.
    pub fn outcome(&self, copied: i64) -> Option<Placed> {
        if self.until == 0 {
            return None;
        }
        let is_over = copied >= self.until || (self.keys.is_empty() && copied >= self.placed_to);
        is_over.then_some(Placed {
            placed: self.placed,
            left: self.keys.len() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(until: i64) -> Tombstones {
        let keys = ["a", "b", "c"].map(|key| Bytes::from_static(key.as_bytes()));
        Tombstones::new(keys.to_vec(), until, 7)
    }

    fn offsets(records: &[Record]) -> Vec<i64> {
        records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn holes_are_taken_from_their_beginning_until_no_key_is_left() {
        let mut it = three(100);
        assert_eq!(offsets(&it.place((10, 12), 1_000)), [10, 11]);
        assert_eq!(it.outcome(12), None);
        assert_eq!(offsets(&it.place((20, 25), 1_000)), [20]);
        assert!(it.place((21, 25), 1_000).is_empty());
        assert_eq!(it.outcome(20), None, "it isn't there yet");
        let all = Placed { placed: 3, left: 0 };
        assert_eq!(it.outcome(21), Some(all));
    }

    #[test]
    fn none_is_placed_where_its_key_may_be_there_again() {
        let mut it = three(11);
        assert_eq!(offsets(&it.place((10, 20), 1_000)), [10]);
        assert!(it.place((11, 20), 1_000).is_empty());
        let some = Placed { placed: 1, left: 2 };
        assert_eq!(it.outcome(11), Some(some));
    }

    #[test]
    fn without_keys_nothing_becomes_of_them() {
        assert_eq!(Tombstones::default().outcome(1_000), None);
    }

    #[test]
    fn a_batch_has_its_limit() {
        let mut it = three(100);
        let two = 2 * (RECORD_BYTES + 1);
        assert_eq!(offsets(&it.place((10, 20), two)), [10, 11]);
        assert_eq!(offsets(&it.place((12, 20), two)), [12]);
    }
}
