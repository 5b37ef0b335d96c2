//! Proves that nothing is written to the source any more: two looks at all log ends that agree.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Step, fence, forks};
use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::cutover::hidden::hidden;
use crate::cutover::options::FenceMode;
use crate::cutover::pairs::{self, Offsets, ends, leaders, on_source, one_of_each_leader};
use crate::cutover::registered::{self, Registered};
use crate::wire::{self, OffsetSpec, ProducerState, TopicPartition};

/// How long each broker may take to say who leads.
const ASKED_WITHIN: Duration = Duration::from_secs(3);
/// Whether transactions are registered that have no record yet is asked again for so long, where a coordinator can't say.
/// Then the failover goes on, and says so: clients wait.
const REGISTERED_WITHIN: Duration = Duration::from_secs(10);
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
    let partitions = on_source(&it.scene.pairs());
    let apart = it.options.quiet_for();
    let deadline = Instant::now() + it.options.wait;
    let gives_up_at = deadline.min(Instant::now() + REGISTERED_WITHIN);
    let mut told = false;
    let mut before = first_look(it, &partitions).await?;
    loop {
        let pause = if before.open.is_empty() { apart } else { AGAIN };
        let registered = pause_and_ask(it, (&partitions, &before), pause).await;
        // Where nothing has moved, what lies behind the ends is asked for with them.
        let source = &it.scene.source;
        let behind = async {
            match before.open.is_empty() {
                true => hidden(source, &before.ends).await.ok(),
                false => None,
            }
        };
        let led = leaders(source, &partitions);
        let (now, behind) = tokio::join!(look(it, &partitions), behind);
        let now = now?;
        let stands = now.open.is_empty() && before.open.is_empty() && now.ends == before.ends;
        let hidden = match behind {
            _ if !stands => Vec::new(),
            Some(behind) if leaders(source, &partitions) == led => behind,
            // A broker that dies meanwhile ends nothing: who leads now is asked.
            _ => match hidden(source, &now.ends).await {
                Ok(hidden) => hidden,
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(error) => {
                    tracing::debug!(error = %error.message, "what lies behind the ends can't be seen");
                    // What can't be told is asked for in the next round.
                    let _ = source.metadata(Some(&pairs::topics_of(&partitions))).await;
                    before = now;
                    continue;
                }
            },
        };
        // Their markers come behind any proof.
        let are_told = registered.not_yet.is_none() || Instant::now() >= gives_up_at;
        if stands && hidden.is_empty() && registered.open.is_empty() && are_told {
            note_untold(it, &registered);
            let mut proven: Vec<(String, i32, i64)> = now
                .ends
                .into_iter()
                .map(|(at, end)| (at.topic, at.partition, end))
                .collect();
            proven.sort();
            refuse_what_came_behind(it, &proven)?;
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
        if Instant::now() >= deadline && stands && !hidden.is_empty() {
            return Err(lagging(it, &hidden));
        }
        if Instant::now() >= deadline && stands {
            return Err(still_open(it, &registered_in_words(&registered)));
        }
        if Instant::now() >= deadline {
            return Err(unproven(it, &moving, &now.open).await);
        }
        if !told && !moving.is_empty() {
            told = true;
            let named = first_of(&moving);
            (it.tell)(&format!("waiting: a moment ago somebody wrote to {named}"));
        } else if !told && !now.open.is_empty() {
            // Both ends are asked at once: of a log that grows they differ without any transaction.
            told = true;
            let text = transactions(it, &now.open).await;
            (it.tell)(&format!("waiting for open transactions: {text}"));
        } else if !told && !registered.open.is_empty() {
            told = true;
            let text = registered_in_words(&registered);
            (it.tell)(&format!("waiting for open transactions: {text}"));
        }
        before = now;
    }
}

/// Waits before the second look. Writers are kept away by now, so no transaction is told of another partition; which have been
/// is asked meanwhile.
async fn pause_and_ask(
    it: &Cutover,
    (partitions, before): (&[TopicPartition], &Look),
    pause: Duration,
) -> Registered {
    let source = &it.scene.source;
    let asked = async {
        if !before.open.is_empty() {
            return Registered::default();
        }
        let within = source.or_longer(ASKED_WITHIN);
        let answer = timeout(within, registered::look(source, partitions)).await;
        answer.unwrap_or_else(|_| {
            Registered::unknown(&format!("no answer within {} s", within.as_secs()))
        })
    };
    let (registered, ()) = tokio::join!(asked, tokio::time::sleep(pause));
    registered
}

/// In the journal: why transactions may be registered on the source that nobody has told of.
pub(in crate::cutover) const UNTOLD_TRANSACTIONS: &str = "untold_transactions";

fn note_untold(it: &mut Cutover, registered: &Registered) {
    if let Some(why) = registered.not_yet.as_ref().or(registered.untold.as_ref()) {
        (it.tell)(&format!(
            "the source doesn't tell all of its open transactions ({why}): see that its producers have ended theirs"
        ));
    }
    // Who never tells says nothing of this failover.
    match &registered.not_yet {
        None => it.journal.forget(UNTOLD_TRANSACTIONS),
        Some(why) => it.journal.note(UNTOLD_TRANSACTIONS, why),
    }
}

