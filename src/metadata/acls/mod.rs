//! The aspect of ACLs.
//!
//! ```text
//!  source's ACLs ── translate ──> wanted ── held ──> apply | hold ── release ──> due
//!                                                                                 │
//!  target's ACLs, what we remember to have made ──────────────────── diff ────────┴──> apply
//! ```
//!
//! What is about topics is renamed; what is about groups and transactional ids keeps its name; what is
//! about the cluster is listed. Where the standby isn't the source's twin but has topics and groups of
//! its own, no pattern reaches those. Grants with which clients could change a copy are *held*:
//! remembered in the state topic until a failover releases them. Only what the state topic knows as
//! made by us is ever removed.

mod apply;
mod binding;
mod diff;
mod exposure;
mod guard;
mod held;
mod keep_in;
#[cfg(test)]
mod model;
mod named;
mod of_flow;
mod ours;
mod readers;
mod release;
mod report;
mod standby;
#[cfg(test)]
mod tests;
mod translate;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use self::apply::Standby as _;
use self::diff::{Changes, Others, Sharing};
use self::ours::{Ours, is_made_by_us};
use self::standby::Target;
use self::translate::{Scope, has_others, may_be_twin, translate};
use super::context::Context;
use super::opposite::Foreign;
use super::pass::{Pass, Refused, obstacle};
use crate::config::{OWN_PREFIX, forth_name, is_internal_topic};
use crate::state::{
    AclState, FenceRecord, STATE_TOPIC, SourceIs, StateError, StateStore, TopicRecord, keys,
};
use crate::telemetry::metadata::{Drift, DriftKind, Obstacle};
use crate::wire::{
    self, AclAnswer, AclBinding, Cluster, Looked, Pace, Rate, ResponseError, WireError,
};

pub use keep_in::{REPLAY_ID_PREFIX, SEEN_WITHIN, is_first, is_used, keeper, may_be_open};
pub use of_flow::OfFlow;
pub use readers::Readers;
pub use release::{
    Change, HeldAcl, ReleaseDone, ReleaseError, ReleaseFailure, ReleasePlan, Which, held,
};

/// What is kept between looks at ACLs.
#[derive(Debug, Default)]
pub(super) struct Acls {
    refused: Refused,
    hashes: RandomState,
    last: Option<Last>,
    /// Whether it has been said that the source has no authorizer.
    said_nothing_to_follow: bool,
}

/// How often all ACLs are asked for, of either side: five thousand have some 300 kB. A right that was taken away is one that somebody
/// still has on the target, so a sign that is missed costs a minute, and no more.
const PACE: Pace = Pace {
    hasty: Rate {
        bytes_per_second: 1_000_000,
        most: Duration::from_secs(10),
    },
    told: Rate {
        bytes_per_second: 1_000,
        most: Duration::from_secs(60),
    },
    untold: Rate {
        bytes_per_second: 4_000,
        most: Duration::from_secs(60),
    },
};

/// The last look that wasn't stopped.
#[derive(Debug)]
struct Last {
    /// When each side was asked, and how large its answer was; `None` where they are to be asked at once.
    looked: Option<[(Looked, usize); 2]>,
    /// Of what it depends on beside the two answers.
    beside: u64,
    /// Of everything that it depends on; `None` when it left something undone.
    fingerprint: Option<u64>,
    drift: Vec<Drift>,
    obstacles: Vec<Obstacle>,
}

/// What a look depends on beside the ACLs.
struct Beside {
    /// Source topics that patterns are expanded over.
    topics: BTreeSet<String>,
    /// The groups that patterns are expanded over.
    followed: BTreeSet<String>,
    /// The copied topics by their names on the target.
    copies: Vec<String>,
    release: release::Release,
    /// What a cut-over made on the source to keep writers away: the target must not get it.
    fence: BTreeSet<AclBinding>,
    /// Whether the target has topics that the flow leaves out.
    is_shared: bool,
    /// Whose word the source's is.
    source_is: SourceIs,
}

/// Why a look ended early.
type Stopped = Box<Obstacle>;

