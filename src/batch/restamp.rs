//! The header under which a batch is produced to the target.

use super::header::{
    BatchHeader, CRC_FROM, DELETE_HORIZON_BIT, HEADER_BYTES, LOG_APPEND_TIME_BIT, TRANSACTIONAL_BIT,
};
use super::{RawBatch, crc};

/// Who writes a batch, and where in that producer's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Producer id, -1 for none.
    pub producer_id: i64,
    /// Producer epoch, -1 for none.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 for none.
    pub base_sequence: i32,
}

impl Stamp {
    /// No idempotent producer: a batch that the broker cannot deduplicate.
    pub const NONE: Self = Self {
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
    };
}

/// The header to produce a batch's unchanged payload under. Only for batches that `classify` calls `Raw`.
///
/// The broker demands base offset 0 and assigns its own. Three bits are cleared: LogAppendTime (the broker
/// sets it itself and refuses it from clients), transactional (we write outside of the source's transactions)
/// and the delete horizon (it survives an append, and the target would drop tombstones by the source's clock).
///
/// The CRC is derived from the old one, never recomputed: should a byte of ours be damaged in memory after
/// `verify_crc`, the target refuses the batch, where a new CRC would have blessed the damage. It also
/// makes the cost independent of the payload's size.
pub fn restamp(batch: &RawBatch, stamp: Stamp) -> [u8; HEADER_BYTES] {
    let old = &batch.header;
    let mut new = BatchHeader {
        base_offset: 0,
        leader_epoch: -1,
        attributes: old.attributes
            & !(LOG_APPEND_TIME_BIT | TRANSACTIONAL_BIT | DELETE_HORIZON_BIT),
        producer_id: stamp.producer_id,
        producer_epoch: stamp.producer_epoch,
        base_sequence: stamp.base_sequence,
        ..*old
    };
    let mut out = [0; HEADER_BYTES];
    old.write(&mut out);
    let before = crc32c::crc32c(&out[CRC_FROM..]);
    new.write(&mut out);
    let after = crc32c::crc32c(&out[CRC_FROM..]);
    new.crc = crc::derive(
        old.crc,
        before,
        after,
        batch.bytes.len().saturating_sub(HEADER_BYTES),
    );
    new.write(&mut out);
    out
}
