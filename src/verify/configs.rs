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
use crate::metadata::{Expected, expected_config};

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
    found
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