impl Acls {
    /// Compares both clusters, and applies what differs where `context.apply` says so.
    pub(super) async fn look(
        &mut self,
        context: &Context,
        foreign: &Result<Foreign, Obstacle>,
    ) -> Pass {
        if !context.rules.acls.enabled {
            return Pass::default();
        }
        match self.compare(context, foreign).await {
            Ok(pass) => {
                self.said_nothing_to_follow = false;
                pass
            }
            // What was found last is the best that can be said now.
            Err(obstacle) => {
                self.say_once(context, &obstacle);
                Pass {
                    drift: self
                        .last
                        .as_ref()
                        .map_or_else(Vec::new, |last| last.drift.clone()),
                    obstacles: vec![*obstacle],
                    ..Pass::default()
                }
            }
        }
    }

    fn say_once(&mut self, context: &Context, obstacle: &Obstacle) {
        if !obstacle.is_problem && !self.said_nothing_to_follow {
            self.said_nothing_to_follow = true;
            tracing::info!(flow = %context.flow, "ACLs: {}", obstacle.message);
        }
    }

    async fn compare(
        &mut self,
        context: &Context,
        foreign: &Result<Foreign, Obstacle>,
    ) -> Result<Pass, Stopped> {
        let foreign = foreign.as_ref().map_err(|why| Box::new(why.clone()))?;
        if let Some(last) = self.last.as_ref().filter(|last| last.is_fresh(context)) {
            // What is around the ACLs is looked at each time: it asks nobody for much.
            let beside = see_beside(context).await?;
            if self.hashed(&beside, &foreign.acls) == last.beside {
                return Ok(last.again());
            }
        }
        let asked = [&context.source, &context.target].map(Cluster::look_begins);
        let (source, target) = ask(context).await?;
        // Behind the source's ACLs: a fence is written down before it is made.
        let beside = see_beside(context).await?;
        let hashed = self.hashed(&beside, &foreign.acls);
        let (of_source, of_target) = (source.fingerprint(), target.fingerprint());
        let looked = [(asked[0], of_source.len()), (asked[1], of_target.len())];
        let fingerprint = self.hashes.hash_one((of_source, of_target, hashed));
        if let Some(last) = &mut self.last
            && last.fingerprint == Some(fingerprint)
        {
            last.looked = Some(looked);
            return Ok(last.again());
        }
        let Beside {
            topics,
            followed,
            copies,
            release,
            fence,
            is_shared,
            mut source_is,
        } = beside;
        let mut source = source
            .acls(&context.source)
            .map_err(|error| cant_read(&error, SOURCE, false))?;
        source.retain(|acl| !fence.contains(acl));
        let target = target
            .acls(&context.target)
            .map_err(|error| cant_read(&error, TARGET, !source.is_empty()))?;
        source.retain(|acl| !foreign.acls.contains(acl));
        let target: BTreeSet<AclBinding> = target.into_iter().collect();
        let ours = load(context)?;
        let own = context.own_principal.as_deref();
        let is_open = !source.is_empty()
            && !keep_in::holds_rights(&target, &ours, own, &copies)
            && wire::is_open_by_default(&context.target)
                .await
                .map_err(|error| cant_tell(&error))?;
        let others = load_others(context)?;
        let known = groups_with_acls(&ours);
        let scope = Scope {
            selected: &context.selected,
            source_name: &context.source_name,
            rename: &context.rename,
            topics: &topics,
            groups: &context.groups,
            followed: &followed,
            known: &known,
            trusted: &trusted(&target, &ours, &others),
            is_shared,
            is_open,
            own_principal: own,
        };
        let sharing = Sharing {
            flow: &context.flow,
            others: &others,
        };
        let decide = |source: &[AclBinding]| {
            let translated = translate(source, &scope);
            let due = release::due(&translated.wanted, &release);
            let changes = diff::diff(&due, &target, &ours, sharing);
            (translated, due, changes)
        };
        let (mut translated, mut due, mut changes) = decide(&source);
        let (mut is_agreed, mut few_answer) = (true, false);
        if context.apply && changes.takes_away(&due) {
            // Whoever answered may be somebody else than the one that was known until then.
            source_is = whose_word_now(context).await?;
            // Or be cut off from its controllers, and not know what was made since.
            let there = wire::acls_not_gone(&context.source).await;
            few_answer = there.is_none();
            let known: BTreeSet<AclBinding> = source.iter().cloned().collect();
            let is_late = |acl: &AclBinding| {
                !known.contains(acl) && !fence.contains(acl) && !foreign.acls.contains(acl)
            };
            let late: Vec<AclBinding> = there.into_iter().flatten().filter(is_late).collect();
            is_agreed = late.is_empty() && !few_answer;
            if !late.is_empty() {
                source.extend(late);
                (translated, due, changes) = decide(&source);
            }
        }
        let kept = match &source_is {
            SourceIs::Untold { .. } => changes.keep_what_is_missing(&due, &target, &ours),
            _ if few_answer => changes.keep_what_is_missing(&due, &target, &ours),
            // Nobody's word else is acted on.
            SourceIs::Known | SourceIs::Other { .. } | SourceIs::BuiltAnew { .. } => Vec::new(),
        };
        changes.keep_in(own, &target);
        let mut pass = Pass::default();
        let (failed, is_noted) = self.apply(context, &changes, &mut pass).await;
        // After a change the target must be seen to have it: if somebody takes it back at once, the
        // target is as it was, but not as it shall be.
        let is_done = changes.acls().next().is_none() && is_noted && !changes.waits;
        let is_settled = !context.apply || (is_done && is_agreed);
        pass.drift = report::drift(&due, &translated.left, &changes, &failed, context.apply);
        pass.drift.extend(report::kept(&kept, few_answer));
        pass.drift.extend(report::released(&release));
        pass.drift
            .extend(exposure::exposures(target.iter(), &ours, &copies, own));
        pass.obstacles
            .extend((translated.groups_left > 0).then(|| too_many(translated.groups_left)));
        pass.obstacles
            .extend(untold(&source_is).filter(|_| !kept.is_empty()));
        self.last = Some(Last {
            looked: Some(looked),
            beside: hashed,
            fingerprint: is_settled.then_some(fingerprint),
            drift: pass.drift.clone(),
            obstacles: pass.obstacles.clone(),
        });
        Ok(pass)
    }

