//! Nobody but Twinlog writes to the copies (`protect: true`): the ACLs that a fence is made of, on the target.
//!
//! What is made is in the state topic before it is made (`protect/<flow>`), so it is never taken for
//! somebody else's, and is removed exactly: where a topic isn't followed any more, where `protect` is
//! off again, and by a failover right before its target is the primary. A copy that isn't prepared (yet), or that
//! no broker shows, is followed all the same: its topic's record says so. ACLs are compared every 15 s and
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

use super::deny::{self, Change, DenyError};
use super::fenced::{self, FenceError};
use super::shared::Flow;
use crate::config::DRILL_PREFIX;
use crate::state::{
    FenceAcl, FenceRecord, RoleRecord, StateError, StateStore, TopicRecord, TopicSet, keys,
};
use crate::telemetry::protect::ProtectStatus;
use crate::wire::Cluster;

/// How often it is looked whether other topics are copied.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the ACLs are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(15);
/// A change of ACLs is known to every broker within this.
const HEARD_WITHIN: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(200);

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
        prepared: BTreeSet::new(),
        compared_at: None,
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
    /// The copies that were prepared when the ACLs were compared last: a cheap sign of other ones.
    prepared: BTreeSet<String>,
    compared_at: Option<Instant>,
}

/// The copies of a flow, by their names on the target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Copies {
    /// Those that are there.
    there: Vec<String>,
    /// Those that the target doesn't show now: what protects them is left as it is.
    unseen: BTreeSet<String>,
}

