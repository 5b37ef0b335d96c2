//! The standby that is the primary dies, and never comes back: the old primary becomes the primary again, with what
//! was copied back so far.
//!
//! It is an unplanned failover of the flow that copies back: what may be missing is bounded, logs are recorded where
//! they part and padded past what the standby may have, groups are moved behind that. Then the old primary is handed
//! back and its fence lifted. All that is needed lies on the old primary; the other cluster is only
//! asked whether it answers: then it may be the primary, and isn't given up.
//!
//! ```text
//! not begun            stop > ........................... bound (nobody can say) > hand_back > lift_fence
//! copied back          stop > bound > forks > pad > release ......................> hand_back > lift_fence
//! handed back already  .................................. bound (0 if proven) ... > hand_back > lift_fence
//! the standby follows again: refused, the failback is through
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::available;
use super::context::{Scene, topics};
use super::error::CutoverError;
use super::failback::ENDED_PLAN;
use super::journal::fact;
use super::loss::{Bound, Loss};
use super::options::{AcceptedLoss, FenceMode, Options};
use super::padding::{self, Reach};
use super::pairs::{CutTopic, Pair};
use super::preflight::{Check, Stranded, Weight, padding_checks};
use super::steps::{Found, Step, bound_now};
use super::unlisted;
use super::{Plan, SOURCE_FOR, Seen, is_done};
use crate::config::{ClusterSection, FlowConfig, is_internal_topic};
use crate::connect::cluster;
use crate::flow::deny::{self, DenyError};
use crate::flow::selected_topics;
use crate::state::{
    CutoverKind, CutoverRecord, CutoverState, FenceAcl, FenceRecord, GivenUpRecord, ObservedRecord,
    Primary, RoleRecord, StateStore, StepState, TopicSet, keys,
};
use crate::telemetry::utc;
use crate::wire::{self, AclBinding, ProducerState, TopicPartition};

/// How long a standby that is given up may take to take a connection. One that lives and is taken for gone is a second
/// primary, and nobody hurries: a packet that is lost comes again after a second, and then after two.
const GONE_STANDBY_FOR: Duration = Duration::from_millis(3_500);
/// In the journal: what is given up.
const ABOUT: &str = "gives_up";
/// In the journal: what reached the old primary, and what may be missing there.
pub(super) const ACCOUNT: &str = "given_up";
/// More of one thing are counted, not named.
const NAMED_MAX: usize = 5;

/// How far the way back had come when the standby died, as far as that is known on the old primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// Nothing was copied back.
    NotBegun,
    /// Some or all of it was.
    CopiedBack,
    /// All of it was, proven where writers were kept from the standby, and clients may write to the old primary already.
    HandedBack,
    /// It was given up before: what is left of a fence goes.
    GivenUp,
}

/// What is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The flow of the config.
    pub flow: String,
    /// The standby's name in the config.
    pub standby: String,
    pub stage: Stage,
    /// The topics that were failed over, as far as the old primary was told.
    pub topics: TopicSet,
    /// The failovers that this is the end of.
    pub ended: BTreeSet<Uuid>,
    /// The old primary hadn't been told of any.
    pub is_untold: bool,
    /// Since when the standby was the primary, milliseconds since the epoch; absent where nobody told.
    pub since_ms: Option<i64>,
    /// Where the standby's logs ended when it was proven that nothing was written there any more, and all was copied.
    pub proven: Vec<(String, i32, i64)>,
    /// The topics that were copied back, by their names on the standby.
    pub copied: BTreeSet<String>,
    /// Topics of which nothing was copied back, with the number of their partitions.
    pub not_begun: BTreeMap<String, usize>,
}

/// What a plan gives up, if it does.
pub(super) fn about(record: &CutoverRecord) -> Option<About> {
    fact(record, ABOUT)
}

/// What a journal begins with.
fn facts(about: &About, before: Option<&CutoverRecord>) -> BTreeMap<String, serde_json::Value> {
    // Plain texts and numbers always encode.
    let value = serde_json::to_value(about).unwrap_or_default();
    let mut facts = BTreeMap::from([(ABOUT.to_owned(), value)]);
    if about.stage == Stage::GivenUp {
        let accounted = [ACCOUNT, "loss"].map(|name| {
            let found = before.and_then(|it| it.facts.get(name));
            found.map(|found| (name.to_owned(), found.clone()))
        });
        facts.extend(accounted.into_iter().flatten());
    }
    facts
}

