//! The rehearsal's own clients, librdkafka's: a writer and a group of readers that move from one
//! cluster to the other as an application's would, and an account of every record.

mod account;
mod reader;
mod writer;

pub use account::{Account, account};
pub use reader::{Read, Reader};
pub use writer::{Writer, Written};

/// Records are numbered from here: in a copy of somebody's topic, nothing else is likely to be such
/// a number.
pub const FIRST: u64 = 7_000_000_000_000_000_000;
/// After the cut numbers go on here.
pub const FIRST_AFTER: u64 = FIRST + 1_000_000_000_000;

/// The number in a record's value, if it is one of ours. Values are decimal text, so that anybody
/// can read them.
pub fn number(value: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number >= FIRST).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_ours_count() {
        assert_eq!(number(FIRST.to_string().as_bytes()), Some(FIRST));
        for other in ["17", "orders-1", "", "99999999999999999999999"] {
            assert_eq!(number(other.as_bytes()), None, "{other}");
        }
    }
}
