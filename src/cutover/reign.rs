//! What people change on the standby while it is the primary: topic configs, ACLs, quotas. It goes back
//! with the failback, also what they took away.
//!
//! The way back doesn't follow metadata as a flow does. The standby differs from the old primary on
//! purpose (fewer replicas, `configs.fixed`, grants of its own people), and none of that may get
//! there. So what the standby had when it became the primary is remembered, and only what differs
//! from that is carried over.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::context::Scene;
use super::error::CutoverError;
use crate::config::is_internal_topic;
use crate::metadata;
use crate::state::{
    FenceAcl, FenceRecord, ForkRecord, ReignQuotas, ReignRecord, TopicRecord, keys,
};
use crate::wire::{
    self, AclBinding, ClientQuotas, Cluster, QuotaChange, QuotaEntity, ResponseError, TopicChanges,
};

/// Topics in one request.
const AT_ONCE: usize = 100;
/// Numbers of `org.apache.kafka.common.resource.ResourceType` and `.PatternType`.
const TOPIC: i8 = 2;
const CLUSTER: i8 = 4;
const LITERAL: i8 = 3;
/// `reign/<flow>/<source topic>`: the overrides that the target's topic had at the failover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ConfigsRecord {
    v: u32,
    overrides: BTreeMap<String, String>,
}

/// What went over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Topic configs that were set or removed, each in words.
    pub configs: Vec<String>,
    /// ACLs that were made, each in words.
    pub acls: Vec<String>,
    /// ACLs that were removed, each in words.
    #[serde(default)]
    pub acls_removed: Vec<String>,
    /// Quotas that were set or removed, each in words.
    #[serde(default)]
    pub quotas: Vec<String>,
    /// What couldn't be, a line each.
    pub problems: Vec<String>,
}

/// Remembers what the target has at this moment. What can't be read isn't carried over later.
///
/// # Errors
/// When it can't be stored.
pub async fn remember(scene: &Scene) -> Result<(), CutoverError> {
    let flow = &scene.flow.name;
    let by_target: BTreeMap<&str, &str> = scene
        .topics
        .iter()
        .map(|topic| (topic.record.target_topic.as_str(), topic.name.as_str()))
        .collect();
    let names: Vec<String> = by_target.keys().map(|name| (*name).to_owned()).collect();
    let (overrides, acls, own_topics, quotas) = tokio::join!(
        overrides(&scene.target, &names),
        acls(&scene.target),
        own_topics(scene),
        quotas(&scene.target),
    );
    let mut records = Vec::new();
    for (target_topic, overrides) in overrides {
        if let Some(topic) = by_target.get(target_topic.as_str()) {
            let record = ConfigsRecord { v: 1, overrides };
            records.push((keys::reign_of_topic(flow, topic), record));
        }
    }
    let record = ReignRecord {
        v: 1,
        acls: acls.map(|acls| acls.iter().map(hash).collect()),
        own_topics: own_topics?,
        quotas: quotas.map(|quotas| quotas.iter().map(as_record).collect()),
    };
    scene.store.put_all(&records).await?;
    Ok(scene.store.put(&keys::reign(flow), &record).await?)
}

/// What is on the target and no copy of this flow's.
async fn own_topics(scene: &Scene) -> Result<BTreeSet<String>, CutoverError> {
    let there = scene.target.metadata(None).await?;
    let prefix = keys::topic(&scene.flow.name, "");
    let mut copies = BTreeSet::new();
    for key in scene.store.keys(&prefix) {
        if let Some(record) = scene.store.get::<TopicRecord>(&key)? {
            copies.insert(record.target_topic);
        }
    }
    let own = there.topics.iter().filter(|(name, topic)| {
        !topic.internal && !is_internal_topic(name) && !copies.contains(*name)
    });
    Ok(own.map(|(name, _)| name.clone()).collect())
}

