//! A flow whose target is the primary: it copies nothing, and looks after the old primary.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::copy_back::CopyBack;
use super::error::FlowError;
use super::haste::Haste;
use super::open_plan::OpenPlan;
use super::protect;
use super::restrain::Restrain;
use crate::config::{DRILL_PREFIX, FlowConfig, Selector};
use crate::state::{Loss, Primary, RoleRecord, StateError, StateStore, TopicSet, keys};
use crate::telemetry::progress::{FlowProgress, FlowState};
use crate::wire::Cluster;

/// How often the role is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// How often the old primary is looked after.
const RESTRAIN_EVERY: Duration = Duration::from_secs(3);

/// The config without what the role keeps from being copied; `None` when nothing is left.
pub fn allowed(config: &FlowConfig, role: Option<&RoleRecord>) -> Option<FlowConfig> {
    match role.and_then(RoleRecord::not_copied) {
        None => Some(config.clone()),
        Some(TopicSet::All) => None,
        Some(TopicSet::List(topics)) => {
            let mut exclude = config.topics.exclude().to_vec();
            exclude.extend(topics.iter().map(|topic| regex::escape(topic)));
            // Without a selector that leaves them out nothing may be copied.
            let topics = Selector::new(config.topics.include(), &exclude).ok()?;
            Some(FlowConfig {
                topics,
                ..config.clone()
            })
        }
    }
}

/// Waits until the flow may copy again, or is cancelled.
///
/// # Errors
/// When the state topic is lost, or the role with its newest records: who has no role would copy
/// onto the new primary.
pub async fn stand_by(
    config: &FlowConfig,
    source: &Cluster,
    store: &StateStore,
    progress: &Arc<FlowProgress>,
    mut back: CopyBack,
    cancel: &CancellationToken,
) -> Result<(), FlowError> {
    if config.is_back() {
        // Its source is the standby of the flow that the config names: nobody is kept from it here.
        return back_is_over(&config.name, store, progress, cancel).await;
    }
    if config.name.starts_with(DRILL_PREFIX) {
        // A rehearsal leaves the source as it is, and is over soon.
        progress.set_state(stopped("the rehearsed cut-over is done".to_owned()));
        cancel.cancelled().await;
        return Ok(());
    }
    let shrunk = store.shrunk();
    let mut restrain =
        Restrain::new(&config.name, source, back.own_principal()).counting(back.flow());
    let mut restrained_at: Option<Instant> = None;
    let mut haste = Haste::default();
    let mut is_first = true;
    let mut open = OpenPlan::default();
    loop {
        open.note(&config.name, store, progress);
        let role = match store.get::<RoleRecord>(&keys::role(&config.name)) {
            Ok(Some(role)) if role.stops_all() => Some(role),
            Ok(_) => None,
            // What can't be read is no permission.
            Err(error) => {
                tracing::debug!(%error, "the role can't be read");
                None
            }
        };
        back.follow(store, role.as_ref()).await;
        let Some(role) = role else {
            restrain.end(store).await;
            progress.set_role(None);
            if store.shrunk() != shrunk {
                let detail = format!("{}, this flow's role among them", Loss::Shrunk);
                return Err(FlowError::StateLost(detail));
            }
            return Ok(());
        };
        let is_due = restrained_at.is_none_or(|at| at.elapsed() >= RESTRAIN_EVERY);
        let is_new = progress.role().is_none_or(|shown| {
            shown.primary != role.primary.word()
                || shown.plan != role.plan.to_string()
                || shown.is_copied_back != role.is_copied_back
        });
        if is_due || is_new {
            if is_new {
                // Said at once: the old primary may take its time.
                let told = restrain.told(&role);
                progress.set_state(stopped(told.in_words()));
                progress.set_role(Some(told));
            }
            let status = {
                let is_over = until_changed(&config.name, store, &role, Reads::Here);
                tokio::select! {
                    status = restrain.pass(store, &role) => Some(Ok(status)),
                    // An old primary that hangs holds nobody up who carries out a cut-over.
                    over = is_over => Some(Err(over)),
                    () = cancel.cancelled() => None,
                }
            };
            let status = match status {
                Some(Ok(status)) => status,
                Some(Err(Ok(()))) => {
                    restrained_at = None;
                    continue;
                }
                Some(Err(Err(error))) => {
                    tokio::join!(back.stop(), restrain.end(store));
                    return Err(error);
                }
                None => {
                    tokio::join!(back.stop(), restrain.end(store));
                    return Ok(());
                }
            };
            restrained_at = Some(Instant::now());
            lift_protection(&config.name, store, &role).await;
            let words = status.in_words();
            if is_first {
                tracing::warn!(flow = %config.name, "{words}");
                is_first = false;
            }
            progress.set_role(Some(status));
            progress.set_state(stopped(words));
        }
        let pause = haste.pause(store, &config.name, LOOK_EVERY);
        if cancel
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            tokio::join!(back.stop(), restrain.end(store));
            return Ok(());
        }
        if let Err(error) = look(&config.name, store).await {
            tokio::join!(back.stop(), restrain.end(store));
            return Err(error);
        }
    }
}

