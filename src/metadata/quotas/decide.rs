//! What is done about quotas that differ. Pure: no cluster, no clock.
//!
//! The standby throttles like the source, with two exceptions. A quota that would throttle Twinlog
//! itself there is held for the failover: it would slow the copy. And what only the standby has
//! stays, unless we set it.

use std::collections::BTreeSet;

use super::memory::{Made, Memory, same};
use crate::wire::{ClientQuotas, QuotaEntity};

/// Whom the target's brokers take Twinlog for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// The name of the principal, if it is known.
    pub user: Option<String>,
    /// The client id.
    pub client_id: String,
}

impl Own {
    /// Whether a quota of this entity may be the one that counts for Twinlog. A quota that is more
    /// specific may come first; that one may go any time.
    pub fn is_throttled_by(&self, entity: &QuotaEntity) -> bool {
        entity.components.iter().all(|(kind, name)| match name {
            None => true,
            Some(name) if kind == QuotaEntity::USER => Some(name) == self.user.as_ref(),
            Some(name) if kind == QuotaEntity::CLIENT_ID => *name == self.client_id,
            Some(_) => false,
        })
    }
}

/// What is done about one quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Set to the source's value on the target.
    Set,
    /// Removed on the target.
    Remove,
    /// Kept for the failover.
    Hold,
    /// Nothing.
    Leave(Why),
}

/// Which cluster the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceIs {
    /// That which the flow began with.
    Known,
    /// Nobody knows: it tells no id, or told none when the flow began.
    Untold,
    /// Another one. What it has or lacks says nothing.
    Other,
}

/// Why nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is about addresses.
    Address,
    /// It is about something that we don't know.
    UnknownKind,
    /// Only the target has it, and we didn't set it.
    NotOurs,
    /// The source isn't the cluster that the flow began with.
    OtherSource,
    /// It tells no id, so that it may be another one: what that lacks isn't taken away.
    UntoldSource,
    /// Another flow to the same target has set it.
    OtherFlow,
}

/// One quota that differs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    pub entity: QuotaEntity,
    pub key: String,
    pub source: Option<f64>,
    pub target: Option<f64>,
    pub deed: Deed,
}

/// What was seen, and what is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub source: &'a ClientQuotas,
    pub target: &'a ClientQuotas,
    pub memory: &'a Memory,
    /// What other flows to the same target remember.
    pub others: &'a Memory,
    pub own: &'a Own,
    /// Which cluster that is.
    pub source_is: SourceIs,
}

/// Everything that differs, in the order of entities and keys.
pub(super) fn decide(seen: Seen<'_>) -> Vec<Difference> {
    let mut differences = Vec::new();
    let entities: BTreeSet<_> = seen.source.keys().chain(seen.target.keys()).collect();
    for entity in entities {
        let (source, target) = (seen.source.get(entity), seen.target.get(entity));
        let keys = source.into_iter().chain(target).flat_map(|q| q.keys());
        for key in keys.collect::<BTreeSet<_>>() {
            let value = |quotas: Option<&std::collections::BTreeMap<String, f64>>| {
                quotas.and_then(|quotas| quotas.get(key).copied())
            };
            let (source, target) = (value(source), value(target));
            if let Some(deed) = deed(seen, entity, key, source, target) {
                differences.push(Difference {
                    entity: entity.clone(),
                    key: key.clone(),
                    source,
                    target,
                    deed,
                });
            }
        }
    }
    differences
}

fn deed(
    seen: Seen<'_>,
    entity: &QuotaEntity,
    key: &str,
    source: Option<f64>,
    target: Option<f64>,
) -> Option<Deed> {
    let is_same = match (source, target) {
        (Some(source), Some(target)) => same(source, target),
        _ => false,
    };
    if let Some(why) = not_followed(entity) {
        return (!is_same).then_some(Deed::Leave(why));
    }
    let made = seen.memory.made(entity, key);
    let is_ours = target.is_some_and(|target| made.is_some_and(|made| made.is(target)));
    let is_released = made.is_some_and(|made| made.released);
    let is_removable = is_ours && !is_released;
    match seen.source_is {
        SourceIs::Other if !is_same && (source.is_some() || is_removable) => {
            return Some(Deed::Leave(Why::OtherSource));
        }
        SourceIs::Untold if source.is_none() && is_removable => {
            return Some(Deed::Leave(Why::UntoldSource));
        }
        SourceIs::Known | SourceIs::Untold | SourceIs::Other => {}
    }
    if source.is_some() && seen.own.is_throttled_by(entity) {
        // We set it when Twinlog had another name there.
        return match is_removable {
            true => Some(Deed::Remove),
            false => (!is_same).then_some(Deed::Hold),
        };
    }
    match (source, target) {
        _ if is_same => None,
        // Each would set it again and again, for ever: the first one keeps it.
        (Some(_), Some(target)) if !is_ours && is_others(seen, entity, key, target) => {
            Some(Deed::Leave(Why::OtherFlow))
        }
        (Some(_), _) => Some(Deed::Set),
        (None, _) if !is_removable => Some(Deed::Leave(Why::NotOurs)),
        (None, _) => Some(Deed::Remove),
    }
}

fn is_others(seen: Seen<'_>, entity: &QuotaEntity, key: &str, target: f64) -> bool {
    let made = seen.others.made(entity, key);
    made.is_some_and(|made| made.is(target))
}

fn not_followed(entity: &QuotaEntity) -> Option<Why> {
    let mut kinds = entity.components.keys();
    if entity.components.contains_key(QuotaEntity::IP) {
        return Some(Why::Address);
    }
    let is_known = |kind: &String| kind == QuotaEntity::USER || kind == QuotaEntity::CLIENT_ID;
    (!kinds.all(is_known)).then_some(Why::UnknownKind)
}

/// What must be remembered before the differences are applied: what will be set, what is held; and
/// not any more what is gone on both sides.
///
/// Only what was set by us is ever removed, so a quota is noted before it is set: a crash between
/// the two leaves a note too many, and that one names a value that the target doesn't have.
pub(super) fn remember(seen: Seen<'_>, differences: &[Difference]) -> Memory {
    let mut memory = seen.memory.clone();
    if seen.source_is == SourceIs::Known {
        forget(seen, &mut memory);
    }
    for difference in differences {
        let (entity, key) = (&difference.entity, &difference.key);
        let Some(source) = difference.source else {
            continue;
        };
        match difference.deed {
            Deed::Set => memory.will_set(entity, key, difference.target, source),
            Deed::Hold => memory.hold(entity, key, source),
            Deed::Remove if seen.own.is_throttled_by(entity) => memory.hold(entity, key, source),
            Deed::Remove | Deed::Leave(_) => {}
        }
    }
    memory
}

/// Forgets what was set and isn't there any more, and what isn't held any more.
fn forget(seen: Seen<'_>, memory: &mut Memory) {
    let value = |quotas: &ClientQuotas, entity: &QuotaEntity, key: &str| {
        quotas.get(entity).and_then(|q| q.get(key)).copied()
    };
    memory.retain_made(|entity, key, made: &Made| {
        let is_wanted = value(seen.source, entity, key).is_some();
        let is_there = value(seen.target, entity, key).is_some_and(|v| made.is(v));
        is_wanted || is_there
    });
    // Those that still are get noted again by `remember`.
    memory.forget_held();
}
