//! Who runs the flow. The newest claim wins; the older process sees it, stops, and waits for its turn
//! (`succession`). A claim has a
//! generation and is read back, so also of two that begin in one instant one has it.
//!
//! Records need no such lock: the broker deduplicates them by sequence, so a second Twinlog with
//! the same state only repeats what is already there. Only a process that stood still looks at its claim before it sends
//! any (`awake`): by then the broker may have forgotten the sequences. Fillers have no sequence. A filler is only
//! written while this process knows (at most 2 s old) that it still holds the claim, and a
//! new owner waits longer than that before its first filler, unless the old owner is known to be
//! gone: it released the claim, or it ran on this machine and its process no longer exists.
//!
//! What is measured here is the time of this process. It stands still while a virtual machine is
//! paused, and so does what was looked at: a process that was paused between its look and its filler
//! isn't stopped by this. The broker stops it: a claim's generation is the producer epoch of its fillers,
//! and behind the first filler of the new owner the partition takes none of the old one. What comes before
//! that is seen by the look at the partition's newest filler that precedes it (`sink/recheck.rs`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::awake::Awake;
use super::error::FlowError;
use super::fillers;
use super::haste::Haste;
use super::succession::Answers;
use crate::environment::Machine;
use crate::state::{
    Beat, Claim, FlowRecord, Loss, Memory, RoleRecord, StateError, StateStore, TopicSet, keys,
};
use crate::telemetry::progress::now_ms;
use crate::telemetry::utc;

/// How old the last look at the claim may be when a filler is sent.
const FRESH: Duration = Duration::from_millis(2_000);
/// How often the claim is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// How long a look waits for what it writes.
const WRITE_WITHIN: Duration = Duration::from_millis(700);
/// How long a new owner waits for an old one that may still be alive: its last look may be
/// `FRESH` old when it sends, and what it sent may wait in a broker's queue for a moment.
const TAKEOVER: Duration = Duration::from_millis(3_000);

/// Whoever takes longer than this from one look to the next says so in its claim.
const PACE_MS: u64 = 1_500;
/// The slowest look of this time counts, and of the time before it.
const PACE_OF: Duration = Duration::from_secs(60);
/// How often a look that waits for its answer sees that its process runs,
const TICK: Duration = Duration::from_millis(250);
/// and what counts of the time between two times: a process that stood still says nothing of how far away it is.
const TICK_MAX: Duration = Duration::from_millis(1_000);

/// A claim's generation is raised, so that its fillers get a new epoch, when so many were written
const WORN_AFTER_FILLERS: u64 = 1_000;
/// and so much time has passed: each producer id has its 32,766 of them for two hundred days.
const WORN_AFTER: Duration = Duration::from_secs(600);

/// What the last look at the claim has shown, if it is ours.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    generation: u64,
}

/// The right to write fillers.
#[derive(Clone, Debug)]
pub struct Fence {
    not_before: Instant,
    look: watch::Receiver<Look>,
    unseen: Arc<Mutex<Option<String>>>,
    filled: Arc<AtomicU64>,
    outdone: Arc<Mutex<Option<Outdone>>>,
    awake: Arc<Awake>,
}

/// A partition has fillers of a newer claim than ours.
#[derive(Clone, Copy, Debug)]
struct Outdone {
    /// Of that claim.
    generation: u64,
    /// When that was found.
    at: Instant,
}

impl Fence {
    /// From here on no other process fills. A position that was read earlier says nothing about
    /// the next filler: the old owner may have filled that hole since.
    pub fn not_before(&self) -> Instant {
        self.not_before
    }

