//! A transactional id: its producer, and the transaction that it may have open
//! (`TransactionMetadata`, and the deciding parts of `TransactionCoordinator`).
//!
//! Of the second version of the protocol (KIP-890) only what clients see is here: an epoch for each
//! transaction.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;

/// A topic and a partition of it.
pub type At = (String, i32);

/// `RecordBatch.NO_PRODUCER_ID`.
const NO_PRODUCER: i64 = -1;
/// `RecordBatch.NO_PRODUCER_EPOCH`.
const NO_EPOCH: i16 = -1;
/// A client never gets the largest epoch, so that it can always be fenced
/// (`TransactionMetadata.isEpochExhausted`).
const EPOCH_MAX: i16 = i16::MAX - 1;

/// `TransactionState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No transaction yet.
    Empty,
    /// It has partitions.
    Ongoing,
    /// Its markers are on their way.
    PrepareCommit,
    /// Its markers are on their way.
    PrepareAbort,
    /// All markers are written.
    CompleteCommit,
    /// All markers are written.
    CompleteAbort,
}

impl State {
    /// As the protocol has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }
}

/// What InitProducerId comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// The producer's id and epoch.
    Ready(i64, i16),
    /// A transaction was open: it is aborted with a newer epoch, and the client asks again.
    Fenced,
}

/// What EndTxn comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It had ended so before.
    Already,
    /// Markers are to be written.
    Markers,
}

/// A transactional id.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Its producer.
    pub producer_id: i64,
    /// The producer's epoch.
    pub epoch: i16,
    /// How long a transaction may be open.
    pub timeout_ms: i32,
    /// What becomes of it.
    pub state: State,
    /// What is in the transaction.
    pub partitions: BTreeSet<At>,
    /// When the transaction began; -1 before it did.
    pub started_at_ms: i64,
    previous_producer_id: i64,
    /// The id that takes over when this one's epochs are used up.
    next_producer_id: i64,
    last_epoch: i16,
    /// The client bumps with each transaction.
    has_epoch_per_transaction: bool,
}

impl Transaction {
    /// One that was just heard of. Its epoch is none until [`Self::init`] is done with it.
    pub fn new(producer_id: i64, timeout_ms: i32) -> Self {
        Self {
            producer_id,
            epoch: NO_EPOCH,
            timeout_ms,
            state: State::Empty,
            partitions: BTreeSet::new(),
            started_at_ms: -1,
            previous_producer_id: NO_PRODUCER,
            next_producer_id: NO_PRODUCER,
            last_epoch: NO_EPOCH,
            has_epoch_per_transaction: false,
        }
    }

    /// Whether the transaction is open too long (`TransactionStateManager.timedOutTransactions`).
    pub fn is_overdue(&self, now_ms: i64) -> bool {
        self.state == State::Ongoing && self.started_at_ms + i64::from(self.timeout_ms) < now_ms
    }

