//! A record as a line of JSON, without loss: text where it is UTF-8, base64 where it isn't, null
//! apart from empty, headers in order with their duplicates.

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use crate::batch::{BatchError, Header, Record};
use crate::connect::base64;

/// The header that names a replayed record's origin: `CLUSTER/TOPIC/PARTITION/OFFSET`, as on the old
/// primary.
pub const ORIGIN_HEADER: &str = "twinlog.orphan";

/// Bytes for JSON: a string, or `{"base64": "..."}` where they aren't UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub Vec<u8>);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &base64(&self.0))?;
                map.end()
            }
        }
    }
}

/// Where a record is and what its time means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub topic: &'a str,
    pub partition: i32,
    /// Whether the broker set the time.
    pub is_append_time: bool,
}

/// The line, with its end.
///
/// # Errors
/// When the record's headers can't be read.
pub(super) fn line(place: Place<'_>, record: &Record) -> Result<Vec<u8>, BatchError> {
    let headers = record.header_list()?;
    let whole = Line {
        place,
        record,
        headers: &headers,
    };
    // Serializing strings and numbers into memory can't fail.
    let mut line = serde_json::to_vec(&whole).unwrap_or_default();
    line.push(b'\n');
    Ok(line)
}

struct Line<'a> {
    place: Place<'a>,
    record: &'a Record,
    headers: &'a [Header],
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (place, record) = (self.place, self.record);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("topic", place.topic)?;
        map.serialize_entry("partition", &place.partition)?;
        map.serialize_entry("offset", &record.offset)?;
        let kind = match (record.timestamp, place.is_append_time) {
            (..0, _) => "none",
            (_, true) => "append",
            (_, false) => "create",
        };
        map.serialize_entry("timestamp", &(kind != "none").then_some(record.timestamp))?;
        map.serialize_entry("timestamp_type", kind)?;
        bytes(&mut map, ("key", "key_base64"), record.key.as_deref())?;
        bytes(&mut map, ("value", "value_base64"), record.value.as_deref())?;
        map.serialize_entry("headers", &Headers(self.headers))?;
        map.end()
    }
}

struct Headers<'a>(&'a [Header]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for header in self.0 {
            list.serialize_element(&One(header))?;
        }
        list.end()
    }
}

struct One<'a>(&'a Header);

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, value) = self.0;
        let mut map = serializer.serialize_map(Some(2))?;
        bytes(&mut map, ("key", "key_base64"), Some(key))?;
        bytes(&mut map, ("value", "value_base64"), value.as_deref())?;
        map.end()
    }
}

/// One of two fields: which one says how to read it.
fn bytes<M: SerializeMap>(
    map: &mut M,
    (text_name, base64_name): (&'static str, &'static str),
    bytes: Option<&[u8]>,
) -> Result<(), M::Error> {
    let Some(bytes) = bytes else {
        return map.serialize_entry(text_name, &None::<&str>);
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => map.serialize_entry(text_name, text),
        Err(_) => map.serialize_entry(base64_name, &base64(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const PLACE: Place<'static> = Place {
        topic: "orders",
        partition: 3,
        is_append_time: false,
    };

    fn shown(record: &Record) -> String {
        let line = line(PLACE, record).expect("good headers");
        String::from_utf8(line).expect("JSON is UTF-8")
    }

    fn record() -> Record {
        Record {
            offset: 17,
            timestamp: 5,
            key: None,
            value: Some(Bytes::new()),
            header_count: 0,
            headers: Bytes::new(),
        }
    }

    #[test]
    fn null_is_not_empty() {
        assert_eq!(
            shown(&record()),
            "{\"topic\":\"orders\",\"partition\":3,\"offset\":17,\"timestamp\":5,\
             \"timestamp_type\":\"create\",\"key\":null,\"value\":\"\",\"headers\":[]}\n"
        );
    }

    #[test]
    fn what_is_no_text_is_marked() {
        let record = Record {
            timestamp: -1,
            key: Some(Bytes::from_static(b"line\nend \"quoted\"")),
            value: Some(Bytes::from_static(&[0xff, 0])),
            // Zig-zag lengths: key "k" twice, with value "1" and null, then the key 0xfe with "".
            header_count: 3,
            headers: Bytes::from_static(&[2, b'k', 2, b'1', 2, b'k', 1, 2, 0xfe, 0]),
            ..record()
        };
        let shown = shown(&record);
        assert!(
            shown.contains(
                "\"timestamp\":null,\"timestamp_type\":\"none\",\
                 \"key\":\"line\\nend \\\"quoted\\\"\",\"value_base64\":\"/wA=\""
            ),
            "{shown}"
        );
        assert!(
            shown.ends_with(
                "\"headers\":[{\"key\":\"k\",\"value\":\"1\"},{\"key\":\"k\",\"value\":null},\
                 {\"key_base64\":\"/g==\",\"value\":\"\"}]}\n"
            ),
            "{shown}"
        );
        assert_eq!(shown.matches('\n').count(), 1);
    }

    #[test]
    fn damaged_headers_are_an_error() {
        let record = Record {
            header_count: 1,
            headers: Bytes::from_static(&[20, b'k']),
            ..record()
        };
        assert!(line(PLACE, &record).is_err());
    }
}
