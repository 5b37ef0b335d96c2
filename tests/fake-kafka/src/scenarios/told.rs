//! What brokers tell everybody of changes: how far their image of the cluster has come (`KRaftMetadataCache.features`), with the
//! versions that they speak. Nobody promises it; who goes by it has to know whether it is still so.

use std::time::{Duration, Instant};

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreatePartitionsRequest, DeleteTopicsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::topics::SET;
use super::{Batch, Stage, create, new_topic, rights, text};

/// `metadata.max.idle.interval.ms`: at rest the controller writes a record twice a second.
const AT_REST_PER_SECOND: f64 = 2.0;
/// So often each change is made.
const TIMES: i64 = 4;
/// Looks fall anywhere between two records of rest.
const SLACK: f64 = 1.5;
/// So often it is tried: a broker that stands still has less of rest than its time says.
const TRIES: i64 = 4;

impl Stage {
    /// How far the broker's image has come.
    fn come_to(&mut self) -> i64 {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("truth"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        self.call(&request, 3).finalized_features_epoch
    }

    /// How many records came beyond those of rest while this was done [`TIMES`] times.
    fn beyond_rest(&mut self, mut act: impl FnMut(&mut Self, i64)) -> f64 {
        let (began, before) = (Instant::now(), self.come_to());
        for time in 0..TIMES {
            act(self, time);
            std::thread::sleep(Duration::from_millis(100));
            self.come_to();
        }
        std::thread::sleep(Duration::from_millis(700));
        let come = self.come_to() - before;
        // All that there may be of rest: never too little.
        let rest = AT_REST_PER_SECOND * began.elapsed().as_secs_f64();
        come as f64 - rest
    }

    /// It may be done [`TRIES`] by [`TIMES`] times, which are counted.
    fn is_told(&mut self, what: &str, mut act: impl FnMut(&mut Self, i64)) {
        let mut seen = Vec::new();
        for tried in 0..TRIES {
            let beyond = self.beyond_rest(|stage, time| act(stage, tried * TIMES + time));
            if beyond >= TIMES as f64 - SLACK {
                return;
            }
            seen.push(beyond);
        }
        panic!("{what}: {seen:?}");
    }

    fn is_not_told(&mut self, what: &str, act: impl FnMut(&mut Self, i64)) {
        let beyond = self.beyond_rest(act);
        assert!(beyond <= SLACK, "{what}: {beyond}");
    }
}

pub(super) fn changes(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let user = stage.name("user");
    // Its producer id, and all that is made for it once, comes before.
    let producer = stage.producer();
    stage.write(&topic, Batch::of(1).by(producer, 0, 0).bytes());
    stage.is_not_told("rest", |_, _| {});
    stage.is_not_told("records", |stage, time| {
        let sequence = i32::try_from(time).expect("few") + 1;
        stage.write(&topic, Batch::of(1).by(producer, 0, sequence).bytes());
    });
    stage.is_told("a topic's config", |stage, time| {
        let value = (1_000 + time).to_string();
        assert_eq!(stage.alter(&topic, "retention.ms", SET, &value), 0);
    });
    stage.is_told("a quota", |stage, time| {
        let entity = &[("user", Some(user.as_str()))];
        let rate = Some((1_000 + time) as f64);
        assert_eq!(stage.set_quota(entity, "producer_byte_rate", rate), 0);
    });
    stage.is_told("a user", |stage, time| {
        let iterations = i32::try_from(4_096 + time).expect("few");
        assert_eq!(stage.add_user(&user, iterations), 0);
    });
    stage.is_told("partitions", |stage, time| {
        let more = CreatePartitionsTopic::default()
            .with_name(TopicName(text(&topic)))
            .with_count(i32::try_from(time).expect("few") + 2)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![more])
            .with_timeout_ms(10_000);
        assert_eq!(stage.call(&request, 3).results[0].error_code, 0);
    });
    let prefix = stage.name("made");
    let name = |time: i64| format!("{prefix}-{time}");
    let make = |stage: &mut Stage, time: i64| {
        let answer = stage.call(&create(&[new_topic(&name(time), 1, &[])]), 7);
        assert_eq!(answer.topics[0].error_code, 0);
    };
    let mut made = 0;
    stage.is_told("a topic", |stage, time| {
        make(stage, time);
        made = time + 1;
    });
    (made..TRIES * TIMES).for_each(|time| make(stage, time));
    stage.is_told("a topic's end", |stage, time| {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![TopicName(text(&name(time)))])
            .with_timeout_ms(10_000);
        assert_eq!(stage.call(&request, 5).responses[0].error_code, 0);
    });
}

pub(super) fn acls(stage: &mut Stage) {
    let name = stage.name("t");
    let create = |stage: &mut Stage, time: i64| {
        let acl = rights::read_acl(&format!("{name}-{time}"));
        assert_eq!(stage.create_acls(&[&acl]), [0]);
    };
    let mut created = 0;
    stage.is_told("an ACL", |stage, time| {
        create(stage, time);
        created = time + 1;
    });
    (created..TRIES * TIMES).for_each(|time| create(stage, time));
    stage.is_told("an ACL's end", |stage, time| {
        let acl = rights::read_acl(&format!("{name}-{time}"));
        assert_eq!(stage.delete_acl(&acl), 1);
    });
}
