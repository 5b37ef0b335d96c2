//! The fence around a cluster's topics as it is remembered: in the state topic before it is made,
//! until after it is removed.
//!
//! A command and a running Twinlog may change it at the same time, so what is noted is looked at
//! again: an ACL that nobody remembers would never be removed.

use tokio::task::JoinHandle;
use uuid::Uuid;

use super::deny::{self, Change, DenyError};
use crate::state::{FenceAcl, FenceRecord, StateError, StateStore, keys};
use crate::wire::Cluster;

/// Two processes don't overwrite each other more often than this in a row.
const TRIES: u32 = 5;

/// Why a cluster isn't fenced.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// ACLs can't do it.
    #[error(transparent)]
    Deny(#[from] DenyError),
    /// What is made can't be remembered.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Keeps everybody from writing to these topics. The ACLs that were made.
///
/// # Errors
/// When ACLs can't be read, made or remembered.
pub async fn everybody(
    cluster: &Cluster,
    store: &StateStore,
    flow: &str,
    plan: Uuid,
    topics: &[String],
) -> Result<Vec<FenceAcl>, FenceError> {
    let change = lacks_everybody(cluster, store, flow, topics).await?;
    carry_out(cluster, store, (&keys::fence(flow), plan), &change).await?;
    Ok(change.make)
}

/// What the fence of [`everybody`] lacks, by what is remembered of it as far as that was read: whoever makes it
/// reads that again.
///
/// # Errors
/// When ACLs or the state can't be read.
pub async fn lacks_everybody(
    cluster: &Cluster,
    store: &StateStore,
    flow: &str,
    topics: &[String],
) -> Result<Change, FenceError> {
    let made = known(store, &keys::fence(flow))?.unwrap_or_default().acls;
    let asked = deny::ask(cluster).await?;
    let make = deny::lacks(cluster, topics, &made, asked).await?;
    let remove = Vec::new();
    Ok(Change { make, remove })
}

/// Makes the fence around an old primary's topics one through which Twinlog, as `own`, can copy.
/// How many ACLs were made or removed; 0 when it is so already.
///
/// # Errors
/// When nobody else can be kept away alone, or as [`everybody`].
pub async fn but_us(
    cluster: &Cluster,
    store: &StateStore,
    flow: &str,
    plan: Uuid,
    topics: &[String],
    own: Option<&str>,
) -> Result<usize, FenceError> {
    let change = lacks_but_us(cluster, store, flow, topics, own).await?;
    carry_out(cluster, store, (&keys::fence(flow), plan), &change).await
}

/// What the fence of [`but_us`] lacks, and what of it is too much.
///
/// # Errors
/// As [`but_us`].
pub async fn lacks_but_us(
    cluster: &Cluster,
    store: &StateStore,
    flow: &str,
    topics: &[String],
    own: Option<&str>,
) -> Result<Change, FenceError> {
    let made = remembered(store, flow).await?;
    Ok(deny::but_us(cluster, topics, own, &made).await?)
}

/// The fence as it is remembered by now.
async fn remembered(store: &StateStore, flow: &str) -> Result<Vec<FenceAcl>, StateError> {
    store.refresh().await?;
    let record = known(store, &keys::fence(flow))?;
    Ok(record.unwrap_or_default().acls)
}

fn known(store: &StateStore, key: &str) -> Result<Option<FenceRecord>, StateError> {
    store.get(key)
}

/// These ACLs, which a plan has made, are remembered at `key` from now on.
///
/// # Errors
/// When they can't be.
pub async fn note(store: &StateStore, key: &str, acls: &[FenceAcl]) -> Result<(), StateError> {
    remember(store, key, Uuid::nil(), acls, &[]).await
}

/// Makes and removes these ACLs, remembered at `key`. How many there were.
///
/// # Errors
/// As [`everybody`].
pub async fn change(
    cluster: &Cluster,
    store: &StateStore,
    key: &str,
    change: &Change,
) -> Result<usize, FenceError> {
    carry_out(cluster, store, (key, Uuid::nil()), change).await
}

/// Makes and removes these ACLs, which the plan remembers at `key`. How many there were.
///
/// # Errors
/// As [`everybody`].
pub async fn carry_out(
    cluster: &Cluster,
    store: &StateStore,
    (key, plan): (&str, Uuid),
    change: &Change,
) -> Result<usize, FenceError> {
    if change.is_empty() {
        return Ok(0);
    }
    remember(store, key, plan, &change.make, &[]).await?;
    at_cluster(cluster, change).await?;
    if !change.remove.is_empty() {
        remember(store, key, plan, &[], &change.remove).await?;
    }
    Ok(change.make.len() + change.remove.len())
}

/// The same by somebody who isn't cut off: whoever waits for it may be, and finds what became of it later.
///
/// # Errors
/// When what is made can't be remembered before it is made.
pub async fn begin(
    cluster: &Cluster,
    store: &StateStore,
    (key, plan): (&str, Uuid),
    change: Change,
) -> Result<JoinHandle<Result<(), DenyError>>, StateError> {
    remember(store, key, plan, &change.make, &[]).await?;
    let cluster = cluster.clone();
    Ok(tokio::spawn(
        async move { at_cluster(&cluster, &change).await },
    ))
}

async fn at_cluster(cluster: &Cluster, change: &Change) -> Result<(), DenyError> {
    deny::create(cluster, &change.make).await?;
    deny::delete(cluster, &change.remove).await
}

/// These ACLs, which a plan has removed, are remembered at `key` no longer.
///
/// # Errors
/// When that can't be written.
pub async fn forget(
    store: &StateStore,
    (key, plan): (&str, Uuid),
    acls: &[FenceAcl],
) -> Result<(), StateError> {
    remember(store, key, plan, &[], acls).await
}

/// Removes the fence around the topics that `is_lifted` names. How many ACLs that were; `None` where
/// there was no fence.
///
/// # Errors
/// When ACLs can't be removed or forgotten.
pub async fn lift(
    cluster: &Cluster,
    store: &StateStore,
    flow: &str,
    is_lifted: impl Fn(&str) -> bool,
) -> Result<Option<usize>, FenceError> {
    lift_at(cluster, store, &keys::fence(flow), is_lifted).await
}

/// The same of what is remembered at `key`.
///
/// # Errors
/// As [`lift`].
pub async fn lift_at(
    cluster: &Cluster,
    store: &StateStore,
    key: &str,
    is_lifted: impl Fn(&str) -> bool,
) -> Result<Option<usize>, FenceError> {
    store.refresh().await?;
    let Some(record) = known(store, key)? else {
        return Ok(None);
    };
    let (plan, mut lifted) = (record.plan, record.acls);
    lifted.retain(|acl| is_lifted(&acl.topic));
    deny::delete(cluster, &lifted).await?;
    remember(store, key, plan, &[], &lifted).await?;
    Ok(Some(lifted.len()))
}

/// Notes what is made and what is gone, and looks at it again behind that. A record of nothing goes with the last ACL.
async fn remember(
    store: &StateStore,
    key: &str,
    plan: Uuid,
    add: &[FenceAcl],
    remove: &[FenceAcl],
) -> Result<(), StateError> {
    for _ in 0..TRIES {
        store.refresh().await?;
        let known = known(store, key)?;
        let is_empty = known.as_ref().is_some_and(|known| known.acls.is_empty());
        let mut record = known.unwrap_or_default();
        let is_noted = add.iter().all(|acl| record.acls.contains(acl))
            && !remove.iter().any(|acl| record.acls.contains(acl));
        if is_noted && !is_empty {
            return Ok(());
        }
        record.v = 1;
        record.plan = plan;
        record.acls.extend(add.iter().cloned());
        record.acls.retain(|acl| !remove.contains(acl));
        record.acls.sort();
        record.acls.dedup();
        match record.acls.is_empty() {
            true => store.remove(key).await?,
            false => store.put(key, &record).await?,
        }
    }
    Ok(())
}
