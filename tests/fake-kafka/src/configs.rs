//! Configs of topics and brokers: names, types, defaults (`TopicConfig`, `LogConfig`, `ServerTopicConfigSynonyms`).

use std::collections::BTreeMap;

use crate::codec::Codec;
use crate::log::Rules;
use crate::state::State;

/// `ConfigDef.Type`, by the numbers of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 1.
    Boolean = 1,
    /// 2.
    String = 2,
    /// 3.
    Int = 3,
    /// 5.
    Long = 5,
    /// 6.
    Double = 6,
    /// 7.
    List = 7,
}

/// One config.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Of a topic, or of a broker.
    pub name: &'static str,
    /// The broker's config that is its default, if it is a topic's.
    pub synonym: Option<&'static str>,
    /// Its type.
    pub kind: Kind,
    /// Kafka's own.
    pub default: &'static str,
    /// What it may be, if it is one of a few names.
    pub names: &'static [&'static str],
    /// The smallest number.
    pub least: i64,
}

const fn number(
    name: &'static str,
    synonym: &'static str,
    kind: Kind,
    default: &'static str,
    least: i64,
) -> Definition {
    Definition {
        name,
        synonym: Some(synonym),
        kind,
        default,
        names: &[],
        least,
    }
}

const fn name(
    name: &'static str,
    synonym: &'static str,
    kind: Kind,
    default: &'static str,
    names: &'static [&'static str],
) -> Definition {
    Definition {
        name,
        synonym: Some(synonym),
        kind,
        default,
        names,
        least: i64::MIN,
    }
}

const fn own(name: &'static str, kind: Kind, default: &'static str) -> Definition {
    Definition {
        name,
        synonym: None,
        kind,
        default,
        names: &[],
        least: i64::MIN,
    }
}

const FOREVER: &str = "9223372036854775807";
const BOOLEAN: &[&str] = &["true", "false"];
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

/// Configs of topics.
pub const TOPIC: &[Definition] = &[
    name(
        "cleanup.policy",
        "log.cleanup.policy",
        Kind::List,
        "delete",
        &["compact", "delete"],
    ),
    number(
        "compression.gzip.level",
        "compression.gzip.level",
        Kind::Int,
        "-1",
        -1,
    ),
    number(
        "compression.lz4.level",
        "compression.lz4.level",
        Kind::Int,
        "9",
        1,
    ),
    name(
        "compression.type",
        "compression.type",
        Kind::String,
        "producer",
        CODECS,
    ),
    number(
        "compression.zstd.level",
        "compression.zstd.level",
        Kind::Int,
        "3",
        -131_072,
    ),
    number(
        "delete.retention.ms",
        "log.cleaner.delete.retention.ms",
        Kind::Long,
        "86400000",
        0,
    ),
    number(
        "file.delete.delay.ms",
        "log.segment.delete.delay.ms",
        Kind::Long,
        "60000",
        0,
    ),
    number(
        "flush.messages",
        "log.flush.interval.messages",
        Kind::Long,
        FOREVER,
        1,
    ),
    number("flush.ms", "log.flush.interval.ms", Kind::Long, FOREVER, 0),
    own("follower.replication.throttled.replicas", Kind::List, ""),
    number(
        "index.interval.bytes",
        "log.index.interval.bytes",
        Kind::Int,
        "4096",
        0,
    ),
    own("leader.replication.throttled.replicas", Kind::List, ""),
    number(
        "local.retention.bytes",
        "log.local.retention.bytes",
        Kind::Long,
        "-2",
        -2,
    ),
    number(
        "local.retention.ms",
        "log.local.retention.ms",
        Kind::Long,
        "-2",
        -2,
    ),
    number(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        Kind::Long,
        FOREVER,
        1,
    ),
    number(
        "max.message.bytes",
        "message.max.bytes",
        Kind::Int,
        "1048588",
        0,
    ),
    number(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        Kind::Long,
        "3600000",
        0,
    ),
    number(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        Kind::Long,
        FOREVER,
        0,
    ),
    name(
        "message.timestamp.type",
        "log.message.timestamp.type",
        Kind::String,
        "CreateTime",
        &["CreateTime", "LogAppendTime"],
    ),
    number(
        "min.cleanable.dirty.ratio",
        "log.cleaner.min.cleanable.ratio",
        Kind::Double,
        "0.5",
        0,
    ),
    number(
        "min.compaction.lag.ms",
        "log.cleaner.min.compaction.lag.ms",
        Kind::Long,
        "0",
        0,
    ),
    number(
        "min.insync.replicas",
        "min.insync.replicas",
        Kind::Int,
        "1",
        1,
    ),
    name(
        "preallocate",
        "log.preallocate",
        Kind::Boolean,
        "false",
        BOOLEAN,
    ),
    own("remote.log.copy.disable", Kind::Boolean, "false"),
    own("remote.log.delete.on.disable", Kind::Boolean, "false"),
    own("remote.storage.enable", Kind::Boolean, "false"),
    number(
        "retention.bytes",
        "log.retention.bytes",
        Kind::Long,
        "-1",
        i64::MIN,
    ),
    number(
        "retention.ms",
        "log.retention.ms",
        Kind::Long,
        "604800000",
        -1,
    ),
    number(
        "segment.bytes",
        "log.segment.bytes",
        Kind::Int,
        "1073741824",
        1_048_576,
    ),
    number(
        "segment.index.bytes",
        "log.index.size.max.bytes",
        Kind::Int,
        "10485760",
        4,
    ),
    number(
        "segment.jitter.ms",
        "log.roll.jitter.ms",
        Kind::Long,
        "0",
        0,
    ),
    number("segment.ms", "log.roll.ms", Kind::Long, "604800000", 1),
    name(
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
        Kind::Boolean,
        "false",
        BOOLEAN,
    ),
];