/// What reached the old primary before the standby died, and what may be missing there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveUpAccount {
    /// The standby that is given up.
    pub standby: String,
    /// Whether it is proven that all of it arrived.
    pub is_proven: bool,
    /// Records that were copied back.
    pub copied_records: u64,
    /// Partitions of which nobody can say how many were: they aren't in the sum.
    pub copied_unknown_partitions: u64,
    /// Each partition, by topic of the old primary.
    pub topics: BTreeMap<String, Vec<PartitionAccount>>,
}

/// The same of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionAccount {
    /// Its number.
    pub partition: i32,
    /// Records that were copied back; absent where nobody can say.
    pub copied: Option<u64>,
    /// Records that the standby acknowledged and that may be missing, at most; absent where nobody can say.
    pub missing: Option<u64>,
}

/// What is known on the old primary.
struct Known {
    /// The role of the flow that was failed over, as the old primary was told.
    told: Option<RoleRecord>,
    /// The role of the flow that copies back.
    back: Option<RoleRecord>,
    journal: Option<CutoverRecord>,
    given_up: Option<GivenUpRecord>,
}

impl Known {
    /// The failover that nothing on the old primary has ended.
    fn failed_over(&self) -> Option<&RoleRecord> {
        let role = self.told.as_ref()?;
        let is_over = self.given_up.as_ref().is_some_and(|it| it.ends(role));
        (role.primary == Primary::Target && !is_over).then_some(role)
    }

    /// The journal of the failback from that failover.
    fn failback(&self) -> Option<&CutoverRecord> {
        let journal = self.journal.as_ref();
        let journal = journal.filter(|it| it.kind == CutoverKind::Failback)?;
        let ended: Option<Uuid> = fact(journal, ENDED_PLAN);
        let is_over = |ended: Uuid| match (&self.given_up, self.failed_over()) {
            (_, Some(role)) => role.plan != ended,
            (Some(given_up), None) => given_up.ended.contains(&ended),
            (None, None) => false,
        };
        (!ended.is_some_and(is_over)).then_some(journal)
    }

    /// How far the way back has come, or that it is through.
    fn stage(&self) -> Result<Stage, CutoverError> {
        let failback = self.failback();
        let begun = |step: Step| {
            let of = |it: &CutoverRecord| {
                let mut of_it = it.steps.iter().filter(|it| it.step == step.name());
                of_it.any(|it| !matches!(it.state, StepState::Pending | StepState::Undone))
            };
            failback.is_some_and(of)
        };
        let is_open = failback.is_some_and(|it| it.state == CutoverState::Open);
        let is_done = failback.is_some_and(|it| it.state == CutoverState::Done);
        if begun(Step::Resume) && (is_open || is_done && self.failed_over().is_some()) {
            return Err(is_through());
        }
        if is_open && begun(Step::Unfence) {
            return Ok(Stage::HandedBack);
        }
        if self.failed_over().is_none() && !is_open && self.given_up.is_some() {
            return Ok(Stage::GivenUp);
        }
        let is_copied = self
            .back
            .as_ref()
            .is_some_and(|it| it.primary != Primary::Target);
        Ok(match is_copied {
            true => Stage::CopiedBack,
            false => Stage::NotBegun,
        })
    }

    /// Whether the last thing that is known here is a failback that came to its end.
    fn is_back(&self) -> bool {
        let failback = self.failback();
        let is_done =
            failback.is_some_and(|it| it.state == CutoverState::Done && it.steps.len() > 1);
        is_done && self.failed_over().is_none()
    }

    /// What the failback has proven, if everything was copied and nobody could write since.
    fn proven(&self) -> Vec<(String, i32, i64)> {
        let failback = self.failback();
        let failback = failback.filter(|it| it.state == CutoverState::Open);
        let drained =
            failback.filter(|it| is_done(it, Step::Drain) && it.fence == FenceMode::Acl.word());
        let ends = drained.and_then(|it| fact(it, "source_ends"));
        ends.unwrap_or_default()
    }
}

/// Nothing is lost: there is a better way.
fn is_through() -> CutoverError {
    CutoverError::refused(
        "the failback is through: the old primary is the primary and has all that the standby had acknowledged, proven; \
         there is nothing to give up",
    )
    .with_hint(
        "when the standby is back, `twinlog failback --yes` finishes it; if it never is, set up an empty cluster under \
         its address and start `twinlog run`: it is copied anew",
    )
}

