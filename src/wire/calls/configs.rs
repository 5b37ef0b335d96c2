//! Reading and changing the configs of topics and brokers.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use super::partition::text;
use super::retry::{BUDGET, ask_anyone, change_at_controller, retry, worth_asking_again};
use super::topics::outcome;
use crate::wire::{Cluster, Connection, Role, WireError};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// `DYNAMIC_TOPIC_CONFIG`: set on the topic itself (`DescribeConfigsResponse.ConfigSource`).
const SET_ON_TOPIC: i8 = 1;
/// `DEFAULT_CONFIG`: nobody set it.
const BUILT_IN: i8 = 5;

const SET: i8 = 0;
const DELETE: i8 = 1;

const DESCRIBE_VERSION_MAX: i16 = 4;

/// The value of one config.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigValue {
    /// The value; `None` for a sensitive one, which brokers never tell.
    pub value: Option<String>,
    /// For a topic: not set on the topic itself. For a broker: set nowhere.
    pub is_default_source: bool,
    /// A secret.
    pub sensitive: bool,
}

impl fmt::Debug for ConfigValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.sensitive {
            Some("[redacted]")
        } else {
            self.value.as_deref()
        };
        f.debug_struct("ConfigValue")
            .field("value", &value)
            .field("is_default_source", &self.is_default_source)
            .field("sensitive", &self.sensitive)
            .finish()
    }
}

/// All configs of each topic.
pub async fn describe_topic_configs(
    cluster: &Cluster,
    topics: &[String],
) -> HashMap<String, Result<BTreeMap<String, ConfigValue>, WireError>> {
    let answer = ask_anyone(cluster, BUDGET, |connection| async move {
        let resources = topics.iter().map(|topic| resource(TOPIC, topic)).collect();
        let request = DescribeConfigsRequest::default().with_resources(resources);
        let response = connection.call(request, DESCRIBE_VERSION_MAX).await?;
        Ok((connection, response.results))
    })
    .await;
    let (connection, results) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return topics
                .iter()
                .map(|t| (t.clone(), Err(error.clone())))
                .collect();
        }
    };
    let mut by_name: HashMap<String, DescribeConfigsResult> = results
        .into_iter()
        .map(|r| (r.resource_name.to_string(), r))
        .collect();
    topics
        .iter()
        .map(|topic| {
            let result = by_name.remove(topic);
            (topic.clone(), values(cluster, &connection, topic, result))
        })
        .collect()
}

/// All configs of a broker, asked of the broker itself: the others don't know its static ones.
pub async fn describe_broker_config(
    cluster: &Cluster,
    broker: i32,
) -> Result<BTreeMap<String, ConfigValue>, WireError> {
    let name = broker.to_string();
    let mut retry = retry(BUDGET);
    loop {
        let outcome = match cluster.connection(broker, Role::Admin).await {
            Ok(connection) => {
                let request =
                    DescribeConfigsRequest::default().with_resources(vec![resource(BROKER, &name)]);
                match connection.call(request, DESCRIBE_VERSION_MAX).await {
                    Ok(response) => {
                        let result = response.results.into_iter().next();
                        values(cluster, &connection, &name, result)
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(values) => return Ok(values),
            Err(error) => {
                if !worth_asking_again(&error, retry.elapsed()) || !retry.pause().await {
                    return Err(error);
                }
            }
        }
    }
}

/// Sets some configs of a topic and takes others back to their default; the rest stays.
pub async fn incremental_alter_topic_configs(
    cluster: &Cluster,
    topic: &str,
    set: &BTreeMap<String, String>,
    remove: &[String],
) -> Result<(), WireError> {
    let set = set
        .iter()
        .map(|(name, value)| (name, SET, Some(text(value))));
    let remove = remove.iter().map(|name| (name, DELETE, None));
    let configs: Vec<_> = set
        .chain(remove)
        .map(|(name, operation, value)| {
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(operation)
                .with_value(value)
        })
        .collect();
    change_at_controller(cluster, |connection| {
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text(topic))
                .with_configs(configs.clone()),
        ]);
        async move {
            let response = connection.call(request, 1).await?;
            let result = response.responses.into_iter().next();
            let result = result.map(|r| (r.error_code, r.error_message, ()));
            outcome(
                cluster,
                &connection,
                "IncrementalAlterConfigs",
                topic,
                result,
            )
        }
    })
    .await
}

fn resource(kind: i8, name: &str) -> DescribeConfigsResource {
    DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None)
}

fn values(
    cluster: &Cluster,
    connection: &Connection,
    name: &str,
    result: Option<DescribeConfigsResult>,
) -> Result<BTreeMap<String, ConfigValue>, WireError> {
    let kind = result.as_ref().map_or(TOPIC, |r| r.resource_type);
    let result = result.map(|r| (r.error_code, r.error_message, r.configs));
    let configs = outcome(cluster, connection, "DescribeConfigs", name, result)?;
    Ok(configs
        .into_iter()
        .map(|config| {
            let is_default_source = if kind == TOPIC {
                config.config_source != SET_ON_TOPIC
            } else {
                config.config_source == BUILT_IN
            };
            let value = ConfigValue {
                value: config.value.map(|v| v.to_string()),
                is_default_source,
                sensitive: config.is_sensitive,
            };
            (config.name.to_string(), value)
        })
        .collect())
}
