//! Topic configs follow, between real clusters. What the target has is read by librdkafka.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use serde_json::json;
use support::admin::client;
use support::flow::{block_on, wire_cluster, with_state};
use support::{Cluster, ClusterOptions, KafkaVersion, Twinlog, create_topic, eventually, pair};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use twinlog::config;
use twinlog::metadata::{self, Context, MirroredTopic, Topics};
use twinlog::state::{HeldConfigs, StateStore, keys};
use twinlog::telemetry::metadata::{DriftAction, DriftKind, MetadataReport};
use twinlog::telemetry::progress::FlowProgress;
use twinlog::wire::{self, TopicChanges};

/// The promise: a change on the source is on the target within this time.
const PROMISED: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(30);

/// The copied topics, named alike on both sides.
#[derive(Default)]
struct Copied {
    topics: Mutex<Vec<MirroredTopic>>,
    changed: Mutex<Vec<String>>,
}

impl Copied {
    fn add(&self, topic: &str, target_replicas: usize) {
        self.topics.lock().expect("no panic").push(MirroredTopic {
            source_topic: topic.to_owned(),
            target_topic: topic.to_owned(),
            target_replicas,
        });
    }
}

impl Topics for Copied {
    fn mirrored(&self) -> Vec<MirroredTopic> {
        self.topics.lock().expect("no panic").clone()
    }

    fn drift(&self) -> Vec<twinlog::telemetry::metadata::Drift> {
        Vec::new()
    }

    fn configs_changed(&self, source_topics: &[String]) {
        let mut changed = self.changed.lock().expect("no panic");
        changed.extend(source_topics.iter().cloned());
    }
}

/// Metadata that is followed in this process, without a copy.
struct Following {
    progress: Arc<FlowProgress>,
    copied: Arc<Copied>,
    cancel: CancellationToken,
    _runtime: Runtime,
}

impl Following {
    /// `lines` are more lines of the flow.
    fn start(flow: &str, source: &str, target: &str, lines: &str, topics: &[&str]) -> Self {
        let copied = Arc::new(Copied::default());
        for topic in topics {
            copied.add(topic, 1);
        }
        Self::with(flow, source, target, lines, copied)
    }

    fn with(flow: &str, source: &str, target: &str, lines: &str, copied: Arc<Copied>) -> Self {
        let text = Twinlog::config(source, target, lines);
        let mut config = config::parse(&text, "test.yaml").unwrap_or_else(|e| panic!("{e}"));
        let rules = config.flows.remove("dr").expect("it is there");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let (source, target) = (wire_cluster(source), wire_cluster(target));
        let store = runtime
            .block_on(StateStore::open(&target, flow))
            .expect("the state topic is made");
        let progress = Arc::new(FlowProgress::new(flow, "primary", "standby"));
        let context = Context {
            flow: flow.to_owned(),
            source_name: "primary".to_owned(),
            source,
            target,
            store: Some(Arc::new(store)),
            selected: rules.topics,
            rename: rules.rename,
            topics: copied.clone(),
            rules: rules.metadata,
            own_principal: None,
            own_client_id: "test".to_owned(),
            apply: true,
        };
        let cancel = CancellationToken::new();
        runtime.spawn(metadata::follow(context, progress.clone(), cancel.clone()));
        Self {
            progress,
            copied,
            cancel,
            _runtime: runtime,
        }
    }

    fn report(&self) -> Arc<MetadataReport> {
        eventually(DEADLINE, "a report is there", || {
            self.progress.metadata().ok_or("none")
        })
    }

    fn applied(&self) -> u64 {
        let report = self.report();
        report
            .applied
            .get(&DriftKind::TopicConfig)
            .copied()
            .unwrap_or(0)
    }

    /// Waits until a pass that began after this call is through.
    fn await_next_pass(&self) -> Arc<MetadataReport> {
        let first = self.report().compared_at_ms;
        let next = |after: i64| {
            eventually(DEADLINE, "a pass is through", || {
                let report = self.report();
                if report.compared_at_ms > after {
                    Ok(report)
                } else {
                    Err(())
                }
            })
        };
        next(next(first).compared_at_ms)
    }

