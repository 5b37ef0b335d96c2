//! How far a cluster's metadata log has come, as brokers tell everybody (`KRaftMetadataCache.features`:
//! `image.highestOffsetAndEpoch().offset`).
//!
//! What changes it isn't written here record by record, since tests change the state as they like: a state that isn't the one of
//! the last look is one record more.

use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::state::State;

/// `metadata.max.idle.interval.ms`: so often the controller writes a record that says nothing.
const IDLE_INTERVAL_MS: i64 = 500;

/// What was seen of the metadata.
#[derive(Debug, Default)]
pub(crate) struct MetadataLog {
    digest: u64,
    records: i64,
}

impl State {
    /// The offset of the log's last record.
    pub(crate) fn metadata_offset(&mut self) -> i64 {
        let digest = self.metadata_digest();
        if self.metadata_log.digest != digest {
            self.metadata_log.digest = digest;
            self.metadata_log.records += 1;
        }
        self.now_ms / IDLE_INTERVAL_MS + self.metadata_log.records
    }

    fn metadata_digest(&self) -> u64 {
        let mut digest = Digest::default();
        for (name, topic) in &self.topics {
            (name, topic.id, &topic.configs).hash(&mut digest.0);
            for (number, partition) in &topic.partitions {
                (number, partition.leader, partition.leader_epoch).hash(&mut digest.0);
                (&partition.replicas, &partition.in_sync).hash(&mut digest.0);
            }
        }
        self.broker_configs.hash(&mut digest.0);
        let (acls, quotas, users) = (&self.acls, &self.quotas, &self.users.scram);
        let written = write!(digest, "{acls:?} {quotas:?} {users:?}");
        written.expect("it takes everything");
        digest.0.finish()
    }
}

#[derive(Default)]
struct Digest(DefaultHasher);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.hash(&mut self.0);
        Ok(())
    }
}
