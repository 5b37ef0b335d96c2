//! Topic configs: what the source sets must be in force on the target.

use std::collections::{BTreeMap, HashMap};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigSource, OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::config::FromClientConfigAndContext as _;

use super::VerifyError;
use super::client::{ANSWER_WITHIN, failed, settings};
use super::report::{Difference, DifferenceKind};
use crate::config::{ClusterSection, ConfigRules};
use crate::connect::Context;
use crate::metadata::{Expected, expected_config, is_resolved_config};

/// Topics asked about at once.
const AT_ONCE: usize = 200;

/// One key of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfigEntry {
    /// In force.
    pub value: Option<String>,
    /// Whether the topic sets it itself.
    pub is_override: bool,
}

pub(super) type Entries = BTreeMap<String, ConfigEntry>;

/// By topic: its configs, or why they can't be had.
pub(super) type Configs = HashMap<String, Result<Entries, String>>;

/// Asks for the configs of topics.
pub(super) async fn describe(
    section: &ClusterSection,
    topics: &[String],
) -> Result<Configs, VerifyError> {
    let doing = "asking for topic configs";
    let (config, context) = settings(section);
    let admin: AdminClient<Context> = AdminClient::from_config_and_context(&config, context)
        .map_err(|error| failed(section, doing, &error))?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
    let mut configs = Configs::new();
    for some in topics.chunks(AT_ONCE) {
        let asked: Vec<_> = some
            .iter()
            .map(|topic| ResourceSpecifier::Topic(topic))
            .collect();
        let answers = admin
            .describe_configs(&asked, &options)
            .await
            .map_err(|error| failed(section, doing, &error))?;
        for (topic, answer) in some.iter().zip(answers) {
            let entries = match answer {
                Ok(resource) => {
                    debug_assert_eq!(
                        resource.specifier,
                        OwnedResourceSpecifier::Topic(topic.clone())
                    );
                    let entries = resource.entries.into_iter();
                    let entries = entries.filter(|entry| !entry.is_sensitive).map(|entry| {
                        let is_override = matches!(entry.source, ConfigSource::DynamicTopic);
                        let value = entry.value;
                        (entry.name, ConfigEntry { value, is_override })
                    });
                    Ok(entries.collect())
                }
                Err(error) => Err(error.to_string()),
            };
            configs.insert(topic.clone(), entries);
        }
    }
    Ok(configs)
}

/// Whether a topic is compacted.
pub(super) fn is_compacted(entries: &Entries) -> bool {
    let policy = entries.get("cleanup.policy");
    policy
        .and_then(|entry| entry.value.as_deref())
        .is_some_and(|policy| policy.split(',').any(|part| part.trim() == "compact"))
}

/// What differs, of one topic.
pub(super) fn differences(
    rules: &ConfigRules,
    topic: &str,
    source: &Entries,
    target: &Entries,
) -> Vec<Difference> {
    let overrides = source.iter().filter(|(_, entry)| entry.is_override);
    let free = overrides.filter(|(key, _)| !rules.fixed.contains_key(*key));
    let wanted = free.filter_map(|(key, entry)| match expected_config(rules, key) {
        Expected::AtLeast if is_wider(target.get(key), entry) => None,
        Expected::AsSource | Expected::AtLeast => Some((key, entry.value.as_deref()?)),
        Expected::Value(value) => Some((key, value)),
        Expected::Anything => None,
    });
    let fixed = rules.fixed.iter();
    let wanted = wanted.chain(fixed.map(|(key, value)| (key, value.as_str())));
    let mut found = Vec::new();
    for (key, wanted) in wanted {
        let present = target.get(key).and_then(|entry| entry.value.as_deref());
        // A key that the target doesn't know can't be set there.
        if present != Some(wanted) && target.contains_key(key) {
            let present = present.unwrap_or("nothing");
            let detail = format!("{key} is {present}, it should be {wanted}");
            let mut difference = Difference::new(DifferenceKind::Config, detail);
            difference.topic = Some(topic.to_owned());
            found.push(difference);
        }
    }
    found.extend(narrower(rules, topic, source, target));
    found
}

/// Where the source goes by a default: what keeps less on the target than there. (What keeps more may be
/// what the copy's log needs.)
fn narrower<'a>(
    rules: &'a ConfigRules,
    topic: &'a str,
    source: &'a Entries,
    target: &'a Entries,
) -> impl Iterator<Item = Difference> + 'a {
    let defaults = source.iter().filter(|(_, entry)| !entry.is_override);
    let followed = defaults.filter(|(key, _)| {
        let is_expected = matches!(
            expected_config(rules, key),
            Expected::AsSource | Expected::AtLeast
        );
        is_resolved_config(key) && is_expected && !rules.fixed.contains_key(*key)
    });
    followed.filter_map(move |(key, entry)| {
        let wanted = entry.value.as_deref()?;
        let present = target.get(key)?.value.as_deref()?;
        keeps_less(key, present, wanted).then(|| {
            let detail = format!("{key} is {present}, the source uses {wanted}");
            let mut difference = Difference::new(DifferenceKind::Config, detail);
            difference.topic = Some(topic.to_owned());
            difference
        })
    })
}

/// Whether one value of a key loses records, or refuses some, that the other one keeps.
fn keeps_less(key: &str, present: &str, wanted: &str) -> bool {
    if key == "cleanup.policy" {
        let parts = |text: &str| -> Vec<String> {
            text.split(',').map(|part| part.trim().to_owned()).collect()
        };
        let wanted = parts(wanted);
        return parts(present).iter().any(|part| !wanted.contains(part));
    }
    // -1 is no limit.
    let number = |text: &str| {
        text.parse::<i64>()
            .ok()
            .map(|it| if it < 0 { i64::MAX } else { it })
    };
    match (number(present), number(wanted)) {
        (Some(present), Some(wanted)) => present < wanted,
        _ => false,
    }
}

