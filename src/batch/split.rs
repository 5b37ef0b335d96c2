//! Cutting a fetch answer's record set into batches.

use bytes::Bytes;

use super::header::{HEADER_BYTES, LOG_OVERHEAD_BYTES, MAGIC_AT};
use super::{BatchError, BatchHeader, legacy};

/// One whole batch as fetched, checksum not yet verified.
///
/// For magic 0 and 1 the header is made up as far as it can be. An uncompressed legacy message is a batch of
/// one. Of a compressed legacy set only the last offset is known without opening it: `base_offset` is that
/// last offset, `last_offset_delta` is 0 (so `next_offset` is right) and `count` is -1.
#[derive(Clone, Debug)]
pub struct RawBatch {
    /// The parsed header.
    pub header: BatchHeader,
    /// The whole batch, header included.
    pub bytes: Bytes,
    /// Magic 0 or 1.
    pub legacy: bool,
}

impl RawBatch {
    /// Reads exactly one whole batch.
    ///
    /// # Errors
    /// As [`split`]; `Truncated` if the batch is not all there, `Malformed` if something follows it.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let have = bytes.len();
        let mut split = split(bytes);
        match split.next() {
            Some(Ok(batch)) if split.rest.is_empty() => Ok(batch),
            Some(Ok(batch)) => {
                let offset = batch.header.base_offset;
                Err(BatchError::Malformed {
                    what: "bytes after the batch",
                    offset,
                })
            }
            Some(Err(error)) => Err(error),
            None => Err(BatchError::Truncated {
                offset: -1,
                need: have + 1,
                have,
            }),
        }
    }

    /// The records as stored, compressed or not. Empty for a legacy batch.
    pub(super) fn payload(&self) -> &[u8] {
        if self.legacy {
            &[]
        } else {
            self.bytes.get(HEADER_BYTES..).unwrap_or_default()
        }
    }

    /// As [`RawBatch::payload`], sharing the buffer.
    pub(super) fn payload_bytes(&self) -> Bytes {
        if self.legacy {
            Bytes::new()
        } else {
            self.bytes.slice(HEADER_BYTES.min(self.bytes.len())..)
        }
    }
}

/// Splits a fetch answer's record set, without copying and without looking into the records.
///
/// A batch that runs past the end is dropped silently: a broker fills the answer up to its size limit and may
/// cut the last batch. Anything impossible (negative or short length, unknown magic) is an error and ends the
/// iteration, since nothing after it can be found.
pub fn split(records: Bytes) -> Split {
    Split { rest: records }
}

/// Iterator over the whole batches of a record set, made by [`split`].
#[derive(Clone, Debug)]
pub struct Split {
    rest: Bytes,
}

impl Split {
    /// Bytes not handed out yet; after the end of the iteration, the size of the cut tail.
    pub fn rest_bytes(&self) -> usize {
        self.rest.len()
    }

    fn step(&mut self) -> Result<Option<RawBatch>, BatchError> {
        let rest = &self.rest;
        let (Some(offset), Some(length)) = (rest.first_chunk::<8>(), rest.get(8..12)) else {
            return Ok(None);
        };
        let offset = i64::from_be_bytes(*offset);
        let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        // The smallest message of any magic. Checked before the tail is judged to be cut, as Java does:
        // a broker never sends an impossible length, cut or not.
        if length < legacy::SMALLEST_LENGTH {
            return Err(BatchError::BadLength { offset, length });
        }
        let Some(&magic) = rest.get(MAGIC_AT) else {
            return Ok(None);
        };
        if magic > 2 {
            return Err(BatchError::UnknownMagic {
                offset,
                magic: magic as i8,
            });
        }
        let size = LOG_OVERHEAD_BYTES + length as usize;
        if rest.len() < size {
            return Ok(None);
        }
        let legacy = magic < 2;
        let header = if legacy {
            legacy::header(&rest[..size])?
        } else {
            if size < HEADER_BYTES {
                return Err(BatchError::BadLength { offset, length });
            }
            BatchHeader::parse(&rest[..size])?
        };
        let bytes = self.rest.split_to(size);
        Ok(Some(RawBatch {
            header,
            bytes,
            legacy,
        }))
    }
}

impl Iterator for Split {
    type Item = Result<RawBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.rest = Bytes::new();
        }
        step.transpose()
    }
}
