//! IncrementalAlterConfigs of topics and brokers (`ConfigurationControlManager.incrementalAlterConfigResource`).

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::describe_configs::{BROKER_RESOURCE, TOPIC_RESOURCE};
use super::{Asked, Reply, Served, Subject, text};
use crate::acls::Operation;
use crate::configs::{BROKER, Definition, Kind, TOPIC};
use crate::state::State;
use crate::topics::{Refusal, check_configs};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl Served for IncrementalAlterConfigsRequest {
    fn about(&self, _: &State) -> Vec<Subject> {
        let topics = self
            .resources
            .iter()
            .filter(|r| r.resource_type == TOPIC_RESOURCE);
        topics
            .map(|resource| Subject::Topic(resource.resource_name.to_string()))
            .collect()
    }
}

pub(crate) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: IncrementalAlterConfigsRequest,
) -> Reply {
    let mut responses = Vec::new();
    for resource in &request.resources {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match alter(state, asked, resource, request.validate_only) {
            Ok(()) => response.with_error_message(None),
            Err((error, why)) => response
                .with_error_code(error.code())
                .with_error_message(Some(text(why))),
        });
    }
    asked.send(&IncrementalAlterConfigsResponse::default().with_responses(responses))
}

fn alter(
    state: &mut State,
    asked: &Asked<'_>,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let name = resource.resource_name.to_string();
    match resource.resource_type {
        TOPIC_RESOURCE => {
            if let Some(error) = asked.refused_topic(&name) {
                return Err((error, "refused by a fault".to_owned()));
            }
            state
                .check_topic(asked, Operation::AlterConfigs, &name)
                .map_err(|error| (error, "Topic authorization failed.".to_owned()))?;
            let topic = state.topics.get(&name).ok_or((
                ResponseError::UnknownTopicOrPartition,
                format!("The topic '{name}' does not exist."),
            ))?;
            let old = topic.configs.clone();
            let configs = apply(old, &resource.configs, |definition| {
                state.topic_config(&BTreeMap::new(), asked.broker, definition)[0]
                    .value
                    .clone()
            })?;
            check_configs(&configs)?;
            // Only what is changed is shown to it (`ConfigurationControlManager.validateAlterConfig`).
            let is_changed =
                |key: &String| resource.configs.iter().any(|it| it.name.as_str() == key);
            let mut changed = configs.clone();
            changed.retain(|key, _| is_changed(key));
            let policy = state.options.alter_policy;
            if let Some(words) = policy.and_then(|policy| policy(&name, &changed)) {
                return Err((ResponseError::PolicyViolation, words));
            }
            if !validate_only && let Some(topic) = state.topics.get_mut(&name) {
                topic.configs = configs;
            }
        }
        BROKER_RESOURCE => {
            state
                .check_cluster(asked, Operation::AlterConfigs)
                .map_err(|error| (error, "Cluster authorization failed.".to_owned()))?;
            let known = name.is_empty()
                || name
                    .parse()
                    .is_ok_and(|id: i32| state.brokers.contains_key(&id));
            if !known {
                return Err((
                    ResponseError::BrokerIdNotRegistered,
                    format!("No broker with id {name} found."),
                ));
            }
            let old = state.broker_configs.get(&name).cloned().unwrap_or_default();
            let configs = apply(old, &resource.configs, |definition| {
                definition.default.to_owned()
            })?;
            if !validate_only {
                state.broker_configs.insert(name, configs);
            }
        }
        other => {
            return Err((
                ResponseError::InvalidRequest,
                format!("Unknown resource type {other}"),
            ));
        }
    }
    Ok(())
}

/// The configs after the changes; `inherited` is what a list is appended to if nothing was set.
fn apply(
    mut configs: BTreeMap<String, String>,
    changes: &[AlterableConfig],
    inherited: impl Fn(&Definition) -> String,
) -> Result<BTreeMap<String, String>, Refusal> {
    for change in changes {
        let name = change.name.to_string();
        let value = change.value.as_ref().map(ToString::to_string);
        match (change.config_operation, value) {
            (DELETE, _) => {
                configs.remove(&name);
            }
            (SET, Some(value)) => {
                configs.insert(name, value);
            }
            (APPEND | SUBTRACT, Some(value)) => {
                let definition = list(&name)?;
                let old = configs
                    .get(&name)
                    .cloned()
                    .unwrap_or_else(|| inherited(definition));
                let appends = change.config_operation == APPEND;
                configs.insert(name, changed_list(&old, &value, appends));
            }
            (_, None) => {
                return Err((
                    ResponseError::InvalidRequest,
                    format!("Null value not supported for config: {name}"),
                ));
            }
            (other, _) => {
                return Err((
                    ResponseError::InvalidRequest,
                    format!("Unknown operation type {other}"),
                ));
            }
        }
    }
    Ok(configs)
}

fn list(name: &str) -> Result<&'static Definition, Refusal> {
    TOPIC
        .iter()
        .chain(BROKER)
        .find(|d| d.name == name || d.synonym == Some(name))
        .filter(|definition| definition.kind == Kind::List)
        .ok_or_else(|| {
            (
                ResponseError::InvalidConfig,
                format!("Can't append or subtract from key {name} because it isn't a list"),
            )
        })
}

fn changed_list(old: &str, change: &str, appends: bool) -> String {
    let parts = |list: &str| -> Vec<String> {
        list.split(',')
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect()
    };
    let mut now = parts(old);
    for part in parts(change) {
        if appends && !now.contains(&part) {
            now.push(part);
        } else if !appends {
            now.retain(|kept| *kept != part);
        }
    }
    now.join(",")
}
