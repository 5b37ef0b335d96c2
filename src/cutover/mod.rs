//! Failover as a plan: looked at, shown, applied step by step, reported.
//!
//! ```text
//! facts -> preflight (pure) -> plan -> [ lease -> journal: step, step, step ... ] -> report
//! ```
//!
//! The journal, the roles, the forks and what was last seen of the source lie on the target, so all
//! of this works with the source gone. A step is idempotent: after a crash the same command goes
//! on where it stopped, or `--abort` undoes it, until the first record on the target that isn't a
//! copy. `flow::role` is the other side: a running Twinlog that finds the role changed stops
//! copying, and looks after the old primary.

mod account;
mod adopt;
pub(crate) mod agreement;
mod available;
mod buried;
mod capacity;
pub(crate) mod context;
mod error;
mod facts;
mod failback;
mod give_up;
mod group_facts;
mod hidden;
mod journal;
pub(crate) mod lease;
mod loss;
mod options;
mod padding;
pub(crate) mod pairs;
mod preflight;
mod progress;
mod reign;
mod report;
mod reread;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub use account::last_report;
pub use context::Tell;
pub use error::CutoverError;
pub use failback::{BackScope, look_back};
pub use give_up::{GiveUpAccount, PartitionAccount, look_give_up};
pub use lease::{in_words as operator_in_words, operator};
pub use loss::{Loss, TopicLoss};
pub use options::{AcceptedLoss, FenceMode, Options, QUIET_FOR_SECONDS_MAX};
pub use padding::PaddingCost;
pub use preflight::{Check, Weight, worst};
pub use report::{GIVE_UP, Lost, Report, StepReport};
pub use reread::RereadAccount;
pub use steps::{GroupsResult, Step};

use context::{Cutover, Scene, leave_out, topics};
use failback::Ways;
use journal::Journal;
use lease::Lease;
use pairs::{ends, on_target};

use crate::config::{ClusterSection, FlowConfig};
use crate::connect::cluster;
use crate::flow::{expect_source, protect, restrain};
use crate::state::{
    CutoverKind, CutoverRecord, CutoverState, LOST_HINT, Primary, RoleRecord, STATE_TOPIC,
    StateError, StateStore, StepState, TopicSet, keys,
};
use crate::telemetry::progress::now_ms;
use crate::telemetry::utc;
use crate::wire::OffsetSpec;

/// How long a source that is needed may take to answer.
const SOURCE_FOR: Duration = Duration::from_secs(8);
/// The same where it is said to be gone.
const GONE_SOURCE_FOR: Duration = Duration::from_secs(1);

/// What would be done, and whether it may be.
pub struct Plan {
    /// The plan that is open and would be continued, if there is one.
    pub continues: Option<CutoverRecord>,
    /// Its steps.
    pub steps: Vec<Step>,
    /// What was looked at.
    pub checks: Vec<Check>,
    scene: Scene,
    role: Option<RoleRecord>,
    options: Options,
    /// In a failback, the flow that was failed over.
    ended: Option<Scene>,
    /// What its journal begins with.
    facts: std::collections::BTreeMap<String, serde_json::Value>,
    /// Where it gives the standby up: what has reached the old primary so far.
    pub account: Option<GiveUpAccount>,
}

impl Plan {
    /// Whether it gives the standby up.
    pub fn gives_up(&self) -> bool {
        !self.facts.is_empty()
    }
}

