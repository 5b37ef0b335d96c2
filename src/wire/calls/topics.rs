//! Creating, growing and deleting topics.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::partition::{text, topic_name};
use super::retry::change_at_controller;
use crate::wire::{Cluster, Connection, ErrorContext, WireError};

/// Who says that there is no quota and not for how long isn't asked again before.
const THROTTLE_MIN: Duration = Duration::from_secs(1);
/// However long a broker tells us to wait: quotas are counted over seconds
/// (`controller.quota.window.num` times `controller.quota.window.size.seconds`, 11 by default).
const THROTTLE_MAX: Duration = Duration::from_secs(60);

/// Creates a topic and returns its id (nil on brokers before 2.8). A replication factor of -1 takes
/// the broker's default.
///
/// # Errors
/// TOPIC_ALREADY_EXISTS, POLICY_VIOLATION and the like as [`WireError::Server`]. After a transport
/// error the topic may or may not exist.
pub async fn create_topic(
    cluster: &Cluster,
    name: &str,
    partitions: i32,
    replication_factor: i16,
    configs: &BTreeMap<String, String>,
) -> Result<Uuid, WireError> {
    let topic = creatable(name, partitions, replication_factor, configs);
    send_creation(cluster, topic, false).await
}

/// Asks whether a topic would be created, policies of the brokers' included; makes nothing.
///
/// # Errors
/// As of [`create_topic`].
pub async fn could_create_topic(
    cluster: &Cluster,
    name: &str,
    partitions: i32,
    replication_factor: i16,
    configs: &BTreeMap<String, String>,
) -> Result<(), WireError> {
    let topic = creatable(name, partitions, replication_factor, configs);
    send_creation(cluster, topic, true).await.map(|_| ())
}

fn creatable(
    name: &str,
    partitions: i32,
    replication_factor: i16,
    configs: &BTreeMap<String, String>,
) -> CreatableTopic {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
        .with_configs(configs.collect())
}

async fn send_creation(
    cluster: &Cluster,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<Uuid, WireError> {
    change_at_controller(cluster, |connection| {
        let name = topic.name.clone();
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic.clone()])
            .with_validate_only(validate_only)
            .with_timeout_ms(timeout_ms(cluster));
        async move {
            let response = connection.call(request, 7).await?;
            let throttle_ms = response.throttle_time_ms;
            let result = response.topics.into_iter().find(|t| t.name == name);
            let result = result.map(|t| (t.error_code, t.error_message, t.topic_id));
            let result = outcome(cluster, &connection, "CreateTopics", &name, result);
            heed(result, throttle_ms).await
        }
    })
    .await
}

/// A broker that has no quota left for changes of topics (KIP-599) tells how long to wait; asking
/// before that only takes from the next quota.
async fn heed<T>(result: Result<T, WireError>, throttle_ms: i32) -> Result<T, WireError> {
    if let Err(error) = &result
        && error.server_code() == Some(ResponseError::ThrottlingQuotaExceeded)
    {
        let told = Duration::from_millis(u64::try_from(throttle_ms).unwrap_or(0));
        tokio::time::sleep(told.clamp(THROTTLE_MIN, THROTTLE_MAX)).await;
    }
    result
}

/// Grows a topic to `total` partitions.
///
/// # Errors
/// INVALID_PARTITIONS when the topic has that many or more already.
pub async fn create_partitions(
    cluster: &Cluster,
    topic: &str,
    total: i32,
) -> Result<(), WireError> {
    change_at_controller(cluster, |connection| {
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![
                CreatePartitionsTopic::default()
                    .with_name(topic_name(topic))
                    .with_count(total)
                    .with_assignments(None),
            ])
            .with_timeout_ms(timeout_ms(cluster));
        async move {
            let response = connection.call(request, 3).await?;
            let throttle_ms = response.throttle_time_ms;
            let result = response
                .results
                .into_iter()
                .find(|t| t.name.as_str() == topic);
            let result = result.map(|t| (t.error_code, t.error_message, ()));
            let result = outcome(cluster, &connection, "CreatePartitions", topic, result);
            heed(result, throttle_ms).await
        }
    })
    .await
}

