//! What a stored map lacks after a crash, learned again from both logs.
//!
//! The map is stored every few seconds, behind the records. What the target has behind the stored
//! map's end is ours, but only the records themselves tell where it came from: while nobody copied,
//! the source's cleaner may have taken some of them (offsets stay, records go, and no offset that
//! can be asked for tells), its retention the first of them, and the target's cleaner others.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use kafka_protocol::ResponseError;

use super::error::Trouble;
use super::foreign::{self, Foreign};
use super::resume::Candidate;
use super::shared::Flow;
use crate::batch::{self, AbortedFilter, RawBatch, Record};
use crate::offsets::{OffsetMap, Paired, Pairing, Print, SourceOffset, TargetOffset};
use crate::wire::{self, Cluster, FetchOne, Role, TopicPartition, WireError};

const FETCH_BYTES: i32 = 4 << 20;
/// Offsets from the end that are compared.
const COMPARED: i64 = 500;

/// How far the two logs reach.
pub(super) struct Logs {
    /// Where the source's log begins.
    pub source_start: i64,
    /// The target's log.
    pub target: Range<i64>,
}

/// Brings a stored map to the target's log end.
///
/// # Errors
/// [`Trouble::MapMismatch`] when the source's records aren't those that the target has.
pub(super) async fn complete(
    flow: &Flow,
    one: &Candidate,
    logs: Logs,
    map: &mut OffsetMap,
) -> Result<(), Trouble> {
    let unknown = map.target_end().0..logs.target.end;
    if unknown.is_empty() {
        return Ok(());
    }
    let mismatch = Trouble::MapMismatch {
        map_end: unknown.start,
        log_end: unknown.end,
    };
    let by_key = one.topic.rules.source_compacted || one.topic.rules.target_compacted;
    let reader = Reader {
        by_key,
        foreign: Foreign::new(foreign::known(flow, one)?),
        max_decompressed_bytes: one.topic.rules.max_decompressed_bytes,
    };
    let start = map.source_end().0;
    // The source must still have each of them where nothing takes records.
    let is_whole = !one.topic.rules.source_compacted && logs.source_start <= start;
    let first = unknown.start.max(logs.target.start);
    let mut target = reader.target(flow, one, first..unknown.end).await?;
    // The laws of pairing hold for what is ours: others' offsets are counted out, and in again.
    let foreign = &reader.foreign;
    for print in &mut target {
        print.offset = foreign.out(print.offset);
    }
    let ours = foreign.out(unknown.start)..foreign.out(unknown.end);
    let pairing = Pairing::new(start, ours, target);
    let paired = reader
        .source(flow, one, start.max(logs.source_start), pairing)
        .await?
        .filter(|paired| !is_whole || paired.orphans == 0)
        .ok_or_else(|| mismatch.clone())?;
    tracing::info!(
        topic = &*one.topic.source_topic,
        partition = one.partition,
        records = paired.runs.iter().map(|run| run.len).sum::<u64>(),
        gone_from_source = paired.orphans,
        "the end of the offset map was learned again from the records"
    );
    extend(map, &paired, foreign, logs.target.end).map_err(|_| mismatch)
}

/// Whether the source has the last records of the copy, right before `next`: the same ones, at the same offsets
/// where these are kept. Some hundred are compared.
///
/// # Errors
/// When a log can't be read.
pub(super) async fn has_last_records(
    flow: &Flow,
    one: &Candidate,
    next: i64,
    logs: Logs,
) -> Result<bool, Trouble> {
    let reader = Reader {
        by_key: false,
        foreign: Foreign::new(foreign::known(flow, one)?),
        max_decompressed_bytes: one.topic.rules.max_decompressed_bytes,
    };
    let first = |start: i64, end: i64| start.max(end - COMPARED);
    let range = first(logs.target.start, logs.target.end)..logs.target.end;
    let target = reader.target(flow, one, range).await?;
    let range = first(logs.source_start, next)..next;
    let source = reader.committed(flow, one, range).await?;
    let is_mapped = flow.is_mapped(&one.topic, one.partition);
    let same = |(one, other): (&Print, &Print)| {
        one.record == other.record && (is_mapped || one.offset == other.offset)
    };
    let count = source.len().min(target.len());
    Ok(count > 0 && source.iter().rev().zip(target.iter().rev()).all(same))
}

fn extend(
    map: &mut OffsetMap,
    paired: &Paired,
    foreign: &Foreign,
    target_end: i64,
) -> Result<(), crate::offsets::MapError> {
    for run in paired.runs.iter().flat_map(|run| foreign.runs_of(*run)) {
        map.push_copied(run.source_start, run.target_start, run.len)?;
    }
    let from = map.source_end();
    let hole = u64::try_from(paired.source_next - from.0).unwrap_or(0);
    map.push_hole(SourceOffset(from.0), hole)?;
    map.push_gap(TargetOffset(target_end));
    Ok(())
}

/// Turns batches into prints.
struct Reader {
    by_key: bool,
    /// What the target has of others came from nowhere.
    foreign: Foreign,
    max_decompressed_bytes: usize,
}

