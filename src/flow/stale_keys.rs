//! Keys that a copy has and its source has no more.
//!
//! Both logs are read whole. In memory are hashes of the copy's live keys, then the stale ones themselves; both
//! have a bound, beyond which nothing is mended, by name.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use twox_hash::XxHash3_128;

use super::error::Trouble;
use super::log_reader::LogReader;
use super::position::Position;
use super::resume::Candidate;
use super::shared::Flow;
use super::topics::take_offset;
use crate::wire::{self, OffsetSpec};

/// Live keys of a partition's copy: about 40 MB.
const KEYS_MAX: usize = 1_000_000;
/// Bytes of stale keys.
const STALE_BYTES_MAX: usize = 16 << 20;

/// The keys that the source has no more.
#[derive(Debug)]
pub(super) struct StaleKeys {
    /// In the order of their records in the copy.
    pub keys: Vec<Bytes>,
    /// Up to here the source was looked through.
    pub until: i64,
}

/// Too many keys to compare, in words.
#[derive(Debug)]
pub(super) struct TooMany(pub String);

/// Compares the keys of what was copied up to `position` with those of the whole source.
///
/// # Errors
/// When a log can't be read.
pub(super) async fn compare(
    flow: &Flow,
    one: &Candidate,
    position: &Position,
) -> Result<Result<StaleKeys, TooMany>, Trouble> {
    let (from, to) = (
        one.topic.source(one.partition),
        one.topic.target(one.partition),
    );
    let (source_log, target_log) = (
        LogReader::of_source(flow, one).throttled(flow),
        LogReader::of_target(flow, one).throttled(flow),
    );
    let (asked_source, asked_target) = ([from.clone()], [to.clone()]);
    let (mut starts, mut ends, mut target_starts) = tokio::join!(
        wire::list_offsets(&flow.source, &asked_source, OffsetSpec::Earliest),
        wire::list_offsets(&flow.source, &asked_source, OffsetSpec::LatestStable),
        wire::list_offsets(&flow.target, &asked_target, OffsetSpec::Earliest),
    );
    let source_start = take_offset(&mut starts, &from, flow.source.name())?;
    let until = take_offset(&mut ends, &from, flow.source.name())?;
    if until < position.source {
        // It has less than was copied: another broker leads, or will.
        return Err(Trouble::LeaderMoved {
            cluster: format!("source ({})", flow.source.name()),
        });
    }
    let target_start = take_offset(&mut target_starts, &to, flow.target.name())?;
    // What the source's retention took is no delete.
    let kept_from = if position.mapped { 0 } else { source_start };
    let copied = target_start.max(kept_from)..position.target;
    let strangers = one.topic.record.continued.as_ref();
    let strangers = strangers.map_or(&[][..], |it| it.only_on_target(one.partition));
    let is_ours = |offset: i64| {
        !strangers
            .iter()
            .any(|(from, to)| (*from..*to).contains(&offset))
    };

    let seed = rand::random();
    let hash = |key: &Bytes| XxHash3_128::oneshot_with_seed(seed, key);
    let mut live: HashSet<u128> = HashSet::new();
    let is_whole = (target_log)
        .read_all(copied.clone(), |record| {
            let Some(key) = &record.key else { return true };
            match record.value.is_some() && is_ours(record.offset) {
                true => live.insert(hash(key)),
                false => live.remove(&hash(key)),
            };
            live.len() <= KEYS_MAX
        })
        .await?;
    if !is_whole {
        return Ok(Err(TooMany(format!(
            "the copy has more than {KEYS_MAX} keys"
        ))));
    }
    // A tombstone that is still there is copied, in its place.
    source_log
        .read_all(source_start..until, |record| {
            if let Some(key) = &record.key {
                live.remove(&hash(key));
            }
            !live.is_empty()
        })
        .await?;
    if live.is_empty() {
        let keys = Vec::new();
        return Ok(Ok(StaleKeys { keys, until }));
    }
    let mut found: HashMap<u128, (i64, Bytes)> = HashMap::new();
    let mut bytes = 0;
    let is_whole = (target_log)
        .read_all(copied, |record| {
            if let Some(key) = record.key
                && live.contains(&hash(&key))
            {
                let kept = Bytes::copy_from_slice(&key);
                if found.insert(hash(&key), (record.offset, kept)).is_none() {
                    bytes += key.len();
                }
            }
            bytes <= STALE_BYTES_MAX
        })
        .await?;
    if !is_whole {
        let text =
            format!("the keys that the source has no more take more than {STALE_BYTES_MAX} bytes");
        return Ok(Err(TooMany(text)));
    }
    let mut found: Vec<(i64, Bytes)> = found.into_values().collect();
    found.sort_unstable_by_key(|(offset, _)| *offset);
    let keys = found.into_iter().map(|(_, key)| key).collect();
    Ok(Ok(StaleKeys { keys, until }))
}
