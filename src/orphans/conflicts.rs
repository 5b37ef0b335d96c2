//! Keys of orphans that were also written on the new primary since the fork: replaying those would
//! put an older value behind a newer one.

use std::collections::{HashMap, HashSet};

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
    for (at, from) in logs {
        let range = from.max(of(&starts, &at)?)..of(&stable, &at)?;
        ranges.push((at, range));
    }
    let total = ranges
        .iter()
        .map(|(_, it)| (it.end - it.start).max(0))
        .sum();
    progress.enter(Phase::Comparing, total);
    for topic in &mut listing.topics {
        let Some((_, keys)) = topics.iter().find(|(name, _)| *name == topic.target_topic) else {
            continue;
        };
        let mut found = Conflicts {
            all_keys_compared: keys.are_all,
            ..Conflicts::default()
        };
        let mut both: HashSet<u64> = HashSet::new();
        let of_topic = ranges
            .iter()
            .filter(|(at, _)| at.topic == topic.target_topic);
        for (at, range) in of_topic {
            let mut fetched = Fetched::new(&scene.target, at.clone(), range.clone());
            let mut before = fetched.position();
            while let Some(batches) = fetched.next().await? {
                for batch in &batches {
                    let records = fetched::records(batch, range)?;
                    progress.passed(records.len() as u64, 0);
                    for record in &records {
                        let Some(key) = &record.key else { continue };
                        let hashed = hash.of(key);
                        if keys.hashes.contains(&hashed) && !is_replayed(record) {
                            found.records += 1;
                            both.insert(hashed);
                            sample(&mut found.sample_keys, key);
                        }
                    }
                }
                progress.passed(0, fetched.position() - before);
                before = fetched.position();
            }
        }
        found.keys = both.len() as u64;
        topic.conflicts = Some(found);
    }
    Ok(())
}

fn is_replayed(record: &Record) -> bool {
    record.header_list().is_ok_and(|headers| {
        let is_origin = |(key, _): &(bytes::Bytes, _)| key == ORIGIN_HEADER.as_bytes();
        headers.iter().any(is_origin)
    })
}
