//! The laws of deciding, on random clusters.

use std::collections::BTreeMap;

use proptest::collection::btree_map;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::decide::{Decision, Defaults, decide as decide_with, same};
use super::needs::{LIMIT, Needs, SEGMENT, WIDENED, may_be_widened};
use super::policy::{Policy, enforced, policy};
use super::{configs_at_creation, configs_without_compaction, is_untiered};
use crate::config::{ConfigRules, Selector};
use crate::state::HeldConfigs;
use crate::wire::{ConfigSource, ConfigValue, ConfigValues};

/// Keys of every policy, with values of their kind. The last two are known to some brokers only.
const KEYS: [(&str, [&str; 3]); 13] = [
    ("retention.ms", ["1000", "604800000", "-1"]),
    (
        "cleanup.policy",
        ["delete", "compact,delete", "delete,compact"],
    ),
    ("max.message.bytes", ["1048588", "2000000", "100"]),
    ("compression.type", ["producer", "zstd", "lz4"]),
    ("min.insync.replicas", ["1", "2", "3"]),
    ("segment.bytes", ["1073741824", "1000000", "2000000"]),
    ("preallocate", ["true", "false", "TRUE"]),
    (
        "message.timestamp.type",
        ["CreateTime", "LogAppendTime", "CreateTime"],
    ),
    (
        "message.timestamp.after.max.ms",
        ["9223372036854775807", "3600000", "1"],
    ),
    ("unclean.leader.election.enable", ["true", "false", "true"]),
    ("remote.log.copy.disable", ["true", "false", "true"]),
    (
        "message.timestamp.difference.max.ms",
        ["9223372036854775807", "3600000", "1"],
    ),
    ("vendor.something", ["a", "b", "c"]),
];

/// Whether only some brokers know a key.
fn is_rare(key: &str) -> bool {
    key.starts_with("vendor.") || key.contains(".difference.")
}

fn value(value: &str, source: ConfigSource) -> ConfigValue {
    ConfigValue {
        value: Some(value.to_owned()),
        source,
        sensitive: false,
        default: None,
    }
}

/// A cluster: its defaults, and one topic's overrides.
#[derive(Clone, Debug)]
struct World {
    defaults: Defaults,
    overrides: BTreeMap<String, String>,
}

impl World {
    fn described(&self) -> ConfigValues {
        let defaults = self.defaults.iter();
        let mut values: ConfigValues = defaults
            .map(|(key, text)| (key.clone(), value(text, ConfigSource::Default)))
            .collect();
        for (key, text) in &self.overrides {
            values.insert(key.clone(), value(text, ConfigSource::Topic));
        }
        values
    }

    fn apply(&mut self, decision: &Decision) {
        for change in &decision.changes {
            match &change.value {
                Some(value) => self.overrides.insert(change.key.clone(), value.clone()),
                None => self.overrides.remove(&change.key),
            };
        }
    }

    fn effective(&self, key: &str) -> Option<&String> {
        self.overrides.get(key).or_else(|| self.defaults.get(key))
    }
}

fn world() -> impl Strategy<Value = World> {
    let pick = |chosen: Vec<(usize, bool)>| -> BTreeMap<String, String> {
        let pairs = KEYS.iter().zip(chosen).filter(|(_, (_, there))| *there);
        pairs
            .map(|((key, values), (index, _))| ((*key).to_owned(), values[index].to_owned()))
            .collect()
    };
    let choice = || proptest::collection::vec((0..3_usize, any::<bool>()), KEYS.len());
    (choice(), choice(), any::<bool>()).prop_map(move |(defaults, overrides, knows_rare)| {
        let all = defaults
            .into_iter()
            .map(|(index, _)| (index, true))
            .collect();
        let mut world = World {
            defaults: pick(all),
            overrides: pick(overrides),
        };
        if !knows_rare {
            world.defaults.retain(|key, _| !is_rare(key));
            world.overrides.retain(|key, _| !is_rare(key));
        }
        world
    })
}

fn key() -> impl Strategy<Value = String> {
    select(&KEYS[..]).prop_map(|(key, _)| key.to_owned())
}

fn rules() -> impl Strategy<Value = ConfigRules> {
    let fixed = select(&KEYS[..]).prop_flat_map(|(key, values)| {
        select(values.to_vec()).prop_map(move |value| (key.to_owned(), value.to_owned()))
    });
    (option::of(key()), option::of(key()), option::of(fixed)).prop_map(|(follow, ignore, fixed)| {
        let selector = |key: Option<String>| {
            let keys: Vec<String> = key.iter().map(|key| regex::escape(key)).collect();
            Selector::new(&keys, &[]).expect("escaped")
        };
        ConfigRules {
            of_what_was_there: None,
            enabled: true,
            follow: selector(follow),
            ignore: selector(ignore),
            fixed: fixed.into_iter().collect(),
        }
    })
}

