//! What a reader makes of a chunk's records.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::digest::{ChunkDigest, Hasher, RecordDigest};
use super::judge::Entry;

/// One record as it was read.
pub(super) struct Read {
    /// On the target the source offset that the record's place stands for.
    pub source_offset: i64,
    /// On the source the place that the record must have on the target, if it has one.
    pub target_offset: Option<i64>,
    pub digest: RecordDigest,
    /// Bytes of key, value and headers.
    pub bytes: u64,
    pub unreadable_headers: u32,
}

/// The records of one chunk of one side.
pub(super) trait Content: Send {
    /// No reader gets further ahead of the other than this, in bytes of memory.
    const WEIGHT_MAX: usize;

    fn add(&mut self, hasher: Hasher, read: &Read);

    /// Bytes of memory.
    fn weight(&self) -> usize;
}

/// Digests only.
#[derive(Default)]
pub(super) struct Digests {
    pub chunk: ChunkDigest,
    pub records: u64,
    pub bytes: u64,
    pub unreadable_headers: u64,
}

impl Content for Digests {
    const WEIGHT_MAX: usize = 16 << 20;

    fn add(&mut self, hasher: Hasher, read: &Read) {
        // A record without a place has none in common with any other.
        let place = read.target_offset.unwrap_or(-1);
        self.chunk
            .add(hasher, read.source_offset, place, &read.digest);
        self.records += 1;
        self.bytes += read.bytes;
        self.unreadable_headers += u64::from(read.unreadable_headers);
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + size_of::<[u128; super::digest::CHUNK_LEAVES]>()
    }
}

/// Every record.
#[derive(Default)]
pub(super) struct Entries(pub Vec<Entry>);

impl Content for Entries {
    const WEIGHT_MAX: usize = 24 << 20;

    fn add(&mut self, _hasher: Hasher, read: &Read) {
        self.0.push(Entry {
            source_offset: read.source_offset,
            target_offset: read.target_offset,
            digest: read.digest,
        });
    }

    fn weight(&self) -> usize {
        self.0.capacity() * size_of::<Entry>()
    }
}

/// The last record of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Last {
    pub source_offset: i64,
    pub is_tombstone: bool,
}

/// Where the wanted keys were seen last.
pub(super) struct LastSeen {
    pub wanted: Arc<HashSet<u64>>,
    /// The source offset behind the last one that is compared.
    pub compared_end: i64,
    /// Before that end.
    pub last: HashMap<u64, Last>,
    /// Behind it: few, since a copy is close behind its source.
    pub later: HashMap<u64, Last>,
}

impl LastSeen {
    pub(super) fn new(wanted: Arc<HashSet<u64>>, compared_end: i64) -> Self {
        let (last, later) = Default::default();
        Self {
            wanted,
            compared_end,
            last,
            later,
        }
    }
}

impl Content for LastSeen {
    const WEIGHT_MAX: usize = 24 << 20;

    fn add(&mut self, _hasher: Hasher, read: &Read) {
        if read.digest.has_key() && self.wanted.contains(&read.digest.key) {
            let last = Last {
                source_offset: read.source_offset,
                is_tombstone: read.digest.is_tombstone(),
            };
            let seen = match read.source_offset < self.compared_end {
                true => &mut self.last,
                false => &mut self.later,
            };
            seen.insert(read.digest.key, last);
        }
    }

    fn weight(&self) -> usize {
        64 + (self.last.capacity() + self.later.capacity()) * 32
    }
}