    fn hashed(&self, beside: &Beside, foreign: &BTreeSet<AclBinding>) -> u64 {
        self.hashes.hash_one((
            &beside.topics,
            &beside.followed,
            &beside.copies,
            &beside.release,
            &beside.fence,
            &beside.is_shared,
            &beside.source_is,
            foreign,
        ))
    }

    /// The next look asks both clusters, however short ago the last one was.
    pub(super) fn hurry(&mut self) {
        if let Some(last) = &mut self.last {
            last.looked = None;
        }
    }

    /// Makes the changes where that is wanted. Returns what failed, by ACL, and whether everything
    /// that was only to be remembered is.
    async fn apply(
        &mut self,
        context: &Context,
        changes: &Changes,
        pass: &mut Pass,
    ) -> (report::Failed, bool) {
        let mut failed = report::Failed::new();
        let (true, Some(store)) = (context.apply, &context.store) else {
            return (failed, true);
        };
        if changes.is_empty() {
            self.refused.keep(|_| false);
            return (failed, true);
        }
        for acl in changes.acls() {
            if let Some(failure) = self.refused.resting(&acl.to_string()) {
                failed.insert(acl.clone(), failure);
            }
        }
        let rest: BTreeSet<AclBinding> = failed.keys().cloned().collect();
        let standby = Target {
            cluster: &context.target,
            store,
            flow: &context.flow,
        };
        let outcome = apply::apply(&standby, changes, &rest).await;
        pass.applied = outcome.done;
        if let Err(error) = claim_again(&standby, changes, &outcome).await {
            tracing::warn!(flow = %context.flow, "ACLs: {error}");
        }
        for (acl, failure) in outcome.failed {
            if let Some(failure) = report::failure(&mut self.refused, &acl, &failure, pass) {
                failed.insert(acl, failure);
            }
        }
        let wanted: BTreeSet<String> = changes.acls().map(ToString::to_string).collect();
        self.refused.keep(|change| wanted.contains(change));
        if let Some(message) = &outcome.not_noted {
            pass.failed.push("state".to_owned());
            tracing::warn!(flow = %context.flow, "ACLs: {message}");
        }
        (failed, outcome.not_noted.is_none())
    }
}

impl Last {
    /// Whether it is too early to ask again. What was left undone is looked at each time.
    fn is_fresh(&self, context: &Context) -> bool {
        let (Some(looked), Some(_)) = (self.looked, self.fingerprint) else {
            return false;
        };
        let sides = [&context.source, &context.target];
        let mut sides = sides.into_iter().zip(looked);
        !sides.any(|(side, (looked, bytes))| PACE.is_due(Some(looked), side.news(), bytes))
    }

