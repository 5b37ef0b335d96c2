//! The records of `__consumer_offsets`, as the coordinator writes and reads them.
//!
//! Layouts: `group-coordinator/src/main/resources/common/message/*.json` in Kafka's source. A key
//! and a value each begin with their version; the key's is the type of the record
//! (`GroupCoordinatorRecordSerde`).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// `OffsetCommitKey`. Version 0 has the same layout and is read as well.
const OFFSET_KEY: i16 = 1;
/// `GroupMetadataKey`.
const GROUP_KEY: i16 = 2;
/// What is written for an offset that expires at a time of its own, which only old clients ask for
/// (`GroupCoordinatorRecordHelpers.newOffsetCommitRecord`).
const OFFSET_VALUE_WITH_EXPIRY: i16 = 1;
/// What is written for any other offset, the first version with tagged fields. Brokers before 4.1
/// write version 3.
const OFFSET_VALUE: i16 = 4;
/// The tag of the topic's id.
const TOPIC_ID_TAG: u8 = 0;
/// What is written for a group.
const GROUP_VALUE: i16 = 3;

/// A record on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorRecord {
    /// The encoded key.
    pub key: Bytes,
    /// The encoded value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A committed offset.
    Offset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A classic group.
    Group(String),
    /// A type that this coordinator doesn't write.
    Other(i16),
}

/// `OffsetCommitValue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    /// The committed offset.
    pub offset: i64,
    /// The leader epoch of the last record that was read, or -1.
    pub leader_epoch: i32,
    /// What the client wrote beside it.
    pub metadata: String,
    /// When it was committed.
    pub committed_at_ms: i64,
    /// When it expires, if the commit said so itself.
    pub expires_at_ms: Option<i64>,
    /// The topic's id, which isn't written of commits in transactions.
    pub topic_id: Option<Uuid>,
}

/// `GroupMetadataValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupValue {
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The assignor that all members support.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: Option<String>,
    /// Since when the group is in its state; -1 if unknown.
    pub state_since_ms: i64,
    /// The members.
    pub members: Vec<MemberValue>,
}

/// A member in a [`GroupValue`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberValue {
    /// Its id.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// How long it may take to join again.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// What it told the leader in the group's protocol.
    pub subscription: Bytes,
    /// What the leader told it.
    pub assignment: Bytes,
}

/// A committed offset.
pub fn offset(group: &str, topic: &str, partition: i32, value: &OffsetValue) -> CoordinatorRecord {
    let mut out = BytesMut::new();
    if let Some(expires_at_ms) = value.expires_at_ms {
        out.put_i16(OFFSET_VALUE_WITH_EXPIRY);
        out.put_i64(value.offset);
        put_text(&mut out, &value.metadata);
        out.put_i64(value.committed_at_ms);
        out.put_i64(expires_at_ms);
    } else {
        out.put_i16(OFFSET_VALUE);
        out.put_i64(value.offset);
        out.put_i32(value.leader_epoch);
        put_compact_text(&mut out, &value.metadata);
        out.put_i64(value.committed_at_ms);
        match value.topic_id {
            None => out.put_u8(0),
            Some(id) => {
                out.put_slice(&[1, TOPIC_ID_TAG, 16]);
                out.put_slice(id.as_bytes());
            }
        }
    }
    CoordinatorRecord {
        key: offset_key(group, topic, partition),
        value: Some(out.freeze()),
    }
}

/// An offset is gone.
pub fn offset_tombstone(group: &str, topic: &str, partition: i32) -> CoordinatorRecord {
    CoordinatorRecord {
        key: offset_key(group, topic, partition),
        value: None,
    }
}

