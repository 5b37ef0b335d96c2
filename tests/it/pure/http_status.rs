//! The status report, the readiness rules and the metrics, from a registry filled by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use twinlog::telemetry::drill::DrillResult;
use twinlog::telemetry::groups::{
    DelayHistogram, FlowGroups, GroupExplained, GroupReporter, GroupSight, GroupStatus, Watching,
};
use twinlog::telemetry::metadata::{
    Drift, DriftAction, DriftFailure, DriftKind, MetadataReport, Obstacle,
};
use twinlog::telemetry::metrics;
use twinlog::telemetry::names::{self, Kind};
use twinlog::telemetry::progress::{
    FlowProgress, FlowState, PartitionProgress, PartitionState, Registry, Teller, TopicNote, now_ms,
};
use twinlog::telemetry::role::RoleStatus;
use twinlog::telemetry::status::{STATUS_VERSION, StatusReport};
use twinlog::telemetry::traffic::{TrafficReporter, TrafficStatus};
use twinlog::telemetry::up_to_date::MissedDeletes;
use twinlog::telemetry::verify::{BackgroundRound, VerifyResult, VerifySummary};
use uuid::Uuid;

fn running(registry: &Registry) -> Arc<FlowProgress> {
    let flow = registry.flow("dr", "primary", "standby");
    flow.set_state(FlowState::Running);
    flow.discovered.store(true, Relaxed);
    flow.in_flight_limit_bytes.store(64 << 20, Relaxed);
    flow
}

fn copying(
    flow: &FlowProgress,
    topic: &str,
    number: i32,
    position: i64,
    end: i64,
) -> Arc<PartitionProgress> {
    let partition = flow.partition(&Arc::from(topic), number);
    partition.source_log_start.store(0, Relaxed);
    partition.first_position.store(0, Relaxed);
    partition.source_position.store(position, Relaxed);
    partition.target_position.store(position, Relaxed);
    partition.source_stable_end.store(end, Relaxed);
    partition.source_high_watermark.store(end, Relaxed);
    partition.source_per_second.store(0, Relaxed);
    partition.progressed_at_ms.store(now_ms(), Relaxed);
    partition.set_state(PartitionState::Copying);
    partition
}

fn retrying(detail: &str) -> PartitionState {
    PartitionState::Retrying {
        reason: "leader_moved",
        detail: detail.to_owned(),
    }
}

fn stopped() -> PartitionState {
    PartitionState::Stopped {
        reason: "foreign_write",
        detail: "somebody writes here".to_owned(),
    }
}

fn assert_ready(registry: &Registry, at_ms: i64) {
    let report = StatusReport::build(registry, at_ms);
    assert!(report.ready, "{:?}", report.not_ready);
}

fn assert_not_ready(registry: &Registry, at_ms: i64, because: &str) {
    let report = StatusReport::build(registry, at_ms);
    assert!(!report.ready, "ready, though {because}");
    assert!(
        report.not_ready.iter().any(|line| line.contains(because)),
        "{because:?} is not in {:?}",
        report.not_ready
    );
}

