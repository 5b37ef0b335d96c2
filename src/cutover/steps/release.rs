//! Applies what was held for this moment, one aspect each.
//!
//! Each aspect of the metadata keeps what it holds in the state topic, so this works with the
//! source gone. The order is configs, quotas, ACLs: clients are let in last. What can't be applied
//! is for the operator; a standby that takes most clients is better than none.

use std::collections::BTreeSet;

use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::reign::{self, Carried};
use crate::flow::{own_principal, restrain};
use crate::metadata::acls::{self, Change, ReleasePlan, Which};
use crate::metadata::quotas;
use crate::state::{HeldConfigs, TopicSet, keys};
use crate::wire::{self, TopicChanges};

/// What became of one aspect.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Released {
    /// How many things were applied (or taken back).
    pub count: u64,
    /// What couldn't be, a line each: for the operator.
    pub problems: Vec<String>,
}

impl Released {
    fn in_words(&self, noun: &str) -> String {
        match self.problems.len() {
            0 => format!("{} {noun}(s)", self.count),
            failed => format!("{} {noun}(s) ({failed} failed)", self.count),
        }
    }
}

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let scene = &it.scene;
    let is_whole = it.journal.record.topics == TopicSet::All;
    it.still_ours().await?;
    // What is to be released is looked for meanwhile, and what the flow that was failed over has noted.
    let read = async {
        match &it.ended {
            Some(ended) => Ok(ended.store.refresh().await?),
            None => Ok(()),
        }
    };
    let (configs, quotas, plan, ()) = tokio::try_join!(
        configs(scene),
        quotas(scene, is_whole, Change::Release),
        plan_acls(scene, is_whole, Change::Release),
        read,
    )?;
    it.still_ours().await?;
    let acls = acls(scene, plan).await?;
    if let Some(ended) = &it.ended {
        let role = ended.role()?;
        let topics = role.map_or(TopicSet::All, |role| role.topics);
        let forks = restrain::forks(&ended.store, &ended.flow.name, &topics)?;
        let mut carried: Carried = it.journal.fact("carried").unwrap_or_default();
        let (mut configs, mut quotas) = (Carried::default(), Carried::default());
        tokio::try_join!(
            reign::carry_configs(ended, scene, &forks, &mut configs),
            reign::carry_acls(ended, scene, &mut carried),
            reign::carry_quotas(ended, scene, &mut quotas),
        )?;
        carried.take(configs);
        carried.take(quotas);
        it.journal.note("carried", &carried);
    }
    let text = format!(
        "{}, {}, {}",
        configs.in_words("topic config"),
        quotas.in_words("quota"),
        acls.in_words("ACL")
    );
    let all = [("configs", configs), ("quotas", quotas), ("acls", acls)];
    for (aspect, released) in all {
        it.journal.note(&format!("released_{aspect}"), &released);
    }
    Ok(text)
}

/// Asks what this step asks, for the connections alone: those to whoever makes changes.
pub(super) async fn connect(it: &Cutover) {
    let target = &it.scene.target;
    let _ = tokio::join!(target.controller(), it.scene.source.controller());
}

/// Topic configs need no undoing: the flow that copies again sets what a mirror must have.
pub(super) async fn undo(it: &mut Cutover) -> Result<String, CutoverError> {
    it.scene.store.refresh().await?;
    let is_whole = it.journal.record.topics == TopicSet::All;
    let withdrawn = withdraw(&it.scene, is_whole).await?;
    for problem in withdrawn.problems() {
        (it.tell)(problem);
    }
    Ok(withdrawn.in_words())
}

/// What is held again.
pub(super) struct Withdrawn {
    acls: Released,
    quotas: Released,
}

impl Withdrawn {
    /// What couldn't be taken back, a line each.
    pub(super) fn problems(&self) -> impl Iterator<Item = &String> {
        self.acls.problems.iter().chain(&self.quotas.problems)
    }

    /// In one line.
    pub(super) fn in_words(&self) -> String {
        format!(
            "{} and {} are held again",
            self.acls.in_words("ACL"),
            self.quotas.in_words("quota")
        )
    }
}

