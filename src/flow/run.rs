//! The life of a flow: connect, claim, run, stop in order.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::{DashMap, DashSet};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::claim::{self, Claimed, Held, Kept};
use super::copy_back::CopyBack;
use super::deleted::Undeleted;
use super::discovery;
use super::error::FlowError;
use super::fenceable;
use super::fillers::{Fillers, era};
use super::followers;
use super::guard;
use super::identity::{expect_source, source_reason, target_reason};
use super::leaders::{self, Left};
use super::left_behind::LeftBehind;
use super::limits;
use super::metadata::{Copies, context, own_principal};
use super::missed::Before;
use super::needs::TopicNeeds;
use super::observed;
use super::open_plan;
use super::position::Producers;
use super::protect;
use super::remote;
use super::role;
use super::shared::Flow;
use super::stamped::{self, Doubts};
use super::standby;
use super::succession;
use super::supervisor::Supervisor;
use super::throttle::Throttle;
use super::traffic::Sides;
use crate::config::{ClusterSection, FlowConfig, OffsetsMode, OnDiverged};
use crate::connect::cluster;
use crate::environment::Machine;
use crate::groups::mirrormaker::CompatWriter;
use crate::groups::{self, Follow, View, Views};
use crate::metadata;
use crate::state::{
    FillerRecord, FlowRecord, Memory, RoleRecord, StateError, StateStore, keys, mend_settings,
};
use crate::tasks::Tasks;
use crate::telemetry::groups::GroupKind;
use crate::telemetry::progress::{FlowProgress, FlowState, PartitionProgress};
use crate::verify::{self, Background};
use crate::wire::{self, Cluster, Metadata, WireError};

/// How long a stopping flow waits for its last answers.
const DRAIN: Duration = Duration::from_secs(7);
/// When a stopping flow is done, whatever hangs; service managers kill after 10 s.
const STOP: Duration = Duration::from_secs(9);
/// The same where a cut-over stops it: over a distance much is under way, and the command sees that it lives.
const OBEYS: Duration = Duration::from_secs(60);
/// The pause between tries to begin.
const AGAIN: Duration = Duration::from_millis(500);
/// A source that hasn't answered by then may not be needed: the role is looked at first.
const NEEDED_AFTER: Duration = Duration::from_secs(1);
/// Two processes that make a new era's producer id at once agree on it after this.
const AGREE: Duration = Duration::from_millis(200);

