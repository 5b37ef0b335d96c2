//! Topic configs: what the source sets must be in force on the target.

use std::collections::{BTreeMap, HashMap};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResourceResult, ConfigSource, ResourceSpecifier,
};
use rdkafka::config::FromClientConfigAndContext as _;

use super::VerifyError;
use super::client::{failed, settings};
use super::report::{Difference, DifferenceKind};
use crate::config::{ClusterSection, ConfigRules};
use crate::connect::{self, Context};
use crate::metadata::{Expected, expected_config, is_resolved_config};

/// Topics asked about at once.
const AT_ONCE: usize = 200;
const TIMESTAMP_TYPE: &str = "message.timestamp.type";

/// How long each broker that is asked in turn has, in thirds of what any answer may take: the first one may hang, and the
/// last one have much to do.
const BROKERS_THIRDS: [u32; 3] = [1, 1, 3];

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
    let mut asking = Asking::new(section)?;
    let mut configs = Configs::new();
    for some in topics.chunks(AT_ONCE) {
        asking.ask(some, &mut configs).await?;
    }
    Ok(configs)
}

/// One broker after the other is asked, until one answers; that one is asked all that follows.
struct Asking<'a> {
    section: &'a ClusterSection,
    admin: AdminClient<Context>,
    /// `None` where librdkafka chooses.
    broker: Option<i32>,
    /// Brokers that were asked in vain.
    in_vain: usize,
    /// Those that are left, once they have been asked for.
    others: Option<std::vec::IntoIter<i32>>,
    /// Why the last one didn't tell.
    reason: String,
}

impl<'a> Asking<'a> {
    fn new(section: &'a ClusterSection) -> Result<Self, VerifyError> {
        Ok(Self {
            section,
            admin: admin(section)?,
            broker: None,
            in_vain: 0,
            others: None,
            reason: "no broker answered".to_owned(),
        })
    }

    async fn ask(&mut self, topics: &[String], configs: &mut Configs) -> Result<(), VerifyError> {
        while let Some(thirds) = BROKERS_THIRDS.get(self.in_vain) {
            let options = AdminOptions::new()
                .request_timeout(Some(self.section.request_timeout * *thirds / 3))
                .broker_id(self.broker);
            let asked: Vec<_> = topics
                .iter()
                .map(|topic| ResourceSpecifier::Topic(topic))
                .collect();
            match self.admin.describe_configs(&asked, &options).await {
                Ok(answers) => {
                    let answers = topics.iter().cloned().zip(answers.into_iter().map(entries));
                    configs.extend(answers);
                    return Ok(());
                }
                Err(error) => self.reason = error.to_string(),
            }
            self.go_on().await?;
        }
        let unanswered = topics.iter().cloned();
        configs.extend(unanswered.map(|topic| (topic, Err(self.reason.clone()))));
        Ok(())
    }

    /// Another broker, on a new connection: the old one may be the reason.
    async fn go_on(&mut self) -> Result<(), VerifyError> {
        self.in_vain += 1;
        if self.in_vain >= BROKERS_THIRDS.len() {
            return Ok(());
        }
        let mut others = match self.others.take() {
            Some(others) => others,
            None => brokers(self.section).await.into_iter(),
        };
        self.admin = admin(self.section)?;
        self.broker = others.next();
        self.others = Some(others);
        Ok(())
    }
}

fn admin(section: &ClusterSection) -> Result<AdminClient<Context>, VerifyError> {
    let (config, context) = settings(section);
    AdminClient::from_config_and_context(&config, context)
        .map_err(|error| failed(section, "asking for topic configs", &error))
}

/// The brokers that there are, the controller last: librdkafka asks that one where nobody else is named. None where
/// nobody tells.
async fn brokers(section: &ClusterSection) -> Vec<i32> {
    let cluster = connect::cluster(section);
    let asking = cluster.metadata(Some(&[]));
    let Ok(Ok(metadata)) = tokio::time::timeout(section.request_timeout / 3, asking).await else {
        return Vec::new();
    };
    let mut ids: Vec<i32> = metadata.brokers.keys().copied().collect();
    ids.sort_unstable_by_key(|id| (*id == metadata.controller_id, *id));
    ids
}

/// One topic's answer.
fn entries(answer: ConfigResourceResult) -> Result<Entries, String> {
    let resource = answer.map_err(|error| error.to_string())?;
    let entries = resource.entries.into_iter();
    let entries = entries.filter(|entry| !entry.is_sensitive).map(|entry| {
        let is_override = matches!(entry.source, ConfigSource::DynamicTopic);
        let value = entry.value;
        (entry.name, ConfigEntry { value, is_override })
    });
    Ok(entries.collect())
}

/// Whether a cleaner may take records from a topic's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Compaction {
    Compacted,
    NotCompacted,
    /// Why that isn't known.
    Unknown(String),
}