fn registered_in_words(registered: &Registered) -> String {
    let named = registered.open.iter().take(NAMED_MAX);
    let named = named.map(|(at, id)| format!("{at}: {id}, without a record there so far"));
    let mut named: Vec<String> = named.collect();
    if registered.open.len() > named.len() {
        named.push(format!("and {} more", registered.open.len() - named.len()));
    }
    named.join("; ")
}

fn still_open(it: &Cutover, transactions: &str) -> CutoverError {
    let seconds = it.options.wait.as_secs();
    CutoverError::failed(format!(
        "after {seconds} s transactions are still open on the source: {transactions}"
    ))
    .with_hint(UNPROVEN_HINT)
}

/// Once nobody copies any more, a proof that is taken again has to say the same: what came since the first one isn't on
/// the target, whatever clients have written there.
fn refuse_what_came_behind(it: &Cutover, now: &[(String, i32, i64)]) -> Result<(), CutoverError> {
    if !it.journal.may_have_done(Step::Stop) {
        return Ok(());
    }
    let proven = it.proven_ends()?;
    let (mut missing, mut named) = (0, Vec::new());
    for (topic, partition, end) in now {
        let at = TopicPartition::new(&**topic, *partition);
        // One that came later is the forks' business.
        if let Some(before) = proven.get(&at).filter(|before| *before != end) {
            missing += (end - before).max(0);
            named.push(at.to_string());
        }
    }
    match named.is_empty() {
        true => Ok(()),
        false => Err(forks::written_behind(missing, named)),
    }
}

/// Asks what this step asks, for the connections alone.
pub(super) async fn connect(it: &Cutover) {
    let source = &it.scene.source;
    let partitions = one_of_each_leader(source, on_source(&it.scene.pairs()));
    let looked = async {
        if let Ok(looked) = look(it, &partitions).await {
            let _ = hidden(source, &looked.ends).await;
        }
    };
    tokio::join!(
        source.ask_others(source.or_longer(ASKED_WITHIN)),
        looked,
        // A coordinator that hangs isn't waited for here.
        async {
            let asked = registered::look(source, &[]);
            let _ = timeout(source.or_longer(ASKED_WITHIN), asked).await;
        },
    );
}

/// The first look, while the others are asked who leads: a leader that is cut off from them has ends that stand still. What
/// it said is forgotten.
async fn first_look(it: &Cutover, partitions: &[TopicPartition]) -> Result<Look, CutoverError> {
    let source = &it.scene.source;
    let before = leaders(source, partitions);
    let (looked, ()) = tokio::join!(
        look(it, partitions),
        source.ask_others(source.or_longer(ASKED_WITHIN))
    );
    match leaders(source, partitions) == before {
        true => looked,
        false => look(it, partitions).await,
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
    // In any order: a transaction that begins in between has a record behind this end, and that the next look sees.
    // Behind the last look that is a record like any that is written behind a proof: writers are kept away, or stopped,
    // since before the look that came before it.
    let (stable, ends) = tokio::try_join!(
        ends(source, partitions, OffsetSpec::LatestStable),
        ends(source, partitions, OffsetSpec::Latest),
    )?;
    let mut open: Vec<TopicPartition> = ends
        .iter()
        .filter(|(at, end)| stable.get(*at) != Some(*end))
        .map(|(at, _)| at.clone())
        .collect();
    open.sort();
    Ok(Look { ends, open })
}

/// Some of them by name.
fn first_of(moving: &[&TopicPartition]) -> String {
    let named = moving.iter().take(NAMED_MAX);
    let named: Vec<String> = named.map(ToString::to_string).collect();
    named.join(", ")
}

async fn unproven(
    it: &Cutover,
    moving: &[&TopicPartition],
    open: &[TopicPartition],
) -> CutoverError {
    let seconds = it.options.wait.as_secs();
    if moving.is_empty() {
        return still_open(it, &transactions(it, open).await);
    }
    let message = format!(
        "after {seconds} s somebody still writes to {} partition(s) of the source, such as {}",
        moving.len(),
        first_of(moving)
    );
    CutoverError::failed(message).with_hint(UNPROVEN_HINT)
}

const UNPROVEN_HINT: &str = "stop those writers (super users aren't bound by ACLs; a hanging transaction is ended by \
     `kafka-transactions.sh abort`) and run this again, or undo the fence with `--abort`";

/// Who holds transactions open, and since which offset.
async fn transactions(it: &Cutover, partitions: &[TopicPartition]) -> String {
    let asked: Vec<TopicPartition> = partitions.iter().take(NAMED_MAX).cloned().collect();
    let is_open = |_: &TopicPartition, it: &ProducerState| it.current_txn_start_offset >= 0;
    let states = wire::describe_producers(&it.scene.source, &asked, is_open).await;
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
