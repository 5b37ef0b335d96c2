//! The last results of a flow, kept in the state topic.

use super::report::Report;
use crate::state::{StateError, StateStore, VerifyRecord, keys};
use crate::telemetry::verify::VerifyResult;

/// Stores a report's sums under its mode.
///
/// # Errors
/// When they can't be written.
pub async fn remember(store: &StateStore, report: &Report) -> Result<(), StateError> {
    remember_as(report.mode.word(), store, report).await
}

pub(super) async fn remember_as(
    mode: &str,
    store: &StateStore,
    report: &Report,
) -> Result<(), StateError> {
    // Another process may have stored another mode's.
    store.refresh().await?;
    let mut record = last(store, &report.flow)?;
    record.v = 1;
    record.last.insert(mode.to_owned(), result(report));
    store.put(&keys::verify(&report.flow), &record).await
}

/// What is remembered of a flow.
///
/// # Errors
/// When it can't be read.
pub fn last(store: &StateStore, flow: &str) -> Result<VerifyRecord, StateError> {
    Ok(store.get(&keys::verify(flow))?.unwrap_or_default())
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
