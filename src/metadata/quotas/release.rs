//! What the failover does about quotas: sets what is held, and can take it back. The source isn't
//! asked.

use super::apply;
use super::memory::{Memory, same};
use crate::state::{StateError, StateStore};
use crate::wire::{self, Cluster, QuotaChange, QuotaEntity, WireError};

/// A quota that is kept for the failover, since it would throttle Twinlog.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldQuota {
    /// Whom it is for.
    pub entity: QuotaEntity,
    /// Which quota.
    pub key: String,
    /// Its value on the source when it was last seen.
    pub value: f64,
}

/// The quotas that a flow holds, in the order of their entities.
///
/// # Errors
/// When the state can't be read.
pub fn held(store: &StateStore, flow: &str) -> Result<Vec<HeldQuota>, StateError> {
    let memory = Memory::read(store, flow)?;
    let all = memory.held();
    Ok(all
        .map(|(entity, key, value)| HeldQuota {
            entity: entity.clone(),
            key: key.to_owned(),
            value,
        })
        .collect())
}

/// A change of one quota, and what became of it.
pub type Outcome = (QuotaChange, Result<(), WireError>);

/// Sets what is held on the target. Doing it again does what is left.
///
/// # Errors
/// When the state or the target's quotas can't be read, or the state can't be written. Nothing was
/// changed then.
pub async fn release(
    target: &Cluster,
    store: &StateStore,
    flow: &str,
) -> Result<Vec<Outcome>, StateError> {
    let (read, quotas) = tokio::join!(store.refresh(), wire::describe_client_quotas(target));
    read?;
    let memory = Memory::read(store, flow)?;
    let quotas = quotas?;
    let on_target = |entity: &QuotaEntity, key: &str| {
        let quotas = quotas.get(entity);
        quotas.and_then(|quotas| quotas.get(key)).copied()
    };
    let mut next = memory.clone();
    for (entity, key, _) in memory.held() {
        next.will_release(entity, key, on_target(entity, key));
    }
    store.write_all(memory.changes(&next, flow)?).await?;
    // Also what an earlier try noted and didn't get to.
    let wanted = next.released().filter_map(|(entity, key, made)| {
        let value = *made.values.last()?;
        let is_there = on_target(entity, key).is_some_and(|found| same(found, value));
        (!is_there).then(|| QuotaChange {
            entity: entity.clone(),
            key: key.to_owned(),
            value: Some(value),
        })
    });
    let changes: Vec<_> = wanted.collect();
    let outcomes = apply::alter(target, &changes).await;
    Ok(changes.into_iter().zip(outcomes).collect())
}

/// Takes back what [`release`] set, where nobody has changed it since: what was there before is
/// there again, and the quotas are held. Doing it again does what is left.
///
/// # Errors
/// As [`release`]; also when the state can't be written after the change.
pub async fn withdraw(
    target: &Cluster,
    store: &StateStore,
    flow: &str,
) -> Result<Vec<Outcome>, StateError> {
    store.refresh().await?;
    let memory = Memory::read(store, flow)?;
    let quotas = wire::describe_client_quotas(target).await?;
    let mut next = memory.clone();
    let mut changes = Vec::new();
    for (entity, key, made) in memory.released() {
        let found = quotas.get(entity).and_then(|quotas| quotas.get(key));
        if found.is_some_and(|found| made.is(*found)) {
            changes.push(QuotaChange {
                entity: entity.clone(),
                key: key.to_owned(),
                value: made.before,
            });
        } else {
            next.withdrawn(entity, key);
        }
    }
    let outcomes = apply::alter(target, &changes).await;
    for (change, outcome) in changes.iter().zip(&outcomes) {
        if outcome.is_ok() {
            next.withdrawn(&change.entity, &change.key);
        }
    }
    store.write_all(memory.changes(&next, flow)?).await?;
    Ok(changes.into_iter().zip(outcomes).collect())
}