/// Looks how the old primary can become the primary again. Changes nothing.
///
/// # Errors
/// When it can't be asked, when nothing says that it was failed over, or when the failback is through.
pub async fn look_give_up(
    flow: &FlowConfig,
    source_section: &ClusterSection,
    target_section: &ClusterSection,
) -> Result<Plan, CutoverError> {
    let (old, standby) = (cluster(source_section), cluster(target_section));
    let (there, says) = tokio::join!(
        old.metadata_if_there(SOURCE_FOR),
        Says::ask(&standby, &flow.name),
    );
    let there = there.map_err(|_| {
        let seconds = SOURCE_FOR.as_secs();
        CutoverError::failed(format!("{}: no answer within {seconds} s", old.name()))
    })??;
    let back_name = flow.back_name();
    let store = Arc::new(StateStore::open_to_look(&old, &back_name).await?);
    let known = Known {
        told: store.get(&keys::role(&flow.name))?,
        back: store.get(&keys::role(&back_name))?,
        journal: store.get(&keys::cutover(&back_name))?,
        given_up: store.get(&keys::given_up(&flow.name))?,
    };
    let seen = Seen::new(known.journal.as_ref(), known.back.as_ref());
    let open = known
        .journal
        .clone()
        .filter(|it| it.state == CutoverState::Open);
    let open = open.filter(|it| about(it).is_some());
    let about = match open.as_ref().and_then(about) {
        Some(about) => about,
        None => new(flow, &standby, &known, &says)?,
    };
    let listed = match &about.topics {
        TopicSet::All => None,
        TopicSet::List(topics) => Some(topics),
    };
    // What the standby had of its own was never copied, and has no record here.
    let back = flow.reversed(listed, &BTreeSet::new());
    let back = back.map_err(CutoverError::failed)?;
    let mut copied = topics(&store, &back, &TopicSet::All, &old).await?;
    let hidden = hidden(&old, flow, &store, &about, &copied).await?;
    // Those are told above all, and nothing can be done about them.
    copied.retain(|it| !hidden.contains_key(&it.record.target_topic));
    let has_begun = store.bytes(&keys::flow(&back_name)).is_some();
    copied.retain(|it| match (&open, about.stage) {
        (Some(_), _) => about.copied.contains(&it.name),
        (None, Stage::CopiedBack | Stage::HandedBack) => has_begun,
        (None, Stage::GivenUp) => false,
        // Of a failback that was aborted; those of another time have another plan.
        (None, Stage::NotBegun) => {
            let continued = it.record.continued.as_ref();
            has_begun && continued.is_some_and(|it| about.ended.contains(&it.plan))
        }
    });
    let mut options = Options {
        kind: CutoverKind::Unplanned,
        topics: BTreeSet::new(),
        accept_loss: AcceptedLoss::Any,
        fence: FenceMode::Manual,
        padding: flow.failover.padding,
        wait: SOURCE_FOR,
        quiet_for: None,
    };
    if let Some(open) = &open {
        options.padding = open.padding;
        if let TopicSet::List(topics) = &open.topics {
            options.topics.clone_from(topics);
            copied.retain(|it| topics.contains(&it.name));
        }
    }
    // Also those that are left out below: of them more was copied than nothing.
    let begun: BTreeSet<String> = copied
        .iter()
        .map(|it| it.record.target_topic.clone())
        .collect();
    let left_out = match about.stage {
        Stage::CopiedBack if open.is_none() => available::unavailable(&old, &copied).await,
        _ => available::LeftOut::new(),
    };
    if !left_out.is_empty() && available::take_out(&mut copied, &left_out) {
        options.topics = available::names(&copied);
    }
    let mut about = about;
    if open.is_none() {
        about.not_begun = not_begun(flow, &about, &there, &begun);
        about.copied = available::names(&copied);
        about.stage = match about.stage {
            Stage::NotBegun | Stage::CopiedBack if copied.is_empty() => Stage::NotBegun,
            Stage::NotBegun => Stage::CopiedBack,
            other => other,
        };
    }
    let sections = (target_section, source_section);
    let scene = Scene::new(&back, sections, (standby.clone(), old), store, copied);
    let fence = fence(&scene, &about).await;
    let is_fenced = fence.as_ref().is_ok_and(|it| !it.acls.is_empty());
    let is_unknown = about.is_untold && scene.topics.is_empty() && !is_fenced;
    if is_unknown && known.is_back() {
        return Err(is_through());
    }
    // Nothing has come since it was given up, as far as anybody can say: done twice it is done once.
    let is_done_before = is_unknown && known.given_up.is_some() && says == Says::Nothing;
    if is_done_before {
        about.stage = Stage::GivenUp;
        about.is_untold = false;
    } else if is_unknown {
        return Err(CutoverError::failed(format!(
            "nothing on {0} says that it was failed over, and nobody is kept from it by Twinlog: {0} is the primary",
            scene.target.name()
        ))
        .with_hint("there is nothing to give up; clients may write there"));
    }
    let (mut checks, account) = checks(&scene, &about, &options).await?;
    checks.extend(fence_checks(fence));
    // What is begun has to come to its end, and what was given up before is no primary.
    let may_live = open.is_none() && about.stage != Stage::GivenUp;
    checks.insert(0, standby_check(standby.name(), &says, may_live));
    if !left_out.is_empty() {
        checks.push(available::check(&left_out));
    }
    checks.extend(hidden_check(&scene.target, &hidden, about.stage));
    // Of those that nobody has told the old primary of, its rights tell.
    checks.extend(unlisted::others_check(&scene.target, &flow.topics).await?);
    let steps = match &open {
        Some(open) => open
            .steps
            .iter()
            .filter_map(|it| Step::named(&it.step))
            .collect(),
        None => steps(about.stage),
    };
    let role = scene.role()?;
    let facts = facts(&about, known.journal.as_ref());
    Ok(Plan {
        seen,
        continues: open,
        steps,
        checks,
        scene,
        role,
        options,
        ended: None,
        facts,
        account,
    })
}