/// Looks at everything. Changes nothing.
///
/// # Errors
/// When the target can't be asked, nothing was ever copied, or the target is the primary already.
pub async fn look(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
    mut options: Options,
) -> Result<Plan, CutoverError> {
    let (source, target) = (cluster(source_section), cluster(target_section));
    let patience = match options.kind {
        CutoverKind::Planned | CutoverKind::Failback => SOURCE_FOR,
        CutoverKind::Unplanned => GONE_SOURCE_FOR,
    };
    let (from, to) = tokio::join!(
        tokio::time::timeout(patience, source.metadata(None)),
        target.metadata(None)
    );
    let to = to?;
    let source_problem = match &from {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", patience.as_secs())),
    };
    if !to.has_topic(STATE_TOPIC) {
        return Err(CutoverError::refused(
            "nothing is copied yet: `twinlog run` never ran against this standby, or its state topic \
             __twinlog_state was deleted",
        ));
    }
    let store = Arc::new(StateStore::open(&target, &flow.name).await?);
    // A cluster that was built anew under the old address isn't the source: it counts as away.
    let is_replaced = match expect_source(&store, &flow.name, &source) {
        Err(StateError::Wire(error)) => Some(error.to_string()),
        is_it => is_it.map(|()| None)?,
    };
    let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
    let journal: Option<CutoverRecord> = store.get(&keys::cutover(&flow.name))?;
    let is_known = role.is_some()
        || journal.is_some()
        || options.kind == CutoverKind::Failback
        || store.bytes(&keys::flow(&flow.name)).is_some();
    if !is_known {
        return Err(CutoverError::refused(format!(
            "the state topic {STATE_TOPIC} knows nothing of flow {}: `twinlog run` never copied it to this standby, \
             or the topic lost its records",
            flow.name
        ))
        .with_hint(LOST_HINT));
    }
    let open = journal.filter(|it| matches!(it.state, CutoverState::Open | CutoverState::Aborting));
    let continues = match open {
        Some(open) => continued(open, &mut options)?,
        None => {
            refuse_wrong_direction(role.as_ref(), &options)?;
            if options.kind == CutoverKind::Planned {
                refuse_beside_a_copy_back(role.as_ref())?;
            }
            None
        }
    };
    let before = match &continues {
        Some(record) => record.role_before.clone(),
        None => role.clone(),
    };
    let known_source = from
        .ok()
        .and_then(Result::ok)
        .filter(|_| is_replaced.is_none());
    let source_problem = is_replaced.or(source_problem);
    let mut topics = topics(
        &store,
        flow,
        &options.topic_set(),
        known_source
            .as_deref()
            .filter(|_| options.kind == CutoverKind::Planned),
        &to,
    )?;
    leave_out(&mut topics, before.as_ref());
    let mut left_out = available::LeftOut::new();
    let is_new = continues.as_ref().is_none_or(|it| it.kind != options.kind);
    if options.kind == CutoverKind::Unplanned && is_new {
        left_out = available::unavailable(&target, &topics).await;
        if left_out.is_empty() || !available::take_out(&mut topics, &left_out) {
            left_out.clear();
        } else {
            options.topics = available::names(&topics);
        }
    }
    let sections = (source_section, target_section);
    let scene = Scene::new(flow, sections, (source, target), store, topics);
    let is_fenced = continues
        .as_ref()
        .is_some_and(|it| is_done(it, Step::Fence));
    let fence = match options.kind == CutoverKind::Planned && source_problem.is_none() && !is_fenced
    {
        true => facts::fence_check(&scene.source, &scene.names(), options.fence).await,
        false => None,
    };
    let facts = facts::collect(&scene, &options, before.as_ref(), source_problem).await?;
    let mut checks = preflight::judge(options.kind, options.accept_loss, &facts);
    if !left_out.is_empty() {
        checks.push(available::check(&left_out));
    }
    let is_copied_back = before.as_ref().is_some_and(|role| role.is_copied_back);
    if options.kind == CutoverKind::Unplanned && is_copied_back {
        let text = "what was failed over before is being copied back: that ends with this";
        checks.push(Check::new("copy_back", Weight::Warning, text).with_hint(
            "begin it again with `twinlog failback --start` when the old primary is back",
        ));
    }
    if continues.as_ref().is_some_and(|it| it.kind == options.kind) {
        // It was judged when it began; what counts now is whether it can go on.
        checks.retain(|check| matches!(check.subject.as_str(), "source" | "standby" | "loss"));
        if continues
            .as_ref()
            .is_some_and(|it| is_done(it, Step::Bound))
        {
            checks.retain(|check| check.subject != "loss");
        }
    }
    // Also where a plan is continued that failed at just this.
    checks.extend(fence);
    Ok(Plan {
        steps: Step::of(options.kind).to_vec(),
        continues,
        checks,
        scene,
        role: before,
        options,
        ended: None,
        facts: std::collections::BTreeMap::new(),
        account: None,
    })
}

