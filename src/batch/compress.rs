//! The codecs, with reused contexts and buffers, and a hard limit on what comes out.
//!
//! Checksums inside the compressed formats are not verified (except gzip's, which the library always checks):
//! the batch's own CRC covers the compressed bytes and is verified before. That is also why the wrong header
//! checksum that old producers wrote into LZ4 frames (KAFKA-3160) does no harm here.

use std::cell::RefCell;
use std::io::Read;

use flate2::read::{GzEncoder, MultiGzDecoder};
use lz4_flex::block;
use zstd::zstd_safe;

use super::BatchError;
use super::header::CODEC_MASK;

/// How a batch's records are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy; in xerial framing, as the Java client writes it, or raw.
    Snappy,
    /// LZ4 frame.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// The codec's number in the attributes' low three bits.
    pub fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    pub(super) fn from_attributes(attributes: i16, offset: i64) -> Result<Self, BatchError> {
        match attributes & CODEC_MASK {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(BatchError::UnknownCodec {
                offset,
                codec: other as u8,
            }),
        }
    }
}

/// Kafka's own default is 3. Merged and re-encoded batches are larger than the source's, which wins back
/// more than the level loses, at less than half of the CPU.
const ZSTD_LEVEL: i32 = 1;
/// Kafka's default is 6; for the same reason.
const GZIP_LEVEL: u32 = 1;

/// Why a payload did not decompress; the caller adds the offset.
#[derive(Debug)]
pub(super) enum Failure {
    /// More than the limit.
    TooLong,
    /// Not this codec's bytes.
    Broken(String),
}

impl Failure {
    fn broken(what: impl ToString) -> Self {
        Self::Broken(what.to_string())
    }

    pub(super) fn at(self, offset: i64, codec: Codec, limit_bytes: usize) -> BatchError {
        match self {
            Self::TooLong => BatchError::Bomb {
                offset,
                limit_bytes,
            },
            Self::Broken(what) => BatchError::Compression {
                offset,
                codec,
                what,
            },
        }
    }
}

/// A thread's compression contexts and buffers, so that small batches pay for no allocation.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) decompressor: Decompressor,
    pub(super) compressor: Compressor,
    /// Records before compression.
    pub(super) records: Vec<u8>,
}

/// A buffer larger than this is given back after use; a thread must not hold on to one huge batch for ever.
const KEPT_BYTES_MAX: usize = 4 << 20;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Runs with this thread's scratch space. Must not be nested.
pub(super) fn with_scratch<T>(run: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let result = run(scratch);
        for buffer in [
            &mut scratch.records,
            &mut scratch.decompressor.arena,
            &mut scratch.compressor.arena,
        ] {
            if buffer.capacity() > KEPT_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
        result
    })
}

/// Makes sure that the first `len` bytes of the arena exist. Its length only ever grows, so that bytes are
/// zeroed once and not for every batch.
fn grow(arena: &mut Vec<u8>, len: usize) {
    if arena.len() < len {
        arena.resize(len, 0);
    }
}

/// Decompresses into a buffer of its own.
#[derive(Default)]
pub(super) struct Decompressor {
    /// Initialised throughout; what is in it beyond a result is rubbish.
    arena: Vec<u8>,
    zstd: Option<zstd_safe::DCtx<'static>>,
}