    /// What it found.
    fn again(&self) -> Pass {
        Pass {
            drift: self.drift.clone(),
            obstacles: self.obstacles.clone(),
            ..Pass::default()
        }
    }
}

const SOURCE: &str = "source";
const TARGET: &str = "target";

/// Asks both clusters.
async fn ask(context: &Context) -> Result<(AclAnswer, AclAnswer), Stopped> {
    let (source, target) = tokio::join!(
        wire::describe_acls(&context.source),
        wire::describe_acls(&context.target)
    );
    let source = source.map_err(|error| cant_read(&error, SOURCE, true))?;
    let target = target.map_err(|error| cant_read(&error, TARGET, true))?;
    Ok((source, target))
}

/// Asks the state, and what is known.
async fn see_beside(context: &Context) -> Result<Beside, Stopped> {
    let mut release = release::Release::Nothing;
    let mut fence = BTreeSet::new();
    if let Some(store) = &context.store {
        store.refresh().await.map_err(|error| state(&error))?;
        release = ours::load_release(store, &context.flow).map_err(|error| state(&error))?;
        let record: Option<FenceRecord> = store
            .get(&keys::fence(&context.flow))
            .map_err(|error| state(&error))?;
        fence.extend(
            record
                .into_iter()
                .flat_map(|record| record.acls)
                .map(|it| it.binding()),
        );
    }
    let source_is = whose_word(context).await?;
    let mirrored = context.topics.mirrored();
    let mut copies: Vec<String> = mirrored.iter().map(|t| t.target_topic.clone()).collect();
    copies.sort_unstable();
    let topics = expandable(context, mirrored.iter().map(|t| t.source_topic.clone()));
    Ok(Beside {
        topics,
        followed: followed(context),
        copies,
        release,
        fence,
        is_shared: is_shared(context),
        source_is,
    })
}

/// Whether the target has topics that the flow leaves out. Those that it has copied before it left them out are no others', and
/// what an old primary has beside the copies is of the same people.
fn is_shared(context: &Context) -> bool {
    let is_asked = may_be_twin(&context.selected, &context.rename);
    if forth_name(&context.flow) != context.flow || !is_asked {
        return false;
    }
    let known = context.target.cached();
    let there = || {
        let topics = known.topics.iter().filter(|(_, it)| it.error.is_none());
        topics.map(|(name, _)| name)
    };
    // Records are read only where somebody could be there.
    if !has_others(&context.selected, there()) {
        return false;
    }
    let mut copies = BTreeSet::new();
    if let Some(store) = &context.store {
        for key in store.keys(&keys::topic(&context.flow, "")) {
            let record: Option<TopicRecord> = store.get(&key).ok().flatten();
            copies.extend(record.map(|record| record.target_topic));
        }
    }
    let others = there().filter(|name| !copies.contains(*name));
    has_others(&context.selected, others)
}

/// The groups whose positions the flow keeps on the target, where patterns are expanded over them: those that
/// don't begin as all of the flow's do.
fn followed(context: &Context) -> BTreeSet<String> {
    let is_twin = may_be_twin(&context.selected, &context.rename) && !is_shared(context);
    let (false, Some(store)) = (is_twin, &context.store) else {
        return BTreeSet::new();
    };
    let flow = &context.flow;
    let namespaces = context.groups.own_namespaces();
    let is_single = |name: &&str| !namespaces.iter().any(|it| name.starts_with(it));
    let mut followed = BTreeSet::new();
    for prefix in [keys::groups(flow), keys::shares(flow)] {
        let keys = store.keys(&prefix);
        let names = keys.iter().filter_map(|key| key.strip_prefix(&*prefix));
        followed.extend(names.filter(is_single).map(str::to_owned));
    }
    followed
}

/// The groups about which the flow made ACLs.
fn groups_with_acls(ours: &Ours) -> BTreeSet<String> {
    let made = ours.iter().filter(|(acl, record)| {
        let is_one_group = acl.resource_type == binding::resource::GROUP && acl.is_literal();
        is_one_group && record.state != AclState::Held
    });
    made.map(|(acl, _)| acl.name.clone()).collect()
}

