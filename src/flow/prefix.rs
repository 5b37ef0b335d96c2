//! Reaching a source log that starts high: the offsets below its start are *burned*.
//!
//! Batches of a million empty records (about 760 kB each) move the log end up at ten million
//! offsets a second; `DeleteRecords` then moves the log start behind them. Until then nobody
//! reads the topic: it was just created, and the partition doesn't count as copied. A burn that
//! was cut off goes on where the log ends, since it is part of the same sequence.

use super::error::Trouble;
use super::position::Position;
use super::resume::Candidate;
use super::shared::Flow;
use crate::batch::{self, Stamp};
use crate::telemetry::progress::now_ms;
use crate::wire;

/// Records per burned batch: compressed they stay below the default `max.message.bytes`.
const RECORDS_PER_BATCH: i64 = 1_000_000;

/// Burns the target's offsets from the position up to `origin`. Returns whether the leader then
/// knows the data producer. Compacted topics refuse records without a key, and a topic that only
/// compacts refuses `DeleteRecords`: there the prefix is left to fillers, which the cleaner removes.
pub(super) async fn burn(
    flow: &Flow,
    one: &Candidate,
    position: &mut Position,
    origin: i64,
) -> Result<bool, Trouble> {
    if one.topic.rules.target_compacted {
        // The intake sees a hole below the first batch and fills it.
        return Ok(false);
    }
    let target = one.topic.target(one.partition);
    tracing::info!(
        topic = %target.topic,
        partition = target.partition,
        from = position.target,
        to = origin,
        "burning the offsets below the source's log start"
    );
    while position.target < origin {
        let count = (origin - position.target).min(RECORDS_PER_BATCH);
        let stamp = Stamp {
            producer_id: one.topic.rules.producers.data_id,
            producer_epoch: 0,
            base_sequence: position.sequence(),
        };
        let batch =
            batch::empty_records_batch(i32::try_from(count).unwrap_or(i32::MAX), now_ms(), stamp);
        let base = wire::produce_one(&flow.target, &target, batch, -1).await?;
        if base != position.target {
            return Err(Trouble::ForeignWrite {
                expected: position.target,
                found: base,
            });
        }
        position.copied(position.source + count, count);
    }
    trim(flow, one, origin).await?;
    Ok(true)
}

/// Moves the target's log start up to `origin`, so that no reader meets the burned records.
pub(super) async fn trim(flow: &Flow, one: &Candidate, origin: i64) -> Result<(), Trouble> {
    if !one.topic.rules.target_compacted {
        wire::delete_records(&flow.target, &one.topic.target(one.partition), origin).await?;
    }
    Ok(())
}
