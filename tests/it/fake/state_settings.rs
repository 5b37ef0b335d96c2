//! The state topic's configs are looked after, whoever made it.

use std::time::Duration;

use crate::fake::readiness;
use crate::support::fake::options;
use crate::support::flow::{block_on, flow_config, wire_cluster};
use crate::support::topic_configs::{own, set};
use crate::support::{
    FakeCluster, Load, Twinlog, await_all_same, create_topic, eventually, fake_pair,
};
use fake_kafka::faults::{Action, Fault};
use fake_kafka::state::Options;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use twinlog::state::STATE_TOPIC;
use twinlog::wire::{ConfigValues, describe_topic_configs_at};

const DEADLINE: Duration = Duration::from_secs(60);

/// As somebody may have made it.
const WRONG: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("retention.ms", "60000"),
    ("segment.ms", "10000"),
    ("max.message.bytes", "20000"),
];

fn said(twinlog: &Twinlog) -> (Option<i32>, String) {
    let output = twinlog.command("check", &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), said)
}

fn await_right(target: &str) {
    eventually(DEADLINE, "its configs are right", || {
        let found = own(target, STATE_TOPIC);
        let has = |key: &str, value: &str| found.get(key).is_some_and(|it| it == value);
        let is_right = has("cleanup.policy", "compact")
            && has("retention.ms", "-1")
            && has("segment.ms", "600000")
            && has("segment.bytes", "33554432")
            && has("max.message.bytes", "16777216");
        if is_right { Ok(()) } else { Err(found) }
    });
}

