//! Keys of orphans that were also written on the new primary since the fork: replaying those would
//! put an older value behind a newer one.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde::Serialize;

use super::fetched::{self, Fetched};
use super::json_line::{ORIGIN_HEADER, Text};
use super::keys::KeyHash;
use super::list::{Listing, SomeKeys, sample};
use super::scene::Scene;
use super::{OrphansError, Phase, Progress};
use crate::batch::Record;
use crate::flow::restrain;
use crate::state::TopicSet;
use crate::wire::{self, OffsetSpec, TopicPartition, WireError};

/// What was found of a topic.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Conflicts {
    /// Different keys that both sides have.
    pub keys: u64,
    /// Whether all keys of the orphans were looked for, or only the first million.
    pub all_keys_compared: bool,
    /// Records on the new primary with one of these keys.
    pub records: u64,
    /// Some of the keys.
    pub sample_keys: Vec<Text>,
    /// Partitions that couldn't be read, or not to their end, and why: there may be more.
    pub not_compared: Vec<String>,
}

/// Reads what was written on the new primary since the fork, without what was replayed there.
pub(super) async fn find(
    scene: &Scene,
    hash: KeyHash,
    topics: &[(String, SomeKeys)],
    listing: &mut Listing,
    progress: &Progress,
) -> Result<(), OrphansError> {
    let forks = restrain::forks(&scene.store, &scene.flow.name, &TopicSet::All)?;
    let mut logs = Vec::new();
    for topic in &listing.topics {
        let Some(fork) = forks.get(&topic.topic) else {
            continue;
        };
        for (number, fork) in (0..).zip(&fork.partitions) {
            let at = TopicPartition::new(&*topic.target_topic, number);
            logs.push((at, fork.padded_end));
        }
    }
    let asked: Vec<TopicPartition> = logs.iter().map(|(at, _)| at.clone()).collect();
    let stable = wire::list_offsets(&scene.target, &asked, OffsetSpec::LatestStable).await;
    let starts = wire::list_offsets(&scene.target, &asked, OffsetSpec::Earliest).await;
    let of = |offsets: &HashMap<TopicPartition, Result<i64, WireError>>, at: &TopicPartition| {
        match offsets.get(at) {
            Some(Ok(offset)) => Ok(*offset),
            Some(Err(error)) => Err(OrphansError::doing(at, error)),
            None => Err(OrphansError::doing(at, "no answer")),
        }
    };
    let mut ranges = Vec::new();
    let mut unread: Vec<(String, String)> = Vec::new();
    for (at, from) in logs {
        match (of(&starts, &at), of(&stable, &at)) {
            (Ok(start), Ok(end)) => ranges.push((at, to_read(from, start, end))),
            (Err(error), _) | (_, Err(error)) => unread.push((at.topic, error.to_string())),
        }
    }
    let total = ranges.iter().map(|(_, it)| it.end - it.start).sum();
    progress.enter(Phase::Comparing, total);
    for topic in &mut listing.topics {
        let Some((_, keys)) = topics.iter().find(|(name, _)| *name == topic.target_topic) else {
            continue;
        };
        let mut found = Conflicts {
            all_keys_compared: keys.are_all,
            ..Conflicts::default()
        };
        let of_it = unread.iter().filter(|(of, _)| *of == topic.target_topic);
        found.not_compared.extend(of_it.map(|(_, why)| why.clone()));
        let mut both: HashSet<u64> = HashSet::new();
        let of_topic = ranges
            .iter()
            .filter(|(at, _)| at.topic == topic.target_topic);
        for (at, range) in of_topic {
            let mut fetched = Fetched::new(&scene.target, at.clone(), range.clone());
            let mut take = |record: &Record| {
                let Some(key) = &record.key else { return };
                let hashed = hash.of(key);
                if keys.hashes.contains(&hashed) && !is_replayed(record) {
                    found.records += 1;
                    both.insert(hashed);
                    sample(&mut found.sample_keys, key);
                }
            };
            // One that can't be read hides no other's keys.
            if let Err(error) = read(&mut fetched, range, progress, &mut take).await {
                found.not_compared.push(error.to_string());
            }
        }
        found.keys = both.len() as u64;
        topic.conflicts = Some(found);
    }
    Ok(())
}

/// What of a log is to be read: nothing where its end isn't beyond what was padded.
fn to_read(from: i64, start: i64, end: i64) -> Range<i64> {
    let from = from.max(start);
    from..end.max(from)
}

/// Hands every record of the range to `take`.
async fn read(
    fetched: &mut Fetched<'_>,
    range: &Range<i64>,
    progress: &Progress,
    take: &mut (dyn FnMut(&Record) + Send),
) -> Result<(), OrphansError> {
    let mut before = fetched.position();
    while let Some(batches) = fetched.next().await? {
        for batch in &batches {
            let records = fetched::records(batch, range)?;
            progress.passed(records.len() as u64, 0);
            records.iter().for_each(&mut *take);
        }
        progress.passed(0, fetched.position() - before);
        before = fetched.position();
    }
    Ok(())
}

fn is_replayed(record: &Record) -> bool {
    record.header_list().is_ok_and(|headers| {
        let is_origin = |(key, _): &(bytes::Bytes, _)| key == ORIGIN_HEADER.as_bytes();
        headers.iter().any(is_origin)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_padded_or_gone_is_not_read() {
        assert_eq!(to_read(10, 3, 20), 10..20);
        assert_eq!(to_read(3, 10, 20), 10..20);
        assert!(to_read(20, 0, 15).is_empty());
        assert!(to_read(0, 20, 15).is_empty());
    }
}