impl Compaction {
    /// What a topic's configs say.
    pub(super) fn of(configs: Option<&Result<Entries, String>>) -> Self {
        let entries = match configs {
            Some(Ok(entries)) => entries,
            Some(Err(reason)) => return Self::Unknown(reason.clone()),
            None => return Self::Unknown("its configs were not answered".to_owned()),
        };
        let policy = entries.get("cleanup.policy");
        match policy.and_then(|entry| entry.value.as_deref()) {
            None => Self::Unknown("its cleanup.policy was not told".to_owned()),
            Some(policy) if policy.split(',').any(|part| part.trim() == "compact") => {
                Self::Compacted
            }
            Some(_) => Self::NotCompacted,
        }
    }
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
        Expected::AsSource | Expected::AtLeast => Some((key.as_str(), entry.value.as_deref()?)),
        Expected::Value(value) => Some((key.as_str(), value)),
        Expected::Anything => None,
    });
    let fixed = rules.fixed.iter();
    let wanted = wanted.chain(fixed.map(|(key, value)| (key.as_str(), value.as_str())));
    // A copy that notes its own times changes what comes from now on, whatever the source has.
    let is_named = |key: &str| {
        let is_set = source.get(key).is_some_and(|entry| entry.is_override);
        is_set || rules.fixed.contains_key(key)
    };
    let by_default = match expected_config(rules, TIMESTAMP_TYPE) {
        Expected::Value(value) if !is_named(TIMESTAMP_TYPE) => Some((TIMESTAMP_TYPE, value)),
        _ => None,
    };
    let wanted = wanted.chain(by_default);
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
        // Since Kafka 4 it may be empty: nothing is deleted and nothing compacted.
        let parts = |text: &str| -> Vec<String> {
            let parts = text.split(',').map(str::trim);
            let named = parts.filter(|part| !part.is_empty());
            named.map(str::to_owned).collect()
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

/// How a topic's log loses its oldest records by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forgets {
    /// How old they are then, milliseconds.
    pub after_ms: Option<i64>,
    /// How large the log is then.
    pub above_bytes: Option<u64>,
}

impl Forgets {
    /// Of a topic with these configs; `None` where its records stay.
    pub(super) fn of(entries: &Entries) -> Option<Self> {
        let value = |key: &str| entries.get(key).and_then(|entry| entry.value.as_deref());
        // -1 is no limit.
        let limit = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok());
        if !value("cleanup.policy")?.contains("delete") {
            return None;
        }
        let after_ms = limit("retention.ms").and_then(|ms| i64::try_from(ms).ok());
        let above_bytes = limit("retention.bytes");
        (after_ms.is_some() || above_bytes.is_some()).then_some(Self {
            after_ms,
            above_bytes,
        })
    }

    /// What a copy may forget: what the source doesn't tell its own log to forget, it mustn't either.
    pub(super) fn at_most_as(self, source: Self) -> Self {
        Self {
            after_ms: match (self.after_ms, source.after_ms) {
                (Some(here), Some(there)) => Some(here.max(there)),
                (here, there) => here.or(there),
            },
            above_bytes: match (self.above_bytes, source.above_bytes) {
                (Some(here), Some(there)) => Some(here.max(there)),
                (None, _) | (_, None) => None,
            },
        }
    }
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
    fn a_copy_that_notes_its_own_times_differs() {
        let key = "message.timestamp.type";
        let source = entries(&[(key, "CreateTime", false)]);
        let target = entries(&[(key, "LogAppendTime", true)]);
        let expected = ["message.timestamp.type is LogAppendTime, it should be CreateTime"];
        assert_eq!(details(&rules(&[], &[]), &source, &target), expected);
        assert!(details(&rules(&[], &[]), &source, &source).is_empty());
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
    fn a_log_that_forgets_nothing_keeps_no_less() {
        assert!(!keeps_less("cleanup.policy", "", "delete"));
        assert!(!keeps_less("cleanup.policy", "", ""));
        assert!(!keeps_less("cleanup.policy", "compact", "compact, delete"));
        assert!(keeps_less("cleanup.policy", "delete", ""));
        assert!(keeps_less("cleanup.policy", "compact,delete", "delete"));
    }

    #[test]
    fn what_a_log_may_forget() {
        let of = |policy, ms, bytes| {
            Forgets::of(&entries(&[
                ("cleanup.policy", policy, false),
                ("retention.ms", ms, false),
                ("retention.bytes", bytes, false),
            ]))
        };
        let forgets = |after_ms, above_bytes| Forgets {
            after_ms,
            above_bytes,
        };
        let by_time = forgets(Some(1_000), None);
        assert_eq!(of("delete", "1000", "-1"), Some(by_time));
        assert_eq!(of("delete", "-1", "100"), Some(forgets(None, Some(100))));
        let by_both = forgets(Some(1_000), Some(100));
        assert_eq!(of("delete", "1000", "100"), Some(by_both));
        assert_eq!(of("delete", "-1", "-1"), None);
        assert_eq!(of("compact", "1000", "100"), None);
        assert_eq!(of("compact,delete", "1000", "-1"), Some(by_time));
        // A copy that forgets sooner than its source mustn't.
        let later = forgets(Some(2_000), Some(200));
        assert_eq!(by_both.at_most_as(later), later);
        assert_eq!(by_both.at_most_as(by_time), by_time);
        assert_eq!(by_time.at_most_as(by_both), by_time);
        let by_size = forgets(None, Some(100));
        assert_eq!(by_size.at_most_as(by_size), by_size);
        assert_eq!(by_size.at_most_as(by_time), by_time);
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
        let of = |policy| Compaction::of(Some(&Ok(entries(&[("cleanup.policy", policy, true)]))));
        for policy in ["compact", "compact,delete", "delete, compact"] {
            assert_eq!(of(policy), Compaction::Compacted, "{policy}");
        }
        for policy in ["delete", ""] {
            assert_eq!(of(policy), Compaction::NotCompacted, "{policy}");
        }
    }

    #[test]
    fn a_policy_that_nobody_tells_is_not_known() {
        let unknown = |configs: Option<&Result<Entries, String>>| {
            matches!(Compaction::of(configs), Compaction::Unknown(_))
        };
        assert!(unknown(None));
        assert!(unknown(Some(&Err("no answer".to_owned()))));
        assert!(unknown(Some(&Ok(Entries::new()))));
    }
}