/// Whether a topic's log loses its oldest records by itself, and how old they are then: `None` where they
/// stay, `Some(None)` where that depends on the log's size.
pub(super) fn forgets_after_ms(entries: &Entries) -> Option<Option<i64>> {
    let value = |key: &str| entries.get(key).and_then(|entry| entry.value.as_deref());
    let number = |key: &str| value(key).and_then(|text| text.parse::<i64>().ok());
    if !value("cleanup.policy")?.contains("delete") {
        return None;
    }
    if number("retention.bytes").is_some_and(|bytes| bytes >= 0) {
        return Some(None);
    }
    number("retention.ms").filter(|ms| *ms >= 0).map(Some)
}

/// Whether a copy's size is larger than its source's.
fn is_wider(target: Option<&ConfigEntry>, source: &ConfigEntry) -> bool {
    let bytes = |entry: &ConfigEntry| entry.value.as_deref()?.parse::<u64>().ok();
    let (there, here) = (target.and_then(bytes), bytes(source));
    there.is_some_and(|there| here.is_some_and(|here| there > here))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Selector;

    fn entries(list: &[(&str, &str, bool)]) -> Entries {
        let entry = |(key, value, is_override): &(&str, &str, bool)| {
            let value = Some((*value).to_owned());
            let is_override = *is_override;
            ((*key).to_owned(), ConfigEntry { value, is_override })
        };
        list.iter().map(entry).collect()
    }

    fn rules(ignore: &[&str], fixed: &[(&str, &str)]) -> ConfigRules {
        let fixed = fixed
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        ConfigRules {
            of_what_was_there: None,
            enabled: true,
            follow: Selector::new::<&str>(&[], &[]).unwrap(),
            ignore: Selector::new::<&str>(ignore, &[]).unwrap(),
            fixed: fixed.collect(),
        }
    }

    fn details(rules: &ConfigRules, source: &Entries, target: &Entries) -> Vec<String> {
        let found = differences(rules, "t", source, target);
        found
            .into_iter()
            .map(|difference| difference.detail)
            .collect()
    }

    #[test]
    fn what_the_source_sets_must_be_in_force() {
        let source = entries(&[
            ("retention.ms", "5", true),
            ("segment.ms", "7", false),
            ("message.timestamp.type", "LogAppendTime", true),
        ]);
        let target = entries(&[
            ("retention.ms", "6", false),
            ("segment.ms", "8", false),
            ("message.timestamp.type", "CreateTime", true),
        ]);
        let wanted = ["retention.ms is 6, it should be 5"];
        assert_eq!(details(&rules(&[], &[]), &source, &target), wanted);
        assert!(details(&rules(&["retention.*"], &[]), &source, &target).is_empty());
        assert!(details(&rules(&[], &[("retention.ms", "6")]), &source, &target).is_empty());
        let fixed = rules(&["retention.ms"], &[("segment.ms", "9")]);
        assert_eq!(
            details(&fixed, &source, &target),
            ["segment.ms is 8, it should be 9"]
        );
    }

    #[test]
    fn what_keeps_less_than_a_default_of_the_source_differs() {
        let source = entries(&[
            ("retention.ms", "604800000", false),
            ("retention.bytes", "-1", false),
            ("cleanup.policy", "delete", false),
            ("segment.ms", "7", false),
        ]);
        let target = entries(&[
            ("retention.ms", "1000", true),
            ("retention.bytes", "100", true),
            ("cleanup.policy", "compact", true),
            ("segment.ms", "1", true),
        ]);
        let expected = [
            "cleanup.policy is compact, the source uses delete",
            "retention.bytes is 100, the source uses -1",
            "retention.ms is 1000, the source uses 604800000",
        ];
        assert_eq!(details(&rules(&[], &[]), &source, &target), expected);
        assert!(
            details(&rules(&[], &[]), &target, &source)
                .iter()
                .all(|it| it.contains("should be"))
        );
        let ignored = rules(&["retention.*", "cleanup.policy"], &[]);
        assert!(details(&ignored, &source, &target).is_empty());
        let longer = entries(&[("retention.ms", "-1", true)]);
        assert!(details(&rules(&[], &[]), &source, &longer).is_empty());
    }

    #[test]
    fn what_a_log_may_forget() {
        let of = |policy, ms, bytes| {
            forgets_after_ms(&entries(&[
                ("cleanup.policy", policy, false),
                ("retention.ms", ms, false),
                ("retention.bytes", bytes, false),
            ]))
        };
        assert_eq!(of("delete", "1000", "-1"), Some(Some(1_000)));
        assert_eq!(of("delete", "-1", "100"), Some(None));
        assert_eq!(of("delete", "-1", "-1"), None);
        assert_eq!(of("compact", "1000", "100"), None);
        assert_eq!(of("compact,delete", "1000", "-1"), Some(Some(1_000)));
    }

    #[test]
    fn a_copy_may_take_larger_batches_and_no_smaller_ones() {
        let source = entries(&[("max.message.bytes", "1000", true)]);
        let of = |bytes| entries(&[("max.message.bytes", bytes, true)]);
        assert!(details(&rules(&[], &[]), &source, &of("2000")).is_empty());
        assert_eq!(
            details(&rules(&[], &[]), &source, &of("500")),
            ["max.message.bytes is 500, it should be 1000"]
        );
    }

    #[test]
    fn compaction_is_one_of_several_policies() {
        let of = |policy| is_compacted(&entries(&[("cleanup.policy", policy, true)]));
        assert!(of("compact") && of("compact,delete") && of("delete, compact"));
        assert!(!of("delete") && !is_compacted(&Entries::new()));
    }
}
