//! The Kafka versions that are tested, and where their jars are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// A Kafka version under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KafkaVersion {
    /// Kafka 3.9: the last one with v0/v1 protocol support, KRaft mode.
    V3_9,
    /// Kafka 4.3: the newest with all four artifacts that we use.
    V4_3,
}

impl KafkaVersion {
    /// The version as Maven Central names it.
    pub fn number(self) -> &'static str {
        match self {
            Self::V3_9 => "3.9.1",
            Self::V4_3 => "4.3.1",
        }
    }

    /// The folder that holds this version's jars; downloaded on first use.
    ///
    /// # Panics
    /// When the download fails.
    pub fn libs(self) -> &'static Path {
        static V3_9: OnceLock<PathBuf> = OnceLock::new();
        static V4_3: OnceLock<PathBuf> = OnceLock::new();
        let cell = match self {
            Self::V3_9 => &V3_9,
            Self::V4_3 => &V4_3,
        };
        cell.get_or_init(|| fetch(self.number()))
    }

    /// This version's folder in the cache, for things derived from the jars.
    pub fn cache(self) -> &'static Path {
        self.libs()
            .parent()
            .expect("libs is inside the version's folder")
    }
}

/// Where downloads and what is derived from them are kept, by the rule of `scripts/lib/kafka.sh`.
pub fn cache_folder() -> PathBuf {
    std::env::var_os("TWINLOG_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/twinlog"),
        PathBuf::from,
    )
}

/// Runs `scripts/kafka-fetch`, which prints the folder of the jars as its last line.
fn fetch(version: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka-fetch");
    let output = Command::new(&script)
        .arg(version)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
    assert!(
        output.status.success(),
        "{} {version} failed:\n{}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let stdout = String::from_utf8_lossy(&output.stdout);
    PathBuf::from(stdout.lines().last().unwrap_or_default())
}