#[test]
fn the_json_has_the_documented_shape() {
    let registry = Registry::default();
    let flow = running(&registry);
    flow.topics.insert(
        Arc::from("orders"),
        TopicNote {
            target_topic: "orders".into(),
            offsets: "identical",
            reason: String::new(),
        },
    );
    flow.count_error("leader_moved");
    let partition = copying(&flow, "orders", 0, 40, 100);
    partition.records.store(40, Relaxed);
    partition.set_state(stopped());

    let report = StatusReport::build(&registry, now_ms());
    let json = serde_json::to_value(&report).expect("serializes");
    assert_eq!(json["version"], STATUS_VERSION);
    assert_eq!(json["ready"], false);
    let flow = &json["flows"][0];
    assert_eq!(flow["name"], "dr");
    assert_eq!(flow["state"], "running");
    assert_eq!(flow["errors"]["leader_moved"], 1);
    assert_eq!(flow["totals"]["stopped"], 1);
    assert_eq!(flow["totals"]["lag_records"], 60);
    assert_eq!(flow["totals"]["records"], 40);
    let topic = &flow["topics"][0];
    assert_eq!(topic["name"], "orders");
    assert_eq!(topic["offsets"], "identical");
    assert_eq!(topic["offsets_reason"], serde_json::Value::Null);
    let partition = &topic["partitions"][0];
    assert_eq!(partition["state"], "stopped");
    assert_eq!(partition["reason"], "foreign_write");
    assert_eq!(partition["source_position"], 40);
    assert_eq!(partition["last_timestamp_ms"], serde_json::Value::Null);
    assert_eq!(partition["lag_records"], 60);
    let keys: BTreeSet<&str> = partition
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        BTreeSet::from([
            "partition",
            "state",
            "reason",
            "detail",
            "since_ms",
            "unhealthy_seconds",
            "no_progress_seconds",
            "source_log_start",
            "source_stable_end",
            "source_high_watermark",
            "source_end_seen_ms",
            "source_per_second",
            "source_rate_unknown",
            "transaction_open_seconds",
            "source_broker",
            "source_position",
            "target_position",
            "last_timestamp_ms",
            "lag_records",
            "lag_bytes",
            "lag_seconds",
            "records_per_second",
            "bytes_per_second",
            "records",
            "bytes",
            "batches_passed",
            "batches_coalesced",
            "batches_opened",
            "holes_filled",
            "gap_offsets",
        ])
    );
    let again: StatusReport = serde_json::from_value(json).expect("reads back");
    assert_eq!(again, report);
}

#[test]
fn nothing_is_ready_before_the_flows_run() {
    let registry = Registry::default();
    assert_not_ready(&registry, now_ms(), "no flow has started");
    let flow = registry.flow("dr", "primary", "standby");
    assert_not_ready(&registry, now_ms(), "flow dr is starting");
    flow.set_state(FlowState::Running);
    assert_not_ready(&registry, now_ms(), "discovered");
    flow.discovered.store(true, Relaxed);
    assert_ready(&registry, now_ms());
    flow.set_state(FlowState::Waiting {
        reason: "source_unreachable",
        detail: "start it".to_owned(),
    });
    assert_not_ready(
        &registry,
        now_ms(),
        "waiting (source_unreachable): start it",
    );
}

#[test]
fn no_traffic_is_ready_for_ever_and_no_progress_is_not() {
    let registry = Registry::default();
    let flow = running(&registry);
    let partition = copying(&flow, "orders", 0, 100, 100);
    let start = now_ms();
    let hours_later = start + 5 * 3_600_000;
    assert_ready(&registry, hours_later);
    registry.observe(hours_later);

    // A record arrives after hours of silence: behind, but not stuck.
    partition.source_stable_end.store(101, Relaxed);
    assert_ready(&registry, hours_later + 1_000);
    assert_ready(&registry, hours_later + 59_000);
    assert_not_ready(
        &registry,
        hours_later + 61_000,
        "orders-0 makes no progress: 1 offsets behind",
    );

    // It moves, though it isn't caught up: ready.
    partition.source_stable_end.store(500, Relaxed);
    partition.source_position.store(101, Relaxed);
    partition
        .progressed_at_ms
        .store(hours_later + 61_000, Relaxed);
    assert_ready(&registry, hours_later + 62_000);
}

#[test]
fn a_partition_that_never_opens_is_no_progress() {
    let registry = Registry::default();
    running(&registry).partition(&Arc::from("orders"), 0);
    assert_ready(&registry, now_ms());
    assert_not_ready(&registry, now_ms() + 61_000, "without a known position");
}

