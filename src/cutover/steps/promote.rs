//! Makes the target the primary, and says so on both clusters.

use std::collections::HashSet;
use std::time::Duration;

use super::forks;
use crate::config::DRILL_PREFIX;
use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::cutover::pairs::{ends_or_why, on_source};
use crate::cutover::reign;
use crate::flow::{protect, restrain};
use crate::state::{Primary, RoleRecord, StateStore, TopicSet, keys};
use crate::telemetry::progress::now_ms;
use crate::wire::OffsetSpec;

/// How long the source may take to take note.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let scene = &it.scene;
    let key = keys::role(&scene.flow.name);
    let is_rehearsal = scene.flow.name.starts_with(DRILL_PREFIX);
    let now: RoleRecord = scene
        .store
        .get(&key)?
        .ok_or_else(|| CutoverError::failed(format!("{key} is missing")))?;
    if now.plan != it.journal.record.plan || now.primary == Primary::Source {
        return Err(CutoverError::failed(format!(
            "the role of flow {} isn't this plan's any more",
            scene.flow.name
        ))
        .with_hint("look at `twinlog status`, and begin again"));
    }
    let is_promoted = now.primary == Primary::Target;
    let role = if is_promoted {
        now
    } else {
        RoleRecord {
            primary: Primary::Target,
            epoch: now.epoch + 1,
            since_ms: now_ms(),
            // All that was kept fenced is let go below.
            is_kept_fenced: now.is_kept_fenced && now.topics != TopicSet::All,
            ..now
        }
    };
    // Before anybody hears of it: clients that write at once must be let in.
    let names: HashSet<&str> = scene
        .topics
        .iter()
        .map(|topic| topic.record.target_topic.as_str())
        .collect();
    let (target, flow) = (&scene.target, &scene.flow.name);
    // Who goes on behind the role finds what people have changed since, and not what was there. What is still protected
    // is lifted first: that isn't what people take away later.
    let remembers = it.ended.is_none() && !is_rehearsal && !is_promoted;
    let is_protected = protect::is_left(&scene.store, flow);
    let to_remember = async {
        match remembers && !is_protected {
            true => Some(reign::to_remember(scene).await).transpose(),
            false => Ok(None),
        }
    };
    // Once the role is written nobody looks any more. All of it is asked at once: clients wait.
    let late = async {
        match it.journal.record.kind.loses_nothing() && !is_promoted {
            true => look_for_late_topics(it).await.map(Some),
            false => Ok(None),
        }
    };
    let ((), late, mut remembered) = tokio::try_join!(it.still_ours(), late, to_remember)?;
    match late {
        Some(Some(why)) => it.journal.note(LATE_UNSEEN, &why),
        // An earlier try may have found nobody who says.
        Some(None) => it.journal.forget(LATE_UNSEEN),
        None => {}
    }
    // Whoever would make one has stopped.
    if is_protected {
        it.journal.save().await?;
        protect::lift(target, &scene.store, flow, |topic| names.contains(topic)).await?;
        if remembers {
            remembered = Some(reign::to_remember(scene).await?);
        }
    }
    let mut records = Vec::new();
    if let Some((remember, unseen)) = remembered {
        records = remember;
        for line in &unseen {
            (it.tell)(line);
        }
        match unseen.is_empty() {
            true => it.journal.forget(NOT_REMEMBERED),
            false => it.journal.note(NOT_REMEMBERED, &unseen),
        }
    }
    // The role behind all the rest: whoever sees it finds that, too.
    records.push(StateStore::record(key, &role)?);
    it.journal.write_with(records).await?;
    let scene = &it.scene;
    let mut text = format!("{} is the primary", scene.target.name());
    // A rehearsal leaves nothing in the source's own state.
    if it.journal.record.kind.loses_nothing() && !is_rehearsal {
        let (told, behind) = tokio::join!(tell_source(it, &role), written_behind(it));
        if !behind.is_empty() {
            text.push_str("; somebody wrote to the source behind the proof");
        }
        it.journal.note(WRITTEN_BEHIND, &behind);
        match told {
            Ok(()) => text.push_str(", and both clusters know it"),
            Err(problem) => {
                it.journal.note("source_untold", &problem);
                text.push_str("; the source could not be told");
            }
        }
    }
    Ok(text)
}

/// In the journal: what the failback won't carry over, for it can't be read now.
pub const NOT_REMEMBERED: &str = "not_remembered";

/// In the journal: why nobody could say whether topics came behind the forks.
pub const LATE_UNSEEN: &str = "late_unseen";

/// The last moment at which a topic that came behind the forks is no loss. A source that has died since they were
/// recorded keeps nobody from the target: why it didn't say is told.
async fn look_for_late_topics(it: &Cutover) -> Result<Option<String>, CutoverError> {
    let source = &it.scene.source;
    // One that says something may need longer to describe thousands of topics. Clients wait: both are asked at once.
    let silent = async {
        let there = tokio::time::timeout(PATIENCE, source.metadata(Some(&[])));
        if there.await.is_ok() {
            let left = it.options.wait.saturating_sub(PATIENCE);
            tokio::time::sleep(left.max(source.describes_within(PATIENCE))).await;
        }
    };
    let described = tokio::select! {
        biased;
        described = source.metadata(None) => described.map_err(|error| error.to_string()),
        () = silent => Err("it doesn't describe its topics in time".to_owned()),
    };
    match described {
        Ok(_) => forks::refuse_late_topics(it).map(|()| None),
        Err(why) => Ok(Some(why)),
    }
}

/// In the journal: what [`written_behind`] found.
pub const WRITTEN_BEHIND: &str = "written_behind";

/// What the source has by now behind the ends that were proven: topic, partition, from, to. A producer that no
/// ACL binds, and who paused for the proof, is seen here or by `twinlog status` later.
async fn written_behind(it: &Cutover) -> Vec<(String, i32, i64, i64)> {
    let Ok(proven) = it.proven_ends() else {
        return Vec::new();
    };
    let asked = on_source(&it.scene.pairs());
    let (now, _) = ends_or_why(&it.scene.source, &asked, OffsetSpec::Latest).await;
    let grown = now.into_iter().filter_map(|(at, end)| {
        let proven = *proven.get(&at)?;
        (end > proven).then_some((at.topic, at.partition, proven, end))
    });
    let mut grown: Vec<_> = grown.collect();
    grown.sort();
    grown
}

async fn tell_source(it: &Cutover, role: &RoleRecord) -> Result<(), String> {
    let scene = &it.scene;
    let told = async {
        let store = StateStore::open(&scene.source, &scene.flow.name).await?;
        restrain::tell_all(&scene.store, &store, &scene.flow.name, role).await
    };
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The copy stays stopped; the step before lets it go on.
pub(super) async fn undo(it: &mut Cutover) -> Result<String, CutoverError> {
    let scene = &it.scene;
    let key = keys::role(&scene.flow.name);
    let Some(now) = scene.store.get::<RoleRecord>(&key)? else {
        return Ok(String::new());
    };
    if now.primary != Primary::Target || now.plan != it.journal.record.plan {
        return Ok(String::new());
    }
    let back = RoleRecord {
        primary: Primary::Promoting,
        epoch: now.epoch + 1,
        since_ms: now_ms(),
        ..now
    };
    scene.store.put(&key, &back).await?;
    let source = RoleRecord {
        primary: Primary::Source,
        topics: TopicSet::All,
        ..back
    };
    if let Err(problem) = tell_source(it, &source).await {
        (it.tell)(&format!("the source could not be told: {problem}"));
    }
    Ok(format!("{} is no longer the primary", scene.target.name()))
}
