//! A message's headers, read safely.
//!
//! rdkafka takes a header key that isn't UTF-8 for a bug and panics, although Kafka doesn't mind
//! such keys. The panic is caught and the header counted as not comparable; its key and value
//! aren't known then.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use rdkafka::message::Headers;

use super::digest::Hasher;

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// What could be read of a record's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeaderDigest {
    pub digest: u64,
    pub count: u32,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Headers whose key isn't UTF-8.
    pub unreadable: u32,
}

/// Keeps the panics that are caught here out of the log. Called once before headers are read.
pub(super) fn keep_quiet() {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                before(info);
            }
        }));
    });
}

/// The digest of all headers in order.
pub(super) fn digest<H: Headers>(hasher: Hasher, headers: Option<&H>) -> HeaderDigest {
    let mut read = HeaderDigest {
        digest: 0,
        count: 0,
        bytes: 0,
        unreadable: 0,
    };
    let Some(headers) = headers else {
        return read;
    };
    let count = headers.count();
    read.count = u32::try_from(count).unwrap_or(u32::MAX);
    for index in 0..count {
        EXPECTED.set(true);
        // Nothing is left half-changed by a panic in there: it only reads.
        let header = panic::catch_unwind(AssertUnwindSafe(|| headers.try_get(index)));
        EXPECTED.set(false);
        read.digest = match header {
            Ok(Some(header)) => {
                let value = header.value.map_or(0, <[u8]>::len);
                read.bytes += (header.key.len() + value) as u64;
                hasher.header(read.digest, Some(header.key.as_bytes()), header.value)
            }
            Ok(None) | Err(_) => {
                read.unreadable += 1;
                hasher.header(read.digest, None, None)
            }
        };
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::{Header, OwnedHeaders};

    const HASHER: fn() -> Hasher = || Hasher::new(3);

    /// Panics as rdkafka does.
    struct Unreadable;

    impl Headers for Unreadable {
        fn count(&self) -> usize {
            2
        }

        fn try_get(&self, index: usize) -> Option<Header<'_, &[u8]>> {
            assert_ne!(index, 0, "a key that isn't UTF-8");
            Some(Header {
                key: "good",
                value: Some(b"1"),
            })
        }
    }

    #[test]
    fn a_key_that_is_not_text_is_counted() {
        keep_quiet();
        let read = digest(HASHER(), Some(&Unreadable));
        assert_eq!((read.count, read.unreadable), (2, 1));
        assert!(!EXPECTED.get(), "later panics must be shown");
    }

    #[test]
    fn order_duplicates_and_null_values_count() {
        let of = |list: &[(&str, Option<&[u8]>)]| {
            let headers = list
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header { key, value: *value })
                });
            digest(HASHER(), Some(&headers)).digest
        };
        let all = [
            of(&[]),
            of(&[("a", None)]),
            of(&[("a", Some(b""))]),
            of(&[("a", None), ("a", None)]),
            of(&[("a", None), ("b", None)]),
            of(&[("b", None), ("a", None)]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index} is like one before");
        }
    }
}