/// A host that is frozen refuses nobody, so nothing fails: not even what would be asked of it.
#[test]
fn a_source_that_hangs_is_not_ready_although_nothing_fails() {
    let registry = Registry::default();
    let flow = running(&registry);
    copying(&flow, "orders", 0, 100, 100);
    let seen_ms = now_ms();
    flow.note_source_seen(seen_ms);
    assert_ready(&registry, seen_ms + 20_000);
    assert_not_ready(&registry, seen_ms + 21_000, "hasn't answered for 21 s");
    flow.note_source_seen(seen_ms + 21_000);
    assert_ready(&registry, seen_ms + 21_000);
}

#[test]
fn a_retry_counts_after_30_s_even_if_its_words_change() {
    let registry = Registry::default();
    let partition = copying(&running(&registry), "orders", 0, 100, 100);
    partition.set_state(retrying("attempt 1"));
    let start = now_ms();
    assert_ready(&registry, start + 20_000);
    let unhealthy_since = partition.unhealthy_since_ms();
    assert!(unhealthy_since.is_some());
    partition.set_state(PartitionState::Opening);
    partition.set_state(retrying("attempt 2"));
    assert_eq!(
        partition.unhealthy_since_ms(),
        unhealthy_since,
        "the clock started again"
    );
    assert_not_ready(
        &registry,
        start + 31_000,
        "retrying (leader_moved): attempt 2",
    );
    partition.set_state(PartitionState::Copying);
    assert_ready(&registry, start + 31_000);
}

#[test]
fn a_stopped_partition_is_never_ready_even_without_lag() {
    let registry = Registry::default();
    let partition = copying(&running(&registry), "orders", 0, 100, 100);
    partition.set_state(stopped());
    assert_not_ready(
        &registry,
        now_ms(),
        "orders-0 is stopped (foreign_write): somebody",
    );
}

#[test]
fn lag_in_seconds_is_zero_only_when_copied_and_caught_up() {
    let registry = Registry::default();
    let flow = running(&registry);
    let partition = copying(&flow, "orders", 0, 100, 100);
    let lag_at =
        |at_ms| StatusReport::build(&registry, at_ms).flows[0].topics[0].partitions[0].lag_seconds;
    let now = now_ms();
    registry.observe(now);
    assert_eq!(lag_at(now + 10_000), 0.0);

    partition.source_stable_end.store(101, Relaxed);
    assert_eq!(lag_at(now + 10_000), 10.0);
    partition.source_position.store(101, Relaxed);
    assert_eq!(lag_at(now + 10_000), 0.0);

    partition.set_state(stopped());
    assert_eq!(lag_at(now + 10_000), 10.0);
    assert!(lag_at(now) > 0.0, "stopped must not show 0");
    registry.observe(now + 20_000);
    assert_eq!(lag_at(now + 20_000), 20.0, "stopped isn't caught up");

    partition.set_state(PartitionState::Copying);
    flow.set_state(FlowState::Waiting {
        reason: "source_unreachable",
        detail: String::new(),
    });
    registry.observe(now + 30_000);
    assert_eq!(
        lag_at(now + 30_000),
        30.0,
        "what was known of the source may be old"
    );
}

#[test]
fn a_flow_that_found_nothing_yet_doesnt_look_caught_up() {
    let registry = Registry::default();
    let flow = registry.flow("dr", "primary", "standby");
    let report = |at_ms| StatusReport::build(&registry, at_ms);
    let later = flow.created_at_ms() + 7_000;
    assert_eq!(report(later).flows[0].totals.lag_seconds, 7.0);
    let text = metrics::render(&report(later));
    assert!(!text.contains("twinlog_flow_lag_records{"), "{text}");
    assert!(
        text.contains("twinlog_flow_lag_seconds{flow=\"dr\"} 7\n"),
        "{text}"
    );
    flow.set_state(FlowState::Running);
    flow.discovered.store(true, Relaxed);
    assert_eq!(
        report(later).flows[0].totals.lag_seconds,
        0.0,
        "nothing to copy"
    );
}

