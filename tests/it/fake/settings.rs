//! A source's log that is older than its topic's settings is copied all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use fake_kafka::state::Options;
use fake_kafka::topics::NewTopic;
use serde_json::Value;

use super::metadata_acls::{OFTEN, await_looks};
use super::metadata_configs::await_override;
use crate::support::failover::{failover, words};
use crate::support::fake::options;
use crate::support::flow::{block_on, flow_config, is_caught_up, partition_status, wire_cluster};
use crate::support::{
    FakeCluster, Load, Twinlog, await_same, create_topic, eventually, fake_pair, topic_configs,
};

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
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let changes = answer["changes"].as_array().expect("a list").iter();
    let configs = changes.filter(|change| change["kind"] == "topic_config");
    configs.cloned().collect()
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

/// As a managed cluster's: what it refuses of a topic is told by the topic's name.
fn managed(name: &str, new: &NewTopic) -> Option<String> {
    let sets = |key: &str| new.configs.contains_key(key);
    let words = match name.rsplit('.').next()? {
        "named" if sets("segment.bytes") => "segment.bytes must not be set",
        "quiet" if sets("segment.ms") => "not with these settings",
        "three" if new.replication != 3 => "3 replicas",
        "default" if new.replication != -1 => "leave it to us",
        "never" => "ask the platform team",
        _ => return None,
    };
    Some(words.to_owned())
}

#[test]
fn a_creation_policy_costs_what_it_refuses_and_no_topic() {
    let (source, target) = (
        fake_pair().0,
        FakeCluster::start(Options {
            brokers: 3,
            creation_policy: Some(managed),
            ..options("managed")
        }),
    );
    let topics = policies_are_obeyed(&source.bootstrap(), &target.bootstrap());
    let metadata = block_on(wire_cluster(&target.bootstrap()).metadata(None)).expect("it answers");
    let replicas = |topic: &str| metadata.topics[topic].partitions[0].replicas.len();
    assert_eq!(topics.map(replicas), [1, 1, 3, 1]);
}

