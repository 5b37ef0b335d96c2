//! What can be wrong with a batch.

use thiserror::Error;

use super::Codec;

/// A batch that cannot be read, or records that cannot be written as one.
///
/// `offset` is always the base offset that the batch claims (not trustworthy if the batch is corrupt),
/// or -1 where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Fewer bytes than the structure needs, where the whole of it had to be there.
    #[error("batch at offset {offset}: {have} bytes, needs {need}")]
    Truncated {
        /// Claimed base offset.
        offset: i64,
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// The checksum does not match the bytes.
    #[error("batch at offset {offset}: stored checksum {stored:08x}, computed {computed:08x}")]
    CorruptCrc {
        /// Claimed base offset.
        offset: i64,
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The length field is negative or shorter than the smallest batch of its magic.
    #[error("batch at offset {offset}: impossible length {length}")]
    BadLength {
        /// Claimed base offset.
        offset: i64,
        /// The length field.
        length: i32,
    },
    /// A format version that is not known, or not fit for the operation.
    #[error("batch at offset {offset}: unknown magic {magic}")]
    UnknownMagic {
        /// Claimed base offset.
        offset: i64,
        /// The magic byte.
        magic: i8,
    },
    /// A codec number that is not known, or not allowed in this format version.
    #[error("batch at offset {offset}: unknown codec {codec}")]
    UnknownCodec {
        /// Claimed base offset.
        offset: i64,
        /// The low three bits of the attributes.
        codec: u8,
    },
    /// The structure contradicts itself.
    #[error("batch at offset {offset}: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Claimed base offset.
        offset: i64,
    },
    /// The records decompress to more than the caller allows.
    #[error("batch at offset {offset}: decompresses to more than {limit_bytes} bytes")]
    Bomb {
        /// Claimed base offset.
        offset: i64,
        /// The caller's limit.
        limit_bytes: usize,
    },
    /// The result would not fit into one batch (2 GiB, or 2^31-1 records).
    #[error("records from offset {offset} do not fit into one batch")]
    TooLarge {
        /// Offset of the first record.
        offset: i64,
    },
    /// Records or batches that have to follow one another without a hole do not.
    #[error("expected offset {expected}, found {offset}")]
    NotContiguous {
        /// The offset that should have come.
        expected: i64,
        /// The offset that came.
        offset: i64,
    },
    /// Batches of a run that cannot be merged, or a batch that is not fit for the operation.
    #[error("batch at offset {offset} cannot be merged: {what}")]
    NotMergeable {
        /// Why.
        what: &'static str,
        /// Claimed base offset.
        offset: i64,
    },
    /// The codec refused the bytes.
    #[error("batch at offset {offset}: {codec:?}: {what}")]
    Compression {
        /// Claimed base offset.
        offset: i64,
        /// The codec.
        codec: Codec,
        /// The codec library's words.
        what: String,
    },
}

impl BatchError {
    /// The base offset that the batch claims, -1 where there is none.
    pub fn offset(&self) -> i64 {
        match self {
            Self::Truncated { offset, .. }
            | Self::CorruptCrc { offset, .. }
            | Self::BadLength { offset, .. }
            | Self::UnknownMagic { offset, .. }
            | Self::UnknownCodec { offset, .. }
            | Self::Malformed { offset, .. }
            | Self::Bomb { offset, .. }
            | Self::TooLarge { offset }
            | Self::NotContiguous { offset, .. }
            | Self::NotMergeable { offset, .. }
            | Self::Compression { offset, .. } => *offset,
        }
    }
}