impl Decompressor {
    /// The decompressed records, at most `limit` bytes; `payload` itself if it is not compressed.
    pub(super) fn decompress<'a>(
        &'a mut self,
        codec: Codec,
        payload: &'a [u8],
        limit: usize,
    ) -> Result<&'a [u8], Failure> {
        let len = match codec {
            Codec::None => return Ok(payload),
            Codec::Gzip => self.gzip(payload, limit)?,
            Codec::Snappy => self.snappy(payload, limit)?,
            Codec::Lz4 => self.lz4(payload, limit)?,
            Codec::Zstd => self.zstd(payload, limit)?,
        };
        Ok(&self.arena[..len])
    }

    fn gzip(&mut self, payload: &[u8], limit: usize) -> Result<usize, Failure> {
        let mut decoder = MultiGzDecoder::new(payload);
        let mut len = 0;
        loop {
            if len == self.arena.len() {
                // One byte over the limit may be read, to tell "just fits" from "too long".
                let more = (len * 2).max(64 * 1024).min(limit.saturating_add(1));
                grow(&mut self.arena, more);
            }
            match decoder
                .read(&mut self.arena[len..])
                .map_err(Failure::broken)?
            {
                0 => return Ok(len),
                n => len += n,
            }
            if len > limit {
                return Err(Failure::TooLong);
            }
        }
    }

    fn snappy(&mut self, payload: &[u8], limit: usize) -> Result<usize, Failure> {
        let Some(mut rest) = payload.strip_prefix(XERIAL_MAGIC) else {
            return self.snappy_block(payload, 0, limit);
        };
        // Two version numbers follow the magic; Java's reader checks only the first for being known.
        rest = rest
            .get(8..)
            .ok_or_else(|| Failure::broken("xerial header is cut"))?;
        let mut len = 0;
        while !rest.is_empty() {
            // Streams may be joined, as by Java's SnappyInputStream.
            if let Some(next) = rest.strip_prefix(XERIAL_MAGIC) {
                rest = next
                    .get(8..)
                    .ok_or_else(|| Failure::broken("xerial header is cut"))?;
                continue;
            }
            let (size, after) = rest
                .split_first_chunk::<4>()
                .ok_or_else(|| Failure::broken("xerial block is cut"))?;
            let size = usize::try_from(i32::from_be_bytes(*size))
                .map_err(|_| Failure::broken("negative xerial block size"))?;
            let block = after
                .get(..size)
                .ok_or_else(|| Failure::broken("xerial block is cut"))?;
            len += self.snappy_block(block, len, limit)?;
            rest = &after[size..];
        }
        Ok(len)
    }

    /// Decompresses one raw block behind the `len` bytes that are there already.
    fn snappy_block(&mut self, block: &[u8], len: usize, limit: usize) -> Result<usize, Failure> {
        let size = snap::raw::decompress_len(block).map_err(Failure::broken)?;
        if size > limit - len {
            return Err(Failure::TooLong);
        }
        // A copy turns 3 bytes into at most 64; a larger claim is a lie that would only cost memory.
        if size / 64 > block.len() {
            return Err(Failure::broken("impossible snappy length"));
        }
        grow(&mut self.arena, len + size);
        snap::raw::Decoder::new()
            .decompress(block, &mut self.arena[len..len + size])
            .map_err(Failure::broken)
    }

    fn lz4(&mut self, payload: &[u8], limit: usize) -> Result<usize, Failure> {
        let cut = || Failure::broken("frame is cut");
        let mut rest = payload;
        let mut len = 0usize;
        // Frames may be joined. Bytes after a frame that are none are ignored, as Java does.
        while let Some(descriptor) = rest.strip_prefix(LZ4_MAGIC) {
            let frame_start = len;
            let (&[flags, block_descriptor], after) =
                descriptor.split_first_chunk::<2>().ok_or_else(cut)?;
            if flags >> 6 != 1 {
                return Err(Failure::broken("unknown frame version"));
            }
            if flags & 0x01 != 0 {
                return Err(Failure::broken("frame needs a dictionary"));
            }
            let block_bytes_max = match block_descriptor >> 4 & 7 {
                4 => 64 << 10,
                5 => 256 << 10,
                6 => 1 << 20,
                7 => 4 << 20,
                _ => return Err(Failure::broken("unknown block size")),
            };
            let linked = flags & 0x20 == 0;
            let block_checksum_bytes = if flags & 0x10 != 0 { 4 } else { 0 };
            let content_size_bytes = if flags & 0x08 != 0 { 8 } else { 0 };
            let content_checksum_bytes = if flags & 0x04 != 0 { 4 } else { 0 };
            rest = after.get(content_size_bytes + 1..).ok_or_else(cut)?;
            loop {
                let (size, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
                let size = u32::from_le_bytes(*size);
                if size == 0 {
                    rest = after.get(content_checksum_bytes..).ok_or_else(cut)?;
                    break;
                }
                let stored = size & LZ4_STORED_BIT != 0;
                let size = (size & !LZ4_STORED_BIT) as usize;
                if size > block_bytes_max {
                    return Err(Failure::broken("block is larger than its frame allows"));
                }
                let block = after.get(..size).ok_or_else(cut)?;
                rest = after.get(size + block_checksum_bytes..).ok_or_else(cut)?;
                len += self.lz4_block(
                    block,
                    stored,
                    // A linked block may refer to the 64 KiB before it.
                    if linked {
                        frame_start.max(len.saturating_sub(64 << 10))..len
                    } else {
                        len..len
                    },
                    block_bytes_max,
                    limit,
                )?;
            }
        }
        if rest.len() == payload.len() {
            return Err(Failure::broken("not an LZ4 frame"));
        }
        Ok(len)
    }

    fn lz4_block(
        &mut self,
        block: &[u8],
        stored: bool,
        history: std::ops::Range<usize>,
        block_bytes_max: usize,
        limit: usize,
    ) -> Result<usize, Failure> {
        let len = history.end;
        // No LZ4 byte stands for more than 255.
        let size_max = if stored {
            block.len()
        } else {
            block_bytes_max.min(block.len() * 255)
        };
        let room = size_max.min(limit - len);
        grow(&mut self.arena, len + room);
        let (before, after) = self.arena.split_at_mut(len);
        let out = &mut after[..room];
        if stored {
            out.get_mut(..block.len())
                .ok_or(Failure::TooLong)?
                .copy_from_slice(block);
            return Ok(block.len());
        }
        let dictionary = &before[history];
        let result = if dictionary.is_empty() {
            block::decompress_into(block, out)
        } else {
            block::decompress_into_with_dict(block, out, dictionary)
        };
        result.map_err(|error| match error {
            block::DecompressError::OutputTooSmall { .. } if room < size_max => Failure::TooLong,
            other => Failure::broken(other),
        })
    }

    fn zstd(&mut self, payload: &[u8], limit: usize) -> Result<usize, Failure> {
        let context = self.zstd.get_or_insert_with(zstd_safe::DCtx::create);
        // Java writes frames of unknown size, so the room is guessed and doubled. One call on the whole
        // frame spares the copy through a window that streaming has.
        let known = zstd_safe::get_frame_content_size(payload).ok().flatten();
        let guess = match known.map(usize::try_from) {
            // A lying size costs at most the limit.
            Some(Ok(size)) if size <= limit => size,
            Some(_) => return Err(Failure::TooLong),
            None => self
                .arena
                .len()
                .max(payload.len().saturating_mul(4))
                .max(64 * 1024),
        };
        let mut room = guess.min(limit);
        loop {
            grow(&mut self.arena, room);
            let room_now = self.arena.len().min(limit);
            match context.decompress(&mut self.arena[..room_now], payload) {
                Ok(len) => return Ok(len),
                Err(code) if code == ZSTD_NO_ROOM => {
                    if room_now == limit {
                        return Err(Failure::TooLong);
                    }
                    room = room_now.saturating_mul(4).max(1024).min(limit);
                }
                Err(code) => return Err(Failure::broken(zstd_safe::get_error_name(code))),
            }
        }
    }
}