    fn await_drift(
        &self,
        what: &str,
        wanted: impl Fn(&MetadataReport) -> bool,
    ) -> Arc<MetadataReport> {
        eventually(DEADLINE, what, || {
            let report = self.report();
            if wanted(&report) {
                Ok(report)
            } else {
                Err(report)
            }
        })
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A topic's effective configs: value, and whether it is set on the topic itself.
fn configs(bootstrap: &str, topic: &str) -> BTreeMap<String, (String, bool)> {
    let admin: AdminClient<DefaultClientContext> =
        client(bootstrap).create().expect("valid settings");
    let asked = [ResourceSpecifier::Topic(topic)];
    let answer = block_on(admin.describe_configs(&asked, &AdminOptions::new()));
    let resource = answer.expect("an answer").remove(0).expect("the topic");
    let entries = resource.entries.into_iter().map(|entry| {
        let is_override = entry.source == ConfigSource::DynamicTopic;
        (entry.name, (entry.value.unwrap_or_default(), is_override))
    });
    entries.collect()
}

fn overridden(bootstrap: &str, topic: &str, key: &str) -> Option<String> {
    let (value, is_override) = configs(bootstrap, topic).remove(key)?;
    is_override.then_some(value)
}

/// Waits until a key has this override, or none.
fn await_override(
    bootstrap: &str,
    topic: &str,
    key: &str,
    wanted: Option<&str>,
    deadline: Duration,
) {
    eventually(
        deadline,
        &format!("{topic}: {key} is {wanted:?}"),
        || match overridden(bootstrap, topic, key) {
            found if found.as_deref() == wanted => Ok(()),
            found => Err(found),
        },
    );
}

/// Sets or removes overrides.
fn alter(bootstrap: &str, topic: &str, changes: &[(&str, Option<&str>)]) {
    let changes = changes
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)));
    let changes = TopicChanges {
        topic: topic.to_owned(),
        changes: changes.collect(),
    };
    let cluster = wire_cluster(bootstrap);
    let result = block_on(wire::alter_topic_configs(&cluster, &[changes]));
    result.expect("an answer").remove(0).expect("changed");
}

fn both(topic: &str, on_source: &[(&str, &str)], on_target: &[(&str, &str)]) -> (String, String) {
    let (source, target) = pair(KafkaVersion::V4_3);
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, topic, 1, on_source);
    create_topic(&target, topic, 1, on_target);
    (source, target)
}

#[test]
fn a_change_an_addition_and_a_removal_arrive_in_time() {
    let topic = "follows";
    let set = [("segment.bytes", "2000000"), ("retention.ms", "3600000")];
    let (source, target) = both(topic, &set, &[("flush.messages", "7")]);
    let following = Following::start("follows", &source, &target, "", &[topic]);
    await_override(&target, topic, "segment.bytes", Some("2000000"), PROMISED);
    await_override(&target, topic, "retention.ms", Some("3600000"), PROMISED);
    // What the source doesn't have is no override of the copy's.
    await_override(&target, topic, "flush.messages", None, PROMISED);

    alter(&source, topic, &[("segment.bytes", Some("3000000"))]);
    await_override(&target, topic, "segment.bytes", Some("3000000"), PROMISED);
    alter(
        &source,
        topic,
        &[("cleanup.policy", Some("compact,delete"))],
    );
    await_override(
        &target,
        topic,
        "cleanup.policy",
        Some("compact,delete"),
        PROMISED,
    );
    alter(
        &source,
        topic,
        &[("segment.bytes", None), ("retention.ms", None)],
    );
    await_override(&target, topic, "segment.bytes", None, PROMISED);
    await_override(&target, topic, "retention.ms", None, PROMISED);
    let changed = following.copied.changed.lock().expect("no panic").clone();
    assert_eq!(
        changed,
        [topic],
        "cleanup.policy alone changes the copy's rules"
    );
}

#[test]
fn a_second_pass_does_nothing() {
    let topic = "quiet";
    let set = [
        ("cleanup.policy", "delete,compact"),
        ("segment.ms", "1000000"),
    ];
    let (source, target) = both(topic, &set, &[]);
    let lines = "metadata_interval: 200ms";
    let following = Following::start("quiet", &source, &target, lines, &[topic]);
    await_override(&target, topic, "segment.ms", Some("1000000"), DEADLINE);
    following.await_next_pass();
    let applied = following.applied();
    assert!(applied >= 2, "{applied}");
    let before = configs(&target, topic);
    let mut report = following.report();
    for _ in 0..3 {
        report = following.await_next_pass();
    }
    assert_eq!(following.applied(), applied);
    assert_eq!(configs(&target, topic), before);
    let drift: Vec<_> = report
        .drift
        .iter()
        .filter(|it| it.subject == "topic quiet")
        .collect();
    assert!(drift.is_empty(), "{drift:#?}");
    // A change that comes behind many quiet passes is still seen.
    alter(&source, topic, &[("segment.ms", Some("2000000"))]);
    await_override(&target, topic, "segment.ms", Some("2000000"), PROMISED);
    // One on the target too.
    alter(&target, topic, &[("segment.ms", Some("5"))]);
    await_override(&target, topic, "segment.ms", Some("2000000"), PROMISED);
}

