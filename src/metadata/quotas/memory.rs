//! What is remembered of quotas in the state topic: what we set, and what is held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::state::{MadeQuota, QuotaRecord, StateError, StateRecord, StateStore, keys};
use crate::wire::{ClientQuotas, QuotaEntity};

/// Whether two quotas are the same. Kafka takes NaN for one, which nothing is equal to.
pub(super) fn same(one: f64, other: f64) -> bool {
    one.to_bits() == other.to_bits()
}

/// A quota that we set.
#[derive(Clone, Debug, Default)]
pub(in crate::metadata) struct Made {
    /// What may be there: the last value, and before it the one that it replaced.
    pub values: Vec<f64>,
    /// Set by the failover.
    pub released: bool,
    /// What was there before the failover.
    pub before: Option<f64>,
}

impl Made {
    /// Whether this value on the target is ours.
    pub fn is(&self, value: f64) -> bool {
        self.values.iter().any(|ours| same(*ours, value))
    }
}

type ByKey<T> = BTreeMap<QuotaEntity, BTreeMap<String, T>>;

/// Everything that is remembered of a flow's quotas.
#[derive(Clone, Debug, Default)]
pub(in crate::metadata) struct Memory {
    made: ByKey<Made>,
    held: ByKey<f64>,
}

/// Equal when the same would be written.
impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |entity| self.record(entity) == other.record(entity);
        self.entities().chain(other.entities()).all(is_same)
    }
}

impl Memory {
    /// Reads it.
    ///
    /// # Errors
    /// When a record can't be read.
    pub fn read(store: &StateStore, flow: &str) -> Result<Self, StateError> {
        let mut memory = Self::default();
        memory.add(store, flow)?;
        Ok(memory)
    }

    /// Reads what all other flows remember, put together.
    ///
    /// # Errors
    /// When a record can't be read.
    pub fn read_others(store: &StateStore, flow: &str) -> Result<Self, StateError> {
        let own = keys::quotas(flow);
        let mut all = store.keys(keys::ALL_QUOTAS);
        all.retain(|key| !key.starts_with(&own));
        let mut memory = Self::default();
        memory.add_all(store, all)?;
        Ok(memory)
    }

    /// Adds what a flow remembers.
    ///
    /// # Errors
    /// When a record can't be read.
    pub fn add(&mut self, store: &StateStore, flow: &str) -> Result<(), StateError> {
        self.add_all(store, store.keys(&keys::quotas(flow)))
    }

    fn add_all(&mut self, store: &StateStore, all: Vec<String>) -> Result<(), StateError> {
        for key in all {
            let Some(record) = store.get::<QuotaRecord>(&key)? else {
                continue;
            };
            let bad = |value: &str| StateError::Value {
                key: key.clone(),
                reason: format!("`{value}` is no number"),
            };
            let number = |value: &String| value.parse::<f64>().map_err(|_| bad(value));
            let entity = QuotaEntity {
                components: record.entity,
            };
            for (quota, made) in &record.made {
                let made = Made {
                    values: made.values.iter().map(number).collect::<Result<_, _>>()?,
                    released: made.released,
                    before: made.before.as_ref().map(number).transpose()?,
                };
                let of_entity = self.made.entry(entity.clone()).or_default();
                let known = of_entity.entry(quota.clone()).or_default();
                let mut values = std::mem::take(&mut known.values);
                values.extend(&made.values);
                *known = Made { values, ..made };
            }
            for (quota, value) in &record.held {
                self.hold(&entity, quota, number(value)?);
            }
        }
        Ok(())
    }

    /// Takes away what was set as it is remembered here.
    pub fn take_from(&self, quotas: &mut ClientQuotas) {
        quotas.retain(|entity, of_entity| {
            of_entity.retain(|key, value| {
                let made = self.made(entity, key);
                made.is_none_or(|made| !made.is(*value))
            });
            !of_entity.is_empty()
        });
    }

    /// What has to be written to get from `self` to `next`.
    ///
    /// # Errors
    /// When a value can't be written as JSON.
    pub fn changes(&self, next: &Self, flow: &str) -> Result<Vec<StateRecord>, StateError> {
        let entities = [&self.made, &next.made]
            .into_iter()
            .flat_map(BTreeMap::keys)
            .chain(
                [&self.held, &next.held]
                    .into_iter()
                    .flat_map(BTreeMap::keys),
            );
        let entities: BTreeSet<_> = entities.collect();
        let mut changes = Vec::new();
        for entity in entities {
            let record = next.record(entity);
            if record == self.record(entity) {
                continue;
            }
            let key = keys::quota(flow, &path(entity));
            let value = match record {
                Some(record) => Some(Arc::from(serde_json::to_vec(&record).map_err(|error| {
                    StateError::Value {
                        key: key.clone(),
                        reason: error.to_string(),
                    }
                })?)),
                None => None,
            };
            changes.push((key, value));
        }
        Ok(changes)
    }

    fn entities(&self) -> impl Iterator<Item = &QuotaEntity> {
        self.made.keys().chain(self.held.keys())
    }

