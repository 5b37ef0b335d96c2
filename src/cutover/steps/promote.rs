//! Makes the target the primary, and says so on both clusters.

use std::collections::HashSet;
use std::time::Duration;

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
    let role = if now.primary == Primary::Target && now.plan == it.journal.record.plan {
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
    it.still_ours().await?;
    // Whoever would make one has stopped.
    if protect::is_left(&scene.store, flow) {
        protect::lift(target, &scene.store, flow, |topic| names.contains(topic)).await?;
    }
    if it.ended.is_none() && !is_rehearsal {
        // Behind what was lifted: that isn't what people take away later.
        reign::remember(scene).await?;
    }
    scene.store.put(&key, &role).await?;
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