#[test]
fn the_first_copy_has_a_percentage_and_an_estimate_until_it_is_done() {
    let registry = Registry::default();
    let flow = running(&registry);
    let big = copying(&flow, "big", 0, 0, 10_000);
    copying(&flow, "small", 0, 1_000, 1_000);
    let first_copy = |at_ms| {
        StatusReport::build(&registry, at_ms).flows[0]
            .first_copy
            .clone()
    };
    let now = now_ms();
    registry.observe(now);
    big.source_position.store(1_000, Relaxed);
    registry.observe(now + 1_000);

    let progress = first_copy(now + 1_000).expect("under way");
    assert_eq!(
        (progress.done_offsets, progress.total_offsets),
        (2_000, 11_000)
    );
    assert!((progress.percent - 18.18).abs() < 0.01, "{progress:?}");
    let left = progress.estimated_seconds.expect("a rate is known");
    assert!((left - 9.0).abs() < 0.01, "{progress:?}");

    // One that an operator must look at doesn't keep the first copy open for ever.
    flow.partition(&Arc::from("broken"), 0).set_state(stopped());
    big.source_position.store(10_000, Relaxed);
    registry.observe(now + 2_000);
    assert_eq!(first_copy(now + 2_000), None);
    big.source_stable_end.store(20_000, Relaxed);
    assert_eq!(
        first_copy(now + 3_000),
        None,
        "lag later on is no first copy"
    );
}

#[test]
fn removing_a_partition_keeps_the_flows_counters() {
    let registry = Registry::default();
    let flow = running(&registry);
    copying(&flow, "gone", 0, 7, 7).records.store(7, Relaxed);
    copying(&flow, "stays", 0, 5, 5).records.store(5, Relaxed);
    flow.retire_partition(&(Arc::from("gone"), 0));
    let totals = StatusReport::build(&registry, now_ms()).flows[0]
        .totals
        .clone();
    assert_eq!((totals.partitions, totals.counters.records), (1, 12));
}

#[test]
fn only_troubled_partitions_can_be_asked_for_and_sums_stay() {
    let registry = Registry::default();
    let flow = running(&registry);
    copying(&flow, "orders", 0, 100, 100);
    copying(&flow, "orders", 1, 100, 100).set_state(stopped());
    let mut report = StatusReport::build(&registry, now_ms());
    report.keep_troubled_partitions();
    let topic = &report.flows[0].topics[0];
    assert_eq!(topic.totals.partitions, 2);
    let numbers: Vec<i32> = topic.partitions.iter().map(|p| p.partition).collect();
    assert_eq!(numbers, [1]);
}

/// A registry in which every metric has a value.
/// A flow's groups, made up: one is followed, one diverged.
struct Groups(DelayHistogram);

impl GroupReporter for Groups {
    fn report(&self) -> FlowGroups {
        let watching = |way: &str, state: &str| Watching {
            way: way.to_owned(),
            state: state.to_owned(),
            detail: None,
        };
        let group = |name: &str, state: &str, reread_records| GroupStatus {
            group: name.to_owned(),
            state: state.to_owned(),
            reread_records,
            ..GroupStatus::default()
        };
        let mut diverged = group("billing", "diverged", 7);
        diverged.waiting.insert("diverged".to_owned(), 2);
        FlowGroups {
            flow: "dr".to_owned(),
            source: watching("poll", "following"),
            target: watching("tail", "reading"),
            commits: 12,
            groups: vec![group("audit", "followed", 0), diverged],
            sight: GroupSight::default(),
        }
    }

    fn explain(&self, _group: &str) -> Option<GroupExplained> {
        None
    }

    fn delays(&self) -> &DelayHistogram {
        &self.0
    }
}

#[derive(Debug)]
struct Traffic;

impl TrafficReporter for Traffic {
    fn traffic(&self) -> Vec<TrafficStatus> {
        vec![TrafficStatus {
            cluster: "standby".into(),
            direction: "sent".into(),
            purpose: "produce".into(),
            bytes: 4_321,
        }]
    }
}

