//! Which fetched batches belong to aborted transactions.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::{BatchError, Marker, RawBatch, marker};

/// The read_committed filter of Java's consumer (`CompletedFetch`), for one partition's fetch answer.
///
/// Feed it every batch of the answer, in order.
#[derive(Debug, Default)]
pub struct AbortedFilter {
    /// First offset and producer id, latest first: the next one is popped from the end.
    waiting: Vec<Reverse<(i64, i64)>>,
    /// Producers whose current transaction is known to end in an abort.
    aborting: HashSet<i64>,
}

impl AbortedFilter {
    /// From the answer's `aborted_transactions`: producer id and first offset, in any order.
    pub fn new(aborted: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut waiting: Vec<_> = aborted
            .into_iter()
            .map(|(producer_id, first)| Reverse((first, producer_id)))
            .collect();
        waiting.sort_unstable();
        Self {
            waiting,
            aborting: HashSet::new(),
        }
    }

    /// True when this data batch belongs to an aborted transaction. Control batches update the state and
    /// return false.
    ///
    /// # Errors
    /// Those of [`marker`] for a control batch that cannot be read.
    pub fn is_aborted(&mut self, batch: &RawBatch) -> Result<bool, BatchError> {
        let header = &batch.header;
        if header.producer_id < 0 || (self.waiting.is_empty() && self.aborting.is_empty()) {
            return Ok(false);
        }
        while let Some(&Reverse((first, producer_id))) = self.waiting.last() {
            if first > header.last_offset() {
                break;
            }
            self.aborting.insert(producer_id);
            self.waiting.pop();
        }
        if header.is_control() {
            // The cleaner may have emptied it; then the transaction's data is gone as well.
            if header.count != 0 && marker(batch)? == Marker::Abort {
                self.aborting.remove(&header.producer_id);
            }
            return Ok(false);
        }
        Ok(header.is_transactional() && self.aborting.contains(&header.producer_id))
    }
}
