//! What to change on the target so that one topic is configured as on the source. Pure.
//!
//! The laws, which the tests check with random clusters: applying a decision leaves nothing to
//! decide; what is ignored is never touched; an override that the source doesn't have is gone
//! afterwards or has the value that the source has without one, or what keeps a default within the copy's replicas.

use std::collections::{BTreeMap, BTreeSet};

use super::needs::{self, Needs, may_be_widened};
use super::policy::{MIN_IN_SYNC, Policy, enforced, is_resolved, policy};
use super::tiers::is_untiered;
use crate::config::ConfigRules;
use crate::wire::{ConfigValue, ConfigValues};

/// What a topic without overrides has, by key, as far as is known.
pub(super) type Defaults = BTreeMap<String, String>;

/// One key to change on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The key.
    pub key: String,
    /// The value to set, or `None` to remove the override.
    pub value: Option<String>,
    /// The effective value on the source, if it has the key.
    pub source: Option<String>,
    /// The effective value on the target, if it has the key.
    pub target: Option<String>,
    /// Whether the target has an override now.
    pub replaces: bool,
    /// Why the value isn't simply the source's.
    pub why: Option<String>,
}

/// What to do about one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// To be applied in one piece.
    pub changes: Vec<Change>,
    /// What a failover sets: value, or `None` to remove the override.
    pub held: BTreeMap<String, Option<String>>,
    /// The target's disks hold what the source has in tiered storage.
    pub is_untiered: bool,
}

/// Decides about one topic.
pub(super) fn decide(
    source: &ConfigValues,
    target: &ConfigValues,
    defaults: &Defaults,
    target_replicas: usize,
    needs: &Needs,
    rules: &ConfigRules,
) -> Decision {
    let widened = widened(source, target, needs, rules);
    let keys: BTreeSet<&String> = source
        .keys()
        .chain(target.keys())
        .chain(rules.fixed.keys())
        .collect();
    let changes = keys.into_iter().filter_map(|key| {
        let (from, to) = (source.get(key), target.get(key));
        // Nobody tells what a secret is.
        if from.into_iter().chain(to).any(|value| value.sensitive) {
            return None;
        }
        let default = defaults.get(key).map(String::as_str);
        let (value, why) = match widened.get(key.as_str()) {
            Some(wider)
                if has(to, key, &wider.value) && to.is_some_and(ConfigValue::is_override) =>
            {
                return None;
            }
            Some(wider) => (Some(wider.value.clone()), Some(wider.why.to_owned())),
            None => wanted(key, from, to, default, target_replicas, rules)?,
        };
        Some(Change {
            key: key.clone(),
            value,
            source: from.and_then(|from| from.value.clone()),
            target: to.and_then(|to| to.value.clone()),
            replaces: to.is_some_and(ConfigValue::is_override),
            why,
        })
    });
    let of_failover = widened.iter().filter(|(_, wider)| wider.is_held);
    let of_failover = of_failover.map(|(key, _)| *key);
    Decision {
        changes: changes.collect(),
        held: held(source, target, defaults, of_failover),
        is_untiered: is_untiered(source, Some(target), rules),
    }
}

/// Whether a key has this value.
fn has(config: Option<&ConfigValue>, key: &str, value: &str) -> bool {
    let effective = config.and_then(|config| config.value.as_deref());
    effective.is_some_and(|known| same(key, known, value))
}

/// What the copy has instead of the source's value.
struct Wider {
    value: String,
    why: &'static str,
    /// The failover sets the source's.
    is_held: bool,
}

/// What the copy has while its log needs it, though the source has another value.
fn widened(
    source: &ConfigValues,
    target: &ConfigValues,
    needs: &Needs,
    rules: &ConfigRules,
) -> BTreeMap<&'static str, Wider> {
    let of = |configs: &ConfigValues, key: &str| configs.get(key)?.value.clone();
    let held = |value: String, why| Wider {
        value,
        why,
        is_held: true,
    };
    let mut widened = BTreeMap::new();
    for key in [needs::LIMIT, needs::SEGMENT] {
        let bytes = |configs| of(configs, key)?.trim().parse::<u64>().ok();
        let there = bytes(target);
        let raised = there.filter(|_| target.get(key).is_some_and(ConfigValue::is_override));
        if let (Some(least), Some(own)) = (needs.least(key, raised), bytes(source))
            && least > own
        {
            let why = "the source's log has a batch that is larger than its topic's limit";
            let wider = there.unwrap_or(0).max(least);
            widened.insert(key, held(wider.to_string(), why));
        }
    }
    let policy = of(source, needs::CLEANUP).unwrap_or_default();
    if needs.without_key && policy.contains("compact") {
        let why = "the source's log has records without a key, which a compacted topic refuses";
        widened.insert(needs::CLEANUP, held("delete".to_owned(), why));
        if !policy.contains("delete") {
            let forever = needs::RETENTION.map(|key| (key, held("-1".to_owned(), why)));
            widened.extend(forever);
        }
    } else if is_uncompacted(source, target, rules) {
        // What was widened stays so while the copy isn't compacted: whether the target would do it now isn't known yet.
        let is_wide = |key: &str| {
            let there = target.get(key).filter(|it| it.is_override());
            has(there, key, "-1")
        };
        let wide = needs::RETENTION.into_iter();
        let wide = wide.filter(|key| needs.refuses_compaction || is_wide(key));
        widened.extend(wide.map(|key| {
            let wider = Wider {
                value: "-1".to_owned(),
                why: UNCOMPACTED,
                is_held: false,
            };
            (key, wider)
        }));
    }
    widened.retain(|key, _| may_be_widened(rules, key));
    widened
}

