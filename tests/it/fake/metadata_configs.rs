//! Topic configs follow. What the target has is read by librdkafka.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::acls::{self, Operation, Resource};
use crate::support::admin::client;
use crate::support::fake::{fake_fenceable_pair, options};
use crate::support::flow::{
    await_stopped, block_on, flow_config, is_caught_up, wire_cluster, with_state,
};
use crate::support::{
    FakeCluster, Load, Twinlog, await_same, create_topic, delete_topic, eventually, fake_pair,
};
use fake_kafka::faults::{Action, Fault, Hook};
use fake_kafka::state::Options;
use kafka_protocol::messages::ApiKey;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use twinlog::config;
use twinlog::metadata::{self, Context, MirroredTopic, Needs, Topics};
use twinlog::state::{HeldConfigs, StateStore, keys};
use twinlog::telemetry::metadata::{Drift, DriftAction, DriftKind, MetadataReport, Obstacle};
use twinlog::telemetry::progress::FlowProgress;
use twinlog::wire::{self, TopicChanges};
use uuid::Uuid;

/// The promise: a change on the source is on the target within this time.
pub(crate) const PROMISED: Duration = Duration::from_secs(5);
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The copied topics, named alike on both sides.
#[derive(Default)]
pub(crate) struct Copied {
    topics: Mutex<Vec<MirroredTopic>>,
    changed: Mutex<Vec<String>>,
    /// What the copies' rules were made from, where there is a copy.
    rules: Mutex<BTreeMap<String, u64>>,
    /// What they are to be made from, as it was told last, and how often they were made from something else.
    told: Mutex<BTreeMap<String, (u64, usize)>>,
}

impl Copied {
    pub(crate) fn add(&self, topic: &str, target_replicas: usize) {
        self.topics.lock().expect("no panic").push(MirroredTopic {
            source_topic: topic.to_owned(),
            source_id: Uuid::nil(),
            target_topic: topic.to_owned(),
            target_id: Uuid::nil(),
            target_replicas: Some(target_replicas),
            was_there: false,
            needs: Needs::default(),
        });
    }
}

impl Copied {
    /// As a flow knows them: topics that were just made may take a moment to be there.
    async fn learn_ids(
        &self,
        source: &wire::Cluster,
        target: &wire::Cluster,
    ) -> Result<(), String> {
        let source = source.metadata(None).await.map_err(|e| e.to_string())?;
        let target = target.metadata(None).await.map_err(|e| e.to_string())?;
        let id = |metadata: &wire::Metadata, name: &str| {
            let topic = metadata.topics.get(name);
            topic
                .map(|topic| topic.topic_id)
                .ok_or_else(|| format!("{name} isn't there"))
        };
        for topic in &mut *self.topics.lock().expect("no panic") {
            topic.source_id = id(&source, &topic.source_topic)?;
            topic.target_id = id(&target, &topic.target_topic)?;
        }
        Ok(())
    }
}

impl Topics for Copied {
    fn mirrored(&self) -> Arc<[MirroredTopic]> {
        Arc::from(self.topics.lock().expect("no panic").as_slice())
    }

    fn drift(&self) -> Vec<Drift> {
        Vec::new()
    }

    fn configs_changed(&self, source_topics: &[String]) {
        let mut changed = self.changed.lock().expect("no panic");
        changed.extend(source_topics.iter().cloned());
    }

    fn rest_on_others(&self, source_topic: &str, fingerprint: u64) -> bool {
        let rules = self.rules.lock().expect("no panic");
        let are_others = rules.get(source_topic).is_some_and(|it| *it != fingerprint);
        let mut told = self.told.lock().expect("no panic");
        let (last, stale) = told.entry(source_topic.to_owned()).or_default();
        *last = fingerprint;
        *stale += usize::from(are_others);
        are_others
    }
}

