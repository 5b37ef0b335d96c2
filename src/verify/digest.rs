//! Digests of records, and of ranges of them, so that a difference is found by halving.
//!
//! XXH3 (`twox-hash`, which the LZ4 frames need anyway): it runs at the speed of memory, and what is
//! looked for is damage, not an attacker's collision. It is seeded anew for every run, so that a
//! digest in a report can't be used to guess what a record holds.

use std::ops::Range;

use twox_hash::{XxHash3_64, XxHash3_128};

/// Offsets per leaf: what a difference is narrowed down to before records are looked at.
pub const LEAF_OFFSETS: i64 = 256;
/// Leaves per chunk.
pub const CHUNK_LEAVES: usize = 256;
/// Offsets per chunk: what is compared as one number.
pub const CHUNK_OFFSETS: i64 = LEAF_OFFSETS * CHUNK_LEAVES as i64;

/// The number of the chunk that holds a source offset.
pub fn chunk_of(source_offset: i64) -> i64 {
    source_offset.div_euclid(CHUNK_OFFSETS)
}

/// Makes digests that can be compared with those of the same seed only.
#[derive(Clone, Copy)]
pub struct Hasher {
    seed: u64,
}

impl Hasher {
    /// With this seed; it must not be shown.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Of a key or value; 0 stands for null, which the length tells from anything else.
    pub fn bytes(self, bytes: Option<&[u8]>) -> u64 {
        bytes.map_or(0, |bytes| XxHash3_64::oneshot_with_seed(self.seed, bytes))
    }

    /// One header more, in order.
    pub fn header(self, before: u64, key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
        let mut parts = [0; 40];
        put(&mut parts, 0, before);
        put(&mut parts, 1, self.bytes(key));
        put(&mut parts, 2, length(key) as u64);
        put(&mut parts, 3, self.bytes(value));
        put(&mut parts, 4, length(value) as u64);
        XxHash3_64::oneshot_with_seed(self.seed, &parts)
    }

    /// One record more, at its place on the target, in order.
    pub fn fold(self, before: u128, target_offset: i64, record: &RecordDigest) -> u128 {
        let mut parts = [0; 80];
        parts[..16].copy_from_slice(&before.to_le_bytes());
        put(&mut parts, 2, target_offset as u64);
        put(&mut parts, 3, record.key);
        put(&mut parts, 4, record.value);
        put(&mut parts, 5, record.headers);
        put(&mut parts, 6, record.timestamp_ms as u64);
        put(&mut parts, 7, record.key_bytes as u64);
        put(&mut parts, 8, record.value_bytes as u64);
        put(&mut parts, 9, u64::from(record.header_count));
        XxHash3_128::oneshot_with_seed(self.seed, &parts)
    }

    fn join(self, left: u128, right: u128) -> u128 {
        if left == 0 && right == 0 {
            return 0;
        }
        let mut parts = [0; 32];
        parts[..16].copy_from_slice(&left.to_le_bytes());
        parts[16..].copy_from_slice(&right.to_le_bytes());
        XxHash3_128::oneshot_with_seed(self.seed, &parts)
    }
}

fn put(parts: &mut [u8], index: usize, value: u64) {
    parts[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
}

/// The length of a key or value; -1 for null.
pub fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
}

/// All that must be the same of a record, without what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordDigest {
    /// Of the key.
    pub key: u64,
    /// Of the value.
    pub value: u64,
    /// Of all headers, in order.
    pub headers: u64,
    /// Milliseconds since the epoch; -1 without one.
    pub timestamp_ms: i64,
    /// The key's length; -1 for null.
    pub key_bytes: i64,
    /// The value's length; -1 for null.
    pub value_bytes: i64,
    /// How many headers.
    pub header_count: u32,
}

impl RecordDigest {
    /// Whether it has a key: an empty one is one.
    pub fn has_key(&self) -> bool {
        self.key_bytes >= 0
    }

    /// Whether it deletes its key in a compacted topic.
    pub fn is_tombstone(&self) -> bool {
        self.value_bytes < 0
    }
}

/// The digests of one chunk: 0 for a leaf without records.
#[derive(Clone, Debug)]
pub struct ChunkDigest {
    leaves: Box<[u128; CHUNK_LEAVES]>,
}

impl Default for ChunkDigest {
    fn default() -> Self {
        Self {
            leaves: Box::new([0; CHUNK_LEAVES]),
        }
    }
}

impl ChunkDigest {
    /// Adds a record by its source offset. Records come in the order of their offsets.
    pub fn add(
        &mut self,
        hasher: Hasher,
        source_offset: i64,
        target_offset: i64,
        record: &RecordDigest,
    ) {
        let within = source_offset.rem_euclid(CHUNK_OFFSETS) / LEAF_OFFSETS;
        // Less than CHUNK_LEAVES by the line above.
        let leaf = &mut self.leaves[within as usize];
        *leaf = hasher.fold(*leaf, target_offset, record);
    }
}

