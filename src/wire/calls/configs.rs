//! Configs of topics and brokers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, FetchRequest, IncrementalAlterConfigsRequest,
};

use super::partition::text;
use super::pieces::in_pieces;
use super::retry::{BUDGET, ask_anyone, repeat_at_controller, retry, worth_asking_again};
use super::topics::outcome;
use crate::wire::by_most::told_by_each;
use crate::wire::{Cluster, Connection, RawAnswer, Role, WireError};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

const SET: i8 = 0;
const DELETE: i8 = 1;

const DESCRIBE_VERSION_MAX: i16 = 4;
const ALTER_VERSION_MAX: i16 = 1;

/// Topics in one request: an answer tells all of a topic's configs, about 2 KB.
const TOPICS_PER_REQUEST: usize = 250;

/// `throttle_time_ms`, which opens the answer and says nothing about configs.
const THROTTLE_BYTES: usize = 4;

/// Where a value comes from (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic itself.
    Topic,
    /// Set on one broker while it runs.
    DynamicBroker,
    /// Set on all brokers while they run.
    DynamicDefaultBroker,
    /// In the broker's properties.
    StaticBroker,
    /// Nobody set it.
    Default,
    /// Something that this version doesn't know.
    Other,
}

impl ConfigSource {
    fn of(code: i8) -> Self {
        match code {
            1 => Self::Topic,
            2 => Self::DynamicBroker,
            3 => Self::DynamicDefaultBroker,
            4 => Self::StaticBroker,
            5 => Self::Default,
            _ => Self::Other,
        }
    }
}

/// The value of one config.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigValue {
    /// The value; `None` for a sensitive one, which brokers never tell.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// A secret.
    pub sensitive: bool,
    /// For a topic's override: what holds without it, if that was asked for and the broker says.
    pub default: Option<String>,
}

impl ConfigValue {
    /// Whether it is set on the topic itself.
    pub fn is_override(&self) -> bool {
        self.source == ConfigSource::Topic
    }
}

impl fmt::Debug for ConfigValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| match self.sensitive {
            true => Some("[redacted]".to_owned()),
            false => value.clone(),
        };
        f.debug_struct("ConfigValue")
            .field("value", &shown(&self.value))
            .field("source", &self.source)
            .field("sensitive", &self.sensitive)
            .field("default", &shown(&self.default))
            .finish()
    }
}

/// All configs of a topic or broker, by key.
pub type ConfigValues = BTreeMap<String, ConfigValue>;

/// An answer about topics' configs that may not have to be decoded.
#[derive(Debug)]
pub struct Described {
    answer: RawAnswer,
    connection: Connection,
    cluster: Cluster,
}

impl Described {
    /// The broker that answered.
    pub fn broker(&self) -> i32 {
        self.connection.broker()
    }

    /// A checksum and the length of the answer: the same question answered the same by the same
    /// broker has the same. (Brokers differ in the order of keys.)
    pub fn fingerprint(&self) -> (u32, usize) {
        let body = self.answer.body.get(THROTTLE_BYTES..).unwrap_or_default();
        (crc32c::crc32c(body), body.len())
    }

    /// The configs of each of the topics that were asked about.
    ///
    /// # Errors
    /// When the answer can't be read; inside, what is wrong with one topic.
    pub fn decode(
        self,
        topics: &[String],
    ) -> Result<HashMap<String, Result<ConfigValues, WireError>>, WireError> {
        let Self {
            answer,
            connection,
            cluster,
        } = self;
        let response: DescribeConfigsResponse =
            connection.decode::<DescribeConfigsRequest>(answer)?;
        let mut by_name: HashMap<String, DescribeConfigsResult> = response
            .results
            .into_iter()
            .map(|result| (result.resource_name.to_string(), result))
            .collect();
        let values = topics.iter().map(|topic| {
            let result = by_name.remove(topic);
            (topic.clone(), values(&cluster, &connection, topic, result))
        });
        Ok(values.collect())
    }
}

/// Asks a broker, by preference `broker`, for all configs of some topics, a few hundred at most.
/// `with_defaults` asks for what holds without each override as well, which makes the answer
/// several times larger.
///
/// # Errors
/// When no broker answers within 5 s.
pub async fn describe_topic_configs_at(
    cluster: &Cluster,
    broker: Option<i32>,
    topics: &[String],
    with_defaults: bool,
) -> Result<Described, WireError> {
    let resources = topics.iter().map(|topic| resource(TOPIC, topic)).collect();
    let request = DescribeConfigsRequest::default()
        .with_resources(resources)
        .with_include_synonyms(with_defaults);
    let request = &request;
    let ask = |connection: Connection| async move {
        let answer = connection.start_undecoded(request, DESCRIBE_VERSION_MAX)?;
        let answer = answer.await?;
        Ok(Described {
            answer,
            connection,
            cluster: cluster.clone(),
        })
    };
    if let Some(broker) = broker.filter(|broker| cluster.cached().brokers.contains_key(broker))
        && let Ok(connection) = cluster.connection(broker, Role::Admin).await
        && let Ok(described) = ask(connection).await
    {
        return Ok(described);
    }
    ask_anyone(cluster, BUDGET, ask).await
}

