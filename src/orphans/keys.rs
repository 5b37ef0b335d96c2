//! Counting distinct keys in bounded memory. Pure.

use std::collections::BTreeSet;

use twox_hash::XxHash3_64;

/// So many hashes are kept; up to here the count is exact (1 MiB at most).
const KEPT_MAX: usize = 16_384;

/// A hash of keys, another one in every process, so that nobody can choose keys that collide.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHash(u64);

impl KeyHash {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }

    pub(super) fn of(self, key: &[u8]) -> u64 {
        XxHash3_64::oneshot_with_seed(self.0, key)
    }
}

/// How many different hashes were seen: exactly while they are few, else by the smallest ones (how
/// densely they lie tells how many there are; within about 1 %).
#[derive(Debug, Default)]
pub(super) struct Distinct {
    smallest: BTreeSet<u64>,
    overflowed: bool,
}

impl Distinct {
    pub(super) fn add(&mut self, hash: u64) {
        if self.overflowed && self.smallest.last().is_some_and(|last| hash >= *last) {
            return;
        }
        self.smallest.insert(hash);
        if self.smallest.len() > KEPT_MAX {
            self.smallest.pop_last();
            self.overflowed = true;
        }
    }

    /// The count, and whether it is exact.
    pub(super) fn count(&self) -> (u64, bool) {
        let kept = self.smallest.len() as u64;
        if !self.overflowed {
            return (kept, true);
        }
        let largest = self.smallest.last().copied().unwrap_or(u64::MAX).max(1);
        let estimate = (kept - 1) as f64 * (u64::MAX as f64 / largest as f64);
        (estimate as u64, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(keys: u64, each: u64) -> (u64, bool) {
        let hash = KeyHash(7);
        let mut distinct = Distinct::default();
        for number in 0..keys * each {
            distinct.add(hash.of(&(number % keys).to_be_bytes()));
        }
        assert!(distinct.smallest.len() <= KEPT_MAX);
        distinct.count()
    }

    #[test]
    fn few_keys_are_counted_exactly() {
        assert_eq!(Distinct::default().count(), (0, true));
        assert_eq!(counted(1, 5), (1, true));
        assert_eq!(counted(KEPT_MAX as u64, 2), (KEPT_MAX as u64, true));
    }

    #[test]
    fn many_keys_are_estimated() {
        let (count, exact) = counted(200_000, 2);
        assert!(!exact);
        assert!((190_000..210_000).contains(&count), "{count}");
    }
}