/// What is to be given up, by what the old primary knows.
fn new(
    flow: &FlowConfig,
    standby: &wire::Cluster,
    known: &Known,
    says: &Says,
) -> Result<About, CutoverError> {
    let stage = match known.stage()? {
        // Of a failover since then, of which the old primary was told nothing, the account of that time says nothing.
        Stage::GivenUp if !says.is_the_given_up(known) => Stage::NotBegun,
        stage => stage,
    };
    let told = known.failed_over();
    let failback = known.failback();
    let mut ended: BTreeSet<Uuid> = told.map(|role| role.plan).into_iter().collect();
    ended.extend(failback.and_then(|it| fact::<Uuid>(it, ENDED_PLAN)));
    Ok(About {
        flow: flow.name.clone(),
        standby: standby.name().to_owned(),
        stage,
        topics: told.map_or(TopicSet::All, |role| role.topics.clone()),
        is_untold: ended.is_empty() && stage != Stage::GivenUp,
        ended,
        since_ms: told.map(|role| role.since_ms),
        proven: known.proven(),
        copied: BTreeSet::new(),
        not_begun: BTreeMap::new(),
    })
}

fn steps(stage: Stage) -> Vec<Step> {
    match stage {
        Stage::CopiedBack => vec![
            Step::Stop,
            Step::Bound,
            Step::Forks,
            Step::Pad,
            Step::Release,
            Step::HandBack,
            Step::Lift,
        ],
        // Who was told to copy back and hasn't begun mustn't begin now.
        Stage::NotBegun => vec![Step::Stop, Step::Bound, Step::HandBack, Step::Lift],
        Stage::HandedBack => vec![Step::Bound, Step::HandBack, Step::Lift],
        // What was accounted for stays so.
        Stage::GivenUp => vec![Step::HandBack, Step::Lift],
    }
}

/// Topics that the old primary hides from us, by their names there: those that were being copied back, that were failed
/// over, and that writers are kept from, as far as it was told of these.
async fn hidden(
    old: &wire::Cluster,
    flow: &FlowConfig,
    store: &StateStore,
    about: &About,
    copied: &[CutTopic],
) -> Result<BTreeMap<String, String>, CutoverError> {
    let fence: Option<FenceRecord> = store.get(&keys::fence(&about.flow))?;
    let fenced = fence.unwrap_or_default().acls.into_iter();
    let mut names: BTreeSet<String> = fenced.map(|acl| acl.topic).collect();
    if let TopicSet::List(topics) = &about.topics {
        names.extend(topics.iter().cloned());
    }
    names.retain(|name| flow.topics.matches(name));
    names.extend(copied.iter().map(|it| it.record.target_topic.clone()));
    old.describe_unlisted(&names).await?;
    Ok(unlisted::hidden(old, &names))
}

/// Nobody would pass the offsets that the standby may have used, or account for what is missing, in a topic that can't be
/// seen, and its writers would be let in. Where all was handed back before, they are in already.
fn hidden_check(
    old: &wire::Cluster,
    hidden: &BTreeMap<String, String>,
    stage: Stage,
) -> Option<Check> {
    let mut check = unlisted::check(old, hidden)?;
    if matches!(stage, Stage::HandedBack | Stage::GivenUp) {
        check.weight = Weight::Warning;
    }
    check.with_hint(
        "grant DESCRIBE on them to Twinlog there, or exclude them in the config: then they are left as they are",
    )
    .into()
}

