//! A source's log that is older than its topic's settings is copied all the same.

use std::time::Duration;

use serde_json::Value;

use super::metadata_acls::{OFTEN, await_looks};
use super::metadata_configs::await_override;
use crate::support::flow::{flow_config, is_caught_up, partition_status};
use crate::support::{Load, Twinlog, await_same, create_topic, fake_pair, topic_configs};

const DEADLINE: Duration = Duration::from_secs(60);
const LIMIT: &str = "max.message.bytes";
const LARGE: usize = 5_000_000;

#[test]
fn a_batch_from_before_the_limit_was_lowered_is_copied() {
    let (source, target) = fake_pair();
    lowered_limits_are_no_obstacle(&source.bootstrap(), &target.bootstrap());
}

/// A topic with a record that it doesn't take any more.
fn lowered(source: &str, topic: &str) {
    create_topic(source, topic, 1, &[(LIMIT, "10000000")]);
    Load::new(topic, 1).produce(source);
    Load::new(topic, 1)
        .first(1)
        .value_bytes(LARGE)
        .produce(source);
    Load::new(topic, 8).first(2).produce(source);
    topic_configs::set(source, topic, LIMIT, "1000000");
}

pub(crate) fn lowered_limits_are_no_obstacle(source: &str, target: &str) {
    let topic = "lowered";
    lowered(source, topic);
    let mut twinlog = Twinlog::start(&flow_config("lowered", topic, source, target, OFTEN));
    await_same(source, target, topic, DEADLINE);
    let limit = || -> usize {
        let found = topic_configs::own(target, topic);
        found[LIMIT].parse().expect("a number")
    };
    let raised = limit();
    assert!(raised >= LARGE, "{raised}");
    // It is wanted, not a difference to undo: also after a restart, and for whoever only looks.
    for round in 0..2_u64 {
        await_looks(&twinlog, 2);
        assert_eq!(limit(), raised);
        let planned = plan_of_configs(&twinlog);
        let [held] = &planned[..] else {
            panic!("{planned:#?}");
        };
        assert_eq!(
            (
                &held["action"],
                &held["detail"],
                &held["source"],
                &held["counts"]
            ),
            (
                &"hold".into(),
                &LIMIT.into(),
                &"1000000".into(),
                &false.into()
            ),
            "{held:#}"
        );
        assert!(twinlog.terminate().success());
        twinlog.launch();
        Load::new(topic, 1).first(10 + round).produce(source);
        await_same(source, target, topic, DEADLINE);
    }
    // The source's log is behind its limit again: so is the copy.
    topic_configs::set(source, topic, LIMIT, "9000000");
    await_override(target, topic, LIMIT, Some("9000000"), DEADLINE);
}

/// What `plan` says of topic configs.
fn plan_of_configs(twinlog: &Twinlog) -> Vec<Value> {
    let output = twinlog.command("plan", &["--json"]);
    let changes: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let configs = changes.into_iter();
    configs
        .filter(|change| change["kind"] == "topic_config")
        .collect()
}

#[test]
fn a_limit_that_the_user_pins_is_named_and_stays() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let topic = "pinned";
    lowered(&source, topic);
    let lines = format!("{OFTEN}\nconfigs: {{ fixed: {{ {LIMIT}: 2000000 }} }}");
    let mut twinlog = Twinlog::start(&flow_config("pinned", topic, &source, &target, &lines));
    let status = twinlog.wait_until(DEADLINE, "it is refused", |status| {
        partition_status(status, topic, 0)["reason"] == "too_large"
    });
    let found = partition_status(&status, topic, 0);
    let detail = found["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("configs.fixed") && detail.contains("max.message.bytes"),
        "{found:#}"
    );
    await_looks(&twinlog, 2);
    assert_eq!(topic_configs::own(&target, topic)[LIMIT], "2000000");
    assert!(twinlog.terminate().success());
    // As the hint says.
    let config = std::fs::read_to_string(twinlog.config_file()).expect("it is ours");
    let config = config.replace("2000000", "6000000");
    std::fs::write(twinlog.config_file(), config).expect("it is ours");
    twinlog.launch();
    await_same(&source, &target, topic, DEADLINE);
}

#[test]
fn records_without_a_key_from_before_a_topic_was_compacted_are_copied() {
    let (source, target) = fake_pair();
    keyless_history_is_copied(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn keyless_history_is_copied(source: &str, target: &str) {
    let topics = ["keyless.before", "keyless.meanwhile"];
    let compact = |topic| {
        topic_configs::set(source, topic, "cleanup.policy", "compact");
        Load::new(topic, 50).first(100).produce(source);
    };
    for topic in topics {
        create_topic(source, topic, 1, &[("retention.ms", "86400000")]);
        Load::new(topic, 50).keys(0).produce(source);
    }
    compact(topics[0]);
    let config = flow_config("keyless", "keyless[.].*", source, target, OFTEN);
    let twinlog = Twinlog::start(&config);
    await_same(source, target, topics[1], DEADLINE);
    Load::new(topics[1], 50).first(50).keys(0).produce(source);
    compact(topics[1]);
    for topic in topics {
        await_same(source, target, topic, DEADLINE);
        twinlog.wait_until(DEADLINE, "it is through", |status| {
            is_caught_up(status, topic, 0)
        });
        // Then it is compacted like the source.
        await_override(target, topic, "cleanup.policy", Some("compact"), DEADLINE);
        await_override(target, topic, "retention.ms", Some("86400000"), DEADLINE);
    }
    Load::new(topics[0], 10).first(150).produce(source);
    await_same(source, target, topics[0], DEADLINE);
}