/// Whom the target's own people let change Twinlog's topics there, and by which operations; also by a
/// grant on all topics. What a flow made says nothing.
fn trusted(target: &BTreeSet<AclBinding>, ours: &Ours, others: &Others) -> BTreeSet<(String, i8)> {
    let mut trusted = BTreeSet::new();
    for acl in target.iter().filter(|acl| held::changes_the_copy(acl)) {
        if is_made_by_us(ours, acl) || others.contains_key(acl) {
            continue;
        }
        // By name it is somebody who was meant to.
        let is_meant = !acl.is_wildcard() && acl.name.starts_with(OWN_PREFIX);
        if !is_meant && !acl.covers(STATE_TOPIC) {
            continue;
        }
        let is_all = is_meant || acl.operation == binding::operation::ALL;
        let lets = guard::CHANGES.into_iter();
        let lets = lets.filter(|operation| is_all || *operation == acl.operation);
        trusted.extend(lets.map(|operation| (acl.principal.clone(), operation)));
    }
    trusted
}

/// The source topics that patterns are expanded over: those that are copied, also when the source
/// doesn't show them now, and those that will be.
fn expandable(context: &Context, mirrored: impl Iterator<Item = String>) -> BTreeSet<String> {
    let is_pattern_kept = context.rename.as_prefix(&context.source_name).is_some();
    if context.selected.takes_all() && is_pattern_kept {
        // A pattern that would reach Twinlog's own topics can't be kept.
        return mirrored.collect();
    }
    let known = context.source.cached();
    let selected = known.topics.iter().filter(|(name, topic)| {
        !topic.internal
            && topic.error.is_none()
            && !is_internal_topic(name)
            && context.selected.matches(name)
    });
    let selected = selected.map(|(name, _)| name.clone());
    mirrored.chain(selected).collect()
}

/// Whose word the source's is. Another cluster behind its address says nothing about what the standby needs.
async fn whose_word(context: &Context) -> Result<SourceIs, Stopped> {
    let Some(store) = &context.store else {
        return Ok(SourceIs::Known);
    };
    let is = SourceIs::of_cached(store, &context.flow, &context.source)
        .map_err(|error| state(&error))?;
    match is {
        // It may be itself again, and nothing else would show that.
        SourceIs::Untold { told_before: true } => whose_word_now(context).await,
        is => but_of_another(is),
    }
}

/// The same, asked for.
async fn whose_word_now(context: &Context) -> Result<SourceIs, Stopped> {
    let Some(store) = &context.store else {
        return Ok(SourceIs::Known);
    };
    let asked = SourceIs::ask(store, &context.flow, &context.source).await;
    let asked = asked.map_err(|error| state(&error))?;
    but_of_another(asked.map_err(|error| cant_read(&error, SOURCE, true))?)
}

fn but_of_another(is: SourceIs) -> Result<SourceIs, Stopped> {
    let what = match is {
        SourceIs::Other { known, found } => {
            format!("the source is cluster {found}, but this flow copies from cluster {known}")
        }
        SourceIs::BuiltAnew { why } => why,
        is => return Ok(is),
    };
    Err(Box::new(Obstacle {
        kind: DriftKind::Acl,
        cluster: SOURCE.to_owned(),
        reason: "another_cluster".to_owned(),
        message: format!("{what}: ACLs stay as they are"),
        hint: Some("check the source's bootstrap.servers".to_owned()),
        is_problem: true,
        since_ms: 0,
    }))
}

/// What is wrong where a source that told who it is doesn't any more. One that never did is as it always was.
fn untold(source_is: &SourceIs) -> Option<Obstacle> {
    let SourceIs::Untold { told_before: true } = source_is else {
        return None;
    };
    Some(Obstacle {
        kind: DriftKind::Acl,
        cluster: SOURCE.to_owned(),
        reason: "untold_cluster".to_owned(),
        message: "the source told a cluster id when the flow began and tells none now, so it may be another cluster: \
                  ACLs that it doesn't have stay"
            .to_owned(),
        hint: Some("check where the source's bootstrap.servers lead to".to_owned()),
        is_problem: true,
        since_ms: 0,
    })
}

/// What was made is ours, also where another process noted meanwhile that it isn't there: a release
/// that was withdrawn while we followed it would leave grants that nobody takes away.
async fn claim_again(
    standby: &Target<'_>,
    changes: &Changes,
    outcome: &apply::Outcome,
) -> Result<(), StateError> {
    if changes.create.is_empty() {
        return Ok(());
    }
    standby.store.refresh().await?;
    let ours = ours::load(standby.store, standby.flow)?;
    let lost = changes.create.iter().filter(|(acl, record)| {
        let may_be_there = outcome
            .failed
            .get(acl)
            .is_none_or(apply::Failure::is_unanswered);
        may_be_there && ours.get(acl) != Some(record)
    });
    let notes: Vec<_> = lost
        .map(|(acl, record)| (acl.clone(), Some(record.clone())))
        .collect();
    standby.remember(&notes).await
}

