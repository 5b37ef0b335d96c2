//! Topics that are gone from the source: remembered, shown, and where `on_delete: delete` says so
//! their copies are deleted after a grace period.
//!
//! Nothing is deleted that this flow didn't make, or that is another topic by now; nor when the
//! source is another cluster, or was built anew (one that came back empty deletes nothing), or has the topic
//! again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::time::Instant;

use super::error::Trouble;
use super::shared::Flow;
use super::topics::{DELETED_LOOKS, as_most_say, await_gone, delete_copy, forget, is_gone};
use crate::config::OnDelete;
use crate::state::{GoneRecord, SourceIs, StateError, StateStore, TopicRecord, keys};
use crate::telemetry::metadata::{Drift, DriftAction, DriftFailure, DriftKind};
use crate::telemetry::progress::now_ms;
use crate::wire::{self, Metadata, WireError};

/// How long a deletion that failed rests.
const REST: Duration = Duration::from_secs(30);
/// So old may the source's word be that a topic is gone when its copy is deleted: this process may have been frozen since.
const WORD_MAX: Duration = Duration::from_secs(10);
/// So often the source is asked for one that isn't older.
const ASKED_MAX: u32 = 3;

/// Deletions that failed, by source topic.
#[derive(Debug, Default)]
pub struct Undeleted {
    failures: Mutex<HashMap<String, (Instant, DriftFailure)>>,
    /// Topics that are gone, and of which a look that began before may still write where they ended.
    ended: Mutex<BTreeSet<String>>,
}

impl Undeleted {
    fn failures(&self) -> MutexGuard<'_, HashMap<String, (Instant, DriftFailure)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rests(&self, topic: &str) -> bool {
        let failures = self.failures();
        failures
            .get(topic)
            .is_some_and(|(at, _)| at.elapsed() < REST)
    }

    fn note(&self, topic: &str, why: &NotDeleted) {
        let mut failures = self.failures();
        let known = failures.get(topic).map(|(_, failure)| failure.since_ms);
        let failure = DriftFailure {
            reason: why.reason.to_owned(),
            message: why.message.clone(),
            hint: why.hint.clone(),
            since_ms: known.unwrap_or_else(now_ms),
        };
        failures.insert(topic.to_owned(), (Instant::now(), failure));
    }
}

/// Why a copy wasn't deleted.
struct NotDeleted {
    reason: &'static str,
    message: String,
    hint: Option<String>,
}

impl NotDeleted {
    fn new(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            hint: None,
        }
    }
}

impl From<Trouble> for NotDeleted {
    fn from(trouble: Trouble) -> Self {
        Self {
            reason: trouble.reason(),
            message: trouble.to_string(),
            hint: Some(trouble.hint().to_owned()),
        }
    }
}

