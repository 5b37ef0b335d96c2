//! Messages to bytes and back, with the broker's lengths checked before memory is taken for them.

use std::any::type_name;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{FetchResponse, RequestHeader};
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
    // The one answer with a field that may fill it.
    let lengths = match type_name::<T>() == type_name::<FetchResponse>() {
        true => Lengths::CompactAndRecords,
        false => Lengths::Compact,
    };
    decode(Guarded::new(body, lengths), version)
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
/// read byte by byte through `get_u8`, so it can be checked here. An element takes a byte at least, and
/// all lengths of an answer together can't promise many times what it holds. Plain 32-bit lengths can't be
/// told from other fields, so only answers that have no other are decoded with them.
///
/// Booleans come through `get_u8` too, and are 0 or 1. A stranger's may be anything, and look like the first
/// byte of the length behind it: so every way of reading the last bytes as a varint has to be harmless.
struct Guarded {
    inner: Bytes,
    lengths: Lengths,
    /// Bytes that the last varint may consist of, at most as many as one has.
    run: [u8; VARINT_BYTES_MAX],
    run_bytes: usize,
    /// How much all lengths may promise together, and did.
    promise_max: usize,
    promised: usize,
    /// Varints so far, as far as one can tell.
    varints: usize,
    /// Whether a four-byte number was read last.
    behind_i32: bool,
}

/// How an answer writes lengths.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lengths {
    /// As unsigned varints.
    Compact,
    /// The same, and one may be of records: it comes right behind a four-byte number, as no array but the first does.
    CompactAndRecords,
    /// Of arrays, in four bytes.
    Plain,
}

const VARINT_BYTES_MAX: usize = 5;

/// Below this a length needn't be covered by bytes: it is no danger, and leaves room for numbers
/// that aren't lengths, like tags.
const HARMLESS_LENGTH: usize = 1 << 10;

/// No array of any answer is longer: even then its elements are a gigabyte. All producers of a partition, for
/// example, are some hundred thousand.
const ELEMENTS_MAX: usize = 1 << 22;

/// Each byte of a good answer is promised by two lengths at most, or by four where it is in a tag: an array's
/// and a text's.
const PROMISES_OF_A_BYTE: usize = 4;

impl Guarded {
    fn new(inner: Bytes, lengths: Lengths) -> Self {
        let promise_max = inner.len() * PROMISES_OF_A_BYTE + HARMLESS_LENGTH;
        Self {
            inner,
            lengths,
            run: [0; VARINT_BYTES_MAX],
            run_bytes: 0,
            promise_max,
            promised: 0,
            varints: 0,
            behind_i32: false,
        }
    }

    /// Looks at a byte of a varint; `false` when the number that it ends can't be a length.
    fn accept(&mut self, byte: u8) -> bool {
        if self.run_bytes == VARINT_BYTES_MAX {
            self.run.copy_within(1.., 0);
            self.run_bytes -= 1;
        }
        self.run[self.run_bytes] = byte;
        self.run_bytes += 1;
        let Some(length) = longest(&self.run[..self.run_bytes]) else {
            return true;
        };
        if byte & 0x80 == 0 {
            self.run_bytes = 0;
        }
        self.varints += 1;
        self.may_promise(length)
    }

    fn may_promise(&mut self, length: usize) -> bool {
        self.promised = self.promised.saturating_add(length);
        let fits = length <= self.inner.remaining().max(HARMLESS_LENGTH) + 1;
        let is_plausible = length <= ELEMENTS_MAX || self.may_be_records();
        fits && is_plausible && self.promised <= self.promise_max
    }

    fn may_be_records(&self) -> bool {
        self.lengths == Lengths::CompactAndRecords && self.behind_i32 && self.varints > 1
    }

    fn promises_too_much(&self) -> bytes::TryGetError {
        bytes::TryGetError {
            requested: usize::MAX,
            available: self.remaining(),
        }
    }
}

/// The largest number that ends with the last of these bytes, wherever it began; `None` where none does.
fn longest(run: &[u8]) -> Option<usize> {
    let ends = run.last().is_some_and(|byte| byte & 0x80 == 0);
    let begins = (0..run.len()).filter(|begin| ends || run.len() - begin == VARINT_BYTES_MAX);
    begins.map(|begin| number(&run[begin..])).max()
}

fn number(varint: &[u8]) -> usize {
    let bits = |byte: u8| u64::from(byte & 0x7f);
    let number = varint
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 7 | bits(*byte));
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Buf for Guarded {
    fn remaining(&self) -> usize {
        self.inner.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.inner.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.behind_i32 = false;
        self.inner.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, bytes::TryGetError> {
        let byte = self.inner.try_get_u8()?;
        match self.accept(byte) {
            // What comes behind a number that has ended isn't behind another one.
            true if byte & 0x80 == 0 => {
                self.behind_i32 = false;
                Ok(byte)
            }
            true => Ok(byte),
            false => Err(self.promises_too_much()),
        }
    }

    fn try_get_i32(&mut self) -> Result<i32, bytes::TryGetError> {
        let number = self.inner.try_get_i32()?;
        self.behind_i32 = true;
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
        self.behind_i32 = false;
        self.inner.get_bytes(size)
    }

    fn try_get_bytes(&mut self, size: usize) -> Result<Bytes, NotEnoughBytesError> {
        self.behind_i32 = false;
        self.inner.try_get_bytes(size)
    }
}
