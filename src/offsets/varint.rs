//! Unsigned LEB128 numbers in their shortest form, and offsets that only go up.

use super::DecodeError;

pub(super) fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

pub(super) fn take(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit; a last byte of zero would be a second spelling.
        if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
            return Err(DecodeError::Malformed);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DecodeError::Malformed)
}

/// `start + gap`, if that is still an offset.
pub(super) fn after(start: i64, gap: u64) -> Result<i64, DecodeError> {
    start
        .checked_add_unsigned(gap)
        .ok_or(DecodeError::Malformed)
}