/// Takes back what was applied for the moment of the failover.
///
/// # Errors
/// When the state can't be read.
pub(super) async fn withdraw(scene: &Scene, is_whole: bool) -> Result<Withdrawn, CutoverError> {
    let plan = plan_acls(scene, is_whole, Change::Withdraw).await?;
    let acls = acls(scene, plan).await?;
    let quotas = quotas(scene, is_whole, Change::Withdraw).await?;
    Ok(Withdrawn { acls, quotas })
}

/// Sets what the source's topics have and a mirror must not.
async fn configs(scene: &Scene) -> Result<Released, CutoverError> {
    let mut released = Released::default();
    let mut changes = Vec::new();
    for topic in &scene.topics {
        let key = keys::held_configs(&scene.flow.name, &topic.name);
        let held: Option<HeldConfigs> = scene.store.get(&key)?;
        if let Some(held) = held.filter(|held| !held.values.is_empty()) {
            changes.push(TopicChanges {
                topic: topic.record.target_topic.clone(),
                changes: held.values,
            });
        }
    }
    let outcomes = wire::alter_many_topic_configs(&scene.target, &changes).await?;
    for (change, outcome) in changes.iter().zip(outcomes) {
        match outcome {
            Ok(()) => released.count += 1,
            Err(error) => {
                let problem = format!("topic {}: configs not set: {error}", change.topic);
                released.problems.push(problem);
            }
        }
    }
    Ok(released)
}

/// Quotas are of users and clients, not of topics: they wait for the whole flow.
async fn quotas(scene: &Scene, is_whole: bool, change: Change) -> Result<Released, CutoverError> {
    let mut released = Released::default();
    if !is_whole || !scene.flow.metadata.quotas {
        return Ok(released);
    }
    let (target, store, flow) = (&scene.target, &scene.store, &scene.flow.name);
    let outcomes = match change {
        Change::Release => quotas::release(target, store, flow).await,
        Change::Withdraw => quotas::withdraw(target, store, flow).await,
    };
    match outcomes {
        Ok(outcomes) => {
            for (quota, outcome) in outcomes {
                match outcome {
                    Ok(()) => released.count += 1,
                    Err(error) => {
                        let problem = format!("quota {} of {}: {error}", quota.key, quota.entity);
                        released.problems.push(problem);
                    }
                }
            }
        }
        Err(error) => released.problems.push(format!("quotas: {error}")),
    }
    Ok(released)
}

/// What is to be done about ACLs; `None` where nothing is.
type AclPlan = Option<Result<ReleasePlan, acls::ReleaseError>>;

async fn plan_acls(scene: &Scene, is_whole: bool, change: Change) -> Result<AclPlan, CutoverError> {
    if !scene.flow.metadata.acls.enabled {
        return Ok(None);
    }
    let (target, store, flow) = (&scene.target, &scene.store, &scene.flow.name);
    let which = if is_whole {
        Which::Everything
    } else {
        let names: Vec<String> = scene
            .topics
            .iter()
            .map(|topic| topic.record.target_topic.clone())
            .collect();
        // A topic about which nothing is held is an error of a release.
        let held = acls::held(store, flow)?;
        let about: BTreeSet<String> = names
            .into_iter()
            .filter(|name| {
                let name = std::slice::from_ref(name);
                held.iter().any(|acl| acl.topic_is_one_of(name))
            })
            .collect();
        if about.is_empty() {
            return Ok(None);
        }
        Which::Topics(about)
    };
    let own = own_principal(&scene.flow, &scene.target_section);
    let of = (flow.as_str(), own.as_deref());
    Ok(Some(
        ReleasePlan::new(target, store, of, change, &which).await,
    ))
}

async fn acls(scene: &Scene, plan: AclPlan) -> Result<Released, CutoverError> {
    let mut released = Released::default();
    let done = match plan {
        None => return Ok(released),
        Some(Ok(plan)) => plan.apply(&scene.target, &scene.store).await,
        Some(Err(error)) => Err(error),
    };
    match done {
        Ok(done) => {
            released.count = done.done;
            let failed = done.failed.into_iter();
            released
                .problems
                .extend(failed.map(|failure| format!("{}: {}", failure.acl, failure.message)));
        }
        Err(acls::ReleaseError::Wire(error))
            if error.server_code() == Some(wire::ResponseError::SecurityDisabled) => {}
        Err(error) => released.problems.push(format!("ACLs: {error}")),
    }
    Ok(released)
}