/// The topics that were failed over and of which nothing was copied back.
fn not_begun(
    flow: &FlowConfig,
    about: &About,
    there: &wire::Metadata,
    begun: &BTreeSet<String>,
) -> BTreeMap<String, usize> {
    if matches!(about.stage, Stage::HandedBack | Stage::GivenUp) {
        return BTreeMap::new();
    }
    let selected = selected_topics(flow, there).into_iter();
    let failed_over = selected.filter(|(name, _)| about.topics.contains(name));
    failed_over
        .filter(|(name, _)| !begun.contains(name))
        .collect()
}

/// What the standby says, if it can be asked.
#[derive(Debug, PartialEq, Eq)]
enum Says {
    /// It doesn't answer.
    Nothing,
    /// Somebody answers at its addresses, and refuses us: whether it lives isn't known. Why.
    Refuses(String),
    /// It answers, and nothing of its role.
    NoRole,
    /// Who it takes for the primary.
    Role(Box<RoleRecord>),
}

impl Says {
    async fn ask(standby: &wire::Cluster, flow: &str) -> Self {
        let there = standby.is_there(GONE_STANDBY_FOR, SOURCE_FOR).await;
        match there {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.refuses_us() => {
                return Self::Refuses(error.of_one().to_string());
            }
            Ok(Err(_)) | Err(_) => return Self::Nothing,
        }
        let role = async {
            let store = StateStore::open_existing(standby).await.ok()??;
            store.get::<RoleRecord>(&keys::role(flow)).ok()?
        };
        match tokio::time::timeout(SOURCE_FOR, role).await {
            Ok(Some(role)) => Self::Role(Box::new(role)),
            Ok(None) | Err(_) => Self::NoRole,
        }
    }

    /// Whether it is the standby that was given up before, and no primary since.
    fn is_the_given_up(&self, known: &Known) -> bool {
        match (self, &known.given_up) {
            (Self::Role(role), Some(given_up)) => given_up.ends(role),
            _ => false,
        }
    }
}

/// `may_live`: it may be the primary, with clients.
fn standby_check(name: &str, says: &Says, may_live: bool) -> Check {
    match says {
        Says::Nothing => {
            let text = format!("{name} doesn't answer; nothing of it is needed");
            return Check::new("standby", Weight::Ok, text);
        }
        Says::Refuses(why) if may_live => {
            let text = format!(
                "something answers at the addresses of {name}, and whether it is gone isn't known: {why}"
            );
            return Check::new("standby", Weight::Blocker, text).with_hint(
                "give it its login (a secret that is missing, too) to see who answers; if the standby is gone and \
                 something else takes its connections (a load balancer, a forwarded port), take that away",
            );
        }
        Says::Refuses(_) | Says::NoRole | Says::Role(_) => {}
    }
    if !may_live {
        let text = format!("{name} answers: keep clients away from it");
        return Check::new("standby", Weight::Warning, text);
    }
    let text = format!(
        "{name} answers: it has what it acknowledged, and its clients would go on to write there while others write to \
         the old primary"
    );
    Check::new("standby", Weight::Blocker, text).with_hint(
        "`twinlog failback` loses nothing; if it has to be given up all the same, shut its brokers down, or cut them off \
         from clients and from here, and run this again",
    )
}

async fn checks(
    scene: &Scene,
    about: &About,
    options: &Options,
) -> Result<(Vec<Check>, Option<GiveUpAccount>), CutoverError> {
    let mut checks = Vec::new();
    if about.stage == Stage::GivenUp {
        let text =
            "it was given up before; ACLs that keep writers from the old primary again are removed";
        return Ok((vec![Check::new("failback", Weight::Ok, text)], None));
    }
    let pairs = scene.pairs();
    let mut found = bound_now(scene, &pairs).await?;
    let account = account(scene, about, &mut found).await?;
    let text = match about.stage {
        Stage::NotBegun => "nothing was copied back".to_owned(),
        Stage::CopiedBack => format!("{} topic(s) were being copied back", scene.topics.len()),
        Stage::HandedBack if account.is_proven => "everything was copied back, proven".to_owned(),
        Stage::HandedBack | Stage::GivenUp => {
            "everything was copied back, but nothing kept writers from the standby since".to_owned()
        }
    };
    checks.push(Check::new("failback", Weight::Ok, text));
    checks.push(Check::new("copied_back", Weight::Ok, account.in_words()));
    let weight = match account.is_proven {
        true => Weight::Ok,
        false => Weight::Warning,
    };
    checks.push(Check::new(
        "loss",
        weight,
        account.loss_in_words(&found.loss),
    ));
    if about.is_untold {
        let text = format!(
            "{} was told of no failover, so it can't be said which topics and since when",
            scene.target.name()
        );
        checks.push(Check::new("failover", Weight::Warning, text));
    }
    if about.stage == Stage::CopiedBack {
        let zipped = pairs.iter().zip(&found.partitions);
        let reaches: Vec<Reach> = zipped
            .filter(|(pair, _)| !pair.mapped)
            .map(|(_, of)| of.reach)
            .collect();
        let cost = padding::cost_of(&padding::passed(&reaches, options.padding));
        let may_pad = wire::probe_marker_right(&scene.target).await?;
        let mapped = pairs.iter().filter(|pair| pair.mapped).count();
        checks.extend(padding_checks(cost, may_pad, mapped, Stranded::OnStandby));
    }
    Ok((checks, Some(account)))
}

