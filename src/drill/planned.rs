//! The planned cut-over, rehearsed on a topic of the rehearsal's own, under load: fence, proof,
//! drain, groups, forks, release, promotion, and clients that move.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::canary::{Reader, Writer};
use super::context::Scene;
use super::error::DrillError;
use super::names::Kind;
use super::rehearse::{Moved, Rehearsing, blocking};
use super::report::Rehearsal;
use crate::cutover::{self, AcceptedLoss, FenceMode, Options, Tell};
use crate::flow::deny::{self, DenyError};
use crate::state::CutoverKind;

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A writer that isn't refused within this isn't bound by ACLs.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);

/// Rehearses it.
///
/// # Errors
/// When the state can't be read. Why it didn't come to its end is in the result.
pub async fn rehearse(scene: &Scene) -> Result<Rehearsal, DrillError> {
    let mut it = Rehearsing::new(scene, Kind::Planned).await?;
    if let Err(error) = go(&mut it).await {
        it.result.failure = Some(error.to_string());
    }
    Ok(it.result)
}

async fn go(it: &mut Rehearsing<'_>) -> Result<(), DrillError> {
    it.make_canary().await?;
    let (writer, reader) = it.start_clients()?;
    let copier = it.copy().await?;
    it.await_load(Some((&writer, &reader))).await?;
    let fence = fence(it.scene).await?;
    it.result.fence = fence.word().to_owned();
    it.begin("planned failover of the rehearsal's own topic");
    let options = Options {
        kind: CutoverKind::Planned,
        topics: std::collections::BTreeSet::new(),
        accept_loss: AcceptedLoss::Records(0),
        fence,
        padding: it.flow.failover.padding,
        wait: it.scene.request.wait,
        quiet_for: None,
    };
    let (source, target) = (&it.scene.source_section, &it.scene.target_section);
    let plan = cutover::look(&it.flow, source, target, options).await?;
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let (hear, tell) = (heard.clone(), it.scene.tell.clone());
    let listening: Tell = Arc::new(move |line: &str| {
        hear.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line.to_owned());
        tell(line);
    });
    let applying = cutover::apply(plan, listening);
    tokio::pin!(applying);
    let (applied, refused_after) = {
        let clients = follow(&heard, fence, &writer, &reader);
        tokio::pin!(clients);
        let mut refused_after = None;
        let mut is_followed = false;
        let applied = loop {
            tokio::select! {
                applied = &mut applying => break applied,
                after = &mut clients, if !is_followed => {
                    refused_after = after;
                    is_followed = true;
                }
            }
        };
        (applied, refused_after)
    };
    // Before anything else: the copying process would go on to look after an old primary.
    copier.kill();
    it.result.fence_seconds = refused_after.map(|after| after.as_secs_f64());
    let (report, error) = applied?;
    it.end("failover", report.lost.text.clone());
    it.result.plan = Some(report);
    let (written, read) = blocking(move || (writer.stop(), reader.stop())).await?;
    if let Some(error) = error {
        return Err(error.into());
    }
    let now = crate::telemetry::progress::now_ms();
    let moved = Moved {
        topic: it.scene.names.canary(Kind::Planned),
        group: it.scene.names.readers(Kind::Planned),
        write_from_ms: written.last_ms().unwrap_or(now),
        read_from_ms: read.iter().map(|it| it.at_ms).max().unwrap_or(now),
        written,
        read,
    };
    it.move_clients(moved).await
}

/// How the rehearsal's writer can be kept away.
async fn fence(scene: &Scene) -> Result<FenceMode, DrillError> {
    let topic = [scene.names.canary(Kind::Planned)];
    match deny::missing(&scene.source, &topic, &[]).await {
        Ok(_) => Ok(FenceMode::Acl),
        Err(
            DenyError::NoAuthorizer
            | DenyError::NotAllowed(_)
            | DenyError::OursToo { .. }
            | DenyError::DeniedByAnother { .. }
            | DenyError::Unseen(_),
        ) => Ok(FenceMode::Manual),
        Err(DenyError::Wire(error)) => Err(error.into()),
    }
}

/// Does at each step what an operator and the clients do. Answers how long after the fence's
/// beginning the first write was refused.
async fn follow(
    heard: &Mutex<Vec<String>>,
    fence: FenceMode,
    writer: &Writer,
    reader: &Reader,
) -> Option<Duration> {
    let has_begun = |step: &str| {
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().any(|line| line.starts_with(step))
    };
    let await_step = async |step: &str| {
        while !has_begun(step) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    await_step("fence:").await;
    let began = Instant::now();
    let mut refused_after = None;
    match fence {
        FenceMode::Manual => writer.cease(),
        FenceMode::Acl => {
            while began.elapsed() < REFUSED_WITHIN && refused_after.is_none() {
                if writer.refused() > 0 {
                    refused_after = Some(began.elapsed());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if refused_after.is_none() {
                // A super user: the proof would wait for ever.
                writer.cease();
            }
        }
    }
    // The consumers leave when the copy is complete, before positions are brought over.
    await_step("drain:").await;
    reader.leave();
    refused_after
}