    /// Notes fillers that are sent.
    pub fn note_filled(&self, count: u64) {
        self.filled.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether records and groups' commits may be sent: not by a process that stood still and hasn't looked at its claim
    /// since, nor by one that has seen another's.
    pub fn is_awake(&self) -> bool {
        let looked_at = self.look.borrow().at;
        self.awake.is_since(looked_at)
    }

    /// Resolves when records may be sent.
    pub async fn awake(&mut self) {
        while !self.is_awake() {
            if self.look.changed().await.is_err() {
                // The flow is ending.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The producer epoch of a filler that is sent now, if one may be sent.
    pub fn epoch(&self) -> Option<i16> {
        let look = *self.look.borrow();
        let may_fill = Instant::now() >= self.not_before && look.at.elapsed() < FRESH;
        may_fill.then(|| fillers::epoch(look.generation))
    }

    /// Whether fillers of ours may go behind one of this epoch. Whoever wrote a newer one has the flow, and
    /// his epoch isn't ours to use: the next look at the claim says so. Or the state topic has lost claims;
    /// then that look raises ours.
    pub fn may_follow(&self, newest: i16) -> bool {
        let look = *self.look.borrow();
        if newest <= fillers::epoch(look.generation) {
            return true;
        }
        *self.outdone.lock().unwrap_or_else(PoisonError::into_inner) = Some(Outdone {
            generation: fillers::beside(look.generation, newest),
            at: Instant::now(),
        });
        false
    }

    /// Resolves when a filler may be sent.
    pub async fn opened(&mut self) {
        tokio::time::sleep_until(self.not_before).await;
        loop {
            let look = *self.look.borrow_and_update();
            if look.at.elapsed() < FRESH {
                return;
            }
            if self.look.changed().await.is_err() {
                // The flow is ending: nothing may be filled any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Why the claim couldn't be looked at the last time.
    pub fn why_unseen(&self) -> String {
        let why = self.unseen.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone().unwrap_or_else(|| "no answer so far".to_owned())
    }
}

/// Why a claim is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The flow ends.
    Cancelled,
    /// A cut-over changed what the flow may copy: it must begin again. The claim is still held.
    RoleChanged,
    /// The next epoch of the fillers is one of another producer id: it must begin again.
    EpochsUsedUp,
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
    claim: Mutex<Claim>,
    /// Whose claim it took. If that one is the newest again, ours was lost.
    taken_from: Option<Uuid>,
    /// Whether the flow had a role when it began.
    had_role: bool,
    /// The one before didn't end in order: it may be running, and not know yet that it has lost the flow,
    /// or what it sent may still be under way.
    may_have_rival: bool,
    /// Whether all that was committed for groups before is remembered.
    memory: Memory,
    /// Whether that is so now, with what this process has committed.
    is_remembered: Arc<AtomicBool>,
    /// [`StateStore::shrunk`] when it began.
    shrunk: u64,
    look: watch::Sender<Look>,
    /// Why the last look failed, if it did.
    unseen: Arc<Mutex<Option<String>>>,
    /// Fillers that were sent so far, and how many of them and when the generation was last raised.
    filled: Arc<AtomicU64>,
    raised: Mutex<(u64, Instant)>,
}

/// What became of a try to claim a flow.
pub enum Claimed {
    /// It is ours.
    Held(Box<Held>),
    /// Somebody who began at the same moment has it.
    Lost(Claim),
}

/// Claims the flow for this process, which honours the role that it has read.
///
/// A claim stands when it was read back: two that begin at once see the same log, and its order
/// tells both the same. Behind this the store has all that was written before the claim.
///
/// # Errors
/// When the claim can't be written or read back.
pub async fn claim(
    store: &StateStore,
    flow: &str,
    role: Option<&RoleRecord>,
    machine: &dyn Machine,
) -> Result<Claimed, StateError> {
    let key = keys::claim(flow);
    let shrunk = store.shrunk();
    let owner = new_owner();
    let mut log: Vec<Claim> = store.in_order(&key)?;
    loop {
        let claim = Claim {
            v: 1,
            owner,
            host: machine.host(),
            pid: machine.pid(),
            claimed_at_ms: now_ms(),
            released: false,
            remembers_groups: false,
            left_open: standing(&log).is_some_and(|it| it.left_open || may_run(it, machine)),
            role_plan: role.map(|role| role.plan),
            generation: next_generation(&log),
            pace_ms: 0,
        };
        store.put(&key, &claim).await?;
        // What is written while it is read back may be missed by it.
        let looked_at = Instant::now();
        store.refresh().await?;
        log = store.in_order(&key)?;
        match read_back(&log, &claim) {
            ReadBack::Stands { before } => {
                let wait = wait_for(flow, before, machine);
                let not_before = Instant::now() + wait;
                let (sender, look) = watch::channel(Look {
                    at: looked_at,
                    generation: claim.generation,
                });
                let filled = Arc::new(AtomicU64::new(0));
                let unseen = Arc::new(Mutex::new(None));
                let memory = memory_of(before, shrunk);
                return Ok(Claimed::Held(Box::new(Held {
                    fence: Fence {
                        not_before,
                        look,
                        unseen: unseen.clone(),
                        filled: filled.clone(),
                        outdone: Arc::default(),
                        awake: Arc::default(),
                    },
                    unseen,
                    filled,
                    raised: Mutex::new((0, Instant::now())),
                    flow: flow.to_owned(),
                    not_copied: role.and_then(RoleRecord::not_copied).cloned(),
                    key,
                    taken_from: before.map(|before| before.owner),
                    claim: Mutex::new(claim),
                    had_role: role.is_some(),
                    may_have_rival: before.is_some_and(|before| !before.released),
                    memory,
                    is_remembered: Arc::new(AtomicBool::new(memory == Memory::Whole)),
                    shrunk,
                    look: sender,
                })));
            }
            ReadBack::Again => {}
            ReadBack::Lost(newer) => return Ok(Claimed::Lost(newer.clone())),
        }
    }
}

fn wait_for(flow: &str, before: Option<&Claim>, machine: &dyn Machine) -> Duration {
    let Some(before) = before.filter(|before| may_run(before, machine)) else {
        return Duration::ZERO;
    };
    tracing::warn!(
        flow,
        previous_host = host_name(&before.host),
        previous_pid = before.pid,
        "another Twinlog may still run this flow; holes are filled after {} ms",
        TAKEOVER.as_millis()
    );
    TAKEOVER
}

/// The claim that stands, of all in the log's order.
///
/// A lower generation than the one that stands was written by somebody who hadn't seen it: one who
/// gives back, or renews, what he has lost. Of equal ones the first stands; whoever wrote the other
/// reads that back, and claims again. Without a generation the newest stands, as it did for those
/// who give none.
pub fn standing(log: &[Claim]) -> Option<&Claim> {
    let newer = |stands: Option<&'_ Claim>, claim: &Claim| {
        stands.is_none_or(|stands| {
            claim.generation == 0
                || claim.generation > stands.generation
                || (claim.generation == stands.generation && claim.owner == stands.owner)
        })
    };
    let mut stands = None;
    for claim in log {
        if newer(stands, claim) {
            stands = Some(claim);
        }
    }
    stands
}

/// The claim that stands, as far as the store was read.
///
/// # Errors
/// When a claim can't be read.
pub fn current(store: &StateStore, flow: &str) -> Result<Option<Claim>, StateError> {
    let log: Vec<Claim> = store.in_order(&keys::claim(flow))?;
    Ok(standing(&log).cloned())
}

/// Whether what is remembered of the flow's groups has all that was committed for them. Who has stopped for `plan` and
/// claimed the flow again copies none of its topics any more: the claim before that one tells.
///
/// # Errors
/// When a claim can't be read.
pub fn memory(store: &StateStore, flow: &str, plan: Option<Uuid>) -> Result<Memory, StateError> {
    let log: Vec<Claim> = store.in_order(&keys::claim(flow))?;
    Ok(memory_in(&log, plan, store.shrunk()))
}

fn memory_in(log: &[Claim], plan: Option<Uuid>, shrunk: u64) -> Memory {
    let Some(stands) = standing(log) else {
        return memory_of(None, shrunk);
    };
    let has_obeyed = plan.is_some() && stands.role_plan == plan && !stands.released;
    if !has_obeyed {
        return memory_of(Some(stands), shrunk);
    }
    let at = log.iter().position(|claim| is_same(claim, stands));
    let before = at.and_then(|at| standing(&log[..at]));
    // Compaction may have taken it.
    before.map_or(Memory::MayLackTheLast, |it| memory_of(Some(it), shrunk))
}

/// What the claim before says of it. A state topic that has lost its newest records (`shrunk`) has lost those, too.
fn memory_of(before: Option<&Claim>, shrunk: u64) -> Memory {
    let is_told = before.is_none_or(|before| before.released && before.remembers_groups);
    match is_told && shrunk == 0 {
        true => Memory::Whole,
        false => Memory::MayLackTheLast,
    }
}

/// The generation of a claim that is to stand.
pub fn next_generation(log: &[Claim]) -> u64 {
    let highest = log.iter().map(|claim| claim.generation).max();
    highest.unwrap_or(0).saturating_add(1)
}

#[derive(Debug, PartialEq, Eq)]
enum ReadBack<'a> {
    /// `before` is whose claim stood until then.
    Stands { before: Option<&'a Claim> },
    /// Somebody whom we hadn't seen came first.
    Again,
    /// Somebody came after us.
    Lost(&'a Claim),
}

/// What the log says of a claim that was written.
///
/// Two begin at once, A first in the log. B has A in front of it, so it claims again, behind A, and
/// waits for A as for anybody who may be alive. A either has B's second claim behind its own and ends before
/// it has filled anything, or it was too early to see it: then it sees it at its next look, and
/// until then it fills, which B waits for. With three it is the same: whoever is last in the log
/// has all the others in front of it, and no two have the same one in front.
fn read_back<'a>(log: &'a [Claim], ours: &Claim) -> ReadBack<'a> {
    let at = log.iter().position(|claim| is_same(claim, ours));
    let (Some(at), Some(stands)) = (at, standing(log)) else {
        // So many came behind it that it isn't kept.
        return ReadBack::Again;
    };
    let in_front = &log[..at];
    if is_same(stands, ours) {
        let before = standing(in_front);
        ReadBack::Stands { before }
    } else if in_front.iter().any(|claim| is_same(claim, stands)) {
        ReadBack::Again
    } else {
        ReadBack::Lost(stands)
    }
}

/// Whether one is the other, or it given back or renewed.
fn is_same(one: &Claim, other: &Claim) -> bool {
    one.owner == other.owner && one.generation == other.generation
}

/// How long a cut-over waits for the first sign of an owner that may be alive, and for the next one: he
/// sees the role at his next look. `way` is added for how far away we are. Whoever needs more than `most`, as far
/// as can be told, isn't waited for any longer: what he told may be long past, and he may be gone.
pub fn patience(claim: &Claim, way: Duration, most: Duration) -> Duration {
    let needed = TAKEOVER.max(Duration::from_millis(claim.pace_ms.saturating_mul(3)));
    (needed + way).min(most.max(TAKEOVER))
}

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
    /// Whether something of the owner before may still come: it didn't end in order.
    pub fn may_have_rival(&self) -> bool {
        self.may_have_rival
    }

    /// Whether all that was committed for groups before is remembered.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Where it is said whether all is remembered that was committed for groups until now: what the claim says when it
    /// is given back.
    pub fn is_remembered(&self) -> Arc<AtomicBool> {
        self.is_remembered.clone()
    }

    /// Looks at the claim, and at the flow's role, until one of them is another or it is cancelled.
    pub async fn keep(
        &self,
        store: &StateStore,
        cancel: &CancellationToken,
    ) -> Result<Kept, FlowError> {
        let mut answers = Answers::default();
        let mut pace = Pace::new(Instant::now());
        let mut haste = Haste::default();
        loop {
            let pause = haste.pause(store, &self.flow, LOOK_EVERY);
            tokio::select! {
                () = cancel.cancelled() => return Ok(Kept::Cancelled),
                () = tokio::time::sleep(pause) => {}
            }
            // A standstill until here is behind us when this look begins.
            self.fence.awake.note();
            let before = Instant::now();
            let looked = async {
                match haste.is_under_way(store, &self.flow) {
                    true => store.refresh_ahead().await,
                    false => store.refresh().await,
                }
            };
            let (refreshed, took) = while_it_ran(&self.fence.awake, looked).await;
            *self.unseen.lock().unwrap_or_else(PoisonError::into_inner) =
                refreshed.as_ref().err().map(ToString::to_string);
            match refreshed {
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
            let role = store.get::<RoleRecord>(&keys::role(&self.flow));
            if let Ok(role) = &role
                && role.as_ref().and_then(RoleRecord::not_copied) != self.not_copied.as_ref()
            {
                // Before the claim is looked at: a cut-over takes it from an owner who was silent,
                // and he, too, looks after the old primary from then on.
                return Ok(Kept::RoleChanged);
            }
            let log = match store.in_order::<Claim>(&self.key) {
                Ok(log) => log,
                Err(StateError::Newer { .. }) => {
                    let newer = "it is of a newer version".to_owned();
                    return Err(FlowError::Superseded(newer));
                }
                // What isn't understood is no look.
                Err(_) => continue,
            };
            let ours = self.ours();
            match standing(&log) {
                Some(stands) if stands.owner != ours.owner => {
                    self.fence.awake.end();
                    return Err(superseded(stands));
                }
                stands => {
                    // A generation counts once it was read back.
                    let generation = stands.map_or(ours.generation, |stands| stands.generation);
                    let _ = self.look.send(Look {
                        at: before,
                        generation,
                    });
                }
            }
            if ends_era(&ours, self.is_worn()) {
                return Ok(Kept::EpochsUsedUp);
            }
            let plan = role.ok().flatten().map(|role| role.plan);
            // What is written may wait for a replica that hangs, and the looks must go on.
            let told_ms = pace.told_ms(self.ours().pace_ms, before);
            let writes_at = Instant::now();
            let written = async {
                self.renew(store, log.last(), plan, before, told_ms).await;
                self.answer(store, &mut answers).await;
            };
            let _ = tokio::time::timeout(WRITE_WITHIN, written).await;
            let wrote = writes_at.elapsed().min(WRITE_WITHIN);
            pace.note(LOOK_EVERY + took + wrote, Instant::now());
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
        let ours = self.ours().owner;
        match current(store, &self.flow) {
            // Whoever claimed it since then is newer; a claim that ours took is not.
            Ok(Some(stands)) if stands.owner != ours && Some(stands.owner) != self.taken_from => {
                Err(superseded(&stands))
            }
            _ => Ok(()),
        }
    }

    /// Writes the claim again where the log needs it.
    async fn renew(
        &self,
        store: &StateStore,
        newest: Option<&Claim>,
        plan: Option<Uuid>,
        looked_at: Instant,
        pace_ms: u64,
    ) {
        // What isn't copied is the same as when the flow began.
        let obeyed = plan.filter(|_| self.not_copied.is_some());
        let is_worn = self.is_worn();
        let ours = self.ours();
        let outdone = *self
            .fence
            .outdone
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A look that began behind it has shown every claim that such a filler is of.
        let outdone = outdone.filter(|outdone| outdone.at < looked_at);
        let generation = outdone
            .map_or(0, |outdone| fillers::next_in_era(outdone.generation))
            .max(ours.generation + u64::from(is_worn));
        let renewed = match renewal(&ours, newest, obeyed, generation) {
            Some(renewed) => Claim { pace_ms, ..renewed },
            None if pace_ms != ours.pace_ms => Claim { pace_ms, ..ours },
            None => return,
        };
        match store.put(&self.key, &renewed).await {
            Ok(()) => {
                *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = renewed;
                if is_worn {
                    *self.raised.lock().unwrap_or_else(PoisonError::into_inner) =
                        (self.filled.load(Ordering::Relaxed), Instant::now());
                }
            }
            Err(error) => tracing::debug!(%error, "the claim could not be written again"),
        }
    }

    /// Gives a sign of life where somebody has asked for one.
    async fn answer(&self, store: &StateStore, answers: &mut Answers) {
        // What can't be read is no question.
        let Ok(Some(asked)) = store.get(&keys::turn(&self.flow)) else {
            return;
        };
        let Some(beat) = answers.to(&asked, self.ours().owner) else {
            return;
        };
        match store.put(&keys::beat(&self.flow), &beat).await {
            Ok(()) => answers.note(asked),
            Err(error) => tracing::debug!(%error, "a sign of life could not be written"),
        }
    }

    /// Gives signs of life, for as long as it is asked to: a cut-over waits for the end of an owner who
    /// has seen the role and has much to end.
    pub async fn live(&self, store: &StateStore) {
        let key = keys::beat(&self.flow);
        let owner = self.ours().owner;
        loop {
            // Who ends sooner needs none.
            tokio::time::sleep(LOOK_EVERY).await;
            let known = store.get::<Beat>(&key).ok().flatten();
            let number = known.filter(|beat| beat.owner == owner);
            let beat = Beat {
                v: 1,
                owner,
                number: number.map_or(0, |beat| beat.number) + 1,
            };
            if let Err(error) = store.put(&key, &beat).await {
                tracing::debug!(%error, "a sign of life could not be written");
            }
        }
    }

    /// Whether the fillers want another epoch. The target's cleaner keeps every marker of a producer's
    /// newest epoch (`Cleaner.isBatchLastRecordOfProducer`), each a batch of its own: without a new epoch
    /// the copy of a compacted topic would only grow.
    fn is_worn(&self) -> bool {
        let (filled, at) = *self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        self.filled.load(Ordering::Relaxed) - filled >= WORN_AFTER_FILLERS
            && at.elapsed() >= WORN_AFTER
    }

    /// The claim's generation.
    pub fn generation(&self) -> u64 {
        self.ours().generation
    }

    fn ours(&self) -> Claim {
        let claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        claim.clone()
    }

    /// When it was taken, milliseconds since the epoch.
    pub fn claimed_at_ms(&self) -> i64 {
        self.ours().claimed_at_ms
    }

    /// Gives the claim back, unless somebody else has it. Whoever takes it at the same moment has a
    /// higher generation, which this doesn't touch. `has_copied`: everything that the source had while it was held.
    pub async fn release(&self, store: &StateStore, has_copied: bool) {
        let ours = self.ours();
        // Whoever cuts over waits for this.
        if store.refresh_ahead().await.is_ok()
            && let Ok(Some(current)) = current(store, &self.flow)
            && current.owner != ours.owner
        {
            return;
        }
        let released = Claim {
            released: true,
            remembers_groups: self.is_remembered.load(Ordering::Relaxed),
            // What a silent one before may still send has been copied since, and the broker knows it.
            left_open: ours.left_open && !has_copied,
            ..ours
        };
        if let Err(error) = store.put(&self.key, &released).await {
            tracing::debug!(%error, "the claim could not be given back");
        }
    }
}

/// How long looks take that come through, from one to the next: the slowest ones of the last time.
#[derive(Debug)]
struct Pace {
    since: Instant,
    slowest: Duration,
    /// Of the time before that one.
    before: Option<Duration>,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            slowest: Duration::ZERO,
            before: None,
        }
    }

    fn note(&mut self, took: Duration, now: Instant) {
        self.go_on(now);
        self.slowest = self.slowest.max(took);
    }

    fn go_on(&mut self, now: Instant) {
        if now.duration_since(self.since) >= PACE_OF {
            self.before = Some(self.slowest);
            (self.since, self.slowest) = (now, Duration::ZERO);
        }
    }

    /// What a claim is to tell that tells this: only what is much slower is news, or, once that is known, much faster.
    fn told_ms(&mut self, told_ms: u64, now: Instant) -> u64 {
        self.go_on(now);
        let slowest = self.slowest.max(self.before.unwrap_or_default());
        let slowest_ms = u64::try_from(slowest.as_millis()).unwrap_or(u64::MAX);
        let is_slower = slowest_ms > PACE_MS.max(told_ms.saturating_mul(2));
        let is_faster = self.before.is_some() && slowest_ms < told_ms / 2;
        match (is_slower, is_faster) {
            (true, _) => slowest_ms,
            (_, true) if slowest_ms > PACE_MS => slowest_ms,
            (_, true) => 0,
            _ => told_ms,
        }
    }
}

/// What something took while this process ran.
async fn while_it_ran<T>(awake: &Awake, work: impl Future<Output = T>) -> (T, Duration) {
    tokio::pin!(work);
    let mut took = Duration::ZERO;
    loop {
        let began = Instant::now();
        let done = tokio::time::timeout(TICK, &mut work).await;
        took += began.elapsed().min(TICK_MAX);
        awake.note();
        if let Ok(done) = done {
            return (done, took);
        }
    }
}

/// Whether the next epoch of the fillers is one of another producer id.
fn ends_era(ours: &Claim, is_worn: bool) -> bool {
    is_worn && fillers::era(ours.generation + 1) != fillers::era(ours.generation)
}

/// How a claim that stands must be written again, if it must. A second plan for what isn't copied
/// anyway is obeyed already, and whoever waits for that reads it in the claim. And compaction would
/// leave only what somebody wrote behind us about a claim that he had lost.
fn renewal(
    ours: &Claim,
    newest: Option<&Claim>,
    obeyed: Option<Uuid>,
    generation: u64,
) -> Option<Claim> {
    let role_plan = obeyed.or(ours.role_plan);
    let is_newest = newest.is_none_or(|newest| newest.owner == ours.owner);
    let is_needed = !is_newest || role_plan != ours.role_plan || generation > ours.generation;
    is_needed.then(|| Claim {
        role_plan,
        generation,
        ..ours.clone()
    })
}

/// Why a flow ends whose claim another has.
pub fn superseded(by: &Claim) -> FlowError {
    FlowError::Superseded(format!(
        "process {} on {} since {}",
        by.pid,
        host_name(&by.host),
        utc::to_the_second(by.claimed_at_ms)
    ))
}

/// The machine's name, without what tells it from another of that name.
fn host_name(host: &str) -> &str {
    host.split('/').next().unwrap_or(host)
}

/// Version 4 layout with random bits; only uniqueness matters.
pub(super) fn new_owner() -> Uuid {
    Uuid::from_u128(rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::simulated;

    fn claim_of(host: &str, pid: u32, released: bool) -> Claim {
        Claim {
            v: 1,
            owner: Uuid::nil(),
            host: host.to_owned(),
            pid,
            claimed_at_ms: 0,
            released,
            remembers_groups: false,
            left_open: false,
            role_plan: None,
            generation: 0,
            pace_ms: 0,
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
    fn who_is_slow_says_so_and_is_waited_for() {
        let ms = Duration::from_millis;
        let pace_ms = |told_ms, slowest| {
            let now = Instant::now();
            let mut pace = Pace::new(now);
            pace.note(slowest, now);
            pace.told_ms(told_ms, now)
        };
        assert_eq!(pace_ms(0, ms(800)), 0, "as ever");
        assert_eq!(pace_ms(0, ms(2_500)), 2_500);
        assert_eq!(pace_ms(2_500, ms(4_000)), 2_500, "no news");
        assert_eq!(pace_ms(2_500, ms(9_000)), 9_000);
        let slow = slow(2_500);
        assert_eq!(patience(&slow, ms(400), ms(10_000)), ms(7_900));
        let quick = claim_of("b/2", 9, false);
        assert_eq!(patience(&quick, ms(0), ms(10_000)), TAKEOVER);
    }

    fn slow(pace_ms: u64) -> Claim {
        Claim {
            pace_ms,
            ..claim_of("b/2", 9, false)
        }
    }

    #[test]
    fn who_told_of_a_pause_long_ago_is_not_waited_for_as_long() {
        let ms = Duration::from_millis;
        let unplanned = ms(10_000);
        assert_eq!(patience(&slow(30_000), ms(0), unplanned), unplanned);
        assert_eq!(patience(&slow(0), ms(120_000), unplanned), unplanned);
        assert_eq!(patience(&slow(u64::MAX), ms(1), ms(60_000)), ms(60_000));
        assert_eq!(patience(&slow(0), ms(0), ms(1_000)), TAKEOVER, "one look");
    }

    #[test]
    fn the_pace_falls_when_a_bad_time_is_over() {
        let ms = Duration::from_millis;
        let began = Instant::now();
        let mut pace = Pace::new(began);
        pace.note(ms(9_000), began);
        assert_eq!(pace.told_ms(0, began), 9_000);
        let mut told = 9_000;
        let mut changes = Vec::new();
        for second in 1..=200 {
            let now = began + Duration::from_secs(second);
            pace.note(ms(750), now);
            let next = pace.told_ms(told, now);
            if next != told {
                changes.push((second, next));
            }
            told = next;
        }
        assert_eq!(changes, [(120, 0)], "at once, and once");
    }

    #[test]
    fn who_is_not_kept_waiting_is_not_slow() {
        simulated(|| async {
            let awake = Awake::default();
            let (done, took) = while_it_ran(&awake, async { 7 }).await;
            assert!(done == 7 && took < TICK, "{took:?}");
        });
    }

    #[tokio::test]
    async fn a_process_that_stood_still_is_not_slow() {
        let awake = Awake::default();
        // Nothing of this process runs meanwhile.
        let still = TICK_MAX + Duration::from_millis(300);
        let (_, took) = while_it_ran(&awake, async { std::thread::sleep(still) }).await;
        assert!(took <= TICK_MAX, "{took:?}");
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

    fn of(owner: u128, generation: u64, released: bool) -> Claim {
        Claim {
            owner: Uuid::from_u128(owner),
            generation,
            ..claim_of("b/2", 9, released)
        }
    }

    #[test]
    fn what_was_written_without_having_seen_the_claim_that_stands_is_nothing() {
        let stands = of(2, 2, false);
        let given_back_late = [of(1, 1, false), stands.clone(), of(1, 1, true)];
        assert_eq!(standing(&given_back_late), Some(&stands));
        let at_once = [stands.clone(), of(3, 2, false)];
        assert_eq!(standing(&at_once), Some(&stands));
        let given_back = [stands.clone(), of(2, 2, true)];
        assert_eq!(standing(&given_back), Some(&given_back[1]));
    }

    #[test]
    fn only_who_gave_the_claim_back_behind_its_last_commits_has_left_all_of_them() {
        let plan = Some(Uuid::from_u128(7));
        let given_back = |owner, generation| Claim {
            remembers_groups: true,
            ..of(owner, generation, true)
        };
        let obeying = Claim {
            role_plan: plan,
            ..of(1, 2, false)
        };
        let lacks = Memory::MayLackTheLast;
        for (log, expected) in [
            (vec![], Memory::Whole),
            (vec![given_back(1, 1)], Memory::Whole),
            (vec![of(1, 1, false)], lacks),
            (vec![of(1, 1, true)], lacks),
            (vec![given_back(1, 1), of(2, 2, false)], lacks),
            (vec![given_back(1, 1), obeying.clone()], Memory::Whole),
            (vec![of(1, 1, false), obeying.clone()], lacks),
            (vec![obeying], lacks),
        ] {
            assert_eq!(memory_in(&log, plan, 0), expected, "{log:?}");
            assert_eq!(
                memory_in(&log, plan, 1),
                lacks,
                "its newest records are lost"
            );
        }
    }

    #[test]
    fn of_those_without_a_generation_the_newest_stands() {
        let log = [of(1, 0, false), of(2, 4, false), of(3, 0, false)];
        assert_eq!(standing(&log), Some(&log[2]));
        assert_eq!(next_generation(&log), 5, "above all that there were");
    }

    #[test]
    fn a_second_plan_for_what_is_not_copied_is_put_into_the_claim() {
        let plan = |number| Some(Uuid::from_u128(number));
        let ours = Claim {
            role_plan: plan(1),
            ..of(2, 2, false)
        };
        assert_eq!(renewal(&ours, Some(&ours), plan(1), 2), None);
        assert_eq!(
            renewal(&ours, Some(&ours), None, 2),
            None,
            "nothing is obeyed"
        );
        let renewed = renewal(&ours, Some(&ours), plan(7), 2).expect("another plan");
        assert_eq!(renewed.role_plan, plan(7));
        assert!(is_same(&renewed, &ours));
        let late = of(1, 1, true);
        assert_eq!(renewal(&ours, Some(&late), plan(1), 2), Some(ours.clone()));
    }

    #[test]
    fn worn_fillers_get_a_generation_of_their_own() {
        let ours = of(2, 4, false);
        let raised = renewal(&ours, Some(&ours), None, 5).expect("a generation");
        assert_eq!((raised.generation, raised.owner), (5, ours.owner));
        let log = [ours, raised.clone()];
        assert_eq!(standing(&log), Some(&raised));
        // Who began meanwhile with the same number comes behind it, and claims again.
        let newer = of(3, 5, false);
        let log = [log[0].clone(), raised, newer.clone()];
        assert_eq!(read_back(&log, &newer), ReadBack::Again);
    }

    #[test]
    fn worn_fillers_of_the_last_epoch_get_another_id() {
        assert!(ends_era(&of(2, 32_765, false), true));
        assert!(!ends_era(&of(2, 32_765, false), false));
        assert!(!ends_era(&of(2, 32_766, false), true));
    }

    /// A process that begins, one step at a time.
    struct Starter {
        owner: u128,
        seen: usize,
        written: Option<u64>,
        end: Option<End>,
    }

    #[derive(Debug)]
    enum End {
        Lost,
        /// Who stood before, and how much of the log had been read.
        Holds {
            before: Option<Uuid>,
            read: usize,
        },
    }

    impl Starter {
        fn step(&mut self, log: &mut Vec<Claim>) {
            match self.written.take() {
                None => {
                    let generation = next_generation(&log[..self.seen]);
                    log.push(of(self.owner, generation, false));
                    self.written = Some(generation);
                }
                Some(generation) => {
                    self.seen = log.len();
                    match read_back(log, &of(self.owner, generation, false)) {
                        ReadBack::Stands { before } => {
                            let before = before.map(|before| before.owner);
                            let read = log.len();
                            self.end = Some(End::Holds { before, read });
                        }
                        ReadBack::Again => {}
                        ReadBack::Lost(_) => self.end = Some(End::Lost),
                    }
                }
            }
        }
    }

    /// Plays `starters` at once, in an order that `dice` tells, and says how each ended.
    fn play(starters: u128, dice: &[usize]) -> (Vec<Claim>, Vec<Starter>) {
        let mut log = vec![of(99, 3, true)];
        let mut all: Vec<Starter> = (1..=starters)
            .map(|owner| Starter {
                owner,
                seen: 1,
                written: None,
                end: None,
            })
            .collect();
        let mut dice = dice.iter().cycle();
        for _ in 0..200 {
            let mut going: Vec<_> = all.iter_mut().filter(|it| it.end.is_none()).collect();
            if going.is_empty() {
                return (log, all);
            }
            let at = dice.next().expect("a cycle") % going.len();
            going[at].step(&mut log);
        }
        panic!("they don't come to an end: {log:?}");
    }

    /// One stands in the end. Whoever else held it had read the log before the claim that stands, so
    /// it goes on for `FRESH` at most, and each that came behind knows of one in front to wait for.
    fn judge(log: &[Claim], all: &[Starter]) {
        let stands = standing(log).expect("somebody has it");
        let mut without_a_wait = 0;
        for starter in all {
            let is_last = Uuid::from_u128(starter.owner) == stands.owner;
            match starter.end.as_ref().expect("an end") {
                End::Lost => assert!(!is_last, "{log:?}"),
                End::Holds { before, read } => {
                    assert!(is_last || *read < log.len(), "{log:?}");
                    without_a_wait += usize::from(*before == Some(Uuid::from_u128(99)));
                }
            }
        }
        assert!(without_a_wait <= 1, "{log:?}");
        let generations = log.iter().filter(|claim| standing(log) == Some(*claim));
        assert_eq!(generations.count(), 1, "{log:?}");
    }

    #[test]
    fn of_two_that_begin_at_once_one_has_it_whatever_the_order() {
        for order in 0..1_usize << 10 {
            let dice: Vec<usize> = (0..10).map(|bit| order >> bit & 1).collect();
            let (log, all) = play(2, &dice);
            judge(&log, &all);
        }
    }

    #[test]
    fn of_three_that_begin_at_once_one_has_it_whatever_the_order() {
        for order in 0..6_usize.pow(6) {
            let dice: Vec<usize> = (0..6).map(|at| order / 6_usize.pow(at) % 6).collect();
            let (log, all) = play(3, &dice);
            judge(&log, &all);
        }
    }
}
