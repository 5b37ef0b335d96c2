//! The old primary is the primary again, though the standby that was it can't be asked.
//!
//! All of it is on the old primary. First comes what a standby that wakes up meets before it may keep writers from
//! here (`flow/restrain.rs`), then the roles.

use uuid::Uuid;

use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::cutover::give_up::{self, About};
use crate::state::{GivenUpRecord, Primary, RoleRecord, TopicSet, keys};
use crate::telemetry::progress::now_ms;

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let Some(about) = give_up::about(&it.journal.record) else {
        return Err(CutoverError::failed("this plan gives nothing up"));
    };
    let plan = it.journal.record.plan;
    let scene = &it.scene;
    let store = &scene.store;
    store.refresh().await?;
    let key = keys::given_up(&about.flow);
    let known: Option<GivenUpRecord> = store.get(&key)?;
    store.put(&key, &given_up(known, &about, plan)).await?;
    // Whoever copies back ends with this, and doesn't begin again by itself.
    let back = scene.role()?;
    scene
        .put_role(&RoleRecord {
            primary: Primary::Target,
            topics: TopicSet::All,
            epoch: back.as_ref().map_or(0, |role| role.epoch) + 1,
            ..scene.copying_role(plan, back.as_ref())
        })
        .await?;
    let key = keys::role(&about.flow);
    let role: Option<RoleRecord> = store.get(&key)?;
    if let Some(role) = role.filter(|role| role.primary != Primary::Source) {
        let role = RoleRecord {
            primary: Primary::Source,
            topics: TopicSet::All,
            // Who builds the standby anew counts from the beginning, and must be heard here.
            epoch: 0,
            plan,
            since_ms: now_ms(),
            is_copied_back: false,
            is_handed_back: false,
            is_kept_fenced: false,
            ..role
        };
        store.put(&key, &role).await?;
    }
    Ok(format!("{} is the primary", scene.target.name()))
}

fn given_up(known: Option<GivenUpRecord>, about: &About, plan: Uuid) -> GivenUpRecord {
    let mut record = known.unwrap_or_default();
    record.v = 1;
    record.plan = plan;
    record.at_ms = now_ms();
    record.ended.extend(&about.ended);
    record.is_untold |= about.is_untold;
    record
}

/// Clients may have written there since.
pub(super) fn undo() -> Result<String, CutoverError> {
    Err(CutoverError::failed(
        "giving up can't be undone: clients may have written to the old primary since",
    )
    .with_hint("finish it with `twinlog failback --give-up`"))
}