/// Why a copy that isn't compacted keeps everything.
const UNCOMPACTED: &str =
    "the copy isn't compacted: its retention would take keys that the source keeps";

/// Whether the source keeps the last record of each key for ever, and the copy doesn't, though no rule of the user's
/// says so.
fn is_uncompacted(source: &ConfigValues, target: &ConfigValues, rules: &ConfigRules) -> bool {
    let is_compacted = |configs: &ConfigValues| {
        let value = configs
            .get(needs::CLEANUP)
            .and_then(|it| it.value.as_deref());
        value.is_some_and(|value| value.contains("compact"))
    };
    only_compacts(source) && !is_compacted(target) && may_be_widened(rules, needs::CLEANUP)
}

/// Whether nothing of a topic goes for its age.
fn only_compacts(configs: &ConfigValues) -> bool {
    let value = configs
        .get(needs::CLEANUP)
        .and_then(|it| it.value.as_deref());
    value.is_some_and(|value| value.contains("compact") && !value.contains("delete"))
}

/// What a new copy is made with where the target refuses to compact it: nothing that takes keys which the source keeps.
pub(super) fn without_compaction(
    source: &ConfigValues,
    rules: &ConfigRules,
) -> BTreeMap<String, String> {
    let follows = |key: &str| matches!(policy(rules, key), Policy::Resolved | Policy::Override);
    let is_needed = only_compacts(source) && follows(needs::CLEANUP);
    let wide = needs::RETENTION.into_iter();
    wide.filter(|key| is_needed && follows(key))
        .map(|key| (key.to_owned(), "-1".to_owned()))
        .collect()
}

type Wanted = (Option<String>, Option<String>);

/// The value to set (or `None` to remove) and why, if the target isn't as wanted.
fn wanted(
    key: &str,
    source: Option<&ConfigValue>,
    target: Option<&ConfigValue>,
    default: Option<&str>,
    target_replicas: usize,
    rules: &ConfigRules,
) -> Option<Wanted> {
    let has = |value: &str| has(target, key, value);
    let overridden = target.is_some_and(ConfigValue::is_override);
    let set = |value: &str, why: Option<String>| Some((Some(value.to_owned()), why));
    match policy(rules, key) {
        Policy::Ignored => None,
        Policy::Enforced(value) => {
            // An older target doesn't know the key, and has nothing to be kept from.
            let why = "a mirror keeps the source's timestamps, whatever they are".to_owned();
            target.filter(|_| !has(value))?;
            set(value, Some(why))
        }
        Policy::Fixed(value) => {
            let why = "by configs.fixed".to_owned();
            if has(value) {
                None
            } else {
                set(value, Some(why))
            }
        }
        // A newer source, or another vendor's, may have keys that this one doesn't know.
        Policy::Resolved | Policy::Capped | Policy::Override if source.is_none() => None,
        Policy::Capped => match capped_or_default(source, default, target_replicas) {
            Some((value, _)) if overridden && has(&value) => None,
            Some((value, why)) => set(&value, why),
            None => overridden.then_some((None, None)),
        },
        Policy::Override => match over(source) {
            Some(value) if overridden && has(value) => None,
            Some(value) => set(value, None),
            None => overridden.then_some((None, None)),
        },
        Policy::Resolved => match over(source) {
            Some(value) if overridden && has(value) => None,
            Some(value) => set(value, None),
            None => {
                let value = source.and_then(|source| source.value.as_deref())?;
                // What an older target doesn't know has no default that could differ.
                target.filter(|_| !has(value))?;
                if overridden && default.is_some_and(|default| same(key, default, value)) {
                    return Some((None, None));
                }
                let why = "the source's default, which the target's brokers don't have".to_owned();
                set(value, Some(why))
            }
        },
    }
}

