//! Topics and their configs (`ReplicationControlManager`, `ConfigurationControlManager`, `ConfigHelper`).

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, MetadataRequest, TopicName,
};
use uuid::Uuid;

use super::{Batch, Stage, create, new_topic, text};

const UNKNOWN_PARTITION: i16 = 3;
const INVALID_TOPIC: i16 = 17;
const EXISTS: i16 = 36;
const INVALID_PARTITIONS: i16 = 37;
const INVALID_REPLICATION: i16 = 38;
const INVALID_ASSIGNMENT: i16 = 39;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
const UNKNOWN_ID: i16 = 100;

pub(super) const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

const FROM_TOPIC: i8 = 1;
const FROM_DEFAULT: i8 = 5;

impl Stage {
    fn described(&mut self, name: Option<&str>, id: Uuid) -> MetadataResponseTopic {
        let topic = MetadataRequestTopic::default()
            .with_name(name.map(|name| TopicName(text(name))))
            .with_topic_id(id);
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(false);
        let mut answer = self.call(&request, 12);
        answer.topics.remove(0)
    }

    fn delete_by_id(&mut self, id: Uuid) -> i16 {
        let topic = DeleteTopicState::default()
            .with_name(None)
            .with_topic_id(id);
        let request = DeleteTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        self.call(&request, 6).responses[0].error_code
    }
}

pub(super) fn come_and_go(stage: &mut Stage) {
    let name = stage.name("a");
    let dry = create(&[new_topic(&name, 2, &[])]).with_validate_only(true);
    assert_eq!(stage.call(&dry, 7).topics[0].error_code, 0);
    let answer = stage.described(Some(&name), Uuid::nil());
    assert_eq!(answer.error_code, UNKNOWN_PARTITION, "only tried");
    let answer = stage.call(&create(&[new_topic(&name, 2, &[("retention.ms", "7")])]), 7);
    let created = &answer.topics[0];
    assert_eq!((created.num_partitions, created.replication_factor), (2, 1));
    let configs = created.configs.as_ref().expect("configs");
    let retention = configs.iter().find(|c| c.name.as_str() == "retention.ms");
    let retention = retention.expect("all configs are told");
    assert_eq!(retention.value.as_deref(), Some("7"));
    assert_eq!(retention.config_source, FROM_TOPIC);
    let id = created.topic_id;
    stage.until(|stage| stage.described(Some(&name), Uuid::nil()).error_code == 0);
    let by_name = stage.described(Some(&name), Uuid::nil());
    assert_eq!((by_name.topic_id, by_name.partitions.len()), (id, 2));
    let by_id = stage.described(None, id);
    assert_eq!(by_id.name.as_ref().map(|n| n.as_str()), Some(name.as_str()));
    let again = stage.call(&create(&[new_topic(&name, 2, &[])]), 7);
    assert_eq!(again.topics[0].error_code, EXISTS);
    assert_eq!(stage.delete_by_id(id), 0);
    assert_eq!(stage.delete_by_id(id), UNKNOWN_ID);
    stage.until(|stage| stage.described(None, id).error_code == UNKNOWN_ID);
    let name_again = stage.topic("a", 1, &[]);
    let recreated = stage.described(Some(&name_again), Uuid::nil());
    assert!(recreated.topic_id != id, "another id");
    assert_eq!(
        stage.write(&name_again, Batch::of(1).bytes()),
        0,
        "and empty"
    );
}

pub(super) fn refused(stage: &mut Stage) {
    let good = stage.name("good");
    let assigned = |replicas: &[&[i32]]| -> CreatableTopic {
        let assignments = replicas.iter().zip(0..).map(|(ids, partition)| {
            CreatableReplicaAssignment::default()
                .with_partition_index(partition)
                .with_broker_ids(ids.iter().map(|&id| BrokerId(id)).collect())
        });
        new_topic(&good, -1, &[])
            .with_replication_factor(-1)
            .with_assignments(assignments.collect())
    };
    let many = new_topic(&good, 1, &[]).with_replication_factor(77);
    let both = assigned(&[&[1]]).with_num_partitions(1);
    let refused: [(&str, CreatableTopic, i16); 10] = [
        ("an odd name", new_topic("no spaces", 1, &[]), INVALID_TOPIC),
        ("no name", new_topic("", 1, &[]), INVALID_TOPIC),
        ("two dots", new_topic("..", 1, &[]), INVALID_TOPIC),
        (
            "no partitions",
            new_topic(&good, 0, &[]),
            INVALID_PARTITIONS,
        ),
        ("too many replicas", many, INVALID_REPLICATION),
        (
            "an unknown config",
            new_topic(&good, 1, &[("no.such", "1")]),
            INVALID_CONFIG,
        ),
        (
            "a wrong value",
            new_topic(&good, 1, &[("retention.ms", "soon")]),
            INVALID_CONFIG,
        ),
        (
            "an unknown policy",
            new_topic(&good, 1, &[("cleanup.policy", "burn")]),
            INVALID_CONFIG,
        ),
        ("an unknown broker", assigned(&[&[77]]), INVALID_ASSIGNMENT),
        ("placed and counted", both, INVALID_REQUEST),
    ];
    for (what, topic, error) in refused {
        let answer = stage.call(&create(&[topic]), 7);
        assert_eq!(
            answer.topics[0].error_code, error,
            "{what}: {:?}",
            answer.topics[0]
        );
    }
    let twice = create(&[new_topic(&good, 1, &[]), new_topic(&good, 1, &[])]);
    let answer = stage.call(&twice, 7);
    assert!(
        answer
            .topics
            .iter()
            .all(|topic| topic.error_code == INVALID_REQUEST)
    );
}