/// The ACLs that a flow made on its target.
pub(super) fn made(store: &StateStore, flow: &str) -> Result<Vec<AclBinding>, StateError> {
    let ours = ours::load(store, flow)?.into_iter();
    let made = ours.filter(|(_, record)| record.state != AclState::Held);
    Ok(made.map(|(acl, _)| acl).collect())
}

/// All that is remembered of a flow's ACLs on the target: what it made, and what it holds.
///
/// # Errors
/// When a record can't be read.
pub fn remembered(store: &StateStore, flow: &str) -> Result<BTreeSet<AclBinding>, StateError> {
    Ok(ours::load(store, flow)?.into_keys().collect())
}

/// What is held on the target, and was taken away there if it was ever released.
///
/// # Errors
/// When a record can't be read.
pub fn held_again(store: &StateStore, flow: &str) -> Result<BTreeSet<AclBinding>, StateError> {
    let ours = ours::load(store, flow)?.into_iter();
    let held = ours.filter(|(_, record)| record.state == AclState::Held);
    Ok(held.map(|(acl, _)| acl).collect())
}

fn load_others(context: &Context) -> Result<Others, Stopped> {
    let Some(store) = &context.store else {
        return Ok(Others::new());
    };
    ours::load_others(store, &context.flow).map_err(|error| state(&error))
}

fn load(context: &Context) -> Result<Ours, Stopped> {
    let Some(store) = &context.store else {
        return Ok(Ours::new());
    };
    ours::load(store, &context.flow).map_err(|error| state(&error))
}

fn state(error: &StateError) -> Stopped {
    Box::new(Obstacle {
        kind: DriftKind::Acl,
        cluster: TARGET.to_owned(),
        reason: "state".to_owned(),
        message: error.to_string(),
        hint: None,
        is_problem: true,
        since_ms: 0,
    })
}

/// Why nothing can be decided where it isn't known what the first ACL of a topic does.
fn cant_tell(error: &WireError) -> Stopped {
    let grant = "grant DESCRIBE_CONFIGS on the target cluster to Twinlog's principal: kafka-acls.sh --add \
                 --allow-principal User:... --operation DescribeConfigs --cluster";
    let mut obstacle = obstacle(DriftKind::Acl, TARGET, error, grant);
    obstacle.message = format!(
        "whether everybody may use what has no ACL there (allow.everyone.if.no.acl.found) isn't known, so \
         ACLs stay as they are: {}",
        obstacle.message
    );
    Box::new(obstacle)
}

fn too_many(groups_left: usize) -> Obstacle {
    Obstacle {
        kind: DriftKind::Acl,
        cluster: TARGET.to_owned(),
        reason: "too_many_groups".to_owned(),
        message: format!(
            "more than {} groups are followed: patterns about groups aren't given for {groups_left} of them",
            named::EXPANDED_MAX
        ),
        hint: Some(
            "name the groups by their beginning in groups.include, such as `shop-.*`, or grant on the target \
             what is missing"
                .to_owned(),
        ),
        is_problem: true,
        since_ms: 0,
    }
}

/// `is_needed`: whether it is a problem that the cluster has no authorizer.
fn cant_read(error: &WireError, cluster: &'static str, is_needed: bool) -> Stopped {
    let grant = format!(
        "grant DESCRIBE on the {cluster} cluster to Twinlog's principal: kafka-acls.sh --add \
         --allow-principal User:... --operation Describe --cluster"
    );
    let mut obstacle = obstacle(DriftKind::Acl, cluster, error, &grant);
    if error.server_code() == Some(ResponseError::SecurityDisabled) {
        obstacle.is_problem = is_needed;
        obstacle.message = if cluster == SOURCE {
            "the source has no authorizer: there are no ACLs to follow".to_owned()
        } else if is_needed {
            obstacle.hint = Some("set authorizer.class.name on the target's brokers".to_owned());
            "the target has no authorizer: the source's ACLs can't follow".to_owned()
        } else {
            "neither the source nor the target has ACLs".to_owned()
        };
    }
    Box::new(obstacle)
}