/// Runs a flow until it is cancelled or must end.
///
/// A cluster that can't be reached is waited for, and shown. Cancelling stops fetching, waits for
/// what is on its way (7 s at most), stores the maps and gives the claim back.
///
/// # Errors
/// Only what no waiting can mend: both clusters are the same, the state is lost, or a task of the flow ended
/// that should have gone on. One that another Twinlog took over waits for its turn.
pub async fn run_flow(
    config: FlowConfig,
    source: ClusterSection,
    target: ClusterSection,
    progress: Arc<FlowProgress>,
    cancel: CancellationToken,
) -> Result<(), FlowError> {
    let own_principal = own_principal(&config, &target);
    let sections = (source, target);
    let back = || CopyBack::new(&config, (&sections.0, &sections.1), &progress, &cancel);
    let (source, target) = (cluster(&sections.0), cluster(&sections.1));
    progress.set_traffic(Arc::new(Sides(source.clone(), target.clone())));
    let machine = sections.1.environment.machine.as_ref();
    loop {
        let own_principal = own_principal.clone();
        let begun = begin(
            &config,
            (&source, &target),
            own_principal,
            machine,
            &progress,
        );
        let Some(begun) = cancel.run_until_cancelled(begun).await else {
            return Ok(());
        };
        let (reason, error) = match begun {
            Ok(Begun::NotPrimary(store)) => {
                if let Err(error) =
                    role::stand_by(&config, &source, &store, &progress, back(), &cancel).await
                {
                    let detail = error.to_string();
                    progress.set_state(FlowState::Stopped {
                        reason: error.reason(),
                        detail,
                    });
                    return Err(error);
                }
                if !cancel.is_cancelled() {
                    progress.set_state(FlowState::Starting);
                    continue;
                }
                return Ok(());
            }
            Ok(Begun::RoleChanged) => continue,
            Ok(Begun::Copying(flow, held)) => {
                match go(flow, held, &sections, back(), &cancel).await {
                    Ok(Kept::RoleChanged) => {
                        tracing::info!(flow = %config.name, "a cut-over changed what is copied");
                        retire_partitions(&progress);
                        continue;
                    }
                    Ok(Kept::EpochsUsedUp) => {
                        tracing::info!(
                            flow = %config.name,
                            "the producer id of the fillers has no more epochs; the flow begins again with another"
                        );
                        retire_partitions(&progress);
                        continue;
                    }
                    Ok(Kept::StateShrunk) => {
                        tracing::warn!(
                            flow = %config.name,
                            "the state topic lost its newest records; the flow begins again by what is left"
                        );
                        retire_partitions(&progress);
                        continue;
                    }
                    Ok(Kept::Cancelled) => {
                        let detail = "stopped in order".to_owned();
                        progress.set_state(FlowState::Stopped {
                            reason: "shutdown",
                            detail,
                        });
                        return Ok(());
                    }
                    Err(error) => (error.reason(), error),
                }
            }
            Err(failure) => failure,
        };
        let (reason, error) = match error {
            FlowError::Superseded(_) => {
                retire_partitions(&progress);
                let detail = format!("{error}; this one goes on when that one is gone");
                progress.set_state(FlowState::Waiting { reason, detail });
                tracing::warn!(flow = %config.name, "{error}; this one waits for its turn");
                let turn = succession::await_turn(&config.name, &target, machine);
                match cancel.run_until_cancelled(turn).await {
                    None => return Ok(()),
                    Some(Ok(why)) => {
                        tracing::warn!(flow = %config.name, "takes the flow over: {}", why.in_words());
                        progress.set_state(FlowState::Starting);
                        continue;
                    }
                    Some(Err(error)) => (error.reason(), error),
                }
            }
            error => (reason, error),
        };
        let detail = error.to_string();
        if !matches!(error, FlowError::Wire(_)) {
            progress.set_state(FlowState::Stopped { reason, detail });
            return Err(error);
        }
        if progress.set_state(FlowState::Waiting { reason, detail }) {
            tracing::warn!(flow = %config.name, reason, "{error}; it is tried again");
        }
        if cancel
            .run_until_cancelled(tokio::time::sleep(AGAIN))
            .await
            .is_none()
        {
            return Ok(());
        }
    }
}

/// Nothing that was copied so far is shown as being copied.
fn retire_partitions(progress: &FlowProgress) {
    let keys: Vec<_> = progress
        .partitions
        .iter()
        .map(|entry| entry.key().clone())
        .collect();
    for key in keys {
        progress.retire_partition(&key);
    }
    progress.topics.clear();
}

