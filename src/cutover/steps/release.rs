//! Applies what was held for this moment, one aspect each.
//!
//! Each aspect of the metadata keeps what it holds in the state topic; it is applied in the order
//! configs, quotas, ACLs: clients are let in last.

use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;

/// What became of one aspect.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Released {
    /// How many things were applied (or taken back).
    pub count: u64,
    /// What couldn't be, a line each: for the operator.
    pub problems: Vec<String>,
}

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let scene = &it.scene;
    let configs = configs(scene, true).await?;
    let quotas = quotas(scene, true).await?;
    let acls = acls(scene, true).await?;
    let text = format!(
        "{} config(s), {} quota(s), {} ACL(s)",
        configs.count, quotas.count, acls.count
    );
    let all = [("configs", configs), ("quotas", quotas), ("acls", acls)];
    for (aspect, released) in all {
        it.journal.note(&format!("released_{aspect}"), &released);
    }
    Ok(text)
}

pub(super) async fn undo(it: &mut Cutover) -> Result<String, CutoverError> {
    let scene = &it.scene;
    let acls = acls(scene, false).await?;
    let quotas = quotas(scene, false).await?;
    let configs = configs(scene, false).await?;
    Ok(format!(
        "{} ACL(s), {} quota(s), {} config(s) held again",
        acls.count, quotas.count, configs.count
    ))
}

/// The seam to held topic configs: `release`, or hold again.
#[expect(clippy::unused_async, reason = "it will ask the target")]
async fn configs(_scene: &Scene, _release: bool) -> Result<Released, CutoverError> {
    Ok(Released::default())
}

/// The seam to held quotas.
#[expect(clippy::unused_async, reason = "it will ask the target")]
async fn quotas(_scene: &Scene, _release: bool) -> Result<Released, CutoverError> {
    Ok(Released::default())
}

/// The seam to held ACLs.
#[expect(clippy::unused_async, reason = "it will ask the target")]
async fn acls(_scene: &Scene, _release: bool) -> Result<Released, CutoverError> {
    Ok(Released::default())
}
