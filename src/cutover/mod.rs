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
pub(crate) mod loss;
mod opened;
mod options;
mod padding;
pub(crate) mod pairs;
mod preflight;
mod progress;
mod registered;
mod reign;
mod report;
mod reread;
mod steps;
mod unlisted;

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

use context::{Cutover, Scene, is_there, leave_out, refuse_uncopied, remembered, topics};
use failback::Ways;
use journal::Journal;
use lease::{Lease, Wanted};
use pairs::{CutTopic, ends, on_target, pairs};
use unlisted::{Side, Unlisted};

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
/// The same where it is said to be gone, to take a connection: who takes one is waited for as long as any other, for a login
/// over a long line takes some round trips.
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
    /// What this was decided by.
    seen: Seen,
    options: Options,
    /// In a failback, the flow that was failed over.
    ended: Option<Scene>,
    /// What its journal begins with.
    facts: std::collections::BTreeMap<String, serde_json::Value>,
    /// Where it gives the standby up: what has reached the old primary so far.
    pub account: Option<GiveUpAccount>,
}

/// Where a flow's cut-overs stood when they were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// The newest plan, and where it stands as a whole.
    plan: Option<(Uuid, CutoverState)>,
    /// In a failback, the same of the flow that was failed over.
    failover: Option<(Uuid, CutoverState)>,
    role: Option<RoleRecord>,
}

impl Seen {
    fn new(plan: Option<&CutoverRecord>, role: Option<&RoleRecord>) -> Self {
        Self {
            plan: plan.map(|it| (it.plan, it.state)),
            failover: None,
            role: role.cloned(),
        }
    }

    /// As the state says it by now; `ended` is the flow that was failed over, in a failback.
    fn by_now(scene: &Scene, ended: Option<&Scene>) -> Result<Self, CutoverError> {
        let plan_of = |scene: &Scene| -> Result<_, CutoverError> {
            let plan: Option<CutoverRecord> = scene.store.get(&keys::cutover(&scene.flow.name))?;
            Ok(plan.map(|it| (it.plan, it.state)))
        };
        Ok(Self {
            plan: plan_of(scene)?,
            failover: ended.map(plan_of).transpose()?.flatten(),
            role: ended.unwrap_or(scene).role()?,
        })
    }