type Failure = (&'static str, FlowError);

/// How a flow begins.
enum Begun {
    /// With copying.
    Copying(Arc<Flow>, Held),
    /// Its target is the primary: with nothing.
    NotPrimary(StateStore),
    /// A cut-over changed what may be copied in the meantime: it must begin again.
    RoleChanged,
}

fn target_wire(error: WireError) -> Failure {
    (target_reason(&error), FlowError::Wire(error))
}

fn source_failure(error: StateError) -> Failure {
    match error {
        StateError::Wire(error) => (source_reason(&error), FlowError::Wire(error)),
        other => ("state", FlowError::State(other.to_string())),
    }
}

fn target_failure(error: StateError) -> Failure {
    match error {
        StateError::Wire(error) => target_wire(error),
        StateError::Lost(loss) => ("state_lost", FlowError::StateLost(loss.to_string())),
        StateError::Settings { .. } => (
            "state_settings",
            FlowError::StateSettings(error.to_string()),
        ),
        StateError::Newer { .. } => ("state_newer", FlowError::StateNewer(error.to_string())),
        other => ("state", FlowError::State(other.to_string())),
    }
}

async fn begin(
    config: &FlowConfig,
    (source, target): (&Cluster, &Cluster),
    own_principal: Option<String>,
    machine: &dyn Machine,
    progress: &Arc<FlowProgress>,
) -> Result<Begun, Failure> {
    // Whoever takes longer goes on where he is: what was connected to by then isn't begun anew.
    let mut asked = std::pin::pin!(source.metadata(None));
    let from = tokio::time::timeout(NEEDED_AFTER, asked.as_mut());
    let (from, to) = tokio::join!(from, target.metadata(None));
    let to = to.map_err(target_wire)?;
    let from = match from {
        Ok(Ok(from)) => from,
        // After an unplanned failover the source may be gone, or hang, for long: nobody needs it then.
        late => {
            if let Some(store) = not_primary(target, config).await? {
                return Ok(Begun::NotPrimary(store));
            }
            let answer = match late {
                Ok(answer) => answer,
                Err(_) => asked.await,
            };
            answer.map_err(|error| (source_reason(&error), FlowError::Wire(error)))?
        }
    };
    refuse_same_cluster(&from, &to)?;
    let (store, may_fill) = tokio::join!(
        StateStore::open(target, &config.name),
        wire::probe_marker_right(target)
    );
    let store = store.map_err(target_failure)?;
    store.refuse_newer(&config.name).map_err(target_failure)?;
    let expected = expect_source(&store, &config.name, source);
    let role = role_of(&store, config)?;
    if role.as_ref().is_none_or(|role| !role.stops_all()) {
        // A flow whose target is the primary looks after an old primary only if it is still that one.
        expected.map_err(source_failure)?;
    }
    // A flow that copies back does so only when it was told to.
    let may_begin = role.is_some() || !config.is_back();
    let allowed = role::allowed(config, role.as_ref()).filter(|_| may_begin);
    let Some(config) = allowed else {
        return Ok(Begun::NotPrimary(store));
    };
    let may_fill = may_fill.map_err(target_wire)?;
    if !may_fill && config.offsets != OffsetsMode::Mapped {
        tracing::warn!(
            flow = %config.name,
            "holes can't be filled on the target, so offsets can't be identical: grant CLUSTER_ACTION on the cluster"
        );
    }
    // Behind all that a start may wait for and try again: once a start.
    mend_settings(target).await.map_err(target_failure)?;
    let held = claim::claim(&store, &config.name, role.as_ref(), machine)
        .await
        .map_err(target_failure)?;
    // A cut-over that found no claim doesn't wait for us: its role is in front of the claim, and was
    // read back with it.
    let held = match held {
        Claimed::Held(held) => held,
        Claimed::Lost(newer) => return Err(("superseded", claim::superseded(&newer))),
    };
    if role_of(&store, &config)? != role {
        held.release(&store, false).await;
        return Ok(Begun::RoleChanged);
    }
    let first = producers(&store, target, &config.name, from.cluster_id.clone()).await?;
    let fillers = fillers(&store, target, &config.name, era(held.generation())).await?;
    let budget = Budget::new(
        config.limits.in_flight_bytes,
        config.limits.partition_in_flight_bytes,
        progress.clone(),
    );
    let flow = Flow {
        source: source.clone(),
        target: target.clone(),
        needs: TopicNeeds::remembered(&store, &config.name),
        before: Before::remembered(&store, &config.name),
        store: Arc::new(store),
        producers: fillers.producers(first.data_id, first.filler_id),
        fillers,
        own_principal,
        may_fill,
        progress: progress.clone(),
        budget: Arc::new(budget),
        throttle: Arc::new(Throttle::new(config.limits.bytes_per_second)),
        open: DashMap::new(),
        opened: DashMap::new(),
        epochs: DashMap::new(),
        truncated: DashMap::new(),
        turned: DashMap::new(),
        strangers: DashSet::new(),
        moved: Mutex::default(),
        noted: Mutex::default(),
        told: Notify::new(),
        turning: DashMap::new(),
        left_behind: Arc::new(LeftBehind::default()),
        left: Left::default(),
        copies: Copies::default(),
        missed: DashMap::new(),
        compared: DashMap::new(),
        records: tokio::sync::Mutex::default(),
        topics: DashMap::new(),
        sources: DashMap::new(),
        stale: Mutex::default(),
        doubts: Doubts::default(),
        undeleted: Undeleted::default(),
        said_untold_epochs: AtomicBool::new(false),
        not_copied: role.as_ref().and_then(RoleRecord::not_copied).cloned(),
        config,
    };
    Ok(Begun::Copying(Arc::new(flow), *held))
}

/// The state of a flow that copies nothing, by its role.
async fn not_primary(target: &Cluster, config: &FlowConfig) -> Result<Option<StateStore>, Failure> {
    let store = StateStore::open_existing(target).await;
    let Some(store) = store.map_err(target_failure)? else {
        return Ok(None);
    };
    let role = role_of(&store, config)?;
    Ok(role.is_some_and(|role| role.stops_all()).then_some(store))
}

fn role_of(store: &StateStore, config: &FlowConfig) -> Result<Option<RoleRecord>, Failure> {
    store.get(&keys::role(&config.name)).map_err(target_failure)
}

fn refuse_same_cluster(source: &Metadata, target: &Metadata) -> Result<(), Failure> {
    match source.shared_with(target) {
        Some(shared) => Err(("same_cluster", FlowError::SameCluster(shared))),
        None => Ok(()),
    }
}

/// The flow's producer ids: made once, then read. The first ones in the log count, so two
/// processes that begin at the same moment end up with the same.
async fn producers(
    store: &StateStore,
    target: &Cluster,
    flow: &str,
    source_cluster_id: Option<String>,
) -> Result<Producers, Failure> {
    let key = keys::flow(flow);
    if store
        .get::<FlowRecord>(&key)
        .map_err(target_failure)?
        .is_none()
    {
        let (data_producer_id, _) = wire::init_producer_id(target).await.map_err(target_wire)?;
        let (filler_producer_id, _) = wire::init_producer_id(target).await.map_err(target_wire)?;
        let record = FlowRecord {
            v: 1,
            source_cluster_id,
            data_producer_id,
            filler_producer_id,
        };
        store.refresh().await.map_err(target_failure)?;
        if store
            .get::<FlowRecord>(&key)
            .map_err(target_failure)?
            .is_none()
        {
            store.put(&key, &record).await.map_err(target_failure)?;
        }
    }
    // Whoever came at the same moment reads behind his own record, as we do: both find the same one first.
    store.reload().await.map_err(target_failure)?;
    let (first, last): (Option<FlowRecord>, Option<FlowRecord>) = (
        store.first(&key).map_err(target_failure)?,
        store.get(&key).map_err(target_failure)?,
    );
    let Some(first) = first else {
        return Err((
            "state",
            FlowError::State(format!("{key} is missing right after it was written")),
        ));
    };
    if last.as_ref() != Some(&first) {
        // Compaction keeps the last value: make it the one that counts.
        store.put(&key, &first).await.map_err(target_failure)?;
    }
    Ok(Producers::first(
        first.data_producer_id,
        first.filler_producer_id,
    ))
}

/// The producer ids of the fillers of later eras; that of this one is made where it isn't there. Two
/// processes that make one at the same moment end up with the same, too.
async fn fillers(
    store: &StateStore,
    target: &Cluster,
    flow: &str,
    era: u64,
) -> Result<Fillers, Failure> {
    let known = Fillers::known(store, flow).map_err(target_failure)?;
    if known.era() >= era {
        return Ok(known);
    }
    let (producer_id, _) = wire::init_producer_id(target).await.map_err(target_wire)?;
    let record = FillerRecord {
        v: 1,
        era,
        producer_id,
    };
    let key = keys::filler(flow, era, producer_id);
    store.put(&key, &record).await.map_err(target_failure)?;
    tokio::time::sleep(AGREE).await;
    store.refresh().await.map_err(target_failure)?;
    Fillers::known(store, flow).map_err(target_failure)
}

/// Follows the flow's groups. Their trouble is theirs: the copy goes on.
async fn follow_groups(
    flow: Arc<Flow>,
    (may_have_rival, memory, is_remembered): (bool, Memory, Arc<AtomicBool>),
    (may_write, generation): (groups::MayWrite, u64),
    (tasks, cancel): (Tasks, CancellationToken),
) {
    let view = |kind| Arc::new(View::new(kind, flow.config.name.clone(), flow.clone()));
    let (view, shares) = (view(GroupKind::Consumer), view(GroupKind::Share));
    let views = Views::new(view.clone(), shares.clone());
    flow.progress.set_groups(Some(Arc::new(views)));
    let mirrormaker = flow.config.mirrormaker_compat.then(|| {
        let (source, target) = (flow.config.source.clone(), flow.config.target.clone());
        Arc::new(CompatWriter::new(flow.target.clone(), source, target))
    });
    if let Some(writer) = mirrormaker.clone() {
        let cancel = cancel.clone();
        tasks.spawn("writer of MirrorMaker's topics", async move {
            writer.run(cancel.clone()).await;
            // An alias that can't be written is said there; the groups themselves follow.
            cancel.cancelled().await;
        });
    }
    let follow = Follow {
        mirrormaker,
        flow: flow.config.name.clone(),
        groups: flow.config.groups.clone(),
        overwrite: flow.config.group_rules.on_diverged == OnDiverged::Follow,
        delete: flow.config.group_rules.delete,
        may_have_rival,
        generation,
        memory,
        is_remembered,
        source: flow.source.clone(),
        target: flow.target.clone(),
        store: flow.store.clone(),
        positions: flow.clone(),
        may_write,
    };
    let share_groups = follow_share_groups(follow.clone(), shares, cancel.clone());
    tasks.spawn("follower of share groups", share_groups);
    if let Err(error) = groups::follow(follow, view.clone(), &tasks, cancel.clone()).await {
        tracing::error!(flow = %flow.config.name, %error, "groups can't be followed");
        view.set_failed(&error.to_string());
        cancel.cancelled().await;
    }
    // The view knows the flow and the flow's progress knows the view: neither would ever end.
    flow.progress.set_groups(None);
}

async fn follow_share_groups(follow: Follow, view: Arc<View>, cancel: CancellationToken) {
    let flow = follow.flow.clone();
    let following = groups::follow_share_groups(follow, view.clone(), cancel.clone());
    if let Err(error) = following.await {
        tracing::error!(flow, %error, "share groups can't be followed");
        view.set_failed(&error.to_string());
        cancel.cancelled().await;
    }
}

async fn go(
    flow: Arc<Flow>,
    held: Held,
    sections: &(ClusterSection, ClusterSection),
    back: CopyBack,
    cancel: &CancellationToken,
) -> Result<Kept, FlowError> {
    let (work, keeping) = (cancel.child_token(), CancellationToken::new());
    // A panic in this very task must not leave the others copying.
    let _ends_with_us = work.clone().drop_guard();
    let tasks = Tasks::new(work.clone());
    let (found, discovered) = mpsc::unbounded_channel();
    let fence = held.fence.clone();
    let discovering = discovery::run(flow.clone(), found, work.clone());
    tasks.spawn("discovery of topics", discovering);
    let comparing = guard::watch_log_ends(flow.clone(), work.clone());
    tasks.spawn("watch over the target's log ends", comparing);
    let reading_back = stamped::watch(flow.clone(), work.clone());
    tasks.spawn("watch over the times of steps", reading_back);
    let asking = leaders::watch(flow.clone(), work.clone());
    tasks.spawn("watch over the leaders", asking);
    let locating = remote::watch(flow.clone(), work.clone());
    tasks.spawn("watch over remote storage", locating);
    let leaving = leaders::leave(flow.clone(), work.clone());
    tasks.spawn("watch over leaders that moved", leaving);
    let following = followers::watch(flow.clone(), work.clone());
    tasks.spawn("watch over the source's followers", following);
    let learning = guard::watch_log_starts(flow.clone(), work.clone());
    tasks.spawn("watch over the target's log starts", learning);
    let storing = guard::keep_progress(flow.clone(), work.clone());
    tasks.spawn("keeper of the progress", storing);
    let protecting = protect::keep(flow.clone(), work.clone());
    tasks.spawn("keeper of the protection", protecting);
    let fencing = fenceable::keep(flow.clone(), work.clone());
    tasks.spawn("look at the source's authorizer", fencing);
    let minding = standby::keep(flow.clone(), work.clone());
    tasks.spawn("look at what the standby asks of its replicas", minding);
    let limiting = limits::follow(flow.clone(), work.clone());
    tasks.spawn("keeper of the limits", limiting);
    let observing = observed::keep_ends(flow.clone(), work.clone());
    tasks.spawn("keeper of the observed ends", observing);
    let open_plan = open_plan::keep(
        flow.config.name.clone(),
        flow.store.clone(),
        flow.progress.clone(),
        work.clone(),
    );
    tasks.spawn("watch over an open cut-over", open_plan);
    if flow.has_failed_over() {
        let looking_after = role::look_after(
            flow.config.name.clone(),
            flow.source.clone(),
            flow.store.clone(),
            flow.progress.clone(),
            back,
            work.clone(),
        );
        tasks.spawn("watch over the old primary", looking_after);
    }
    if !flow.config.groups.include().is_empty() {
        let before = (held.may_have_rival(), held.memory(), held.is_remembered());
        let fence = held.fence.clone();
        let may_write: groups::MayWrite = Arc::new(move || fence.is_awake());
        let writes = (may_write, held.generation());
        let beside = (tasks.clone(), work.clone());
        let following = follow_groups(flow.clone(), before, writes, beside);
        tasks.spawn("follower of groups", following);
    }
    let following = metadata::follow(context(&flow), flow.progress.clone(), work.clone());
    tasks.spawn("follower of metadata", following);
    let background = Background {
        flow: flow.config.clone(),
        source: sections.0.clone(),
        target: sections.1.clone(),
        store: flow.store.clone(),
        progress: flow.progress.clone(),
    };
    let verifying = verify::run_background(background, work.clone());
    tasks.spawn("comparison in the background", verifying);
    let supervising = Supervisor::run(flow.clone(), fence, discovered, tasks.clone(), work.clone());
    tasks.spawn("supervisor of partitions", supervising);

    let claim = held.keep(&flow.store, &keeping);
    tokio::pin!(claim);
    let result = tokio::select! {
        () = work.cancelled() => Ok(Kept::Cancelled),
        kept = &mut claim => kept,
        broken = tasks.broken() => Err(FlowError::Broken(broken)),
    };
    work.cancel();
    if matches!(result, Ok(Kept::RoleChanged)) {
        let ending = async {
            if tokio::time::timeout(OBEYS, tasks.ended()).await.is_ok() {
                let _ = tokio::time::timeout(OBEYS, guard::store_progress(&flow)).await;
            }
        };
        // Signs of life until then; who is told to end meanwhile has as long as ever.
        let told = async {
            cancel.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            () = ending => {}
            () = held.live(&flow.store) => {}
            () = told => {}
        }
    }
    let done_at = Instant::now() + STOP;
    if tokio::time::timeout(DRAIN, tasks.ended()).await.is_err() {
        // What is on its way may still be written, so the claim isn't given back; the maps are
        // learned again from the log.
        tracing::warn!(flow = %flow.config.name, "not every answer arrived in time; the target's log says what was written");
        return result;
    }
    if let Ok(kept) = result {
        let _ = tokio::time::timeout_at(done_at, guard::store_progress(&flow)).await;
        if kept == Kept::Cancelled {
            keeping.cancel();
            let _ = tokio::time::timeout_at(done_at, claim).await;
        }
        let has_copied = has_copied_since(&flow.progress, held.claimed_at_ms());
        // Only now: a new owner that sees the claim released fills holes at once.
        let _ = tokio::time::timeout_at(done_at, held.release(&flow.store, has_copied)).await;
    }
    result
}

/// Whether each partition was asked for its end since then, and has all up to it: what a process before this one may still
/// send is in the copy then, and its broker knows it.
fn has_copied_since(progress: &FlowProgress, since_ms: i64) -> bool {
    let has_all = |it: &PartitionProgress| {
        it.end_seen_ms().is_some_and(|at_ms| at_ms >= since_ms) && it.lag_offsets() == 0
    };
    let mut partitions = progress.partitions.iter();
    !progress.partitions.is_empty() && partitions.all(|it| has_all(it.value()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    const SINCE_MS: i64 = 1_000;

    /// Partitions by when the source told their ends, and how far they are copied of ten.
    fn progress(partitions: &[(i64, i64)]) -> FlowProgress {
        let progress = FlowProgress::new("dr", "primary", "standby");
        for (number, (told_ms, position)) in (0..).zip(partitions) {
            let partition = PartitionProgress::default();
            if *told_ms >= 0 {
                partition.note_source_ends(10, 10, *told_ms);
            }
            partition
                .source_position
                .store(*position, Ordering::Relaxed);
            let at = (Arc::from("t"), number);
            progress.partitions.insert(at, Arc::new(partition));
        }
        progress
    }

    #[test]
    fn all_is_copied_where_each_end_was_told_since_and_is_reached() {
        let has_copied =
            |partitions: &[(i64, i64)]| has_copied_since(&progress(partitions), SINCE_MS);
        assert!(has_copied(&[(1_000, 10), (2_000, 10)]));
        assert!(!has_copied(&[]), "nothing was seen");
        assert!(
            !has_copied(&[(1_000, 10), (999, 10)]),
            "one was told before"
        );
        assert!(!has_copied(&[(1_000, 10), (-1, 10)]), "one was never told");
        assert!(!has_copied(&[(1_000, 10), (2_000, 9)]), "one isn't through");
    }
}