/// The value of an override.
fn over(source: Option<&ConfigValue>) -> Option<&str> {
    source
        .filter(|source| source.is_override())
        .and_then(|source| source.value.as_deref())
}

/// The source's override, or else what keeps the brokers' default from asking for more replicas than there are.
fn capped_or_default(
    source: Option<&ConfigValue>,
    default: Option<&str>,
    replicas: usize,
) -> Option<(String, Option<String>)> {
    match over(source) {
        Some(value) => Some(capped(value, replicas)),
        None => {
            let (value, why) = capped(default?, replicas);
            why.map(|why| (value, Some(why)))
        }
    }
}

/// With fewer replicas than that nobody could write.
fn capped(value: &str, target_replicas: usize) -> (String, Option<String>) {
    match value.trim().parse::<usize>() {
        Ok(least) if least > target_replicas.max(1) => {
            let replicas = target_replicas.max(1);
            let why = format!("no more than the {replicas} replicas that the target has");
            (replicas.to_string(), Some(why))
        }
        _ => (value.to_owned(), None),
    }
}

/// What the failover makes of the enforced keys and of those that are wider now: what the source
/// has, written explicitly where the target's default is another one (or isn't known).
fn held(
    source: &ConfigValues,
    target: &ConfigValues,
    defaults: &Defaults,
    widened: impl Iterator<Item = &'static str>,
) -> BTreeMap<String, Option<String>> {
    let keys = enforced().map(|(key, _)| key).chain(widened);
    let held = keys.filter_map(|key| {
        target.get(key)?;
        let from = source.get(key);
        let value = from.and_then(|from| from.value.clone()).filter(|value| {
            let default = defaults.get(key);
            from.is_some_and(ConfigValue::is_override)
                || default.is_none_or(|default| !same(key, default, value))
        });
        Some((key.to_owned(), value))
    });
    held.collect()
}

/// The configs with which the copy of a topic is created, so that a look right behind it finds
/// nothing to change: what is resolved is written out, since the target's defaults aren't known.
pub(super) fn created_with(
    source: &ConfigValues,
    (replicas, default_min): (usize, Option<&str>),
    rules: &ConfigRules,
) -> BTreeMap<String, String> {
    let mut configs = decisive(source, rules);
    if policy(rules, MIN_IN_SYNC) == Policy::Capped
        && let Some(own) = source.get(MIN_IN_SYNC)
        && let Some((value, _)) = capped_or_default(Some(own), default_min, replicas)
    {
        configs.insert(MIN_IN_SYNC.to_owned(), value);
    }
    configs.extend(
        rules
            .fixed
            .clone()
            .into_iter()
            .filter(|(key, _)| matches!(policy(rules, key), Policy::Fixed(_))),
    );
    for (key, value) in source {
        let Some(over) = over(Some(value)).filter(|_| !value.sensitive) else {
            continue;
        };
        let wanted = match policy(rules, key) {
            Policy::Override | Policy::Resolved => over.to_owned(),
            Policy::Capped | Policy::Enforced(_) | Policy::Fixed(_) | Policy::Ignored => continue,
        };
        configs.insert(key.clone(), wanted);
    }
    configs
}

/// Of [`created_with`], what decides whether batches are accepted and how long they stay: where
/// the target refuses the rest, the topic is created with these.
pub(super) fn decisive(source: &ConfigValues, rules: &ConfigRules) -> BTreeMap<String, String> {
    let mut configs: BTreeMap<String, String> = source
        .iter()
        .filter(|(key, _)| policy(rules, key) == Policy::Resolved)
        .filter_map(|(key, value)| Some((key.clone(), value.value.clone()?)))
        .collect();
    configs.extend(
        rules
            .fixed
            .clone()
            .into_iter()
            .filter(|(key, _)| is_resolved(key)),
    );
    configs.extend(enforced().map(|(key, value)| (key.to_owned(), value.to_owned())));
    configs
}

/// Whether two values mean the same to a broker.
pub(super) fn same(key: &str, one: &str, other: &str) -> bool {
    let (one, other) = (one.trim(), other.trim());
    if one == other {
        return true;
    }
    if key == "cleanup.policy" {
        let parts = |text: &str| -> BTreeSet<String> {
            let parts = text.split(',').map(|part| part.trim().to_owned());
            parts.filter(|part| !part.is_empty()).collect()
        };
        return parts(one) == parts(other);
    }
    if let (Ok(one), Ok(other)) = (one.parse::<i64>(), other.parse::<i64>()) {
        return one == other;
    }
    if let (Ok(one), Ok(other)) = (one.parse::<f64>(), other.parse::<f64>()) {
        return one == other;
    }
    let is_bool =
        |text: &str| text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
    is_bool(one) && one.eq_ignore_ascii_case(other)
}