/// All configs of each topic.
pub async fn describe_topic_configs(
    cluster: &Cluster,
    topics: &[String],
) -> HashMap<String, Result<ConfigValues, WireError>> {
    let mut all = HashMap::with_capacity(topics.len());
    for topics in topics.chunks(TOPICS_PER_REQUEST) {
        let answer = describe_topic_configs_at(cluster, None, topics, false).await;
        match answer.and_then(|answer| answer.decode(topics)) {
            Ok(answer) => all.extend(answer),
            Err(error) => all.extend(topics.iter().map(|t| (t.clone(), Err(error.clone())))),
        }
    }
    all
}

/// Which of these topics' configs have a value by the word of more than half of the brokers, each asked for itself: of
/// `(topic, key, value)` those. One that is cut off from its controllers tells what held before.
pub async fn configs_agreed_on(
    cluster: &Cluster,
    topics: &[String],
    wanted: Vec<(String, String, Option<String>)>,
) -> HashSet<(String, String, Option<String>)> {
    let (asked, topics) = (cluster.clone(), topics.to_vec());
    let told = told_by_each(cluster, move |connection| {
        let (cluster, topics) = (asked.clone(), topics.clone());
        async move {
            let resources = topics.iter().map(|topic| resource(TOPIC, topic)).collect();
            let request = DescribeConfigsRequest::default().with_resources(resources);
            let answer = connection
                .start_undecoded(&request, DESCRIBE_VERSION_MAX)?
                .await?;
            let described = Described {
                answer,
                connection,
                cluster,
            };
            described.decode(&topics)
        }
    });
    let told = told.await;
    let is_agreed = |(topic, key, value): &(String, String, Option<String>)| {
        told.agree(|answer| {
            let configs = answer.get(topic).and_then(|it| it.as_ref().ok());
            configs.is_some_and(|it| it.get(key).and_then(|it| it.value.as_ref()) == value.as_ref())
        })
    };
    wanted.into_iter().filter(|it| is_agreed(it)).collect()
}

/// All configs of a broker, asked of the broker itself: the others don't know its static ones.
pub async fn describe_broker_config(
    cluster: &Cluster,
    broker: i32,
) -> Result<ConfigValues, WireError> {
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

/// The broker property that gives everybody all rights to what has no ACL.
const OPEN_BY_DEFAULT: &str = "allow.everyone.if.no.acl.found";

/// Whether everybody may do everything with what has no ACL, as far as a broker tells. Brokers hide
/// the value of properties that aren't their own, as this one is, but show that it is set.
///
/// # Errors
/// When no broker tells: then it isn't known, and whoever takes it for closed may shut Twinlog out.
pub async fn is_open_by_default(cluster: &Cluster) -> Result<bool, WireError> {
    if cluster.cached().brokers.is_empty() {
        cluster.metadata(Some(&[])).await?;
    }
    // Each has the property; one that is away doesn't matter.
    let broker = cluster.any_connection().await?.broker();
    let value = describe_broker_config(cluster, broker)
        .await?
        .remove(OPEN_BY_DEFAULT);
    Ok(value.is_some_and(|value| value.value.as_deref() == Some("true") || value.sensitive))
}

/// What to change of one topic's configs; the rest stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicChanges {
    /// The topic.
    pub topic: String,
    /// By key: the value to set, or `None` to remove the override. All of them or none are done.
    pub changes: BTreeMap<String, Option<String>>,
}

/// Topics in one request.
const TOPICS_AT_ONCE: usize = 100;

/// Changes the configs of however many topics, in several requests of which some are on the way at once; a topic's outcome is
/// its own. The outcomes are in the topics' order.
///
/// # Errors
/// When one of the requests failed as a whole. The others may have been done.
pub async fn alter_many_topic_configs(
    cluster: &Cluster,
    topics: &[TopicChanges],
) -> Result<Vec<Result<(), WireError>>, WireError> {
    let pieces = topics.chunks(TOPICS_AT_ONCE).map(<[_]>::to_vec);
    let sent = in_pieces(pieces, |piece| {
        let cluster = cluster.clone();
        async move { alter_topic_configs(&cluster, &piece).await }
    });
    let mut outcomes = Vec::with_capacity(topics.len());
    for of_piece in sent.await {
        outcomes.extend(of_piece?);
    }
    Ok(outcomes)
}