    fn record(&self, entity: &QuotaEntity) -> Option<QuotaRecord> {
        let made = self.made.get(entity).into_iter().flatten();
        let held = self.held.get(entity).into_iter().flatten();
        let record = QuotaRecord {
            v: 1,
            entity: entity.components.clone(),
            made: made.map(|(key, m)| (key.clone(), record_of(m))).collect(),
            held: held.map(|(key, v)| (key.clone(), v.to_string())).collect(),
        };
        (!record.made.is_empty() || !record.held.is_empty()).then_some(record)
    }

    /// What we set there, if we did.
    pub fn made(&self, entity: &QuotaEntity, key: &str) -> Option<&Made> {
        self.made.get(entity)?.get(key)
    }

    /// Notes a quota that is going to be set over what the target has now.
    pub fn will_set(&mut self, entity: &QuotaEntity, key: &str, target: Option<f64>, value: f64) {
        let made = self.made.entry(entity.clone()).or_default();
        let made = made.entry(key.to_owned()).or_default();
        let old = target.filter(|old| made.is(*old) && !same(*old, value));
        made.values = old.into_iter().chain([value]).collect();
    }

    /// Notes a quota that the failover sets.
    pub fn hold(&mut self, entity: &QuotaEntity, key: &str, value: f64) {
        let held = self.held.entry(entity.clone()).or_default();
        held.insert(key.to_owned(), value);
    }

    /// Nothing is held any more.
    pub fn forget_held(&mut self) {
        self.held.clear();
    }

    /// Keeps only these of the quotas that we set.
    pub fn retain_made(&mut self, mut keep: impl FnMut(&QuotaEntity, &str, &Made) -> bool) {
        self.made.retain(|entity, quotas| {
            quotas.retain(|key, made| keep(entity, key, made));
            !quotas.is_empty()
        });
    }

    /// Everything that is held.
    pub fn held(&self) -> impl Iterator<Item = (&QuotaEntity, &str, f64)> {
        let entities = self.held.iter();
        entities.flat_map(|(entity, quotas)| {
            let quotas = quotas.iter();
            quotas.map(move |(key, value)| (entity, key.as_str(), *value))
        })
    }

    /// Everything that the failover has set.
    pub fn released(&self) -> impl Iterator<Item = (&QuotaEntity, &str, &Made)> {
        let entities = self.made.iter();
        let all = entities.flat_map(|(entity, quotas)| {
            let quotas = quotas.iter();
            quotas.map(move |(key, made)| (entity, key.as_str(), made))
        });
        all.filter(|(_, _, made)| made.released)
    }

    /// Notes that what is held is going to be set, over what the target has now.
    pub fn will_release(&mut self, entity: &QuotaEntity, key: &str, target: Option<f64>) {
        let Some(value) = take(&mut self.held, entity, key) else {
            return;
        };
        let known = self.made(entity, key);
        let before = match known {
            Some(known) if known.released => known.before,
            _ => target,
        };
        self.will_set(entity, key, target, value);
        let made = self.made.get_mut(entity).and_then(|made| made.get_mut(key));
        if let Some(made) = made {
            made.released = true;
            made.before = before;
        }
    }

    /// Notes that what the failover set was taken back: it is held again.
    pub fn withdrawn(&mut self, entity: &QuotaEntity, key: &str) {
        if let Some(made) = take(&mut self.made, entity, key)
            && let Some(value) = made.values.last()
        {
            self.hold(entity, key, *value);
        }
    }
}

fn take<T>(from: &mut ByKey<T>, entity: &QuotaEntity, key: &str) -> Option<T> {
    let quotas = from.get_mut(entity)?;
    let taken = quotas.remove(key);
    if quotas.is_empty() {
        from.remove(entity);
    }
    taken
}

fn record_of(made: &Made) -> MadeQuota {
    MadeQuota {
        values: made.values.iter().map(f64::to_string).collect(),
        released: made.released,
        before: made.before.map(|value| value.to_string()),
    }
}

/// An entity as a part of a key, as Kafka itself once named them in ZooKeeper:
/// `user/alice/client-id/<default>`. Names are escaped, so that they are neither `<default>` nor
/// longer than one part.
fn path(entity: &QuotaEntity) -> String {
    let parts = entity.components.iter().rev().map(|(kind, name)| {
        let name = name.as_deref().map_or("<default>".to_owned(), escaped);
        format!("{kind}/{name}")
    });
    parts.collect::<Vec<_>>().join("/")
}

fn escaped(name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_entities_differ() {
        let entities = [
            QuotaEntity::new([("user", None)]),
            QuotaEntity::new([("user", Some("<default>"))]),
            QuotaEntity::new([("user", Some("a/client-id/b"))]),
            QuotaEntity::new([("user", Some("a")), ("client-id", Some("b"))]),
            QuotaEntity::new([("client-id", Some("a"))]),
            QuotaEntity::new([("user", Some("%3C"))]),
            QuotaEntity::new([("user", Some("<"))]),
        ];
        let paths: BTreeSet<_> = entities.iter().map(path).collect();
        assert_eq!(paths.len(), entities.len(), "{paths:?}");
        assert_eq!(path(&entities[3]), "user/a/client-id/b");
    }
}
