//! Proves that nothing is written to the source any more: two looks at all log ends that agree.

use std::time::Duration;

use tokio::time::Instant;

use super::fence;
use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::cutover::hidden::hidden;
use crate::cutover::options::FenceMode;
use crate::cutover::pairs::{Offsets, ends, on_source};
use crate::wire::{self, OffsetSpec, TopicPartition};

/// How long each broker may take to say who leads.
const ASKED_WITHIN: Duration = Duration::from_secs(3);
/// The pause between looks while something moves.
const AGAIN: Duration = Duration::from_millis(250);
/// More partitions than this are counted, not named.
const NAMED_MAX: usize = 5;

/// One look at the source.
struct Look {
    ends: Offsets,
    /// Partitions with an open transaction.
    open: Vec<TopicPartition>,
}

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let is_fenced = it
        .scene
        .topics
        .iter()
        .all(|topic| it.fenced.contains(&topic.name));
    if it.options.fence == FenceMode::Acl && !is_fenced {
        // A topic that was made and copied since has no fence yet: this plan may be continued.
        fence::apply(it).await?;
    }
    // A leader that is cut off from the others has ends that stand still.
    it.scene.source.ask_others(ASKED_WITHIN).await;
    let partitions = on_source(&it.scene.pairs());
    let apart = it.options.quiet_for();
    let deadline = Instant::now() + it.options.wait;
    let mut told = false;
    let mut before = look(it, &partitions).await?;
    loop {
        let pause = if before.open.is_empty() { apart } else { AGAIN };
        tokio::time::sleep(pause).await;
        let now = look(it, &partitions).await?;
        let stands = now.open.is_empty() && before.open.is_empty() && now.ends == before.ends;
        let hidden = match stands {
            true => hidden(&it.scene.source, &now.ends).await?,
            false => Vec::new(),
        };
        if stands && hidden.is_empty() {
            let mut proven: Vec<(String, i32, i64)> = now
                .ends
                .into_iter()
                .map(|(at, end)| (at.topic, at.partition, end))
                .collect();
            proven.sort();
            let total: i64 = proven.iter().map(|(_, _, end)| end).sum();
            it.journal.note("source_ends", &proven);
            return Ok(format!(
                "{} partition(s) stood still for {} s, their ends add up to {total}",
                proven.len(),
                apart.as_secs()
            ));
        }
        let moving: Vec<&TopicPartition> = now
            .ends
            .iter()
            .filter(|(at, end)| before.ends.get(*at) != Some(*end))
            .map(|(at, _)| at)
            .collect();
        if Instant::now() >= deadline && stands {
            return Err(lagging(it, &hidden));
        }
        if Instant::now() >= deadline {
            return Err(unproven(it, &moving, &now.open).await);
        }
        if !told && !now.open.is_empty() {
            told = true;
            let text = transactions(it, &now.open).await;
            (it.tell)(&format!("waiting for open transactions: {text}"));
        }
        before = now;
    }
}

fn lagging(it: &Cutover, hidden: &[TopicPartition]) -> CutoverError {
    let seconds = it.options.wait.as_secs();
    let named: Vec<String> = hidden
        .iter()
        .take(NAMED_MAX)
        .map(|at| at.to_string())
        .collect();
    CutoverError::failed(format!(
        "after {seconds} s replicas still lag behind the source's leaders in {} partition(s), such \
         as {}: what they don't have yet can't be read",
        hidden.len(),
        named.join(", ")
    ))
    .with_hint(
        "wait until its replicas are in sync, and run this again, or undo the fence with `--abort`",
    )
}

async fn look(it: &Cutover, partitions: &[TopicPartition]) -> Result<Look, CutoverError> {
    let source = &it.scene.source;
    // Stable ends first: an end that is the same afterwards can't have had a transaction before it.
    let stable = ends(source, partitions, OffsetSpec::LatestStable).await?;
    let ends = ends(source, partitions, OffsetSpec::Latest).await?;
    let mut open: Vec<TopicPartition> = ends
        .iter()
        .filter(|(at, end)| stable.get(*at) != Some(*end))
        .map(|(at, _)| at.clone())
        .collect();
    open.sort();
    Ok(Look { ends, open })
}

async fn unproven(
    it: &Cutover,
    moving: &[&TopicPartition],
    open: &[TopicPartition],
) -> CutoverError {
    let seconds = it.options.wait.as_secs();
    let message = if !moving.is_empty() {
        let named: Vec<String> = moving
            .iter()
            .take(NAMED_MAX)
            .map(|at| at.to_string())
            .collect();
        format!(
            "after {seconds} s somebody still writes to {} partition(s) of the source, such as {}",
            moving.len(),
            named.join(", ")
        )
    } else {
        format!(
            "after {seconds} s transactions are still open on the source: {}",
            transactions(it, open).await
        )
    };
    CutoverError::failed(message).with_hint(
        "stop those writers (super users aren't bound by ACLs; a hanging transaction is ended by \
         `kafka-transactions.sh abort`) and run this again, or undo the fence with `--abort`",
    )
}

/// Who holds transactions open, and since which offset.
async fn transactions(it: &Cutover, partitions: &[TopicPartition]) -> String {
    let asked: Vec<TopicPartition> = partitions.iter().take(NAMED_MAX).cloned().collect();
    let states = wire::describe_producers(&it.scene.source, &asked).await;
    let mut named = Vec::new();
    for at in &asked {
        match states.get(at) {
            Some(Ok(states)) => {
                let open = states
                    .iter()
                    .filter(|state| state.current_txn_start_offset >= 0);
                named.extend(open.map(|state| {
                    format!(
                        "{at}: producer {} since offset {}",
                        state.producer_id, state.current_txn_start_offset
                    )
                }));
            }
            _ => named.push(at.to_string()),
        }
    }
    if named.is_empty() {
        named.extend(asked.iter().map(ToString::to_string));
    }
    if partitions.len() > asked.len() {
        named.push(format!("and {} more", partitions.len() - asked.len()));
    }
    named.join("; ")
}