/// Who reads what is new in the state topic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// Whoever waits.
    Here,
    /// Whoever copies the other topics.
    Elsewhere,
}

/// Waits until the role is another one than this.
///
/// # Errors
/// When the state topic is lost.
async fn until_changed(
    flow: &str,
    store: &StateStore,
    role: &RoleRecord,
    reads: Reads,
) -> Result<(), FlowError> {
    let mut haste = Haste::default();
    loop {
        tokio::time::sleep(haste.pause(store, flow, LOOK_EVERY)).await;
        if reads == Reads::Here {
            look(flow, store).await?;
        }
        let now = store.get::<RoleRecord>(&keys::role(flow));
        // What can't be read is no other role.
        if now.is_ok_and(|now| now.as_ref() != Some(role)) {
            return Ok(());
        }
    }
}

/// A process that was frozen while the failover lifted the protection may have put it up again. A failback makes
/// one as well, behind its role: what is read of the role behind that record says so.
async fn lift_protection(flow: &str, store: &StateStore, role: &RoleRecord) {
    if !takes_no_protection(role) || !protect::is_left(store, flow) {
        return;
    }
    let is_lifted = |_: &str| {
        let now = store.get::<RoleRecord>(&keys::role(flow));
        matches!(now, Ok(Some(now)) if takes_no_protection(&now))
    };
    if let Err(error) = protect::lift(store.cluster(), store, flow, is_lifted).await {
        tracing::warn!(flow, %error, "the protection of what were copies can't be lifted; it is tried again");
    }
}

/// Whether clients write to what were copies, and nothing is about to change that.
fn takes_no_protection(role: &RoleRecord) -> bool {
    role.primary == Primary::Target && !role.is_handed_back
}

/// Waits until a flow that copied back may do so again.
async fn back_is_over(
    flow: &str,
    store: &StateStore,
    progress: &Arc<FlowProgress>,
    cancel: &CancellationToken,
) -> Result<(), FlowError> {
    progress.set_state(FlowState::Stopped {
        reason: "handed_back",
        detail: "nothing is copied back while the roles change".to_owned(),
    });
    loop {
        let role = store.get::<RoleRecord>(&keys::role(flow));
        if matches!(role, Ok(Some(role)) if !role.stops_all()) {
            return Ok(());
        }
        let pause = cancel.run_until_cancelled(tokio::time::sleep(LOOK_EVERY));
        if pause.await.is_none() {
            return Ok(());
        }
        look(flow, store).await?;
    }
}

/// Reads what is new in the state topic; only its loss is an error.
async fn look(flow: &str, store: &StateStore) -> Result<(), FlowError> {
    match store.refresh().await {
        Err(StateError::Lost(loss)) => Err(FlowError::StateLost(loss.to_string())),
        Err(error) => {
            tracing::debug!(flow, %error, "the role can't be looked at");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn stopped(detail: String) -> FlowState {
    FlowState::Stopped {
        reason: "failed_over",
        detail,
    }
}

/// While a flow copies its other topics: looks after the old primary of those that were failed
/// over, until cancelled.
pub async fn look_after(
    flow: String,
    source: Cluster,
    store: Arc<StateStore>,
    progress: Arc<FlowProgress>,
    mut back: CopyBack,
    cancel: CancellationToken,
) {
    let mut restrain = Restrain::new(&flow, &source, back.own_principal()).counting(back.flow());
    loop {
        let role = store.get::<RoleRecord>(&keys::role(&flow)).ok().flatten();
        back.follow(&store, role.as_ref()).await;
        match store.get::<RoleRecord>(&keys::role(&flow)) {
            Ok(Some(role)) if role.not_copied().is_some() => {
                let is_over = until_changed(&flow, &store, &role, Reads::Elsewhere);
                let status = tokio::select! {
                    status = restrain.pass(&store, &role) => Some(status),
                    _ = is_over => continue,
                    () = cancel.cancelled() => None,
                };
                let Some(status) = status else {
                    tokio::join!(back.stop(), restrain.end(&store));
                    return;
                };
                progress.set_role(Some(status));
            }
            _ => {
                restrain.end(&store).await;
                progress.set_role(None);
            }
        }
        if cancel
            .run_until_cancelled(tokio::time::sleep(RESTRAIN_EVERY))
            .await
            .is_none()
        {
            tokio::join!(back.stop(), restrain.end(&store));
            return;
        }
    }
}
