//! From the batches of `__consumer_offsets` to what counts: transactions resolved.
//!
//! Offsets that a transaction commits (`TxnOffsetCommit`) lie in the log before it is known how the
//! transaction ends. They are kept aside until its marker, as the group coordinator itself does
//! (`GroupMetadataManager.doLoadGroupsAndOffsets`), instead of reading with read_committed: that
//! would stop all groups of a partition behind one open transaction.

use std::collections::HashMap;

use super::record::{self, GroupRecord, RecordError};
use crate::batch::{self, BatchError, Marker, RawBatch};

/// Offsets are small; a batch that unpacks to more than this isn't a coordinator's.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// So many positions of open transactions are kept aside, of one partition of the log.
const PENDING_MAX: usize = 100_000;

/// Why a batch can't be taken. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// It is damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A position in it can't be read. Passed over, its group would seem to stand still.
    #[error("a group's position at offset {at} can't be read: {error}")]
    Position {
        /// The record's offset.
        at: i64,
        /// What is wrong.
        error: RecordError,
    },
    /// More than can be kept.
    #[error("open transactions have committed more than {max} positions", max = PENDING_MAX)]
    Pending,
}

/// Whose position it is, and on what: group, topic, partition.
type Place = (String, String, i32);

/// What one open transaction has committed so far, with the records' own offsets: the last one of each position.
type Pending = HashMap<Place, (i64, GroupRecord)>;

/// One partition of `__consumer_offsets`, read from some offset on.
#[derive(Debug, Default)]
pub struct Assembler {
    /// By producer.
    pending: HashMap<i64, Pending>,
}

impl Assembler {
    /// Takes the next batch; `found` gets what counts from now on. Records before `from` are left
    /// out: a fetch returns whole batches.
    ///
    /// # Errors
    /// When the batch is damaged, or a position in it can't be read or kept. Records whose type isn't known are passed
    /// over.
    pub fn take(
        &mut self,
        batch: &RawBatch,
        from: i64,
        found: &mut Vec<GroupRecord>,
    ) -> Result<(), AssembleError> {
        let header = &batch.header;
        if header.count == 0 {
            return Ok(());
        }
        if header.is_control() {
            let marker = batch::marker(batch)?;
            let pending = self.pending.remove(&header.producer_id).unwrap_or_default();
            if marker == Marker::Commit {
                let mut pending: Vec<(i64, GroupRecord)> = pending.into_values().collect();
                pending.sort_by_key(|(at, _)| *at);
                for (at, record) in pending {
                    self.apply(at, record, found);
                }
            }
            return Ok(());
        }
        let mut records = Vec::new();
        for record in batch::open(batch, BATCH_BYTES_MAX)? {
            if record.offset < from {
                continue;
            }
            let parsed = parse(record.key.as_deref(), record.value.as_deref());
            let parsed = parsed.map_err(|error| AssembleError::Position {
                at: record.offset,
                error,
            })?;
            records.extend(parsed.map(|parsed| (record.offset, parsed)));
        }
        if header.is_transactional() {
            return self.keep_aside(header.producer_id, records);
        }
        for (at, record) in records {
            self.apply(at, record, found);
        }
        Ok(())
    }

    /// Keeps what a transaction commits until it is known how it ends.
    fn keep_aside(
        &mut self,
        producer_id: i64,
        records: Vec<(i64, GroupRecord)>,
    ) -> Result<(), AssembleError> {
        let kept: usize = self.pending.values().map(HashMap::len).sum();
        if kept.saturating_add(records.len()) > PENDING_MAX {
            return Err(AssembleError::Pending);
        }
        let pending = self.pending.entry(producer_id).or_default();
        for (at, record) in records {
            if let Some(place) = place_of(&record) {
                pending.insert(place, (at, record));
            }
        }
        Ok(())
    }

