//! The bytes of a checkpoint and of a heartbeat, by Kafka's `connect/mirror-client` classes
//! `Checkpoint` and `Heartbeat`.
//!
//! Big-endian; a string is its length in bytes as an int16, then UTF-8. As Kafka's readers do,
//! decoding ignores bytes behind the last field. A value of `Checkpoint` or `Heartbeat` can always
//! be encoded: what can't be is refused when it is made.

/// The version that every value begins with. There never was another one.
const VERSION: i16 = 0;

/// Why something is no checkpoint or heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The length of a string has 15 bits. It isn't cut: half a name is another name.
    #[error("{field} has {length_bytes} bytes; at most {max} can be written", max = i16::MAX)]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length.
        length_bytes: usize,
    },
    /// A number that must not be negative. A negative offset would fail every call of
    /// `MirrorClient.remoteConsumerOffsets` for the group (`OffsetAndMetadata` throws).
    #[error("{field} is negative: {value}")]
    Negative {
        /// Which field.
        field: &'static str,
        /// What it is.
        value: i64,
    },
    /// The bytes end within this field.
    #[error("cut off in {field}")]
    CutOff {
        /// Which field.
        field: &'static str,
    },
    /// A string isn't UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// Which field.
        field: &'static str,
    },
    /// A value of another version than 0.
    #[error("version {0} is not known")]
    Version(i16),
}

/// Where a group of the source stands, in offsets of both clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    group: String,
    topic: String,
    partition: i32,
    upstream_offset: i64,
    downstream_offset: i64,
    metadata: String,
}

impl Checkpoint {
    /// A checkpoint of `group`. `topic` is the name on the *target*; `upstream_offset` is what the
    /// group committed on the source, `downstream_offset` the same place in the target's partition.
    /// `metadata` is what the group committed with the offset, "" for nothing.
    ///
    /// # Errors
    /// `TooLong` for a string above 32767 bytes; `Negative` for the partition or the downstream
    /// offset.
    pub fn new(
        group: impl Into<String>,
        topic: impl Into<String>,
        partition: i32,
        upstream_offset: i64,
        downstream_offset: i64,
        metadata: impl Into<String>,
    ) -> Result<Self, FormatError> {
        not_negative("partition", partition.into())?;
        not_negative("downstream offset", downstream_offset)?;
        Ok(Self {
            group: short("group", group.into())?,
            topic: short("topic", topic.into())?,
            partition,
            upstream_offset,
            downstream_offset,
            metadata: short("metadata", metadata.into())?,
        })
    }

    /// The record's key: group, topic and partition.
    pub fn key(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.group.len() + self.topic.len());
        push_string(&mut out, &self.group);
        push_string(&mut out, &self.topic);
        out.extend_from_slice(&self.partition.to_be_bytes());
        out
    }

    /// The record's value: version, both offsets and the metadata.
    pub fn value(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.metadata.len());
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.upstream_offset.to_be_bytes());
        out.extend_from_slice(&self.downstream_offset.to_be_bytes());
        push_string(&mut out, &self.metadata);
        out
    }

    /// Reads a record's key and value.
    ///
    /// # Errors
    /// When they aren't those of a checkpoint.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, FormatError> {
        let mut key = Reader(key);
        let group = key.string("group")?;
        let topic = key.string("topic")?;
        let partition = i32::from_be_bytes(key.bytes("partition")?);
        let mut value = Reader(value);
        value.version()?;
        let upstream = i64::from_be_bytes(value.bytes("upstream offset")?);
        let downstream = i64::from_be_bytes(value.bytes("downstream offset")?);
        let metadata = value.string("metadata")?;
        Self::new(group, topic, partition, upstream, downstream, metadata)
    }
}

/// A sign of life of the flow between two clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    source: String,
    target: String,
    timestamp_ms: i64,
}

impl Heartbeat {
    /// A heartbeat of the flow from the cluster with the alias `source` to that with `target`,
    /// `timestamp_ms` after 1970.
    ///
    /// # Errors
    /// `TooLong` for an alias above 32767 bytes.
    pub fn new(
        source: impl Into<String>,
        target: impl Into<String>,
        timestamp_ms: i64,
    ) -> Result<Self, FormatError> {
        Ok(Self {
            source: short("source alias", source.into())?,
            target: short("target alias", target.into())?,
            timestamp_ms,
        })
    }

    /// The same flow's heartbeat at another time.
    #[must_use]
    pub fn at(self, timestamp_ms: i64) -> Self {
        Self {
            timestamp_ms,
            ..self
        }
    }

    /// The record's key: both aliases.
    pub fn key(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.source.len() + self.target.len());
        push_string(&mut out, &self.source);
        push_string(&mut out, &self.target);
        out
    }

    /// The record's value: version and time.
    pub fn value(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(10);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        out
    }

    /// Reads a record's key and value.
    ///
    /// # Errors
    /// When they aren't those of a heartbeat.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, FormatError> {
        let mut key = Reader(key);
        let source = key.string("source alias")?;
        let target = key.string("target alias")?;
        let mut value = Reader(value);
        value.version()?;
        Self::new(
            source,
            target,
            i64::from_be_bytes(value.bytes("timestamp")?),
        )
    }
}

fn short(field: &'static str, text: String) -> Result<String, FormatError> {
    match i16::try_from(text.len()) {
        Ok(_) => Ok(text),
        Err(_) => Err(FormatError::TooLong {
            field,
            length_bytes: text.len(),
        }),
    }
}

fn not_negative(field: &'static str, value: i64) -> Result<(), FormatError> {
    match value {
        0.. => Ok(()),
        value => Err(FormatError::Negative { field, value }),
    }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).expect("`short` refused longer ones");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// What is not yet read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FormatError> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(FormatError::CutOff { field })?;
        self.0 = rest;
        Ok(*taken)
    }

    fn string(&mut self, field: &'static str) -> Result<String, FormatError> {
        let length = i16::from_be_bytes(self.bytes(field)?);
        let length = usize::try_from(length).map_err(|_| FormatError::Negative {
            field,
            value: length.into(),
        })?;
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(FormatError::CutOff { field })?;
        self.0 = rest;
        let text = std::str::from_utf8(taken).map_err(|_| FormatError::NotUtf8 { field })?;
        Ok(text.to_owned())
    }

    fn version(&mut self) -> Result<(), FormatError> {
        match i16::from_be_bytes(self.bytes("version")?) {
            VERSION => Ok(()),
            other => Err(FormatError::Version(other)),
        }
    }
}

#[cfg(test)]
mod tests;
