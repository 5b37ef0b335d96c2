//! Who runs the flow. The newest claim wins; the older process sees it and stops.
//!
//! Records need no such lock: the broker deduplicates them by sequence, so a second Twinlog with
//! the same state only repeats what is already there. Fillers have no sequence. A filler is only
//! written while this process knows (at most 2 s old) that it still holds the claim, and a
//! new owner waits longer than that before its first filler, unless the old owner is known to be
//! gone: it released the claim, or it ran on this machine and its process no longer exists.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::error::FlowError;
use crate::environment::Machine;
use crate::state::{Claim, FlowRecord, Loss, RoleRecord, StateError, StateStore, TopicSet, keys};
use crate::telemetry::progress::now_ms;
use crate::telemetry::utc;

/// How old the last look at the claim may be when a filler is sent.
const FRESH: Duration = Duration::from_millis(2_000);
/// How often the claim is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// How long a new owner waits for an old one that may still be alive: its last look may be
/// `FRESH` old when it sends, and what it sent may wait in a broker's queue for a moment.
const TAKEOVER: Duration = Duration::from_millis(3_000);

/// The right to write fillers.
#[derive(Clone, Debug)]
pub struct Fence {
    not_before: Instant,
    looked_at: watch::Receiver<Instant>,
}

impl Fence {
    /// From here on no other process fills. A position that was read earlier says nothing about
    /// the next filler: the old owner may have filled that hole since.
    pub fn not_before(&self) -> Instant {
        self.not_before
    }