/// Whether a step of a plan is through.
fn is_done(record: &CutoverRecord, step: Step) -> bool {
    let steps = record.steps.iter();
    let mut of_it = steps.filter(|it| it.step == step.name());
    of_it.any(|it| it.state == StepState::Done)
}

/// Whether the open plan is the one that is asked for.
fn continued(
    open: CutoverRecord,
    options: &mut Options,
) -> Result<Option<CutoverRecord>, CutoverError> {
    if open.state == CutoverState::Aborting {
        return Err(
            CutoverError::failed(format!("plan {} is being undone", open.plan))
                .with_hint("finish that with `--abort`"),
        );
    }
    if !options.topics.is_empty() && options.topic_set() != open.topics {
        return Err(
            CutoverError::failed(format!("plan {} is open for other topics", open.plan))
                .with_hint("leave `--topic` out to continue it, or undo it with `--abort`"),
        );
    }
    if let TopicSet::List(topics) = &open.topics {
        options.topics.clone_from(topics);
    }
    if (open.kind, options.kind) == (CutoverKind::Unplanned, CutoverKind::Planned) {
        return Err(
            CutoverError::failed(format!("the unplanned plan {} is open", open.plan))
                .with_hint("continue it with `--unplanned`, or undo it with `--abort`"),
        );
    }
    if open.kind == options.kind {
        options.padding = open.padding;
        if open.fence == FenceMode::Manual.word() {
            options.fence = FenceMode::Manual;
        }
    }
    Ok(Some(open))
}

fn refuse_wrong_direction(
    role: Option<&RoleRecord>,
    options: &Options,
) -> Result<(), CutoverError> {
    let Some((role, topics)) = role.and_then(|role| Some((role, role.not_copied()?))) else {
        return Ok(());
    };
    let is_covered = match topics {
        TopicSet::All => true,
        TopicSet::List(_) => {
            !options.topics.is_empty() && options.topics.iter().all(|it| topics.contains(it))
        }
    };
    if !is_covered {
        return Ok(());
    }
    Err(CutoverError::failed(format!(
        "the target is the primary already, since {} by plan {}",
        utc::to_the_second(role.since_ms),
        role.plan
    ))
    .with_hint("the way back is `twinlog failback`"))
}

/// One role names all topics that were failed over: a second failover would end the copy back of the first ones.
fn refuse_beside_a_copy_back(role: Option<&RoleRecord>) -> Result<(), CutoverError> {
    let Some(role) = role.filter(|role| role.is_copied_back || role.is_handed_back) else {
        return Ok(());
    };
    let what = match &role.topics {
        TopicSet::All => "this flow".to_owned(),
        TopicSet::List(topics) => format!("{} topic(s) of this flow", topics.len()),
    };
    Err(CutoverError::failed(format!(
        "{what} are being copied back: a failover of others would end that"
    ))
    .with_hint("finish it with `twinlog failback`, or end it with `twinlog failback --abort`; then run this again"))
}

