//! Lifts the fence around the old primary with nothing but that cluster.

use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::cutover::give_up;
use crate::flow::deny::{self, DenyError};
use crate::flow::fenced::{self, FenceError};

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let Some(about) = give_up::about(&it.journal.record) else {
        return Err(CutoverError::failed("this plan gives nothing up"));
    };
    let scene = &it.scene;
    it.still_ours().await?;
    let fence = match give_up::fence(scene, &about).await {
        Ok(fence) => fence,
        Err(DenyError::NoAuthorizer) => return Ok("there is none".to_owned()),
        Err(error) => return Err(give_up::not_lifted(error)),
    };
    let refused = |error: FenceError| match error {
        FenceError::Deny(error) => give_up::not_lifted(error),
        FenceError::State(error) => error.into(),
    };
    deny::delete(&scene.target, &fence.acls)
        .await
        .map_err(give_up::not_lifted)?;
    // What was remembered is forgotten with it.
    fenced::lift(&scene.target, &scene.store, &about.flow, |_| true)
        .await
        .map_err(refused)?;
    Ok(format!("{} ACL(s) removed", fence.acls.len()))
}