fn plain() -> ConfigRules {
    let none = || Selector::new::<&str>(&[], &[]).expect("empty");
    ConfigRules {
        of_what_was_there: None,
        enabled: true,
        follow: none(),
        ignore: none(),
        fixed: BTreeMap::new(),
    }
}

fn known(world: &World, is_known: bool) -> Defaults {
    if is_known {
        world.defaults.clone()
    } else {
        Defaults::new()
    }
}

/// Of a source whose log needs nothing more than its topic's settings.
fn decide(
    source: &ConfigValues,
    target: &ConfigValues,
    defaults: &Defaults,
    replicas: usize,
    rules: &ConfigRules,
) -> Decision {
    decide_with(source, target, defaults, replicas, &Needs::default(), rules)
}

fn needs() -> impl Strategy<Value = Needs> {
    let bytes = || select(&[0, 500, 1_500_000, 5_000_000][..]);
    (bytes(), bytes(), any::<bool>(), any::<bool>()).prop_map(
        |(batch_bytes, segment_bytes, stays_raised, without_key)| Needs {
            batch_bytes,
            segment_bytes,
            stays_raised,
            without_key,
            ..Needs::default()
        },
    )
}

proptest! {
    #[test]
    fn applying_a_decision_leaves_nothing_to_decide(
        source in world(), target in world(), rules in rules(), needs in needs(),
        replicas in 1..4_usize, defaults_known in any::<bool>(),
    ) {
        let defaults = known(&target, defaults_known);
        let mut after = target.clone();
        let from = source.described();
        let decide = |to: &World| {
            decide_with(&from, &to.described(), &defaults, replicas, &needs, &rules)
        };
        let first = decide(&target);
        after.apply(&first);
        let second = decide(&after);
        prop_assert_eq!(second.changes, vec![]);
        prop_assert_eq!(second.held, first.held);
    }

    #[test]
    fn a_mirror_ends_up_as_its_policies_say(
        source in world(), target in world(), rules in rules(),
        replicas in 1..4_usize, defaults_known in any::<bool>(),
    ) {
        let defaults = known(&target, defaults_known);
        let mut after = target.clone();
        let decision =
            decide(&source.described(), &target.described(), &defaults, replicas, &rules);
        after.apply(&decision);
        for (key, _) in KEYS {
            let (on_source, on_target) = (source.effective(key), after.effective(key));
            let is = |wanted: &str| on_target.is_some_and(|found| same(key, found, wanted));
            match policy(&rules, key) {
                Policy::Ignored => {
                    prop_assert_eq!(after.overrides.get(key), target.overrides.get(key));
                }
                Policy::Enforced(wanted) => {
                    prop_assert!(is(wanted) || !target.defaults.contains_key(key), "{key}");
                }
                Policy::Fixed(wanted) => prop_assert!(is(wanted), "{key}"),
                _ if on_source.is_none() => {
                    prop_assert_eq!(after.overrides.get(key), target.overrides.get(key));
                }
                Policy::Resolved => {
                    prop_assert!(on_source.is_some_and(|wanted| is(wanted)), "{key}");
                }
                Policy::Capped => {
                    let number = |text: &String| text.parse::<usize>().expect("a number");
                    let too_high = defaults.get(key).filter(|it| number(it) > replicas);
                    let wanted = source.overrides.get(key).or(too_high).map(number);
                    let found = after.overrides.get(key);
                    let found = found.map(|text| text.parse::<usize>().expect("a number"));
                    prop_assert_eq!(found, wanted.map(|wanted| wanted.min(replicas)));
                }
                Policy::Override => {
                    let (wanted, found) = (source.overrides.get(key), after.overrides.get(key));
                    prop_assert_eq!(wanted.is_some(), found.is_some(), "{}", key);
                    prop_assert!(wanted.is_none_or(|wanted| is(wanted)), "{key}");
                }
            }
        }
    }

    #[test]
    fn an_override_that_is_removed_on_the_source_is_removed(
        source in world(), target in world(), removed in key(),
    ) {
        let rules = plain();
        let (mut source, mut target) = (source, target);
        let followed = |source: &World, target: &World| {
            decide(&source.described(), &target.described(), &target.defaults, 3, &rules)
        };
        target.apply(&followed(&source, &target));
        source.overrides.remove(&removed);
        target.apply(&followed(&source, &target));
        let same_default = source.defaults.get(&removed) == target.defaults.get(&removed);
        let is_mirrored = !matches!(policy(&rules, &removed), Policy::Enforced(_) | Policy::Ignored);
        if same_default && is_mirrored && !is_rare(&removed) {
            // Left only where it makes no difference at all.
            prop_assert_eq!(target.effective(&removed).map(|v| same(&removed, v, &source.defaults[&removed])), Some(true));
            if policy(&rules, &removed) != Policy::Resolved {
                prop_assert_eq!(target.overrides.get(&removed), None);
            }
        }
    }

    /// A topic that was created a moment ago is as wanted.
    #[test]
    fn a_new_copy_has_nothing_to_follow(
        source in world(), defaults in world(), rules in rules(), replicas in 1..4_usize,
    ) {
        let from = source.described();
        let mut target = defaults;
        let known = target.described();
        let default_min = target.defaults.get("min.insync.replicas").cloned();
        let default_min = default_min.as_deref();
        let [all, decisive] = configs_at_creation(&from, Some(&known), (replicas, default_min), &rules);
        target.overrides = all.clone();
        let mut decision = decide(&from, &target.described(), &target.defaults, replicas, &rules);
        // What the target can't know would only make it refuse the rest.
        decision.changes.retain(|change| known.contains_key(&change.key));
        prop_assert_eq!(decision.changes, vec![]);
        prop_assert!(all.keys().all(|key| known.contains_key(key)));
        for (key, value) in decisive {
            prop_assert_eq!(all.get(&key), Some(&value), "{}", key);
        }
    }

    /// Whatever the target had before, the failover gives readers what the source has.
    #[test]
    fn what_is_held_brings_back_the_sources_values(
        source in world(), target in world(), defaults_known in any::<bool>(),
    ) {
        let defaults = known(&target, defaults_known);
        let mut promoted = target.clone();
        let decision = decide(&source.described(), &target.described(), &defaults, 1, &plain());
        promoted.apply(&decision);
        for (key, value) in &decision.held {
            match value {
                Some(value) => promoted.overrides.insert(key.clone(), value.clone()),
                None => promoted.overrides.remove(key),
            };
        }
        let both = |key: &str| [&source, &target].iter().all(|it| it.defaults.contains_key(key));
        for (key, _) in enforced().filter(|(key, _)| both(key)) {
            prop_assert_eq!(promoted.effective(key), source.effective(key));
            // An override of the source is one again; without one, at most a default is written.
            let (was, is) = (source.overrides.get(key), promoted.overrides.get(key));
            prop_assert!(was.is_none() || is.is_some());
        }
    }

    /// Whatever the source's topic takes today, the copy takes what its log has; afterwards, and
    /// with the failover, it has the source's settings.
    #[test]
    fn a_copy_takes_what_the_sources_log_has(
        source in world(), target in world(), rules in rules(), needs in needs(),
    ) {
        let (from, mut after) = (source.described(), target.clone());
        let decide = |to: &World, needs: &Needs| {
            decide_with(&from, &to.described(), &target.defaults, 3, needs, &rules)
        };
        let decision = decide(&target, &needs);
        after.apply(&decision);
        for (key, least) in [(LIMIT, needs.batch_bytes), (SEGMENT, needs.segment_bytes)] {
            let bytes = |world: &World| -> u64 { world.effective(key).expect("it is there").parse().expect("a number") };
            let has_source = source.overrides.contains_key(key) || key == LIMIT;
            if may_be_widened(&rules, key) && has_source {
                prop_assert!(bytes(&after) >= bytes(&source).max(least), "{}", key);
            }
            let raised = target.overrides.get(key).and_then(|raised| raised.parse::<u64>().ok());
            if let Some(raised) = raised.filter(|_| needs.stays_raised && may_be_widened(&rules, key))
                && raised > bytes(&source)
            {
                prop_assert_eq!(bytes(&after), raised.max(least), "{}", key);
            }
        }
        if needs.without_key && may_be_widened(&rules, "cleanup.policy") {
            prop_assert!(after.effective("cleanup.policy").is_some_and(|policy| !policy.contains("compact")));
        }
        // An earlier run's is told by what is held.
        let held = HeldConfigs { v: 1, values: decision.held.clone() };
        let again = Needs::of_held(&held);
        let widened = WIDENED.iter().filter(|key| decision.held.contains_key(**key));
        let had: Vec<_> = widened.clone().collect();
        prop_assert_eq!(had.is_empty(), again == Needs::default(), "{:?}", had);
        prop_assert_eq!(decide(&after, &again).changes, vec![], "{:?}", had);

        let mut promoted = after.clone();
        for (key, value) in &decision.held {
            match value {
                Some(value) => promoted.overrides.insert(key.clone(), value.clone()),
                None => promoted.overrides.remove(key),
            };
        }
        for key in widened {
            let (found, wanted) = (promoted.effective(key), source.effective(key));
            prop_assert!(found.zip(wanted).is_some_and(|(found, wanted)| same(key, found, wanted)), "{}", key);
        }
    }

    #[test]
    fn secrets_are_left_alone(text in "[a-z]{1,4}", keys in btree_map("[a-z]{3}", any::<bool>(), 1..4)) {
        let secret = |source| ConfigValue { sensitive: true, value: None, ..value("", source) };
        let source: ConfigValues = keys
            .keys()
            .map(|key| (key.clone(), secret(ConfigSource::Topic)))
            .collect();
        let target: ConfigValues = keys
            .iter()
            .map(|(key, is_set)| (key.clone(), if *is_set { value(&text, ConfigSource::Topic) } else { secret(ConfigSource::Topic) }))
            .collect();
        let decision = decide(&source, &target, &Defaults::new(), 1, &plain());
        prop_assert_eq!(decision.changes, vec![]);
    }
}