/// Configs that only brokers have. (Topics' synonyms are theirs, too.)
pub const BROKER: &[Definition] = &[
    own("auto.create.topics.enable", Kind::Boolean, "true"),
    own("broker.id", Kind::Int, "-1"),
    own("broker.rack", Kind::String, ""),
    own("connections.max.idle.ms", Kind::Long, "600000"),
    own("default.replication.factor", Kind::Int, "1"),
    own("delete.topic.enable", Kind::Boolean, "true"),
    own("fetch.max.bytes", Kind::Int, "57671680"),
    own("group.max.session.timeout.ms", Kind::Int, "1800000"),
    own("group.min.session.timeout.ms", Kind::Int, "6000"),
    own("log.retention.hours", Kind::Int, "168"),
    own("num.partitions", Kind::Int, "1"),
    own("offset.metadata.max.bytes", Kind::Int, "4096"),
    own("offsets.retention.minutes", Kind::Int, "10080"),
    own("offsets.topic.num.partitions", Kind::Int, "50"),
    own(
        "producer.id.expiration.check.interval.ms",
        Kind::Int,
        "600000",
    ),
    own("producer.id.expiration.ms", Kind::Int, "86400000"),
    own("replica.lag.time.max.ms", Kind::Long, "30000"),
    own("socket.request.max.bytes", Kind::Int, "104857600"),
    own("transaction.max.timeout.ms", Kind::Int, "900000"),
    own("transactional.id.expiration.ms", Kind::Int, "604800000"),
];

/// Where a value comes from, by the numbers of DescribeConfigs (`ConfigSource`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Set on the topic.
    Topic = 1,
    /// Set on this broker while it runs.
    Broker = 2,
    /// Set on all brokers while they run.
    AllBrokers = 3,
    /// In the broker's file.
    File = 4,
    /// Kafka's default.
    Default = 5,
}

/// One place that gives a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The config there: a topic's, or its synonym.
    pub name: String,
    /// The value there.
    pub value: String,
    /// The kind of place.
    pub source: Source,
}

impl Definition {
    /// A topic's config.
    pub fn of_topic(name: &str) -> Option<&'static Self> {
        TOPIC.iter().find(|definition| definition.name == name)
    }

    /// What is wrong with a value, if anything (`ConfigDef.validate`).
    pub fn complaint(&self, value: &str) -> Option<String> {
        let complain = |why: &str| {
            Some(format!(
                "Invalid value {value} for configuration {}: {why}",
                self.name
            ))
        };
        let number = match self.kind {
            Kind::Int => value.trim().parse::<i32>().ok().map(i64::from),
            Kind::Long => value.trim().parse::<i64>().ok(),
            #[expect(clippy::cast_possible_truncation, reason = "ratios from 0 to 1")]
            Kind::Double => value.trim().parse::<f64>().ok().map(|ratio| ratio as i64),
            Kind::Boolean | Kind::String | Kind::List => {
                return self.complaint_on_name(value).and_then(complain);
            }
        };
        match number {
            None => complain("Not a number of this type"),
            Some(number) if number < self.least => {
                complain(&format!("Value must be at least {}", self.least))
            }
            Some(_) => None,
        }
    }

    fn complaint_on_name(&self, value: &str) -> Option<&'static str> {
        let known = |one: &str| self.names.is_empty() || self.names.contains(&one);
        let good = match self.kind {
            Kind::List if value.is_empty() => true,
            Kind::List => value.split(',').all(|one| known(one.trim())),
            _ => known(value),
        };
        (!good).then_some("String must be one of the names allowed")
    }
}