impl Keeper {
    async fn round(&mut self) {
        let flow = self.flow.clone();
        let is_wanted = is_wanted(&flow);
        let prepared = match is_wanted {
            true => prepared(&flow),
            false => BTreeSet::new(),
        };
        let is_due = self
            .compared_at
            .is_none_or(|at| at.elapsed() >= COMPARE_EVERY);
        if !is_due && prepared == self.prepared {
            return;
        }
        // Without the option nothing is asked of anybody, unless something is left.
        let is_left = || matches!(record(&flow.store, &flow.config.name), Ok(Some(_)));
        if is_wanted || is_left() {
            let (passed, topics) = pass(&flow).await;
            self.note(passed, topics);
        } else {
            flow.progress.set_protect(None);
        }
        self.prepared = prepared;
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
            principal: flow.own_principal.clone(),
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

/// The copies that are being made, as far as they are prepared.
fn prepared(flow: &Flow) -> BTreeSet<String> {
    let topics = flow.topics.iter();
    topics
        .map(|topic| topic.record.target_topic.clone())
        .collect()
}

/// The copies of the selected topics, by their records: those that aren't prepared, too.
fn copies(flow: &Flow) -> Result<Copies, StateError> {
    let prefix = flow.topic_key("");
    let mut names = BTreeSet::new();
    for key in flow.store.keys(&prefix) {
        let name = key.strip_prefix(&prefix).unwrap_or_default();
        if flow.config.topics.matches(name)
            && let Some(record) = flow.store.get::<TopicRecord>(&key)?
        {
            names.insert(record.target_topic);
        }
    }
    let present = flow.target.cached();
    Ok(Copies::of(names, |name| present.has_topic(name)))
}

impl Copies {
    fn of(names: BTreeSet<String>, is_there: impl Fn(&str) -> bool) -> Self {
        let (there, unseen): (BTreeSet<_>, _) = names.into_iter().partition(|name| is_there(name));
        Self {
            there: there.into_iter().collect(),
            unseen,
        }
    }

    /// What is compared of what was made.
    fn compared(&self, mut made: Vec<FenceAcl>) -> Vec<FenceAcl> {
        made.retain(|acl| !self.unseen.contains(&acl.topic));
        made
    }
}

/// Whether a flow that began with `not_copied` may change the protection under this role.
///
/// With another role a cut-over has begun or is through, and the flow is about to begin again; its own config
/// selects what the role was about then. Once the old primary is handed back, the failback makes the standby's
/// fence the protection (`cutover/steps/resume`), before the role says that the topics are copied again.
fn may_change(role: Option<&RoleRecord>, not_copied: Option<&TopicSet>) -> bool {
    role.and_then(RoleRecord::not_copied) == not_copied
        && role.is_none_or(|role| !role.is_handed_back)
}

/// One comparison: how many ACLs were made or removed; and how many copies there are.
async fn pass(flow: &Flow) -> (Result<usize, FenceError>, usize) {
    let mut topics = 0;
    let passed = compare(flow, &mut topics).await;
    (passed, topics)
}

async fn compare(flow: &Flow, topics: &mut usize) -> Result<usize, FenceError> {
    let (store, name) = (&flow.store, &flow.config.name);
    store.refresh().await?;
    let role: Option<RoleRecord> = store.get(&keys::role(name))?;
    // An operator may have lifted it meanwhile.
    let copies = match is_wanted(flow) {
        true => copies(flow)?,
        false => Copies::default(),
    };
    *topics = copies.there.len();
    if !may_change(role.as_ref(), flow.not_copied.as_ref()) {
        return Ok(0);
    }
    let made = copies.compared(record(store, name)?.unwrap_or_default().acls);
    let own = flow.own_principal.as_deref();
    let change = deny::protect(&flow.target, &copies.there, own, &made).await?;
    let key = keys::protect(name);
    fenced::change(&flow.target, store, &key, &change).await
}

fn record(store: &StateStore, flow: &str) -> Result<Option<FenceRecord>, StateError> {
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
    let change = lacking(target, &topics, own, &made).await?;
    fenced::change(target, store, &key, &change).await?;
    Ok(())
}

/// What the protection lacks. A broker that is late shows what was removed just now, by whoever carried this out before.
async fn lacking(
    target: &Cluster,
    topics: &[String],
    own: Option<&str>,
    made: &[FenceAcl],
) -> Result<Change, DenyError> {
    let deadline = Instant::now() + HEARD_WITHIN;
    loop {
        match deny::protect(target, topics, own, made).await {
            Err(DenyError::DeniedByAnother { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(AGAIN).await;
            }
            found => return found,
        }
    }
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
        FenceError::Deny(DenyError::DeniedByAnother { topic, .. }) => format!(
            "nobody else can be kept away alone: somebody else denies everybody to write to {topic}"
        ),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Primary;
    use uuid::Uuid;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn role(primary: Primary, topics: TopicSet) -> RoleRecord {
        RoleRecord {
            v: 1,
            primary,
            topics,
            epoch: 1,
            plan: Uuid::nil(),
            since_ms: 0,
            source_cluster_id: None,
            target_cluster_id: None,
            is_copied_back: false,
            is_handed_back: false,
            is_kept_fenced: true,
        }
    }

    #[test]
    fn what_the_target_does_not_show_keeps_its_acls() {
        let of = |topic: &str| FenceAcl {
            topic: topic.to_owned(),
            operation: 4,
            deny: true,
            principal: None,
        };
        let copies = Copies::of(names(&["a", "b"]), |name| name == "a");
        assert_eq!(copies.there, ["a".to_owned()]);
        let compared = copies.compared(vec![of("a"), of("b"), of("not-followed")]);
        assert_eq!(compared, [of("a"), of("not-followed")]);
    }

    #[test]
    fn beside_a_cut_over_nobody_changes_it() {
        let list = TopicSet::List(names(&["a"]));
        let copying = role(Primary::Source, TopicSet::All);
        let stopped = role(Primary::Promoting, list.clone());
        let failed_over = role(Primary::Target, list.clone());
        let handed_back = RoleRecord {
            is_handed_back: true,
            ..failed_over.clone()
        };
        assert!(may_change(None, None));
        assert!(may_change(Some(&copying), None));
        assert!(!may_change(Some(&stopped), None), "it is about to end");
        assert!(may_change(Some(&failed_over), Some(&list)));
        assert!(!may_change(Some(&handed_back), Some(&list)));
        assert!(!may_change(Some(&copying), Some(&list)), "another begins");
    }
}
