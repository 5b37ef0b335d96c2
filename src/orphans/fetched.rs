//! A range of a partition as its leader has it: whole batches, checked, aborted ones marked.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::OrphansError;
use crate::batch::{self, AbortedFilter, RawBatch, Record};
use crate::wire::{self, Cluster, TopicPartition};

const FETCH_BYTES: i32 = 4 * 1024 * 1024;
/// What one batch may decompress to, as for the copy.
const OPENED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a log may give nothing.
const STALL: Duration = Duration::from_secs(30);
const REST: Duration = Duration::from_millis(100);

/// A batch, and whether readers are shown its records.
pub(super) struct Batch {
    pub raw: RawBatch,
    pub is_aborted: bool,
}

/// Reads a range, one fetch after the other.
pub(super) struct Fetched<'a> {
    cluster: &'a Cluster,
    at: TopicPartition,
    next: i64,
    to: i64,
}

impl<'a> Fetched<'a> {
    pub(super) fn new(cluster: &'a Cluster, at: TopicPartition, range: Range<i64>) -> Self {
        Self {
            cluster,
            at,
            next: range.start,
            to: range.end,
        }
    }

    /// The batches of the next fetch: the first may begin before the range and the last may end
    /// behind it. `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Batch>>, OrphansError> {
        let deadline = Instant::now() + STALL;
        while self.next < self.to {
            let answer =
                wire::fetch_committed(self.cluster, &self.at, self.next, FETCH_BYTES).await?;
            let mut filter = AbortedFilter::new(answer.aborted.iter().copied());
            let mut batches = Vec::new();
            for raw in batch::split(answer.records) {
                let raw = raw.map_err(|error| self.damaged(&error))?;
                batch::verify_crc(&raw).map_err(|error| self.damaged(&error))?;
                let is_aborted = filter
                    .is_aborted(&raw)
                    .map_err(|error| self.damaged(&error))?;
                if raw.header.base_offset >= self.to && !raw.legacy {
                    self.next = self.to;
                    break;
                }
                let next = raw.header.next_offset();
                if next <= self.next {
                    continue;
                }
                self.next = next;
                batches.push(Batch { raw, is_aborted });
            }
            if !batches.is_empty() {
                return Ok(Some(batches));
            }
            if Instant::now() >= deadline {
                return Err(OrphansError::new(format!(
                    "{} on {}: nothing came from offset {} on for {} s",
                    self.at,
                    self.cluster.name(),
                    self.next,
                    STALL.as_secs()
                )));
            }
            tokio::time::sleep(REST).await;
        }
        Ok(None)
    }

    /// The next offset to be read.
    pub(super) fn position(&self) -> i64 {
        within(self.next, self.to)
    }

    fn damaged(&self, error: &batch::BatchError) -> OrphansError {
        OrphansError::doing(format!("{} on {}", self.at, self.cluster.name()), error)
    }
}

/// The last batch may end behind the range.
fn within(next: i64, to: i64) -> i64 {
    next.min(to)
}

/// The records of a batch that readers are shown, as far as they lie in the range.
pub(super) fn records(batch: &Batch, range: &Range<i64>) -> Result<Vec<Record>, OrphansError> {
    if batch.is_aborted || batch.raw.header.is_control() {
        return Ok(Vec::new());
    }
    let mut records = batch::open(&batch.raw, OPENED_BYTES_MAX)
        .map_err(|error| OrphansError::new(error.to_string()))?;
    records.retain(|record| range.contains(&record.offset));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_to_its_end_and_no_further() {
        assert_eq!(within(5, 10), 5);
        assert_eq!(within(12, 10), 10);
    }
}
