//! Waits until the copy has reached the source's ends. Where nobody copies, this process does.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::{fence, prove};
use crate::cutover::context::{Cutover, Runner};
use crate::cutover::error::CutoverError;
use crate::cutover::pairs::{Offsets, Pair, copied_end, ends_if_served, on_target};
use crate::flow::claim;
use crate::wire::{OffsetSpec, TopicPartition};

const AGAIN: Duration = Duration::from_millis(50);
/// After this long without progress nobody seems to copy, whatever the claim says.
const STANDS_STILL: Duration = Duration::from_secs(3);
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// How the copy goes on.
struct Watched {
    best: i64,
    moved_at: Instant,
    told_at: Instant,
}

impl Watched {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            best: i64::MAX,
            moved_at: now,
            told_at: now,
        }
    }

    fn note(&mut self, left: i64) {
        if left < self.best {
            self.best = left;
            self.moved_at = Instant::now();
        }
    }

    /// Sees that somebody copies; how long nothing has moved.
    async fn see_that_it_goes_on(&mut self, it: &mut Cutover) -> Result<Duration, CutoverError> {
        let idle = self.moved_at.elapsed();
        // Whoever can't be seen may be there: what stands still tells.
        let is_copied = is_copied_by_others(it).await.unwrap_or(true);
        if it.runner.is_none() && (idle >= STANDS_STILL || !is_copied) {
            (it.tell)("nobody copies this flow: this command does");
            it.runner = Some(Runner::start(&it.scene));
            self.moved_at = Instant::now();
        }
        Ok(idle)
    }
}

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let mut late = BTreeSet::new();
    // Mostly all is copied by now: then what came meanwhile is looked for with the first look.
    let (at_end, topics) = tokio::join!(is_drained(it), it.topics_now());
    let mut copied = 0;
    let mut is_looked_for = false;
    match (at_end, topics) {
        (Ok(true), Ok(topics)) => {
            it.scene.topics = topics;
            is_looked_for = true;
        }
        _ => copied = drain(it).await?,
    }
    loop {
        if !std::mem::take(&mut is_looked_for) {
            it.look_again().await?;
        }
        let found = not_proven(it)?;
        if found.is_empty() {
            break;
        }
        (it.tell)(&format!("came while this went on: {}", in_words(&found)));
        late.extend(found);
        fence::apply(it).await?;
        await_copies(it).await?;
        prove::apply(it).await?;
        copied += drain(it).await?;
    }
    let mut text = match copied {
        0 => "nothing was left to copy".to_owned(),
        copied => format!("the last {copied} offset(s) were copied"),
    };
    if !late.is_empty() {
        it.journal.note("came_late", &late);
        text.push_str(&format!(
            "; {} topic(s) that came meanwhile are among them",
            late.len()
        ));
    }
    Ok(text)
}

/// Topics of the source that came or grew since it was proven that nothing is written there.
fn not_proven(it: &Cutover) -> Result<BTreeSet<String>, CutoverError> {
    let proven = it.proven_ends()?;
    let mut found: BTreeSet<String> = it.without_copy().into_iter().collect();
    let pairs = it.scene.pairs().into_iter();
    let unproven = pairs.filter(|pair| !proven.contains_key(&pair.source));
    found.extend(unproven.map(|pair| pair.source.topic));
    Ok(found)
}

fn in_words(topics: &BTreeSet<String>) -> String {
    let first = topics.first().map_or("", String::as_str);
    match topics.len() {
        0 | 1 => first.to_owned(),
        many => format!("{many} topics such as {first}"),
    }
}

