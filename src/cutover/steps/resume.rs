//! The flow that was failed over copies again, behind the forks of the way back: the roles are as
//! they were.

use std::collections::HashSet;

use super::fence;
use super::release;
use super::unfence::LIFTED;
use crate::cutover::adopt::{adopt_all, seed_groups};
use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::flow::fenced::FenceError;
use crate::flow::{deny, own_principal, protect, restrain};
use crate::state::{FenceAcl, FenceRecord, Primary, RoleRecord, TopicSet, keys};

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let ended = it.ended()?;
    let back = &it.scene;
    ended.store.refresh().await?;
    back.store.refresh().await?;
    // Grants first: while the fence stands they change nothing.
    let held = release::withdraw(ended, true).await?;
    for problem in held.problems() {
        (it.tell)(problem);
    }
    let mut forks = restrain::forks(&back.store, &back.flow.name, &TopicSet::All)?;
    forks.retain(|_, fork| fork.plan == it.journal.record.plan);
    let adoption = adopt_all(ended, back, &forks).await?;
    for unseen in seed_groups(ended, &forks).await? {
        (it.tell)(&format!(
            "groups that couldn't be seen keep the positions that they have there: {unseen}"
        ));
    }
    let is_kept_fenced = keep_fence(it, ended, back).await?;
    fence::lift(back).await?;
    fence::lift(ended).await?;
    // Who was killed while it fenced the old primary may have made again what was lifted, behind that.
    let lifted: Vec<FenceAcl> = it.journal.fact(LIFTED).unwrap_or_default();
    deny::delete(&ended.source, &lifted)
        .await
        .map_err(FenceError::from)?;
    restrain::tell_fence(&ended.store, &back.store, &ended.flow.name).await?;
    let before = ended.role()?;
    if before
        .as_ref()
        .is_none_or(|role| role.primary != Primary::Source)
    {
        let role = RoleRecord {
            is_kept_fenced,
            ..ended.copying_role(it.journal.record.plan, before.as_ref())
        };
        ended.begin_to_copy(&role).await?;
        // The old primary's own state has the word of the failover.
        if let Err(error) = restrain::tell(&back.store, &ended.flow.name, &role).await {
            tracing::debug!(%error, "the primary can't be told its role");
        }
    }
    let mut text = format!(
        "{} follows again: {}; {}",
        ended.target.name(),
        adoption.in_words(),
        held.in_words()
    );
    if !adoption.refused.is_empty() {
        let named: Vec<&str> = adoption.refused.keys().map(String::as_str).collect();
        text.push_str(&format!(" (not followed: {})", named.join(", ")));
    }
    if is_kept_fenced {
        let standby = ended.target.name();
        let line = format!(
            "only Twinlog's own user and super users may write to the copies on {standby} until the next failover, or \
             until `twinlog failback --lift-fence --yes`"
        );
        it.journal.note("kept_fence", &line);
    }
    it.journal.note("followed_again", &adoption);
    Ok(text)
}

/// A producer that nobody has moved would go on at the standby: what keeps it away stays, but for us. Whether anybody
/// is kept away.
///
/// The role says so before anything is handed over: a command that is killed in between finds that, and nobody takes
/// the ACLs for what a failover has left (`flow/role.rs`, `flow/protect.rs`).
async fn keep_fence(it: &Cutover, ended: &Scene, back: &Scene) -> Result<bool, CutoverError> {
    let before = ended.role()?;
    let was_kept = before.is_some_and(|role| role.is_kept_fenced);
    let fence: Option<FenceRecord> = back.store.get(&keys::fence(&back.flow.name))?;
    let Some(fence) = fence else {
        // Handed over before this command was killed; or by hand: then it is about other topics, from a failback
        // before this one.
        return Ok(was_kept);
    };
    note_kept(ended, true).await?;
    let (target, store, flow) = (&ended.target, &ended.store, &ended.flow.name);
    let own = own_principal(&ended.flow, &ended.target_section);
    match protect::take_over(target, store, flow, own.as_deref(), &fence.acls).await {
        Ok(()) => {
            back.store.remove(&keys::fence(&back.flow.name)).await?;
            Ok(true)
        }
        Err(FenceError::Deny(problem)) => {
            (it.tell)(&format!(
                "others can't be kept from {} alone any longer: {problem}",
                target.name()
            ));
            // Those of other topics are another failback's.
            let topics: HashSet<&str> = fence.acls.iter().map(|acl| acl.topic.as_str()).collect();
            protect::lift(target, store, flow, |topic| topics.contains(topic)).await?;
            let is_kept = was_kept && protect::is_left(store, flow);
            note_kept(ended, is_kept).await?;
            Ok(is_kept)
        }
        Err(error) => Err(error.into()),
    }
}

async fn note_kept(ended: &Scene, is_kept_fenced: bool) -> Result<(), CutoverError> {
    match ended.role()? {
        Some(role) if role.is_kept_fenced != is_kept_fenced => {
            let role = RoleRecord {
                is_kept_fenced,
                ..role
            };
            ended.put_role(&role).await
        }
        _ => Ok(()),
    }
}

/// From here on the old standby may have been written to by the copy.
pub(super) fn undo() -> Result<String, CutoverError> {
    Err(
        CutoverError::failed("the failback is through; it can't be undone")
            .with_hint("the way to the standby is `twinlog failover`"),
    )
}
