//! What follows from an answer: progress, the next piece of work, or trouble.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;

use super::Item;
use crate::flow::error::Trouble;
use crate::flow::partition::Partition;
use crate::flow::work::{BatchWork, FillWork, Form};
use crate::telemetry::progress::now_ms;
use crate::wire::WireError;

pub(super) fn missing_answer(cluster: &str) -> Trouble {
    Trouble::Broker {
        cluster: cluster.to_owned(),
        code: ResponseError::UnknownServerError,
        message: Some("the answer doesn't name the partition".to_owned()),
    }
}

pub(super) fn map_trouble(partition: &Partition) -> Trouble {
    Trouble::MapMismatch {
        map_end: partition
            .look_into_map(|map| map.target_end().0)
            .unwrap_or(-1),
        log_end: partition.progress.target_position.load(Ordering::Relaxed),
    }
}

pub(super) fn topic_name(partition: &Partition) -> TopicName {
    TopicName(StrBytes::from_string(partition.target.topic.clone()))
}

/// Ends a piece of work: the barrier is lifted and the next piece gets its turn, or the
/// partition closes.
pub(super) fn finish(partition: &Arc<Partition>, result: Result<(), Trouble>) {
    match result {
        Ok(()) => partition.lift_barrier(),
        // The next opening finds where they are, and goes on behind them.
        Err(Trouble::ForeignWrite { expected, found }) if partition.rules.keeps_foreign => {
            partition.fail(Trouble::Stranger { expected, found });
        }
        Err(trouble) => partition.fail(trouble),
    }
    partition.answered();
    if partition.has_work() {
        partition.schedule();
    }
}

pub(super) fn fail_all(items: impl IntoIterator<Item = Item>, error: &WireError) {
    for item in items {
        item.partition.fail(Trouble::Wire(error.clone()));
        item.partition.answered();
    }
}

pub(super) fn note_batch(partition: &Arc<Partition>, batch: &BatchWork) {
    let progress = &partition.progress;
    let noted = partition.note_in_map(|map| {
        let mut runs = batch.runs();
        runs.try_for_each(|run| map.push_copied(run.source_start, run.target_start, run.len))
    });
    if noted.is_err() {
        partition.fail(map_trouble(partition));
        return;
    }
    progress
        .source_position
        .store(batch.source_next, Ordering::Relaxed);
    progress
        .target_position
        .store(batch.target_base + batch.count, Ordering::Relaxed);
    progress
        .records
        .fetch_add(u64::try_from(batch.count).unwrap_or(0), Ordering::Relaxed);
    progress
        .bytes
        .fetch_add(batch.size_bytes() as u64, Ordering::Relaxed);
    partition.note_appended();
    progress
        .last_timestamp_ms
        .fetch_max(batch.max_timestamp_ms, Ordering::Relaxed);
    match batch.form {
        Form::Passed => progress.batches_passed.fetch_add(1, Ordering::Relaxed),
        Form::Coalesced { batches } => progress
            .batches_coalesced
            .fetch_add(u64::from(batches), Ordering::Relaxed),
        Form::Opened => progress.batches_opened.fetch_add(1, Ordering::Relaxed),
    };
    note_moved(partition);
}

pub(super) fn note_fill(partition: &Arc<Partition>, fill: &FillWork) {
    partition.note_filled();
    let progress = &partition.progress;
    progress
        .source_position
        .store(fill.source_next, Ordering::Relaxed);
    progress
        .target_position
        .store(fill.target_base + fill.count, Ordering::Relaxed);
    progress
        .holes_filled
        .fetch_add(u64::try_from(fill.count).unwrap_or(0), Ordering::Relaxed);
    note_moved(partition);
}

pub(super) fn note_moved(partition: &Partition) {
    let progress = &partition.progress;
    let now = now_ms();
    progress.progressed_at_ms.store(now, Ordering::Relaxed);
    if progress.lag_offsets() == 0 {
        progress.caught_up_at_ms.store(now, Ordering::Relaxed);
    }
}
