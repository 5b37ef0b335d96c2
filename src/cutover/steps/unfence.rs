//! Lifts the fence around the old primary, right before it is the primary again.

use std::time::Duration;

use super::fence;
use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::flow::{fenced, own_principal, restrain};
use crate::state::{RoleRecord, keys};

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
        ended
            .store
            .put(&keys::role(&ended.flow.name), &role)
            .await?;
        // A pass that has begun looks at the role once more before it denies anything; one that is
        // past that look is through by then. What it makes all the same is removed with `resume`.
        tokio::time::sleep(SEEN_WITHIN).await;
    }
    fence::lift(ended).await
}

/// The copy back goes on, and with it the fence.
pub(super) async fn undo(it: &mut Cutover) -> Result<String, CutoverError> {
    let ended = it.ended()?;
    ended.store.refresh().await?;
    let Some(role) = ended.role()?.filter(|role| role.is_handed_back) else {
        return Ok(String::new());
    };
    let role = RoleRecord {
        is_copied_back: true,
        is_handed_back: false,
        ..role
    };
    ended
        .store
        .put(&keys::role(&ended.flow.name), &role)
        .await?;
    // Nobody else may run to do it.
    let forks = restrain::forks(&ended.store, &ended.flow.name, &role.topics)?;
    let there = ended.source.metadata(None).await?;
    let topics = forks.into_keys();
    let topics: Vec<String> = topics.filter(|it| there.topics.contains_key(it)).collect();
    let own = own_principal(&it.scene.flow, &it.scene.target_section);
    let (cluster, store, flow) = (&ended.source, &ended.store, &ended.flow.name);
    let name = cluster.name();
    let fenced = fenced::but_us(cluster, store, flow, role.plan, &topics, own.as_deref()).await;
    Ok(match fenced {
        Ok(_) => format!("writers are kept from {name} again"),
        Err(error) => {
            let error = CutoverError::from(error);
            format!("writers can't be kept from {name}, stop them: {error}")
        }
    })
}
