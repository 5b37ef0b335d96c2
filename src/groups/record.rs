//! The records of `__consumer_offsets`, as far as following groups needs them.
//!
//! Layouts: `group-coordinator/src/main/resources/common/message/*.json` in Kafka's source. A key
//! begins with its type: 0 and 1 an offset, 2 a classic group, 3 a KIP-848 consumer group; others
//! are passed over. Pure.

use uuid::Uuid;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    /// A group's position on a partition.
    Offset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What was committed; `None` when it expired or was deleted, and for an offset below 0, which the coordinator
        /// takes and every reader takes for none.
        commit: Option<StoredOffset>,
    },
    /// A group came or changed, or is gone.
    Group {
        /// The group.
        group: String,
        /// Whether it is there.
        exists: bool,
    },
    /// Something else: members, assignments, share groups.
    Other,
}

impl GroupRecord {
    /// The group that it is about; empty where that isn't known.
    pub fn group(&self) -> &str {
        match self {
            Self::Offset { group, .. } | Self::Group { group, .. } => group,
            Self::Other => "",
        }
    }

    /// Whether it takes something back.
    pub fn is_tombstone(&self) -> bool {
        match self {
            Self::Offset { commit, .. } => commit.is_none(),
            Self::Group { exists, .. } => !exists,
            Self::Other => false,
        }
    }
}

/// A committed position as the coordinator keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOffset {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record read, or -1.
    pub leader_epoch: i32,
    /// What the group wrote beside it; empty for none.
    pub metadata: String,
    /// The coordinator's time of the commit, milliseconds since the epoch.
    pub committed_at_ms: i64,
    /// The topic's id at that time (Kafka 4.1); nil where it isn't told.
    pub topic_id: Uuid,
}

