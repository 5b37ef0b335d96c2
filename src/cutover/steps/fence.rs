//! Keeps writers from the copied topics on the source.

use super::everywhere;
use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::options::FenceMode;
use crate::flow::fenced;
use crate::state::{CutoverKind, RoleRecord};

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    if it.options.fence == FenceMode::Manual {
        (it.tell)(
            "stop every producer of the copied topics on the source now; the command goes on when \
             nothing is written any more",
        );
        return Ok("by the operator".to_owned());
    }
    let scene = &it.scene;
    // What isn't copied yet is waited for later.
    let mut names = scene.names();
    for topic in it.without_copy() {
        if !names.contains(&topic) {
            names.push(topic);
        }
    }
    let (cluster, flow, plan) = (&scene.source, &scene.flow.name, it.journal.record.plan);
    // What is made is noted first, and the broker takes that note from nobody who has lost the lease.
    let made = fenced::everybody(cluster, &scene.store, flow, plan, &names).await?;
    let names_of = names.iter().cloned();
    it.fenced.extend(names_of);
    everywhere::await_fence(it, &names).await?;
    let denied = made.iter().filter(|acl| acl.deny).count();
    Ok(format!(
        "WRITE is denied on {} topic(s), {denied} of them new",
        names.len()
    ))
}

/// Removes what this flow's plans made, on the topics of this one.
pub(super) async fn undo(it: &mut Cutover) -> Result<String, CutoverError> {
    let scene = &it.scene;
    let record = &it.journal.record;
    // By the plan, not by what a cluster lists now: a topic that is hidden, or that was fenced before it had a copy, would
    // be left fenced. What an earlier plan has failed over stays fenced.
    let before = record.role_before.as_ref();
    let elsewhere = before
        .filter(|_| record.kind != CutoverKind::Failback)
        .and_then(RoleRecord::not_copied);
    let is_this_plan_s = |topic: &str| {
        record.topics.contains(topic) && !elsewhere.is_some_and(|it| it.contains(topic))
    };
    let (cluster, store, flow) = (&scene.source, &scene.store, &scene.flow.name);
    let removed = fenced::lift(cluster, store, flow, is_this_plan_s).await?;
    Ok(removed.map_or_else(|| "there was none".to_owned(), in_words))
}

/// Removes all that this flow's plans made on its source.
///
/// # Errors
/// When not all of it was removed.
pub(super) async fn lift(scene: &Scene) -> Result<String, CutoverError> {
    let (cluster, store, flow) = (&scene.source, &scene.store, &scene.flow.name);
    let removed = fenced::lift(cluster, store, flow, |_| true).await?;
    Ok(removed.map_or_else(|| "there was no fence".to_owned(), in_words))
}

fn in_words(removed: usize) -> String {
    format!("{removed} ACL(s) removed")
}
