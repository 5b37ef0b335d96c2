//! What a partition knows of the producers that write to it (`ProducerStateEntry`, `ProducerAppendInfo`).

use std::collections::VecDeque;

use kafka_protocol::error::ResponseError;

use crate::batch::{Header, Marker, NO_SEQUENCE, NO_TIMESTAMP, subtract_from_sequence};

/// `ProducerStateEntry.NUM_BATCHES_TO_RETAIN`.
const REMEMBERED_BATCHES: usize = 5;
/// `RecordBatch.NO_PRODUCER_EPOCH`.
const NO_EPOCH: i16 = -1;

/// One producer, as one partition knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// The newest epoch seen.
    pub epoch: i16,
    /// Of the coordinator that wrote its last marker, or -1.
    pub coordinator_epoch: i32,
    /// Of its last batch or marker, as the records say.
    pub last_timestamp: i64,
    /// The first offset of its open transaction.
    pub open_since: Option<i64>,
    batches: VecDeque<Remembered>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remembered {
    last_sequence: i32,
    last_offset: i64,
    offset_delta: i32,
    timestamp: i64,
}

/// A batch that is in the log already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate {
    /// Where it begins.
    pub first_offset: i64,
    /// Where it ends.
    pub last_offset: i64,
    /// Its largest timestamp.
    pub timestamp: i64,
}

impl Producer {
    /// `ProducerStateEntry.empty`.
    pub fn unknown() -> Self {
        Self {
            epoch: NO_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: NO_TIMESTAMP,
            open_since: None,
            batches: VecDeque::new(),
        }
    }