/// A group as it is now.
pub fn group(group: &str, value: &GroupValue) -> CoordinatorRecord {
    let mut out = BytesMut::new();
    out.put_i16(GROUP_VALUE);
    put_text(&mut out, &value.protocol_type);
    out.put_i32(value.generation);
    put_nullable_text(&mut out, value.protocol.as_deref());
    put_nullable_text(&mut out, value.leader.as_deref());
    out.put_i64(value.state_since_ms);
    out.put_i32(value.members.len() as i32);
    for member in &value.members {
        put_text(&mut out, &member.member_id);
        put_nullable_text(&mut out, member.instance_id.as_deref());
        put_text(&mut out, &member.client_id);
        put_text(&mut out, &member.client_host);
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        put_bytes(&mut out, &member.subscription);
        put_bytes(&mut out, &member.assignment);
    }
    CoordinatorRecord {
        key: group_key(group),
        value: Some(out.freeze()),
    }
}

/// A group is gone.
pub fn group_tombstone(group: &str) -> CoordinatorRecord {
    CoordinatorRecord {
        key: group_key(group),
        value: None,
    }
}

/// Reads a key; `None` if it isn't one.
pub fn read_key(mut key: Bytes) -> Option<Key> {
    Some(match key.try_get_i16().ok()? {
        0 | OFFSET_KEY => Key::Offset {
            group: text(&mut key)?,
            topic: text(&mut key)?,
            partition: key.try_get_i32().ok()?,
        },
        GROUP_KEY => Key::Group(text(&mut key)?),
        other => Key::Other(other),
    })
}

/// Reads an offset's value; `None` if it isn't one of a version that has been written.
pub fn read_offset(mut value: Bytes) -> Option<OffsetValue> {
    let version = value.try_get_i16().ok()?;
    if !(0..=4).contains(&version) {
        return None;
    }
    let offset = value.try_get_i64().ok()?;
    let leader_epoch = match version {
        3 | 4 => value.try_get_i32().ok()?,
        _ => -1,
    };
    let metadata = match version {
        4 => compact_text(&mut value)?,
        _ => text(&mut value)?,
    };
    let committed_at_ms = value.try_get_i64().ok()?;
    let expires_at_ms = match version {
        1 => Some(value.try_get_i64().ok()?).filter(|at| *at >= 0),
        _ => None,
    };
    let topic_id = match value.strip_prefix(&[1, TOPIC_ID_TAG, 16]) {
        Some(id) if version == 4 => Uuid::from_slice(id).ok(),
        _ => None,
    };
    Some(OffsetValue {
        offset,
        leader_epoch,
        metadata,
        committed_at_ms,
        expires_at_ms,
        topic_id,
    })
}

/// Reads a group's value; `None` if it isn't one of the version that is written.
pub fn read_group(mut value: Bytes) -> Option<GroupValue> {
    if value.try_get_i16().ok()? != GROUP_VALUE {
        return None;
    }
    let mut read = GroupValue {
        protocol_type: text(&mut value)?,
        generation: value.try_get_i32().ok()?,
        protocol: nullable_text(&mut value)?,
        leader: nullable_text(&mut value)?,
        state_since_ms: value.try_get_i64().ok()?,
        members: Vec::new(),
    };
    for _ in 0..value.try_get_i32().ok()? {
        read.members.push(MemberValue {
            member_id: text(&mut value)?,
            instance_id: nullable_text(&mut value)?,
            client_id: text(&mut value)?,
            client_host: text(&mut value)?,
            rebalance_timeout_ms: value.try_get_i32().ok()?,
            session_timeout_ms: value.try_get_i32().ok()?,
            subscription: bytes(&mut value)?,
            assignment: bytes(&mut value)?,
        });
    }
    Some(read)
}

fn offset_key(group: &str, topic: &str, partition: i32) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(OFFSET_KEY);
    put_text(&mut out, group);
    put_text(&mut out, topic);
    out.put_i32(partition);
    out.freeze()
}