/// Carries the plan out, from where it stands. The report says how far it got; with it the error
/// that stopped it, if one did.
///
/// # Errors
/// When it could not begin: a blocker, or somebody else's plan.
pub async fn apply(plan: Plan, tell: Tell) -> Result<(Report, Option<CutoverError>), CutoverError> {
    let blockers: Vec<&Check> = plan
        .checks
        .iter()
        .filter(|check| check.weight >= Weight::Blocker)
        .collect();
    if !blockers.is_empty() {
        return Err(blocked(&blockers));
    }
    let warnings: Vec<String> = plan
        .checks
        .iter()
        .filter(|check| check.weight == Weight::Warning)
        .map(|check| check.reason.clone())
        .collect();
    let Plan {
        continues,
        scene,
        role,
        options,
        steps,
        ended,
        facts,
        ..
    } = plan;
    let same_plan = continues.filter(|open| open.kind == options.kind);
    let id = match &same_plan {
        Some(open) => open.plan,
        None => Uuid::from_u128(rand::random::<u128>()),
    };
    let (lease, also) = leases(&scene, ended.as_ref(), id).await?;
    // Who was faster may have finished or undone it meanwhile.
    let newest: Option<CutoverRecord> = scene.store.get(&keys::cutover(&scene.flow.name))?;
    let record = match (same_plan, newest) {
        (Some(open), Some(newest)) if newest.plan == open.plan => {
            if newest.state != CutoverState::Open {
                give_back(lease, also).await;
                return Err(CutoverError::failed(
                    "somebody else has just finished this plan",
                ));
            }
            CutoverRecord {
                operator: lease::operator(scene.machine()),
                ..newest
            }
        }
        (same, _) => {
            let began_ms = now_ms();
            let steps: Vec<&str> = steps.iter().map(|it| it.name()).collect();
            drop(same);
            CutoverRecord {
                v: 1,
                plan: id,
                kind: options.kind,
                state: CutoverState::Open,
                topics: options.topic_set(),
                operator: lease::operator(scene.machine()),
                began_ms,
                role_before: role,
                fence: options.fence.word().to_owned(),
                padding: options.padding,
                accept_loss: match options.accept_loss {
                    AcceptedLoss::Records(most) => Some(most),
                    AcceptedLoss::Any => None,
                },
                steps: progress::steps(&steps),
                facts,
            }
        }
    };
    let journal = Journal::open(scene.store.clone(), &scene.flow.name, lease, record).await?;
    let mut cutover = Cutover {
        scene,
        journal,
        options,
        tell,
        runner: None,
        ended,
        also,
        fenced: std::collections::BTreeSet::new(),
    };
    cutover.journal.note("warnings", &warnings);
    let ended = go_on(&mut cutover).await;
    Ok(finish(cutover, ended).await)
}

/// The right to carry out a plan. A failback changes the state of the flow that was failed over, too.
async fn leases(
    scene: &Scene,
    ended: Option<&Scene>,
    plan: Uuid,
) -> Result<(Lease, Option<Lease>), CutoverError> {
    let lease = Lease::take(&scene.store, &scene.flow.name, plan, scene.machine()).await?;
    let Some(ended) = ended else {
        return Ok((lease, None));
    };
    match Lease::take(&ended.store, &ended.flow.name, plan, ended.machine()).await {
        Ok(also) => Ok((lease, Some(also))),
        Err(error) => {
            lease.release().await;
            Err(error)
        }
    }
}

async fn give_back(lease: Lease, also: Option<Lease>) {
    if let Some(also) = also {
        also.release().await;
    }
    lease.release().await;
}

fn blocked(blockers: &[&Check]) -> CutoverError {
    let lines: Vec<String> = blockers
        .iter()
        .map(|check| match &check.hint {
            Some(hint) => format!("{}: {} ({hint})", check.subject, check.reason),
            None => format!("{}: {}", check.subject, check.reason),
        })
        .collect();
    let mut error = CutoverError::failed(lines.join("\n"));
    error.loses_data = blockers
        .iter()
        .any(|check| check.weight == Weight::LosesData);
    error
}

