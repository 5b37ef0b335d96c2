//! Lifts the fence around the old primary, right before it is the primary again.
//!
//! Whoever looks after the old primary looks at the role before it denies anything, and once more behind that
//! (`flow/restrain.rs`): what was made in between is removed by it, or with `resume`. So nobody has to wait for its pass.
//!
//! Where that process is killed while it makes it nobody remembers it: `resume` removes once more what was lifted here.

use super::{fence, start};
use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::flow::restrain;
use crate::state::{FenceAcl, FenceRecord, RoleRecord, keys};

/// In the journal: the ACLs that were lifted.
pub(super) const LIFTED: &str = "lifted_fence";

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let ended = it.ended()?;
    // The step before has read what is new there, and nobody else writes roles meanwhile.
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
    }
    let key = keys::fence(&ended.flow.name);
    let fence: Option<FenceRecord> = ended.store.get(&key)?;
    let noted: Vec<FenceAcl> = it.journal.fact(LIFTED).unwrap_or_default();
    let mut acls = fence.unwrap_or_default().acls;
    acls.extend(noted);
    acls.sort();
    acls.dedup();
    it.journal.note(LIFTED, &acls);
    let ended = it.ended()?;
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
