//! Waits until the copy back has nearly caught up with its source, which goes on meanwhile: what is
//! left then is soon copied when writers are kept away.

use std::time::Duration;

use tokio::time::Instant;

use super::drain::{is_copied_by_others, progress};
use crate::cutover::context::{Cutover, Runner};
use crate::cutover::error::CutoverError;
use crate::cutover::pairs::{Offsets, copied_end, ends, on_source, on_target};
use crate::flow;
use crate::wire::{OffsetSpec, Rate};

const AGAIN: Duration = Duration::from_millis(200);
/// The same at first: mostly whoever copies has begun in a moment, and little is left.
const SOON: Duration = Duration::from_millis(50);
const SOON_FOR: Duration = Duration::from_secs(3);
/// A look at thousands of partitions asks both clusters for megabytes: the more, the seldomer.
const PACE: Rate = Rate {
    bytes_per_second: 1_000_000,
    most: Duration::from_secs(5),
};
/// Whoever runs the flow begins within this; longer and nobody seems to.
const BEGINS_WITHIN: Duration = Duration::from_secs(5);
/// Whoever copies back needs so long until the first record, and so many times a look of ours: it asks both clusters for
/// one thing after the other.
const FIRST_WITHIN: Duration = Duration::from_millis(600);
const FIRST_LOOKS: u32 = 20;
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
    /// Where the copies end.
    on_target: Offsets,
}

/// Whether anything has been copied since this began to look. What is near is soon copied by whoever copies; who has to
/// read the logs first, over a long line, would do that while writers are kept away.
#[derive(Debug, Default)]
struct Moves {
    first: Offsets,
    is_seen: bool,
}

impl Moves {
    fn note(&mut self, on_target: &Offsets) {
        for (at, end) in on_target {
            let first = self.first.entry(at.clone()).or_insert(*end);
            self.is_seen |= end > first;
        }
    }
}

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let began = Instant::now();
    let (mut best, mut moved_at, mut told_at) = (i64::MAX, began, began);
    let mut first: Option<i64> = None;
    let mut moves = Moves::default();
    loop {
        let asked_at = Instant::now();
        let left = match left(it).await {
            Ok(left) => left,
            // One look that fails is no end while there is time for the next one.
            Err(error) if moved_at.elapsed() < it.options.wait => {
                tracing::debug!(error = %error.message, "how far the copy back is can't be seen");
                tokio::time::sleep(pause(it, began)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let look = asked_at.elapsed();
        first.get_or_insert(left.offsets);
        moves.note(&left.on_target);
        if left.offsets < best {
            (best, moved_at) = (left.offsets, Instant::now());
        }
        let copied = first.unwrap_or(0) - left.offsets;
        let rate = copied.max(0) as f64 / began.elapsed().as_secs_f64().max(0.1);
        let is_near = left.offsets <= NEAR.max((rate * NEAR_FOR.as_secs_f64()) as i64);
        let is_copied = it.runner.is_some() || is_copied_by_others(it).await.unwrap_or(false);
        let is_under_way = moves.is_seen
            || left.offsets == 0
            || first_within(look) <= it.options.quiet_for()
            // What is left may be what nobody can copy yet: the proof has the words for an open transaction.
            || began.elapsed() >= (first_within(look) * 2).min(it.options.wait / 2);
        if is_near && left.missing.is_empty() && is_copied && is_under_way {
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
        tokio::time::sleep(pause(it, began)).await;
    }
}

/// Within this whoever copies has begun. Where the proof takes longer nobody waits for it behind the fence.
fn first_within(look: Duration) -> Duration {
    FIRST_WITHIN + look * FIRST_LOOKS
}

fn pause(it: &Cutover, began: Instant) -> Duration {
    let scene = &it.scene;
    let bytes = scene.source.metadata_bytes() + scene.target.metadata_bytes();
    pause_for(began.elapsed(), bytes)
}

/// Until the next look, so long after the first one, where a look has so many bytes.
fn pause_for(elapsed: Duration, bytes: usize) -> Duration {
    let pause = if elapsed < SOON_FOR { SOON } else { AGAIN };
    pause.max(PACE.every(bytes))
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
        on_target,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TopicPartition;

    #[test]
    fn a_large_cluster_is_asked_seldom() {
        let second = Duration::from_secs(1);
        assert_eq!(pause_for(second, 10_000), SOON);
        assert_eq!(pause_for(second * 10, 10_000), AGAIN);
        // Both descriptions of 18,000 partitions.
        assert_eq!(pause_for(second, 1_600_000), second * 16 / 10);
        assert_eq!(pause_for(second, usize::MAX), PACE.most);
    }

    #[test]
    fn where_the_clusters_are_near_nobody_waits_for_the_first_record() {
        let (ms, proof) = (Duration::from_millis, Duration::from_secs(5));
        assert!(first_within(ms(5)) <= ms(1_000), "the shortest proof");
        assert!(first_within(ms(600)) > proof, "a line of 300 ms");
    }

    #[test]
    fn a_copy_is_under_way_once_one_of_its_ends_has_moved() {
        let ends = |one, other| {
            let at = |number, end| (TopicPartition::new("t", number), end);
            Offsets::from([at(0, one), at(1, other)])
        };
        let mut moves = Moves::default();
        for (one, other, is_seen) in [(5, 7, false), (5, 7, false), (5, 8, true), (5, 8, true)] {
            moves.note(&ends(one, other));
            assert_eq!(moves.is_seen, is_seen, "{one} {other}");
        }
        let mut late = Moves::default();
        late.note(&Offsets::new());
        late.note(&ends(5, 7));
        assert!(!late.is_seen, "what came since has no end before");
    }
}
