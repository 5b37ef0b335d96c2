//! DescribeConfigs of topics and brokers (`ConfigHelper`).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{Asked, Reply, Served, Subject, text};
use crate::acls::Operation;
use crate::configs::{BROKER, Definition, Given, Kind, Source, TOPIC};
use crate::state::State;

/// `ConfigResource.Type`.
pub(crate) const TOPIC_RESOURCE: i8 = 2;
/// `ConfigResource.Type`.
pub(crate) const BROKER_RESOURCE: i8 = 4;

impl Served for DescribeConfigsRequest {
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
    request: DescribeConfigsRequest,
) -> Reply {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_message(None);
        match describe(state, asked, resource) {
            Ok(configs) => result.with_configs(
                configs
                    .into_iter()
                    .map(|config| config.told(request.include_synonyms))
                    .collect(),
            ),
            Err((error, why)) => result
                .with_error_code(error.code())
                .with_error_message(Some(text(why))),
        }
    });
    let results = results.collect();
    asked.send(&DescribeConfigsResponse::default().with_results(results))
}

/// A config and everything that gives it a value.
struct Described {
    name: &'static str,
    kind: Kind,
    read_only: bool,
    /// Told without its value.
    sensitive: bool,
    given: Vec<Given>,
}

impl Described {
    fn told(self, with_synonyms: bool) -> DescribeConfigsResourceResult {
        let first = &self.given[0];
        let value = |given: &Given| (!self.sensitive).then(|| text(&given.value));
        let synonyms = self.given.iter().map(|given| {
            DescribeConfigsSynonym::default()
                .with_name(text(&given.name))
                .with_value(value(given))
                .with_source(given.source as i8)
        });
        DescribeConfigsResourceResult::default()
            .with_name(text(self.name))
            .with_value(value(first))
            .with_is_sensitive(self.sensitive)
            .with_read_only(self.read_only)
            .with_config_source(first.source as i8)
            .with_config_type(self.kind as i8)
            .with_documentation(None)
            .with_synonyms(if with_synonyms {
                synonyms.collect()
            } else {
                Vec::new()
            })
    }
}

fn describe(
    state: &State,
    asked: &Asked<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Described>, (ResponseError, String)> {
    let name = resource.resource_name.as_str();
    let mut all = match resource.resource_type {
        TOPIC_RESOURCE => of_topic(state, asked, name)?,
        BROKER_RESOURCE => of_broker(state, asked, name)?,
        other => {
            return Err((
                ResponseError::InvalidRequest,
                format!("Unsupported resource type: {other}"),
            ));
        }
    };
    if let Some(keys) = &resource.configuration_keys {
        all.retain(|config| keys.iter().any(|key| key.as_str() == config.name));
    }
    Ok(all)
}

fn of_topic(
    state: &State,
    asked: &Asked<'_>,
    name: &str,
) -> Result<Vec<Described>, (ResponseError, String)> {
    if let Some(error) = asked.refused_topic(name) {
        return Err((error, "refused by a fault".to_owned()));
    }
    state
        .check_topic(asked, Operation::DescribeConfigs, name)
        .map_err(|error| (error, "Topic authorization failed.".to_owned()))?;
    crate::topics::check_name(name)?;
    let topic = state.topics.get(name).ok_or((
        ResponseError::UnknownTopicOrPartition,
        "This server does not host this topic-partition.".to_owned(),
    ))?;
    Ok(TOPIC
        .iter()
        .map(|definition| Described {
            name: definition.name,
            kind: definition.kind,
            read_only: false,
            sensitive: false,
            given: state.topic_config(&topic.configs, asked.broker, definition),
        })
        .collect())
}

/// A broker tells of itself only; the empty name stands for what is set on all while they run.
fn of_broker(
    state: &State,
    asked: &Asked<'_>,
    name: &str,
) -> Result<Vec<Described>, (ResponseError, String)> {
    state
        .check_cluster(asked, Operation::DescribeConfigs)
        .map_err(|error| (error, "Cluster authorization failed.".to_owned()))?;
    if name.is_empty() {
        let mut all = broker_configs(state, asked.broker);
        for config in &mut all {
            config
                .given
                .retain(|given| given.source == Source::AllBrokers);
        }
        all.retain(|config| !config.given.is_empty());
        return Ok(all);
    }
    if name != asked.broker.to_string() {
        return Err((
            ResponseError::InvalidRequest,
            format!(
                "Unexpected broker id, expected {} or empty string, but received {name}",
                asked.broker
            ),
        ));
    }
    Ok(broker_configs(state, asked.broker))
}

fn broker_configs(state: &State, broker: i32) -> Vec<Described> {
    let synonyms = TOPIC
        .iter()
        .filter_map(|definition| Some((definition.synonym?, definition, false)));
    let own = BROKER
        .iter()
        .map(|definition: &Definition| (definition.name, definition, true));
    let mut all: Vec<Described> = synonyms
        .chain(own)
        .map(|(name, definition, read_only)| Described {
            name,
            kind: definition.kind,
            read_only,
            sensitive: false,
            given: state.broker_config(broker, name, definition.default),
        })
        .collect();
    if state.acls.allow_if_no_acl_found {
        all.push(open_by_default());
    }
    all
}

/// A property of the authorizer's (`StandardAuthorizer.ALLOW_EVERYONE_IF_NO_ACL_IS_FOUND_CONFIG`). A broker
/// doesn't know its type, so it might be a secret (`ConfigHelper.toLoggableString`).
fn open_by_default() -> Described {
    let name = "allow.everyone.if.no.acl.found";
    Described {
        name,
        kind: Kind::String,
        read_only: true,
        sensitive: true,
        given: vec![Given {
            name: name.to_owned(),
            value: "true".to_owned(),
            source: Source::File,
        }],
    }
}