#[test]
fn a_target_without_tiers_is_named_unless_somebody_says_what_it_keeps() {
    let tiers = |is: &str| {
        ConfigValues::from([(
            "remote.storage.enable".to_owned(),
            value(is, ConfigSource::Topic),
        )])
    };
    let (with, without) = (tiers("true"), tiers("false"));
    assert!(is_untiered(&with, Some(&without), &plain()));
    // A broker from before tiers; a topic that isn't there yet.
    assert!(is_untiered(&with, Some(&ConfigValues::new()), &plain()));
    assert!(is_untiered(&with, None, &plain()));
    assert!(!is_untiered(&with, Some(&with), &plain()));
    assert!(!is_untiered(&without, Some(&without), &plain()));
    assert!(!is_untiered(&ConfigValues::new(), None, &plain()));
    let fixed = BTreeMap::from([("retention.ms".to_owned(), "3600000".to_owned())]);
    assert!(!is_untiered(
        &with,
        Some(&without),
        &ConfigRules { fixed, ..plain() }
    ));
    let ignore = Selector::new(&["retention[.].*"], &[]).expect("a pattern");
    assert!(!is_untiered(
        &with,
        None,
        &ConfigRules { ignore, ..plain() }
    ));
    let decision = decide(&with, &without, &Defaults::new(), 1, &plain());
    assert!(decision.is_untiered && decision.changes.is_empty());
}