/// Metadata that is followed in this process, without a copy.
pub(crate) struct Following {
    progress: Arc<FlowProgress>,
    copied: Arc<Copied>,
    cancel: CancellationToken,
    _runtime: Runtime,
}

impl Following {
    /// `lines` are more lines of the flow.
    pub(crate) fn start(
        flow: &str,
        source: &str,
        target: &str,
        lines: &str,
        topics: &[&str],
    ) -> Self {
        let copied = Arc::new(Copied::default());
        for topic in topics {
            copied.add(topic, 1);
        }
        Self::with(flow, source, target, lines, copied)
    }

    pub(crate) fn with(
        flow: &str,
        source: &str,
        target: &str,
        lines: &str,
        copied: Arc<Copied>,
    ) -> Self {
        let text = Twinlog::config(source, target, lines);
        let mut config = config::parse(&text, "test.yaml").unwrap_or_else(|e| panic!("{e}"));
        let rules = config.flows.remove("dr").expect("it is there");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let (source, target) = (wire_cluster(source), wire_cluster(target));
        // A broker that was just given a thousand topics takes its time.
        let store = eventually(DEADLINE, "the state topic is made", || {
            runtime
                .block_on(StateStore::open(&target, flow))
                .map_err(|error| error.to_string())
        });
        eventually(DEADLINE, "the topics are there", || {
            runtime.block_on(copied.learn_ids(&source, &target))
        });
        let progress = Arc::new(FlowProgress::new(flow, "primary", "standby"));
        let context = Context {
            flow: flow.to_owned(),
            source_name: "primary".to_owned(),
            source,
            target,
            store: Some(Arc::new(store)),
            opposite: Vec::new(),
            selected: rules.topics,
            rename: rules.rename,
            groups: rules.groups,
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

    pub(crate) fn report(&self) -> Arc<MetadataReport> {
        eventually(DEADLINE, "a report is there", || {
            self.progress.metadata().ok_or("none")
        })
    }

    pub(crate) fn applied(&self) -> u64 {
        let report = self.report();
        report
            .applied
            .get(&DriftKind::TopicConfig)
            .copied()
            .unwrap_or(0)
    }

    /// Waits until a pass that began after this call is through.
    pub(crate) fn await_next_pass(&self) -> Arc<MetadataReport> {
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

    pub(crate) fn await_drift(
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
pub(crate) fn await_override(
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
pub(crate) fn alter(bootstrap: &str, topic: &str, changes: &[(&str, Option<&str>)]) {
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
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    create_topic(&source, topic, 1, on_source);
    create_topic(&target, topic, 1, on_target);
    (source, target)
}

#[test]
fn a_change_an_addition_and_a_removal_arrive_in_time() {
    let (source, target) = fake_pair();
    changes_follow(&source.bootstrap(), &target.bootstrap());
}

/// The broker that was asked when they were made was late; those that are asked since say what they said before.
#[test]
fn rules_that_were_made_of_old_settings_are_stale_although_nobody_s_answer_changes() {
    let topic = "made-late";
    let (source, target) = both(topic, &[], &[]);
    let following = Following::start(topic, &source, &target, "", &[topic]);
    let copied = following.copied.clone();
    let told = || copied.told.lock().expect("no panic").get(topic).copied();
    let (settings, _) = eventually(DEADLINE, "its settings are told", || told().ok_or(()));
    following.await_next_pass();
    let mut rules = copied.rules.lock().expect("no panic");
    rules.insert(topic.to_owned(), settings.wrapping_add(1));
    drop(rules);
    eventually(DEADLINE, "they are stale", || match told() {
        Some((told, 1..)) if told == settings => Ok(()),
        other => Err(other),
    });
}

pub(crate) fn changes_follow(source: &str, target: &str) {
    let topic = "follows";
    let set = [("segment.ms", "2000000"), ("retention.ms", "3600000")];
    create_topic(source, topic, 1, &set);
    create_topic(target, topic, 1, &[("flush.messages", "7")]);
    let following = Following::start("follows", source, target, "", &[topic]);
    await_override(target, topic, "segment.ms", Some("2000000"), PROMISED);
    await_override(target, topic, "retention.ms", Some("3600000"), PROMISED);
    // What the source doesn't have is no override of the copy's.
    await_override(target, topic, "flush.messages", None, PROMISED);

    alter(source, topic, &[("segment.ms", Some("3000000"))]);
    await_override(target, topic, "segment.ms", Some("3000000"), PROMISED);
    alter(source, topic, &[("cleanup.policy", Some("compact,delete"))]);
    await_override(
        target,
        topic,
        "cleanup.policy",
        Some("compact,delete"),
        PROMISED,
    );
    alter(
        source,
        topic,
        &[("segment.ms", None), ("retention.ms", None)],
    );
    await_override(target, topic, "segment.ms", None, PROMISED);
    await_override(target, topic, "retention.ms", None, PROMISED);
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

/// Between a change of ours and the next look, so that no look has seen it done.
#[test]
fn what_somebody_changes_right_behind_a_change_of_ours_is_changed_back() {
    let topic = "contested";
    let (source, target) = both(topic, &[("segment.ms", "1000000")], &[]);
    let lines = "metadata_interval: 1s";
    let _following = Following::start("contested", &source, &target, lines, &[topic]);
    await_override(&target, topic, "segment.ms", Some("1000000"), DEADLINE);
    let (_, cluster) = fake_pair();
    // To something new, and to what there was before.
    for (wanted, contested) in [("2000000", "5"), ("3000000", "2000000")] {
        let changed = Fault::on(ApiKey::IncrementalAlterConfigs).topic(topic);
        let meddle: Hook = Box::new(move |state, _| {
            let topic = state.topics.get_mut(topic).expect("it is there");
            let key = "segment.ms".to_owned();
            topic.configs.insert(key, contested.to_owned());
        });
        let meddled = cluster.fault(changed.times(1), Action::HasTakenEffect(meddle));
        alter(&source, topic, &[("segment.ms", Some(wanted))]);
        eventually(PROMISED, "it is changed and contested", || {
            match cluster.fired(meddled) {
                0 => Err(0),
                _ => Ok(()),
            }
        });
        await_override(&target, topic, "segment.ms", Some(wanted), PROMISED);
    }
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

/// Configs that should be changed and can't be.
fn failures(report: &MetadataReport) -> Vec<&Drift> {
    let configs = report.drift.iter();
    let configs = configs.filter(|drift| drift.kind == DriftKind::TopicConfig);
    configs.filter(|drift| drift.failure.is_some()).collect()
}

/// What kept configs from being compared. Other aspects have obstacles of their own, such as no
/// authorizer.
fn obstacles(report: &MetadataReport) -> Vec<&Obstacle> {
    let all = report.obstacles.iter();
    all.filter(|obstacle| obstacle.kind == DriftKind::TopicConfig)
        .collect()
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
    let began = Instant::now();
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
    // They rest: a refusal isn't repeated with every pass, but every five seconds at most.
    let refusals = |report: &MetadataReport| -> u64 {
        report.failed.values().flat_map(BTreeMap::values).sum()
    };
    let later = following.await_next_pass();
    let times = 1 + began.elapsed().as_secs() / 5;
    for report in [report, later] {
        let found = refusals(&report);
        assert!((4..=4 * times).contains(&found), "{:#?}", report.failed);
    }
}

/// A batch that only the new limit allows, right behind the change.
#[test]
fn a_batch_right_behind_a_raised_limit_goes_through() {
    let (source, target) = fake_pair();
    batch_behind_a_raised_limit(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn batch_behind_a_raised_limit(source: &str, target: &str) {
    let topic = "raised";
    create_topic(source, topic, 1, &[("max.message.bytes", "100000")]);
    Load::new(topic, 10).produce(source);
    let config = flow_config("raised", "raised", source, target, "");
    let twinlog = Twinlog::start(&config);
    await_same(source, target, topic, DEADLINE);
    for (limit, first) in [(3_000_000, 10), (6_000_000, 11)] {
        alter(
            source,
            topic,
            &[("max.message.bytes", Some(&limit.to_string()))],
        );
        let mut big = Load::new(topic, 1).first(first);
        big.value_bytes = limit - 500_000;
        let sizes = ["message.max.bytes", "queue.buffering.max.kbytes"];
        big.properties = sizes
            .map(|key| (key.to_owned(), "10000000".to_owned()))
            .to_vec();
        big.produce(source);
        await_same(source, target, topic, DEADLINE);
        await_override(
            target,
            topic,
            "max.message.bytes",
            Some(&limit.to_string()),
            PROMISED,
        );
    }
    twinlog.wait_until(DEADLINE, "it goes on", |status| {
        is_caught_up(status, topic, 0)
    });
    let log = twinlog.log();
    assert!(!log.contains("partition stopped"), "{log}");
}

#[test]
fn a_new_copy_is_made_as_it_shall_be() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let topic = "made";
    let on_source = [
        ("cleanup.policy", "compact,delete"),
        ("min.insync.replicas", "2"),
        ("segment.ms", "1000000"),
        ("message.timestamp.type", "LogAppendTime"),
        ("unclean.leader.election.enable", "true"),
    ];
    create_topic(&source, topic, 1, &on_source);
    let lines = "metadata_interval: 200ms\nconfigs: { fixed: { segment.bytes: 3000000 } }";
    let config = flow_config("made", "made", &source, &target, lines);
    let twinlog = Twinlog::start(&config);
    await_override(&target, topic, "segment.ms", Some("1000000"), DEADLINE);
    let found = configs(&target, topic);
    for (key, value) in [
        ("cleanup.policy", "compact,delete"),
        ("min.insync.replicas", "1"),
        ("message.timestamp.type", "CreateTime"),
        ("segment.bytes", "3000000"),
    ] {
        assert_eq!(found[key], (value.to_owned(), true), "{key}");
    }
    assert!(!found["unclean.leader.election.enable"].1);
    // The first change that follows is the one that is made now.
    await_held(&target, "made", topic);
    alter(&source, topic, &[("segment.ms", Some("2000000"))]);
    await_override(&target, topic, "segment.ms", Some("2000000"), PROMISED);
    let followed = |log: &str| -> Vec<String> {
        let lines = log
            .lines()
            .filter(|line| line.contains("topic configs followed"));
        lines.map(str::to_owned).collect()
    };
    let lines = eventually(DEADLINE, "it is logged", || {
        let lines = followed(&twinlog.log());
        if lines.is_empty() {
            Err(twinlog.log())
        } else {
            Ok(lines)
        }
    });
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("changes=1"), "{lines:#?}");
}

#[test]
fn a_source_topic_that_is_made_again_changes_nothing_of_the_copy_that_is_kept() {
    let (source, target) = fake_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let (again, other) = ("again.one", "again.other");
    for topic in [again, other] {
        create_topic(&source, topic, 1, &[("retention.ms", "604800000")]);
        Load::new(topic, 10).produce(&source);
    }
    let lines = "discovery_interval: 200ms\nmetadata_interval: 200ms";
    let config = flow_config("again", "again[.].*", &source, &target, lines);
    let twinlog = Twinlog::start(&config);
    twinlog.wait_until(DEADLINE, "they are copied", |status| {
        is_caught_up(status, again, 0) && is_caught_up(status, other, 0)
    });

    delete_topic(&source, again);
    create_topic(&source, again, 1, &[("retention.ms", "1000")]);
    await_stopped(&twinlog, again, 0, "source_recreated");
    // What comes behind it is there, so it was looked at.
    for value in ["7200000", "3600000"] {
        alter(&source, other, &[("retention.ms", Some(value))]);
        await_override(&target, other, "retention.ms", Some(value), DEADLINE);
    }
    let kept = overridden(&target, again, "retention.ms");
    assert_eq!(kept.as_deref(), Some("604800000"));
}

/// Allows anonymous clients an operation on a topic, and with the first one nothing else.
fn allow(bootstrap: &str, topic: &str, operation: Operation) {
    acls::allow(
        bootstrap,
        "User:ANONYMOUS",
        operation,
        Resource::topic(topic),
    );
}

#[test]
fn a_missing_right_is_named_and_blocks_no_other_topic() {
    // The strict one is the target here.
    let (target, source) = fake_fenceable_pair();
    let (source, target) = (source.bootstrap(), target.bootstrap());
    let topics = ["rights.closed", "rights.hidden", "rights.open"];
    for topic in topics {
        create_topic(&source, topic, 1, &[("segment.ms", "1000000")]);
        create_topic(&target, topic, 1, &[]);
    }
    allow(&target, "rights.hidden", Operation::Describe);
    allow(&target, "rights.closed", Operation::Describe);
    allow(&target, "rights.closed", Operation::DescribeConfigs);
    let following = Following::start("rights", &source, &target, "", &topics);
    await_override(
        &target,
        "rights.open",
        "segment.ms",
        Some("1000000"),
        PROMISED,
    );
    let report = following.await_drift("both missing rights are named", |report| {
        !obstacles(report).is_empty() && !failures(report).is_empty()
    });
    let [hidden] = obstacles(&report)[..] else {
        panic!("{report:#?}");
    };
    assert_eq!(
        (&*hidden.reason, &*hidden.cluster),
        ("not_authorized", "target")
    );
    let grant = "ALLOW DESCRIBE_CONFIGS on topic rights.hidden (or on all topics)";
    assert!(
        hidden
            .hint
            .as_ref()
            .is_some_and(|hint| hint.starts_with(grant)),
        "{hidden:#?}"
    );
    let configs = report.drift.iter();
    for drift in configs.filter(|drift| drift.kind == DriftKind::TopicConfig) {
        assert_eq!(drift.subject, "topic rights.closed");
        let failure = drift.failure.as_ref().expect("it was refused");
        assert_eq!(failure.reason, "not_authorized");
        let grant = "ALLOW ALTER_CONFIGS on topic rights.closed (or on all topics)";
        assert!(
            failure
                .hint
                .as_ref()
                .is_some_and(|hint| hint.starts_with(grant)),
            "{drift:#?}"
        );
    }
    // Once they are granted, it goes on by itself.
    for topic in ["rights.hidden", "rights.closed"] {
        allow(&target, topic, Operation::AlterConfigs);
        allow(&target, topic, Operation::DescribeConfigs);
        await_override(&target, topic, "segment.ms", Some("1000000"), DEADLINE);
    }
    following.await_drift("nothing is left", |report| {
        obstacles(report).is_empty() && failures(report).is_empty()
    });
}

/// As MirrorMaker 2's `testReplicateTargetDefault`, and what it doesn't do: a default of the
/// source that readers would notice.
#[test]
fn a_default_of_the_source_that_differs_is_written_out() {
    let defaults = [
        ("log.retention.ms", "86400000"),
        ("message.max.bytes", "2000000"),
        ("log.segment.bytes", "50000000"),
        // As Kafka 3.9 has it.
        ("log.message.timestamp.after.max.ms", "9223372036854775807"),
    ];
    let with_defaults = FakeCluster::start(Options {
        broker_configs: defaults
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..options("other-defaults")
    });
    let source = with_defaults.bootstrap();
    let target = fake_pair().1.bootstrap();
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
    assert!(obstacles(&report).is_empty(), "{report:#?}");
}