/// Carries the topic configs over that were changed since. `ended` is the flow that was failed
/// over, `back` the one that copies back.
///
/// # Errors
/// When the state can't be read, or a cluster doesn't answer.
pub async fn carry_configs(
    ended: &Scene,
    back: &Scene,
    forks: &BTreeMap<String, ForkRecord>,
    carried: &mut Carried,
) -> Result<(), CutoverError> {
    if !ended.flow.metadata.configs.enabled {
        return Ok(());
    }
    let there = back.target.cached();
    let names: Vec<String> = forks
        .values()
        .map(|fork| fork.target_topic.clone())
        .collect();
    let now = overrides(&back.source, &names).await;
    let old: Vec<String> = forks.keys().cloned().collect();
    let before_there = overrides(&back.target, &old).await;
    let mut changes = Vec::new();
    for (topic, fork) in forks.iter().filter(|(topic, _)| there.has_topic(topic)) {
        let key = keys::reign_of_topic(&ended.flow.name, topic);
        let known: Option<ConfigsRecord> = ended.store.get(&key)?;
        let (Some(known), Some(now)) = (known, now.get(&fork.target_topic)) else {
            continue;
        };
        let mut of_topic = differences(&known.overrides, now);
        let has = before_there.get(topic);
        of_topic.retain(|key, value| has.is_none_or(|has| has.get(key) != value.as_ref()));
        if of_topic.is_empty() {
            continue;
        }
        changes.push(TopicChanges {
            topic: topic.clone(),
            changes: of_topic,
        });
    }
    for chunk in changes.chunks(AT_ONCE) {
        let outcomes = wire::alter_topic_configs(&back.target, chunk).await?;
        for (change, outcome) in chunk.iter().zip(outcomes) {
            match outcome {
                Ok(()) => carried.configs.extend(in_words(change)),
                Err(error) => {
                    let problem =
                        format!("topic {}: configs not carried over: {error}", change.topic);
                    carried.problems.push(problem);
                }
            }
        }
    }
    Ok(())
}

/// Carries the ACLs over that were made or removed since, of topics that are copied back, groups and
/// transactional ids.
///
/// # Errors
/// When the state can't be read, or the old primary doesn't answer.
pub async fn carry_acls(
    ended: &Scene,
    back: &Scene,
    carried: &mut Carried,
) -> Result<(), CutoverError> {
    if !ended.flow.metadata.acls.enabled {
        return Ok(());
    }
    let known: Option<ReignRecord> = ended.store.get(&keys::reign(&ended.flow.name))?;
    let known = known.and_then(|known| known.acls);
    let (Some(known), Some(now), Some(there)) =
        (known, acls(&back.source).await, acls(&back.target).await)
    else {
        return Ok(());
    };
    let fence: Option<FenceRecord> = back.store.get(&keys::fence(&back.flow.name))?;
    let fence: BTreeSet<AclBinding> = fence
        .into_iter()
        .flat_map(|fence| fence.acls)
        .map(|acl| acl.binding())
        .collect();
    // What the flow itself has made on the standby is on the old primary already.
    let copied = metadata::acls::remembered(&ended.store, &ended.flow.name)?;
    let there: BTreeSet<AclBinding> = there.into_iter().collect();
    remove_acls(ended, back, (&known, &now), &there, carried).await?;
    let mut new = Vec::new();
    for acl in now {
        let is_known = known.contains(&hash(&acl));
        if is_known || fence.contains(&acl) || copied.contains(&acl) || acl.resource_type == CLUSTER
        {
            continue;
        }
        match translated(back, &acl) {
            Some(acl) if there.contains(&acl) => {}
            Some(acl) => new.push(acl),
            None if acl.resource_type == TOPIC => {}
            None => carried.problems.push(format!("not carried over: {acl:?}")),
        }
    }
    for chunk in new.chunks(AT_ONCE) {
        let results = wire::create_acls(&back.target, chunk).await?;
        for (acl, result) in chunk.iter().zip(results) {
            match result {
                Ok(()) => carried.acls.push(format!("{acl:?}")),
                Err(error) => carried.problems.push(format!("{acl:?}: {error}")),
            }
        }
    }
    Ok(())
}

