//! What the source side hands to the sink side of a partition.

use std::ops::Range;

use bytes::Bytes;

use super::budget::Hold;
use super::fill::DearHole;
use crate::offsets::{Run, SourceOffset, TargetOffset};

/// One step of a partition, in order.
#[derive(Debug)]
pub enum Work {
    /// A batch to append.
    Batch(BatchWork),
    /// Offsets to fill with invisible markers.
    Fill(FillWork),
    /// Batches and the fillers of the hole right behind them, sent in one go.
    Step(Vec<BatchWork>, FillWork),
    /// A hole that isn't filled: the partition is closed when all before it is answered.
    Dear(DearHole),
    /// Source offsets that get no offset on the target (`mapped` only). What follows says the same by
    /// where it begins, so this counts only where nothing follows.
    Skip {
        /// The first source offset after them.
        source_next: i64,
    },
}

impl Work {
    /// The batches in it.
    pub fn batches(&self) -> &[BatchWork] {
        match self {
            Self::Batch(batch) => std::slice::from_ref(batch),
            Self::Step(batches, _) => batches,
            Self::Fill(_) | Self::Dear(_) | Self::Skip { .. } => &[],
        }
    }

    /// Bytes of its batches on the wire.
    pub fn size_bytes(&self) -> usize {
        self.batches().iter().map(BatchWork::size_bytes).sum()
    }

    /// The fillers in it.
    pub fn fill(&self) -> Option<&FillWork> {
        match self {
            Self::Fill(fill) | Self::Step(_, fill) => Some(fill),
            Self::Batch(_) | Self::Dear(_) | Self::Skip { .. } => None,
        }
    }
}

/// How a batch came to its present form; for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The source's bytes, unopened.
    Passed,
    /// Several small source batches made one.
    Coalesced {
        /// How many.
        batches: u32,
    },
    /// Decoded and encoded again.
    Opened,
}

/// A batch, ready to be produced.
#[derive(Debug)]
pub struct BatchWork {
    /// The rewritten header, or the whole batch when `body` is empty.
    pub head: Bytes,
    /// The source's bytes after the header, untouched.
    pub body: Bytes,
    /// The target offset that the batch must get.
    pub target_base: i64,
    /// Its records.
    pub count: i64,
    /// Its first source offset.
    pub source_base: i64,
    /// The first source offset after it.
    pub source_next: i64,
    /// The source offsets of its records where holes are among them (`mapped` only); else empty.
    pub source_runs: Vec<Range<i64>>,
    /// Its largest timestamp, milliseconds since the epoch.
    pub max_timestamp_ms: i64,
    /// How it was made.
    pub form: Form,
    /// Its share of the bytes in flight.
    pub _hold: Hold,
}

impl BatchWork {
    /// Bytes on the wire.
    pub fn size_bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Which source offset got which target offset.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        let whole = self.source_base..self.source_base + self.count;
        let whole = self.source_runs.is_empty().then_some(whole);
        let mut target = self.target_base;
        self.source_runs
            .iter()
            .cloned()
            .chain(whole)
            .map(move |run| {
                let len = run.end - run.start;
                target += len;
                Run {
                    source_start: SourceOffset(run.start),
                    target_start: TargetOffset(target - len),
                    len: u64::try_from(len).unwrap_or(0),
                }
            })
    }
}

/// A hole to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillWork {
    /// The target offset of the first filler.
    pub target_base: i64,
    /// How many.
    pub count: i64,
    /// Fillers in this partition before these: their running number starts one above.
    pub fillers_before: i64,
    /// The first source offset after the hole.
    pub source_next: i64,
}

impl FillWork {
    /// The target offset behind the last filler.
    pub fn end(&self) -> i64 {
        self.target_base + self.count
    }
}
