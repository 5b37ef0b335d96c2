//! What an export says about itself.

use serde::{Deserialize, Serialize};

use super::scene::LeftOut;

/// `manifest.json`, written last: an export without it isn't whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version, 1.
    pub v: u32,
    /// The flow.
    pub flow: String,
    /// The old primary, by its name in the config.
    pub source: String,
    /// When it was written, milliseconds since the epoch.
    pub exported_ms: i64,
    /// Records of all partitions.
    pub records: u64,
    /// Batches of all partitions.
    pub batches: u64,
    /// By partition.
    pub partitions: Vec<PartitionEntry>,
    /// Partitions that couldn't be looked at: what they have isn't in this export.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// One partition of an export.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartitionEntry {
    /// The topic's name on the source.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The plan that made the fork.
    pub plan: String,
    /// The first orphaned offset.
    pub from: i64,
    /// The offset after the last one that was read.
    pub to: i64,
    /// Offsets behind that which an open transaction holds back.
    pub held_back: i64,
    /// Records.
    pub records: u64,
    /// Batches: markers and aborted data too, and all of a batch that lies across `from`.
    pub batches: u64,
    /// The records as JSON lines.
    pub json: FileEntry,
    /// The batches as the broker had them, one after the other: a segment of a Kafka log.
    pub raw: FileEntry,
    /// Where in it each batch is: a [`BatchEntry`] per line.
    pub index: FileEntry,
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the manifest.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// CRC-32C of its content, hexadecimal.
    pub crc32c: String,
}

/// One batch in a raw file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchEntry {
    /// Where it begins in the file.
    pub position: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its first offset.
    pub base_offset: i64,
    /// Its last offset.
    pub last_offset: i64,
    /// Orphaned records in it that consumers are shown.
    pub records: u64,
    /// The batch's own checksum; of what the format says.
    pub crc: u32,
    /// Markers for brokers and clients, no data.
    pub is_control: bool,
    /// Data of an aborted transaction.
    pub is_aborted: bool,
}