/// As MirrorMaker 2's `testSyncTopicConfigs`.
#[test]
fn what_is_ignored_differs_and_stays() {
    let topic = "excluded";
    let on_source = [
        ("delete.retention.ms", "1000"),
        ("retention.bytes", "1000"),
        ("unclean.leader.election.enable", "true"),
        ("segment.bytes", "2000000"),
    ];
    let on_target = [
        ("delete.retention.ms", "2000"),
        ("retention.bytes", "2000"),
        ("follower.replication.throttled.replicas", "0:1"),
    ];
    let (source, target) = both(topic, &on_source, &on_target);
    let lines = "metadata_interval: 200ms\n\
        configs: { ignore: [\"delete.*\"], fixed: { segment.bytes: 4000000, segment.ms: 7 } }";
    let following = Following::start("excluded", &source, &target, lines, &[topic]);
    await_override(&target, topic, "retention.bytes", Some("1000"), DEADLINE);
    following.await_next_pass();
    let found = configs(&target, topic);
    assert_eq!(found["delete.retention.ms"].0, "2000");
    assert_eq!(found["unclean.leader.election.enable"].0, "false");
    assert_eq!(found["follower.replication.throttled.replicas"].0, "0:1");
    assert_eq!(found["segment.bytes"], ("4000000".to_owned(), true));
    assert_eq!(found["segment.ms"], ("7".to_owned(), true));
}

/// As MirrorMaker 2's `testReplicateTargetDefault`, and what it doesn't do: a default of the
/// source that readers would notice.
#[test]
fn a_default_of_the_source_that_differs_is_written_out() {
    let options = ClusterOptions::named("other-defaults")
        .with("log.retention.ms", 86_400_000)
        .with("message.max.bytes", 2_000_000)
        .with("log.segment.bytes", 50_000_000);
    let source = Cluster::start(KafkaVersion::V3_9, options);
    let source = source.bootstrap();
    let target = pair(KafkaVersion::V4_3).1.bootstrap();
    for (topic, on_source) in [
        ("defaults.none", &[][..]),
        (
            "defaults.removed",
            &[("segment.ms", "1000000"), ("cleanup.policy", "compact")][..],
        ),
    ] {
        create_topic(&source, topic, 1, on_source);
        create_topic(&target, topic, 1, &[]);
    }
    let topics = ["defaults.none", "defaults.removed"];
    let following = Following::start("defaults", &source, &target, "", &topics);
    for topic in topics {
        await_override(&target, topic, "retention.ms", Some("86400000"), PROMISED);
        await_override(
            &target,
            topic,
            "max.message.bytes",
            Some("2000000"),
            PROMISED,
        );
        // Segments are the target's own affair.
        assert_eq!(overridden(&target, topic, "segment.bytes"), None);
    }
    let topic = "defaults.removed";
    await_override(&target, topic, "cleanup.policy", Some("compact"), PROMISED);
    alter(
        &source,
        topic,
        &[("segment.ms", None), ("cleanup.policy", None)],
    );
    await_override(&target, topic, "segment.ms", None, PROMISED);
    await_override(&target, topic, "cleanup.policy", None, PROMISED);

    // A 4.x target would refuse timestamps an hour ahead, a 3.x source takes them.
    let held = await_held(&target, "defaults", topic);
    let no_limit = i64::MAX.to_string();
    assert_eq!(
        held.values["message.timestamp.after.max.ms"],
        Some(no_limit)
    );
    assert_eq!(held.values["message.timestamp.type"], None);
    let report = following.report();
    assert!(report.obstacles.is_empty(), "{report:#?}");
}

fn await_held(target: &str, flow: &str, topic: &str) -> HeldConfigs {
    eventually(DEADLINE, "what is held is stored", || {
        let key = keys::held_configs(flow, topic);
        let held = with_state(target, |store| store.get::<HeldConfigs>(&key));
        held.expect("it can be read").ok_or("nothing")
    })
}