/// Removes on the old primary what was removed on the standby: it had that when it became the primary, and has it no
/// more. What keeps writers from the old primary now goes with its fence, and what is held again on the standby was
/// taken away there alone.
async fn remove_acls(
    ended: &Scene,
    back: &Scene,
    (known, now): (&BTreeSet<String>, &[AclBinding]),
    there: &BTreeSet<AclBinding>,
    carried: &mut Carried,
) -> Result<(), CutoverError> {
    let fence: Option<FenceRecord> = ended.store.get(&keys::fence(&ended.flow.name))?;
    let fence = fence.map_or_else(Vec::new, |fence| fence.acls);
    let fence: BTreeSet<AclBinding> = fence.iter().map(FenceAcl::binding).collect();
    let held = metadata::acls::held_again(&ended.store, &ended.flow.name)?;
    let now: BTreeSet<&AclBinding> = now.iter().collect();
    let own = back.target_section.principal();
    let is_removed = |acl: &&AclBinding| {
        let on_standby = match acl.resource_type {
            CLUSTER => return false,
            TOPIC => on_standby(ended, acl),
            _ => Some((*acl).clone()),
        };
        let is_gone = on_standby.is_some_and(|it| {
            known.contains(&hash(&it)) && !now.contains(&it) && !held.contains(&it)
        });
        is_gone && !fence.contains(*acl) && own.as_deref() != Some(acl.principal.as_str())
    };
    let removed: Vec<AclBinding> = there.iter().filter(is_removed).cloned().collect();
    for chunk in removed.chunks(AT_ONCE) {
        let results = wire::delete_acls(&back.target, chunk).await?;
        for (acl, result) in chunk.iter().zip(results) {
            match result {
                Ok(()) => carried.acls_removed.push(format!("{acl:?}")),
                Err(error) => carried
                    .problems
                    .push(format!("not removed: {acl:?}: {error}")),
            }
        }
    }
    Ok(())
}

/// An ACL of a topic of the old primary by the standby's names; `None` for one that isn't copied, or of a pattern that
/// has no counterpart.
fn on_standby(ended: &Scene, acl: &AclBinding) -> Option<AclBinding> {
    let is_one = acl.pattern_type == LITERAL && acl.name != "*";
    if is_one {
        let name = ended.flow.rename.apply(&ended.flow.source, &acl.name);
        let is_copied = ended.flow.topics.matches(&acl.name);
        return is_copied.then(|| AclBinding {
            name,
            ..acl.clone()
        });
    }
    (ended.flow.rename.is_identity() && ended.flow.topics.takes_all()).then(|| acl.clone())
}

/// Carries the quotas over that were set or removed since.
///
/// # Errors
/// When the state can't be read, or the old primary doesn't answer.
pub async fn carry_quotas(
    ended: &Scene,
    back: &Scene,
    carried: &mut Carried,
) -> Result<(), CutoverError> {
    if !ended.flow.metadata.quotas {
        return Ok(());
    }
    let known: Option<ReignRecord> = ended.store.get(&keys::reign(&ended.flow.name))?;
    let known = known.and_then(|known| known.quotas);
    let (Some(known), Some(now), Some(there)) = (
        known,
        quotas(&back.source).await,
        quotas(&back.target).await,
    ) else {
        return Ok(());
    };
    let known: ClientQuotas = known.iter().map(of_record).collect();
    // A quota would slow the copy down, or set it free, that was made for the other cluster's Twinlog.
    let own = back.target_section.principal();
    let own = own.as_deref().and_then(|it| it.split_once(':'));
    let changes = quota_changes(&known, &now, &there, own.map(|(_, name)| name));
    for chunk in one_of_each(changes) {
        let outcomes = wire::alter_client_quotas(&back.target, &chunk).await?;
        for (change, outcome) in chunk.iter().zip(outcomes) {
            let what = match change.value {
                Some(value) => format!("{}: {}={value}", change.entity, change.key),
                None => format!("{}: {} removed", change.entity, change.key),
            };
            match outcome {
                Ok(()) => carried.quotas.push(what),
                Err(error) => carried
                    .problems
                    .push(format!("quota not carried over: {what}: {error}")),
            }
        }
    }
    Ok(())
}

