//! A description of all topics that says what the last one said.
//!
//! At rest a cluster describes its thousands of partitions every second in the same bytes. Then nothing has to be
//! decoded, merged or compared.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use twox_hash::XxHash3_128;

use super::metadata::Metadata;

/// `throttle_time_ms`, which comes first (Metadata from version 3 on) and says nothing about topics.
const THROTTLE_BYTES: usize = 4;

/// The last answer about all topics, and what was known with it.
#[derive(Debug, Default)]
pub(super) struct LastAnswer(Mutex<Option<(Fingerprint, Arc<Metadata>)>>);

/// Of an answer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u128);

impl Fingerprint {
    /// Of an answer that is encoded for this version.
    pub(super) fn of(body: &Bytes, version: i16) -> Self {
        let said = body.get(THROTTLE_BYTES..).unwrap_or_default();
        Self(XxHash3_128::oneshot(said) ^ u128::from(version.unsigned_abs()))
    }
}

impl LastAnswer {
    /// Whether this answer was merged into what is known, and nothing else since.
    pub(super) fn is_in(&self, answer: Fingerprint, known: &Arc<Metadata>) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()
            .is_some_and(|(last, merged)| *last == answer && Arc::ptr_eq(merged, known))
    }

    /// Notes what an answer was merged into.
    pub(super) fn note(&self, answer: Fingerprint, merged: Arc<Metadata>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((answer, merged));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(throttle: u8, rest: &[u8]) -> Bytes {
        [&[0, 0, 0, throttle], rest].concat().into()
    }

    #[test]
    fn an_answer_is_the_same_whatever_its_throttling_and_no_other_is() {
        let one = Fingerprint::of(&body(0, b"topics"), 12);
        assert_eq!(one, Fingerprint::of(&body(9, b"topics"), 12));
        assert_ne!(one, Fingerprint::of(&body(0, b"topicz"), 12));
        assert_ne!(one, Fingerprint::of(&body(0, b"topics"), 13));
        Fingerprint::of(&Bytes::from_static(b"no"), 12);
    }

    #[test]
    fn what_was_merged_since_then_counts() {
        let (last, one) = (LastAnswer::default(), Fingerprint::of(&body(0, b"a"), 12));
        let (merged, newer) = (Arc::new(Metadata::empty()), Arc::new(Metadata::empty()));
        assert!(!last.is_in(one, &merged));
        last.note(one, merged.clone());
        assert!(last.is_in(one, &merged));
        assert!(!last.is_in(one, &newer), "somebody else told more");
        assert!(!last.is_in(Fingerprint::of(&body(0, b"b"), 12), &merged));
    }
}
