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
use crate::flow::own_principal;
use crate::metadata;
use crate::metadata::acls::{self, OfFlow};
use crate::state::{
    FenceAcl, FenceRecord, ForkRecord, ReignQuotas, ReignRecord, StateRecord, StateStore,
    TopicRecord, keys,
};
use crate::wire::{
    self, AclBinding, ClientQuotas, Cluster, QuotaChange, QuotaEntity, ResponseError, TopicChanges,
    WireError,
};

/// Topics in one request.
const AT_ONCE: usize = 100;
/// Numbers of `org.apache.kafka.common.resource.ResourceType` and `.PatternType`.
const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const CLUSTER: i8 = 4;
const TRANSACTIONAL_ID: i8 = 5;
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

impl Carried {
    /// Adds what went over beside.
    pub fn take(&mut self, other: Self) {
        self.configs.extend(other.configs);
        self.acls.extend(other.acls);
        self.acls_removed.extend(other.acls_removed);
        self.quotas.extend(other.quotas);
        // What couldn't be read before the copy back is asked for once more behind it.
        for problem in other.problems {
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }
}

/// What the target has at this moment, to be remembered; and what can't be read and isn't carried over later, a line each.
///
/// # Errors
/// When the state can't be read, or the target doesn't answer.
pub async fn to_remember(scene: &Scene) -> Result<(Vec<StateRecord>, Vec<String>), CutoverError> {
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
    let target = &scene.target;
    let mut unseen: Vec<String> = overrides.problem(target.name()).into_iter().collect();
    if scene.flow.metadata.acls.enabled {
        unseen.extend(unread("ACLs", target, &acls));
    }
    if scene.flow.metadata.quotas {
        unseen.extend(unread("quotas", target, &quotas));
    }
    let mut records = Vec::new();
    for (target_topic, overrides) in overrides.by_topic {
        if let Some(topic) = by_target.get(target_topic.as_str()) {
            let record = ConfigsRecord { v: 1, overrides };
            let key = keys::reign_of_topic(flow, topic);
            records.push(StateStore::record(key, &record)?);
        }
    }
    let record = ReignRecord {
        v: 1,
        acls: acls
            .ok()
            .flatten()
            .map(|acls| acls.iter().map(hash).collect()),
        own_topics: own_topics?,
        quotas: quotas
            .ok()
            .flatten()
            .map(|quotas| quotas.iter().map(as_record).collect()),
    };
    records.push(StateStore::record(keys::reign(flow), &record)?);
    Ok((records, unseen))
}

/// What is on the target and no copy of this flow's; with that what is left of a topic that the source had deleted: it isn't
/// failed over, and doesn't come back there.
async fn own_topics(scene: &Scene) -> Result<BTreeSet<String>, CutoverError> {
    let there = scene.target.metadata(None).await?;
    let flow = &scene.flow.name;
    let prefix = keys::topic(flow, "");
    let mut copies = BTreeSet::new();
    for key in scene.store.keys(&prefix) {
        let name = &key[prefix.len()..];
        let is_gone = scene.store.bytes(&keys::gone(flow, name)).is_some();
        if is_gone && !scene.topics.iter().any(|it| it.name == name) {
            continue;
        }
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
    let old: Vec<String> = forks.keys().cloned().collect();
    let (now, before_there) = tokio::join!(
        overrides(&back.source, &names),
        overrides(&back.target, &old)
    );
    carried.problems.extend(now.problem(back.source.name()));
    let mut changes = Vec::new();
    let mut unknown = Vec::new();
    for (topic, fork) in forks.iter().filter(|(topic, _)| there.shows(topic)) {
        let key = keys::reign_of_topic(&ended.flow.name, topic);
        let Some(now) = now.by_topic.get(&fork.target_topic) else {
            continue;
        };
        let known: Option<ConfigsRecord> = ended.store.get(&key)?;
        let Some(known) = known else {
            unknown.push(topic);
            continue;
        };
        let mut of_topic = differences(&known.overrides, now);
        let has = before_there.by_topic.get(topic);
        of_topic.retain(|key, value| has.is_none_or(|has| has.get(key) != value.as_ref()));
        if of_topic.is_empty() {
            continue;
        }
        changes.push(TopicChanges {
            topic: topic.clone(),
            changes: of_topic,
        });
    }
    if let Some(first) = unknown.first() {
        carried.problems.push(format!(
            "which settings {} topic(s) had on {} at the failover wasn't written down, so none that was changed is \
             carried over, such as of {first}",
            unknown.len(),
            back.source.name()
        ));
    }
    let outcomes = wire::alter_many_topic_configs(&back.target, &changes).await?;
    for (change, outcome) in changes.iter().zip(outcomes) {
        match outcome {
            Ok(()) => carried.configs.extend(in_words(change)),
            Err(error) => {
                let problem = format!("topic {}: configs not carried over: {error}", change.topic);
                carried.problems.push(problem);
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
    let (now, there) = tokio::join!(acls(&back.source), acls(&back.target));
    carried.problems.extend(unread("ACLs", &back.source, &now));
    carried
        .problems
        .extend(unread("ACLs", &back.target, &there));
    let (Ok(Some(now)), Ok(Some(there))) = (now, there) else {
        return Ok(());
    };
    let known: Option<ReignRecord> = ended.store.get(&keys::reign(&ended.flow.name))?;
    let Some(known) = known.and_then(|known| known.acls) else {
        carried.problems.push(unremembered("ACLs", &back.source));
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
    let followed = followed(ended, back);
    let of_flow = OfFlow::new(&ended.flow, &followed, &there);
    let there_now: BTreeSet<AclBinding> = there.iter().cloned().collect();
    let removed = removed(ended, back, (&known, &now), &there_now, &of_flow)?;
    remove_acls(back, &removed, carried).await?;
    let is_new = |acl: &&AclBinding| {
        let is_known = known.contains(&hash(acl)) || fence.contains(*acl) || copied.contains(*acl);
        !is_known && acl.resource_type != CLUSTER
    };
    let mut new = BTreeSet::new();
    for acl in now.iter().filter(is_new) {
        match acl.resource_type {
            TOPIC => new.extend(translated(back, acl)),
            GROUP | TRANSACTIONAL_ID => new.extend(of_flow.parts(acl)),
            _ => carried.problems.push(format!(
                "not carried over, since each cluster has its own: {acl}"
            )),
        }
    }
    new.retain(|acl| !there_now.contains(acl));
    let lasting = lasting(ended, &there_now, &removed)?;
    make_acls(back, new, (&there_now, &lasting), carried).await
}

/// What the old primary has of its own and keeps: its fence goes.
fn lasting(
    ended: &Scene,
    there: &BTreeSet<AclBinding>,
    removed: &[AclBinding],
) -> Result<Vec<AclBinding>, CutoverError> {
    let fence: Option<FenceRecord> = ended.store.get(&keys::fence(&ended.flow.name))?;
    let fence = fence.map_or_else(Vec::new, |fence| fence.acls);
    let gone: BTreeSet<AclBinding> = fence.iter().map(FenceAcl::binding).collect();
    let stays = |acl: &&AclBinding| !gone.contains(*acl) && !removed.contains(acl);
    Ok(there.iter().filter(stays).cloned().collect())
}

/// Makes ACLs on the old primary. Where what has no ACL is everybody's, what keeps Twinlog in comes before the first one, and
/// is seen. What has one needs none: who gets along with that stays in, and nobody would remember a right that is given
/// for nothing.
async fn make_acls(
    back: &Scene,
    new: BTreeSet<AclBinding>,
    (there, lasting): (&BTreeSet<AclBinding>, &[AclBinding]),
    carried: &mut Carried,
) -> Result<(), CutoverError> {
    let may_shut_out = !new.is_empty() && acls::may_be_open(&back.target).await;
    let own = own_principal(&back.flow, &back.target_section);
    let is_first = |acl: &&AclBinding| acls::is_first(acl, lasting);
    let first: BTreeSet<AclBinding> = match may_shut_out {
        true => new.iter().filter(is_first).cloned().collect(),
        false => BTreeSet::new(),
    };
    let (keeping, unkept) = kept_in(&first, own.as_deref(), there);
    let keeping: Vec<AclBinding> = keeping.into_iter().collect();
    let mut missing = create_acls(back, &keeping, carried).await?;
    missing.extend(wire::unseen_acls(&back.target, &keeping, acls::SEEN_WITHIN).await?);
    let is_unkept = |acl: &AclBinding| {
        let keeper = own.as_deref().and_then(|own| acls::keeper(acl, own));
        keeper.is_some_and(|keeper| missing.contains(&keeper))
    };
    let mut safe = Vec::new();
    for acl in new {
        let nameless = unkept.contains(&acl).then_some(NAMELESS);
        let Some(why) = nameless.or(is_unkept(&acl).then_some(UNKEPT)) else {
            safe.push(acl);
            continue;
        };
        let problem = format!("{acl}: the first ACL there could shut Twinlog out, and {why}");
        carried.problems.push(problem);
    }
    create_acls(back, &safe, carried).await?;
    Ok(())
}

/// Why what keeps Twinlog in isn't there.
const NAMELESS: &str = "it isn't known whom its brokers take Twinlog for (acls.principal)";
const UNKEPT: &str = "what keeps it in was refused, or no broker shows it";

/// What has to be there before these, and which of these can't have it.
fn kept_in(
    new: &BTreeSet<AclBinding>,
    own: Option<&str>,
    there: &BTreeSet<AclBinding>,
) -> (BTreeSet<AclBinding>, BTreeSet<AclBinding>) {
    let Some(own) = own else {
        let unkept = new.iter().filter(|acl| acls::is_used(acl));
        return (BTreeSet::new(), unkept.cloned().collect());
    };
    let keeping = new.iter().filter_map(|acl| acls::keeper(acl, own));
    let keeping = keeping.filter(|acl| !there.contains(acl));
    (keeping.collect(), BTreeSet::new())
}

/// Those that were refused.
async fn create_acls(
    back: &Scene,
    all: &[AclBinding],
    carried: &mut Carried,
) -> Result<BTreeSet<AclBinding>, CutoverError> {
    let mut refused = BTreeSet::new();
    for chunk in all.chunks(AT_ONCE) {
        let results = wire::create_acls(&back.target, chunk).await?;
        for (acl, result) in chunk.iter().zip(results) {
            match result {
                Ok(()) => carried.acls.push(acl.to_string()),
                Err(error) => {
                    carried.problems.push(format!("{acl}: {error}"));
                    refused.insert(acl.clone());
                }
            }
        }
    }
    Ok(refused)
}

/// The groups whose positions were kept, either way.
fn followed(ended: &Scene, back: &Scene) -> BTreeSet<String> {
    let mut followed = BTreeSet::new();
    for scene in [ended, back] {
        let flow = &scene.flow.name;
        for prefix in [keys::groups(flow), keys::shares(flow)] {
            let keys = scene.store.keys(&prefix);
            let names = keys.iter().filter_map(|key| key.strip_prefix(&*prefix));
            followed.extend(names.map(str::to_owned));
        }
    }
    followed
}

/// What was removed on the standby: it had that when it became the primary, and has it no
/// more. What keeps writers from the old primary now goes with its fence, and what is held again on the standby was
/// taken away there alone. Of groups and transactional ids only what is the flow's.
fn removed(
    ended: &Scene,
    back: &Scene,
    (known, now): (&BTreeSet<String>, &[AclBinding]),
    there: &BTreeSet<AclBinding>,
    of_flow: &OfFlow<'_>,
) -> Result<Vec<AclBinding>, CutoverError> {
    let fence: Option<FenceRecord> = ended.store.get(&keys::fence(&ended.flow.name))?;
    let fence = fence.map_or_else(Vec::new, |fence| fence.acls);
    let fence: BTreeSet<AclBinding> = fence.iter().map(FenceAcl::binding).collect();
    let held = metadata::acls::held_again(&ended.store, &ended.flow.name)?;
    let now: BTreeSet<&AclBinding> = now.iter().collect();
    let own = back.target_section.principal();
    let is_removed = |acl: &&AclBinding| {
        let on_standby = match acl.resource_type {
            TOPIC => on_standby(ended, acl),
            GROUP | TRANSACTIONAL_ID => of_flow.is_whole(acl).then(|| (*acl).clone()),
            _ => return false,
        };
        let is_gone = on_standby.is_some_and(|it| {
            known.contains(&hash(&it)) && !now.contains(&it) && !held.contains(&it)
        });
        is_gone && !fence.contains(*acl) && own.as_deref() != Some(acl.principal.as_str())
    };
    Ok(there.iter().filter(is_removed).cloned().collect())
}

/// Removes these on the old primary.
async fn remove_acls(
    back: &Scene,
    removed: &[AclBinding],
    carried: &mut Carried,
) -> Result<(), CutoverError> {
    for chunk in removed.chunks(AT_ONCE) {
        let results = wire::delete_acls(&back.target, chunk).await?;
        for (acl, result) in chunk.iter().zip(results) {
            match result {
                Ok(()) => carried.acls_removed.push(acl.to_string()),
                Err(error) => carried
                    .problems
                    .push(format!("not removed: {acl}: {error}")),
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
    let (now, there) = tokio::join!(quotas(&back.source), quotas(&back.target));
    carried
        .problems
        .extend(unread("quotas", &back.source, &now));
    carried
        .problems
        .extend(unread("quotas", &back.target, &there));
    let (Ok(Some(now)), Ok(Some(there))) = (now, there) else {
        return Ok(());
    };
    let known: Option<ReignRecord> = ended.store.get(&keys::reign(&ended.flow.name))?;
    let Some(known) = known.and_then(|known| known.quotas) else {
        carried.problems.push(unremembered("quotas", &back.source));
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

/// All quotas; `None` where there are none of the kind.
async fn quotas(cluster: &Cluster) -> Result<Option<ClientQuotas>, WireError> {
    match wire::describe_client_quotas(cluster).await {
        Ok(quotas) => Ok(Some(quotas)),
        Err(error) if wire::is_unsupported(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An ACL by the old primary's names; `None` for one of a topic that isn't copied back, or of a
/// pattern that has no counterpart.
fn translated(back: &Scene, acl: &AclBinding) -> Option<AclBinding> {
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

/// The overrides of topics, and why some can't be read.
#[derive(Default)]
struct Overrides {
    by_topic: BTreeMap<String, BTreeMap<String, String>>,
    unread: BTreeMap<String, String>,
}

impl Overrides {
    /// What isn't carried over for that, in a line.
    fn problem(&self, cluster: &str) -> Option<String> {
        let (topic, why) = self.unread.first_key_value()?;
        Some(format!(
            "settings of {} topic(s) on {cluster} can't be read, so what was changed of them isn't carried over, such as \
             {topic}: {why}",
            self.unread.len()
        ))
    }
}

/// The overrides of these topics.
async fn overrides(cluster: &Cluster, topics: &[String]) -> Overrides {
    let mut found = Overrides::default();
    for (topic, values) in wire::describe_topic_configs(cluster, topics).await {
        match values {
            Ok(values) => {
                let overrides = values.into_iter().filter(|(_, value)| value.is_override());
                let told = overrides.filter_map(|(key, value)| Some((key, value.value?)));
                found.by_topic.insert(topic, told.collect());
            }
            Err(error) => {
                found.unread.insert(topic, error.to_string());
            }
        }
    }
    found
}

/// All ACLs; `None` where there is no authorizer.
async fn acls(cluster: &Cluster) -> Result<Option<Vec<AclBinding>>, WireError> {
    let answer = wire::describe_acls(cluster).await;
    match answer.and_then(|answer| answer.acls(cluster)) {
        Ok(acls) => Ok(Some(acls)),
        Err(error) if error.server_code() == Some(ResponseError::SecurityDisabled) => Ok(None),
        Err(error) => Err(error),
    }
}

/// That some of `what` aren't carried over, for one of the clusters can't be asked for them.
fn unread<T>(what: &str, cluster: &Cluster, asked: &Result<T, WireError>) -> Option<String> {
    let error = asked.as_ref().err()?;
    let cluster = cluster.name();
    Some(format!(
        "{what} of {cluster} can't be read, so none that was changed is carried over: {error}"
    ))
}

/// The same where nobody could ask at the failover.
fn unremembered(what: &str, cluster: &Cluster) -> String {
    format!(
        "which {what} {} had at the failover wasn't written down, so none that was changed is carried over",
        cluster.name()
    )
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