fn everything() -> Registry {
    let registry = Registry::default();
    let flow = running(&registry);
    let delays = DelayHistogram::default();
    [3, 700].into_iter().for_each(|delay| delays.note(delay));
    flow.set_groups(Some(Arc::new(Groups(delays))));
    flow.set_metadata(Arc::new(differing()));
    flow.set_traffic(Arc::new(Traffic));
    flow.set_verify(Some(Arc::new(verified())));
    flow.set_drill(Some(DrillResult {
        ended_ms: now_ms() - 60_000,
        verdict: "passed_with_remarks".to_owned(),
        rto_seconds: Some(2.5),
        rpo_seconds: Some(0.25),
        ..DrillResult::default()
    }));
    flow.count_error("leader_moved");
    flow.note_source_seen(now_ms());
    flow.set_role(Some(RoleStatus {
        primary: "target".to_owned(),
        topics: Some(vec!["payments".to_owned()]),
        old_primary: "fenced".to_owned(),
        orphan_offsets: Some(3),
        ..RoleStatus::default()
    }));
    for topic in ["orders", "orders \"x\"\\"] {
        let note = TopicNote {
            target_topic: topic.into(),
            offsets: "identical",
            reason: String::new(),
        };
        flow.topics.insert(Arc::from(topic), note);
    }
    let partition = copying(&flow, "orders \"x\"\\", 0, 40, 100);
    partition.source_high_watermark.store(100, Relaxed);
    let teller = std::sync::Arc::new(Teller::default());
    teller.answered(now_ms());
    partition.listen(&teller);
    partition.records.store(40, Relaxed);
    partition.batches_passed.store(3, Relaxed);
    let missed = MissedDeletes {
        from: 10,
        until: 20,
        since_ms: None,
        noticed_at_ms: now_ms(),
        keys: None,
    };
    partition.begin_up_to_date(|it| {
        it.begin(
            (Uuid::nil(), Uuid::nil()),
            (Some(0), 40),
            || None,
            Some(missed),
        );
    });
    copying(&flow, "orders", 1, 1, 1).set_state(stopped());
    registry
}

/// A comparison of records that found something, and a round in the background.
fn verified() -> VerifySummary {
    let result = VerifyResult {
        started_ms: now_ms() - 7_200_000,
        ended_ms: now_ms(),
        verdict: "different".to_owned(),
        coverage: 0.75,
        differences: BTreeMap::from([("changed".to_owned(), 2)]),
        ..VerifyResult::default()
    };
    VerifySummary {
        last: BTreeMap::from([("full".to_owned(), result)]),
        background: Some(BackgroundRound {
            ratio: 0.5,
            bytes: 321,
            problem: None,
        }),
    }
}

/// A comparison that found one of each: held, refused, not comparable.
fn differing() -> MetadataReport {
    let failure = DriftFailure {
        reason: "not_authorized".to_owned(),
        message: "no".to_owned(),
        hint: None,
        since_ms: now_ms(),
    };
    let drift = |action, failure| Drift {
        kind: DriftKind::Acl,
        action,
        subject: "topic orders".to_owned(),
        detail: "ALLOW WRITE User:bob".to_owned(),
        source: None,
        target: None,
        why: None,
        failure,
    };
    let count = |number| BTreeMap::from([(DriftKind::Acl, number)]);
    MetadataReport {
        flow: "dr".to_owned(),
        compared_at_ms: now_ms() - 100_000,
        took_ms: 1_500,
        drift: vec![
            drift(DriftAction::Hold, None),
            drift(DriftAction::Add, Some(failure)),
        ],
        obstacles: vec![Obstacle {
            kind: DriftKind::Quota,
            cluster: "source".to_owned(),
            reason: "not_authorized".to_owned(),
            message: "no".to_owned(),
            hint: None,
            is_problem: true,
            since_ms: 0,
        }],
        applied: count(7),
        failed: BTreeMap::from([(
            DriftKind::Acl,
            BTreeMap::from([("not_authorized".to_owned(), 2)]),
        )]),
    }
}

