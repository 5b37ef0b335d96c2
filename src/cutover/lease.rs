//! Whose process carries out a flow's plan.
//!
//! The log's order says who holds it, see [`LeaseRecord::holder`]: who reads another owner than himself has lost
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
use tokio::time::Instant;
use uuid::Uuid;

use super::error::CutoverError;
use crate::environment::Machine;
use crate::state::{LeaseRecord, Operator, StateError, StateStore, keys};
use crate::telemetry::progress::now_ms;
use crate::wire::{self, ResponseError, WireError};

const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Who hasn't moved for this long is gone.
const FRESH: Duration = Duration::from_secs(5);
/// The same where a process with its number runs on this machine: it may be the one, and the target slow.
const FRESH_HERE: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Who has lost one of two leases finds out by the holder's next heartbeat, or by [`FRESH_HERE`] without one, and gives the
/// other one back.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(20);
/// How long the first holder waits for a producer id.
const LOADS_FOR: Duration = Duration::from_secs(15);

/// A lease that is wanted.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Where it is written.
    pub store: &'a Arc<StateStore>,
    /// Whose it is.
    pub flow: &'a str,
    /// The plan to be carried out.
    pub plan: Uuid,
    /// The machine of this process.
    pub machine: &'a dyn Machine,
}

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
    pub async fn take(wanted: Wanted<'_>) -> Result<Self, CutoverError> {
        let lease = Self::take_unless_held(wanted).await?;
        lease.map_err(|holder| taken(&holder))
    }

    /// Takes two, at the same time. Of two commands that come at the same instant each may be the first at one of them,
    /// and both would be sent away: `first` decides, and who has it waits until the other command has given back `second`.
    ///
    /// # Errors
    /// As [`Lease::take`]; neither is held then.
    pub async fn take_two(
        first: Wanted<'_>,
        second: Wanted<'_>,
    ) -> Result<(Self, Self), CutoverError> {
        let both = tokio::join!(
            Self::take_unless_held(first),
            Self::take_unless_held(second)
        );
        let (first, second) = match both {
            (Ok(Ok(first)), Ok(Err(_))) => (Ok(first), Self::take_once_given_back(second).await),
            (first, second) => (or_taken(first), or_taken(second)),
        };
        match (first, second) {
            (Ok(first), Ok(second)) => Ok((first, second)),
            (Err(error), Ok(held)) | (Ok(held), Err(error)) => {
                held.release().await;
                Err(error)
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    async fn take_once_given_back(wanted: Wanted<'_>) -> Result<Self, CutoverError> {
        let deadline = Instant::now() + GIVEN_BACK_WITHIN;
        loop {
            match Self::take_unless_held(wanted).await? {
                Ok(lease) => return Ok(lease),
                Err(holder) if Instant::now() >= deadline => return Err(taken(&holder)),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// The lease, or who has it.
    ///
    /// # Errors
    /// When it isn't known who has it, or it can't be written.
    pub async fn take_unless_held(
        wanted: Wanted<'_>,
    ) -> Result<Result<Self, LeaseRecord>, CutoverError> {
        let Wanted {
            store,
            flow,
            plan,
            machine,
        } = wanted;
        let key = keys::cutover_lease(flow);
        store.refresh().await?;
        if let Some(other) = holder(store, &key)?
            && is_alive(store, &key, &other, machine).await?
        {
            return Ok(Err(other));
        }
        let before = holder(store, &key)?;
        let (producer_id, producer_epoch) = generation(store, before.as_ref()).await?;
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
            // Two who take the next epoch of a producer have the same one, and the broker takes the second one's first
            // record for the first one's, sent twice (`ProducerStateEntry.findDuplicateBatch`).
            Ok(()) | Err(StateError::Overtaken) => {}
            Err(error) => return Err(error.into()),
        }
        // Whoever was faster is in the log before what was just written. Who has lost writes no heartbeat.
        store.refresh().await?;
        if let Some(faster) = holder(store, &key)?.filter(|it| it.owner != record.owner) {
            return Ok(Err(faster));
        }
        let is_lost = Arc::new(AtomicBool::new(false));
        let heart = tokio::spawn(beat(
            store.clone(),
            key.clone(),
            record.clone(),
            is_lost.clone(),
        ));
        Ok(Ok(Self {
            store: store.clone(),
            key,
            record,
            is_lost,
            heart,
        }))
    }

    /// Looks who holds it, unless we do.
    async fn other_holder(&self) -> Result<Option<LeaseRecord>, CutoverError> {
        self.store.refresh().await?;
        let holder = holder(&self.store, &self.key)?;
        Ok(holder.filter(|it| it.owner != self.record.owner))
    }

    /// Looks whether it is still ours. To be asked before everything that changes anything.
    ///
    /// # Errors
    /// When somebody else has it.
    pub async fn check(&self) -> Result<(), CutoverError> {
        match self.other_holder().await? {
            Some(holder) => Err(taken(&holder)),
            None => self.still_held(),
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
        store.note_awake();
        if store.refresh().await.is_err() {
            continue;
        }
        match holder(&store, &key) {
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

/// Whose the lease is, as far as the log was read.
fn holder(store: &StateStore, key: &str) -> Result<Option<LeaseRecord>, StateError> {
    Ok(LeaseRecord::holder(store.in_order(key)?))
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
        None => Ok((producer_id(store).await?, 0)),
    }
}

/// A new producer id. Brokers get theirs in blocks, from a controller that may just have lost another broker: until it
/// answers they say that they are loading (`ProducerIdManager`).
async fn producer_id(store: &StateStore) -> Result<i64, WireError> {
    let deadline = Instant::now() + LOADS_FOR;
    loop {
        match wire::init_producer_id(store.cluster()).await {
            Ok((producer_id, _)) => return Ok(producer_id),
            Err(error) if is_loading(&error) && Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_loading(error: &WireError) -> bool {
    error.server_code() == Some(ResponseError::CoordinatorLoadInProgress)
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
        let now = holder(store, key)?;
        if let Some(now) = now.filter(|now| now != other) {
            return Ok(!now.released);
        }
    }
    Ok(false)
}

fn or_taken(
    lease: Result<Result<Lease, LeaseRecord>, CutoverError>,
) -> Result<Lease, CutoverError> {
    lease?.map_err(|holder| taken(&holder))
}

/// That somebody else has it.
pub fn taken(other: &LeaseRecord) -> CutoverError {
    CutoverError::failed(format!(
        "plan {} is being carried out by {}",
        other.plan,
        in_words(&other.operator)
    ))
    .with_hint("watch it there; if that process hangs, end it and run this again")
}