async fn go_on(it: &mut Cutover) -> Result<(), CutoverError> {
    // The lease may have been waited for. Later each step that relies on it looks again.
    if it.journal.record.kind.loses_nothing() {
        it.look_again().await?;
    }
    while let Some(index) = progress::next(&it.journal.record.steps) {
        let step = step_at(it, index)?;
        match step.changes_something() {
            true => it.journal.begin(index, StepState::Doing).await?,
            false => it.journal.begin_beside(index).await?,
        }
        (it.tell)(&format!("{}: {}", step.name(), step.in_words()));
        let mut applied = step.apply(it).await;
        let may_shrink = matches!(step, Step::Stop | Step::Bound | Step::Forks);
        if applied.as_ref().is_err_and(|error| !error.loses_data)
            && may_shrink
            && it.journal.record.kind == CutoverKind::Unplanned
        {
            it.leave_out_unavailable().await?;
            steps::say_what_is_left(it).await?;
            applied = step.apply(it).await;
        }
        match applied {
            Ok(result) => it.journal.end_beside(index, result).await?,
            Err(error) => {
                let message = error.message.clone();
                it.journal.end(index, StepState::Failed, message).await?;
                return Err(error);
            }
        }
    }
    it.journal.set_state(CutoverState::Done).await
}

fn step_at(it: &Cutover, index: usize) -> Result<Step, CutoverError> {
    let name = &it.journal.record.steps[index].step;
    Step::named(name).ok_or_else(|| {
        CutoverError::failed(format!(
            "the journal has a step {name}, made by a newer Twinlog"
        ))
    })
}

async fn finish(
    mut it: Cutover,
    ended: Result<(), CutoverError>,
) -> (Report, Option<CutoverError>) {
    if let Some(runner) = it.runner.take() {
        runner.stop().await;
    }
    if let Some(lease) = it.also.take() {
        lease.release().await;
    }
    let named = it.ended.as_ref().unwrap_or(&it.scene);
    let mut flow = named.flow.name.clone();
    let record = it.journal.close().await;
    if let Some(about) = give_up::about(&record) {
        flow = about.flow;
    }
    // Beginning to copy back leaves the new primary what it is.
    let primary = match report::is_only_begun(&record) {
        true => named.target.name(),
        false => it.scene.target.name(),
    };
    let target = primary.to_owned();
    (Report::new(&flow, &target, &record), ended.err())
}

/// Undoes the flow's open (or last) plan, backwards.
///
/// # Errors
/// When there is none, or when the target has records that aren't copies: they would be lost.
pub async fn abort(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
    tell: Tell,
) -> Result<(Report, Option<CutoverError>), CutoverError> {
    let (source, target) = (cluster(source_section), cluster(target_section));
    let (_, to) = tokio::join!(
        tokio::time::timeout(SOURCE_FOR, source.metadata(None)),
        target.metadata(None)
    );
    let to = to?;
    let nothing = || CutoverError::failed(format!("flow {} has no plan to undo", flow.name));
    if !to.has_topic(STATE_TOPIC) {
        return Err(nothing());
    }
    let store = Arc::new(StateStore::open(&target, &flow.name).await?);
    let record: CutoverRecord = store
        .get(&keys::cutover(&flow.name))?
        .filter(|record: &CutoverRecord| record.state != CutoverState::Aborted)
        .ok_or_else(nothing)?;
    let mut topics = topics(&store, flow, &record.topics, None, &to)?;
    leave_out(&mut topics, record.role_before.as_ref());
    let sections = (source_section, target_section);
    let scene = Scene::new(flow, sections, (source, target), store, topics);
    refuse_own_records(&scene, &record).await?;
    let options = Options {
        kind: record.kind,
        topics: match &record.topics {
            TopicSet::All => std::collections::BTreeSet::default(),
            TopicSet::List(topics) => topics.clone(),
        },
        accept_loss: AcceptedLoss::Records(0),
        fence: FenceMode::named(&record.fence),
        padding: record.padding,
        wait: Duration::from_secs(60),
        quiet_for: None,
    };
    undo(scene, None, record, options, tell).await
}

/// What became of the fence that a failback has left around the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptFence {
    /// There was none.
    None,
    /// Nobody is kept from them any more.
    Lifted,
    /// It is none of a failback's (any more), but `protect: true` keeps others from them.
    Protected,
}