#[test]
fn a_comparison_that_is_long_ago_is_a_problem() {
    let registry = Registry::default();
    let flow = running(&registry);
    copying(&flow, "orders", 0, 1, 1);
    assert_ready(&registry, now_ms());
    let differing = differing();
    let later = differing.compared_at_ms + 100_000;
    flow.set_metadata(Arc::new(differing));
    let report = StatusReport::build(&registry, later);
    assert!(
        report.not_ready[0].contains("haven't been compared for 100 s"),
        "{:?}",
        report.not_ready
    );
    // After a failover nothing is compared any more, on purpose.
    flow.set_state(FlowState::Stopped {
        reason: "failed_over",
        detail: "standby is the primary".to_owned(),
    });
    let report = StatusReport::build(&registry, now_ms());
    assert_eq!(report.not_ready.len(), 1, "{:?}", report.not_ready);
    assert!(report.not_ready[0].contains("failed_over"));
}

#[test]
fn metrics_say_what_the_report_says() {
    let text = metrics::render(&StatusReport::build(&everything(), now_ms()));
    for line in [
        "twinlog_ready 0",
        "twinlog_flow_state{flow=\"dr\",state=\"running\",reason=\"\"} 1",
        "twinlog_partitions{flow=\"dr\",state=\"copying\",reason=\"\"} 1",
        "twinlog_partitions{flow=\"dr\",state=\"opening\",reason=\"\"} 0",
        "twinlog_partitions{flow=\"dr\",state=\"stopped\",reason=\"foreign_write\"} 1",
        "twinlog_flow_lag_records{flow=\"dr\"} 60",
        "twinlog_flow_records_total{flow=\"dr\"} 40",
        "twinlog_flow_batches_total{flow=\"dr\",kind=\"passed\"} 3",
        "twinlog_flow_errors_total{flow=\"dr\",kind=\"leader_moved\"} 1",
        "twinlog_groups{flow=\"dr\",state=\"diverged\"} 1",
        "twinlog_groups_watched{flow=\"dr\",cluster=\"source\",way=\"poll\",state=\"following\"} 1",
        "twinlog_group_positions_waiting{flow=\"dr\",reason=\"diverged\"} 2",
        "twinlog_group_reread_records{flow=\"dr\"} 7",
        "twinlog_group_commits_total{flow=\"dr\"} 12",
        "twinlog_group_commit_delay_milliseconds_bucket{flow=\"dr\",le=\"500\"} 1",
        "twinlog_group_commit_delay_milliseconds_bucket{flow=\"dr\",le=\"+Inf\"} 2",
        "twinlog_group_commit_delay_milliseconds_sum{flow=\"dr\"} 703",
        "twinlog_drift{flow=\"dr\",kind=\"acl\",action=\"hold\"} 1",
        "twinlog_drift_failing{flow=\"dr\",kind=\"acl\",reason=\"not_authorized\"} 1",
        "twinlog_metadata_obstacles{flow=\"dr\",kind=\"quota\",cluster=\"source\",reason=\"not_authorized\"} 1",
        "twinlog_metadata_applied_total{flow=\"dr\",kind=\"acl\"} 7",
        "twinlog_metadata_failed_total{flow=\"dr\",kind=\"acl\",reason=\"not_authorized\"} 2",
        "twinlog_metadata_compare_seconds{flow=\"dr\"} 1.5",
        "twinlog_verify_coverage_ratio{flow=\"dr\"} 0.75",
        "twinlog_verify_differences{flow=\"dr\",kind=\"changed\"} 2",
        "twinlog_verify_differences{flow=\"dr\",kind=\"missing\"} 0",
        "twinlog_verify_bytes_total{flow=\"dr\"} 321",
        "twinlog_flow_cluster_bytes_total{flow=\"dr\",cluster=\"standby\",direction=\"sent\",purpose=\"produce\"} 4321",
        "twinlog_failover_ready{flow=\"dr\"} 0",
        "twinlog_failover_checks{flow=\"dr\",weight=\"loses_data\"} 1",
        "twinlog_failover_checks{flow=\"dr\",weight=\"blocker\"} 0",
        "twinlog_failover_loss_records{flow=\"dr\"} 60",
        "twinlog_failover_loss_unknown_partitions{flow=\"dr\"} 0",
        "twinlog_failover_reread_records_max{flow=\"dr\"} 7",
        "twinlog_primary{flow=\"dr\",side=\"mixed\"} 1",
        "twinlog_primary{flow=\"dr\",side=\"source\"} 0",
        "twinlog_orphan_offsets{flow=\"dr\"} 3",
        "twinlog_partition_lag_records{flow=\"dr\",topic=\"orders \\\"x\\\"\\\\\",partition=\"0\"} 60",
        "twinlog_partition_source_position_offset{flow=\"dr\",topic=\"orders\",partition=\"1\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn metrics_code_and_page_name_the_same() {
    let text = metrics::render(&StatusReport::build(&everything(), now_ms()));
    let rendered: BTreeSet<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .collect();
    let kind = |kind: Kind| match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    let in_code: BTreeSet<(&str, &str)> =
        names::ALL.iter().map(|m| (m.name, kind(m.kind))).collect();
    assert_eq!(in_code.len(), names::ALL.len(), "a name twice");
    assert_eq!(rendered, in_code, "/metrics against the constants");

    let page = include_str!("../../../docs/METRICS.md");
    let documented: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with("| `twinlog_"))
        .map(str::to_owned)
        .collect();
    let expected: BTreeSet<String> = names::ALL
        .iter()
        .map(|m| {
            let labels: Vec<String> = m.labels.iter().map(|l| format!("`{l}`")).collect();
            let labels = if labels.is_empty() {
                "-".to_owned()
            } else {
                labels.join(", ")
            };
            format!(
                "| `{}` | {} | {labels} | {} |",
                m.name,
                kind(m.kind),
                m.help
            )
        })
        .collect();
    assert_eq!(
        documented, expected,
        "docs/METRICS.md against the constants"
    );
}