/// Deletes a topic.
///
/// # Errors
/// UNKNOWN_TOPIC_OR_PARTITION when there is no such topic.
pub async fn delete_topic(cluster: &Cluster, topic: &str) -> Result<(), WireError> {
    delete_topic_with_id(cluster, topic, Uuid::nil()).await
}

/// Deletes the topic with this id: one that has taken its name meanwhile stays. Where there are no ids (nil, or DeleteTopics
/// before version 6) its name has to do.
///
/// # Errors
/// UNKNOWN_TOPIC_ID when there is none, UNKNOWN_TOPIC_OR_PARTITION where its name is asked for.
pub async fn delete_topic_with_id(
    cluster: &Cluster,
    topic: &str,
    id: Uuid,
) -> Result<(), WireError> {
    change_at_controller(cluster, |connection| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms(cluster));
        async move {
            let version = connection.version_at_least::<DeleteTopicsRequest>(0, 6)?;
            let by_id = version >= 6 && !id.is_nil();
            let (request, version) = match by_id {
                true => {
                    let asked = vec![DeleteTopicState::default().with_topic_id(id)];
                    (request.with_topics(asked), version)
                }
                false => (
                    request.with_topic_names(vec![topic_name(topic)]),
                    version.min(5),
                ),
            };
            let response = connection.call(request, version).await?;
            let throttle_ms = response.throttle_time_ms;
            let is_it = |name: Option<&str>, its: Uuid| match by_id {
                true => its == id,
                false => name == Some(topic),
            };
            let mut responses = response.responses.into_iter();
            let result =
                responses.find(|t| is_it(t.name.as_ref().map(|it| it.as_str()), t.topic_id));
            let result = result.map(|t| (t.error_code, t.error_message, ()));
            let result = outcome(cluster, &connection, "DeleteTopics", topic, result);
            heed(result, throttle_ms).await
        }
    })
    .await
}

/// How long the broker may work on it, in ms.
fn timeout_ms(cluster: &Cluster) -> i32 {
    i32::try_from(cluster.config().request_timeout.as_millis()).unwrap_or(i32::MAX)
}

/// What an answer says about the one topic or resource that was asked about.
pub(super) fn outcome<T>(
    cluster: &Cluster,
    connection: &Connection,
    api: &'static str,
    subject: &str,
    result: Option<(i16, Option<StrBytes>, T)>,
) -> Result<T, WireError> {
    let (code, message, value) = match result {
        Some((code, message, value)) => (
            ResponseError::try_from_code(code),
            message.filter(|m| !m.is_empty()).map(|m| m.to_string()),
            Some(value),
        ),
        None => (None, Some("the answer doesn't mention it".to_owned()), None),
    };
    match (code, value) {
        (None, Some(value)) => Ok(value),
        (code, _) => {
            let context = ErrorContext {
                broker: Some(connection.broker()),
                address: Some(connection.address().to_owned()),
                api: Some(api),
                subject: Some(subject.to_owned()),
                ..ErrorContext::cluster(cluster.name())
            };
            let code = code.unwrap_or(ResponseError::UnknownServerError);
            Err(WireError::server(context, code, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_broker_that_asks_for_patience_gets_it() {
        let refused = |code| {
            Err::<(), _>(WireError::server(
                ErrorContext::cluster("standby"),
                code,
                None,
            ))
        };
        for (told_ms, least) in [(1_050, Duration::from_millis(1_050)), (0, THROTTLE_MIN)] {
            let began = Instant::now();
            let throttled = heed(refused(ResponseError::ThrottlingQuotaExceeded), told_ms).await;
            assert!(throttled.is_err() && began.elapsed() >= least);
        }
        // What isn't about the quota needs no patience, whatever else the answer says.
        let began = Instant::now();
        assert!(
            heed(refused(ResponseError::PolicyViolation), 60_000)
                .await
                .is_err()
        );
        assert!(heed(Ok(()), 60_000).await.is_ok());
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
