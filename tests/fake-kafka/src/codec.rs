//! The four codecs of record batches.

use std::io::{Read, Write};

use bytes::Bytes;

/// What a batch's records are compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// 0.
    None,
    /// 1.
    Gzip,
    /// 2.
    Snappy,
    /// 3.
    Lz4,
    /// 4.
    Zstd,
}

/// Before each stream of snappy blocks that Java writes.
const XERIAL_MAGIC: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// And two versions of four bytes each.
const XERIAL_HEADER_BYTES: usize = 16;

impl Codec {
    /// By its number in a batch's attributes.
    pub fn from_number(number: i16) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    /// Its number in a batch's attributes.
    pub fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// By its name in `compression.type`. `None` for `producer`: whatever the producer chose.
    pub fn from_config(name: &str) -> Option<Self> {
        Some(match name {
            "uncompressed" => Self::None,
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }

    /// `None` if the bytes are not what the codec makes.
    pub fn decompress(self, bytes: &Bytes) -> Option<Bytes> {
        let mut out = Vec::new();
        match self {
            Self::None => return Some(bytes.clone()),
            Self::Gzip => {
                flate2::read::MultiGzDecoder::new(&bytes[..])
                    .read_to_end(&mut out)
                    .ok()?;
            }
            Self::Snappy => out = unsnappy(bytes)?,
            Self::Lz4 => {
                lz4_flex::frame::FrameDecoder::new(&bytes[..])
                    .read_to_end(&mut out)
                    .ok()?;
            }
            Self::Zstd => out = zstd::stream::decode_all(&bytes[..]).ok()?,
        }
        Some(out.into())
    }

    /// What a broker writes when a topic's codec is not the producer's.
    pub fn compress(self, bytes: &Bytes) -> Bytes {
        match self {
            Self::None => bytes.clone(),
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes).expect("memory takes it");
                encoder.finish().expect("memory takes it").into()
            }
            Self::Snappy => snap::raw::Encoder::new()
                .compress_vec(bytes)
                .expect("fits a block")
                .into(),
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(bytes).expect("memory takes it");
                encoder.finish().expect("memory takes it").into()
            }
            Self::Zstd => zstd::stream::encode_all(&bytes[..], 3)
                .expect("memory takes it")
                .into(),
        }
    }
}

/// A plain block, or Java's stream of blocks.
fn unsnappy(bytes: &Bytes) -> Option<Vec<u8>> {
    if !bytes.starts_with(XERIAL_MAGIC) {
        return snap::raw::Decoder::new().decompress_vec(bytes).ok();
    }
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..)?;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_at_checked(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        let (block, after) = after.split_at_checked(length)?;
        out.extend(snap::raw::Decoder::new().decompress_vec(block).ok()?);
        rest = after;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back() {
        let bytes = Bytes::from(vec![b'x'; 5_000]);
        for number in 0..5 {
            let codec = Codec::from_number(number).expect("a codec");
            let compressed = codec.compress(&bytes);
            assert_eq!(
                codec.decompress(&compressed),
                Some(bytes.clone()),
                "{codec:?}"
            );
            assert_eq!(codec.number(), number);
            assert!(number == 0 || compressed.len() < 500);
        }
    }
}
