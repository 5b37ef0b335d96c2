//! Reads what both logs of a partition hold, by the source's offsets.

use std::time::Duration;

use tokio::time::Instant;

use super::compare::{Piece, Shown};
use crate::batch::{self, AbortedFilter};
use crate::cutover::error::CutoverError;
use crate::offsets::{OffsetMap, SourceOffset, TargetOffset, Translation};
use crate::wire::{self, Cluster, TopicPartition};

/// Of a few records: what comes behind them is of no use. The first batch always comes whole.
const FEW: i64 = 16;
const FEW_BYTES: i32 = 16 * 1024;
const MANY_BYTES: i32 = 1024 * 1024;
/// What one batch may decompress to, as for the copy.
const OPENED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a log may give nothing, and the pause between looks.
const STALL: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(100);

/// One partition's log.
pub(super) struct Log<'a> {
    pub cluster: &'a Cluster,
    pub at: &'a TopicPartition,
    /// Of a copy with other offsets.
    pub map: Option<&'a OffsetMap>,
}

impl Log<'_> {
    /// What the log has from a source offset on, up to `end` at most: one fetch.
    pub(super) async fn read(&self, from: i64, end: i64) -> Result<Piece, CutoverError> {
        let (first, last) = (self.here(from), self.here(end));
        if first >= last {
            return Ok(Piece {
                to: end,
                ..Piece::default()
            });
        }
        let bytes = match last - first <= FEW {
            true => FEW_BYTES,
            false => MANY_BYTES,
        };
        let deadline = Instant::now() + STALL;
        loop {
            let mut piece = Piece::default();
            let next = self.fetch(first, bytes, &mut piece).await?;
            if next > first {
                piece.to = match next >= last {
                    true => end,
                    false => self.of_source(next),
                };
                return Ok(piece);
            }
            if Instant::now() >= deadline {
                return Err(self.failed(&format!(
                    "nothing came from offset {first} on for {} s",
                    STALL.as_secs()
                )));
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// The next offset behind what was fetched.
    async fn fetch(&self, from: i64, bytes: i32, piece: &mut Piece) -> Result<i64, CutoverError> {
        let fetched = wire::fetch_committed(self.cluster, self.at, from, bytes).await;
        let fetched = fetched.map_err(|error| self.failed(&error))?;
        let mut aborted = AbortedFilter::new(fetched.aborted.iter().copied());
        let mut next = from;
        for batch in batch::split(fetched.records) {
            let batch = batch.map_err(|error| self.failed(&error))?;
            batch::verify_crc(&batch).map_err(|error| self.failed(&error))?;
            let is_aborted = aborted.is_aborted(&batch);
            let header = &batch.header;
            if is_aborted.map_err(|error| self.failed(&error))?
                || (!batch.legacy && header.is_control())
            {
                let (first, behind) = (header.base_offset, header.next_offset());
                let taken = self.of_source(first)..self.of_source(behind);
                piece.taken.push(taken);
            } else {
                let records = batch::open(&batch, OPENED_BYTES_MAX);
                let is_append_time = !batch.legacy && header.is_log_append_time();
                for record in records.map_err(|error| self.failed(&error))? {
                    let Some(offset) = self
                        .exactly(record.offset)
                        .filter(|_| record.offset >= from)
                    else {
                        continue;
                    };
                    let shown = Shown {
                        record,
                        is_append_time,
                    };
                    piece.records.insert(offset, shown);
                }
            }
            next = next.max(header.next_offset());
        }
        Ok(next)
    }

    /// Where a source offset is in this log.
    fn here(&self, offset: i64) -> i64 {
        let Some(map) = self.map else {
            return offset;
        };
        match map.translate(SourceOffset(offset)) {
            Translation::Exact(offset) => offset.0,
            Translation::BeforeStart { .. } => map.target_start().0,
            Translation::NotYetCopied { .. } => map.target_end().0,
        }
    }

    /// The source offset of what is at an offset of this log, or comes behind it.
    fn of_source(&self, offset: i64) -> i64 {
        let Some(map) = self.map else {
            return offset;
        };
        match map.reverse(TargetOffset(offset)) {
            Translation::Exact(offset) => offset.0,
            Translation::BeforeStart { .. } => map.source_start().0,
            Translation::NotYetCopied { .. } => map.source_end().0,
        }
    }

    /// The source offset of a record of this log, if it is a copy.
    fn exactly(&self, offset: i64) -> Option<i64> {
        let source = self.of_source(offset);
        (self.here(source) == offset).then_some(source)
    }

    fn failed(&self, why: &impl std::fmt::Display) -> CutoverError {
        let cluster = self.cluster.name();
        CutoverError::failed(format!("{} on {cluster}: {why}", self.at))
    }
}