/// Waits until everything on the source is copied by somebody.
async fn await_copies(it: &mut Cutover) -> Result<(), CutoverError> {
    let mut watched = Watched::new();
    // One look that fails is no end while there is time for the next one.
    let mut unseen: Option<CutoverError> = None;
    loop {
        let missing = it.without_copy();
        let Some(first) = missing.first() else {
            return Ok(());
        };
        watched.note(i64::try_from(missing.len()).unwrap_or(i64::MAX));
        if watched.see_that_it_goes_on(it).await? >= it.options.wait {
            if let Some(error) = unseen {
                return Err(error);
            }
            return Err(CutoverError::refused(format!(
                "{} topic(s) of {} were made or grew while this went on and aren't copied, such as {first}",
                missing.len(),
                it.scene.source.name()
            ))
            .with_hint(
                "see `twinlog status` and `twinlog plan` for what keeps them from being copied, and run this again; \
                 `--abort` undoes the fence",
            ));
        }
        tokio::time::sleep(AGAIN).await;
        unseen = it.look_again().await.err();
    }
}

/// Whether all that is proven is copied already.
async fn is_drained(it: &Cutover) -> Result<bool, CutoverError> {
    let pairs = it.scene.pairs();
    let on_target = on_target_now(it, &pairs).await?;
    let (left, _) = left(it, &pairs, &it.proven_ends()?, &on_target)?;
    Ok(left == 0)
}

/// Waits until all that is proven is copied; how much that was.
async fn drain(it: &mut Cutover) -> Result<i64, CutoverError> {
    // Who has come to the end stays there: a look at thousands of partitions is a large question.
    let mut open = it.scene.pairs();
    let wanted = it.proven_ends()?;
    let began = Instant::now();
    let mut watched = Watched::new();
    let mut first: Option<i64> = None;
    loop {
        // One look that fails is no end while there is time for the next one.
        let (left, unseen) = match on_target_now(it, &open).await {
            Ok(on_target) => {
                let (left, still_open) = left(it, &open, &wanted, &on_target)?;
                open = still_open;
                (left, None)
            }
            Err(error) => (watched.best, Some(error)),
        };
        if left == 0 {
            return Ok(first.unwrap_or(0));
        }
        if unseen.is_none() {
            first.get_or_insert(left);
        }
        watched.note(left);
        let idle = watched.see_that_it_goes_on(it).await?;
        if idle >= it.options.wait {
            if let Some(error) = unseen {
                return Err(error);
            }
            return Err(CutoverError::failed(format!(
                "{left} offset(s) aren't copied and nothing has moved for {} s",
                idle.as_secs()
            ))
            .with_hint(
                "see `twinlog status` for partitions that are stopped, and run this again; \
                 `--abort` undoes the fence",
            ));
        }
        if watched.told_at.elapsed() >= TOLD_EVERY {
            watched.told_at = Instant::now();
            if let Some(first) = first {
                (it.tell)(&progress(left, first, began.elapsed()));
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Where the copies end; `None` for those that no broker serves at this moment.
type Ends = HashMap<TopicPartition, Option<i64>>;

async fn on_target_now(it: &Cutover, pairs: &[Pair]) -> Result<Ends, CutoverError> {
    let scene = &it.scene;
    let ends = ends_if_served(&scene.target, &on_target(pairs), OffsetSpec::Latest).await?;
    if pairs.iter().any(|pair| pair.mapped) {
        scene.store.refresh().await?;
    }
    Ok(ends)
}

/// Source offsets that aren't on the target, and the partitions that lack some.
fn left(
    it: &Cutover,
    pairs: &[Pair],
    wanted: &Offsets,
    on_target: &Ends,
) -> Result<(i64, Vec<Pair>), CutoverError> {
    let maps = it.scene.maps(pairs)?;
    let (mut left, mut open) = (0, Vec::new());
    for pair in pairs {
        let Some(wanted) = wanted.get(&pair.source).copied() else {
            // It came after the proof: that is looked at next.
            continue;
        };
        let Some(end) = on_target.get(&pair.target).copied().flatten() else {
            // It was only just made, or is about to have another leader.
            left += wanted.max(1);
            open.push(pair.clone());
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
        if copied < wanted {
            left += wanted - copied;
            open.push(pair.clone());
        }
    }
    Ok((left, open))
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
