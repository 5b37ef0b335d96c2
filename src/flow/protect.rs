//! Nobody but Twinlog writes to the copies (`protect: true`): the ACLs that a fence is made of, on the target.
//!
//! What is made is in the state topic before it is made (`protect/<flow>`), so it is never taken for
//! somebody else's, and is removed exactly: where a topic isn't followed any more, where `protect` is
//! off again, and by a failover right before its target is the primary. ACLs are compared every 15 s and
//! as soon as other topics are copied: what somebody removed is made again, and who was let in
//! meanwhile is kept out.
//!
//! Behind a failback the fence around the standby becomes a protection, whatever the config says
//! (`RoleRecord::is_kept_fenced`): a producer that nobody has moved would go on there, be acknowledged, and be
//! on no other cluster.
//!
//! Kafka has no rule for everybody but one. Where Twinlog is a super user everybody is denied; else
//! those are, one by one, whom an ACL lets write (`deny::protect`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deny::{self, DenyError};
use super::fenced::{self, FenceError};
use super::shared::Flow;
use crate::config::DRILL_PREFIX;
use crate::state::{FenceAcl, FenceRecord, RoleRecord, StateStore, keys};
use crate::telemetry::protect::ProtectStatus;
use crate::wire::Cluster;

/// How often it is looked whether other topics are copied.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the ACLs are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(15);

/// Which copies there are is known some time after the start: what protects them stays so long.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// Keeps the copies of a flow protected, or takes away what is left of that, until cancelled.
pub(super) async fn keep(flow: Arc<Flow>, cancel: CancellationToken) {
    let name = &flow.config.name;
    // What copies back has the fence of the failback, and a rehearsal is over soon.
    if flow.config.is_back() || name.starts_with(DRILL_PREFIX) {
        cancel.cancelled().await;
        return;
    }
    let mut keeper = Keeper {
        flow,
        topics: BTreeSet::new(),
        compared_at: None,
        began_at: Instant::now(),
    };
    loop {
        let round = cancel.run_until_cancelled(keeper.round());
        if round.await.is_none() {
            return;
        }
        let pause = cancel.run_until_cancelled(tokio::time::sleep(LOOK_EVERY));
        if pause.await.is_none() {
            return;
        }
    }
}

struct Keeper {
    flow: Arc<Flow>,
    topics: BTreeSet<String>,
    compared_at: Option<Instant>,
    began_at: Instant,
}

impl Keeper {
    async fn round(&mut self) {
        let flow = self.flow.clone();
        let is_wanted = is_wanted(&flow);
        let mut topics: BTreeSet<String> = match is_wanted {
            true => copies(&flow),
            false => BTreeSet::new(),
        };
        if is_wanted && self.began_at.elapsed() < SETTLED_AFTER {
            topics.extend(protected(&flow));
        }
        let is_due = self
            .compared_at
            .is_none_or(|at| at.elapsed() >= COMPARE_EVERY);
        if !is_due && topics == self.topics {
            return;
        }
        // Without the option nothing is asked of anybody, unless something is left.
        let is_left = || matches!(record(&flow.store, &flow.config.name), Ok(Some(_)));
        if is_wanted || is_left() {
            let names: Vec<String> = topics.iter().cloned().collect();
            self.note(pass(&flow, &names).await, names.len());
        } else {
            flow.progress.set_protect(None);
        }
        self.topics = topics;
        self.compared_at = Some(Instant::now());
    }

    fn note(&self, passed: Result<usize, FenceError>, topics: usize) {
        let flow = &self.flow;
        let before = flow.progress.protect();
        let problem = passed.as_ref().err().map(in_words);
        if let Ok(changed) = passed
            && changed > 0
        {
            tracing::info!(flow = %flow.config.name, acls = changed, topics, "who may write to the copies was put right (protect)");
        }
        if let Some(problem) = &problem
            && before.as_ref().and_then(|it| it.problem.as_ref()) != Some(problem)
        {
            tracing::error!(flow = %flow.config.name, problem, "others can't be kept from writing to the copies (protect)");
        }
        let status = ProtectStatus {
            topics,
            problem,
            looked_at_ms: crate::telemetry::progress::now_ms(),
        };
        let is_shown = is_wanted(flow) || status.problem.is_some();
        flow.progress.set_protect(is_shown.then_some(status));
    }
}