    /// Who waited for the right to carry a plan out may have waited for another who did.
    fn refuse_news(&self, scene: &Scene, ended: Option<&Scene>) -> Result<(), CutoverError> {
        if *self == Self::by_now(scene, ended)? {
            return Ok(());
        }
        Err(CutoverError::failed(
            "somebody else has gone on with a cut-over of this flow meanwhile",
        )
        .with_hint("run this again: what there is to do is looked at anew"))
    }
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
    let is_gone = options.kind == CutoverKind::Unplanned;
    let described = async {
        match is_gone {
            true => source.is_there(GONE_SOURCE_FOR, SOURCE_FOR).await,
            false => {
                let answered = source.metadata_if_there(SOURCE_FOR).await;
                answered.map_err(|_| SOURCE_FOR)
            }
        }
    };
    let (from, to) = tokio::join!(described, target.metadata(None));
    to?;
    let source_refuses = matches!(&from, Ok(Err(error)) if error.refuses_us());
    let source_problem = match &from {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(waited) => Some(format!("no answer within {} s", waited.as_secs())),
    };
    if !StateStore::exists(&target).await? {
        return Err(CutoverError::refused(
            "nothing is copied yet: `twinlog run` never ran against this standby, or its state topic \
             __twinlog_state was deleted",
        ));
    }
    let store = Arc::new(opened::open(&target, &flow.name).await?);
    // A cluster that was built anew under the old address isn't the source: it counts as away.
    let is_replaced = match expect_source(&store, &flow.name, &source) {
        Err(StateError::Wire(error)) => Some(error.to_string()),
        is_it => is_it.map(|()| None)?,
    };
    let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
    let journal: Option<CutoverRecord> = store.get(&keys::cutover(&flow.name))?;
    let seen = Seen::new(journal.as_ref(), role.as_ref());
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
    let is_planned = options.kind == CutoverKind::Planned;
    let known_source = known_source.filter(|_| is_planned);
    let asked = options.topic_set();
    let mut topics = remembered(&store, flow, &asked)?;
    leave_out(&mut topics, before.as_ref());
    let hidden = async {
        match &known_source {
            Some(_) => unlisted::ask(&source, &topics, Side::Source).await,
            None => Ok(()),
        }
    };
    let others = async {
        match &known_source {
            Some(_) => unlisted::others_check(&source, &flow.topics).await,
            None => Ok(None),
        }
    };
    let ((), (), others) = tokio::try_join!(
        hidden,
        unlisted::ask(&target, &topics, Side::Target),
        others
    )?;
    let on_source = match &known_source {
        Some(_) => unlisted::look(&source, &topics, Side::Source),
        None => Unlisted::default(),
    };
    let on_target = unlisted::look(&target, &topics, Side::Target);
    let from = known_source.map(|_| source.cached());
    let to = target.cached();
    topics.retain(|it| is_there(it, from.as_deref(), &to));
    refuse_uncopied(flow, &asked, |name| {
        let is_hidden = |on: &Unlisted| on.hidden.contains_key(name);
        let is_elsewhere = before.as_ref().and_then(RoleRecord::not_copied);
        topics.iter().any(|it| it.name == name)
            || is_hidden(&on_source)
            || is_hidden(&on_target)
            || is_elsewhere.is_some_and(|topics| topics.contains(name))
    })?;
    let mut left_out = available::LeftOut::new();
    let is_new = continues.as_ref().is_none_or(|it| it.kind != options.kind);
    if options.kind == CutoverKind::Unplanned && is_new {
        left_out = available::unavailable(&target, &topics).await;
        if !left_out.is_empty() && !available::take_out(&mut topics, &left_out) {
            left_out.clear();
        }
        // What we may not describe stays a copy.
        if !topics.is_empty() {
            left_out.extend(on_target.hidden.clone());
        }
        if !left_out.is_empty() {
            options.topics = available::names(&topics);
        }
    }
    let sections = (source_section, target_section);
    let mut scene = Scene::new(flow, sections, (source, target), store, topics);
    scene.asked = asked;
    let is_fenced = continues
        .as_ref()
        .is_some_and(|it| is_done(it, Step::Fence));
    let fence = match options.kind == CutoverKind::Planned && source_problem.is_none() && !is_fenced
    {
        true => facts::fence_check(&scene.source, &scene.names(), options.fence).await,
        false => None,
    };
    let mut facts = facts::collect(&scene, &options, before.as_ref(), source_problem).await?;
    facts.common.source_refuses = source_refuses;
    facts.common.is_source_unasked = source_section.bootstrap.is_empty();
    let mut checks = preflight::judge(options.kind, options.accept_loss, &facts);
    if !left_out.is_empty() {
        checks.push(available::check(&left_out));
    }
    let is_copied_back = before.as_ref().is_some_and(|role| role.is_copied_back);
    if options.kind == CutoverKind::Unplanned && is_copied_back {
        let text =
            "topics that were failed over before are being copied back: this failover ends that";
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
    // Also where a plan is continued that failed at just this, or that began before.
    checks.extend(fence);
    checks.extend(unlisted::check(&scene.source, &on_source.hidden));
    if left_out.is_empty() {
        checks.extend(unlisted::check(&scene.target, &on_target.hidden));
    }
    checks.extend(unlisted::gone_check(&on_source.gone));
    checks.extend(others);
    Ok(Plan {
        steps: Step::of(options.kind).to_vec(),
        continues,
        checks,
        scene,
        role: before,
        seen,
        options,
        ended: None,
        facts: std::collections::BTreeMap::new(),
        account: None,
    })
}

/// What kind of plan it is, in a word, and the step at which it stands.
pub fn stands_at(record: &CutoverRecord) -> (&'static str, String) {
    let kind = match give_up::about(record) {
        Some(_) => GIVE_UP,
        None => record.kind.word(),
    };
    let next = match record.state {
        CutoverState::Aborting => progress::next_undo(&record.steps),
        _ => progress::next(&record.steps),
    };
    let step = next.and_then(|index| record.steps.get(index));
    (kind, step.map_or_else(String::new, |it| it.step.clone()))
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
        // What may be missing is bounded anew, and then said as a number of its own.
        .filter(|check| check.weight == Weight::Warning && check.subject != "loss")
        .map(|check| check.reason.clone())
        .collect();
    let Plan {
        continues,
        scene,
        role,
        seen,
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
    if let Err(refused) = seen.refuse_news(&scene, ended.as_ref()) {
        give_back(lease, also).await;
        return Err(refused);
    }
    let newest: Option<CutoverRecord> = scene.store.get(&keys::cutover(&scene.flow.name))?;
    let record = match (same_plan, newest) {
        (Some(open), Some(newest)) if newest.plan == open.plan => CutoverRecord {
            operator: lease::operator(scene.machine()),
            ..newest
        },
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
    if cutover.journal.fact::<TopicSet>(steps::ASKED).is_none() {
        let asked = cutover.scene.asked.clone();
        cutover.journal.note(steps::ASKED, &asked);
    }
    let ended = go_on(&mut cutover).await;
    Ok(finish(cutover, ended).await)
}

/// The right to carry out a plan. A failback changes the state of the flow that was failed over, too.
async fn leases(
    scene: &Scene,
    ended: Option<&Scene>,
    plan: Uuid,
) -> Result<(Lease, Option<Lease>), CutoverError> {
    // Until now it was only looked at.
    scene.store.make().await?;
    let Some(ended) = ended else {
        return Ok((Lease::take(wanted(scene, plan)).await?, None));
    };
    let (lease, also) = Lease::take_two(wanted(scene, plan), wanted(ended, plan)).await?;
    Ok((lease, Some(also)))
}

fn wanted(scene: &Scene, plan: Uuid) -> Wanted<'_> {
    Wanted {
        store: &scene.store,
        flow: &scene.flow.name,
        plan,
        machine: scene.machine(),
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
        look_at_what_time_changes(it)?;
    }
    while let Some(index) = progress::next(&it.journal.record.steps) {
        let step = step_at(it, index)?;
        if step == Step::Fence {
            // Clients wait from here on. What a failback has only just begun to copy is known by now.
            steps::connect(it).await;
        }
        match (step.changes_something(), step.writes_its_begin()) {
            (_, true) => it.journal.begin_unwritten(index).await?,
            (true, false) => it.journal.begin(index, StepState::Doing).await?,
            (false, false) => it.journal.begin_beside(index).await?,
        }
        let (from, to) = (it.scene.source.name(), it.scene.target.name());
        (it.tell)(&format!("{}: {}", step.name(), step.in_words(from, to)));
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

/// A plan that is taken up again was left for any time: writers may have been let in at the source, its consumers have read
/// on, topics were made there. Until the target is the primary all of that is done or looked at again. What is still copied
/// is drained again; where the copy is stopped, the proof and the forks say what isn't on the target.
fn look_at_what_time_changes(it: &mut Cutover) -> Result<(), CutoverError> {
    let plan = it.journal.record.plan;
    let role = it.scene.role()?;
    if role.is_some_and(|role| role.plan == plan && role.primary == Primary::Target) {
        return Ok(());
    }
    let mut again = vec![Step::Fence, Step::Prove, Step::Groups, Step::Forks];
    if !it.journal.may_have_done(Step::Stop) {
        again.push(Step::Drain);
    }
    let names: Vec<&str> = again.into_iter().map(Step::name).collect();
    progress::again(&mut it.journal.record.steps, &names);
    Ok(())
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

/// A plan that can be undone.
pub struct Undoing {
    scene: Scene,
    ended: Option<Scene>,
    record: CutoverRecord,
    seen: Seen,
    options: Options,
}

impl Undoing {
    /// The plan.
    pub fn plan(&self) -> &CutoverRecord {
        &self.record
    }

    /// The names of the steps that would be undone, in that order.
    pub fn steps(&self) -> Vec<&str> {
        let steps = self.record.steps.iter().rev();
        let begun = steps.filter(|it| progress::may_have_done(it));
        begun.map(|it| it.step.as_str()).collect()
    }
}

/// Undoes the flow's open (or last) plan, backwards.
///
/// # Errors
/// As [`look_abort`].
pub async fn abort(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
    tell: Tell,
) -> Result<(Report, Option<CutoverError>), CutoverError> {
    let undoing = look_abort(flow, source_section, target_section).await?;
    undo(undoing, tell).await
}

/// Looks what [`abort`] would undo. Changes nothing.
///
/// # Errors
/// When there is no plan, or when the target has records that aren't copies: they would be lost.
pub async fn look_abort(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
) -> Result<Undoing, CutoverError> {
    let (source, target) = (cluster(source_section), cluster(target_section));
    let (_, to) = tokio::join!(source.metadata_if_there(SOURCE_FOR), target.metadata(None));
    to?;
    let nothing = || CutoverError::failed(format!("flow {} has no plan to undo", flow.name));
    if !StateStore::exists(&target).await? {
        return Err(nothing());
    }
    let store = Arc::new(StateStore::open(&target, &flow.name).await?);
    let record: CutoverRecord = store
        .get(&keys::cutover(&flow.name))?
        .filter(|record: &CutoverRecord| record.state != CutoverState::Aborted)
        .ok_or_else(nothing)?;
    let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
    if is_over(&record, role.as_ref()) {
        return Err(nothing());
    }
    let seen = Seen::new(Some(&record), role.as_ref());
    let mut topics = topics(&store, flow, &record.topics, &target).await?;
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
    Ok(Undoing {
        scene,
        ended: None,
        record,
        seen,
        options,
    })
}

/// Whether a plan was carried out and something came behind it, such as the failback: then what it did isn't there any
/// more.
fn is_over(record: &CutoverRecord, role: Option<&RoleRecord>) -> bool {
    record.state == CutoverState::Done && role.is_none_or(|role| role.plan != record.plan)
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

/// Looks what [`lift_kept_fence`] would do. Changes nothing.
///
/// # Errors
/// When a cut-over is under way, or the target's state can't be read.
pub async fn look_kept_fence(
    flow: &FlowConfig,
    target_section: &ClusterSection,
) -> Result<KeptFence, CutoverError> {
    let target = cluster(target_section);
    target.metadata(None).await?;
    let Some(store) = StateStore::open_existing(&target).await? else {
        return Ok(KeptFence::None);
    };
    let role: Option<RoleRecord> = store.get(&keys::role(&flow.name))?;
    let plan: Option<CutoverRecord> = store.get(&keys::cutover(&flow.name))?;
    refuse_beside_a_cut_over(role.as_ref(), plan.as_ref())?;
    let is_kept = role.is_some_and(|role| role.is_kept_fenced);
    Ok(match flow.protect {
        true => KeptFence::Protected,
        false if is_kept || protect::is_left(&store, &flow.name) => KeptFence::Lifted,
        false => KeptFence::None,
    })
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
    target.metadata(None).await?;
    if !StateStore::exists(&target).await? {
        return Ok(KeptFence::None);
    }
    let store = Arc::new(StateStore::open(&target, &flow.name).await?);
    let machine = target_section.environment.machine.as_ref();
    // A cut-over writes the role, too, and makes and lifts these ACLs.
    let wanted = Wanted {
        store: &store,
        flow: &flow.name,
        plan: Uuid::from_u128(rand::random::<u128>()),
        machine,
    };
    let lease = Lease::take(wanted).await?;
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
/// As [`look_abort_back`].
pub async fn abort_back(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
    tell: Tell,
) -> Result<(Report, Option<CutoverError>), CutoverError> {
    let undoing = look_abort_back(flow, source_section, target_section).await?;
    undo(undoing, tell).await
}

/// Looks what [`abort_back`] would undo. Changes nothing.
///
/// # Errors
/// When there is nothing to undo, or when the old primary is the primary again.
pub async fn look_abort_back(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
) -> Result<Undoing, CutoverError> {
    let ways = Ways::open(flow, source_section, target_section).await?;
    let seen = Seen::by_now(&ways.back, Some(&ways.ended))?;
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
    refuse_followed(&record, Some(&ways.ended))?;
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
    Ok(Undoing {
        scene: ways.back,
        ended: Some(ways.ended),
        record,
        seen,
        options,
    })
}

/// Before anything is undone: a plan that is half undone can't be finished any more.
fn refuse_followed(record: &CutoverRecord, ended: Option<&Scene>) -> Result<(), CutoverError> {
    let may_follow = |step: &crate::state::StepRecord| {
        step.step == Step::Resume.name() && step.state != StepState::Pending
    };
    let Some(ended) = ended.filter(|_| record.steps.iter().any(may_follow)) else {
        return Ok(());
    };
    Err(CutoverError::refused(format!(
        "the failback is nearly through: {} may follow again already",
        ended.target.name()
    ))
    .with_hint("finish it with `twinlog failback`; the way back is `twinlog failover` then"))
}

async fn undo(
    undoing: Undoing,
    tell: Tell,
) -> Result<(Report, Option<CutoverError>), CutoverError> {
    let Undoing {
        scene,
        ended,
        record,
        seen,
        options,
    } = undoing;
    let (lease, also) = leases(&scene, ended.as_ref(), record.plan).await?;
    // Whoever had it may have gone on until now.
    if let Err(refused) = seen.refuse_news(&scene, ended.as_ref()) {
        give_back(lease, also).await;
        return Err(refused);
    }
    // The steps may have come further.
    let newest: Option<CutoverRecord> = scene.store.get(&keys::cutover(&scene.flow.name))?;
    let record = newest.unwrap_or(record);
    if let Err(refused) = refuse_followed(&record, ended.as_ref()) {
        give_back(lease, also).await;
        return Err(refused);
    }
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
    let of_plan = |topic: &String| forks.get(topic).is_some_and(|it| it.plan == record.plan);
    let topics: Vec<CutTopic> = scene
        .topics
        .iter()
        .filter(|it| of_plan(&it.name))
        .cloned()
        .collect();
    // Whether somebody has written to a copy that can't be seen isn't known. Without a fork nobody was let in there.
    unlisted::refuse_hidden(&scene.target, &topics, Side::Target).await?;
    let pairs = pairs(&topics);
    let now = ends(&scene.target, &on_target(&pairs), OffsetSpec::Latest).await?;
    let mut beyond = Vec::new();
    let mut padded = false;
    for pair in &pairs {
        let number = usize::try_from(pair.source.partition).unwrap_or(usize::MAX);
        let fork = forks
            .get(&pair.source.topic)
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
    .with_hint(match (record.kind, record.state) {
        (CutoverKind::Failback, _) => {
            "finish the failback; the way to the standby is `twinlog failover`"
        }
        (_, CutoverState::Done) => "the failover is through; the way back is `twinlog failback`",
        _ => "finish the failover; the way back is `twinlog failback`",
    }))
}
