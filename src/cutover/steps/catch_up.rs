//! Waits until the copy back has nearly caught up with its source, which goes on meanwhile: what is
//! left then is soon copied when writers are kept away.

use std::time::Duration;

use tokio::time::Instant;

use super::drain::{is_copied_by_others, progress};
use crate::cutover::context::{Cutover, Runner};
use crate::cutover::error::CutoverError;
use crate::cutover::pairs::{copied_end, ends, on_source, on_target};
use crate::flow;
use crate::wire::OffsetSpec;

const AGAIN: Duration = Duration::from_millis(200);
/// Whoever runs the flow begins within this; longer and nobody seems to.
const BEGINS_WITHIN: Duration = Duration::from_secs(5);
/// So many offsets are caught up with in a moment.
const NEAR: i64 = 10_000;
/// What is copied in so much time is near, too.
const NEAR_FOR: Duration = Duration::from_secs(2);
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// How far the copy is.
struct Left {
    /// Offsets.
    offsets: i64,
    /// Topics of the source without a copy, or with fewer partitions there.
    missing: Vec<String>,
}

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let began = Instant::now();
    let (mut best, mut moved_at, mut told_at) = (i64::MAX, began, began);
    let mut first: Option<i64> = None;
    loop {
        let left = match left(it).await {
            Ok(left) => left,
            // One look that fails is no end while there is time for the next one.
            Err(error) if moved_at.elapsed() < it.options.wait => {
                tracing::debug!(error = %error.message, "how far the copy back is can't be seen");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        first.get_or_insert(left.offsets);
        if left.offsets < best {
            (best, moved_at) = (left.offsets, Instant::now());
        }
        let copied = first.unwrap_or(0) - left.offsets;
        let rate = copied.max(0) as f64 / began.elapsed().as_secs_f64().max(0.1);
        let is_near = left.offsets <= NEAR.max((rate * NEAR_FOR.as_secs_f64()) as i64);
        let is_copied = it.runner.is_some() || is_copied_by_others(it).await.unwrap_or(false);
        if is_near && left.missing.is_empty() && is_copied {
            return Ok(format!("{} offset(s) are left", left.offsets));
        }
        if it.runner.is_none() && !is_copied && began.elapsed() >= BEGINS_WITHIN {
            (it.tell)("nobody copies back: this command does");
            it.runner = Some(Runner::start(&it.scene));
            moved_at = Instant::now();
        }
        if moved_at.elapsed() >= it.options.wait {
            return Err(stuck(&left, moved_at.elapsed()));
        }
        if told_at.elapsed() >= TOLD_EVERY {
            told_at = Instant::now();
            (it.tell)(&progress(left.offsets, first.unwrap_or(0), began.elapsed()));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn left(it: &mut Cutover) -> Result<Left, CutoverError> {
    it.look_again().await?;
    let scene = &it.scene;
    let pairs = scene.pairs();
    let (source, target) = (on_source(&pairs), on_target(&pairs));
    let (on_source, on_target) = tokio::try_join!(
        ends(&scene.source, &source, OffsetSpec::Latest),
        ends(&scene.target, &target, OffsetSpec::Latest),
    )?;
    let maps = scene.maps(&pairs)?;
    let offsets = pairs.iter().map(|pair| {
        let end = on_target.get(&pair.target).copied().unwrap_or(0);
        let wanted = on_source.get(&pair.source).copied().unwrap_or(0);
        (wanted - copied_end(pair, end, &maps)).max(0)
    });
    let offsets = offsets.sum();
    let selected = flow::selected_topics(&scene.flow, &scene.source.cached());
    let missing = selected.into_iter().filter(|(name, partitions)| {
        let known = scene.topics.iter().find(|topic| topic.name == *name);
        known.is_none_or(|topic| topic.record.origins.len() < *partitions)
    });
    Ok(Left {
        offsets,
        missing: missing.map(|(name, _)| name).collect(),
    })
}

fn stuck(left: &Left, idle: Duration) -> CutoverError {
    let mut message = format!(
        "{} offset(s) aren't copied back and nothing has moved for {} s",
        left.offsets,
        idle.as_secs()
    );
    if !left.missing.is_empty() {
        let named: Vec<&str> = left.missing.iter().take(5).map(String::as_str).collect();
        message.push_str(&format!("; without a copy: {}", named.join(", ")));
    }
    CutoverError::failed(message).with_hint(
        "see `twinlog status` for partitions that are stopped, and run this again; nothing was \
         taken away from clients yet",
    )
}