/// Whether the copies are protected: by the config, or since a failback.
fn is_wanted(flow: &Flow) -> bool {
    let role: Option<RoleRecord> = flow
        .store
        .get(&keys::role(&flow.config.name))
        .ok()
        .flatten();
    flow.config.protect || role.is_some_and(|role| role.keeps_others_out())
}

/// The copies that are there.
fn copies(flow: &Flow) -> BTreeSet<String> {
    let present = flow.target.cached();
    let names = flow.topics.iter();
    names
        .map(|topic| topic.record.target_topic.clone())
        .filter(|name| present.has_topic(name))
        .collect()
}

/// What is protected already, and still there.
fn protected(flow: &Flow) -> Vec<String> {
    let made = record(&flow.store, &flow.config.name);
    let made = made.ok().flatten().unwrap_or_default().acls;
    let present = flow.target.cached();
    let names = made.into_iter().map(|acl| acl.topic);
    names.filter(|name| present.has_topic(name)).collect()
}

/// One comparison; how many ACLs were made or removed.
async fn pass(flow: &Flow, topics: &[String]) -> Result<usize, FenceError> {
    let (store, name) = (&flow.store, &flow.config.name);
    store.refresh().await?;
    // A failover lifts it, and nobody puts it back behind that.
    let role: Option<RoleRecord> = store.get(&keys::role(name))?;
    if role.is_some_and(|role| role.stops_all()) {
        return Ok(0);
    }
    // An operator may have lifted it meanwhile.
    let topics = if is_wanted(flow) { topics } else { &[] };
    let made = record(store, name)?.unwrap_or_default().acls;
    let own = flow.own_principal.as_deref();
    let change = deny::protect(&flow.target, topics, own, &made).await?;
    let key = keys::protect(name);
    fenced::change(&flow.target, store, &key, &change).await
}

fn record(store: &StateStore, flow: &str) -> Result<Option<FenceRecord>, crate::state::StateError> {
    store.get(&keys::protect(flow))
}

/// The fence that a plan has made around the copies becomes their protection, through which Twinlog, as `own`, can
/// copy. What isn't needed for that is removed. Whoever carries this out again does no harm.
///
/// # Errors
/// When nobody else can be kept away alone, or that can't be changed or remembered.
pub async fn take_over(
    target: &Cluster,
    store: &StateStore,
    flow: &str,
    own: Option<&str>,
    fence: &[FenceAcl],
) -> Result<(), FenceError> {
    let key = keys::protect(flow);
    fenced::note(store, &key, fence).await?;
    let made = record(store, flow)?.unwrap_or_default().acls;
    let topics: BTreeSet<&String> = made.iter().map(|acl| &acl.topic).collect();
    let topics: Vec<String> = topics.into_iter().cloned().collect();
    let change = deny::protect(target, &topics, own, &made).await?;
    fenced::change(target, store, &key, &change).await?;
    Ok(())
}

/// Takes the protection away from the copies that `is_lifted` names: clients may write.
///
/// # Errors
/// When ACLs can't be removed or forgotten.
pub async fn lift(
    target: &Cluster,
    store: &StateStore,
    flow: &str,
    is_lifted: impl Fn(&str) -> bool,
) -> Result<usize, FenceError> {
    let lifted = fenced::lift_at(target, store, &keys::protect(flow), is_lifted).await?;
    Ok(lifted.unwrap_or(0))
}

/// Whether a flow's copies have ACLs of a protection.
pub fn is_left(store: &StateStore, flow: &str) -> bool {
    matches!(record(store, flow), Ok(Some(_)))
}

/// The problem, as about a target.
fn in_words(error: &FenceError) -> String {
    match error {
        FenceError::Deny(DenyError::NoAuthorizer) => {
            "the target has no authorizer (authorizer.class.name), so no ACL can keep anybody from its topics".to_owned()
        }
        FenceError::Deny(DenyError::NotAllowed(error)) => format!(
            "Twinlog may not see or change ACLs on the target (grant DESCRIBE and ALTER on the cluster): {error}"
        ),
        FenceError::Deny(DenyError::OursToo { reason, .. }) => {
            format!("nobody else can be kept away alone: {reason}")
        }
        other => other.to_string(),
    }
}

/// Why the copies of a flow can't be protected, as far as that is known before it runs.
pub(super) async fn obstacle(target: &Cluster) -> Option<String> {
    let listed = crate::wire::describe_acls(target).await;
    let listed = listed.and_then(|it| it.acls(target).map(|_| ()));
    let error = listed.err()?;
    Some(in_words(&FenceError::Deny(error.into())))
}
