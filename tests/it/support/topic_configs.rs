//! Topic configs: changed one by one, and listed with where each value comes from.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use super::operator::{call, text};

/// Kafka's number for a topic as a resource of configs.
const TOPIC: i8 = 2;

/// What to do to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Gives the topic a value of its own.
    Set(&'a str),
    /// Takes the topic's own value away, so that the broker's default counts.
    Unset,
    /// Adds to a list.
    Append(&'a str),
    /// Takes from a list.
    Subtract(&'a str),
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The topic's own.
    Topic,
    /// Set on one broker while it runs.
    DynamicBroker,
    /// Set on all brokers while they run.
    DynamicDefaultBroker,
    /// In the broker's properties file.
    StaticBroker,
    /// Kafka's own default.
    Default,
    /// Another.
    Other(i8),
}

/// One config of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// The value that counts; `None` for secrets and nulls.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
}

/// Changes configs of a topic.
///
/// # Panics
/// When a change is refused.
pub fn alter(bootstrap: &str, topic: &str, changes: &[(&str, Change<'_>)]) {
    let config = |(key, change): &(&str, Change<'_>)| {
        let (operation, value) = match *change {
            Change::Set(value) => (0, Some(value)),
            Change::Unset => (1, None),
            Change::Append(value) => (2, Some(value)),
            Change::Subtract(value) => (3, Some(value)),
        };
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(operation)
            .with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configs(changes.iter().map(config).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let responses = call(bootstrap, request, 1).responses;
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].error_code, 0, "{responses:?}");
}

/// Gives a topic a value of its own.
pub fn set(bootstrap: &str, topic: &str, key: &str, value: &str) {
    alter(bootstrap, topic, &[(key, Change::Set(value))]);
}

/// Takes a topic's own value away.
pub fn unset(bootstrap: &str, topic: &str, key: &str) {
    alter(bootstrap, topic, &[(key, Change::Unset)]);
}

/// All configs of a topic, as a broker knows them: a change arrives a moment after it was taken.
///
/// # Panics
/// When they can't be listed.
pub fn list(bootstrap: &str, topic: &str) -> BTreeMap<String, TopicConfig> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let mut results = call(bootstrap, request, 4).results;
    let result = results.pop().expect("one was asked for");
    assert_eq!(result.error_code, 0, "{topic}: {:?}", result.error_message);
    let configs = result.configs.into_iter();
    configs
        .map(|config| {
            let source = match config.config_source {
                1 => Source::Topic,
                2 => Source::DynamicBroker,
                3 => Source::DynamicDefaultBroker,
                4 => Source::StaticBroker,
                5 => Source::Default,
                other => Source::Other(other),
            };
            let value = config.value.map(|value| value.to_string());
            (config.name.to_string(), TopicConfig { value, source })
        })
        .collect()
}

/// The topic's own values.
pub fn own(bootstrap: &str, topic: &str) -> BTreeMap<String, String> {
    let all = list(bootstrap, topic).into_iter();
    all.filter(|(_, config)| config.source == Source::Topic)
        .map(|(key, config)| (key, config.value.unwrap_or_default()))
        .collect()
}
