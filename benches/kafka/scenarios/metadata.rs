//! A thousand topics with twenty configs each, and five thousand ACLs: brought over, compared,
//! followed. Only Twinlog takes part: MirrorMaker 2 sends every config of every topic at each look
//! and knows no comparison.

use std::time::{Duration, Instant};

use kafka_protocol::messages::CreateAclsRequest;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{CreateTopicsRequest, IncrementalAlterConfigsRequest};
use kafka_protocol::protocol::StrBytes;
use serde_json::Value;

use crate::brokers;
use crate::contestant::{Contestant, Running};
use crate::options::Options;
use crate::report::{Bar, Metric, Number, Numbers, Outcome};
use crate::scenarios::PREFIX;
use crate::support::flow::{block_on, wire_cluster};
use crate::support::{Cluster, Twinlog};
use crate::usage;

const TOPICS: usize = 1_000;
const ACLS: usize = 5_000;
/// In one request; a KRaft controller takes 10,000 records at a time.
const CHUNK: usize = 250;
/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// Twenty overrides, none of them the default.
const CONFIGS: [(&str, &str); 20] = [
    ("retention.ms", "86400001"),
    ("retention.bytes", "1073741825"),
    ("segment.bytes", "16777217"),
    ("segment.ms", "3600001"),
    ("segment.jitter.ms", "1001"),
    ("segment.index.bytes", "1048577"),
    ("index.interval.bytes", "8192"),
    ("max.message.bytes", "2000000"),
    ("min.cleanable.dirty.ratio", "0.4"),
    ("delete.retention.ms", "3600002"),
    ("min.compaction.lag.ms", "1002"),
    ("max.compaction.lag.ms", "86400003"),
    ("file.delete.delay.ms", "30001"),
    ("flush.messages", "1000003"),
    ("flush.ms", "3600004"),
    ("cleanup.policy", "compact,delete"),
    ("compression.type", "lz4"),
    ("compression.lz4.level", "3"),
    ("compression.gzip.level", "3"),
    ("compression.zstd.level", "5"),
];

const METRICS: [Metric; 8] = [
    Metric {
        key: "brought_seconds",
        title: "start to all topics, configs and ACLs on the target, s",
        bar: Bar::None,
    },
    Metric {
        key: "compared_seconds",
        title: "a first comparison that finds everything equal, s",
        bar: Bar::AtMost(5.0),
    },
    Metric {
        key: "applied_again",
        title: "changes made by it and by those after it",
        bar: Bar::AtMost(0.0),
    },
    Metric {
        key: "next_comparison_seconds",
        title: "the comparisons after it, s",
        bar: Bar::None,
    },
    Metric {
        key: "config_change_seconds",
        title: "a config's change on the source to the target, s",
        bar: Bar::AtMost(5.0),
    },
    Metric {
        key: "acl_change_seconds",
        title: "a new ACL on the source to the target, s",
        bar: Bar::AtMost(5.0),
    },
    Metric {
        key: "cores",
        title: "at rest: CPU of Twinlog, cores",
        bar: Bar::None,
    },
    Metric {
        key: "broker_cores",
        title: "at rest: CPU of both brokers together, cores",
        bar: Bar::None,
    },
];

/// Runs it.
pub fn run(options: &Options) -> Outcome {
    let (topics, acls, window) = if options.quick {
        (TOPICS / 10, ACLS / 10, 15)
    } else {
        (TOPICS, ACLS, 30)
    };
    let numbers = if options.contestants.contains(&Contestant::Twinlog) {
        vec![(Contestant::Twinlog, measure(topics, acls, window))]
    } else {
        Vec::new()
    };
    Outcome {
        scenario: "metadata",
        description: format!(
            "{topics} topics with {} configs each, {acls} ACLs (a fifth of them writes, held)",
            CONFIGS.len()
        ),
        metrics: &METRICS,
        numbers,
    }
}