impl State {
    /// All places that give a broker's config a value, the first one wins.
    pub fn broker_config(&self, broker: i32, name: &str, default: &str) -> Vec<Given> {
        let given = |value: &String, source| Given {
            name: name.to_owned(),
            value: value.clone(),
            source,
        };
        let dynamic = |of: &str| self.broker_configs.get(of)?.get(name);
        let mut all = Vec::new();
        all.extend(dynamic(&broker.to_string()).map(|value| given(value, Source::Broker)));
        all.extend(dynamic("").map(|value| given(value, Source::AllBrokers)));
        let file = self.options.broker_configs.get(name).cloned();
        let file = file.or_else(|| self.option_as_config(broker, name));
        all.extend(file.map(|value| given(&value, Source::File)));
        all.push(given(&default.to_owned(), Source::Default));
        all
    }

    fn option_as_config(&self, broker: i32, name: &str) -> Option<String> {
        let options = &self.options;
        Some(match name {
            "auto.create.topics.enable" => options.auto_create_topics.to_string(),
            "broker.id" => broker.to_string(),
            "broker.rack" => self.brokers.get(&broker)?.rack.clone()?,
            "default.replication.factor" => options.default_replication.to_string(),
            "num.partitions" => options.default_partitions.to_string(),
            "producer.id.expiration.ms" => options.producer_expiration_ms.to_string(),
            _ => return None,
        })
    }

    /// All places that give a topic's config a value, as a broker sees it; the first one wins.
    pub fn topic_config(
        &self,
        configs: &BTreeMap<String, String>,
        broker: i32,
        definition: &Definition,
    ) -> Vec<Given> {
        let own = configs.get(definition.name).map(|value| Given {
            name: definition.name.to_owned(),
            value: value.clone(),
            source: Source::Topic,
        });
        let rest = match definition.synonym {
            Some(synonym) => self.broker_config(broker, synonym, definition.default),
            None => vec![Given {
                name: definition.name.to_owned(),
                value: definition.default.to_owned(),
                source: Source::Default,
            }],
        };
        own.into_iter().chain(rest).collect()
    }

    /// What a topic's config is at a broker.
    ///
    /// # Panics
    /// When there is no such config.
    pub fn topic_value(&self, topic: &str, broker: i32, name: &str) -> String {
        let definition = Definition::of_topic(name).expect("a config of topics");
        let nothing = BTreeMap::new();
        let configs = self.topics.get(topic).map_or(&nothing, |t| &t.configs);
        self.topic_config(configs, broker, definition)
            .swap_remove(0)
            .value
    }

    fn topic_number(&self, topic: &str, broker: i32, name: &str) -> i64 {
        let value = self.topic_value(topic, broker, name);
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {value}"))
    }

    /// The topic's rules for what is appended.
    pub fn append_rules(&self, topic: &str, broker: i32) -> Rules {
        let value = |name: &str| self.topic_value(topic, broker, name);
        let number = |name: &str| self.topic_number(topic, broker, name);
        Rules {
            max_batch_bytes: usize::try_from(number("max.message.bytes")).unwrap_or(0),
            codec: Codec::from_config(&value("compression.type")),
            compacted: value("cleanup.policy").contains("compact"),
            log_append_time: value("message.timestamp.type") == "LogAppendTime",
            before_max_ms: number("message.timestamp.before.max.ms"),
            after_max_ms: number("message.timestamp.after.max.ms"),
        }
    }

    /// How many in-sync replicas `acks=all` asks for; never more than there are replicas (`Partition.effectiveMinIsr`),
    /// on brokers from 3.7 on.
    pub fn min_in_sync(&self, topic: &str, broker: i32, replicas: usize) -> usize {
        let configured = self.topic_number(topic, broker, "min.insync.replicas");
        let configured = usize::try_from(configured).unwrap_or(1);
        match self.options.before_3_7 {
            true => configured,
            false => configured.min(replicas),
        }
    }
}