/// What keeps writers from the old primary.
pub(super) struct Fence {
    /// What a plan has made.
    pub acls: Vec<FenceAcl>,
    /// Whether that is told by its shape alone: nobody has written it down here.
    is_by_shape: bool,
    /// What keeps somebody away besides, and stays.
    left: Vec<AclBinding>,
}

/// Looks for the fence around the old primary.
///
/// # Errors
/// When its ACLs can't be read.
pub(super) async fn fence(scene: &Scene, about: &About) -> Result<Fence, DenyError> {
    let known: Option<FenceRecord> = scene.store.get(&keys::fence(&about.flow)).ok().flatten();
    let listed = wire::describe_acls(&scene.target)
        .await?
        .acls(&scene.target)?;
    let is_ours = |topic: &str| {
        let on_standby = scene.flow.rename.unapply(&scene.flow.source, topic);
        let is_copied = on_standby.is_some_and(|name| scene.flow.topics.matches(&name));
        is_copied && !is_internal_topic(topic)
    };
    let is_by_shape = known.is_none();
    let acls = match known {
        Some(known) => known.acls,
        None => deny::by_shape(&listed, is_ours),
    };
    let left = deny::left(&listed, &acls, is_ours);
    Ok(Fence {
        acls,
        is_by_shape,
        left,
    })
}

/// Why the fence stands, for the operator.
pub(super) fn not_lifted(error: DenyError) -> CutoverError {
    CutoverError::failed(format!(
        "the fence around the old primary can't be lifted: {error}"
    ))
    .with_hint("grant Twinlog ALTER and DESCRIBE on that cluster, and run this again")
}

fn fence_checks(fence: Result<Fence, DenyError>) -> Vec<Check> {
    let fence = match fence {
        Ok(fence) => fence,
        Err(DenyError::NoAuthorizer) => {
            let text = "no ACL keeps anybody from the old primary: it has no authorizer";
            return vec![Check::new("fence", Weight::Ok, text)];
        }
        Err(error) => {
            let error = not_lifted(error);
            let check = Check::new("fence", Weight::Blocker, error.message);
            return vec![check.with_hint(error.hint.unwrap_or_default())];
        }
    };
    let text = format!(
        "{} ACL(s) around the old primary are removed",
        fence.acls.len()
    );
    let mut checks = vec![match fence.is_by_shape && !fence.acls.is_empty() {
        true => Check::new(
            "fence",
            Weight::Warning,
            format!(
                "{text}: nobody wrote down there which Twinlog has made, so these are told by their shape ({})",
                named(fence.acls.iter().map(|acl| &acl.topic))
            ),
        ),
        false => Check::new("fence", Weight::Ok, text),
    }];
    if !fence.left.is_empty() {
        let text = format!(
            "{} ACL(s) besides deny somebody to write there and stay, such as of {}",
            fence.left.len(),
            named(fence.left.iter().map(|acl| &acl.name))
        );
        checks.push(Check::new("denied", Weight::Warning, text));
    }
    checks
}

fn named<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: BTreeSet<&String> = names.collect();
    let first: Vec<&str> = names.iter().take(NAMED_MAX).map(|it| it.as_str()).collect();
    match names.len().saturating_sub(NAMED_MAX) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// What reached the old primary, and what may be missing: `found` is put right by what only this plan knows.