#[test]
fn series_of_deleted_topics_and_past_states_are_gone() {
    let registry = everything();
    let flow = running(&registry);
    flow.retire_partition(&(Arc::from("orders"), 1));
    let text = metrics::render(&StatusReport::build(&registry, now_ms()));
    assert!(!text.contains("foreign_write"), "{text}");
    assert!(!text.contains("topic=\"orders\""), "{text}");
}

#[test]
fn partition_series_are_capped_and_the_sums_are_not() {
    let registry = Registry::default();
    let flow = running(&registry);
    let partitions = i32::try_from(metrics::PARTITION_SERIES_MAX).expect("fits") + 3;
    for number in 0..partitions {
        copying(&flow, "wide", number, 0, 1);
    }
    let text = metrics::render(&StatusReport::build(&registry, now_ms()));
    assert!(text.contains("\ntwinlog_partition_series_omitted 3\n"));
    assert!(text.contains("\ntwinlog_flow_lag_records{flow=\"dr\"} 10003\n"));
    let series = text
        .lines()
        .filter(|l| l.starts_with("twinlog_partition_lag_records{"))
        .count();
    assert_eq!(series, metrics::PARTITION_SERIES_MAX);
}

#[test]
fn groups_that_are_not_followed_are_not_ready() {
    let registry = Registry::default();
    let flow = running(&registry);
    let before = StatusReport::build(&registry, now_ms());
    assert!(before.ready, "{:?}", before.not_ready);
    flow.set_groups(Some(Arc::new(Groups(DelayHistogram::default()))));
    let report = StatusReport::build(&registry, now_ms());
    assert_eq!(report.not_ready.len(), 1, "{:?}", report.not_ready);
    assert!(
        report.not_ready[0].contains("groups of standby"),
        "{:?}",
        report.not_ready
    );
}