/// The leaves that differ, as ranges of leaf numbers, neighbours joined. Equal halves are not
/// looked into.
pub fn differing_leaves(
    hasher: Hasher,
    left: &ChunkDigest,
    right: &ChunkDigest,
) -> Vec<Range<usize>> {
    let (left, right) = (Tree::new(hasher, left), Tree::new(hasher, right));
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut open = vec![1];
    while let Some(node) = open.pop() {
        if left.nodes[node] == right.nodes[node] {
            continue;
        }
        if node < CHUNK_LEAVES {
            // The right half is put first, so that the left one is taken first.
            open.push(2 * node + 1);
            open.push(2 * node);
            continue;
        }
        let leaf = node - CHUNK_LEAVES;
        match found.last_mut() {
            Some(last) if last.end == leaf => last.end += 1,
            _ => found.push(leaf..leaf + 1),
        }
    }
    found
}

/// A binary tree over a chunk's leaves; node 1 is the root, node `n` has `2n` and `2n + 1`.
struct Tree {
    nodes: Vec<u128>,
}

impl Tree {
    fn new(hasher: Hasher, chunk: &ChunkDigest) -> Self {
        let mut nodes = vec![0; 2 * CHUNK_LEAVES];
        nodes[CHUNK_LEAVES..].copy_from_slice(&*chunk.leaves);
        for node in (1..CHUNK_LEAVES).rev() {
            nodes[node] = hasher.join(nodes[2 * node], nodes[2 * node + 1]);
        }
        Self { nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const HASHER: Hasher = Hasher { seed: 7 };

    fn record(number: i64) -> RecordDigest {
        let text = number.to_le_bytes();
        RecordDigest {
            key: HASHER.bytes(Some(&text[..1])),
            value: HASHER.bytes(Some(&text)),
            headers: 0,
            timestamp_ms: number,
            key_bytes: 1,
            value_bytes: 8,
            header_count: 0,
        }
    }

    fn chunk(records: impl Iterator<Item = (i64, RecordDigest)>) -> ChunkDigest {
        let mut chunk = ChunkDigest::default();
        for (offset, record) in records {
            chunk.add(HASHER, offset, offset, &record);
        }
        chunk
    }

    fn whole(offsets: impl Iterator<Item = i64>) -> ChunkDigest {
        chunk(offsets.map(|offset| (offset, record(offset))))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn halving_finds_exactly_the_leaves_of_the_planted_positions(
            planted in proptest::collection::btree_set(0..CHUNK_OFFSETS, 0..20),
            stride in 1_i64..40,
        ) {
            let offsets = || (0..CHUNK_OFFSETS).step_by(stride as usize);
            let left = whole(offsets());
            let right = chunk(offsets().map(|offset| {
                let mut record = record(offset);
                if planted.contains(&offset) {
                    record.timestamp_ms += 1;
                }
                (offset, record)
            }));
            let wanted: BTreeSet<usize> = planted
                .iter()
                .filter(|offset| **offset % stride == 0)
                .map(|offset| (offset / LEAF_OFFSETS) as usize)
                .collect();
            let found: BTreeSet<usize> =
                differing_leaves(HASHER, &left, &right).into_iter().flatten().collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn every_part_of_a_record_counts() {
        let base = record(5);
        let others = [
            RecordDigest { key: 1, ..base },
            RecordDigest { value: 1, ..base },
            RecordDigest { headers: 1, ..base },
            RecordDigest {
                timestamp_ms: 6,
                ..base
            },
            RecordDigest {
                key_bytes: -1,
                ..base
            },
            RecordDigest {
                value_bytes: 0,
                ..base
            },
            RecordDigest {
                header_count: 1,
                ..base
            },
        ];
        for other in others {
            assert_ne!(
                HASHER.fold(0, 5, &base),
                HASHER.fold(0, 5, &other),
                "{other:?}"
            );
        }
        assert_ne!(HASHER.fold(0, 5, &base), HASHER.fold(0, 6, &base));
    }

    #[test]
    fn the_order_counts() {
        let swapped = [(0, record(1)), (1, record(0))];
        let found = differing_leaves(HASHER, &whole(0..2), &chunk(swapped.into_iter()));
        assert_eq!((found.len(), &found[0]), (1, &(0..1)));
        let headers = |keys: [&[u8]; 2]| {
            keys.iter()
                .fold(0, |hash, key| HASHER.header(hash, Some(key), None))
        };
        assert_ne!(headers([b"a", b"b"]), headers([b"b", b"a"]));
    }

    #[test]
    fn null_and_empty_are_told_apart() {
        assert_ne!(length(None), length(Some(b"")));
        let header = |value| HASHER.header(0, Some(b"k"), value);
        assert_ne!(header(None), header(Some(&b""[..])));
    }

    #[test]
    fn digests_of_two_runs_cannot_be_compared() {
        let (one, other) = (Hasher::new(1), Hasher::new(2));
        assert_ne!(one.bytes(Some(b"secret")), other.bytes(Some(b"secret")));
    }
}