/// Compresses into a buffer of its own.
pub(super) struct Compressor {
    /// As the decompressor's.
    arena: Vec<u8>,
    zstd: Option<zstd_safe::CCtx<'static>>,
    lz4: block::CompressTable,
    snappy: snap::raw::Encoder,
}

impl Default for Compressor {
    fn default() -> Self {
        Self {
            arena: Vec::new(),
            zstd: None,
            lz4: block::CompressTable::large(),
            snappy: snap::raw::Encoder::new(),
        }
    }
}

impl Compressor {
    /// The compressed records; `records` itself for no codec.
    pub(super) fn compress<'a>(
        &'a mut self,
        codec: Codec,
        records: &'a [u8],
    ) -> Result<&'a [u8], Failure> {
        let len = match codec {
            Codec::None => return Ok(records),
            Codec::Gzip => {
                let mut encoder = GzEncoder::new(records, flate2::Compression::new(GZIP_LEVEL));
                self.arena.clear();
                encoder
                    .read_to_end(&mut self.arena)
                    .map_err(Failure::broken)?
            }
            Codec::Snappy => self.snappy(records)?,
            Codec::Lz4 => self.lz4(records)?,
            Codec::Zstd => self.zstd(records)?,
        };
        Ok(&self.arena[..len])
    }

    fn snappy(&mut self, records: &[u8]) -> Result<usize, Failure> {
        let mut len = XERIAL_HEADER.len();
        grow(&mut self.arena, len);
        self.arena[..len].copy_from_slice(XERIAL_HEADER);
        for block in records.chunks(XERIAL_BLOCK_BYTES) {
            grow(
                &mut self.arena,
                len + 4 + snap::raw::max_compress_len(block.len()),
            );
            let (size, out) = self.arena[len..].split_at_mut(4);
            let compressed = self.snappy.compress(block, out).map_err(Failure::broken)?;
            size.copy_from_slice(&(compressed as u32).to_be_bytes());
            len += 4 + compressed;
        }
        Ok(len)
    }

    fn lz4(&mut self, records: &[u8]) -> Result<usize, Failure> {
        let blocks = records.len().div_ceil(LZ4_BLOCK_BYTES);
        let block_room = 4 + block::get_maximum_output_size(LZ4_BLOCK_BYTES);
        let room = LZ4_HEADER.len() + blocks * (4 + LZ4_BLOCK_BYTES) + block_room;
        grow(&mut self.arena, room);
        self.arena[..LZ4_HEADER.len()].copy_from_slice(LZ4_HEADER);
        let mut len = LZ4_HEADER.len();
        for block in records.chunks(LZ4_BLOCK_BYTES) {
            let (size, out) = self.arena[len..].split_at_mut(4);
            let compressed = block::compress_into_with_table(block, out, &mut self.lz4)
                .map_err(Failure::broken)?;
            let (written, stored_bit) = if compressed < block.len() {
                (compressed, 0)
            } else {
                out[..block.len()].copy_from_slice(block);
                (block.len(), LZ4_STORED_BIT)
            };
            size.copy_from_slice(&(written as u32 | stored_bit).to_le_bytes());
            len += 4 + written;
        }
        self.arena[len..len + 4].copy_from_slice(&[0; 4]);
        Ok(len + 4)
    }

    fn zstd(&mut self, records: &[u8]) -> Result<usize, Failure> {
        let context = self.zstd.get_or_insert_with(zstd_safe::CCtx::create);
        grow(&mut self.arena, zstd_safe::compress_bound(records.len()));
        context
            .compress(&mut self.arena[..], records, ZSTD_LEVEL)
            .map_err(|code| Failure::broken(zstd_safe::get_error_name(code)))
    }
}

/// What snappy-java's stream begins with.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
/// The magic, version 1, compatible with 1.
const XERIAL_HEADER: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// snappy-java's default block size.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

const LZ4_MAGIC: &[u8] = &[0x04, 0x22, 0x4d, 0x18];
/// What the Java client writes: version 1, independent blocks of at most 64 KiB, no checksums, no size.
/// The last byte is the descriptor's checksum, constant since the descriptor is.
const LZ4_HEADER: &[u8] = &[0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const LZ4_BLOCK_BYTES: usize = 64 * 1024;
const LZ4_STORED_BIT: u32 = 1 << 31;

/// `ZSTD_error_dstSize_tooSmall`, as the C functions return it; stable since zstd 1.0.
const ZSTD_NO_ROOM: usize = 70usize.wrapping_neg();
