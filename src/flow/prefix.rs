//! Reaching a source log that starts high: the offsets below its start are *burned*.
//!
//! Batches of up to a million empty records (about 760 kB each in zstd) move the log end up at ten
//! million offsets a second; `DeleteRecords` then moves the log start behind them. Until then
//! nobody reads the topic: it was just created, and the partition doesn't count as copied. A burn
//! that was cut off goes on where the log ends, since it is part of the same sequence.
//!
//! That takes its time, so it is a state of its own: nothing waits for it, a few are at work at each
//! broker, and their requests have connections of their own (`Role::Slow`).
//!
//! The batches are written in the topic's own codec, so that the broker keeps them as they are
//! (`LogValidator` compresses anew only into another codec, and judges the size afterwards), with
//! as many records as fit the topic's limits.

use kafka_protocol::ResponseError;

use super::error::Trouble;
use super::position::Position;
use super::resume::Candidate;
use super::shared::Flow;
use super::topic_config::{self, value};
use crate::batch::{self, Codec, Stamp};
use crate::telemetry::progress::{PartitionState, now_ms};
use crate::wire::{self, Cluster, ConfigValues, Role, TopicPartition, WireError};

/// Records of the largest burned batch: in zstd it stays below the default `max.message.bytes`.
const RECORDS_PER_BATCH: i64 = 1_000_000;
/// The brokers' default `max.message.bytes`.
const MAX_MESSAGE_BYTES: usize = 1_048_588;

/// How burned batches are made so that a topic takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    codec: Codec,
    /// No batch may have more.
    limit_bytes: usize,
    /// What is known to fit, or is tried first.
    records: i64,
}

impl Size {
    /// By the topic's configs.
    fn of(configs: &ConfigValues) -> Self {
        let bytes = |key| value(configs, key).and_then(|bytes| bytes.parse::<usize>().ok());
        // A batch must also fit one segment: `UnifiedLog.append` (RECORD_LIST_TOO_LARGE).
        let segment_bytes = bytes("segment.bytes").unwrap_or(usize::MAX);
        let limit_bytes = bytes("max.message.bytes").unwrap_or(MAX_MESSAGE_BYTES);
        Self {
            codec: match value(configs, "compression.type") {
                Some("uncompressed") => Codec::None,
                Some("gzip") => Codec::Gzip,
                Some("snappy") => Codec::Snappy,
                Some("lz4") => Codec::Lz4,
                _ => Codec::Zstd,
            },
            limit_bytes: limit_bytes.min(segment_bytes),
            records: RECORDS_PER_BATCH,
        }
    }

    /// A batch of at most `count` records that fits, and how many it has; one record goes as it is.
    fn batch(&mut self, count: i64, stamp: Stamp) -> (i64, bytes::Bytes) {
        loop {
            let records = self.records.min(count).max(1);
            let number = i32::try_from(records).unwrap_or(i32::MAX);
            let batch = batch::empty_records_batch(self.codec, number, now_ms(), stamp);
            if batch.len() <= self.limit_bytes || records == 1 {
                return (records, batch);
            }
            self.records = scaled(records, self.limit_bytes, batch.len());
        }
    }

    /// After a batch was refused for its size: by the topic's configs as they are now, and smaller
    /// than what was refused. `false` if that can't be.
    fn shrink(&mut self, now: Self, refused_bytes: usize, refused_records: i64) -> bool {
        let is_smaller = now.limit_bytes < refused_bytes || now.codec != self.codec;
        *self = Self {
            records: if is_smaller {
                refused_records
            } else {
                refused_records / 2
            }
            .max(1),
            ..now
        };
        refused_records > 1
    }
}

/// Fewer than `records`, which have `bytes`, so that they have a little less than `limit_bytes`.
fn scaled(records: i64, limit_bytes: usize, bytes: usize) -> i64 {
    let (limit, bytes) = (limit_bytes as i128, bytes.max(1) as i128);
    let fit = i128::from(records) * limit * 9 / (bytes * 10);
    i64::try_from(fit)
        .unwrap_or(1)
        .clamp(1, (records - 1).max(1))
}

/// Whether offsets below `origin` are to be burned or trimmed, where both the log's start and its end
/// have reached `reached`. Compacted topics refuse records without a key, and a topic that only
/// compacts refuses `DeleteRecords`: there the intake sees a hole below the first batch and fills it,
/// and the cleaner removes the fillers.
pub(super) fn is_left(one: &Candidate, reached: i64, origin: i64) -> bool {
    reached < origin && !one.topic.rules.target_compacted
}