fn measure(topics: usize, acls: usize, window: u64) -> Numbers {
    let start = |name| {
        let mut options = brokers::options(name);
        options.authorizer = true;
        Cluster::start(brokers::VERSION, options)
    };
    let (source, target) = (start("source"), start("target"));
    create_topics(&source.bootstrap(), topics);
    create_acls(&source.bootstrap(), 0, acls);

    let begun = Instant::now();
    let mut running = Contestant::Twinlog.start(&source.bootstrap(), &target.bootstrap(), PREFIX);
    await_settled(twinlog(&running), topics, acls);
    let brought_seconds = begun.elapsed().as_secs_f64();

    // A new process knows nothing of the last comparison.
    running.kill9();
    running.restart();
    let first = await_compared(twinlog(&running), topics, 0);
    let compared_seconds = took_seconds(&first);
    let next = await_compared(twinlog(&running), topics, compared_at(&first));

    let config_change_seconds = config_change(&source, &target);
    let before = applied(&report(twinlog(&running)).expect("it reported before"));
    let acl_change_seconds = acl_change(&source, &target, acls);
    let applied_again = applied(&first) + applied(&next);
    eprintln!(
        "   applied while following two changes: {}",
        applied(&report(twinlog(&running)).expect("it reported before")) - before
    );

    let processes = [running.id(), source.process_id(1), target.process_id(1)];
    let used = processes.map(usage::of);
    // Time is what is measured here: there is no condition to wait for.
    std::thread::sleep(Duration::from_secs(window));
    let cores = |index: usize| {
        let (before, after) = (used[index], usage::of(processes[index]));
        (after.cpu_seconds - before.cpu_seconds) / (after.at - before.at).as_secs_f64()
    };
    Numbers::from([
        ("brought_seconds", Number::Is(brought_seconds)),
        ("compared_seconds", Number::Is(compared_seconds)),
        ("applied_again", Number::Is(applied_again as f64)),
        ("next_comparison_seconds", Number::Is(took_seconds(&next))),
        ("config_change_seconds", Number::Is(config_change_seconds)),
        ("acl_change_seconds", Number::Is(acl_change_seconds)),
        ("cores", Number::Is(cores(0))),
        ("broker_cores", Number::Is(cores(1) + cores(2))),
    ])
}

fn twinlog(running: &Running) -> &Twinlog {
    match running {
        Running::Twinlog(twinlog) => twinlog,
        Running::Process(_) => unreachable!("only Twinlog takes part"),
    }
}

/// The flow's last comparison, if there was one.
fn report(twinlog: &Twinlog) -> Option<Value> {
    let (_, body) = twinlog.get("/api/v1/metadata").ok()?;
    let mut answer: Value = serde_json::from_str(&body).ok()?;
    let report = answer["flows"].get_mut(0)?.take();
    Some(report).filter(|report| report["obstacles"].as_array().is_some_and(Vec::is_empty))
}

fn compared_at(report: &Value) -> i64 {
    report["compared_at_ms"].as_i64().unwrap_or(0)
}

fn took_seconds(report: &Value) -> f64 {
    report["took_ms"].as_f64().unwrap_or(f64::NAN) / 1_000.0
}

fn applied(report: &Value) -> u64 {
    let by_kind = report["applied"].as_object().into_iter().flatten();
    by_kind.filter_map(|(_, number)| number.as_u64()).sum()
}

/// How many differences are still to be followed, and how many are held.
fn drift(report: &Value) -> (usize, usize) {
    let drift = report["drift"].as_array().cloned().unwrap_or_default();
    let count = |actions: &[&str]| {
        let is_one = |entry: &&Value| actions.iter().any(|action| entry["action"] == **action);
        drift.iter().filter(is_one).count()
    };
    (count(&["add", "change", "remove"]), count(&["hold"]))
}

