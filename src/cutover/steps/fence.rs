//! Keeps writers from the copied topics on the source.

use std::collections::HashSet;

use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::options::FenceMode;
use crate::flow::{deny, fenced};
use crate::state::{FenceRecord, keys};

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    if it.options.fence == FenceMode::Manual {
        (it.tell)(
            "stop every producer of the copied topics on the source now; the command goes on when \
             nothing is written any more",
        );
        return Ok("by the operator".to_owned());
    }
    let scene = &it.scene;
    let names = scene.names();
    let (cluster, flow, plan) = (&scene.source, &scene.flow.name, it.journal.record.plan);
    let made = fenced::everybody(cluster, &scene.store, flow, plan, &names).await?;
    let denied = made.iter().filter(|acl| acl.deny).count();
    Ok(format!(
        "WRITE is denied on {} topic(s), {denied} of them new",
        names.len()
    ))
}

/// Removes what this flow's plans made, on the topics of this one.
pub(super) async fn undo(it: &mut Cutover) -> Result<String, CutoverError> {
    let scene = &it.scene;
    let key = keys::fence(&scene.flow.name);
    let Some(mut record) = scene.store.get::<FenceRecord>(&key)? else {
        return Ok("there was none".to_owned());
    };
    let topics: HashSet<String> = scene.names().into_iter().collect();
    let (ours, others): (Vec<_>, Vec<_>) = std::mem::take(&mut record.acls)
        .into_iter()
        .partition(|acl| topics.contains(&acl.topic));
    deny::delete(&scene.source, &ours).await?;
    if others.is_empty() {
        scene.store.remove(&key).await?;
    } else {
        record.acls = others;
        scene.store.put(&key, &record).await?;
    }
    Ok(format!("{} ACL(s) removed", ours.len()))
}

/// Removes all that this flow's plans made on its source.
///
/// # Errors
/// When not all of it was removed.
pub(super) async fn lift(scene: &Scene) -> Result<String, CutoverError> {
    scene.store.refresh().await?;
    let key = keys::fence(&scene.flow.name);
    let Some(record) = scene.store.get::<FenceRecord>(&key)? else {
        return Ok("there was no fence".to_owned());
    };
    deny::delete(&scene.source, &record.acls).await?;
    scene.store.remove(&key).await?;
    Ok(format!("{} ACL(s) removed", record.acls.len()))
}
