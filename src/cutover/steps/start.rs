//! Begins to copy back: the old primary's logs are continued behind the forks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::stop;
use crate::cutover::adopt::{adopt_all, seed_groups};
use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::failback::ENDED_PLAN;
use crate::cutover::hidden::hidden;
use crate::cutover::pairs::{ends, present};
use crate::cutover::registered::{self, Registered};
use crate::cutover::reign::{self, Carried};
use crate::cutover::unlisted;
use crate::flow::fenced::FenceError;
use crate::flow::{deny, fenced, own_principal, restrain};
use crate::state::{FenceRecord, ForkRecord, Primary, RoleRecord, TopicSet, keys};
use crate::wire::{Metadata, OffsetSpec, TopicPartition};

const AGAIN: Duration = Duration::from_millis(50);
/// A change of ACLs is known to every broker within this.
const FENCED_WITHIN: Duration = Duration::from_secs(15);

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let ended = it.ended()?;
    ended.store.refresh().await?;
    it.scene.store.refresh().await?;
    let role = ended_role(ended)?;
    let forks = restrain::forks(&ended.store, &ended.flow.name, &role.topics)?;
    let there = describe(ended, &forks).await?;
    // Before anything is changed: of what can't be seen nobody would keep the writers away.
    unlisted::refuse(
        &ended.source,
        &unlisted::hidden(&ended.source, forks.keys()),
    )?;
    let topics = topics_of(&forks, &there);
    let partitions: Vec<TopicPartition> = forks
        .iter()
        .flat_map(|(topic, fork)| present(&there, topic, fork.partitions.len()))
        .collect();
    it.journal.note(ENDED_PLAN, &role.plan);
    it.journal.save().await?;
    let ended = it.ended()?;
    // From here on whoever looks after the old primary leaves the way open for us.
    let role = note(ended, role, true).await?;
    let prepared = async {
        let unfenced = fence(it, ended, &role, &topics).await?;
        // The standby may be gone when it is to be lifted.
        restrain::tell_all(&ended.store, &it.scene.store, &ended.flow.name, &role).await?;
        lift_of_gone(ended, &there).await?;
        settled(it, ended, &partitions).await?;
        let adoption = adopt_all(&it.scene, ended, &forks).await?;
        Ok::<_, CutoverError>((unfenced, adoption))
    };
    let (unfenced, adoption) = match prepared.await {
        Ok(prepared) => prepared,
        Err(error) => {
            note(ended, role, false).await?;
            return Err(error);
        }
    };
    if let Some((topic, why)) = adoption.refused.first_key_value() {
        return Err(CutoverError::failed(format!("{topic} can't be copied back: {why}"))
            .with_hint("exclude it in the config, or delete it on the old primary: then it is copied from its first record"));
    }
    let unseeded = seed_groups(&it.scene, &forks).await?;
    it.journal.note("unseeded", &unseeded);
    let mut carried = Carried::default();
    // A longer retention first of all: else what is copied back may be deleted there at once.
    reign::carry_configs(it.ended()?, &it.scene, &forks, &mut carried).await?;
    it.journal.note("carried", &carried);
    begin(it, &role).await?;
    let mut text = adoption.in_words();
    it.journal.note("adoption", &adoption);
    if let Some(problem) = unfenced {
        text.push_str("; the old primary isn't fenced");
        it.journal.note("unfenced", &problem);
    }
    Ok(text)
}

fn topics_of(forks: &BTreeMap<String, ForkRecord>, there: &Metadata) -> Vec<String> {
    let topics = forks.keys();
    let there = topics.filter(|topic| !is_gone(there, topic));
    there.cloned().collect()
}

