//! Checksums: verifying a batch, and deriving a rewritten batch's CRC from the old one.

use super::header::CRC_FROM;
use super::{BatchError, RawBatch, legacy};

/// Checks a batch's checksum against its bytes: CRC-32C for v2, CRC-32 of the outer message for legacy.
///
/// # Errors
/// `CorruptCrc` if they differ, `Truncated` if there is nothing to check.
pub fn verify_crc(batch: &RawBatch) -> Result<(), BatchError> {
    let offset = batch.header.base_offset;
    let from = if batch.legacy {
        legacy::CRC_FROM
    } else {
        CRC_FROM
    };
    let have = batch.bytes.len();
    let covered = batch.bytes.get(from..).ok_or(BatchError::Truncated {
        offset,
        need: from,
        have,
    })?;
    let computed = if batch.legacy {
        legacy::crc(covered)
    } else {
        crc32c::crc32c(covered)
    };
    let stored = batch.header.crc;
    if stored == computed {
        Ok(())
    } else {
        Err(BatchError::CorruptCrc {
            offset,
            stored,
            computed,
        })
    }
}

/// The CRC after the first bytes of the covered range were replaced by as many others.
///
/// `before` and `after` are the CRCs of those first bytes alone, `tail_bytes` is how many unchanged bytes
/// follow. CRC is linear over XOR, so the change of the whole is the change of the head, moved over the tail.
pub(super) fn derive(old: u32, before: u32, after: u32, tail_bytes: usize) -> u32 {
    old ^ shift(before ^ after, tail_bytes)
}

/// What `crc32c::crc32c_combine` does, in a fifth of the time: that one squares matrices on every call, which
/// costs more than the checksum of a small batch. This is zlib's newer way: multiplication of polynomials
/// modulo the CRC's, with x^(2^k) from a table.
fn shift(crc: u32, bytes: usize) -> u32 {
    if crc == 0 {
        return 0;
    }
    let mut power = ONE;
    let mut rest = bytes;
    // Byte counts start at x^8 = x^(2^3).
    let mut k = 3;
    while rest != 0 && k < POWERS.len() {
        if rest & 1 == 1 {
            power = multiply(POWERS[k], power);
        }
        rest >>= 1;
        k += 1;
    }
    multiply(power, crc)
}

/// The Castagnoli polynomial, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// x^0: in reflected order the highest bit.
const ONE: u32 = 1 << 31;
/// x^(2^k). A batch is below 2^31 bytes, so 3 + 31 entries are enough.
const POWERS: [u32; 36] = {
    let mut table = [ONE >> 1; 36];
    let mut k = 1;
    while k < table.len() {
        table[k] = multiply(table[k - 1], table[k - 1]);
        k += 1;
    }
    table
};

/// Product of two polynomials modulo the CRC's. Without branches on the data: these are unpredictable.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        product ^= b & ((a >> bit) & 1).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_equals_recomputed_for_all_tail_sizes() {
        let tail: Vec<u8> = (0..1u32 << 20)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let (head, other) = ([7u8; 40], [0xa5u8; 40]);
        let (before, after) = (crc32c::crc32c(&head), crc32c::crc32c(&other));
        let sizes = (0..600).chain([4095, 4096, 65_537, 1 << 20]);
        for size in sizes {
            let old = crc32c::crc32c_append(before, &tail[..size]);
            let new = crc32c::crc32c_append(after, &tail[..size]);
            assert_eq!(derive(old, before, after, size), new, "{size} bytes");
            if size > 0 {
                assert_eq!(
                    crc32c::crc32c_combine(before ^ after, old, size),
                    new,
                    "{size} bytes"
                );
            }
        }
    }
}