/// What was set or removed between the first two and isn't so `there`.
fn quota_changes(
    before: &ClientQuotas,
    now: &ClientQuotas,
    there: &ClientQuotas,
    own_user: Option<&str>,
) -> Vec<QuotaChange> {
    let of = |quotas: &ClientQuotas, entity: &QuotaEntity, key: &str| {
        quotas
            .get(entity)
            .and_then(|values| values.get(key))
            .copied()
    };
    let both = before.iter().chain(now);
    let all: BTreeSet<(&QuotaEntity, &str)> = both
        .flat_map(|(entity, values)| values.keys().map(move |key| (entity, key.as_str())))
        .collect();
    let mut changes = Vec::new();
    for (entity, key) in all {
        let user = entity.components.get(QuotaEntity::USER);
        let is_ours = own_user.is_some() && user.is_some_and(|user| user.as_deref() == own_user);
        let is_address = entity.components.contains_key(QuotaEntity::IP);
        let value = of(now, entity, key);
        if is_ours
            || is_address
            || is_same(of(before, entity, key), value)
            || is_same(of(there, entity, key), value)
        {
            continue;
        }
        changes.push(QuotaChange {
            entity: entity.clone(),
            key: key.to_owned(),
            value,
        });
    }
    changes
}

/// As they were written: both are the same number's text.
fn is_same(one: Option<f64>, other: Option<f64>) -> bool {
    one.map(f64::to_bits) == other.map(f64::to_bits)
}

/// A request takes each entity once.
fn one_of_each(changes: Vec<QuotaChange>) -> Vec<Vec<QuotaChange>> {
    let mut rounds: Vec<Vec<QuotaChange>> = Vec::new();
    for change in changes {
        let is_free = |round: &&mut Vec<QuotaChange>| {
            round.len() < AT_ONCE && round.iter().all(|it| it.entity != change.entity)
        };
        match rounds.iter_mut().find(is_free) {
            Some(round) => round.push(change),
            None => rounds.push(vec![change]),
        }
    }
    rounds
}

fn as_record((entity, values): (&QuotaEntity, &BTreeMap<String, f64>)) -> ReignQuotas {
    let values = values.iter();
    ReignQuotas {
        entity: entity.components.clone(),
        values: values
            .map(|(key, value)| (key.clone(), value.to_string()))
            .collect(),
    }
}

fn of_record(record: &ReignQuotas) -> (QuotaEntity, BTreeMap<String, f64>) {
    let entity = QuotaEntity {
        components: record.entity.clone(),
    };
    let values = record.values.iter();
    let values = values.filter_map(|(key, value)| Some((key.clone(), value.parse().ok()?)));
    (entity, values.collect())
}

/// All quotas; `None` where they can't be read.
async fn quotas(cluster: &Cluster) -> Option<ClientQuotas> {
    match wire::describe_client_quotas(cluster).await {
        Ok(quotas) => Some(quotas),
        Err(error) => {
            tracing::debug!(%error, "quotas can't be read, so none is carried over");
            None
        }
    }
}

/// An ACL by the old primary's names; `None` for one of a topic that isn't copied back, or of a
/// pattern that has no counterpart.
fn translated(back: &Scene, acl: &AclBinding) -> Option<AclBinding> {
    if acl.resource_type != TOPIC {
        return Some(acl.clone());
    }
    let is_one = acl.pattern_type == LITERAL && acl.name != "*";
    if is_one {
        let name = back.flow.rename.apply(&back.flow.source, &acl.name);
        return back.flow.topics.matches(&acl.name).then(|| AclBinding {
            name,
            ..acl.clone()
        });
    }
    // A pattern reaches topics that aren't the flow's, unless it takes all of them.
    (back.flow.rename.is_identity() && back.flow.topics.takes_all()).then(|| acl.clone())
}

/// What was set or removed between the two.
fn differences(
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let set = now
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), Some(value.clone())));
    let removed = before
        .keys()
        .filter(|key| !now.contains_key(*key))
        .map(|key| (key.clone(), None));
    let mut all: BTreeMap<_, _> = set.chain(removed).collect();
    // What a mirror must have for the time being is held, and set when it is none any more.
    all.retain(|key, _| !metadata::is_enforced_config(key));
    all
}

fn in_words(change: &TopicChanges) -> Vec<String> {
    let each = change.changes.iter().map(|(key, value)| match value {
        Some(value) => format!("{}: {key}={value}", change.topic),
        None => format!("{}: {key} removed", change.topic),
    });
    each.collect()
}

