//! The 61-byte header of a v2 batch.

use super::{BatchError, Codec};

/// Size of a v2 batch header; the records follow it.
pub const HEADER_BYTES: usize = 61;
/// `base_offset` and `length`, which the length field does not count.
pub(super) const LOG_OVERHEAD_BYTES: usize = 12;
/// Position of the magic byte, the same in every format version.
pub(super) const MAGIC_AT: usize = 16;
/// The CRC covers the batch from here on.
pub(super) const CRC_FROM: usize = 21;

/// Attribute bits 0-2: the codec.
pub(super) const CODEC_MASK: i16 = 0x07;
/// Attribute bit 3: LogAppendTime.
pub(super) const LOG_APPEND_TIME_BIT: i16 = 0x08;
/// Attribute bit 4: part of a transaction.
pub(super) const TRANSACTIONAL_BIT: i16 = 0x10;
/// Attribute bit 5: control batch.
pub(super) const CONTROL_BIT: i16 = 0x20;
/// Attribute bit 6: `base_timestamp` is the delete horizon (KAFKA-8522).
pub(super) const DELETE_HORIZON_BIT: i16 = 0x40;

/// A v2 batch header, every field as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record. Outside the CRC.
    pub base_offset: i64,
    /// Bytes that follow this field. Outside the CRC.
    pub length: i32,
    /// Leader epoch at the time of the append, -1 when unknown. Outside the CRC.
    pub leader_epoch: i32,
    /// Format version: 2.
    pub magic: i8,
    /// CRC-32C of everything from `attributes` on.
    pub crc: u32,
    /// Codec, timestamp type and flags.
    pub attributes: i16,
    /// Last offset of the batch less `base_offset`; kept when compaction removes records.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are relative to, ms.
    pub base_timestamp: i64,
    /// Largest timestamp, ms; under LogAppendTime the time of every record.
    pub max_timestamp: i64,
    /// -1 when there is none.
    pub producer_id: i64,
    /// -1 when there is none.
    pub producer_epoch: i16,
    /// -1 when there is none.
    pub base_sequence: i32,
    /// Number of records.
    pub count: i32,
}

impl BatchHeader {
    /// Reads a v2 header from the start of `bytes`, which may go on.
    ///
    /// # Errors
    /// `Truncated` below 61 bytes, `UnknownMagic` for anything but 2, `BadLength` for a length without room
    /// for the header, `Malformed` for a negative record count or last offset delta.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(b) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Truncated {
                offset: bytes
                    .first_chunk::<8>()
                    .map_or(-1, |b| i64::from_be_bytes(*b)),
                need: HEADER_BYTES,
                have: bytes.len(),
            });
        };
        let header = Self {
            base_offset: i64::from_be_bytes(at(b, 0)),
            length: i32::from_be_bytes(at(b, 8)),
            leader_epoch: i32::from_be_bytes(at(b, 12)),
            magic: i8::from_be_bytes(at(b, 16)),
            crc: u32::from_be_bytes(at(b, 17)),
            attributes: i16::from_be_bytes(at(b, 21)),
            last_offset_delta: i32::from_be_bytes(at(b, 23)),
            base_timestamp: i64::from_be_bytes(at(b, 27)),
            max_timestamp: i64::from_be_bytes(at(b, 35)),
            producer_id: i64::from_be_bytes(at(b, 43)),
            producer_epoch: i16::from_be_bytes(at(b, 51)),
            base_sequence: i32::from_be_bytes(at(b, 53)),
            count: i32::from_be_bytes(at(b, 57)),
        };
        let offset = header.base_offset;
        if header.magic != 2 {
            return Err(BatchError::UnknownMagic {
                offset,
                magic: header.magic,
            });
        }
        if header.length < (HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32 {
            return Err(BatchError::BadLength {
                offset,
                length: header.length,
            });
        }
        if header.count < 0 {
            return Err(BatchError::Malformed {
                what: "negative record count",
                offset,
            });
        }
        if header.last_offset_delta < 0 {
            return Err(BatchError::Malformed {
                what: "negative last offset delta",
                offset,
            });
        }
        Ok(header)
    }

    /// Writes the header as it is; the CRC is not computed.
    pub fn write(&self, out: &mut [u8; HEADER_BYTES]) {
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        out[16..17].copy_from_slice(&self.magic.to_be_bytes());
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.count.to_be_bytes());
    }

    /// The last offset that the batch covers, whether or not its record still exists.
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset after the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Size of the whole batch in bytes.
    pub fn size_bytes(&self) -> usize {
        LOG_OVERHEAD_BYTES + usize::try_from(self.length).unwrap_or(0)
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// `UnknownCodec` for the numbers 5 to 7.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        Codec::from_attributes(self.attributes, self.base_offset)
    }

    /// Whether the records are markers for the broker and its clients, not data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether every record's time is `max_timestamp`, the broker's time of the append.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether `base_timestamp` is the time after which the cleaner may drop tombstones.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }

    /// Whether, going by the header, no record was removed from the batch. Legacy wrapped sets are not.
    pub fn is_gapless(&self) -> bool {
        self.count > 0 && i64::from(self.count) == i64::from(self.last_offset_delta) + 1
    }
}

/// A fixed-size field. Inlines to a load: both bounds are constants.
#[inline(always)]
fn at<const N: usize>(bytes: &[u8; HEADER_BYTES], from: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[from..from + N]);
    field
}
