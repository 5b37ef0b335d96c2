//! What a stored map lacks after a crash, learned again from both logs.
//!
//! The map is stored every few seconds, behind the records. What the target has behind the stored
//! map's end is ours, but only the records themselves tell where it came from: while nobody copied,
//! the source's cleaner may have taken some of them (offsets stay, records go, and no offset that
//! can be asked for tells), its retention the first of them, and the target's cleaner others.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use super::error::Trouble;
use super::foreign::{self, Foreign};
use super::log_reader::{End, LogReader};
use super::resume::Candidate;
use super::shared::Flow;
use crate::batch::Record;
use crate::offsets::{OffsetMap, Paired, Pairing, Print, SourceOffset, TargetOffset};

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

/// Turns records into prints.
struct Reader {
    by_key: bool,
    /// What the target has of others came from nowhere.
    foreign: Foreign,
}

impl Reader {
    async fn target(
        &self,
        flow: &Flow,
        one: &Candidate,
        range: Range<i64>,
    ) -> Result<Vec<Print>, Trouble> {
        let mut prints = Vec::new();
        let take = |record: Record| {
            if !self.foreign.has(record.offset) {
                prints.push(self.print(&record));
            }
            true
        };
        LogReader::of_target(flow, one)
            .read_all(range, take)
            .await?;
        Ok(prints)
    }

    /// The source's committed records.
    async fn committed(
        &self,
        flow: &Flow,
        one: &Candidate,
        range: Range<i64>,
    ) -> Result<Vec<Print>, Trouble> {
        let mut prints = Vec::new();
        let take = |record: Record| {
            prints.push(self.print(&record));
            true
        };
        LogReader::of_source(flow, one)
            .read_all(range, take)
            .await?;
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
        let log = LogReader::of_source(flow, one);
        let take = |record: Record| pairing.take(self.print(&record));
        if let End::Seen(high_watermark) = log.read(start..i64::MAX, take).await? {
            log.reaches(high_watermark, pairing.certain())?;
        }
        Ok(pairing.finish())
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