/// Why a record can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It ends too early, or a length in it is wrong.
    #[error("the record ends in the middle of {0}")]
    CutOff(&'static str),
    /// A text isn't UTF-8.
    #[error("{0} isn't UTF-8")]
    NotText(&'static str),
    /// A newer coordinator wrote it.
    #[error("an offset of version {0}, which isn't known")]
    UnknownVersion(i16),
}

/// Reads one record.
///
/// # Errors
/// When its bytes aren't what its type says. Types that aren't known are [`GroupRecord::Other`].
pub fn parse(key: &[u8], value: Option<&[u8]>) -> Result<GroupRecord, RecordError> {
    let mut key = Reader(key);
    Ok(match key.i16("the key's type")? {
        0 | 1 => GroupRecord::Offset {
            group: key.text("the group")?,
            topic: key.text("the topic")?,
            partition: key.i32("the partition")?,
            commit: value
                .map(parse_offset)
                .transpose()?
                .filter(|stored| stored.offset >= 0),
        },
        2 | 3 => GroupRecord::Group {
            group: key.text("the group")?,
            exists: value.is_some(),
        },
        _ => GroupRecord::Other,
    })
}

/// Whether a record with this key is about a position, of whatever version its value is.
pub fn is_of_position(key: &[u8]) -> bool {
    matches!(Reader(key).i16("the key's type"), Ok(0 | 1))
}

fn parse_offset(value: &[u8]) -> Result<StoredOffset, RecordError> {
    let mut value = Reader(value);
    let version = value.i16("the version")?;
    if !(0..=4).contains(&version) {
        return Err(RecordError::UnknownVersion(version));
    }
    let offset = value.i64("the offset")?;
    let leader_epoch = if version >= 3 {
        value.i32("the leader epoch")?
    } else {
        -1
    };
    let metadata = if version >= 4 {
        value.compact_text("the metadata")?
    } else {
        value.text("the metadata")?
    };
    let committed_at_ms = value.i64("the time")?;
    let topic_id = match version {
        4.. => value.tagged_id("the topic's id")?,
        _ => Uuid::nil(),
    };
    Ok(StoredOffset {
        offset,
        leader_epoch,
        metadata,
        committed_at_ms,
        topic_id,
    })
}

/// What is left of a record.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordError> {
        let (first, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(RecordError::CutOff(what))?;
        self.0 = rest;
        Ok(*first)
    }

    fn i16(&mut self, what: &'static str) -> Result<i16, RecordError> {
        self.take(what).map(i16::from_be_bytes)
    }

    fn i32(&mut self, what: &'static str) -> Result<i32, RecordError> {
        self.take(what).map(i32::from_be_bytes)
    }

    fn i64(&mut self, what: &'static str) -> Result<i64, RecordError> {
        self.take(what).map(i64::from_be_bytes)
    }

    fn text(&mut self, what: &'static str) -> Result<String, RecordError> {
        let length = self.i16(what)?;
        let length = usize::try_from(length).map_err(|_| RecordError::CutOff(what))?;
        self.text_of(length, what)
    }

    /// An unsigned varint.
    fn varint(&mut self, what: &'static str) -> Result<u64, RecordError> {
        let mut number: u64 = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take(what)?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(RecordError::CutOff(what))
    }

    /// Length + 1 as an unsigned varint (KIP-482).
    fn compact_text(&mut self, what: &'static str) -> Result<String, RecordError> {
        let length = self.varint(what)?;
        let length = length.checked_sub(1).ok_or(RecordError::CutOff(what))?;
        let length = usize::try_from(length).map_err(|_| RecordError::CutOff(what))?;
        self.text_of(length, what)
    }

    /// The id in the tagged fields (tag 0), nil where it isn't there. Other tags are passed over.
    fn tagged_id(&mut self, what: &'static str) -> Result<Uuid, RecordError> {
        let mut id = Uuid::nil();
        for _ in 0..self.varint(what)? {
            let (tag, length) = (self.varint(what)?, self.varint(what)?);
            let length = usize::try_from(length).map_err(|_| RecordError::CutOff(what))?;
            let field = self.0.split_at_checked(length);
            let (field, rest) = field.ok_or(RecordError::CutOff(what))?;
            self.0 = rest;
            if let (0, Ok(bytes)) = (tag, field.try_into()) {
                id = Uuid::from_bytes(bytes);
            }
        }
        Ok(id)
    }

    fn text_of(&mut self, length: usize, what: &'static str) -> Result<String, RecordError> {
        let (text, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(RecordError::CutOff(what))?;
        self.0 = rest;
        std::str::from_utf8(text)
            .map(str::to_owned)
            .map_err(|_| RecordError::NotText(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Dice, Input, Target};
    use crate::groups::mirrormaker::{Checkpoint, Heartbeat};
    use proptest::prelude::*;

    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as i16).to_be_bytes());
        out.extend(text.as_bytes());
    }

    fn key() -> Vec<u8> {
        let mut key = 1_i16.to_be_bytes().to_vec();
        text(&mut key, "g");
        text(&mut key, "orders");
        key.extend(3_i32.to_be_bytes());
        key
    }

    fn value(version: i16) -> Vec<u8> {
        let mut value = version.to_be_bytes().to_vec();
        value.extend(42_i64.to_be_bytes());
        if version >= 3 {
            value.extend(7_i32.to_be_bytes());
        }
        if version >= 4 {
            value.push(3);
            value.extend(b"ab");
        } else {
            text(&mut value, "ab");
        }
        value.extend(1_000_i64.to_be_bytes());
        if version == 1 {
            value.extend(2_000_i64.to_be_bytes());
        }
        if version >= 4 {
            value.push(0);
        }
        value
    }

    #[test]
    fn offsets_of_every_version_are_read() {
        for version in 0..=4 {
            let read = parse(&key(), Some(&value(version))).expect("a whole record");
            let expected = GroupRecord::Offset {
                group: "g".to_owned(),
                topic: "orders".to_owned(),
                partition: 3,
                commit: Some(StoredOffset {
                    offset: 42,
                    leader_epoch: if version >= 3 { 7 } else { -1 },
                    metadata: "ab".to_owned(),
                    committed_at_ms: 1_000,
                    topic_id: Uuid::nil(),
                }),
            };
            assert_eq!(read, expected, "version {version}");
        }
        assert_eq!(
            parse(&key(), Some(&5_i16.to_be_bytes())),
            Err(RecordError::UnknownVersion(5))
        );
    }

    #[test]
    fn the_id_of_the_topic_is_read_among_other_tags() {
        let mut tagged = value(4);
        tagged.pop();
        // Two tagged fields: the id, and one that isn't known.
        tagged.extend([2, 0, 16]);
        tagged.extend([9; 16]);
        tagged.extend([7, 1, 5]);
        let Ok(GroupRecord::Offset {
            commit: Some(stored),
            ..
        }) = parse(&key(), Some(&tagged))
        else {
            panic!("not a position");
        };
        assert_eq!(stored.topic_id, Uuid::from_bytes([9; 16]));
        tagged.pop();
        assert!(parse(&key(), Some(&tagged)).is_err());
    }

    #[test]
    fn tombstones_and_groups_are_told_apart() {
        assert!(matches!(
            parse(&key(), None),
            Ok(GroupRecord::Offset { commit: None, .. })
        ));
        for kind in [2_i16, 3] {
            let mut key = kind.to_be_bytes().to_vec();
            text(&mut key, "g");
            for (value, exists) in [(None, false), (Some(&b"x"[..]), true)] {
                let group = "g".to_owned();
                let expected = GroupRecord::Group { group, exists };
                assert_eq!(parse(&key, value), Ok(expected));
            }
        }
        assert_eq!(parse(&9_i16.to_be_bytes(), None), Ok(GroupRecord::Other));
    }

    /// Key and value apart, as the first byte says.
    #[test]
    fn fuzz_group_records() {
        const RECORDS: Target = Target {
            name: "group-records",
            rounds: 4_000,
            bytes_base: 64 << 10,
            bytes_per_byte: 16,
        };
        let make = |dice: &mut Dice| {
            let (key, value) = (key(), value(dice.below(5) as i16));
            let length = u8::try_from(key.len()).expect("short");
            let good = [&[length][..], &key, &value].concat();
            Input::new("", dice.damage(&good))
        };
        RECORDS.hunt(make, |input| {
            let Some((length, rest)) = input.bytes.split_first() else {
                return;
            };
            let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
            let _ = parse(key, Some(value));
            let _ = parse(key, None);
            let _ = Checkpoint::decode(key, value);
            let _ = Heartbeat::decode(key, value);
        });
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(key in any::<Vec<u8>>(), value in any::<Option<Vec<u8>>>()) {
            let _ = parse(&key, value.as_deref());
        }

        #[test]
        fn a_cut_off_value_is_an_error(version in 0_i16..=3, cut in 1_usize..12) {
            let value = value(version);
            let cut = if version == 1 { cut + 8 } else { cut };
            let kept = &value[..value.len().saturating_sub(cut)];
            prop_assert!(parse(&key(), Some(kept)).is_err());
        }
    }
}
