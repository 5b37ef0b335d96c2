//! Messages to bytes and back, with the broker's lengths checked before memory is taken for them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::buf::{ByteBuf, NotEnoughBytesError};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// Length prefix and header of a request whose body, `body_bytes` long, follows.
pub(super) fn request_head<R: Request>(
    version: i16,
    correlation_id: i32,
    client_id: &StrBytes,
    body_bytes: usize,
) -> Result<BytesMut, String> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(client_id.clone()));
    let mut head = BytesMut::with_capacity(64 + client_id.len());
    head.put_i32(0);
    header
        .encode(&mut head, R::header_version(version))
        .map_err(|e| e.to_string())?;
    let length = i32::try_from(head.len() - 4 + body_bytes)
        .map_err(|_| format!("request of {body_bytes} bytes is too long for a frame"))?;
    head[..4].copy_from_slice(&length.to_be_bytes());
    Ok(head)
}

/// The body of a request.
pub(super) fn encode_body<R: Request>(request: &R, version: i16) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    request
        .encode(&mut body, version)
        .map_err(|e| e.to_string())?;
    Ok(body.freeze())
}

/// Decodes the body of an answer of a compact version ([`is_bounded`](super::versions::is_bounded)). Byte fields
/// are slices of `body`, not copies.
pub(super) fn decode_body<T: Decodable>(body: Bytes, version: i16) -> Result<T, String> {
    decode(Guarded::new(body, Lengths::Compact), version)
}

/// Decodes the body of an answer whose only 32-bit numbers are lengths of arrays: versions from before KIP-482 that
/// strangers may answer in. Of other calls they aren't spoken.
pub(super) fn decode_plain_body<T: Decodable>(body: Bytes, version: i16) -> Result<T, String> {
    decode(Guarded::new(body, Lengths::Plain), version)
}

fn decode<T: Decodable>(mut body: Guarded, version: i16) -> Result<T, String> {
    T::decode(&mut body, version).map_err(|e| e.to_string())
}

/// The version of the header that comes before an answer.
pub(super) fn response_header_version<R: Request>(version: i16) -> i16 {
    R::Response::header_version(version)
}

/// Bytes whose lengths are checked against what is left.
///
/// The generated decoders reserve memory for as many array elements as the message promises, and a
/// failed reservation aborts the process. In compact versions every length is an unsigned varint,
/// read byte by byte through `get_u8`, so it can be checked here: each element takes a byte at
/// least. (Booleans come through `get_u8` too, and are 0 or 1.) Plain 32-bit lengths can't be told
/// from other fields, so only answers that have no other are decoded with them.
struct Guarded {
    inner: Bytes,
    lengths: Lengths,
    varint: u64,
    shift: u32,
}

/// How an answer writes the lengths of its arrays.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lengths {
    /// As unsigned varints.
    Compact,
    /// In four bytes.
    Plain,
}

/// Below this a length needn't be covered by bytes: it is no danger, and leaves room for numbers
/// that aren't lengths, like tags.
const HARMLESS_LENGTH: usize = 1 << 16;

impl Guarded {
    fn new(inner: Bytes, lengths: Lengths) -> Self {
        Self {
            inner,
            lengths,
            varint: 0,
            shift: 0,
        }
    }

    /// Adds a byte to the varint being read; `false` when the finished number can't be a length.
    fn accept(&mut self, byte: u8) -> bool {
        self.varint |= u64::from(byte & 0x7f) << self.shift;
        if byte & 0x80 != 0 && self.shift < 28 {
            self.shift += 7;
            return true;
        }
        let value = self.varint;
        self.varint = 0;
        self.shift = 0;
        value <= self.inner.remaining().max(HARMLESS_LENGTH) as u64 + 1
    }

    fn promises_too_much(&self) -> bytes::TryGetError {
        bytes::TryGetError {
            requested: usize::MAX,
            available: self.remaining(),
        }
    }
}

impl Buf for Guarded {
    fn remaining(&self) -> usize {
        self.inner.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.inner.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.inner.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, bytes::TryGetError> {
        let byte = self.inner.try_get_u8()?;
        match self.accept(byte) {
            true => Ok(byte),
            false => Err(self.promises_too_much()),
        }
    }

    fn try_get_i32(&mut self) -> Result<i32, bytes::TryGetError> {
        let number = self.inner.try_get_i32()?;
        let left = i32::try_from(self.remaining()).unwrap_or(i32::MAX);
        match self.lengths == Lengths::Plain && number > left {
            true => Err(self.promises_too_much()),
            false => Ok(number),
        }
    }
}

impl ByteBuf for Guarded {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.inner.peek_bytes(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.inner.get_bytes(size)
    }

    fn try_get_bytes(&mut self, size: usize) -> Result<Bytes, NotEnoughBytesError> {
        self.inner.try_get_bytes(size)
    }
}