/// What the old primary has, with those that a list of all topics leaves out.
async fn describe(
    ended: &Scene,
    forks: &BTreeMap<String, ForkRecord>,
) -> Result<Arc<Metadata>, CutoverError> {
    ended.source.metadata(None).await?;
    let fence: Option<FenceRecord> = ended.store.get(&keys::fence(&ended.flow.name))?;
    let fenced = fence.unwrap_or_default().acls;
    let names = forks.keys().chain(fenced.iter().map(|acl| &acl.topic));
    Ok(ended.source.describe_unlisted(names).await?)
}

/// Whether the cluster says so. What it hides isn't.
fn is_gone(there: &Metadata, topic: &str) -> bool {
    matches!(there.described(topic), Ok(None))
}

/// Topics that the old primary has lost are made there again.
async fn lift_of_gone(ended: &Scene, there: &Metadata) -> Result<(), CutoverError> {
    let (cluster, store, flow) = (&ended.source, &ended.store, &ended.flow.name);
    match fenced::lift(cluster, store, flow, |topic| is_gone(there, topic)).await {
        Ok(_) | Err(FenceError::Deny(deny::DenyError::NoAuthorizer)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Keeps writers, but not us, from the old primary again.
pub(super) async fn fence_again(it: &Cutover, role: &RoleRecord) -> Result<(), CutoverError> {
    let ended = it.ended()?;
    let forks = restrain::forks(&ended.store, &ended.flow.name, &role.topics)?;
    let there = describe(ended, &forks).await?;
    fence(it, ended, role, &topics_of(&forks, &there)).await?;
    Ok(())
}

/// The role of the flow that was failed over.
fn ended_role(ended: &Scene) -> Result<RoleRecord, CutoverError> {
    let role = ended.role()?;
    role.filter(|role| role.primary == Primary::Target)
        .ok_or_else(|| {
            CutoverError::failed(format!(
                "{} isn't the primary any more",
                ended.target.name()
            ))
        })
}

/// Keeps writers, but not us, from the old primary. Why nobody can be kept away, if so.
async fn fence(
    it: &Cutover,
    ended: &Scene,
    role: &RoleRecord,
    topics: &[String],
) -> Result<Option<String>, CutoverError> {
    let own = own_principal(&it.scene.flow, &it.scene.target_section);
    let (cluster, store, flow) = (&ended.source, &ended.store, &ended.flow.name);
    let deadline = Instant::now() + FENCED_WITHIN;
    let is_early = || Instant::now() < deadline;
    loop {
        let changed = fenced::but_us(cluster, store, flow, role.plan, topics, own.as_deref()).await;
        match changed {
            Ok(0) if deny::may_write(cluster, topics).await? => return Ok(None),
            Ok(_) if is_early() => tokio::time::sleep(AGAIN).await,
            Ok(_) => {
                return Err(CutoverError::failed(format!(
                    "Twinlog may not write to the topics of {}",
                    cluster.name()
                ))
                .with_hint(
                    "grant its user WRITE on them there; super users aren't bound by the fence",
                ));
            }
            // Who was asked may be late, and show what was removed just now.
            Err(FenceError::Deny(deny::DenyError::DeniedByAnother { .. })) if is_early() => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(FenceError::Deny(error @ deny::DenyError::NoAuthorizer)) => {
                (it.tell)(
                    "nothing keeps producers from the old primary: see that none writes there",
                );
                return Ok(Some(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until no transaction of the old primary's last producers is open: its coordinator ends
/// them with a marker in the log, which would come behind our first batch. Nor may its leaders have
/// more than can be seen: our first batch goes behind that, and its offset must be known.
async fn settled(
    it: &Cutover,
    ended: &Scene,
    partitions: &[TopicPartition],
) -> Result<(), CutoverError> {
    let deadline = Instant::now() + it.options.wait.max(FENCED_WITHIN);
    let (mut told, mut told_unknown) = (false, false);
    loop {
        let (stable, now) = tokio::try_join!(
            ends(&ended.source, partitions, OffsetSpec::LatestStable),
            ends(&ended.source, partitions, OffsetSpec::Latest),
        )?;
        let open: Vec<String> = partitions
            .iter()
            .filter(|at| stable.get(at) < now.get(at))
            .map(ToString::to_string)
            .collect();
        let hidden = match open.is_empty() {
            true => hidden(&ended.source, &now).await?,
            false => Vec::new(),
        };
        // One that has no record in a partition yet ends with a marker there all the same, and holds no end back.
        let mut registered = match open.is_empty() && hidden.is_empty() {
            true => registered::look(&ended.source, partitions).await,
            false => Registered::default(),
        };
        if let Some(why) = registered.untold.take().filter(|_| !told_unknown) {
            (it.tell)(&format!(
                "the old primary doesn't tell all of its open transactions ({why}): see that its last producers have ended theirs"
            ));
            told_unknown = true;
        }
        let not_yet = registered.not_yet.take();
        if open.is_empty() && hidden.is_empty() && registered.open.is_empty() && not_yet.is_none() {
            return Ok(());
        }
        let open = match open.is_empty() {
            true => registered.names(),
            false => open,
        };
        let is_late = Instant::now() >= deadline;
        if let Some(why) = not_yet.filter(|_| is_late && open.is_empty()) {
            return Err(CutoverError::failed(format!(
                "it can't be seen whether transactions are open on the old primary: {why}"
            ))
            .with_hint(
                "wait until its brokers answer and its transaction coordinators have loaded, and run this again",
            ));
        }
        if is_late && open.is_empty() {
            return Err(CutoverError::failed(format!(
                "replicas on the old primary lag behind their leaders in {} partition(s) such as {}",
                hidden.len(),
                hidden[0]
            ))
            .with_hint("wait until its replicas are in sync, and run this again"));
        }
        if is_late {
            return Err(CutoverError::failed(format!(
                "transactions are still open on the old primary, in {} partition(s) such as {}",
                open.len(),
                open[0]
            ))
            .with_hint(
                "its coordinator ends them after `transaction.timeout.ms`; one that hangs is \
                 ended by `kafka-transactions.sh abort`",
            ));
        }
        if !told && !open.is_empty() {
            (it.tell)("waiting for the old primary to end its last transactions");
            told = true;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Lets the copy back begin.
async fn begin(it: &mut Cutover, role: &RoleRecord) -> Result<(), CutoverError> {
    let scene = &it.scene;
    let before = scene.role()?;
    let is_begun = before
        .as_ref()
        .is_some_and(|role| role.primary == Primary::Source);
    if !is_begun {
        // Not this plan's: a claim that names a plan says that it has stopped for it.
        let back = scene.copying_role(role.plan, before.as_ref());
        scene.begin_to_copy(&back).await?;
    }
    Ok(())
}

/// Notes in the role of the failed over flow whether it is copied back.
pub(super) async fn note(
    ended: &Scene,
    role: RoleRecord,
    is_copied_back: bool,
) -> Result<RoleRecord, CutoverError> {
    let role = RoleRecord {
        is_copied_back,
        is_handed_back: false,
        ..role
    };
    ended.put_role(&role).await?;
    Ok(role)
}

/// Nothing is copied back any more. What was copied so far stays, and counts when it begins again.
pub(super) async fn undo(it: &mut Cutover) -> Result<String, CutoverError> {
    let ended = it.ended()?;
    ended.store.refresh().await?;
    if let Some(role) = ended.role()?
        && (role.is_copied_back || role.is_handed_back)
    {
        note(ended, role, false).await?;
    }
    let scene = &it.scene;
    if let Some(role) = scene.role()? {
        let role = RoleRecord {
            primary: Primary::Target,
            topics: TopicSet::All,
            epoch: role.epoch + 1,
            plan: it.journal.record.plan,
            ..role
        };
        scene.put_role(&role).await?;
    }
    stop::end_copying(it).await?;
    Ok("nothing is copied back any more".to_owned())
}
