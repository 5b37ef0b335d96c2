//! A description of all topics that says what the last one said.
//!
//! At rest a cluster describes its thousands of partitions every second in the same bytes. Then nothing has to be
//! decoded, merged or compared.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use twox_hash::xxhash3_128::Hasher;

use super::metadata::Metadata;

/// `throttle_time_ms`, which comes first (Metadata from version 3 on) and says nothing about topics.
const THROTTLE_BYTES: usize = 4;

/// The id of a broker.
const CONTROLLER_BYTES: usize = 4;
/// From this version on lengths are compact, and structures end in tags.
const COMPACT_FROM: i16 = 9;

/// The last answer about all topics, and what was known with it.
#[derive(Debug, Default)]
pub(super) struct LastAnswer(Mutex<Option<(Fingerprint, Arc<Metadata>)>>);

/// Of an answer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u128);

impl Fingerprint {
    /// Of an answer that is encoded for this version. Brokers with KRaft name another controller in each answer, any
    /// that lives: that says nothing either.
    pub(super) fn of(body: &Bytes, version: i16) -> Self {
        let said = body.get(THROTTLE_BYTES..).unwrap_or_default();
        let (before, rest) = match controller_at(said, version) {
            Some(at) => (&said[..at], &said[at + CONTROLLER_BYTES..]),
            None => (said, &[][..]),
        };
        let mut hasher = Hasher::new();
        hasher.write(before);
        hasher.write(rest);
        Self(hasher.finish_128() ^ u128::from(version.unsigned_abs()))
    }
}

/// Where an answer behind its throttling tells the controller's id; `None` where it can't be read.
fn controller_at(said: &[u8], version: i16) -> Option<usize> {
    let mut skipped = Skipped { said, at: 0 };
    let is_compact = version >= COMPACT_FROM;
    let brokers = match is_compact {
        true => skipped.varint()?.saturating_sub(1),
        false => usize::try_from(skipped.int()?).ok()?,
    };
    for _ in 0..brokers {
        // Id, host, port, rack.
        skipped.int()?;
        skipped.text(is_compact)?;
        skipped.int()?;
        skipped.text(is_compact)?;
        if is_compact {
            skipped.tags()?;
        }
    }
    // The cluster's id.
    skipped.text(is_compact)?;
    let at = skipped.at;
    skipped.int().map(|_| at)
}

/// An answer that is read up to somewhere.
struct Skipped<'a> {
    said: &'a [u8],
    at: usize,
}

impl Skipped<'_> {
    fn take(&mut self, bytes: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(bytes)?;
        let taken = self.said.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn int(&mut self) -> Option<i32> {
        let bytes = self.take(CONTROLLER_BYTES)?.try_into().ok()?;
        Some(i32::from_be_bytes(bytes))
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0_usize;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.take(1)?.first()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A text, or none.
    fn text(&mut self, is_compact: bool) -> Option<()> {
        let length = match is_compact {
            true => self.varint()?.saturating_sub(1),
            false => {
                let bytes = self.take(2)?.try_into().ok()?;
                usize::try_from(i16::from_be_bytes(bytes)).unwrap_or(0)
            }
        };
        self.take(length).map(|_| ())
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let bytes = self.varint()?;
            self.take(bytes)?;
        }
        Some(())
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
    use bytes::BytesMut;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{BrokerId, MetadataResponse, TopicName};
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    fn encoded(version: i16, controller: i32, topic: &'static str) -> Bytes {
        let broker = |id: i32, rack: Option<&'static str>| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(StrBytes::from_static_str("broker.example"))
                .with_port(9_092)
                .with_rack(rack.map(StrBytes::from_static_str))
        };
        let name = TopicName(StrBytes::from_static_str(topic));
        let answer = MetadataResponse::default()
            .with_brokers(vec![broker(1, None), broker(2, Some("a"))])
            .with_cluster_id(Some(StrBytes::from_static_str("an-id")))
            .with_controller_id(BrokerId(controller))
            .with_topics(vec![MetadataResponseTopic::default().with_name(Some(name))]);
        let mut body = BytesMut::new();
        answer.encode(&mut body, version).expect("it is valid");
        body.freeze()
    }

    #[test]
    fn an_answer_is_the_same_whomever_it_calls_the_controller() {
        for version in 3..=13 {
            let of =
                |controller, topic| Fingerprint::of(&encoded(version, controller, topic), version);
            assert_eq!(of(1, "t"), of(2, "t"), "{version}");
            assert_ne!(of(1, "t"), of(1, "u"), "{version}");
        }
    }

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