/// Changes the configs of some topics, a hundred or so, in one request; a topic's outcome is its
/// own.
///
/// # Errors
/// When the request as a whole failed. After a transport error it may or may not have been done.
pub async fn alter_topic_configs(
    cluster: &Cluster,
    topics: &[TopicChanges],
) -> Result<Vec<Result<(), WireError>>, WireError> {
    let resources: Vec<_> = topics.iter().map(alteration).collect();
    repeat_at_controller(cluster, |connection| {
        let request = IncrementalAlterConfigsRequest::default().with_resources(resources.clone());
        async move {
            let response = connection.call(request, ALTER_VERSION_MAX).await?;
            let mut by_name: HashMap<String, _> = response
                .responses
                .into_iter()
                .map(|result| (result.resource_name.to_string(), result))
                .collect();
            let results = topics.iter().map(|changes| {
                let result = by_name.remove(&changes.topic);
                let result = result.map(|r| (r.error_code, r.error_message, ()));
                let api = "IncrementalAlterConfigs";
                outcome(cluster, &connection, api, &changes.topic, result)
            });
            let results: Vec<Result<(), WireError>> = results.collect();
            let elsewhere = results.iter().find_map(|result| match result {
                Err(error) if error.server_code() == Some(ResponseError::NotController) => {
                    Some(error.clone())
                }
                _ => None,
            });
            // The whole request came to a broker that can't do it.
            elsewhere.map_or(Ok(results), Err)
        }
    })
    .await
}

fn alteration(topic: &TopicChanges) -> AlterConfigsResource {
    let configs = topic.changes.iter().map(|(key, value)| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(if value.is_some() { SET } else { DELETE })
            .with_value(value.as_deref().map(text))
    });
    AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(&topic.topic))
        .with_configs(configs.collect())
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
) -> Result<ConfigValues, WireError> {
    let result = result.map(|r| (r.error_code, r.error_message, r.configs));
    let configs = outcome(cluster, connection, "DescribeConfigs", name, result)?;
    let values = configs.into_iter().map(|config| {
        let value = ConfigValue {
            source: ConfigSource::of(config.config_source),
            sensitive: config.is_sensitive,
            default: default_behind(&config),
            value: config.value.map(|value| value.to_string()),
        };
        (config.name.to_string(), value)
    });
    Ok(values.collect())
}

/// What holds without the override, in the topic's unit: the first of the values behind it. A broker may
/// have several keys for it; the finest unit that is set anywhere counts (`AbstractKafkaConfig`:
/// `log.retention.ms` over `.minutes` over `.hours`, whichever place they are set in).
fn default_behind(config: &DescribeConfigsResourceResult) -> Option<String> {
    let behind = config
        .synonyms
        .iter()
        .filter(|it| ConfigSource::of(it.source) != ConfigSource::Topic && it.value.is_some());
    let behind = behind.min_by_key(|it| unit_ms(&it.name))?;
    let value = behind.value.as_ref()?;
    let unit_ms = unit_ms(&behind.name);
    if unit_ms == 1 {
        return Some(value.to_string());
    }
    // Below zero is without limit, in any unit.
    let number: i64 = value.trim().parse().ok()?;
    let number = if number < 0 {
        -1
    } else {
        number.checked_mul(unit_ms)?
    };
    Some(number.to_string())
}

/// What a broker's key counts in; 1 where it is what the topic's key counts in.
fn unit_ms(name: &str) -> i64 {
    let units = [(".hours", 3_600_000), (".minutes", 60_000)];
    let found = units.iter().find(|(unit, _)| name.ends_with(unit));
    found.map_or(1, |(_, ms)| *ms)
}

/// Whether the brokers ask for no more in-sync replicas than a partition has: from 3.7 on
/// (`Partition.effectiveMinIsr`, KAFKA-15583), which is also when Fetch 16 came.
pub async fn caps_min_in_sync(cluster: &Cluster) -> bool {
    let connection = cluster.any_connection().await;
    connection.is_ok_and(|connection| {
        connection
            .version::<FetchRequest>(16)
            .is_ok_and(|it| it >= 16)
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_configs_response::DescribeConfigsSynonym;

    use super::*;

    fn overridden(behind: &[(&str, &str, i8)]) -> DescribeConfigsResourceResult {
        let own = ("retention.ms", "5", 1);
        let synonyms = std::iter::once(&own)
            .chain(behind)
            .map(|(name, value, source)| {
                DescribeConfigsSynonym::default()
                    .with_name(text(name))
                    .with_value(Some(text(value)))
                    .with_source(*source)
            });
        DescribeConfigsResourceResult::default().with_synonyms(synonyms.collect())
    }

    #[test]
    fn the_default_behind_an_override_is_the_finest_in_the_topic_s_unit() {
        let behind = [
            ("log.retention.minutes", "3", 2),
            ("log.retention.ms", "7", 4),
            ("log.retention.hours", "168", 5),
        ];
        let of = |behind: &[_]| default_behind(&overridden(behind));
        assert_eq!(of(&behind).as_deref(), Some("7"));
        assert_eq!(of(&behind[..1]).as_deref(), Some("180000"));
        assert_eq!(of(&behind[2..]).as_deref(), Some("604800000"));
        let unlimited = [("log.retention.hours", "-1", 4)];
        assert_eq!(of(&unlimited).as_deref(), Some("-1"));
        let twice = [
            ("min.insync.replicas", "2", 3),
            ("min.insync.replicas", "1", 5),
        ];
        assert_eq!(of(&twice).as_deref(), Some("2"));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let value = ConfigValue {
            value: Some("hush".to_owned()),
            source: ConfigSource::Topic,
            sensitive: true,
            default: Some("hush".to_owned()),
        };
        assert!(!format!("{value:?}").contains("hush"), "{value:?}");
    }
}
