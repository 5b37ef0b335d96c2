//! Kafka's zigzag varints (`ByteUtils.readVarint`), bounds-checked.

/// Longest encoding of a 32-bit value.
pub(super) const VARINT_BYTES_MAX: usize = 5;
/// Longest encoding of a 64-bit value.
pub(super) const VARLONG_BYTES_MAX: usize = 10;

/// Reads at `*at` and moves it; `None` if the bytes end or the encoding is too long.
#[inline]
pub(super) fn read_varint(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag(u32::from(first)));
    }
    // Two bytes: lengths of records from 64 B to 8 KiB.
    if let Some(&second) = bytes.get(*at + 1)
        && second < 0x80
    {
        *at += 2;
        return Some(unzigzag(u32::from(first & 0x7f) | u32::from(second) << 7));
    }
    let value = read_unsigned(bytes, at, VARINT_BYTES_MAX)?;
    // As Java does, bits beyond the 32nd are dropped.
    Some(unzigzag(value as u32))
}

/// Reads at `*at` and moves it; `None` if the bytes end or the encoding is too long.
#[inline]
pub(super) fn read_varlong(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag(u32::from(first)).into());
    }
    let value = read_unsigned(bytes, at, VARLONG_BYTES_MAX)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

#[inline]
fn unzigzag(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[cold]
fn read_unsigned(bytes: &[u8], at: &mut usize, bytes_max: usize) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in bytes.get(*at..)?.iter().take(bytes_max).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *at += i + 1;
            return Some(value);
        }
    }
    None
}

/// Encoded size of a 32-bit value.
#[inline]
pub(super) fn varint_bytes(value: i32) -> usize {
    unsigned_bytes(u64::from((value << 1 ^ value >> 31) as u32))
}

/// Encoded size of a 64-bit value.
#[inline]
pub(super) fn varlong_bytes(value: i64) -> usize {
    unsigned_bytes((value << 1 ^ value >> 63) as u64)
}

#[inline]
fn unsigned_bytes(value: u64) -> usize {
    // ceil(significant bits / 7) without a division; 0 takes one byte.
    (((63 - (value | 1).leading_zeros()) * 9 + 73) / 64) as usize
}

/// A small buffer on the stack for the varying fields in front of a record's key.
pub(super) struct Head {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl Head {
    /// Length, attributes, timestamp delta, offset delta.
    const ROOM: usize = 2 * VARINT_BYTES_MAX + VARLONG_BYTES_MAX + 1;

    /// The fields up to and including the offset delta of a record whose key, value and headers take
    /// `rest_bytes`. `None` if the record would be 2 GiB or more.
    #[inline]
    pub(super) fn of_record(
        attributes: u8,
        timestamp_delta: i64,
        offset_delta: i32,
        rest_bytes: usize,
    ) -> Option<Self> {
        let body = 1 + varlong_bytes(timestamp_delta) + varint_bytes(offset_delta) + rest_bytes;
        let mut head = Self {
            bytes: [0; Self::ROOM],
            len: 0,
        };
        head.put_varint(i32::try_from(body).ok()?);
        head.put(attributes);
        head.put_varlong(timestamp_delta);
        head.put_varint(offset_delta);
        Some(head)
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    fn put_varint(&mut self, value: i32) {
        self.put_unsigned(u64::from((value << 1 ^ value >> 31) as u32));
    }

    #[inline]
    fn put_varlong(&mut self, value: i64) {
        self.put_unsigned((value << 1 ^ value >> 63) as u64);
    }

    #[inline]
    fn put_unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(value as u8 | 0x80);
            value >>= 7;
        }
        self.put(value as u8);
    }
}

/// Appends a varint.
#[inline]
pub(super) fn push_varint(out: &mut Vec<u8>, value: i32) {
    let mut rest = (value << 1 ^ value >> 31) as u32;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(value: i64) {
        let mut head = Head {
            bytes: [0; Head::ROOM],
            len: 0,
        };
        head.put_varlong(value);
        assert_eq!(head.len, varlong_bytes(value), "{value}");
        let mut at = 0;
        assert_eq!(read_varlong(head.as_slice(), &mut at), Some(value));
        assert_eq!(at, head.len);
        for cut in 0..head.len {
            assert_eq!(
                read_varlong(&head.bytes[..cut], &mut 0),
                None,
                "{value} cut to {cut}"
            );
        }
        let value = value as i32;
        let mut head = Head {
            bytes: [0; Head::ROOM],
            len: 0,
        };
        head.put_varint(value);
        let mut pushed = Vec::new();
        push_varint(&mut pushed, value);
        assert_eq!(head.as_slice(), pushed);
        assert_eq!(head.len, varint_bytes(value), "{value}");
        let mut at = 0;
        assert_eq!(read_varint(head.as_slice(), &mut at), Some(value));
        assert_eq!(at, head.len);
        for cut in 0..head.len {
            assert_eq!(
                read_varint(&head.bytes[..cut], &mut 0),
                None,
                "{value} cut to {cut}"
            );
        }
    }

    #[test]
    fn every_width_round_trips() {
        for shift in 0..64 {
            for near in -2..=2 {
                check((1i64 << shift).wrapping_add(near));
                check((1i64 << shift).wrapping_neg().wrapping_add(near));
            }
        }
    }

    #[test]
    fn known_encodings() {
        // ByteUtilsTest.testVarintSerde
        for (value, encoded) in [
            (0, &[0u8][..]),
            (-1, &[1]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (8192, &[0x80, 0x80, 1]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut out = Vec::new();
            push_varint(&mut out, value);
            assert_eq!(out, encoded);
        }
        assert_eq!(
            read_varint(&[0x80, 0x80, 0x80, 0x80, 0x80, 0], &mut 0),
            None,
            "too long"
        );
    }

    proptest! {
        #[test]
        fn any_value_round_trips(value: i64) {
            check(value);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..12), from in 0usize..14) {
            let mut at = from;
            if read_varint(&bytes, &mut at).is_some() { prop_assert!(at <= bytes.len()); }
            let mut at = from;
            if read_varlong(&bytes, &mut at).is_some() { prop_assert!(at <= bytes.len()); }
        }
    }
}