/// Where nothing tells the target's version, it is taken for a new one.
#[test]
fn what_4_0_does_not_know_is_no_part_of_a_new_copy_unless_the_target_has_it() {
    let key = "message.timestamp.difference.max.ms";
    let old = ConfigValues::from([(key.to_owned(), value("3600000", ConfigSource::Default))]);
    let of = |known| {
        configs_at_creation(&old, known, (1, None), &plain()).map(|made| made.get(key).cloned())
    };
    let no_limit = Some(i64::MAX.to_string());
    assert_eq!(of(Some(&old)), [no_limit.clone(), no_limit]);
    let new = ConfigValues::new();
    assert_eq!(of(Some(&new)), [None, None]);
    assert_eq!(of(None), [None, None]);
    let change =
        |target: &ConfigValues| decide(&old, target, &Defaults::new(), 1, &plain()).changes;
    assert_eq!(change(&old).len(), 1);
    assert_eq!(change(&new), vec![]);
}

#[test]
fn spelling_is_no_difference() {
    assert!(same("cleanup.policy", "compact,delete", "delete, compact"));
    assert!(!same("cleanup.policy", "compact,delete", "delete"));
    assert!(same("segment.ms", " 5", "5"));
    assert!(same("segment.ms", "05", "5"));
    assert!(same("min.cleanable.dirty.ratio", "0.50", "0.5"));
    assert!(same("preallocate", "TRUE", "true"));
    assert!(!same("preallocate", "true", "false"));
    assert!(!same("compression.type", "LZ4", "lz4"));
    assert!(!same(
        "retention.ms",
        "9223372036854775807",
        "9223372036854775806"
    ));
}

