//! Waits until every broker of the source shows the fence.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::flow::shown::{Late, Shown};

const AGAIN: Duration = Duration::from_millis(100);
/// How long one broker may take for one answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Whoever takes longer is named while he is waited for.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// Waits until every broker of the source refuses to write to these topics by its own word.
///
/// # Errors
/// When one doesn't within the time that the operator gives, or can't be asked: it is named.
pub(super) async fn await_fence(it: &Cutover, topics: &[String]) -> Result<(), CutoverError> {
    let source = &it.scene.source;
    let wanted: BTreeSet<String> = topics.iter().cloned().collect();
    let began = Instant::now();
    let mut shown = Shown::default();
    let mut is_told = false;
    loop {
        let patience = source.or_longer(ANSWERS_WITHIN);
        let late = shown.look(source, &wanted, patience).await;
        let Some((broker, why)) = late.first_key_value() else {
            return Ok(());
        };
        if began.elapsed() >= it.options.wait {
            return Err(not_shown(it, &late, began.elapsed()));
        }
        if !is_told && began.elapsed() >= TOLD_AFTER {
            is_told = true;
            (it.tell)(&format!(
                "broker {broker} doesn't refuse writers yet ({why}); nothing is proven before it does"
            ));
        }
        tokio::time::sleep(AGAIN).await;
        // Which brokers there are by now. What can't be asked is told by the next round.
        let _ = tokio::time::timeout(patience, source.metadata(Some(&[]))).await;
    }
}

fn not_shown(it: &Cutover, late: &Late, after: Duration) -> CutoverError {
    let named: Vec<String> = late
        .iter()
        .map(|(broker, why)| format!("broker {broker} ({why})"))
        .collect();
    CutoverError::failed(format!(
        "after {} s not every broker of {} refuses writers: {}",
        after.as_secs(),
        it.scene.source.name(),
        named.join(", ")
    ))
    .with_hint(
        "see why that broker is behind with its metadata, or stop it, and run this again; `--abort` undoes the fence",
    )
}
