//! Stops the copy: the role says so, whoever runs the flow sees it and ends in order.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::cutover::hidden::hidden;
use crate::cutover::pairs::{ends, on_target};
use crate::flow::claim;
use crate::state::{
    Beat, Claim, CutoverKind, CutoverState, Primary, RoleRecord, StateStore, TopicSet, keys,
};
use crate::telemetry::progress::now_ms;
use crate::wire::{OffsetSpec, ResponseError};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a process that is gone had sent is appended within this.
const SETTLE: Duration = Duration::from_millis(300);
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Who lives and doesn't come to an end has so long while its source is gone: clients wait.
const ENDS_WITHIN_UNPLANNED: Duration = Duration::from_secs(10);
/// So many of our own round trips to the state topic are added to what its owner needs.
const ROUND_TRIPS: u32 = 4;

/// How the copying process ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// There was none, or it gave the claim back.
    InOrder,
    /// It is gone.
    Gone,
    /// It said nothing.
    Silent,
    /// It lives, and goes on.
    Slow,
}

impl Ended {
    /// Nobody can tell what it still does.
    fn is_open(self) -> bool {
        matches!(self, Self::Silent | Self::Slow)
    }
}

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let plan = it.journal.record.plan;
    let role = promoting(it)?;
    let role = StateStore::record(keys::role(&it.scene.flow.name), &role)?;
    it.journal.write_with(vec![role]).await?;
    let ended = wait(it, plan).await?;
    let result = match ended {
        Ended::InOrder => "the copying process has ended in order",
        Ended::Gone => "the copying process is gone",
        Ended::Silent => "the copying process gave no sign and has lost its claim",
        Ended::Slow => "the copying process lives, didn't end in time and has lost its claim",
    };
    Ok(result.to_owned())
}

/// Says in the role which topics are left of this plan, once it has said anything.
///
/// # Errors
/// When that can't be read or written.
pub(in crate::cutover) async fn say_what_is_left(it: &Cutover) -> Result<(), CutoverError> {
    let now = it.scene.role()?;
    if now.is_none_or(|now| now.plan != it.journal.record.plan) {
        return Ok(());
    }
    let role = promoting(it)?;
    it.scene.put_role(&role).await
}

/// Waits until whoever copies has seen the role and ended; one who gives no sign loses the claim.
///
/// # Errors
/// When somebody goes on writing.
pub(super) async fn end_copying(it: &mut Cutover) -> Result<(), CutoverError> {
    let plan = it.journal.record.plan;
    wait(it, plan).await.map(|_| ())
}

async fn wait(it: &mut Cutover, plan: Uuid) -> Result<Ended, CutoverError> {
    if let Some(runner) = it.runner.take() {
        runner.stop().await;
    }
    let ended = await_end(it, plan).await?;
    // Who was silent when an earlier plan took the claim from him may be so still, whatever became of that plan.
    let claim = claim::current(&it.scene.store, &it.scene.flow.name)?;
    let is_open = ended.is_open() || claim.is_some_and(|claim| claim.left_open);
    if is_open {
        // Once it has lost the claim nobody can tell any more, and this may have to be done again.
        it.journal.note("owner_was_silent", &true);
        it.journal.save().await?;
    }
    if ended != Ended::InOrder {
        // Whoever still lives sees another owner and stops.
        take_claim(it, plan, is_open).await?;
    }
    // Who ended in order may have sent what its answer didn't come for.
    if ended != Ended::InOrder || it.journal.record.kind == CutoverKind::Unplanned {
        settle(it).await?;
    }
    Ok(ended)
}

/// The role that stops the copy of this plan's topics, and of those that were stopped before.
fn promoting(it: &Cutover) -> Result<RoleRecord, CutoverError> {
    let record = &it.journal.record;
    // What a failback found before it began is another time's role.
    let now = it.scene.role()?;
    let before = match record.kind {
        CutoverKind::Failback => now.as_ref(),
        CutoverKind::Planned | CutoverKind::Unplanned => record.role_before.as_ref(),
    };
    let stopped = before.and_then(RoleRecord::not_copied);
    let topics = match stopped {
        Some(stopped) => stopped.and(&record.topics),
        None => record.topics.clone(),
    };
    Ok(RoleRecord {
        v: 1,
        primary: Primary::Promoting,
        topics,
        epoch: before.map_or(0, |role| role.epoch),
        plan: record.plan,
        since_ms: now_ms(),
        source_cluster_id: it
            .scene
            .source
            .cached()
            .cluster_id
            .clone()
            .or_else(|| before.and_then(|role| role.source_cluster_id.clone())),
        target_cluster_id: it.scene.target.cached().cluster_id.clone(),
        is_copied_back: false,
        is_handed_back: false,
        is_kept_fenced: before.is_some_and(|role| role.is_kept_fenced),
    })
}

