//! Reads the records of a log from one offset on, one fetch after the other.

use std::ops::Range;

use kafka_protocol::ResponseError;

use super::error::Trouble;
use super::resume::Candidate;
use super::shared::Flow;
use super::throttle::Throttle;
use crate::batch::{self, AbortedFilter, Record};
use crate::wire::{self, Cluster, FetchOne, Role, TopicPartition, WireError};

const FETCH_BYTES: i32 = 4 << 20;
/// Where thousands of partitions read a few records at once.
const FEW_BYTES: i32 = 16 << 10;

/// Why no more was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum End {
    /// Whoever takes the records has enough.
    Enough,
    /// The range was read, or nothing is left of it in a log that readers see up to here.
    Seen(i64),
}

/// What a log has.
pub(super) enum Seen {
    /// Offsets of a batch of which nothing went, of whatever kind it is.
    Whole(Range<i64>),
    /// A record that readers get.
    Record(Record),
}

/// One partition's log, on one of the clusters.
pub(super) struct LogReader<'a> {
    owner: &'a Cluster,
    cluster: Cluster,
    name: TopicPartition,
    is_committed: bool,
    max_decompressed_bytes: usize,
    throttle: Option<&'a Throttle>,
    fetch_bytes: i32,
}

impl<'a> LogReader<'a> {
    /// The source's committed records.
    pub(super) fn of_source(flow: &'a Flow, one: &Candidate) -> Self {
        Self {
            owner: &flow.source,
            cluster: flow.source.apart(Role::Read),
            name: one.topic.source(one.partition),
            is_committed: true,
            max_decompressed_bytes: one.topic.rules.max_decompressed_bytes,
            throttle: None,
            fetch_bytes: FETCH_BYTES,
        }
    }

    /// All records of the target.
    pub(super) fn of_target(flow: &'a Flow, one: &Candidate) -> Self {
        Self {
            owner: &flow.target,
            cluster: flow.target.apart(Role::Read),
            name: one.topic.target(one.partition),
            is_committed: false,
            ..Self::of_source(flow, one)
        }
    }

    /// Little is read at a time.
    pub(super) fn in_small_pieces(self) -> Self {
        Self {
            fetch_bytes: FEW_BYTES,
            ..self
        }
    }

    /// What is read counts for the flow's limit of bytes.
    pub(super) fn throttled(self, flow: &'a Flow) -> Self {
        Self {
            throttle: Some(&flow.throttle),
            ..self
        }
    }

    /// Shows `take` every record of the range, in order, until it has enough: then it says `false`.
    ///
    /// # Errors
    /// When the log can't be read, or its beginning moved into the range.
    pub(super) async fn read(
        &self,
        range: Range<i64>,
        mut take: impl FnMut(Record) -> bool,
    ) -> Result<End, Trouble> {
        let of_records = |seen: Seen| match seen {
            Seen::Record(record) => take(record),
            Seen::Whole(_) => true,
        };
        self.read_seen(range, of_records).await
    }

    async fn read_seen(
        &self,
        range: Range<i64>,
        mut take: impl FnMut(Seen) -> bool,
    ) -> Result<End, Trouble> {
        let mut next = range.start;
        while next < range.end {
            let fetched = self.fetch(next).await?;
            let mut filter = AbortedFilter::new(fetched.aborted.iter().copied());
            let before = next;
            for batch in batch::split(fetched.records) {
                let batch = batch?;
                batch::verify_crc(&batch)?;
                let is_control = !batch.legacy && batch.header.is_control();
                let offsets = batch.header.base_offset..batch.header.next_offset();
                let is_whole = !batch.legacy && batch.header.is_gapless();
                if is_whole && !take(Seen::Whole(offsets)) {
                    return Ok(End::Enough);
                }
                if !filter.is_aborted(&batch)? && !is_control {
                    for record in batch::open(&batch, self.max_decompressed_bytes)? {
                        let is_asked = (next..range.end).contains(&record.offset);
                        if is_asked && !take(Seen::Record(record)) {
                            return Ok(End::Enough);
                        }
                    }
                }
                next = next.max(batch.header.next_offset());
            }
            if next == before {
                return Ok(End::Seen(fetched.high_watermark));
            }
        }
        Ok(End::Seen(range.end))
    }

    /// Reads the whole range. Whether all of it was shown, and not only enough of it.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Trouble::LeaderMoved`] where readers don't see up to its end.
    pub(super) async fn read_all(
        &self,
        range: Range<i64>,
        take: impl FnMut(Record) -> bool,
    ) -> Result<bool, Trouble> {
        let end = range.end;
        let read = self.read(range, take).await?;
        self.is_all(read, end)
    }

    /// The same of all that the log has.
    ///
    /// # Errors
    /// As [`read_all`](Self::read_all).
    pub(super) async fn see_all(
        &self,
        range: Range<i64>,
        take: impl FnMut(Seen) -> bool,
    ) -> Result<bool, Trouble> {
        let end = range.end;
        let read = self.read_seen(range, take).await?;
        self.is_all(read, end)
    }

    fn is_all(&self, read: End, end: i64) -> Result<bool, Trouble> {
        match read {
            End::Enough => Ok(false),
            End::Seen(high_watermark) => self.reaches(high_watermark, end).map(|()| true),
        }
    }

    /// Whether readers see up to `end`. A new leader learns its high watermark only when its followers ask.
    ///
    /// # Errors
    /// [`Trouble::LeaderMoved`] if they don't.
    pub(super) fn reaches(&self, high_watermark: i64, end: i64) -> Result<(), Trouble> {
        match high_watermark >= end {
            true => Ok(()),
            false => Err(self.moved()),
        }
    }

    async fn fetch(&self, from: i64) -> Result<FetchOne, Trouble> {
        let fetched = match self.is_committed {
            true => wire::fetch_committed(&self.cluster, &self.name, from, self.fetch_bytes).await,
            false => wire::fetch_one(&self.cluster, &self.name, from, self.fetch_bytes).await,
        };
        let fetched = match fetched {
            // What was trimmed in between is seen by the next opening.
            Err(WireError::Server {
                code: ResponseError::OffsetOutOfRange,
                ..
            }) => return Err(self.moved()),
            other => other?,
        };
        if let Some(throttle) = self.throttle {
            throttle.take(fetched.records.len() as u64).await;
        }
        Ok(fetched)
    }

    fn moved(&self) -> Trouble {
        Trouble::LeaderMoved {
            cluster: self.owner.name().to_owned(),
        }
    }
}