fn group_key(group: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(GROUP_KEY);
    put_text(&mut out, group);
    out.freeze()
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

/// Its length plus one, as an unsigned varint.
fn put_compact_text(out: &mut BytesMut, text: &str) {
    let mut rest = text.len() + 1;
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
    out.put_slice(text.as_bytes());
}

fn compact_text(from: &mut Bytes) -> Option<String> {
    let mut length = 0;
    for shift in (0..28).step_by(7) {
        let byte = from.try_get_u8().ok()?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let length = length.checked_sub(1)?;
    let text = (from.len() >= length).then(|| from.split_to(length))?;
    String::from_utf8(text.to_vec()).ok()
}

fn put_nullable_text(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => out.put_i16(-1),
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

fn nullable_text(from: &mut Bytes) -> Option<Option<String>> {
    let length = from.try_get_i16().ok()?;
    let Ok(length) = usize::try_from(length) else {
        return Some(None);
    };
    let text = (from.len() >= length).then(|| from.split_to(length))?;
    String::from_utf8(text.to_vec()).ok().map(Some)
}

fn text(from: &mut Bytes) -> Option<String> {
    nullable_text(from)?
}

fn bytes(from: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(from.try_get_i32().ok()?).ok()?;
    (from.len() >= length).then(|| from.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> OffsetValue {
        OffsetValue {
            offset: 42,
            leader_epoch: 7,
            metadata: "m".to_owned(),
            committed_at_ms: 1_000,
            expires_at_ms: None,
            topic_id: Some(Uuid::from_u128(0x10)),
        }
    }

    #[test]
    fn an_offset_is_what_kafka_writes() {
        let record = offset("g", "t", 3, &value());
        assert_eq!(
            record.key.as_ref(),
            [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 3]
        );
        let written = record.value.expect("no tombstone");
        let expected = [
            &[0, 4][..],
            &42_i64.to_be_bytes(),
            &7_i32.to_be_bytes(),
            &[2, b'm'],
            &1_000_i64.to_be_bytes(),
            &[1, 0, 16],
            &0x10_u128.to_be_bytes(),
        ];
        assert_eq!(written.as_ref(), expected.concat());
        assert_eq!(read_offset(written), Some(value()));
        let without_id = OffsetValue {
            topic_id: None,
            metadata: "x".repeat(300),
            ..value()
        };
        let written = offset("g", "t", 3, &without_id).value.expect("a value");
        assert_eq!(written.last(), Some(&0), "no tags");
        assert_eq!(read_offset(written), Some(without_id));
    }

    #[test]
    fn an_offset_with_its_own_expiry_is_written_in_an_old_version() {
        let with_expiry = OffsetValue {
            expires_at_ms: Some(9_000),
            ..value()
        };
        let written = offset("g", "t", 3, &with_expiry).value.expect("a value");
        let expected = OffsetValue {
            leader_epoch: -1,
            topic_id: None,
            ..with_expiry
        };
        assert_eq!(read_offset(written), Some(expected));
    }

    #[test]
    fn a_group_reads_as_it_was_written() {
        let value = GroupValue {
            protocol_type: "consumer".to_owned(),
            generation: 5,
            protocol: Some("range".to_owned()),
            leader: None,
            state_since_ms: 77,
            members: vec![MemberValue {
                member_id: "m-1".to_owned(),
                instance_id: Some("i".to_owned()),
                subscription: Bytes::from_static(b"s"),
                ..MemberValue::default()
            }],
        };
        let record = group("g", &value);
        assert_eq!(read_key(record.key), Some(Key::Group("g".to_owned())));
        assert_eq!(record.value.and_then(read_group), Some(value));
        assert_eq!(group_tombstone("g").value, None);
    }

    #[test]
    fn keys_are_told_apart_by_their_version() {
        let key = offset_tombstone("g", "t", 3).key;
        let expected = Key::Offset {
            group: "g".to_owned(),
            topic: "t".to_owned(),
            partition: 3,
        };
        assert_eq!(read_key(key), Some(expected));
        assert_eq!(read_key(Bytes::from_static(&[0, 9])), Some(Key::Other(9)));
        assert_eq!(read_key(Bytes::from_static(&[0])), None);
    }
}