    /// `TransactionCoordinator.prepareInitProducerIdTransit`. `expected` is what a producer that
    /// goes on after an error says it was.
    ///
    /// # Errors
    /// PRODUCER_FENCED, CONCURRENT_TRANSACTIONS.
    pub fn init(
        &mut self,
        timeout_ms: i32,
        expected: Option<(i64, i16)>,
        new_producer_id: impl FnOnce() -> i64,
    ) -> Result<Init, ResponseError> {
        if !expected.is_none_or(|(id, epoch)| self.is_known_as(id, epoch)) {
            return Err(ResponseError::ProducerFenced);
        }
        match self.state {
            State::PrepareCommit | State::PrepareAbort => {
                Err(ResponseError::ConcurrentTransactions)
            }
            State::Ongoing => {
                self.fence();
                Ok(Init::Fenced)
            }
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                let expected_epoch = expected.map(|(_, epoch)| epoch);
                let is_same = expected_epoch.is_none_or(|epoch| epoch == self.epoch);
                if self.epoch >= EPOCH_MAX && is_same {
                    self.rotate(new_producer_id(), expected.is_some());
                } else {
                    self.increment(expected_epoch)?;
                }
                self.timeout_ms = timeout_ms;
                self.state = State::Empty;
                self.partitions.clear();
                self.started_at_ms = -1;
                Ok(Init::Ready(self.producer_id, self.epoch))
            }
        }
    }

    fn is_known_as(&self, id: i64, epoch: i16) -> bool {
        self.epoch == NO_EPOCH
            || id == self.producer_id
            || id == self.previous_producer_id && epoch >= EPOCH_MAX
    }

    /// `TransactionMetadata.prepareProducerIdRotation`.
    fn rotate(&mut self, producer_id: i64, keeps_last_epoch: bool) {
        self.previous_producer_id = self.producer_id;
        self.last_epoch = match keeps_last_epoch {
            true => self.epoch,
            false => NO_EPOCH,
        };
        self.producer_id = producer_id;
        self.epoch = 0;
    }

    /// `TransactionMetadata.prepareIncrementProducerEpoch`.
    fn increment(&mut self, expected_epoch: Option<i16>) -> Result<(), ResponseError> {
        match expected_epoch {
            None => self.last_epoch = NO_EPOCH,
            Some(expected) if self.epoch == NO_EPOCH || expected == self.epoch => {
                self.last_epoch = self.epoch;
            }
            // The answer was lost: it gets the same one again.
            Some(expected) if expected == self.last_epoch => return Ok(()),
            Some(_) => return Err(ResponseError::ProducerFenced),
        }
        self.epoch += 1;
        Ok(())
    }

    /// A newer epoch that nobody is told of, and the open transaction is aborted with it
    /// (`TransactionMetadata.prepareFenceProducerEpoch`).
    pub fn fence(&mut self) {
        self.epoch += 1;
        self.last_epoch = NO_EPOCH;
        self.state = State::PrepareAbort;
    }

    /// `TransactionCoordinator.handleAddPartitionsToTransaction`.
    ///
    /// # Errors
    /// Why the partitions aren't in the transaction.
    pub fn add(
        &mut self,
        producer_id: i64,
        epoch: i16,
        partitions: impl IntoIterator<Item = At>,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        self.check_producer(producer_id, epoch)?;
        match self.state {
            State::PrepareCommit | State::PrepareAbort => {
                return Err(ResponseError::ConcurrentTransactions);
            }
            State::Ongoing => {}
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                self.started_at_ms = now_ms;
                self.state = State::Ongoing;
            }
        }
        self.partitions.extend(partitions);
        Ok(())
    }

    /// `TransactionCoordinator.handleVerifyPartitionsInTransaction`.
    ///
    /// # Errors
    /// TRANSACTION_ABORTABLE for a partition that isn't in it.
    pub fn verify(&self, producer_id: i64, epoch: i16, at: &At) -> Result<(), ResponseError> {
        self.check_producer(producer_id, epoch)?;
        match self.state {
            State::PrepareCommit | State::PrepareAbort => {
                Err(ResponseError::ConcurrentTransactions)
            }
            _ if self.partitions.contains(at) => Ok(()),
            _ => Err(ResponseError::TransactionAbortable),
        }
    }

    fn check_producer(&self, producer_id: i64, epoch: i16) -> Result<(), ResponseError> {
        if producer_id != self.producer_id {
            Err(ResponseError::InvalidProducerIdMapping)
        } else if epoch != self.epoch {
            Err(ResponseError::ProducerFenced)
        } else {
            Ok(())
        }
    }

    /// `TransactionCoordinator.endTransaction`, asked by a client. With `bumps` the client has an
    /// epoch per transaction.
    ///
    /// # Errors
    /// INVALID_TXN_STATE where nothing is open, or what is open ends the other way.
    pub fn end(
        &mut self,
        producer_id: i64,
        epoch: i16,
        commit: bool,
        bumps: bool,
        new_producer_id: impl FnOnce() -> i64,
    ) -> Result<End, ResponseError> {
        // Of an earlier try whose answer was lost, the epoch is the one before.
        let again_bumped = self.has_epoch_per_transaction && self.epoch == epoch.wrapping_add(1);
        let again_rotated = self.has_epoch_per_transaction
            && self.previous_producer_id == producer_id
            && epoch == EPOCH_MAX
            && self.epoch == 0;
        let is_valid = match self.state {
            State::PrepareCommit | State::PrepareAbort if self.has_epoch_per_transaction => {
                again_bumped
            }
            State::CompleteCommit | State::CompleteAbort if self.has_epoch_per_transaction => {
                again_bumped || again_rotated
            }
            _ => epoch == self.epoch,
        };
        if producer_id != self.producer_id && !again_rotated {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if !is_valid {
            return Err(ResponseError::ProducerFenced);
        }
        match (self.state, commit) {
            (State::Ongoing, _) => {
                self.prepare(commit, bumps, new_producer_id);
                Ok(End::Markers)
            }
            (State::CompleteCommit, true) | (State::CompleteAbort, false) => Ok(End::Already),
            (State::PrepareCommit, true) | (State::PrepareAbort, false) => {
                Err(ResponseError::ConcurrentTransactions)
            }
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// `TransactionMetadata.prepareAbortOrCommit`.
    fn prepare(&mut self, commit: bool, bumps: bool, new_producer_id: impl FnOnce() -> i64) {
        self.has_epoch_per_transaction = bumps;
        if bumps {
            if self.epoch >= EPOCH_MAX {
                self.next_producer_id = new_producer_id();
            }
            self.last_epoch = self.epoch;
            self.epoch += 1;
        }
        self.state = match commit {
            true => State::PrepareCommit,
            false => State::PrepareAbort,
        };
    }

    /// All markers are written (`TransactionMetadata.prepareComplete`).
    pub fn complete(&mut self) {
        self.state = match self.state {
            State::PrepareCommit => State::CompleteCommit,
            State::PrepareAbort => State::CompleteAbort,
            other => other,
        };
        self.partitions.clear();
        if self.next_producer_id != NO_PRODUCER {
            self.previous_producer_id = self.producer_id;
            self.producer_id = self.next_producer_id;
            self.next_producer_id = NO_PRODUCER;
            self.last_epoch = self.epoch;
            self.epoch = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> i64 {
        panic!("no other producer id is needed")
    }

    fn begun() -> Transaction {
        let mut transaction = Transaction::new(7, 60_000);
        let init = transaction.init(60_000, None, never);
        assert_eq!(init, Ok(Init::Ready(7, 0)));
        transaction
    }

    fn open() -> Transaction {
        let mut transaction = begun();
        assert_eq!(transaction.add(7, 0, [("t".to_owned(), 0)], 1_000), Ok(()));
        transaction
    }

    #[test]
    fn each_start_has_a_newer_epoch_and_fences_the_one_before() {
        let mut transaction = begun();
        assert_eq!(transaction.init(60_000, None, never), Ok(Init::Ready(7, 1)));
        let late = transaction.add(7, 0, [("t".to_owned(), 0)], 0);
        assert_eq!(late, Err(ResponseError::ProducerFenced));
        let other = transaction.add(8, 1, [("t".to_owned(), 0)], 0);
        assert_eq!(other, Err(ResponseError::InvalidProducerIdMapping));
    }

    #[test]
    fn an_open_transaction_is_aborted_by_the_next_start() {
        let mut transaction = open();
        assert_eq!(transaction.init(60_000, None, never), Ok(Init::Fenced));
        assert_eq!(transaction.state, State::PrepareAbort);
        assert_eq!(
            transaction.init(60_000, None, never),
            Err(ResponseError::ConcurrentTransactions)
        );
        transaction.complete();
        assert_eq!(
            transaction.init(60_000, None, never),
            Ok(Init::Ready(7, 2)),
            "the epoch in between was nobody's"
        );
    }

    #[test]
    fn a_producer_that_goes_on_after_an_error_says_who_it_was() {
        let mut transaction = begun();
        let on = |transaction: &mut Transaction, id, epoch| {
            transaction.init(60_000, Some((id, epoch)), never)
        };
        assert_eq!(on(&mut transaction, 7, 0), Ok(Init::Ready(7, 1)));
        assert_eq!(on(&mut transaction, 7, 0), Ok(Init::Ready(7, 1)), "again");
        assert_eq!(
            on(&mut transaction, 8, 1),
            Err(ResponseError::ProducerFenced)
        );
        assert_eq!(on(&mut transaction, 7, 1), Ok(Init::Ready(7, 2)));
        assert_eq!(
            on(&mut transaction, 7, 0),
            Err(ResponseError::ProducerFenced)
        );
    }

    #[test]
    fn when_epochs_are_used_up_there_is_another_producer_id() {
        let mut transaction = begun();
        transaction.epoch = EPOCH_MAX;
        assert_eq!(
            transaction.init(60_000, None, || 99),
            Ok(Init::Ready(99, 0))
        );
    }

    #[test]
    fn a_transaction_ends_one_way_and_can_be_told_so_again() {
        for (commit, other) in [(true, false), (false, true)] {
            let mut transaction = open();
            let end =
                |transaction: &mut Transaction, commit| transaction.end(7, 0, commit, false, never);
            assert_eq!(end(&mut transaction, commit), Ok(End::Markers));
            assert_eq!(
                end(&mut transaction, commit),
                Err(ResponseError::ConcurrentTransactions)
            );
            assert_eq!(
                transaction.add(7, 0, [("t".to_owned(), 1)], 0),
                Err(ResponseError::ConcurrentTransactions)
            );
            assert_eq!(
                end(&mut transaction, other),
                Err(ResponseError::InvalidTxnState)
            );
            transaction.complete();
            assert_eq!(end(&mut transaction, commit), Ok(End::Already));
            assert_eq!(
                end(&mut transaction, other),
                Err(ResponseError::InvalidTxnState)
            );
            assert!(transaction.partitions.is_empty());
        }
        assert_eq!(
            begun().end(7, 0, true, false, never),
            Err(ResponseError::InvalidTxnState),
            "nothing was open"
        );
    }

    #[test]
    fn with_an_epoch_per_transaction_the_end_bumps_it_and_can_be_repeated() {
        let mut transaction = open();
        assert_eq!(transaction.end(7, 0, true, true, never), Ok(End::Markers));
        assert_eq!(transaction.epoch, 1);
        transaction.complete();
        assert_eq!(transaction.end(7, 0, true, true, never), Ok(End::Already));
        assert_eq!(
            transaction.end(7, 1, true, true, never),
            Err(ResponseError::ProducerFenced),
            "the next transaction isn't open"
        );
        let late = transaction.add(7, 0, [("t".to_owned(), 0)], 0);
        assert_eq!(late, Err(ResponseError::ProducerFenced));
        assert_eq!(transaction.add(7, 1, [("t".to_owned(), 0)], 0), Ok(()));
        transaction.epoch = EPOCH_MAX;
        assert_eq!(
            transaction.end(7, EPOCH_MAX, true, true, || 99),
            Ok(End::Markers)
        );
        assert_eq!((transaction.producer_id, transaction.epoch), (7, i16::MAX));
        transaction.complete();
        assert_eq!((transaction.producer_id, transaction.epoch), (99, 0));
        assert_eq!(
            transaction.end(7, EPOCH_MAX, true, true, never),
            Ok(End::Already)
        );
    }

    #[test]
    fn only_what_was_added_is_in_it() {
        let transaction = open();
        assert_eq!(transaction.verify(7, 0, &("t".to_owned(), 0)), Ok(()));
        assert_eq!(
            transaction.verify(7, 0, &("t".to_owned(), 1)),
            Err(ResponseError::TransactionAbortable)
        );
        assert!(!transaction.is_overdue(61_000) && transaction.is_overdue(61_001));
    }
}
