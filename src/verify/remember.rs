//! The last results of a flow, kept in the state topic.

use super::report::Report;
use crate::state::{StateError, StateStore, VerifyRecord, VerifyResult, keys};

/// Stores a report's sums.
///
/// # Errors
/// When they can't be written.
pub async fn remember(store: &StateStore, report: &Report) -> Result<(), StateError> {
    let key = keys::verify(&report.flow);
    let mut record: VerifyRecord = store.get(&key)?.unwrap_or_default();
    record.v = 1;
    record
        .last
        .insert(report.mode.word().to_owned(), result(report));
    store.put(&key, &record).await
}

fn result(report: &Report) -> VerifyResult {
    VerifyResult {
        started_ms: report.started_ms,
        ended_ms: report.ended_ms,
        verdict: report.verdict.word().to_owned(),
        coverage: report.coverage.ratio,
        records: report.totals.records,
        bytes: report.totals.bytes,
        differences: report.totals.differences.clone(),
    }
}
