//! Whether a compacted log has more holes than is worth filling, looked at before its copy begins.
//!
//! A few places of the log are read: what its batches span and how many records they have. It is an
//! estimate, and it needs no more: a log that it takes for full turns where its holes are met.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use tokio::task::JoinSet;

use super::fill;
use crate::batch;
use crate::wire::{self, Cluster, OffsetSpec, TopicPartition, WireError};

/// Places of a log that are looked at, evenly apart.
const SAMPLES: i64 = 4;
/// How much is read at each; a batch always.
const SAMPLE_BYTES: i32 = 128 * 1024;
/// How long a broker that doesn't answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Partitions looked at together.
const AT_ONCE: usize = 16;

/// One place of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    /// Offsets looked at.
    span: i64,
    /// Records in them.
    records: i64,
}

/// Why partitions of a compacted topic aren't worth to be filled, by number. `origins` are where
/// their copies begin. What can't be asked now isn't foreseen.
pub(super) async fn too_dear(
    cluster: &Cluster,
    topic: &str,
    origins: &BTreeMap<i32, i64>,
    limit: u64,
) -> BTreeMap<i32, String> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let names: Vec<TopicPartition> = origins
        .keys()
        .map(|number| TopicPartition::new(topic, *number))
        .collect();
    let ends = wire::list_offsets_within(cluster, &names, OffsetSpec::Latest, PATIENCE).await;
    let logs = ends.into_iter().filter_map(|(at, end)| {
        let log = *origins.get(&at.partition)?..end.ok()?;
        // Whatever it has, this much is filled.
        (log.end - log.start > limit).then_some((at, log))
    });
    let logs: Vec<(TopicPartition, Range<i64>)> = logs.collect();
    let mut found = BTreeMap::new();
    for some in logs.chunks(AT_ONCE) {
        let mut looks = JoinSet::new();
        for (at, log) in some.iter().cloned() {
            let cluster = cluster.clone();
            looks.spawn(async move {
                let samples = tokio::time::timeout(PATIENCE, samples(&cluster, &at, &log)).await;
                let reason = judge(&log, limit, &samples.ok()?.ok()?)?;
                Some((at.partition, reason))
            });
        }
        found.extend(looks.join_all().await.into_iter().flatten());
    }
    found
}

async fn samples(
    cluster: &Cluster,
    at: &TopicPartition,
    log: &Range<i64>,
) -> Result<Vec<Sample>, WireError> {
    let mut samples = Vec::new();
    for number in 0..SAMPLES {
        let from = log.start + (log.end - log.start) / SAMPLES * number;
        let fetched = wire::fetch_one(cluster, at, from, SAMPLE_BYTES).await?;
        let mut sample = Sample {
            span: 0,
            records: 0,
        };
        for batch in batch::split(fetched.records).map_while(Result::ok) {
            let header = &batch.header;
            sample.span = header.next_offset() - from;
            if !header.is_control() {
                let within = header.next_offset() - header.base_offset.max(from);
                sample.records += i64::from(header.count).min(within);
            }
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// Why a log of these samples isn't worth to be filled, if so.
fn judge(log: &Range<i64>, limit: i64, samples: &[Sample]) -> Option<String> {
    let offsets = log.end - log.start;
    let share = offsets / SAMPLES;
    let holes = |sample: &Sample| {
        // A hole that is longer than the share counts for those that follow, too.
        let span = sample.span.clamp(1, share.max(1));
        let records = sample.records.min(span);
        i128::from(span - records) * i128::from(share) / i128::from(span)
    };
    let holes: i128 = samples.iter().map(holes).sum();
    let holes = i64::try_from(holes).unwrap_or(i64::MAX);
    let debt = fill::after_records(holes, offsets - holes);
    (debt > limit).then(|| {
        format!(
            "about {holes} of its {offsets} offsets have no record, more than offsets.fill_limit {limit}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Sample = Sample {
        span: 1_000,
        records: 1_000,
    };

    #[test]
    fn a_log_of_few_keys_is_too_dear_and_a_full_one_is_not() {
        let log = 0..50_000_000;
        let one_hole = Sample {
            span: 49_999_900,
            records: 1,
        };
        let reason = judge(&log, 1_000_000, &[one_hole; 4]).expect("too dear");
        assert!(
            reason.starts_with("about 49999996 of its 50000000 offsets"),
            "{reason}"
        );
        assert_eq!(judge(&log, 1_000_000, &[FULL; 4]), None);
    }

    #[test]
    fn holes_of_a_part_of_the_log_count_for_that_part() {
        let sparse = Sample {
            span: 1_000_000,
            records: 10_000,
        };
        // One quarter has 99 holes for each record, the rest is worth four fillers a record.
        let samples = [sparse, FULL, FULL, FULL];
        assert_eq!(judge(&(0..8_000_000), 1_000_000, &samples), None);
        let samples = [sparse, sparse, sparse, FULL];
        assert_eq!(judge(&(0..8_000_000), 10_000_000, &samples), None);
        assert!(judge(&(0..8_000_000), 1_000_000, &[sparse; 4]).is_some());
    }

    #[test]
    fn a_log_of_short_transactions_is_worth_its_markers() {
        let transactions = Sample {
            span: 1_000,
            records: 500,
        };
        assert_eq!(
            judge(&(0..1_000_000_000), 1_000_000, &[transactions; 4]),
            None
        );
    }
}