#[test]
fn a_state_topic_that_somebody_made_otherwise_is_put_right() {
    let (source, target) = fake_pair();
    put_right(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn put_right(source: &str, target: &str) {
    let topic = "state-settings";
    create_topic(source, topic, 1, &[]);
    Load::new(topic, 50).produce(source);
    create_topic(target, STATE_TOPIC, 3, WRONG);
    let mut twinlog = Twinlog::start(&flow_config(topic, topic, source, target, ""));
    await_all_same(source, target, &[topic], DEADLINE);
    await_right(target);

    // Somebody changes it behind us.
    set(target, STATE_TOPIC, "cleanup.policy", "delete");
    set(target, STATE_TOPIC, "segment.bytes", "1073741824");
    let (code, words) = eventually(DEADLINE, "check tells", || {
        let (code, words) = said(&twinlog);
        let is_told = words.contains("cleanup.policy is delete, not compact")
            && words.contains("segment.bytes is 1073741824, not 33554432");
        if is_told {
            Ok((code, words))
        } else {
            Err(words)
        }
    });
    assert_eq!(code, Some(1), "{words}");
    let command = format!("--alter --topic {STATE_TOPIC} --add-config cleanup.policy=compact");
    assert!(words.contains(&command), "{words}");
    assert!(words.contains("it has 3 partitions"), "{words}");

    assert!(twinlog.terminate().success());
    twinlog.launch();
    await_right(target);
    Load::new(topic, 50).first(50).produce(source);
    await_all_same(source, target, &[topic], DEADLINE);
    let (code, words) = said(&twinlog);
    assert_eq!(code, Some(0), "{words}");
}

#[test]
fn what_can_not_be_set_is_refused_by_name_before_anything_is_copied() {
    let (source, target_cluster) = fake_pair();
    let (source, target) = (source.bootstrap(), target_cluster.bootstrap());
    let topic = "state-refused";
    create_topic(&source, topic, 1, &[]);
    create_topic(&target, STATE_TOPIC, 1, &[("cleanup.policy", "delete")]);
    let alter = Fault::on(ApiKey::IncrementalAlterConfigs);
    let refuse = Action::Refuse(ResponseError::PolicyViolation);
    let refused = target_cluster.fault(alter, refuse);
    let mut twinlog = Twinlog::start(&flow_config(topic, topic, &source, &target, ""));
    let exit = eventually(DEADLINE, "it has ended", || {
        twinlog.ended().ok_or("it runs")
    });
    assert!(!exit.success());
    let log = twinlog.log();
    assert!(
        log.contains("cleanup.policy is delete, not compact"),
        "{log}"
    );
    assert!(log.contains("grant ALTER_CONFIGS on this topic"), "{log}");
    // In one piece, and then each alone.
    let asked = target_cluster.fired(refused);
    assert!((2..=20).contains(&asked), "{asked}");
    target_cluster.look(|state| {
        assert!(!state.topics.contains_key(topic), "nothing is copied");
        assert_eq!(
            state.topics[STATE_TOPIC].configs["cleanup.policy"],
            "delete"
        );
    });
}

/// That nobody answers is no refusal.
#[test]
fn what_can_not_be_set_now_is_set_later() {
    let (source, target_cluster) = fake_pair();
    let (source, target) = (source.bootstrap(), target_cluster.bootstrap());
    let topic = "state-later";
    create_topic(&source, topic, 1, &[]);
    Load::new(topic, 50).produce(&source);
    create_topic(&target, STATE_TOPIC, 1, &[("cleanup.policy", "delete")]);
    let alter = Fault::on(ApiKey::IncrementalAlterConfigs).times(3);
    target_cluster.fault(alter, Action::CutBefore);
    let _twinlog = Twinlog::start(&flow_config(topic, topic, &source, &target, ""));
    await_right(&target);
    await_all_same(&source, &target, &[topic], DEADLINE);
}

#[test]
fn a_target_that_does_not_take_all_of_it_is_used_with_what_it_takes() {
    let (source, target_cluster) = fake_pair();
    let (source, target) = (source.bootstrap(), target_cluster.bootstrap());
    let topic = "state-limited";
    create_topic(&source, topic, 1, &[]);
    Load::new(topic, 50).produce(&source);
    let refuse = |key, times: u64, target: &FakeCluster| {
        let fault = Fault::on_topic(key, STATE_TOPIC).times(times);
        target.fault(fault, Action::Refuse(ResponseError::PolicyViolation))
    };
    // All of it at once; and of the changes all in one piece, and the first of them alone.
    refuse(ApiKey::CreateTopics, 1, &target_cluster);
    refuse(ApiKey::IncrementalAlterConfigs, 2, &target_cluster);
    let twinlog = Twinlog::start(&flow_config(topic, topic, &source, &target, ""));
    await_all_same(&source, &target, &[topic], DEADLINE);
    let found = own(&target, STATE_TOPIC);
    assert_eq!(found["cleanup.policy"], "compact");
    assert_eq!(found["segment.bytes"], "33554432");
    let (code, words) = said(&twinlog);
    assert_eq!(code, Some(0), "{words}");
    assert!(
        words.contains("it would count if cleanup.policy were changed"),
        "{words}"
    );
}

fn configs(bootstrap: &str, topic: &str) -> ConfigValues {
    let topics = [topic.to_owned()];
    block_on(async {
        let cluster = wire_cluster(bootstrap);
        let described = describe_topic_configs_at(&cluster, None, &topics, true).await;
        let mut described = described
            .and_then(|it| it.decode(&topics))
            .expect("an answer");
        described
            .remove(topic)
            .expect("an answer")
            .expect("configs")
    })
}

#[test]
fn what_holds_without_an_override_is_told_beside_it() {
    let (_, target) = fake_pair();
    told_beside(&target.bootstrap());
}

/// The target's defaults are read off the state topic, which has overrides of its own.
pub(crate) fn told_beside(bootstrap: &str) {
    let overrides = [
        ("cleanup.policy", "compact"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("max.message.bytes", "16777216"),
        ("segment.bytes", "33554432"),
        ("segment.ms", "600000"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("unclean.leader.election.enable", "false"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    create_topic(bootstrap, "with", 1, &overrides);
    create_topic(bootstrap, "without", 1, &[]);
    let (with, without) = (configs(bootstrap, "with"), configs(bootstrap, "without"));
    for (key, value) in overrides {
        let found = &with[key];
        assert_eq!(found.value.as_deref(), Some(value), "{key}");
        // Brokers don't tell `log.roll.hours` behind this one, and nothing needs it.
        let is_told = key != "segment.ms" || found.default.is_some();
        if is_told {
            assert_eq!(found.default, without[key].value, "{key}");
        }
    }
}

#[test]
fn replicas_that_brokers_were_away_for_are_missed_when_they_are_back() {
    let (source, _) = fake_pair();
    let target = FakeCluster::start(Options {
        brokers: 3,
        ..options("three")
    });
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let topic = "state-replicas";
    create_topic(&from, topic, 1, &[]);
    Load::new(topic, 50).produce(&from);
    for away in [1, 3] {
        target.control(|state| state.stop_broker(away));
    }
    let twinlog = Twinlog::start(&flow_config(topic, topic, &from, &to, ""));
    await_all_same(&from, &to, &[topic], DEADLINE);
    let warns = |status: &serde_json::Value| {
        let checks = &status["flows"][0]["failover"]["checks"];
        let words = "state topic there has 1 of 3 replicas";
        readiness::says(checks, "standby", "warning", words)
    };
    let status = twinlog.status();
    assert!(!warns(&status), "nobody else could have any: {status}");
    for back in [1, 3] {
        target.control(|state| state.start_broker(back));
    }
    twinlog.wait_until(DEADLINE, "they are missed", warns);
    let (code, words) = said(&twinlog);
    assert_eq!(code, Some(0), "{words}");
    let command = "\"replicas\":[2,1,3]}]}' > state.json; kafka-reassign-partitions.sh";
    assert!(words.contains(command), "{words}");
}
