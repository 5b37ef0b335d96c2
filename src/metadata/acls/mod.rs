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
#[cfg(test)]
mod model;
mod named;
mod ours;
mod readers;
mod release;
mod report;
mod standby;
#[cfg(test)]
mod tests;
mod translate;

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};

use self::apply::Standby as _;
use self::diff::{Changes, Others, Sharing};
use self::ours::{Ours, is_made_by_us};
use self::standby::Target;
use self::translate::{Scope, is_twin, translate};
use super::context::Context;
use super::opposite::Foreign;
use super::pass::{Pass, Refused, obstacle};
use crate::config::{OWN_PREFIX, is_internal_topic};
use crate::state::{AclState, FenceRecord, FlowRecord, STATE_TOPIC, StateError, StateStore, keys};
use crate::telemetry::metadata::{Drift, DriftKind, Obstacle};
use crate::wire::{self, AclAnswer, AclBinding, ResponseError, WireError};

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

/// The last look that wasn't stopped.
#[derive(Debug)]
struct Last {
    /// Of everything that it depends on; `None` when it left something undone.
    fingerprint: Option<u64>,
    drift: Vec<Drift>,
    obstacles: Vec<Obstacle>,
}

/// Everything that a look depends on.
struct Seen {
    source: AclAnswer,
    target: AclAnswer,
    /// Source topics that patterns are expanded over.
    topics: BTreeSet<String>,
    /// The groups that patterns are expanded over.
    followed: BTreeSet<String>,
    /// The copied topics by their names on the target.
    copies: Vec<String>,
    release: release::Release,
    /// What a cut-over made on the source to keep writers away: the target must not get it.
    fence: HashSet<AclBinding>,
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
        let seen = see(context).await?;
        let fingerprint = self.fingerprint(&seen, &foreign.acls);
        if let Some(last) = &self.last
            && last.fingerprint == Some(fingerprint)
        {
            return Ok(Pass {
                drift: last.drift.clone(),
                obstacles: last.obstacles.clone(),
                ..Pass::default()
            });
        }
        let Seen {
            source,
            target,
            topics,
            followed,
            copies,
            release,
            fence,
        } = seen;
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
            && !holds_rights(&target, &ours, own, &copies)
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
            is_open,
            own_principal: own,
        };
        let translated = translate(&source, &scope);
        let due = release::due(&translated.wanted, &release);
        let sharing = Sharing {
            flow: &context.flow,
            others: &others,
        };
        let mut changes = diff::diff(&due, &target, &ours, sharing);
        changes.keep_in(own, &target);
        if context.apply && !changes.delete.is_empty() {
            // Whoever answered may be somebody else than the one that was known until then.
            let asked = context.source.metadata(Some(&[])).await;
            asked.map_err(|error| cant_read(&error, SOURCE, true))?;
            refuse_another_source(context)?;
        }
        let mut pass = Pass::default();
        let (failed, is_noted) = self.apply(context, &changes, &mut pass).await;
        // After a change the target must be seen to have it: if somebody takes it back at once, the
        // target is as it was, but not as it shall be.
        let is_settled =
            !context.apply || (changes.acls().next().is_none() && is_noted && !changes.waits);
        pass.drift = report::drift(&due, &translated.left, &changes, &failed, context.apply);
        pass.drift.extend(report::released(&release));
        pass.drift
            .extend(exposure::exposures(target.iter(), &ours, &copies, own));
        pass.obstacles
            .extend((translated.groups_left > 0).then(|| too_many(translated.groups_left)));
        self.last = Some(Last {
            fingerprint: is_settled.then_some(fingerprint),
            drift: pass.drift.clone(),
            obstacles: pass.obstacles.clone(),
        });
        Ok(pass)
    }

    fn fingerprint(&self, seen: &Seen, foreign: &BTreeSet<AclBinding>) -> u64 {
        self.hashes.hash_one((
            seen.source.fingerprint(),
            seen.target.fingerprint(),
            &seen.topics,
            &seen.followed,
            &seen.copies,
            &seen.release,
            foreign,
        ))
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

const SOURCE: &str = "source";
const TARGET: &str = "target";

/// Asks both clusters and the state.
async fn see(context: &Context) -> Result<Seen, Stopped> {
    let (source, target) = tokio::join!(
        wire::describe_acls(&context.source),
        wire::describe_acls(&context.target)
    );
    let source = source.map_err(|error| cant_read(&error, SOURCE, true))?;
    let target = target.map_err(|error| cant_read(&error, TARGET, true))?;
    let mut release = release::Release::Nothing;
    let mut fence = HashSet::new();
    if let Some(store) = &context.store {
        store.refresh().await.map_err(|error| state(&error))?;
        release = ours::load_release(store, &context.flow).map_err(|error| state(&error))?;
        // Read after the source's ACLs: a fence is written down before it is made.
        let record: Option<FenceRecord> = store
            .get(&keys::fence(&context.flow))
            .map_err(|error| state(&error))?;
        fence.extend(
            record
                .into_iter()
                .flat_map(|record| record.acls)
                .map(|it| it.binding()),
        );
        refuse_another_source(context)?;
    }
    let mirrored = context.topics.mirrored();
    let mut copies: Vec<String> = mirrored.iter().map(|t| t.target_topic.clone()).collect();
    copies.sort_unstable();
    let topics = expandable(context, mirrored.into_iter().map(|t| t.source_topic));
    Ok(Seen {
        source,
        target,
        topics,
        followed: followed(context),
        copies,
        release,
        fence,
    })
}

/// The groups whose positions the flow keeps on the target, where patterns are expanded over them: those that
/// don't begin as all of the flow's do.
fn followed(context: &Context) -> BTreeSet<String> {
    let is_twin = is_twin(&context.selected, &context.rename);
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

/// Whether an operator has given Twinlog its rights by ACLs, on all that it writes to. Then it needs none
/// of its own making, and the target is most likely not open: brokers hide whether the property is set to
/// `false`. (Rights on some of it say nothing about the rest.)
fn holds_rights(
    target: &BTreeSet<AclBinding>,
    ours: &Ours,
    own: Option<&str>,
    copies: &[String],
) -> bool {
    let given: Vec<&AclBinding> = target
        .iter()
        .filter(|acl| held::changes_the_copy(acl) && Some(&*acl.principal) == own)
        .filter(|acl| !is_made_by_us(ours, acl))
        .collect();
    let mut needed = std::iter::once(STATE_TOPIC).chain(copies.iter().map(String::as_str));
    needed.all(|topic| given.iter().any(|acl| acl.covers(topic)))
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

/// Another cluster behind the source's address says nothing about what the standby needs.
fn refuse_another_source(context: &Context) -> Result<(), Stopped> {
    let Some(store) = &context.store else {
        return Ok(());
    };
    let key = keys::flow(&context.flow);
    let record: Option<FlowRecord> = store.get(&key).map_err(|error| state(&error))?;
    let known = record.and_then(|record| record.source_cluster_id);
    let found = context.source.cached().cluster_id.clone();
    match (known, found) {
        (Some(known), Some(found)) if known != found => Err(Box::new(Obstacle {
            kind: DriftKind::Acl,
            cluster: SOURCE.to_owned(),
            reason: "another_cluster".to_owned(),
            message: format!(
                "the source is cluster {found}, but this flow copies from cluster {known}: ACLs \
                 stay as they are"
            ),
            hint: Some("check the source's bootstrap.servers".to_owned()),
            is_problem: true,
        })),
        _ => Ok(()),
    }
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
