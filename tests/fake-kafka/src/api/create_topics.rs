//! CreateTopics (`ReplicationControlManager.createTopics`).

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use uuid::Uuid;

use super::{Asked, Reply, Served, Subject, text};
use crate::acls::Operation;
use crate::configs::TOPIC;
use crate::state::State;
use crate::topics::{NewTopic, Refusal};

impl Served for CreateTopicsRequest {
    fn about(&self, _: &State) -> Vec<Subject> {
        let topics = self.topics.iter();
        topics
            .map(|topic| Subject::Topic(topic.name.to_string()))
            .collect()
    }
}

pub(crate) fn handle(state: &mut State, asked: &Asked<'_>, request: CreateTopicsRequest) -> Reply {
    let mut results = Vec::new();
    for topic in &request.topics {
        let named_once = request
            .topics
            .iter()
            .filter(|t| t.name == topic.name)
            .count()
            == 1;
        let outcome = if named_once {
            create(state, asked, topic, request.validate_only)
        } else {
            Err((
                ResponseError::InvalidRequest,
                "Duplicate topic name.".to_owned(),
            ))
        };
        results.push(result(state, asked, topic, outcome));
    }
    asked.send(&CreateTopicsResponse::default().with_topics(results))
}

/// What was made, or would have been.
struct Created {
    id: Uuid,
    replicas: Vec<Vec<i32>>,
    configs: BTreeMap<String, String>,
}

fn create(
    state: &mut State,
    asked: &Asked<'_>,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<Created, Refusal> {
    if let Some(error) = asked.refused_topic(&topic.name) {
        return Err((error, "refused by a fault".to_owned()));
    }
    if !state.allows_on_cluster(asked, Operation::Create) {
        state
            .check_topic(asked, Operation::Create, &topic.name)
            .map_err(|error| (error, "Authorization failed.".to_owned()))?;
    }
    let new = wanted(topic)?;
    let replicas = state.plan_topic(&topic.name, &new)?;
    let policy = state.options.creation_policy;
    if let Some(words) = policy.and_then(|policy| policy(&topic.name, &new)) {
        return Err((ResponseError::PolicyViolation, words));
    }
    let id = if validate_only {
        Uuid::nil()
    } else {
        state.create_topic(&topic.name, &new)?
    };
    Ok(Created {
        id,
        replicas,
        configs: new.configs,
    })
}

fn wanted(topic: &CreatableTopic) -> Result<NewTopic, Refusal> {
    let invalid = |why: &str| Err((ResponseError::InvalidRequest, why.to_owned()));
    if !topic.assignments.is_empty()
        && (topic.num_partitions != -1 || topic.replication_factor != -1)
    {
        return invalid(
            "A manual partition assignment was specified, but numPartitions or replicationFactor were also set.",
        );
    }
    let assignments = topic.assignments.iter().map(|assignment| {
        let brokers = assignment.broker_ids.iter().map(|id| id.0).collect();
        (assignment.partition_index, brokers)
    });
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        match &config.value {
            Some(value) => configs.insert(config.name.to_string(), value.to_string()),
            None => {
                return Err((
                    ResponseError::InvalidConfig,
                    format!(
                        "Null value not supported for topic configs: {}",
                        config.name.as_str()
                    ),
                ));
            }
        };
    }
    Ok(NewTopic {
        partitions: topic.num_partitions,
        replication: topic.replication_factor,
        assignments: assignments.collect(),
        configs,
    })
}

fn result(
    state: &State,
    asked: &Asked<'_>,
    topic: &CreatableTopic,
    outcome: Result<Created, Refusal>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(topic.name.clone());
    let created = match outcome {
        Ok(created) => created,
        Err((error, why)) => {
            return result
                .with_error_code(error.code())
                .with_error_message(Some(text(why)))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_configs(Some(Vec::new()));
        }
    };
    let id = match state.options.without_topic_ids {
        true => uuid::Uuid::nil(),
        false => created.id,
    };
    let result = result.with_topic_id(id);
    // What it is like is told to those who may ask for its configs.
    if let Err(error) = state.check_topic(asked, Operation::DescribeConfigs, &topic.name) {
        return result
            .with_topic_config_error_code(error.code())
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_configs(Some(Vec::new()));
    }
    let configs = TOPIC.iter().map(|definition| {
        let given = state
            .topic_config(&created.configs, asked.broker, definition)
            .swap_remove(0);
        CreatableTopicConfigs::default()
            .with_name(text(definition.name))
            .with_value(Some(text(given.value)))
            .with_config_source(given.source as i8)
    });
    result
        .with_num_partitions(i32::try_from(created.replicas.len()).expect("fits"))
        .with_replication_factor(i16::try_from(created.replicas[0].len()).expect("fits"))
        .with_configs(Some(configs.collect()))
}