pub(super) fn grow(stage: &mut Stage) {
    let topic = stage.topic("a", 2, &[]);
    let request = |name: &str, count| {
        let topic = CreatePartitionsTopic::default()
            .with_name(TopicName(text(name)))
            .with_count(count)
            .with_assignments(None);
        CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000)
    };
    for (count, error) in [(2, INVALID_PARTITIONS), (1, INVALID_PARTITIONS), (3, 0)] {
        let answer = stage.call(&request(&topic, count), 3);
        assert_eq!(answer.results[0].error_code, error, "{count}");
    }
    stage.until(|stage| stage.list(&topic, 2, -1).error_code == 0);
    assert_eq!(
        stage
            .produce_to(&topic, 2, Batch::of(1).bytes())
            .base_offset,
        0
    );
    let nowhere = stage.name("nowhere");
    let answer = stage.call(&request(&nowhere, 3), 3);
    assert_eq!(answer.results[0].error_code, UNKNOWN_PARTITION);
}

impl Stage {
    fn config(&mut self, topic: &str, name: &str) -> DescribeConfigsResourceResult {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(topic))
            .with_configuration_keys(Some(vec![text(name)]));
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource])
            .with_include_synonyms(true);
        let mut answer = self.call(&request, 4);
        assert_eq!(answer.results[0].error_code, 0);
        answer.results[0].configs.remove(0)
    }

    pub(super) fn alter(&mut self, topic: &str, name: &str, operation: i8, value: &str) -> i16 {
        let config = AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(operation)
            .with_value((operation != DELETE).then(|| text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(topic))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        self.call(&request, 1).responses[0].error_code
    }

    fn await_config(&mut self, topic: &str, name: &str, value: &str, source: i8) {
        self.until(|stage| {
            let config = stage.config(topic, name);
            let now = config.value.as_ref().map(|value| value.as_str());
            now == Some(value) && config.config_source == source
        });
    }
}

pub(super) fn configs(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let default = stage.config(&topic, "max.message.bytes");
    assert_eq!(default.value.as_deref(), Some("1048588"));
    assert_eq!(
        (default.config_source, default.config_type),
        (FROM_DEFAULT, 3)
    );
    let synonyms: Vec<&str> = default.synonyms.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(synonyms, ["message.max.bytes"]);
    assert_eq!(stage.alter(&topic, "max.message.bytes", SET, "5000"), 0);
    stage.await_config(&topic, "max.message.bytes", "5000", FROM_TOPIC);
    let set = stage.config(&topic, "max.message.bytes");
    let synonyms: Vec<(&str, i8)> = set
        .synonyms
        .iter()
        .map(|s| (s.name.as_str(), s.source))
        .collect();
    assert_eq!(
        synonyms,
        [
            ("max.message.bytes", FROM_TOPIC),
            ("message.max.bytes", FROM_DEFAULT)
        ]
    );
    assert_eq!(stage.alter(&topic, "max.message.bytes", DELETE, ""), 0);
    stage.await_config(&topic, "max.message.bytes", "1048588", FROM_DEFAULT);
    // Lists grow and shrink.
    assert_eq!(stage.alter(&topic, "cleanup.policy", APPEND, "compact"), 0);
    stage.await_config(&topic, "cleanup.policy", "delete,compact", FROM_TOPIC);
    assert_eq!(stage.alter(&topic, "cleanup.policy", SUBTRACT, "delete"), 0);
    stage.await_config(&topic, "cleanup.policy", "compact", FROM_TOPIC);
    for (name, operation, value, error) in [
        ("retention.ms", SET, "soon", INVALID_CONFIG),
        ("no.such", SET, "1", INVALID_CONFIG),
        ("retention.ms", APPEND, "1", INVALID_CONFIG),
    ] {
        assert_eq!(stage.alter(&topic, name, operation, value), error, "{name}");
    }
    let nowhere = stage.name("nowhere");
    assert_eq!(
        stage.alter(&nowhere, "retention.ms", SET, "1"),
        UNKNOWN_PARTITION
    );
}