impl From<WireError> for NotDeleted {
    fn from(error: WireError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

impl From<StateError> for NotDeleted {
    fn from(error: StateError) -> Self {
        Self::new("state", error.to_string())
    }
}

/// Remembers since when a copied topic is gone from the source. A restart doesn't begin anew. Where it ended says nothing
/// any more of what a failover would lose.
///
/// # Errors
/// When the state topic can't be written.
pub(super) async fn note(flow: &Flow, name: &str) -> Result<(), StateError> {
    let key = keys::gone(&flow.config.name, name);
    let is_copied = flow.store.bytes(&flow.topic_key(name)).is_some();
    if is_copied && flow.store.bytes(&key).is_none() {
        let since_ms = now_ms();
        flow.store.put(&key, &GoneRecord { v: 1, since_ms }).await?;
    }
    flow.undeleted.ended().insert(name.to_owned());
    forget_ends(flow, name).await
}

async fn forget_ends(flow: &Flow, name: &str) -> Result<(), StateError> {
    let ends = keys::ends(&flow.config.name, name);
    match flow.store.bytes(&ends) {
        Some(_) => flow.store.remove(&ends).await,
        None => Ok(()),
    }
}

/// Forgets where gone topics ended, once nobody looks at them any more: a look that was under way when they were noted may
/// have written it again. Mostly there is none. What can't be removed now is removed by the next.
pub(super) async fn forget_what_came_late(flow: &Flow) {
    let ended: Vec<String> = flow.undeleted.ended().iter().cloned().collect();
    for name in ended {
        if is_looked_at(flow, &name) {
            continue;
        }
        match forget_ends(flow, &name).await {
            Ok(()) => {
                flow.undeleted.ended().remove(&name);
            }
            Err(error) => {
                tracing::debug!(topic = name, %error, "where a gone topic ended can't be forgotten");
            }
        }
    }
}

fn is_looked_at(flow: &Flow, name: &str) -> bool {
    let mut partitions = flow.progress.partitions.iter();
    partitions.any(|it| *it.key().0 == *name)
}

/// What will become of a gone topic's copy, for the log.
pub(super) fn fate(flow: &Flow, name: &str) -> String {
    let record: Option<TopicRecord> = flow.store.get(&flow.topic_key(name)).ok().flatten();
    match flow.config.metadata.on_delete {
        OnDelete::Delete { grace } if record.is_some_and(|record| record.created) => {
            format!("is deleted in {}", in_words(grace))
        }
        _ => "is kept".to_owned(),
    }
}

/// Takes note of topics that are back, and deletes the copies of those that were gone for long
/// enough. `source` is the list of all topics.
///
/// # Errors
/// When a topic that is back can't be noted.
pub(super) async fn look(flow: &Flow, source: &Metadata) -> Result<(), StateError> {
    let prefix = keys::all_gone(&flow.config.name);
    for key in flow.store.keys(&prefix) {
        let name = key.strip_prefix(&prefix).unwrap_or_default();
        if source.topics.get(name).is_some_and(|it| it.error.is_none()) {
            tracing::info!(flow = %flow.config.name, topic = name, "the source has the topic again");
            flow.store.remove(&key).await?;
            flow.undeleted.failures().remove(name);
            continue;
        }
        let gone: Option<GoneRecord> = flow.store.get(&key)?;
        let OnDelete::Delete { grace } = flow.config.metadata.on_delete else {
            continue;
        };
        let is_due = gone.is_some_and(|gone| left(&gone, grace, now_ms()).is_zero());
        if !is_due || !flow.config.topics.matches(name) || flow.undeleted.rests(name) {
            continue;
        }
        if let Err(why) = delete(flow, name, &key).await {
            let (reason, hint) = (why.reason, &why.hint);
            flow.progress.count_error(reason);
            tracing::warn!(flow = %flow.config.name, topic = name, reason, hint, "the copy of a gone topic wasn't deleted: {}", why.message);
            flow.undeleted.note(name, &why);
        }
    }
    Ok(())
}

/// Deletes the copy of a topic whose time is over, if everything is still as it was.
async fn delete(flow: &Flow, name: &str, gone_key: &str) -> Result<(), NotDeleted> {
    let record: Option<TopicRecord> = flow.store.get(&flow.topic_key(name))?;
    let Some(record) = record else {
        // Nothing is known to be its copy.
        return Ok(flow.store.remove(gone_key).await?);
    };
    if !record.created {
        return Ok(());
    }
    still_gone(flow, name).await?;
    let copy = &record.target_topic;
    // What is on its way may take a while.
    flow.close_topic(name).await;
    let asked = [copy.clone()];
    let target = flow.target.metadata(Some(&asked)).await?;
    let cluster = format!("target ({})", flow.target.name());
    if !is_gone(&target, &cluster, copy)? {
        let there = as_most_say(&flow.target, "target", copy).await?;
        if !wire::is_same_topic(record.target_topic_id, there.topic_id) {
            let message = format!("{copy} on the target isn't the topic that was made as the copy");
            return Err(NotDeleted::new("target_recreated", message));
        }
        gone_just_now(flow, name).await?;
        match delete_copy(flow, name, &record).await {
            Err(Trouble::Wire(error))
                if error.server_code() == Some(ResponseError::TopicAuthorizationFailed) =>
            {
                let hint = format!(
                    "ALLOW DELETE on topic {copy} (or on all topics) for Twinlog's principal on the target ({})",
                    flow.target.name()
                );
                return Err(NotDeleted {
                    reason: "not_authorized",
                    message: error.to_string(),
                    hint: Some(hint),
                });
            }
            other => other?,
        }
        await_gone(flow, copy, DELETED_LOOKS).await?;
    }
    forget(flow, name, &record).await?;
    flow.store.remove(gone_key).await?;
    flow.drop_topic(name, copy);
    flow.undeleted.failures().remove(name);
    tracing::info!(flow = %flow.config.name, topic = name, copy, "the copy of a topic that is gone from the source is deleted");
    Ok(())
}

/// The source says once more that the topic is gone, so short ago that the copy may be deleted for it.
async fn gone_just_now(flow: &Flow, name: &str) -> Result<(), NotDeleted> {
    for _ in 0..ASKED_MAX {
        let asked_at = Instant::now();
        still_gone(flow, name).await?;
        if asked_at.elapsed() < WORD_MAX {
            return Ok(());
        }
    }
    let message = format!(
        "the source takes longer than {} s to say that the topic is gone: it may be back by then",
        WORD_MAX.as_secs()
    );
    Err(NotDeleted::new("slow_source", message))
}

/// Asks for the topic by its name: the same cluster must say that it isn't there.
async fn still_gone(flow: &Flow, name: &str) -> Result<(), NotDeleted> {
    let asked = [name.to_owned()];
    let source = flow.source.metadata(Some(&asked)).await?;
    let cluster = format!("source ({})", flow.source.name());
    if !is_gone(&source, &cluster, name)? {
        let message = "the source has the topic again".to_owned();
        return Err(NotDeleted::new("back", message));
    }
    let message = match SourceIs::ask(&flow.store, &flow.config.name, &flow.source).await?? {
        SourceIs::Known => return Ok(()),
        SourceIs::BuiltAnew { why } => format!("{why}: nothing is deleted"),
        SourceIs::Other { known, found } => {
            format!(
                "the source is another cluster now (id {found} instead of {known}): nothing is deleted"
            )
        }
        SourceIs::Untold { .. } => {
            "the source tells no cluster id, or told none when the flow began, so it may be \
             another cluster: nothing is deleted"
                .to_owned()
        }
    };
    Err(NotDeleted::new("other_source", message))
}

impl Flow {
    /// The copied topics that are gone from the source, with what becomes of their copies.
    pub fn gone_topics(&self) -> Vec<Drift> {
        let on_delete = self.config.metadata.on_delete;
        let mut gone = gone_topics(&self.store, &self.config.name, on_delete, now_ms());
        let failures = self.undeleted.failures();
        for (topic, drift) in &mut gone {
            drift.failure = failures.get(topic).map(|(_, failure)| failure.clone());
        }
        gone.into_iter().map(|(_, drift)| drift).collect()
    }
}

/// The copied topics that are gone from the source, by their names there, with what becomes of
/// their copies, as far as the state on the target tells.
pub fn gone_topics(
    store: &StateStore,
    flow: &str,
    on_delete: OnDelete,
    now_ms: i64,
) -> Vec<(String, Drift)> {
    let prefix = keys::all_gone(flow);
    let gone = store.keys(&prefix).into_iter().filter_map(|key| {
        let gone: GoneRecord = store.get(&key).ok().flatten()?;
        let name = key.strip_prefix(&prefix)?;
        let record: TopicRecord = store.get(&keys::topic(flow, name)).ok().flatten()?;
        let age = in_words(age(&gone, now_ms));
        let (action, why) = match on_delete {
            OnDelete::Keep => (
                DriftAction::Leave,
                format!("gone on the source for {age}; kept (on_delete: keep)"),
            ),
            OnDelete::Delete { .. } if !record.created => (
                DriftAction::Leave,
                format!("gone on the source for {age}; kept, since this flow didn't make it"),
            ),
            OnDelete::Delete { grace } => {
                let left = in_words(left(&gone, grace, now_ms));
                (DriftAction::Remove, format!("deleted in {left}"))
            }
        };
        let drift = Drift {
            kind: DriftKind::Topic,
            action,
            subject: format!("topic {}", record.target_topic),
            detail: String::new(),
            source: None,
            target: None,
            why: Some(why),
            failure: None,
        };
        Some((name.to_owned(), drift))
    });
    gone.collect()
}

fn age(gone: &GoneRecord, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now_ms - gone.since_ms).unwrap_or(0))
}