    /// Resolves when a filler may be sent.
    pub async fn may_fill(&mut self) {
        tokio::time::sleep_until(self.not_before).await;
        loop {
            let looked_at = *self.looked_at.borrow_and_update();
            if looked_at.elapsed() < FRESH {
                return;
            }
            if self.looked_at.changed().await.is_err() {
                // The flow is ending: nothing may be filled any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Why a claim is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The flow ends.
    Cancelled,
    /// A cut-over changed what the flow may copy: it must begin again. The claim is still held.
    RoleChanged,
    /// The state topic lost records that were acknowledged, but not those of this flow: it must
    /// begin again by what is there now.
    StateShrunk,
}

/// A claim that was made.
pub struct Held {
    /// The right to write fillers.
    pub fence: Fence,
    flow: String,
    /// What the role at the beginning kept from being copied.
    not_copied: Option<TopicSet>,
    key: String,
    claim: Claim,
    /// Whose claim it took. If that one is the newest again, ours was lost.
    taken_from: Option<Uuid>,
    /// Whether the flow had a role when it began.
    had_role: bool,
    /// [`StateStore::shrunk`] when it began.
    shrunk: u64,
    looked_at: watch::Sender<Instant>,
}

/// Claims the flow for this process, which honours the role that it has read.
///
/// # Errors
/// When the claim can't be written.
pub async fn claim(
    store: &StateStore,
    flow: &str,
    role: Option<&RoleRecord>,
    machine: &dyn Machine,
) -> Result<Held, StateError> {
    let key = keys::claim(flow);
    let shrunk = store.shrunk();
    let previous: Option<Claim> = store.get(&key)?;
    let claim = Claim {
        v: 1,
        owner: new_owner(),
        host: machine.host(),
        pid: machine.pid(),
        claimed_at_ms: now_ms(),
        released: false,
        role_plan: role.map(|role| role.plan),
    };
    store.put(&key, &claim).await?;
    let wait = match &previous {
        Some(previous) if may_run(previous, machine) => {
            tracing::warn!(
                flow,
                previous_host = %previous.host,
                previous_pid = previous.pid,
                "another Twinlog may still run this flow; holes are filled after {} ms",
                TAKEOVER.as_millis()
            );
            TAKEOVER
        }
        _ => Duration::ZERO,
    };
    let now = Instant::now();
    let (sender, looked_at) = watch::channel(now);
    Ok(Held {
        fence: Fence {
            not_before: now + wait,
            looked_at,
        },
        flow: flow.to_owned(),
        not_copied: role.and_then(RoleRecord::not_copied).cloned(),
        key,
        claim,
        taken_from: previous.map(|previous| previous.owner),
        had_role: role.is_some(),
        shrunk,
        looked_at: sender,
    })
}

/// How long a new owner waits for one that may be alive.
pub const TAKEOVER_WAIT: Duration = TAKEOVER;

/// Whether the owner of a claim may still be running, as far as this machine can tell.
pub fn may_run(claim: &Claim, machine: &dyn Machine) -> bool {
    if claim.released {
        return false;
    }
    let same_machine = claim.host == machine.host() && claim.host.len() > 1;
    // Whoever had our own number is gone: we have it now.
    let gone = same_machine && (claim.pid == machine.pid() || !machine.runs(claim.pid));
    !gone
}

impl Held {
    /// Looks at the claim, and at the flow's role, until one of them is another or it is cancelled.
    pub async fn keep(
        &self,
        store: &StateStore,
        cancel: &CancellationToken,
    ) -> Result<Kept, FlowError> {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(Kept::Cancelled),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let before = Instant::now();
            match store.refresh().await {
                Ok(()) => {}
                Err(StateError::Lost(loss)) => return Err(FlowError::StateLost(loss.to_string())),
                Err(error) => {
                    tracing::debug!(%error, "the claim could not be looked at");
                    continue;
                }
            }
            if store.shrunk() != self.shrunk {
                self.go_on_after_a_loss(store)?;
                return Ok(Kept::StateShrunk);
            }
            // A role that can't be read is no reason to stop: it was written by a newer Twinlog,
            // which takes the claim too.
            if let Ok(role) = store.get::<RoleRecord>(&keys::role(&self.flow))
                && role.as_ref().and_then(RoleRecord::not_copied) != self.not_copied.as_ref()
            {
                // Before the claim is looked at: a cut-over takes it from an owner who was silent,
                // and he, too, looks after the old primary from then on.
                return Ok(Kept::RoleChanged);
            }
            match store.get::<Claim>(&self.key) {
                Ok(Some(current)) if current.owner != self.claim.owner => {
                    return Err(superseded(&current));
                }
                _ => {
                    let _ = self.looked_at.send(before);
                }
            }
        }
    }

    /// Whether the flow may begin again after the state topic lost its newest records.
    fn go_on_after_a_loss(&self, store: &StateStore) -> Result<(), FlowError> {
        // A value that can't be read is there, and says why when the flow begins again.
        let has_flow = !matches!(store.get::<FlowRecord>(&keys::flow(&self.flow)), Ok(None));
        let has_role = !matches!(store.get::<RoleRecord>(&keys::role(&self.flow)), Ok(None));
        if !has_flow || (self.had_role && !has_role) {
            let lost = if has_flow { "role" } else { "producer ids" };
            let detail = format!("{}, this flow's {lost} among them", Loss::Shrunk);
            return Err(FlowError::StateLost(detail));
        }
        match store.get::<Claim>(&self.key) {
            // Whoever claimed it since then is newer; a claim that ours took is not.
            Ok(Some(current))
                if current.owner != self.claim.owner && Some(current.owner) != self.taken_from =>
            {
                Err(superseded(&current))
            }
            _ => Ok(()),
        }
    }

    /// Gives the claim back, unless somebody else has it.
    pub async fn release(&self, store: &StateStore) {
        if store.refresh().await.is_ok()
            && let Ok(Some(current)) = store.get::<Claim>(&self.key)
            && current.owner != self.claim.owner
        {
            return;
        }
        let released = Claim {
            released: true,
            ..self.claim.clone()
        };
        if let Err(error) = store.put(&self.key, &released).await {
            tracing::debug!(%error, "the claim could not be given back");
        }
    }
}

fn superseded(by: &Claim) -> FlowError {
    FlowError::Superseded(format!(
        "process {} on {} since {}",
        by.pid,
        by.host,
        utc::to_the_second(by.claimed_at_ms)
    ))
}

/// Version 4 layout with random bits; only uniqueness matters.
fn new_owner() -> Uuid {
    Uuid::from_u128(rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim_of(host: &str, pid: u32, released: bool) -> Claim {
        Claim {
            v: 1,
            owner: Uuid::nil(),
            host: host.to_owned(),
            pid,
            claimed_at_ms: 0,
            released,
            role_plan: None,
        }
    }

    #[derive(Debug)]
    struct Here;

    impl Machine for Here {
        fn host(&self) -> String {
            "a/1".to_owned()
        }

        fn pid(&self) -> u32 {
            7
        }

        fn runs(&self, pid: u32) -> bool {
            [1, 7].contains(&pid)
        }
    }

    #[test]
    fn only_a_gone_or_released_owner_is_not_waited_for() {
        let may_run = |host: &str, pid, released| may_run(&claim_of(host, pid, released), &Here);
        assert!(may_run("b/2", 9, false), "another machine");
        assert!(may_run("a/1", 1, false), "it runs on this machine");
        assert!(!may_run("b/2", 9, true), "released");
        assert!(!may_run("a/1", 9, false), "no such process");
        assert!(!may_run("a/1", 7, false), "we have its number");
    }
}