    /// A record counts, the one at this offset. What open transactions wrote about the same position before it doesn't
    /// any more, however they end: the newest *record* counts, not the newest marker, and a tombstone takes what is
    /// pending with it (`OffsetMetadataManager.replay` and `replayEndTransactionMarker`).
    fn apply(&mut self, at: i64, record: GroupRecord, found: &mut Vec<GroupRecord>) {
        if !self.pending.is_empty()
            && let Some(place) = place_of(&record)
        {
            self.pending.retain(|_, pending| {
                if pending.get(&place).is_some_and(|(before, _)| *before <= at) {
                    pending.remove(&place);
                }
                !pending.is_empty()
            });
        }
        found.push(record);
    }
}

/// Nothing where the record is about no position.
fn place_of(record: &GroupRecord) -> Option<Place> {
    match record {
        GroupRecord::Offset {
            group,
            topic,
            partition,
            ..
        } => Some((group.clone(), topic.clone(), *partition)),
        GroupRecord::Group { .. } | GroupRecord::Other => None,
    }
}

/// Nothing where the record is about no group, or can't be read and is about no position.
fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Option<GroupRecord>, RecordError> {
    let Some(key) = key else {
        return Ok(None);
    };
    match record::parse(key, value) {
        Ok(GroupRecord::Other) => Ok(None),
        Ok(record) => Ok(Some(record)),
        Err(error) if record::is_of_position(key) => Err(error),
        Err(error) => {
            // A newer coordinator's record about members: positions are read all the same.
            tracing::debug!(%error, "a record of __consumer_offsets can't be read");
            Ok(None)
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

    /// A newer coordinator may write what isn't known here.
    #[test]
    fn a_position_that_can_not_be_read_is_not_passed_over() {
        let mut newer = BytesMut::from(&value(7)[..]);
        newer[..2].copy_from_slice(&9_i16.to_be_bytes());
        let (mut assembler, mut found) = (Assembler::default(), Vec::new());
        for attributes in [0, 0x10] {
            let batch = batch(4, 1, attributes, &key(), Some(&newer));
            let error = assembler.take(&batch, 0, &mut found).expect_err("unknown");
            let error = error.to_string();
            assert!(
                error.contains("version 9") && error.contains("offset 4"),
                "{error}"
            );
        }
        assert!(found.is_empty() && assembler.pending.is_empty());
        // What is about no position may be anything, and so may what is before the beginning.
        let mut members = BytesMut::new();
        members.put_i16(3);
        members.put_i16(100);
        let other = batch(5, -1, 0, &members, Some(b"x"));
        assert_eq!(assembler.take(&other, 0, &mut found), Ok(()));
        let before = batch(4, -1, 0, &key(), Some(&newer));
        assert_eq!(assembler.take(&before, 5, &mut found), Ok(()));
        assert!(found.is_empty());
    }

    /// A transaction may commit the same position again and again.
    #[test]
    fn what_is_pending_is_no_more_than_there_are_positions_and_has_a_bound() {
        let (mut assembler, mut found) = (Assembler::default(), Vec::new());
        for at in 0..1_000 {
            let batch = batch(at, 1, 0x10, &key(), Some(&value(at)));
            assembler.take(&batch, 0, &mut found).expect("a good one");
        }
        assert_eq!(assembler.pending[&1].len(), 1);
        let many = (0..100_000).map(|partition| {
            let record = GroupRecord::Offset {
                group: "g".to_owned(),
                topic: "other".to_owned(),
                partition,
                commit: None,
            };
            (2_000, record)
        });
        let refused = assembler.keep_aside(2, many.collect());
        assert_eq!(refused, Err(AssembleError::Pending));
        assert_eq!(assembler.pending.len(), 1);
        let end = batch(3_000, 1, 0x30, &[0, 0, 0, 1], Some(&[0; 6]));
        assembler.take(&end, 0, &mut found).expect("a marker");
        assert_eq!(found.len(), 1);
        assert!(assembler.pending.is_empty());
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