    /// Of its last batch, or -1.
    pub fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |b| b.last_sequence)
    }

    /// Of its last batch.
    pub fn last_data_offset(&self) -> Option<i64> {
        self.batches.back().map(|b| b.last_offset)
    }

    /// One of the last five batches with the same sequences (`ProducerStateEntry.findDuplicateBatch`).
    pub fn duplicate(&self, header: &Header) -> Option<Duplicate> {
        if header.producer_epoch != self.epoch {
            return None;
        }
        let same = |b: &&Remembered| {
            b.last_sequence == header.last_sequence()
                && subtract_from_sequence(b.last_sequence, b.offset_delta) == header.base_sequence
        };
        self.batches.iter().find(same).map(|b| Duplicate {
            first_offset: b.last_offset - i64::from(b.offset_delta),
            last_offset: b.last_offset,
            timestamp: b.timestamp,
        })
    }

    /// Whether a client may append this batch now (`ProducerAppendInfo.checkProducerEpoch`, `checkSequence`, `appendDataBatch`).
    pub fn check_data(&self, header: &Header, transactions_v2: bool) -> Result<(), ResponseError> {
        self.check_epoch(header.producer_epoch)?;
        self.check_sequence(header, transactions_v2)?;
        if self.open_since.is_some() && !header.is_transactional() {
            return Err(ResponseError::InvalidTxnState);
        }
        Ok(())
    }

    fn check_epoch(&self, epoch: i16) -> Result<(), ResponseError> {
        if epoch < self.epoch {
            Err(ResponseError::InvalidProducerEpoch)
        } else {
            Ok(())
        }
    }

    fn check_sequence(&self, header: &Header, transactions_v2: bool) -> Result<(), ResponseError> {
        let first = header.base_sequence;
        // KIP-890: a transactional producer of the second version never starts in the middle.
        if transactions_v2 && first != 0 && self.batches.is_empty() {
            return Err(ResponseError::OutOfOrderSequenceNumber);
        }
        // A producer that nobody knows, perhaps since retention took what it wrote, may begin anywhere.
        if self.epoch == NO_EPOCH {
            return Ok(());
        }
        let in_order = if header.producer_epoch == self.epoch {
            let last = self.last_sequence();
            i64::from(first) == i64::from(last) + 1 || (first == 0 && last == i32::MAX)
        } else {
            first == 0
        };
        if in_order {
            Ok(())
        } else {
            Err(ResponseError::OutOfOrderSequenceNumber)
        }
    }

    /// Notes a batch that was appended (`ProducerStateEntry.addBatch`).
    pub fn note_data(&mut self, header: &Header) {
        self.note_epoch(header.producer_epoch);
        if self.batches.len() == REMEMBERED_BATCHES {
            self.batches.pop_front();
        }
        self.batches.push_back(Remembered {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        self.last_timestamp = header.max_timestamp;
        if header.is_transactional() {
            self.open_since.get_or_insert(header.base_offset);
        }
    }

    fn note_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.batches.clear();
            self.epoch = epoch;
        }
    }

    /// Whether a coordinator may end a transaction now (`ProducerAppendInfo.appendEndTxnMarker`). Version 1 of WriteTxnMarkers says
    /// nothing of the transaction's version, so the rule is the old one: an epoch that is not older will do.
    pub fn check_marker(&self, marker: Marker, epoch: i16) -> Result<(), ResponseError> {
        self.check_epoch(epoch)?;
        if self.coordinator_epoch > marker.coordinator_epoch {
            return Err(ResponseError::TransactionCoordinatorFenced);
        }
        Ok(())
    }

    /// Notes a marker that was appended; gives the first offset of the transaction that it ended.
    pub fn note_marker(&mut self, marker: Marker, epoch: i16, timestamp: i64) -> Option<i64> {
        self.note_epoch(epoch);
        self.coordinator_epoch = marker.coordinator_epoch;
        self.last_timestamp = timestamp;
        self.open_since.take()
    }

    /// `ProducerStateManager.isProducerExpired`: the time is the broker's, the timestamp the records'.
    pub fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        self.open_since.is_none() && now_ms.saturating_sub(self.last_timestamp) >= expiration_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Record, produced};

    fn data(epoch: i16, sequence: i32, offset: i64, count: usize) -> Header {
        let (mut header, _) = produced(&vec![Record::new(None, None); count], 100);
        header.producer_id = 1;
        header.producer_epoch = epoch;
        header.base_sequence = sequence;
        header.base_offset = offset;
        header
    }

    fn known() -> Producer {
        let mut producer = Producer::unknown();
        producer.note_data(&data(3, 7, 70, 10));
        producer
    }

    const OUT_OF_ORDER: Result<(), ResponseError> = Err(ResponseError::OutOfOrderSequenceNumber);

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        assert_eq!(
            Producer::unknown().check_data(&data(0, 99, 0, 1), false),
            Ok(())
        );
        assert_eq!(
            Producer::unknown().check_data(&data(0, 99, 0, 1), true),
            OUT_OF_ORDER
        );
    }

    #[test]
    fn sequences_follow_one_another() {
        let producer = known();
        assert_eq!(producer.check_data(&data(3, 17, 0, 1), false), Ok(()));
        for wrong in [16, 18, 0] {
            assert_eq!(
                producer.check_data(&data(3, wrong, 0, 1), false),
                OUT_OF_ORDER
            );
        }
    }

    #[test]
    fn the_last_sequence_is_followed_by_zero() {
        let mut producer = Producer::unknown();
        producer.note_data(&data(3, i32::MAX - 1, 0, 2));
        assert_eq!(producer.check_data(&data(3, 0, 0, 1), false), Ok(()));
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_an_old_one_is_fenced() {
        let producer = known();
        assert_eq!(producer.check_data(&data(4, 0, 0, 1), false), Ok(()));
        assert_eq!(producer.check_data(&data(4, 17, 0, 1), false), OUT_OF_ORDER);
        assert_eq!(
            producer.check_data(&data(2, 17, 0, 1), false),
            Err(ResponseError::InvalidProducerEpoch)
        );
    }

    #[test]
    fn five_batches_are_remembered() {
        let mut producer = Producer::unknown();
        for n in 0..6 {
            producer.note_data(&data(0, n, i64::from(n) + 100, 1));
        }
        assert_eq!(producer.duplicate(&data(0, 0, 0, 1)), None);
        let found = producer.duplicate(&data(0, 1, 0, 1)).expect("remembered");
        assert_eq!((found.first_offset, found.last_offset), (101, 101));
        assert_eq!(producer.duplicate(&data(0, 1, 0, 2)), None, "other borders");
        assert_eq!(producer.duplicate(&data(1, 1, 0, 1)), None, "another epoch");
    }

    #[test]
    fn a_marker_keeps_sequences_of_its_epoch_and_drops_those_before() {
        let marker = Marker {
            commit: true,
            coordinator_epoch: 5,
        };
        let mut producer = known();
        producer.note_marker(marker, 3, 0);
        assert_eq!(producer.last_sequence(), 16);
        producer.note_marker(marker, 4, 0);
        assert_eq!(producer.last_sequence(), -1);
        assert_eq!(producer.check_data(&data(4, 17, 0, 1), false), OUT_OF_ORDER);
        assert_eq!(producer.check_data(&data(4, 0, 0, 1), false), Ok(()));
        assert_eq!(
            producer.check_marker(marker, 3),
            Err(ResponseError::InvalidProducerEpoch)
        );
        let zombie = Marker {
            coordinator_epoch: 4,
            ..marker
        };
        assert_eq!(
            producer.check_marker(zombie, 4),
            Err(ResponseError::TransactionCoordinatorFenced)
        );
        assert_eq!(
            producer.check_marker(marker, 4),
            Ok(()),
            "a second one is fine"
        );
    }

    #[test]
    fn an_open_transaction_takes_no_other_records_and_keeps_its_producer() {
        let mut producer = known();
        producer.open_since = Some(70);
        assert_eq!(
            producer.check_data(&data(3, 17, 0, 1), false),
            Err(ResponseError::InvalidTxnState)
        );
        assert!(!producer.is_expired(i64::MAX, 10));
        producer.open_since = None;
        assert!(producer.is_expired(110, 10));
        assert!(!producer.is_expired(109, 10));
    }
}
