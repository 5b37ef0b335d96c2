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
    /// What open transactions have committed so far, by producer.
    pending: HashMap<i64, Vec<GroupRecord>>,
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
                found.extend(pending);
            }
            return Ok(());
        }
        let records = batch::open(batch, BATCH_BYTES_MAX)?;
        let records = records
            .iter()
            .filter(|record| record.offset >= from)
            .filter_map(|record| parse(record.key.as_deref(), record.value.as_deref()));
        if header.is_transactional() {
            let pending = self.pending.entry(header.producer_id).or_default();
            pending.extend(records);
        } else {
            found.extend(records);
        }
        Ok(())
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