/// The topics that could be made.
pub(crate) fn policies_are_obeyed(source: &str, target: &str) -> [&'static str; 4] {
    let topics = [
        "policy.named",
        "policy.quiet",
        "policy.three",
        "policy.default",
    ];
    let never = "policy.never";
    let settings = [("segment.bytes", "2000000"), ("segment.ms", "1000000")];
    for topic in topics.into_iter().chain([never]) {
        create_topic(source, topic, 1, &settings);
        Load::new(topic, 10).produce(source);
    }
    // What is left out is set by the follower, if it may be.
    let lines = "configs: { enabled: false }";
    let twinlog = Twinlog::start(&flow_config("policy", "policy[.].*", source, target, lines));
    let made = topics.map(|topic| {
        await_same(source, target, topic, DEADLINE);
        let own = topic_configs::own(target, topic);
        settings.map(|(key, _)| own.contains_key(key))
    });
    assert_eq!(
        made,
        [[false, true], [true, false], [true, true], [true, true]]
    );
    let log = twinlog.log();
    for words in ["segment.bytes must not be set", "not with these settings"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let status = twinlog.wait_until(DEADLINE, "what can't be made says why", |status| {
        partition_status(status, never, 0)["reason"] == "not_created"
    });
    let found = partition_status(&status, never, 0);
    let detail = found["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("ask the platform team"), "{found:#}");
    topics
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

/// Made while a broker was away, it has one replica fewer for ever; an operator can see it.
#[test]
fn a_copy_with_too_few_replicas_is_named() {
    let three = |name: &str| {
        FakeCluster::start(Options {
            brokers: 3,
            default_replication: 3,
            ..options(name)
        })
    };
    let (source, target_cluster) = (three("whole"), three("restarting"));
    let (source, target) = (source.bootstrap(), target_cluster.bootstrap());
    let topics = ["few.early", "few.late"];
    for topic in topics {
        create_topic(&source, topic, 2, &[]);
        Load::new(topic, 10).produce(&source);
    }
    let config = flow_config("few", "few[.]early", &source, &target, OFTEN);
    let mut twinlog = Twinlog::start(&config);
    await_same(&source, &target, topics[0], DEADLINE);
    assert!(twinlog.terminate().success());
    target_cluster.control(|state| state.stop_broker(3));
    let config = std::fs::read_to_string(twinlog.config_file()).expect("it is ours");
    let both = config.replace("few[.]early", "few[.].*");
    std::fs::write(twinlog.config_file(), both).expect("it is ours");
    twinlog.launch();
    await_same(&source, &target, topics[1], DEADLINE);
    let lacking = |all: &[Value]| -> Vec<String> {
        let few = all.iter().filter(|it| it["detail"] == "replicas");
        few.map(|it| {
            format!(
                "{} {} {} {}",
                it["subject"], it["target"], it["source"], it["action"]
            )
        })
        .collect()
    };
    let planned = || -> Vec<String> {
        let output = twinlog.command("plan", &["--json"]);
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        lacking(answer["changes"].as_array().expect("a list"))
    };
    assert_eq!(
        planned(),
        [""; 0],
        "nothing can be done while the broker is away"
    );
    target_cluster.control(|state| state.start_broker(3));
    let few = [r#""topic few.late" "2" "3" "operator""#];
    assert_eq!(planned(), few);
    twinlog.wait_until(DEADLINE, "the status names it", |status| {
        let attention = &status["flows"][0]["metadata"]["attention"];
        attention.as_array().is_some_and(|all| lacking(all) == few)
    });
}

/// Brokers from 3.7 on ask for no more in-sync replicas than there are.
#[test]
fn fewer_replicas_than_min_in_sync_are_no_obstacle_to_a_failover() {
    let source = fake_pair().0.bootstrap();
    let target = FakeCluster::start(Options {
        broker_configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
        ..options("two-in-sync")
    });
    let topic = "lone";
    create_topic(&source, topic, 1, &[]);
    Load::new(topic, 10).produce(&source);
    let config = flow_config("lone", topic, &source, &target.bootstrap(), OFTEN);
    let twinlog = Twinlog::start(&config);
    await_same(&source, &target.bootstrap(), topic, DEADLINE);
    let shown = words(&failover(twinlog.config_file(), &[]));
    assert!(!shown.contains("min.insync.replicas"), "{shown}");
}

/// Older brokers refuse everything for a partition with fewer replicas, so the copy's setting is lowered to what it has.
#[test]
fn fewer_replicas_than_older_brokers_ask_for_are_no_obstacle_to_the_copy() {
    let source = fake_pair().0.bootstrap();
    let target = FakeCluster::start(Options {
        broker_configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
        before_3_7: true,
        ..options("old-two-in-sync")
    });
    let to = target.bootstrap();
    let topics = ["lone.new", "lone.there", "lone.alone"];
    for topic in topics {
        create_topic(&source, topic, 1, &[]);
        Load::new(topic, 10).produce(&source);
    }
    create_topic(&to, topics[1], 1, &[]);
    // What follows nothing gets it when it is made.
    let config = flow_config("lone", "lone[.](new|there)", &source, &to, OFTEN);
    let _twinlog = Twinlog::start(&config);
    for topic in &topics[..2] {
        await_same(&source, &to, topic, DEADLINE);
    }
    let alone = "configs: { enabled: false }";
    let config = flow_config("alone", "lone[.]alone", &source, &to, alone);
    let twinlog = Twinlog::start(&config);
    await_same(&source, &to, topics[2], DEADLINE);
    let shown = words(&failover(twinlog.config_file(), &[]));
    assert!(!shown.contains("min.insync.replicas"), "{shown}");
    for topic in topics {
        let configs = target.look(|state| state.topics[topic].configs.clone());
        assert_eq!(
            configs.get("min.insync.replicas").map(String::as_str),
            Some("1")
        );
    }
}

/// The cluster's owner doesn't want compacted topics, but for the state topic.
fn no_compaction(name: &str, configs: &BTreeMap<String, String>) -> Option<String> {
    let policy = configs.get("cleanup.policy")?;
    if !name.starts_with("uncompacted.") {
        return None;
    }
    policy
        .contains("compact")
        .then(|| "cleanup.policy: topics are not compacted here".to_owned())
}

/// By its retention the copy would lose keys that the source keeps for ever.
#[test]
fn a_copy_that_may_not_be_compacted_loses_no_key_for_its_age() {
    let source = fake_pair().0;
    let target = FakeCluster::start(Options {
        creation_policy: Some(|name, new| no_compaction(name, &new.configs)),
        alter_policy: Some(no_compaction),
        ..options("no-compaction")
    });
    let (from, to) = (source.bootstrap(), target.bootstrap());
    let week = ("retention.ms", "604800000");
    create_topic(
        &from,
        "uncompacted.new",
        1,
        &[("cleanup.policy", "compact"), week],
    );
    create_topic(
        &from,
        "uncompacted.later",
        1,
        &[week, ("retention.bytes", "1000000000")],
    );
    create_topic(
        &from,
        "uncompacted.both",
        1,
        &[("cleanup.policy", "compact,delete"), week],
    );
    let topics = ["uncompacted.new", "uncompacted.later", "uncompacted.both"];
    for topic in topics {
        Load::new(topic, 10).produce(&from);
    }
    let config = flow_config("uncompacted", "uncompacted[.].*", &from, &to, OFTEN);
    let mut twinlog = Twinlog::start(&config);
    for topic in topics {
        await_same(&from, &to, topic, DEADLINE);
    }
    let effective = |topic: &str, key: &str| topic_configs::list(&to, topic)[key].value.clone();
    let keeps_all = |topic: &str| {
        let retention = ["retention.ms", "retention.bytes"];
        retention
            .iter()
            .all(|key| effective(topic, key).as_deref() == Some("-1"))
    };
    assert!(keeps_all(topics[0]), "from the beginning");
    assert_eq!(
        effective(topics[1], "retention.ms").as_deref(),
        Some(week.1)
    );
    topic_configs::set(&from, topics[1], "cleanup.policy", "compact");
    eventually(DEADLINE, "nothing goes by age any more", || {
        if keeps_all(topics[1]) {
            Ok(())
        } else {
            Err(topic_configs::own(&to, topics[1]))
        }
    });
    // Where the source deletes by age as well, the copy does.
    assert_eq!(
        effective(topics[2], "retention.ms").as_deref(),
        Some(week.1)
    );
    let status = await_looks(&twinlog, 3);
    assert!(keeps_all(topics[0]) && keeps_all(topics[1]));
    let attention = &status["flows"][0]["metadata"]["attention"];
    let attention = attention.as_array().expect("a list").iter();
    let of_new: Vec<&Value> = attention
        .filter(|it| it["subject"] == "topic uncompacted.new")
        .collect();
    assert_eq!(of_new.len(), 1, "{status:#}");
    assert_eq!(of_new[0]["detail"], "cleanup.policy");
    let hint = of_new[0]["failure"]["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("keeps every record"), "{hint}");

    // The next process knows nothing of the refusal, and takes nothing away before it hears it again.
    assert!(twinlog.terminate().success());
    target.control(|state| {
        state.options.alter_policy = Some(|name, changed| {
            let narrows = changed.get("retention.ms").is_some_and(|it| it != "-1");
            let words = narrows.then(|| "retention.ms was narrowed".to_owned());
            words.or_else(|| no_compaction(name, changed))
        });
    });
    twinlog.launch();
    await_looks(&twinlog, 4);
    assert!(!twinlog.log().contains("was narrowed"), "{}", twinlog.log());
    assert!(keeps_all(topics[0]) && keeps_all(topics[1]));
    // The plan of a failover says so.
    let shown = words(&failover(twinlog.config_file(), &["--fence", "manual"]));
    assert!(shown.contains("uncompacted.new: cleanup.policy"), "{shown}");

    target.control(|state| state.options.alter_policy = None);
    for topic in &topics[..2] {
        let wanted = [("cleanup.policy", "compact"), week];
        eventually(DEADLINE, "it is as on the source", || {
            let own = topic_configs::own(&to, topic);
            let is_so = wanted
                .iter()
                .all(|(key, value)| own.get(*key).is_some_and(|it| it == value));
            if is_so { Ok(()) } else { Err(own) }
        });
    }
}

/// `run` keeps its failures for itself: a plan finds what differs, and says it.
#[test]
fn a_failover_s_plan_names_the_settings_that_the_standby_refuses() {
    let source = fake_pair().0;
    let target = FakeCluster::start(Options {
        alter_policy: Some(|_, changed| {
            changed
                .contains_key("segment.ms")
                .then(|| "segment.ms is ours".to_owned())
        }),
        ..options("refusing")
    });
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, "refused", 1, &[]);
    Load::new("refused", 10).produce(&from);
    let mut twinlog = Twinlog::start(&flow_config("refused", "refused", &from, &to, OFTEN));
    await_same(&from, &to, "refused", DEADLINE);
    let shown = words(&failover(twinlog.config_file(), &["--fence", "manual"]));
    assert!(!shown.contains("segment.ms"), "{shown}");
    topic_configs::set(&from, "refused", "segment.ms", "7000000");
    await_looks(&twinlog, 2);
    for is_running in [true, false] {
        let shown = words(&failover(twinlog.config_file(), &["--fence", "manual"]));
        assert!(shown.contains("topic refused: segment.ms"), "{shown}");
        if is_running {
            assert!(twinlog.terminate().success());
        }
    }
}