/// Lets everybody write to the copies again whom a failback has kept from them since.
///
/// # Errors
/// When a cut-over is under way, or the target's ACLs can't be changed, or its state can't.
pub async fn lift_kept_fence(
    flow: &FlowConfig,
    target_section: &ClusterSection,
) -> Result<KeptFence, CutoverError> {
    let target = cluster(target_section);
    let known = target.metadata(None).await?;
    if !known.has_topic(STATE_TOPIC) {
        return Ok(KeptFence::None);
    }
    let store = Arc::new(StateStore::open(&target, &flow.name).await?);
    let machine = target_section.environment.machine.as_ref();
    // A cut-over writes the role, too, and makes and lifts these ACLs.
    let lift = Uuid::from_u128(rand::random::<u128>());
    let lease = Lease::take(&store, &flow.name, lift, machine).await?;
    let lifted = lift_as_holder(flow, &store).await;
    lease.release().await;
    lifted
}

async fn lift_as_holder(flow: &FlowConfig, store: &StateStore) -> Result<KeptFence, CutoverError> {
    store.refresh().await?;
    let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
    let plan: Option<CutoverRecord> = store.get(&keys::cutover(&flow.name))?;
    refuse_beside_a_cut_over(role.as_ref(), plan.as_ref())?;
    let was_kept = role.as_ref().is_some_and(|role| role.is_kept_fenced);
    if let Some(role) = role.filter(|role| role.is_kept_fenced) {
        // First that nobody puts it up again.
        let role = RoleRecord {
            is_kept_fenced: false,
            ..role
        };
        store.put(&keys::role(&flow.name), &role).await?;
    }
    if flow.protect {
        return Ok(KeptFence::Protected);
    }
    // Also what is left where this was killed before.
    let lifted = protect::lift(store.cluster(), store, &flow.name, |_| true).await?;
    match was_kept || lifted > 0 {
        true => Ok(KeptFence::Lifted),
        false => Ok(KeptFence::None),
    }
}

fn refuse_beside_a_cut_over(
    role: Option<&RoleRecord>,
    plan: Option<&CutoverRecord>,
) -> Result<(), CutoverError> {
    if role.is_some_and(|role| role.is_handed_back) {
        return Err(
            CutoverError::failed("a failback isn't through: it may be fencing the copies").with_hint(
                "finish it with `twinlog failback`, or undo it with `twinlog failback --abort`; then run this again",
            ),
        );
    }
    match plan.filter(|it| matches!(it.state, CutoverState::Open | CutoverState::Aborting)) {
        Some(plan) => Err(
            CutoverError::failed(format!("the failover {} isn't finished", plan.plan)).with_hint(
                "finish it with `twinlog failover`, or undo it with `twinlog failover --abort`; then run this again",
            ),
        ),
        None => Ok(()),
    }
}

/// Undoes a failback that isn't through: the standby stays the primary.
///
/// # Errors
/// When there is none, or when the old primary is the primary again.
pub async fn abort_back(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
    tell: Tell,
) -> Result<(Report, Option<CutoverError>), CutoverError> {
    let ways = Ways::open(flow, source_section, target_section).await?;
    ways.refuse_given_up()?;
    let record = ways
        .journal()?
        .filter(|record| record.state != CutoverState::Aborted)
        .filter(|record| !ways.is_over(record))
        .ok_or_else(|| {
            CutoverError::failed(format!("flow {} has no failback to undo", flow.name))
        })?;
    if ways
        .role
        .as_ref()
        .is_none_or(|role| role.primary == Primary::Source)
    {
        return Err(CutoverError::refused(format!(
            "the failback is through: {} is the primary",
            ways.ended.source.name()
        ))
        .with_hint("the way to the standby is `twinlog failover`"));
    }
    // Before anything is undone: a plan that is half undone can't be finished any more.
    let may_follow = |step: &crate::state::StepRecord| {
        step.step == Step::Resume.name() && step.state != StepState::Pending
    };
    if record.steps.iter().any(may_follow) {
        return Err(CutoverError::refused(format!(
            "the failback is nearly through: {} may follow again already",
            ways.ended.target.name()
        ))
        .with_hint("finish it with `twinlog failback`; the way back is `twinlog failover` then"));
    }
    refuse_own_records(&ways.back, &record).await?;
    let options = Options {
        kind: CutoverKind::Failback,
        topics: std::collections::BTreeSet::default(),
        accept_loss: AcceptedLoss::Records(0),
        fence: FenceMode::named(&record.fence),
        padding: 0,
        wait: Duration::from_secs(60),
        quiet_for: None,
    };
    undo(ways.back, Some(ways.ended), record, options, tell).await
}

