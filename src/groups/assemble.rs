//! From the batches of `__consumer_offsets` to what counts: transactions resolved.
//!
//! Offsets that a transaction commits (`TxnOffsetCommit`) lie in the log before it is known how the
//! transaction ends. They are kept aside until its marker, as the group coordinator itself does
//! (`GroupMetadataManager.doLoadGroupsAndOffsets`), instead of reading with read_committed: that
//! would stop all groups of a partition behind one open transaction.

use std::collections::HashMap;

use super::record::{self, GroupRecord};
use crate::batch::{self, BatchError, Marker, RawBatch};

/// Offsets are small; a batch that unpacks to more than this isn't a coordinator's.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One partition of `__consumer_offsets`, read from some offset on.
#[derive(Debug, Default)]
pub struct Assembler {
    /// What open transactions have committed so far, by producer, with the records' own offsets.
    pending: HashMap<i64, Vec<(i64, GroupRecord)>>,
}

impl Assembler {
    /// Takes the next batch; `found` gets what counts from now on. Records before `from` are left
    /// out: a fetch returns whole batches.
    ///
    /// # Errors
    /// When the batch is damaged. Records whose type isn't known are passed over.
    pub fn take(
        &mut self,
        batch: &RawBatch,
        from: i64,
        found: &mut Vec<GroupRecord>,
    ) -> Result<(), BatchError> {
        let header = &batch.header;
        if header.count == 0 {
            return Ok(());
        }
        if header.is_control() {
            let pending = self.pending.remove(&header.producer_id).unwrap_or_default();
            if batch::marker(batch)? == Marker::Commit {
                for (at, record) in pending {
                    self.apply(at, record, found);
                }
            }
            return Ok(());
        }
        let records = batch::open(batch, BATCH_BYTES_MAX)?;
        let records = records
            .iter()
            .filter(|record| record.offset >= from)
            .filter_map(|record| {
                let parsed = parse(record.key.as_deref(), record.value.as_deref());
                Some((record.offset, parsed?))
            });
        if header.is_transactional() {
            let pending = self.pending.entry(header.producer_id).or_default();
            pending.extend(records);
        } else {
            records.for_each(|(at, record)| self.apply(at, record, found));
        }
        Ok(())
    }

    /// A record counts, the one at this offset. What open transactions wrote about the same position before it doesn't
    /// any more, however they end: the newest *record* counts, not the newest marker, and a tombstone takes what is
    /// pending with it (`OffsetMetadataManager.replay` and `replayEndTransactionMarker`).
    fn apply(&mut self, at: i64, record: GroupRecord, found: &mut Vec<GroupRecord>) {
        for pending in self.pending.values_mut() {
            pending.retain(|(before, other)| *before > at || !record.is_about_position_of(other));
        }
        found.push(record);
    }
}

fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<GroupRecord> {
    match record::parse(key?, value) {
        Ok(GroupRecord::Other) => None,
        Ok(record) => Some(record),
        Err(error) => {
            // A newer coordinator's record: the offsets that we know are read all the same.
            tracing::debug!(%error, "a record of __consumer_offsets can't be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes, BytesMut};

    use super::*;
    use crate::batch::{Stamp, encode_simple, split};

    /// A producer's batch: bits of the attributes, key and value.
    fn batch(
        at: i64,
        producer: i64,
        attributes: i16,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> RawBatch {
        let stamp = Stamp {
            producer_id: producer,
            ..Stamp::NONE
        };
        let mut bytes = BytesMut::from(&encode_simple(&[(Some(key), value)], 0, stamp)[..]);
        bytes[..8].copy_from_slice(&at.to_be_bytes());
        bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
        let batch = split(bytes.freeze()).next();
        batch.expect("a batch").expect("a good one")
    }

    fn key() -> Bytes {
        let mut key = BytesMut::new();
        key.put_i16(1);
        for name in ["g", "t"] {
            key.put_i16(1);
            key.put_slice(name.as_bytes());
        }
        key.put_i32(0);
        key.freeze()
    }

    fn value(offset: i64) -> Bytes {
        let mut value = BytesMut::new();
        value.put_i16(1);
        value.put_i64(offset);
        value.put_i16(0);
        value.put_slice(&[0; 16]);
        value.freeze()
    }

    /// What a group's log says in the end, of these in order.
    fn last(steps: &[Step]) -> Option<i64> {
        let (mut assembler, mut found) = (Assembler::default(), Vec::new());
        for (at, step) in (0..).zip(steps) {
            let batch = match step {
                Step::Plain(offset) => batch(at, -1, 0, &key(), Some(&value(*offset))),
                Step::Delete => batch(at, -1, 0, &key(), None),
                Step::Pending(producer, offset) => {
                    batch(at, *producer, 0x10, &key(), Some(&value(*offset)))
                }
                Step::Commit(producer) => batch(at, *producer, 0x30, &[0, 0, 0, 1], Some(&[0; 6])),
            };
            assembler.take(&batch, 0, &mut found).expect("good batches");
        }
        match found.pop()? {
            GroupRecord::Offset { commit, .. } => commit.map(|commit| commit.offset),
            other => panic!("{other:?}"),
        }
    }

    enum Step {
        Plain(i64),
        Delete,
        Pending(i64, i64),
        Commit(i64),
    }

    #[test]
    fn the_newest_record_counts_and_not_the_newest_marker() {
        use Step::{Commit, Delete, Pending, Plain};
        assert_eq!(last(&[Plain(5), Pending(1, 10), Commit(1)]), Some(10));
        assert_eq!(last(&[Pending(1, 10), Plain(20), Commit(1)]), Some(20));
        let two = [Pending(1, 10), Pending(2, 20), Commit(2), Commit(1)];
        assert_eq!(last(&two), Some(20));
        let two = [Pending(2, 20), Pending(1, 10), Commit(1), Commit(2)];
        assert_eq!(last(&two), Some(10));
        let deleted = [Plain(5), Pending(1, 10), Delete, Commit(1)];
        assert_eq!(last(&deleted), None);
        let twice = [Pending(1, 10), Pending(1, 11), Commit(1)];
        assert_eq!(last(&twice), Some(11));
    }
}