impl Reader {
    async fn target(
        &self,
        flow: &Flow,
        one: &Candidate,
        range: Range<i64>,
    ) -> Result<Vec<Print>, Trouble> {
        let name = one.topic.target(one.partition);
        let cluster = flow.target.apart(Role::Read);
        let mut prints = Vec::new();
        let mut next = range.start;
        while next < range.end {
            let fetched = wire::fetch_one(&cluster, &name, next, FETCH_BYTES).await;
            let fetched = still_there(fetched, &flow.target)?;
            let before = next;
            for batch in batch::split(fetched.records) {
                let batch = batch?;
                for record in self.records(&batch)? {
                    let is_ours = !self.foreign.has(record.offset);
                    if is_ours && (next..range.end).contains(&record.offset) {
                        prints.push(self.print(&record));
                    }
                }
                next = next.max(batch.header.next_offset());
            }
            if next == before {
                reaches(fetched.high_watermark, range.end, &flow.target)?;
                break;
            }
        }
        Ok(prints)
    }

    /// The source's committed records.
    async fn committed(
        &self,
        flow: &Flow,
        one: &Candidate,
        range: Range<i64>,
    ) -> Result<Vec<Print>, Trouble> {
        let name = one.topic.source(one.partition);
        let cluster = flow.source.apart(Role::Read);
        let mut prints = Vec::new();
        let mut next = range.start;
        while next < range.end {
            let fetched = wire::fetch_committed(&cluster, &name, next, FETCH_BYTES).await;
            let fetched = still_there(fetched, &flow.source)?;
            let mut filter = AbortedFilter::new(fetched.aborted.iter().copied());
            let before = next;
            for batch in batch::split(fetched.records) {
                let batch = batch?;
                batch::verify_crc(&batch)?;
                if !filter.is_aborted(&batch)? {
                    let records = self.records(&batch)?.into_iter();
                    let records = records.filter(|it| (next..range.end).contains(&it.offset));
                    prints.extend(records.map(|record| self.print(&record)));
                }
                next = next.max(batch.header.next_offset());
            }
            if next == before {
                reaches(fetched.high_watermark, range.end, &flow.source)?;
                break;
            }
        }
        Ok(prints)
    }

    /// Reads the source's records as long as they can be among those that were copied.
    async fn source(
        &self,
        flow: &Flow,
        one: &Candidate,
        start: i64,
        mut pairing: Pairing,
    ) -> Result<Option<Paired>, Trouble> {
        let name: TopicPartition = one.topic.source(one.partition);
        let cluster = flow.source.apart(Role::Read);
        let mut next = start;
        loop {
            let fetched = wire::fetch_committed(&cluster, &name, next, FETCH_BYTES).await;
            let fetched = still_there(fetched, &flow.source)?;
            let mut filter = AbortedFilter::new(fetched.aborted.iter().copied());
            let before = next;
            for batch in batch::split(fetched.records) {
                let batch = batch?;
                batch::verify_crc(&batch)?;
                let is_aborted = filter.is_aborted(&batch)?;
                let records = match is_aborted {
                    true => Vec::new(),
                    false => self.records(&batch)?,
                };
                for record in records.iter().filter(|record| record.offset >= next) {
                    if !pairing.take(self.print(record)) {
                        return Ok(pairing.finish());
                    }
                }
                next = next.max(batch.header.next_offset());
            }
            if next == before {
                // A new leader learns its high watermark only when its followers ask.
                reaches(fetched.high_watermark, pairing.certain(), &flow.source)?;
                return Ok(pairing.finish());
            }
        }
    }

    fn records(&self, batch: &RawBatch) -> Result<Vec<Record>, Trouble> {
        if !batch.legacy && batch.header.is_control() {
            return Ok(Vec::new());
        }
        Ok(batch::open(batch, self.max_decompressed_bytes)?)
    }

    fn print(&self, record: &Record) -> Print {
        let mut key = DefaultHasher::new();
        if self.by_key {
            record.key.hash(&mut key);
        }
        let mut whole = DefaultHasher::new();
        (record.timestamp, &record.key, &record.value).hash(&mut whole);
        (record.header_count, &record.headers).hash(&mut whole);
        Print {
            offset: record.offset,
            record: whole.finish(),
            key: key.finish(),
        }
    }
}

/// What was trimmed in between is seen by the next opening.
pub(super) fn still_there(
    fetched: Result<FetchOne, WireError>,
    cluster: &Cluster,
) -> Result<FetchOne, Trouble> {
    match fetched {
        Err(WireError::Server {
            code: ResponseError::OffsetOutOfRange,
            ..
        }) => Err(moved(cluster)),
        other => Ok(other?),
    }
}

pub(super) fn reaches(high_watermark: i64, end: i64, cluster: &Cluster) -> Result<(), Trouble> {
    match high_watermark >= end {
        true => Ok(()),
        false => Err(moved(cluster)),
    }
}

fn moved(cluster: &Cluster) -> Trouble {
    Trouble::LeaderMoved {
        cluster: cluster.name().to_owned(),
    }
}