#[test]
fn the_last_rehearsal_ages() {
    let text = metrics::render(&StatusReport::build(&everything(), now_ms()));
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix("{flow=\"dr\"} "));
        line.and_then(|value| value.parse::<f64>().ok())
    };
    let age = value("twinlog_drill_age_seconds");
    assert!(
        age.is_some_and(|age| (60.0..90.0).contains(&age)),
        "{age:?}"
    );
    assert_eq!(value("twinlog_drill_passed"), Some(1.0));
    assert_eq!(value("twinlog_drill_rto_seconds"), Some(2.5));
    assert_eq!(value("twinlog_drill_rpo_seconds"), Some(0.25));
}

/// A flow of which nothing but this is wrong, looked at when it has been so for `seconds`.
fn problems_of(
    obstacle: serde_json::Value,
    groups: serde_json::Value,
    seconds: i64,
) -> Vec<String> {
    let registry = Registry::default();
    let flow = running(&registry);
    copying(&flow, "orders", 0, 100, 100);
    let at = now_ms();
    let report = StatusReport::build(&registry, at);
    let mut json = serde_json::to_value(&report.flows[0]).expect("it serializes");
    let since = at - seconds * 1_000;
    let obstacles = match obstacle.as_object() {
        Some(of) => {
            let mut of = of.clone();
            of.insert("message".to_owned(), "no".into());
            of.insert("since_ms".to_owned(), since.into());
            serde_json::json!([of])
        }
        None => serde_json::json!([]),
    };
    let summary = twinlog::telemetry::metadata::MetadataSummary {
        compared_at_ms: at,
        ..Default::default()
    };
    json["metadata"] = serde_json::to_value(summary).expect("it serializes");
    json["metadata"]["obstacles"] = obstacles;
    if groups.is_object() {
        let totals = twinlog::telemetry::groups::GroupTotals::default();
        let mut totals = serde_json::to_value(totals).expect("it serializes");
        totals["source"] =
            serde_json::json!({ "way": "tail", "state": "following", "detail": null });
        totals["target"] = totals["source"].clone();
        totals["groups"] = groups;
        totals["failed_since_ms"] = since.into();
        json["groups"] = totals;
    }
    let flow = serde_json::from_value(json).expect("it reads back");
    twinlog::telemetry::readiness::problems(&[flow], at)
}

#[test]
fn a_standby_that_nobody_could_write_to_is_not_ready() {
    let obstacle = |kind: &str, reason: &str, is_problem: bool| serde_json::json!({ "kind": kind, "cluster": "source", "reason": reason, "is_problem": is_problem });
    let nothing = serde_json::Value::Null;
    let acls = obstacle("acl", "not_authorized", true);
    let found = problems_of(acls.clone(), nothing.clone(), 61);
    assert_eq!(found.len(), 1, "{found:?}");
    for words in ["ACLs of primary", "not_authorized", "61 s"] {
        assert!(found[0].contains(words), "{found:?}");
    }
    // A broker that restarts is over in less; and where there is nothing to follow nothing is missing.
    for (harmless, seconds) in [
        (acls, 59),
        (obstacle("acl", "no_authorizer", false), 3_600),
        // A right that was left out: who wants them to follow sees it in `check` and in the plan.
        (obstacle("topic_config", "not_authorized", true), 3_600),
        (obstacle("quota", "timeout", true), 3_600),
        (obstacle("user", "not_authorized", true), 3_600),
    ] {
        let found = problems_of(harmless.clone(), nothing.clone(), seconds);
        assert!(found.is_empty(), "{harmless}: {found:?}");
    }
    let configs = obstacle("topic_config", "timeout", true);
    assert_eq!(problems_of(configs, nothing, 61).len(), 1);
}

#[test]
fn a_flow_of_which_every_group_fails_is_not_ready() {
    let nothing = serde_json::Value::Null;
    let all = serde_json::json!({ "failed": 3, "gone_on_source": 1 });
    let found = problems_of(nothing.clone(), all.clone(), 61);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("3 group(s)") && found[0].contains("standby"),
        "{found:?}"
    );
    assert!(problems_of(nothing, all, 59).is_empty());
}