/// What is left of the grace period. A clock that was set back prolongs it.
fn left(gone: &GoneRecord, grace: Duration, now_ms: i64) -> Duration {
    grace.saturating_sub(age(gone, now_ms))
}

/// In the two largest units.
fn in_words(duration: Duration) -> String {
    let total = duration.as_secs();
    let (days, hours) = (total / 86_400, total % 86_400 / 3_600);
    let (minutes, seconds) = (total % 3_600 / 60, total % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_period_runs_from_the_first_miss() {
        let gone = GoneRecord {
            v: 1,
            since_ms: 1_000_000,
        };
        let grace = Duration::from_secs(4 * 3_600);
        let at = |seconds: i64| left(&gone, grace, 1_000_000 + seconds * 1_000);
        assert_eq!(in_words(at(48 * 60)), "3 h 12 min");
        assert!(!at(4 * 3_600 - 1).is_zero());
        assert!(at(4 * 3_600).is_zero());
        // A clock that was set back deletes nothing early.
        assert_eq!(at(-5), grace);
    }

    #[test]
    fn times_are_told_in_two_units() {
        let told = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(told(0), "0 s");
        assert_eq!(told(61), "1 min 1 s");
        assert_eq!(told(86_400 * 3 + 7_200), "3 d 2 h");
    }
}