///
/// # Errors
/// When the state can't be read.
pub(super) async fn account(
    scene: &Scene,
    about: &About,
    found: &mut Found,
) -> Result<GiveUpAccount, CutoverError> {
    let pairs = scene.pairs();
    put_right(scene, about, found)?;
    let targets: Vec<TopicPartition> = pairs.iter().map(|pair| pair.target.clone()).collect();
    let ids = scene.flow_record().ok();
    let continued = pairs.iter().filter_map(|pair| pair.continued.as_ref());
    let wanted: HashSet<i64> = continued
        .flat_map(|it| [it.data_producer_id, it.filler_producer_id])
        .chain(
            ids.iter()
                .flat_map(|it| [it.data_producer_id, it.filler_producer_id]),
        )
        .collect();
    let is_ours = move |_: &TopicPartition, it: &ProducerState| wanted.contains(&it.producer_id);
    let states = wire::describe_producers(&scene.target, &targets, is_ours).await;
    let mut account = GiveUpAccount {
        standby: about.standby.clone(),
        is_proven: !found.partitions.is_empty()
            || (about.stage == Stage::HandedBack && !about.proven.is_empty()),
        ..GiveUpAccount::default()
    };
    for (pair, of) in pairs.iter().zip(&found.partitions) {
        let states: Option<&Vec<ProducerState>> =
            states.get(&pair.target).and_then(|it| it.as_ref().ok());
        let producers = match (&pair.continued, &ids) {
            (Some(continued), _) => {
                Some((continued.data_producer_id, continued.filler_producer_id))
            }
            (None, Some(ids)) => Some((ids.data_producer_id, ids.filler_producer_id)),
            (None, None) => None,
        };
        let copied = producers.zip(states).and_then(|(ids, states)| {
            let is_alone = about.stage != Stage::HandedBack;
            copied(pair, ids, states, is_alone.then_some(of.target_end))
        });
        account.add(&pair.target, copied, of.bound);
    }
    for (topic, partitions) in &about.not_begun {
        for partition in (0..).take(*partitions) {
            found.loss.add(topic, Bound::UNKNOWN, 0);
            let at = TopicPartition::new(topic.as_str(), partition);
            account.add(&at, Some(0), Bound::UNKNOWN);
        }
    }
    Ok(account)
}

/// What was proven isn't missing, and what was observed before the standby became the primary says nothing of now.
fn put_right(scene: &Scene, about: &About, found: &mut Found) -> Result<(), CutoverError> {
    let key = keys::observed(&scene.flow.name);
    let observed: Option<ObservedRecord> = scene.store.get(&key)?;
    let is_of_before = match (about.since_ms, observed) {
        (Some(since_ms), Some(observed)) => observed.at_ms < since_ms,
        _ => false,
    };
    let proven: HashMap<(&str, i32), i64> = about
        .proven
        .iter()
        .map(|(topic, partition, end)| ((topic.as_str(), *partition), *end))
        .collect();
    let mut loss = Loss {
        seconds: found.loss.seconds.filter(|_| !is_of_before),
        ..Loss::default()
    };
    for of in &mut found.partitions {
        let proven = proven.get(&(of.at.topic.as_str(), of.at.partition));
        // Behind a handing back others write there as well: what was copied isn't the end of it.
        let is_proven =
            proven.is_some_and(|end| about.stage == Stage::HandedBack || of.copied >= *end);
        if is_proven {
            of.bound = Bound {
                seen: 0,
                unseen: Some(0),
            };
        } else if is_of_before || about.stage == Stage::HandedBack || of.bound.records() == 0 {
            // Nothing came while it was seen, or it was seen before that counts. The standby may have lived, and taken
            // records, for longer than that; of what is handed back without a fence around it as well.
            of.bound = Bound::UNKNOWN;
            of.reach = of.reach.with_unknown();
        }
        loss.add(&of.at.topic, of.bound, of.record_bytes);
    }
    found.loss = loss;
    Ok(())
}

/// How many records were copied into a partition: the data producer's sequence counts them. Where the broker has
/// forgotten that, or there were none, they are what lies between the beginning and `end` and is no filler; only
/// where nobody else has written there.
fn copied(
    pair: &Pair,
    (data_id, filler_id): (i64, i64),
    states: &[ProducerState],
    end: Option<i64>,
) -> Option<u64> {
    let of = |id: i64| states.iter().find(|it| it.producer_id == id);
    if let Some(data) = of(data_id).filter(|it| it.last_sequence >= 0) {
        return u64::try_from(i64::from(data.last_sequence) + 1).ok();
    }
    let base = pair
        .continued
        .as_ref()
        .map_or(0, |it| it.base(pair.source.partition));
    let written = end? - base.max(pair.origin);
    let fillers = of(filler_id).map(|it| i64::from(it.coordinator_epoch));
    match (written, fillers) {
        (0, _) => Some(0),
        (_, Some(fillers)) => u64::try_from(written - fillers).ok(),
        (_, None) => None,
    }
}