/// Waits for the owner's end for as long as it needs. How far away it is, and how far away we are, is
/// measured: by the pace in its claim, by the signs that it gives while it ends, and by our own looks.
async fn await_end(it: &Cutover, plan: Uuid) -> Result<Ended, CutoverError> {
    let scene = &it.scene;
    let flow = &scene.flow.name;
    let began = Instant::now();
    let ends_within = match it.journal.record.kind {
        CutoverKind::Unplanned => ENDS_WITHIN_UNPLANNED,
        CutoverKind::Planned | CutoverKind::Failback => it.options.wait,
    };
    // What was written before the role says nothing of now.
    let mut heard: Option<Beat> = scene.store.get(&keys::beat(flow))?;
    let mut heard_at = began;
    // The write of the role tells how long its owner is held back as well. Our own looks are throttled for themselves.
    let muted_until = scene.target.muted_until();
    loop {
        let asked_at = Instant::now();
        let looked = scene.store.refresh_ahead().await;
        let round_trip = asked_at.elapsed();
        let claim = claim::current(&scene.store, flow)?;
        let Some(claim) = claim else {
            looked?;
            return Ok(Ended::InOrder);
        };
        if claim.released || claim.role_plan == Some(plan) {
            return Ok(Ended::InOrder);
        }
        if !claim::may_run(&claim, scene.machine()) {
            return Ok(Ended::Gone);
        }
        let beat: Option<Beat> = scene.store.get(&keys::beat(flow))?;
        let beat = beat.filter(|beat| beat.owner == claim.owner);
        if beat.is_some() && beat != heard {
            (heard, heard_at) = (beat, Instant::now());
        }
        let patience = claim::patience(&claim, round_trip * ROUND_TRIPS, ends_within);
        let silent_since = silent_since(heard_at, began, muted_until);
        if silent_since.elapsed() >= patience {
            looked?;
            return Ok(Ended::Silent);
        }
        if began.elapsed() >= ends_within.max(patience) {
            looked?;
            return Ok(Ended::Slow);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Since when he could have given a sign. He writes it under the same quota as we have written the role: while a broker mutes us
/// for that it mutes him, and what he had sent before may take as long again.
fn silent_since(heard_at: Instant, began: Instant, muted_until: Option<Instant>) -> Instant {
    match muted_until {
        Some(until) if until > began => heard_at.max(until + (until - began)),
        _ => heard_at,
    }
}

async fn take_claim(it: &Cutover, plan: Uuid, left_open: bool) -> Result<(), CutoverError> {
    let machine = it.scene.machine();
    let key = keys::claim(&it.scene.flow.name);
    let log: Vec<Claim> = it.scene.store.in_order(&key)?;
    let claim = Claim {
        v: 1,
        owner: Uuid::from_u128(rand::random::<u128>()),
        host: machine.host(),
        pid: machine.pid(),
        claimed_at_ms: now_ms(),
        // We don't copy: nobody has to wait for us.
        released: true,
        // What its owner committed last for groups may be remembered nowhere.
        remembers_groups: false,
        left_open,
        role_plan: Some(plan),
        generation: claim::next_generation(&log),
        pace_ms: 0,
    };
    Ok(it.scene.store.put(&key, &claim).await?)
}

/// Waits until the target's logs stand still, and readers see all that is in them: what a replica that
/// lags hides comes to light later, behind the fork. A replica that is gone leaves the in-sync ones
/// within `replica.lag.time.max.ms`; until then forks are recorded where the logs end.
async fn settle(it: &Cutover) -> Result<(), CutoverError> {
    let mut partitions = on_target(&it.scene.pairs());
    let deadline = Instant::now() + SETTLE_MAX;
    let target = &it.scene.target;
    if it.journal.record.state == CutoverState::Aborting {
        // Where these end is recorded nowhere then, and a topic that is hidden from us mustn't hold up the undoing.
        let known = target.cached();
        let hidden = Some(ResponseError::TopicAuthorizationFailed);
        partitions.retain(|at| known.error_of(&at.topic) != hidden);
    }
    let mut before = ends(target, &partitions, OffsetSpec::Latest).await?;
    loop {
        tokio::time::sleep(SETTLE).await;
        let now = ends(target, &partitions, OffsetSpec::Latest).await?;
        let stands = now == before;
        if stands && (Instant::now() >= deadline || hidden(target, &now).await?.is_empty()) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(CutoverError::failed(
                "somebody goes on writing to the copies on the target",
            )
            .with_hint("end the Twinlog that still copies, and run this again"));
        }
        before = now;
    }
}

/// Lets the flow copy again what it copied before.
pub(super) async fn undo(it: &mut Cutover) -> Result<String, CutoverError> {
    let record = &it.journal.record;
    let key = keys::role(&it.scene.flow.name);
    let now: Option<RoleRecord> = it.scene.store.get(&key)?;
    let before = record.role_before.as_ref();
    let role = match before.filter(|_| record.kind != CutoverKind::Failback) {
        Some(before) => RoleRecord {
            epoch: now.map_or(before.epoch, |now| now.epoch),
            ..before.clone()
        },
        None => RoleRecord {
            v: 1,
            primary: Primary::Source,
            topics: TopicSet::All,
            epoch: now.map_or(0, |now| now.epoch),
            // A claim that names this plan would say that it has stopped for it.
            plan: Uuid::from_u128(rand::random::<u128>()),
            since_ms: now_ms(),
            source_cluster_id: it.scene.source.cached().cluster_id.clone(),
            target_cluster_id: it.scene.target.cached().cluster_id.clone(),
            is_copied_back: false,
            is_handed_back: false,
            is_kept_fenced: false,
        },
    };
    it.scene.store.put(&key, &role).await?;
    Ok("the flow may copy again".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_muted_is_not_silent_for_as_long_again() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(silent_since(at(1), began, None), at(1));
        assert_eq!(silent_since(at(1), began, Some(began)), at(1), "it is over");
        assert_eq!(silent_since(at(1), began, Some(at(5))), at(10));
        assert_eq!(
            silent_since(at(20), began, Some(at(5))),
            at(20),
            "he was heard"
        );
    }
}