#[test]
fn a_rule_of_the_user_wins_over_the_defaults_but_not_over_what_a_mirror_needs() {
    let only = |key: &str| Selector::new(&[regex::escape(key)], &[]).expect("escaped");
    let tiered = "remote.storage.enable";
    assert_eq!(policy(&plain(), tiered), Policy::Ignored);
    let rules = ConfigRules {
        of_what_was_there: None,
        follow: only(tiered),
        ..plain()
    };
    assert_eq!(policy(&rules, tiered), Policy::Override);
    let rules = ConfigRules {
        of_what_was_there: None,
        follow: only(tiered),
        ignore: only(tiered),
        ..plain()
    };
    assert_eq!(policy(&rules, tiered), Policy::Override);
    let rules = ConfigRules {
        of_what_was_there: None,
        ignore: only("retention.ms"),
        ..plain()
    };
    assert_eq!(policy(&rules, "retention.ms"), Policy::Ignored);
    let kind = "message.timestamp.type";
    let fixed = BTreeMap::from([(kind.to_owned(), "LogAppendTime".to_owned())]);
    let rules = ConfigRules {
        of_what_was_there: None,
        follow: only(kind),
        fixed,
        ..plain()
    };
    assert_eq!(policy(&rules, kind), Policy::Enforced("CreateTime"));
}

/// A topic with these of its own.
fn topic_with(overrides: &[(&str, &str)]) -> World {
    let defaults = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "CreateTime"),
    ];
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    World {
        defaults: owned(&defaults),
        overrides: owned(overrides),
    }
}

/// What the source compacts it keeps for ever, whatever its retention is: a copy that may not be compacted does as well.
#[test]
fn a_copy_that_may_not_be_compacted_keeps_everything() {
    let source = topic_with(&[("cleanup.policy", "compact"), ("retention.ms", "1000")]);
    let needs = Needs {
        refuses_compaction: true,
        ..Needs::default()
    };
    let decide = |source: &World, target: &World, needs: &Needs| {
        let (from, to) = (source.described(), target.described());
        decide_with(&from, &to, &target.defaults, 1, needs, &plain())
    };
    let keep = [("retention.ms", "-1"), ("retention.bytes", "-1")];
    let mut target = topic_with(&[("retention.ms", "1000")]);
    let changes = |decision: &Decision| -> BTreeMap<String, Option<String>> {
        let changes = decision.changes.iter();
        changes
            .map(|it| (it.key.clone(), it.value.clone()))
            .collect()
    };
    let first = decide(&source, &target, &needs);
    // It is tried again and again; everything else is done.
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(changes(&first)["cleanup.policy"], some("compact"));
    for (key, value) in keep {
        assert_eq!(changes(&first)[key], some(value));
        // After a failover it is needed all the same.
        assert!(!first.held.contains_key(key));
    }
    target.apply(&first);
    target.overrides.remove("cleanup.policy");
    // The next process hasn't heard of the refusal yet.
    let next = decide(&source, &target, &Needs::default());
    assert_eq!(
        changes(&next).into_keys().collect::<Vec<_>>(),
        ["cleanup.policy"]
    );
    // It is allowed at last; then all is as on the source.
    target.apply(&next);
    target.apply(&decide(&source, &target, &Needs::default()));
    assert_eq!(
        target.effective("retention.ms"),
        source.effective("retention.ms")
    );
    assert_eq!(decide(&source, &target, &Needs::default()).changes, vec![]);

    // Where nothing is refused, or the source deletes by age as well, or a rule of the user's says so.
    let plain_copy = topic_with(&[("retention.ms", "1000")]);
    let harmless = decide(&source, &plain_copy, &Needs::default());
    assert!(!changes(&harmless).contains_key("retention.ms"));
    let both = topic_with(&[
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "1000"),
    ]);
    assert!(!changes(&decide(&both, &plain_copy, &needs)).contains_key("retention.ms"));
    let fixed = BTreeMap::from([("cleanup.policy".to_owned(), "delete".to_owned())]);
    let rules = ConfigRules { fixed, ..plain() };
    let (from, to) = (source.described(), plain_copy.described());
    let decided = decide_with(&from, &to, &plain_copy.defaults, 1, &needs, &rules);
    assert!(!changes(&decided).contains_key("retention.ms"));

    let made = |source: &World, rules: &ConfigRules| {
        configs_without_compaction(&source.described(), rules)
    };
    let keeps: BTreeMap<String, String> = keep
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(made(&source, &plain()), keeps);
    assert!(made(&both, &plain()).is_empty() && made(&source, &rules).is_empty());
}
