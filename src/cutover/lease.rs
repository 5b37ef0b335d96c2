//! Whose process carries out a flow's plan.
//!
//! The newest record wins, as with the flow's claim: who reads another owner than himself has lost
//! and must not do anything more. The owner writes a heartbeat every second; whether somebody else
//! is alive is judged by the count, not by the clocks of two machines.
//!
//! A process that was frozen can't know that it has lost. So all that a holder writes to the state
//! topic carries the lease's own producer id, in an epoch above that of the holder before: from the
//! next holder's first record on the broker refuses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use uuid::Uuid;

use super::error::CutoverError;
use crate::environment::Machine;
use crate::state::{LeaseRecord, Operator, StateError, StateStore, keys};
use crate::telemetry::progress::now_ms;
use crate::wire;

const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Who hasn't moved for this long is gone.
const FRESH: Duration = Duration::from_secs(5);
/// The same where a process with its number runs on this machine: it may be the one, and the target slow.
const FRESH_HERE: Duration = Duration::from_secs(15);
/// Two who come at the same instant have both written after this.
const SETTLE: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The right to carry out a plan. Given back by [`Lease::release`].
pub struct Lease {
    store: Arc<StateStore>,
    key: String,
    record: LeaseRecord,
    is_lost: Arc<AtomicBool>,
    heart: JoinHandle<()>,
}

/// Who this process is.
pub fn operator(machine: &dyn Machine) -> Operator {
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|it| std::env::var(it).ok());
    Operator {
        host: machine.host(),
        pid: machine.pid(),
        user: user.unwrap_or_default(),
        since_ms: now_ms(),
    }
}

/// An operator in words.
pub fn in_words(operator: &Operator) -> String {
    let host = operator.host.split('/').next().unwrap_or_default();
    let user = match operator.user.as_str() {
        "" => String::new(),
        user => format!("{user}, "),
    };
    format!("{user}process {} on {host}", operator.pid)
}

impl Lease {
    /// Takes the lease of a flow's plan.
    ///
    /// # Errors
    /// When somebody else has it and is alive, or takes it at the same moment.
    pub async fn take(
        store: &Arc<StateStore>,
        flow: &str,
        plan: Uuid,
        machine: &dyn Machine,
    ) -> Result<Self, CutoverError> {
        let key = keys::cutover_lease(flow);
        store.refresh().await?;
        if let Some(other) = store.get::<LeaseRecord>(&key)?
            && is_alive(store, &key, &other, machine).await?
        {
            return Err(taken(&other));
        }
        let newest = store.get::<LeaseRecord>(&key)?;
        let (producer_id, producer_epoch) = generation(store, newest.as_ref()).await?;
        store.write_as(producer_id, producer_epoch).await;
        let record = LeaseRecord {
            v: 1,
            owner: Uuid::from_u128(rand::random::<u128>()),
            plan,
            operator: operator(machine),
            beat: 0,
            released: false,
            producer_id,
            producer_epoch,
        };
        match store.put(&key, &record).await {
            // Somebody else was faster: the look below says who.
            Ok(()) | Err(StateError::Overtaken) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(SETTLE).await;
        let is_lost = Arc::new(AtomicBool::new(false));
        let heart = tokio::spawn(beat(
            store.clone(),
            key.clone(),
            record.clone(),
            is_lost.clone(),
        ));
        let lease = Self {
            store: store.clone(),
            key,
            record,
            is_lost,
            heart,
        };
        lease.check().await?;
        Ok(lease)
    }

    /// Looks whether it is still ours. To be asked before everything that changes anything.
    ///
    /// # Errors
    /// When somebody else has it.
    pub async fn check(&self) -> Result<(), CutoverError> {
        self.store.refresh().await?;
        match self.store.get::<LeaseRecord>(&self.key)? {
            Some(other) if other.owner != self.record.owner => Err(taken(&other)),
            _ => self.still_held(),
        }
    }

    /// What its heart knows by now, without a look.
    ///
    /// # Errors
    /// When somebody else has it.
    pub fn still_held(&self) -> Result<(), CutoverError> {
        match self.is_lost.load(Ordering::Relaxed) {
            true => Err(CutoverError::failed(
                "another process has taken this plan over",
            )),
            false => Ok(()),
        }
    }

    /// Gives it back, so that nobody waits for us.
    pub async fn release(self) {
        self.heart.abort();
        let released = LeaseRecord {
            released: true,
            ..self.record.clone()
        };
        if self.check().await.is_ok()
            && let Err(error) = self.store.put(&self.key, &released).await
        {
            tracing::debug!(%error, "the lease could not be given back");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

async fn beat(store: Arc<StateStore>, key: String, mut record: LeaseRecord, lost: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(BEAT_EVERY).await;
        if store.refresh().await.is_err() {
            continue;
        }
        match store.get::<LeaseRecord>(&key) {
            Ok(Some(other)) if other.owner != record.owner => {
                lost.store(true, Ordering::Relaxed);
                return;
            }
            _ => {}
        }
        record.beat += 1;
        match store.put(&key, &record).await {
            Ok(()) => {}
            Err(StateError::Overtaken) => {
                lost.store(true, Ordering::Relaxed);
                return;
            }
            Err(error) => tracing::debug!(%error, "the lease's heartbeat could not be written"),
        }
    }
}

/// Under which producer id and epoch the next holder writes.
async fn generation(
    store: &StateStore,
    newest: Option<&LeaseRecord>,
) -> Result<(i64, i16), CutoverError> {
    let known = newest.filter(|it| it.producer_id >= 0);
    let next = known.and_then(|it| Some((it.producer_id, it.producer_epoch.checked_add(1)?)));
    match next {
        Some(next) => Ok(next),
        // The first one, or the last epoch is used up.
        None => Ok((wire::init_producer_id(store.cluster()).await?.0, 0)),
    }
}

/// Its heartbeat tells; on this machine also that its process is gone. A process with its number may be
/// a stranger, in a container that was made anew even the first one.
async fn is_alive(
    store: &StateStore,
    key: &str,
    other: &LeaseRecord,
    machine: &dyn Machine,
) -> Result<bool, CutoverError> {
    if other.released {
        return Ok(false);
    }
    let is_here = other.operator.host == machine.host();
    let pid = other.operator.pid;
    if is_here && (pid == machine.pid() || !machine.runs(pid)) {
        return Ok(false);
    }
    let patience = if is_here { FRESH_HERE } else { FRESH };
    let began = tokio::time::Instant::now();
    while began.elapsed() < patience {
        tokio::time::sleep(LOOK_EVERY).await;
        store.refresh().await?;
        let now: Option<LeaseRecord> = store.get(key)?;
        if now.is_some_and(|now| now != *other && !now.released) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn taken(other: &LeaseRecord) -> CutoverError {
    CutoverError::failed(format!(
        "plan {} is being carried out by {}",
        other.plan,
        in_words(&other.operator)
    ))
    .with_hint("watch it there; if that process hangs, end it and run this again")
}
