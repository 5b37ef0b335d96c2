//! What a control batch says.

use super::{BatchError, RawBatch, Record, open};

/// The type of a control batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The producer's transaction was aborted.
    Abort,
    /// The producer's transaction was committed.
    Commit,
    /// Something that is no concern of consumers, by its number.
    Other(i16),
}

/// Markers are tens of bytes.
const MARKER_BYTES_MAX: usize = 64 * 1024;

fn malformed(batch: &RawBatch, what: &'static str) -> BatchError {
    BatchError::Malformed {
        what,
        offset: batch.header.base_offset,
    }
}

/// The first record of a control batch.
fn control_record(batch: &RawBatch) -> Result<Record, BatchError> {
    if batch.legacy || !batch.header.is_control() {
        return Err(malformed(batch, "not a control batch"));
    }
    let records = open(batch, MARKER_BYTES_MAX)?;
    let first = records.first().cloned();
    first.ok_or_else(|| malformed(batch, "control batch without a record"))
}

/// The coordinator's epoch that a transaction's end marker carries (`EndTransactionMarker`:
/// `version:2 coordinator_epoch:4` in the value).
///
/// # Errors
/// `Malformed` if the batch is no control batch, has no record, or a value without an epoch; and the
/// errors of [`open`].
pub fn coordinator_epoch(batch: &RawBatch) -> Result<i32, BatchError> {
    let record = control_record(batch)?;
    let value = record.value.as_deref().and_then(|value| value.get(2..6));
    let epoch = value.and_then(|epoch| epoch.first_chunk::<4>());
    let epoch = epoch.ok_or_else(|| malformed(batch, "end marker without an epoch"))?;
    Ok(i32::from_be_bytes(*epoch))
}

/// The type of a control batch, from its first record's key (`version:2 type:2`).
///
/// # Errors
/// `Malformed` if the batch is no control batch, has no record (the cleaner leaves such ones), or a key
/// without a type; and the errors of [`open`].
pub fn marker(batch: &RawBatch) -> Result<Marker, BatchError> {
    let first = control_record(batch)?;
    let malformed = |what| malformed(batch, what);
    let key = first.key.as_deref().and_then(|key| key.first_chunk::<4>());
    let &[version, version_low, kind, kind_low] =
        key.ok_or_else(|| malformed("control record without a type"))?;
    // A higher version must stay readable as version 0 (ControlRecordType.parseTypeId).
    if i16::from_be_bytes([version, version_low]) < 0 {
        return Err(malformed("control record of a negative version"));
    }
    Ok(match i16::from_be_bytes([kind, kind_low]) {
        0 => Marker::Abort,
        1 => Marker::Commit,
        other => Marker::Other(other),
    })
}