impl GiveUpAccount {
    fn add(&mut self, at: &TopicPartition, copied: Option<u64>, bound: Bound) {
        let missing = bound.unseen.map(|_| bound.records());
        self.is_proven &= missing == Some(0);
        match copied {
            Some(copied) => self.copied_records += copied,
            None => self.copied_unknown_partitions += 1,
        }
        let of_topic = self.topics.entry(at.topic.clone()).or_default();
        of_topic.push(PartitionAccount {
            partition: at.partition,
            copied,
            missing,
        });
    }

    /// What reached the old primary, in one line.
    pub(super) fn in_words(&self) -> String {
        let mut text = format!(
            "{} record(s) that {} took as the primary have reached the old primary",
            self.copied_records, self.standby
        );
        if self.copied_unknown_partitions > 0 {
            text.push_str(&format!(
                "; of {} partition(s) its brokers don't tell how many",
                self.copied_unknown_partitions
            ));
        }
        text
    }

    /// Each topic, in a line.
    pub fn topics_in_words(&self) -> Vec<String> {
        let in_words = |(topic, partitions): (&String, &Vec<PartitionAccount>)| {
            let copied = partitions.iter().map(|it| it.copied);
            let missing = partitions.iter().map(|it| it.missing);
            format!(
                "{topic}: {} record(s) were copied back, {} may be missing",
                sum_in_words(copied),
                sum_in_words(missing)
            )
        };
        self.topics.iter().map(in_words).collect()
    }

    /// What may be missing there, in one line.
    pub(super) fn loss_in_words(&self, loss: &Loss) -> String {
        if self.is_proven {
            return "0 records, proven: every log had ended on both clusters at the same record"
                .to_owned();
        }
        let mut text = match loss.records {
            0 => format!(
                "of what {} acknowledged nothing is known to be missing",
                self.standby
            ),
            records => format!(
                "up to {records} record(s) or {} bytes that {} acknowledged may be missing, {} of them seen there",
                loss.bytes, self.standby, loss.seen_records
            ),
        };
        if let Some(seconds) = loss.seconds {
            text.push_str(&format!(
                "; as far as was observed {seconds} s ago, at the rates and with the bursts seen until then"
            ));
        }
        if loss.unknown_partitions > 0 {
            text.push_str(&format!(
                "; of {} partition(s) nobody can say: nothing was copied back, nothing came while they were \
                 seen, or nobody kept writers from {} then",
                loss.unknown_partitions, self.standby
            ));
        }
        text
    }
}

/// What is known of numbers of which nobody can say some.
fn sum_in_words(numbers: impl Iterator<Item = Option<u64>>) -> String {
    let (mut sum, mut unknown) = (0, false);
    for number in numbers {
        sum += number.unwrap_or(0);
        unknown |= number.is_none();
    }
    match (sum, unknown) {
        (0, true) => "nobody can say how many".to_owned(),
        (sum, true) => format!("{sum} and nobody can say how many more"),
        (sum, false) => sum.to_string(),
    }
}

/// Refuses what would go on with a failover that is over.
///
/// # Errors
/// When the old primary has been made the primary again, or is about to be.
pub(super) fn refuse_given_up(
    store: &StateStore,
    flow: &str,
    journal: Option<&CutoverRecord>,
    role: Option<&RoleRecord>,
) -> Result<(), CutoverError> {
    if let Some(open) = journal.filter(|it| it.state == CutoverState::Open && about(it).is_some()) {
        let text = format!("plan {} is giving the standby up", open.plan);
        return Err(CutoverError::failed(text)
            .with_hint("finish that with `twinlog failback --give-up --yes`"));
    }
    let record: Option<GivenUpRecord> = store.get(&keys::given_up(flow))?;
    match (record, role) {
        (Some(record), Some(role)) if role.primary != Primary::Source && record.ends(role) => {
            Err(CutoverError::failed(format!(
                "this standby was given up at {}: {} is the primary",
                utc::to_the_second(record.at_ms),
                store.cluster().name()
            ))
            .with_hint(
                "keep clients away from it, delete its topics and its __twinlog_state, and start `twinlog run`: it is \
                 copied anew",
            ))
        }
        _ => Ok(()),
    }
}

/// What an operator has to know when it is done.
pub(super) fn for_the_operator(about: &About) -> [String; 2] {
    let standby = &about.standby;
    [
        format!(
            "keep clients away from {standby} if it comes back: no other cluster gets the records that they write there; and \
             records that weren't copied back are on {standby} alone"
        ),
        format!(
            "to make {standby} a standby again, delete its topics and its __twinlog_state, or set up an empty cluster under its \
             address: `twinlog run` copies it anew"
        ),
    ]
}