async fn undo(
    scene: Scene,
    ended: Option<Scene>,
    record: CutoverRecord,
    options: Options,
    tell: Tell,
) -> Result<(Report, Option<CutoverError>), CutoverError> {
    let (lease, also) = leases(&scene, ended.as_ref(), record.plan).await?;
    // Whoever had it may have gone on until now.
    let newest: Option<CutoverRecord> = scene.store.get(&keys::cutover(&scene.flow.name))?;
    let Some(record) = newest.filter(|it| it.plan == record.plan) else {
        give_back(lease, also).await;
        let plan = record.plan;
        return Err(CutoverError::failed(format!(
            "plan {plan} isn't the newest any more"
        )));
    };
    if let Err(refused) = refuse_own_records(&scene, &record).await {
        give_back(lease, also).await;
        return Err(refused);
    }
    let record = CutoverRecord {
        operator: lease::operator(scene.machine()),
        state: CutoverState::Aborting,
        ..record
    };
    let journal = Journal::open(scene.store.clone(), &scene.flow.name, lease, record).await?;
    let mut cutover = Cutover {
        scene,
        journal,
        options,
        tell,
        runner: None,
        ended,
        also,
        fenced: std::collections::BTreeSet::new(),
    };
    let outcome = go_back(&mut cutover).await;
    Ok(finish(cutover, outcome).await)
}

async fn go_back(it: &mut Cutover) -> Result<(), CutoverError> {
    while let Some(index) = progress::next_undo(&it.journal.record.steps) {
        let step = step_at(it, index)?;
        it.journal.begin(index, StepState::Undoing).await?;
        (it.tell)(&format!("undo {}", step.name()));
        match step.undo(it).await {
            Ok(result) => it.journal.end(index, StepState::Undone, result).await?,
            Err(error) => {
                (it.tell)(&format!("{} isn't undone: {}", step.name(), error.message));
                return Err(error);
            }
        }
    }
    it.journal.set_state(CutoverState::Aborted).await
}

/// Copying on would bury what clients wrote to the target since the fork.
async fn refuse_own_records(scene: &Scene, record: &CutoverRecord) -> Result<(), CutoverError> {
    let forks = restrain::forks(&scene.store, &scene.flow.name, &record.topics)?;
    let pairs = scene.pairs();
    let now = ends(&scene.target, &on_target(&pairs), OffsetSpec::Latest).await?;
    let mut beyond = Vec::new();
    let mut padded = false;
    for pair in &pairs {
        let number = usize::try_from(pair.source.partition).unwrap_or(usize::MAX);
        let fork = forks
            .get(&pair.source.topic)
            .filter(|fork| fork.plan == record.plan)
            .and_then(|fork| fork.partitions.get(number));
        if let (Some(fork), Some(end)) = (fork, now.get(&pair.target))
            && *end > fork.target_end
        {
            padded |= fork.padded_end > fork.target_end;
            beyond.push(pair.target.to_string());
        }
    }
    if beyond.is_empty() {
        return Ok(());
    }
    let count = beyond.len();
    beyond.truncate(5);
    let why = if padded {
        "offsets were padded there, so the copy can't go on where it was"
    } else {
        "somebody wrote there since the copy was stopped"
    };
    Err(CutoverError::refused(format!(
        "{count} partition(s) on the target go beyond the copy, such as {}: {why}",
        beyond.join(", ")
    ))
    .with_hint("finish the failover; the way back is `twinlog failback`"))
}
