//! Record batches: Kafka's v2 format, and reading of the legacy v0 and v1.
//!
//! The normal way of a batch is [`split`] -> [`verify_crc`] -> [`classify`] -> [`restamp`], in which its
//! payload is neither decompressed nor copied. Only where [`classify`] says so is a batch [`open`]ed and
//! [`encode`]d again; a run of small batches is merged by [`coalesce`].
//!
//! Pure: no I/O, no tokio, nothing of ours, no panic on any bytes.

mod aborted;
mod classify;
mod coalesce;
mod compress;
mod crc;
mod encode;
mod error;
#[cfg(test)]
mod fuzz;
mod header;
mod legacy;
mod marker;
mod records;
mod restamp;
mod split;
mod varint;

pub use aborted::AbortedFilter;
pub use classify::{OpenReason, Passage, Rules, classify};
pub use coalesce::{Coalesced, coalesce, coalesce_across_holes};
pub use compress::Codec;
pub use crc::verify_crc;
pub use encode::{KeyValue, empty_records_batch, encode, encode_simple};
pub use error::BatchError;
pub use header::{BatchHeader, HEADER_BYTES};
pub use marker::{Marker, coordinator_epoch, marker};
pub use records::{Header, Record, Records, open};
pub use restamp::{Stamp, restamp};
pub use split::{RawBatch, Split, split};
