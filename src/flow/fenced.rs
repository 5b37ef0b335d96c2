//! The fence around a cluster's topics as it is remembered: in the state topic before it is made,
//! until after it is removed.
//!
//! A command and a running Twinlog may change it at the same time, so what is noted is looked at
//! again: an ACL that nobody remembers would never be removed.

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

/// Keeps everybody from writing to these topics. How many ACLs were made.
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
    let missing = deny::missing(cluster, topics).await?;
    remember(store, &keys::fence(flow), plan, &missing, &[]).await?;
    deny::create(cluster, &missing).await?;
    Ok(missing)
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
    store.refresh().await?;
    let key = keys::fence(flow);
    let record: FenceRecord = store.get(&key)?.unwrap_or_default();
    let change = deny::but_us(cluster, topics, own, &record.acls).await?;
    if change.is_empty() {
        return Ok(0);
    }
    carry_out(cluster, store, (&key, plan), &change).await
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
    if change.is_empty() {
        return Ok(0);
    }
    let changed = carry_out(cluster, store, (key, Uuid::nil()), change).await?;
    let left: Option<FenceRecord> = store.get(key)?;
    if left.is_some_and(|left| left.acls.is_empty()) {
        store.remove(key).await?;
    }
    Ok(changed)
}

async fn carry_out(
    cluster: &Cluster,
    store: &StateStore,
    (key, plan): (&str, Uuid),
    change: &Change,
) -> Result<usize, FenceError> {
    remember(store, key, plan, &change.make, &[]).await?;
    deny::create(cluster, &change.make).await?;
    deny::delete(cluster, &change.remove).await?;
    remember(store, key, plan, &[], &change.remove).await?;
    Ok(change.make.len() + change.remove.len())
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
    let Some(record) = store.get::<FenceRecord>(key)? else {
        return Ok(None);
    };
    let (plan, mut lifted) = (record.plan, record.acls);
    lifted.retain(|acl| is_lifted(&acl.topic));
    deny::delete(cluster, &lifted).await?;
    remember(store, key, plan, &[], &lifted).await?;
    let left: Option<FenceRecord> = store.get(key)?;
    if left.is_some_and(|left| left.acls.is_empty()) {
        store.remove(key).await?;
    }
    Ok(Some(lifted.len()))
}

async fn remember(
    store: &StateStore,
    key: &str,
    plan: Uuid,
    add: &[FenceAcl],
    remove: &[FenceAcl],
) -> Result<(), StateError> {
    for _ in 0..TRIES {
        store.refresh().await?;
        let known: Option<FenceRecord> = store.get(key)?;
        let is_noted = known.as_ref().is_some_and(|known| {
            add.iter().all(|acl| known.acls.contains(acl))
                && !remove.iter().any(|acl| known.acls.contains(acl))
        });
        if is_noted {
            return Ok(());
        }
        let mut record = known.unwrap_or_default();
        record.v = 1;
        record.plan = plan;
        record.acls.extend(add.iter().cloned());
        record.acls.retain(|acl| !remove.contains(acl));
        record.acls.sort();
        record.acls.dedup();
        store.put(key, &record).await?;
    }
    Ok(())
}