/// Every topic is there, nothing is left to follow, and a fifth of the ACLs is held.
fn await_settled(twinlog: &Twinlog, topics: usize, acls: usize) {
    let begun = Instant::now();
    loop {
        let copied = twinlog.status()["flows"][0]["topics"]
            .as_array()
            .map_or(0, Vec::len);
        let seen = report(twinlog).map(|report| drift(&report));
        if copied == topics && seen.is_some_and(|(open, held)| open == 0 && held >= acls / 5) {
            return;
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "{copied} topics, {seen:?}:\n{}",
            twinlog.log()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits for a comparison of all topics after the one at `after_ms`.
fn await_compared(twinlog: &Twinlog, topics: usize, after_ms: i64) -> Value {
    let begun = Instant::now();
    let mut all_known_at = None;
    loop {
        let copied = twinlog.status()["flows"][0]["topics"]
            .as_array()
            .map_or(0, Vec::len);
        let found = report(twinlog);
        if copied == topics {
            let known_at = *all_known_at
                .get_or_insert_with(|| found.as_ref().map_or(0, compared_at).max(after_ms));
            // The one that was under way when the last topic was opened may have missed it.
            let later = found.filter(|found| compared_at(found) > known_at);
            if let Some(found) = later {
                return found;
            }
        }
        assert!(begun.elapsed() < DEADLINE, "{}", twinlog.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn name(topic: usize) -> String {
    format!("{PREFIX}metadata-{topic}")
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn create_topics(bootstrap: &str, topics: usize) {
    let cluster = wire_cluster(bootstrap);
    let configs: Vec<_> = CONFIGS
        .iter()
        .map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)))
        })
        .collect();
    block_on(async {
        cluster.metadata(None).await.expect("the cluster answers");
        let numbers: Vec<usize> = (0..topics).collect();
        for chunk in numbers.chunks(CHUNK) {
            let topics = chunk.iter().map(|number| {
                CreatableTopic::default()
                    .with_name(text(&name(*number)).into())
                    .with_num_partitions(1)
                    .with_replication_factor(1)
                    .with_configs(configs.clone())
            });
            let request = CreateTopicsRequest::default()
                .with_topics(topics.collect())
                .with_timeout_ms(60_000);
            let connection = cluster.any_connection().await.expect("a broker answers");
            let response = connection.call(request, 7).await.expect("an answer");
            for topic in response.topics {
                assert_eq!(topic.error_code, 0, "{:?}", topic.error_message);
            }
        }
    });
}

/// ACLs number `from` to `to`: one user in five writes, the others read.
fn create_acls(bootstrap: &str, from: usize, to: usize) {
    let cluster = wire_cluster(bootstrap);
    let acl = |number: usize| {
        AclCreation::default()
            .with_resource_type(2)
            .with_resource_pattern_type(3)
            .with_resource_name(text(&name(number % TOPICS)))
            .with_principal(text(&format!("User:user-{number}")))
            .with_host(text("*"))
            .with_operation(if number.is_multiple_of(5) { 4 } else { 3 })
            .with_permission_type(3)
    };
    block_on(async {
        cluster.metadata(None).await.expect("the cluster answers");
        let numbers: Vec<usize> = (from..to).collect();
        for chunk in numbers.chunks(CHUNK) {
            let request = CreateAclsRequest::default()
                .with_creations(chunk.iter().map(|number| acl(*number)).collect());
            let connection = cluster.any_connection().await.expect("a broker answers");
            let response = connection.call(request, 3).await.expect("an answer");
            for result in response.results {
                assert_eq!(result.error_code, 0, "{:?}", result.error_message);
            }
        }
    });
}

fn config_change(source: &Cluster, target: &Cluster) -> f64 {
    const KEY: &str = "retention.ms";
    const VALUE: &str = "172800001";
    let (source, target) = (
        wire_cluster(&source.bootstrap()),
        wire_cluster(&target.bootstrap()),
    );
    let topic = name(7);
    block_on(async {
        source.metadata(None).await.expect("the cluster answers");
        target.metadata(None).await.expect("the cluster answers");
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(&topic))
                .with_configs(vec![
                    AlterableConfig::default()
                        .with_name(text(KEY))
                        .with_config_operation(0)
                        .with_value(Some(text(VALUE))),
                ]),
        ]);
        let connection = source.any_connection().await.expect("a broker answers");
        connection.call(request, 1).await.expect("an answer");
        let begun = Instant::now();
        loop {
            let found =
                twinlog::wire::describe_topic_configs(&target, std::slice::from_ref(&topic)).await;
            let value = found[&topic]
                .as_ref()
                .ok()
                .and_then(|values| values[KEY].value.clone());
            if value.as_deref() == Some(VALUE) {
                return begun.elapsed().as_secs_f64();
            }
            assert!(begun.elapsed() < DEADLINE, "{value:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

fn acl_change(source: &Cluster, target: &Cluster, acls: usize) -> f64 {
    use kafka_protocol::messages::DescribeAclsRequest;
    // Not a multiple of five: a reader.
    let number = acls + 1;
    create_acls(&source.bootstrap(), number, number + 1);
    let begun = Instant::now();
    let target = wire_cluster(&target.bootstrap());
    block_on(async {
        target.metadata(None).await.expect("the cluster answers");
        loop {
            let request = DescribeAclsRequest::default()
                .with_resource_type_filter(1)
                .with_resource_name_filter(None)
                .with_host_filter(None)
                .with_pattern_type_filter(1)
                .with_principal_filter(Some(text(&format!("User:user-{number}"))))
                .with_operation(1)
                .with_permission_type(1);
            let connection = target.any_connection().await.expect("a broker answers");
            let response = connection.call(request, 3).await.expect("an answer");
            if !response.resources.is_empty() {
                return begun.elapsed().as_secs_f64();
            }
            assert!(begun.elapsed() < DEADLINE, "the ACL doesn't come");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}