#[test]
fn what_a_mirror_must_have_is_enforced_and_the_sources_value_held() {
    let topic = "append-time";
    let on_source = [("message.timestamp.type", "LogAppendTime")];
    let (source, target) = both(topic, &on_source, &on_source);
    let lines = "metadata_interval: 200ms\nconfigs: { follow: [\"message.*\"] }";
    let following = Following::start("append-time", &source, &target, lines, &[topic]);
    await_override(
        &target,
        topic,
        "message.timestamp.type",
        Some("CreateTime"),
        DEADLINE,
    );
    let no_limit = i64::MAX.to_string();
    let key = "message.timestamp.after.max.ms";
    await_override(&target, topic, key, Some(&no_limit), DEADLINE);
    let report = following.await_drift("it is shown as held", |report| {
        report
            .drift
            .iter()
            .any(|drift| drift.action == DriftAction::Hold)
    });
    let shown = serde_json::to_value(&report.drift).expect("JSON");
    assert_eq!(
        shown[0]["detail"],
        json!("message.timestamp.type"),
        "{shown:#}"
    );
    assert_eq!(shown[0]["source"], json!("LogAppendTime"), "{shown:#}");
    let held = await_held(&target, "append-time", topic);
    let kind = Some("LogAppendTime".to_owned());
    assert_eq!(held.values["message.timestamp.type"], kind);
    assert_eq!(held.values[key], None, "both have the same default");

    alter(&source, topic, &[("message.timestamp.type", None)]);
    eventually(PROMISED, "what is held follows", || {
        let held = await_held(&target, "append-time", topic);
        match &held.values["message.timestamp.type"] {
            None => Ok(()),
            other => Err(other.clone()),
        }
    });
    assert_eq!(
        overridden(&target, topic, "message.timestamp.type").as_deref(),
        Some("CreateTime")
    );
}

#[test]
fn min_insync_replicas_is_no_more_than_the_replicas() {
    let topic = "in-sync";
    let (source, target) = both(topic, &[("min.insync.replicas", "3")], &[]);
    let copied = Arc::new(Copied::default());
    copied.add(topic, 2);
    let _following = Following::with("in-sync", &source, &target, "", copied);
    await_override(&target, topic, "min.insync.replicas", Some("2"), PROMISED);
    alter(&source, topic, &[("min.insync.replicas", Some("1"))]);
    await_override(&target, topic, "min.insync.replicas", Some("1"), PROMISED);
    alter(&source, topic, &[("min.insync.replicas", None)]);
    await_override(&target, topic, "min.insync.replicas", None, PROMISED);
}

#[test]
fn a_key_that_the_target_refuses_blocks_no_other() {
    let topics = ["refused.one", "refused.two"];
    for topic in topics {
        both(
            topic,
            &[("segment.ms", "1000000"), ("retention.bytes", "5000000")],
            &[],
        );
    }
    let (source, target) = both("refused.three", &[], &[]);
    let lines = "metadata_interval: 200ms\n\
        configs: { fixed: { no.such.key: 1, segment.index.bytes: nonsense } }";
    let following = Following::start("refused", &source, &target, lines, &topics);
    for topic in topics {
        await_override(&target, topic, "segment.ms", Some("1000000"), PROMISED);
        await_override(&target, topic, "retention.bytes", Some("5000000"), PROMISED);
    }
    let report = following.await_next_pass();
    let mut failed: Vec<_> = report
        .drift
        .iter()
        .filter_map(|drift| Some((&*drift.subject, &*drift.detail, drift.failure.as_ref()?)))
        .collect();
    failed.sort_by_key(|(subject, detail, _)| (*subject, *detail));
    let names: Vec<_> = failed
        .iter()
        .map(|(subject, detail, _)| (*subject, *detail))
        .collect();
    assert_eq!(
        names,
        [
            ("topic refused.one", "no.such.key"),
            ("topic refused.one", "segment.index.bytes"),
            ("topic refused.two", "no.such.key"),
            ("topic refused.two", "segment.index.bytes"),
        ]
    );
    for (_, detail, failure) in failed {
        assert_eq!(failure.reason, "invalid_config", "{failure:#?}");
        assert!(failure.message.contains(detail), "{failure:#?}");
        assert!(
            failure
                .hint
                .as_ref()
                .is_some_and(|hint| hint.contains("configs.ignore"))
        );
    }
    // They rest: a refusal isn't repeated with every pass.
    let refusals = |report: &MetadataReport| -> u64 {
        report.failed.values().flat_map(BTreeMap::values).sum()
    };
    let (started, first) = (Instant::now(), refusals(&report));
    assert_eq!(first, 4, "{:#?}", report.failed);
    let later = following.await_next_pass();
    if started.elapsed() < Duration::from_secs(3) {
        assert_eq!(refusals(&later), first);
    }
}