/// The overrides of these topics; one that can't be read is left out.
async fn overrides(
    cluster: &Cluster,
    topics: &[String],
) -> BTreeMap<String, BTreeMap<String, String>> {
    let configs = wire::describe_topic_configs(cluster, topics).await;
    let readable = configs.into_iter().filter_map(|(topic, values)| {
        let values = values.ok()?;
        let overrides = values.into_iter().filter(|(_, value)| value.is_override());
        let told = overrides.filter_map(|(key, value)| Some((key, value.value?)));
        Some((topic, told.collect()))
    });
    readable.collect()
}

/// All ACLs; `None` where they can't be read or there is no authorizer.
async fn acls(cluster: &Cluster) -> Option<Vec<AclBinding>> {
    let answer = wire::describe_acls(cluster).await;
    match answer.and_then(|answer| answer.acls(cluster)) {
        Ok(acls) => Some(acls),
        Err(error) => {
            if error.server_code() != Some(ResponseError::SecurityDisabled) {
                tracing::debug!(%error, "ACLs can't be read, so none is carried over");
            }
            None
        }
    }
}

/// One record holds thousands of them: a name each would be too much.
fn hash(acl: &AclBinding) -> String {
    let text = format!(
        "{}/{}/{}/{}/{}/{}/{}",
        acl.resource_type,
        acl.pattern_type,
        acl.operation,
        acl.permission,
        acl.principal,
        acl.host,
        acl.name
    );
    format!("{:x}", XxHash3_64::oneshot(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    #[test]
    fn only_what_was_changed_since_goes_back() {
        let before = configs(&[
            ("min.insync.replicas", "1"),
            ("segment.ms", "5"),
            ("flush.ms", "7"),
        ]);
        let now = configs(&[
            ("min.insync.replicas", "1"),
            ("segment.ms", "6"),
            ("retention.ms", "9"),
            ("message.timestamp.type", "CreateTime"),
        ]);
        let expected = [
            ("flush.ms".to_owned(), None),
            ("retention.ms".to_owned(), Some("9".to_owned())),
            ("segment.ms".to_owned(), Some("6".to_owned())),
        ];
        assert_eq!(differences(&before, &now), BTreeMap::from(expected));
    }

    #[test]
    fn quotas_go_back_as_they_were_changed_and_addresses_and_our_own_dont() {
        let quotas = |all: &[(&str, &str, f64)]| {
            let mut quotas = ClientQuotas::new();
            for (kind, name, value) in all {
                let entity = QuotaEntity::new([(*kind, Some(*name))]);
                quotas
                    .entry(entity)
                    .or_default()
                    .insert("rate".to_owned(), *value);
            }
            quotas
        };
        let before = quotas(&[
            ("user", "same", 1.0),
            ("user", "gone", 2.0),
            ("user", "more", 3.0),
        ]);
        let now = quotas(&[
            ("user", "same", 1.0),
            ("user", "more", 4.5),
            ("user", "new", 5.0),
            ("user", "twinlog", 6.0),
            ("ip", "10.0.0.1", 7.0),
            ("client-id", "there", 8.0),
        ]);
        // What the old primary never had need not be removed there.
        let there = quotas(&[
            ("user", "same", 9.0),
            ("client-id", "there", 8.0),
            ("user", "gone", 2.0),
        ]);
        let changes = quota_changes(&before, &now, &there, Some("twinlog"));
        let named: Vec<(String, Option<f64>)> = changes
            .iter()
            .map(|it| (it.entity.to_string(), it.value))
            .collect();
        let expected = [
            ("user gone".to_owned(), None),
            ("user more".to_owned(), Some(4.5)),
            ("user new".to_owned(), Some(5.0)),
        ];
        assert_eq!(named, expected);
        let again: ClientQuotas = now.iter().map(as_record).map(|it| of_record(&it)).collect();
        assert_eq!(again, now, "as they are remembered");
    }

    #[test]
    fn a_request_has_each_entity_once() {
        let of = |name: &str, key: &str| QuotaChange {
            entity: QuotaEntity::new([("user", Some(name))]),
            key: key.to_owned(),
            value: None,
        };
        let rounds = one_of_each(vec![of("a", "x"), of("a", "y"), of("b", "x")]);
        assert_eq!(rounds.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    }
}
