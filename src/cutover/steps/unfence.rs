//! Lifts the fence around the old primary, right before it is the primary again.

use std::time::Duration;

use super::{fence, start};
use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::flow::restrain;
use crate::state::{FenceRecord, RoleRecord, keys};

/// Whoever looks after the old primary sees within this that nobody is kept from it any more.
const SEEN_WITHIN: Duration = Duration::from_millis(1_000);

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let ended = it.ended()?;
    ended.store.refresh().await?;
    let role = ended
        .role()?
        .ok_or_else(|| CutoverError::failed("the role of the failed over flow is missing"))?;
    if !role.is_handed_back {
        let role = RoleRecord {
            is_copied_back: false,
            is_handed_back: true,
            ..role
        };
        ended.put_role(&role).await?;
        // A pass that has begun looks at the role once more before it denies anything; one that is
        // past that look is through by then. What it makes all the same is removed with `resume`. Where no
        // fence was made so far none comes: every round of whoever looks after it begins with that.
        let fence: Option<FenceRecord> = ended.store.get(&keys::fence(&ended.flow.name))?;
        if fence.is_some_and(|fence| !fence.acls.is_empty()) {
            tokio::time::sleep(SEEN_WITHIN).await;
        }
    }
    let lifted = fence::lift(ended).await?;
    restrain::tell_fence(&ended.store, &it.scene.store, &ended.flow.name).await?;
    Ok(lifted)
}

/// The copy back goes on, and with it the fence.
pub(super) async fn undo(it: &mut Cutover) -> Result<String, CutoverError> {
    let ended = it.ended()?;
    ended.store.refresh().await?;
    let Some(role) = ended.role()?.filter(|role| role.is_handed_back) else {
        return Ok(String::new());
    };
    let role = start::note(ended, role, true).await?;
    // Nobody else may be running who would.
    start::fence_again(it, &role).await?;
    Ok(format!(
        "writers are kept from {} again",
        ended.source.name()
    ))
}