/// Burns the target's offsets from the position up to `origin`, and moves the log start there, so that
/// no reader meets the burned records.
pub(super) async fn burn(
    flow: &Flow,
    one: &Candidate,
    mut position: Position,
    origin: i64,
) -> Result<(), Trouble> {
    let slow = flow.target.apart(Role::Slow);
    let progress = flow
        .progress
        .partition(&one.topic.source_topic, one.partition);
    let target = one.topic.target(one.partition);
    tracing::info!(
        topic = %target.topic,
        partition = target.partition,
        from = position.target,
        to = origin,
        "burning the offsets below the source's log start"
    );
    let mut size = Size::of(&topic_config::of_target(flow, &target.topic).await?);
    while position.target < origin {
        progress.set_state(PartitionState::Burning {
            done: position.target,
            of: origin,
        });
        still_ours(flow, one)?;
        let stamp = Stamp {
            producer_id: one.topic.rules.producers.data_id,
            producer_epoch: 0,
            base_sequence: position.sequence(),
        };
        let (count, base) = burn_some(
            flow,
            &slow,
            &target,
            &mut size,
            (origin - position.target, stamp),
        )
        .await?;
        match Trouble::check_offset(position.target, base) {
            // Where it is kept, the opening says what becomes of it.
            Err(Trouble::ForeignWrite { expected, found }) if one.topic.rules.keeps_foreign => {
                return Err(Trouble::Stranger { expected, found });
            }
            checked => checked?,
        }
        position.copied(position.source + count, count);
    }
    still_ours(flow, one)?;
    wire::delete_records(&slow, &target, origin).await?;
    Ok(())
}

/// A produce names its topic, not its id: where the name has got a new log, nothing more is burned.
fn still_ours(flow: &Flow, one: &Candidate) -> Result<(), Trouble> {
    let record = &one.topic.record;
    let metadata = flow.target.cached();
    let now = metadata.topics.get(&record.target_topic);
    match now.filter(|topic| topic.error.is_none()) {
        Some(topic) if wire::is_other_topic(record.target_topic_id, topic.topic_id) => {
            Err(Trouble::LeaderMoved {
                cluster: flow.target.name().to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// Burns at most `count` offsets with one batch: how many, and the first. A refused batch was not
/// appended, so a smaller one takes its place in the sequence.
async fn burn_some(
    flow: &Flow,
    slow: &Cluster,
    target: &TopicPartition,
    size: &mut Size,
    (count, stamp): (i64, Stamp),
) -> Result<(i64, i64), Trouble> {
    loop {
        let (records, batch) = size.batch(count, stamp);
        let bytes = batch.len();
        let error = match wire::produce_one(slow, target, batch, -1).await {
            Ok(base) => return Ok((records, base)),
            Err(error) if !is_too_large(&error) => return Err(error.into()),
            Err(error) => error,
        };
        // Its settings changed, or it doesn't say all that counts.
        let now = Size::of(&topic_config::of_target(flow, &target.topic).await?);
        if !size.shrink(now, bytes, records) {
            return Err(error.into());
        }
    }
}

fn is_too_large(error: &WireError) -> bool {
    matches!(
        error.server_code(),
        Some(ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge)
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{ConfigSource, ConfigValue};

    fn configs(all: &[(&str, &str)]) -> ConfigValues {
        let one = |(key, value): &(&str, &str)| {
            let value = ConfigValue {
                value: Some((*value).to_owned()),
                source: ConfigSource::Topic,
                sensitive: false,
                default: None,
            };
            ((*key).to_owned(), value)
        };
        all.iter().map(one).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn whatever_the_settings_a_burned_batch_fits(
            codec in prop::sample::select(vec!["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
            max_bytes in 150_usize..2_000_000,
            segment_bytes in 150_usize..2_000_000,
            count in 1_i64..1_500_000,
        ) {
            let (max, segment) = (max_bytes.to_string(), segment_bytes.to_string());
            let configs = configs(&[
                ("compression.type", codec),
                ("max.message.bytes", &max),
                ("segment.bytes", &segment),
            ]);
            let mut size = Size::of(&configs);
            let (records, batch) = size.batch(count, Stamp::NONE);
            prop_assert!((1..=count).contains(&records));
            prop_assert!(batch.len() <= max_bytes.min(segment_bytes), "{} bytes", batch.len());
            // And no needlessly small one: what fits grows with the limit.
            prop_assert!(
                records == count.min(RECORDS_PER_BATCH)
                    || batch.len() * 5 > max_bytes.min(segment_bytes)
                    || batch.len() < 2_000
            );
        }
    }

    #[test]
    fn after_a_refusal_a_batch_is_smaller_until_it_has_one_record() {
        let now = Size::of(&configs(&[]));
        let mut size = now;
        let (mut records, mut batch) = size.batch(1_000_000, Stamp::NONE);
        let mut refusals = 0;
        while size.shrink(now, batch.len(), records) {
            let before = records;
            (records, batch) = size.batch(1_000_000, Stamp::NONE);
            assert!(records < before);
            refusals += 1;
        }
        assert_eq!(records, 1);
        assert!(refusals < 25, "{refusals}");
        // A limit that was lowered meanwhile counts at once.
        let mut size = now;
        let lowered = Size::of(&configs(&[("max.message.bytes", "5000")]));
        let (records, batch) = size.batch(1_000_000, Stamp::NONE);
        assert!(size.shrink(lowered, batch.len(), records));
        assert!(size.batch(1_000_000, Stamp::NONE).1.len() <= 5_000);
    }
}
