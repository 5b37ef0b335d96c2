//! Waits until the copy has reached the source's ends. Where nobody copies, this process does.

use std::time::Duration;

use tokio::time::Instant;

use crate::cutover::context::{Cutover, Runner};
use crate::cutover::error::CutoverError;
use crate::cutover::pairs::{Offsets, Pair, copied_end, ends, on_target};
use crate::flow::claim;
use crate::wire::OffsetSpec;

const AGAIN: Duration = Duration::from_millis(50);
/// After this long without progress nobody seems to copy, whatever the claim says.
const STANDS_STILL: Duration = Duration::from_secs(3);
const TOLD_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let pairs = it.scene.pairs();
    let wanted = it.proven_ends()?;
    let began = Instant::now();
    let mut best = i64::MAX;
    let mut moved_at = began;
    let mut told_at = began;
    let mut first: Option<i64> = None;
    loop {
        let left = left(it, &pairs, &wanted).await?;
        if left == 0 {
            return Ok(match first.unwrap_or(0) {
                0 => "nothing was left to copy".to_owned(),
                copied => format!("the last {copied} offset(s) were copied"),
            });
        }
        first.get_or_insert(left);
        if left < best {
            best = left;
            moved_at = Instant::now();
        }
        let idle = moved_at.elapsed();
        if it.runner.is_none() && (idle >= STANDS_STILL || !is_copied_by_others(it).await?) {
            (it.tell)("nobody copies this flow: this command does");
            it.runner = Some(Runner::start(&it.scene));
            moved_at = Instant::now();
        }
        if idle >= it.options.wait {
            return Err(CutoverError::failed(format!(
                "{left} offset(s) aren't copied and nothing has moved for {} s",
                idle.as_secs()
            ))
            .with_hint(
                "see `twinlog status` for partitions that are stopped, and run this again; \
                 `--abort` undoes the fence",
            ));
        }
        if told_at.elapsed() >= TOLD_EVERY {
            told_at = Instant::now();
            (it.tell)(&progress(left, first.unwrap_or(left), began.elapsed()));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Source offsets that aren't on the target.
async fn left(it: &Cutover, pairs: &[Pair], wanted: &Offsets) -> Result<i64, CutoverError> {
    let scene = &it.scene;
    let on_target = ends(&scene.target, &on_target(pairs), OffsetSpec::Latest).await?;
    if pairs.iter().any(|pair| pair.mapped) {
        scene.store.refresh().await?;
    }
    let maps = scene.maps(pairs)?;
    let mut left = 0;
    for pair in pairs {
        let end = on_target.get(&pair.target).copied().unwrap_or(0);
        let Some(wanted) = wanted.get(&pair.source).copied() else {
            // It came after the proof; before the forks are recorded that is looked at.
            continue;
        };
        let copied = copied_end(pair, end, &maps);
        if copied > wanted && !pair.mapped {
            return Err(CutoverError::failed(format!(
                "{} has {copied} offsets on the target, more than the {wanted} of the source",
                pair.target
            ))
            .with_hint("somebody else wrote to the copy, or the source lost records"));
        }
        left += (wanted - copied).max(0);
    }
    Ok(left)
}

pub(super) async fn is_copied_by_others(it: &Cutover) -> Result<bool, CutoverError> {
    let scene = &it.scene;
    scene.store.refresh().await?;
    let claim = claim::current(&scene.store, &scene.flow.name)?;
    Ok(claim.is_some_and(|claim| claim::may_run(&claim, scene.machine())))
}

pub(super) fn progress(left: i64, first: i64, elapsed: Duration) -> String {
    let done = first - left;
    let mut text = format!("copying: {left} offset(s) left");
    if done > 0 {
        let seconds = elapsed.as_secs_f64() * left as f64 / done as f64;
        text.push_str(&format!(", about {seconds:.0} s"));
    }
    text
}
