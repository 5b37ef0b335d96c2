//! The Prometheus text of `/metrics`, rendered from a status report at scrape time.
//!
//! Nothing is recorded between scrapes: the registry's atomics are the truth. Every scrape
//! fills a recorder of its own, so the series of a deleted topic or of a past state are
//! gone with the next scrape instead of staying at their last value.

use std::collections::BTreeMap;

use metrics::{Label, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::drill::DrillResult;
use super::failover::{Readiness, Verdict, Weight};
use super::groups::{DELAY_BOUNDS_MS, GroupTotals};
use super::metadata::{DriftKind, MetadataSummary};
use super::names::{self, Kind, Metric};
use super::rates::Counters;
use super::readiness;
use super::status::{FlowStatus, PartitionStatus, StatusReport};
use super::verify::{DIFFERENCE_KINDS, VerifySummary};
use super::{names as n, process};

/// The content type of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// No more partitions than this, over all flows, get series of their own.
pub const PARTITION_SERIES_MAX: usize = 10_000;

/// The Prometheus text for a report.
pub fn render(report: &StatusReport) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    with_local_recorder(&recorder, || {
        for metric in names::ALL {
            match metric.kind {
                Kind::Counter => describe_counter!(metric.name, metric.help),
                Kind::Gauge => describe_gauge!(metric.name, metric.help),
            }
        }
        record_process(report);
        let mut series_left = PARTITION_SERIES_MAX;
        let mut omitted = 0;
        for flow in &report.flows {
            record_flow(flow, report.now_ms);
            for topic in &flow.topics {
                for partition in &topic.partitions {
                    if series_left == 0 {
                        omitted += 1;
                        continue;
                    }
                    series_left -= 1;
                    record_partition(&flow.name, &topic.name, partition);
                }
            }
        }
        set(&n::PARTITION_SERIES_OMITTED, &[], f64::from(omitted));
    });
    handle.render()
}

fn record_process(report: &StatusReport) {
    set(&n::BUILD_INFO, &[&report.twinlog], 1.0);
    set(&n::READY, &[], flag(report.ready));
    if let Some(bytes) = process::resident_memory_bytes() {
        set(&n::PROCESS_RESIDENT_MEMORY, &[], bytes as f64);
    }
    if let Some(millis) = process::cpu_ms() {
        count(&n::PROCESS_CPU, &[], millis);
    }
}

fn record_flow(flow: &FlowStatus, now_ms: i64) {
    let name = flow.name.as_str();
    let reason = flow.reason.as_deref().unwrap_or_default();
    set(&n::FLOW_STATE, &[name, &flow.state, reason], 1.0);
    set(&n::FLOW_DISCOVERED, &[name], flag(flow.discovered));

    // The two states without a reason are always there, so that their sum is never absent.
    let mut states: BTreeMap<(&str, &str), u64> =
        BTreeMap::from([(("opening", ""), 0), (("copying", ""), 0)]);
    let mut stuck = 0_u32;
    for partition in flow.topics.iter().flat_map(|topic| &topic.partitions) {
        let reason = partition.reason.as_deref().unwrap_or_default();
        *states.entry((&partition.state, reason)).or_default() += 1;
        stuck += u32::from(readiness::is_stuck(partition));
    }
    for ((state, reason), partitions) in states {
        set(&n::PARTITIONS, &[name, state, reason], partitions as f64);
    }
    set(&n::FLOW_STUCK_PARTITIONS, &[name], f64::from(stuck));

    let totals = &flow.totals;
    if flow.discovered {
        set(&n::FLOW_LAG_RECORDS, &[name], totals.lag_records as f64);
        set(&n::FLOW_LAG_BYTES, &[name], totals.lag_bytes as f64);
    }
    set(&n::FLOW_LAG_SECONDS, &[name], totals.lag_seconds);
    let unknown = totals.lag_unknown_partitions as f64;
    set(&n::FLOW_LAG_UNKNOWN, &[name], unknown);
    count(&n::FLOW_RECORDS, &[name], totals.counters.records);
    count(&n::FLOW_BYTES, &[name], totals.counters.bytes);
    for (kind, batches) in batches_by_kind(&totals.counters) {
        count(&n::FLOW_BATCHES, &[name, kind], batches);
    }
    let counters = &totals.counters;
    count(&n::FLOW_HOLES_FILLED, &[name], counters.holes_filled);
    count(&n::FLOW_GAP_OFFSETS, &[name], counters.gap_offsets);
    let missed = totals.missed_deletes_partitions as f64;
    set(&n::FLOW_MISSED_DELETES, &[name], missed);
    for (kind, errors) in &flow.errors {
        count(&n::FLOW_ERRORS, &[name, kind], *errors);
    }
    for carried in &flow.traffic {
        let (direction, purpose) = (carried.direction.as_str(), carried.purpose.as_str());
        let labels = [name, carried.cluster.as_str(), direction, purpose];
        count(&n::FLOW_CLUSTER_BYTES, &labels, carried.bytes);
    }
    let in_flight = flow.in_flight_bytes as f64;
    set(&n::FLOW_IN_FLIGHT_BYTES, &[name], in_flight);
    let limit = flow.in_flight_limit_bytes as f64;
    set(&n::FLOW_IN_FLIGHT_LIMIT_BYTES, &[name], limit);
    let first_copy = match &flow.first_copy {
        Some(first_copy) => first_copy.percent / 100.0,
        None => flag(flow.discovered),
    };
    set(&n::FLOW_FIRST_COPY_RATIO, &[name], first_copy);
    if let Some(groups) = &flow.groups {
        record_groups(name, groups);
    }
    if let Some(metadata) = &flow.metadata {
        record_metadata(name, metadata, now_ms);
    }
    if let Some(verify) = &flow.verify {
        record_verify(name, verify, now_ms);
    }
    if let Some(drill) = &flow.drill {
        record_drill(name, drill, now_ms);
    }
    if let Some(readiness) = &flow.failover {
        record_failover(name, readiness);
    }
}

fn record_failover(flow: &str, readiness: &Readiness) {
    let is_ready = readiness.can_fail_over == Verdict::Yes;
    set(&n::FAILOVER_READY, &[flow], flag(is_ready));
    for side in ["source", "promoting", "target", "mixed"] {
        set(&n::PRIMARY, &[flow, side], flag(readiness.primary == side));
    }
    for weight in Weight::ALL {
        let checks = readiness.checks.iter();
        let count = checks.filter(|check| check.weight == weight).count();
        set(&n::FAILOVER_CHECKS, &[flow, weight.word()], count as f64);
    }
    let failback = readiness.failback.as_ref();
    if let Some(offsets) = failback.and_then(|failback| failback.orphan_offsets) {
        set(&n::ORPHAN_OFFSETS, &[flow], offsets as f64);
    }
    if !readiness.knows_the_copy() {
        return;
    }
    let loss = &readiness.loss;
    set(&n::FAILOVER_LOSS_RECORDS, &[flow], loss.records as f64);
    set(&n::FAILOVER_LOSS_BYTES, &[flow], loss.bytes as f64);
    let seconds = loss.oldest_seconds.unwrap_or(0) as f64;
    set(&n::FAILOVER_LOSS_SECONDS, &[flow], seconds);
    let unknown = loss.unknown_partitions as f64;
    set(&n::FAILOVER_LOSS_UNKNOWN, &[flow], unknown);
    let reread = &readiness.reread;
    set(&n::FAILOVER_REREAD_MAX, &[flow], reread.records_max as f64);
    let unplaced = reread.unplaced_positions as f64;
    set(&n::FAILOVER_UNPLACED, &[flow], unplaced);
    if let Some(seen_ms) = readiness.source_seen_ms {
        let age_ms = (readiness.computed_at_ms - seen_ms).max(0);
        set(&n::FAILOVER_SOURCE_AGE, &[flow], age_ms as f64 / 1_000.0);
    }
}

fn record_verify(flow: &str, verify: &VerifySummary, now_ms: i64) {
    let newest = verify.newest().map(|(_, result)| result);
    let round = verify.background.as_ref();
    let coverage = newest.map(|result| result.coverage);
    if let Some(coverage) = coverage.or(round.map(|round| round.ratio)) {
        set(&n::VERIFY_COVERAGE, &[flow], coverage);
    }
    if let Some(result) = newest {
        let age_ms = (now_ms - result.started_ms).max(0);
        set(&n::VERIFY_AGE, &[flow], age_ms as f64 / 1_000.0);
        for kind in DIFFERENCE_KINDS {
            let count = result.differences.get(kind).copied().unwrap_or(0);
            set(&n::VERIFY_DIFFERENCES, &[flow, kind], count as f64);
        }
    }
    if let Some(round) = round {
        count(&n::VERIFY_BYTES, &[flow], round.bytes);
    }
}

fn record_drill(flow: &str, drill: &DrillResult, now_ms: i64) {
    let age_ms = (now_ms - drill.ended_ms).max(0);
    set(&n::DRILL_AGE, &[flow], age_ms as f64 / 1_000.0);
    set(&n::DRILL_PASSED, &[flow], flag(drill.verdict != "failed"));
    if let Some(seconds) = drill.rto_seconds {
        set(&n::DRILL_RTO, &[flow], seconds);
    }
    if let Some(seconds) = drill.rpo_seconds {
        set(&n::DRILL_RPO, &[flow], seconds);
    }
}

fn record_metadata(flow: &str, metadata: &MetadataSummary, now_ms: i64) {
    for (kind, by_action) in &metadata.drift {
        for (action, number) in by_action {
            let labels = [flow, kind.word(), action.word()];
            set(&n::DRIFT, &labels, *number as f64);
        }
    }
    for (kind, by_reason) in &metadata.failing {
        for (reason, number) in by_reason {
            let labels = [flow, kind.word(), reason];
            set(&n::DRIFT_FAILING, &labels, *number as f64);
        }
    }
    for obstacle in &metadata.obstacles {
        let (kind, cluster) = (obstacle.kind.word(), obstacle.cluster.as_str());
        let labels = [flow, kind, cluster, &obstacle.reason];
        set(&n::METADATA_OBSTACLES, &labels, 1.0);
    }
    for kind in DriftKind::ALL {
        let applied = metadata.applied.get(&kind).copied().unwrap_or(0);
        count(&n::METADATA_APPLIED, &[flow, kind.word()], applied);
    }
    for (kind, by_reason) in &metadata.failed {
        for (reason, number) in by_reason {
            count(&n::METADATA_FAILED, &[flow, kind.word(), reason], *number);
        }
    }
    let age_ms = (now_ms - metadata.compared_at_ms).max(0);
    set(&n::METADATA_AGE, &[flow], age_ms as f64 / 1_000.0);
    let took_seconds = metadata.took_ms as f64 / 1_000.0;
    set(&n::METADATA_COMPARE, &[flow], took_seconds);
}

fn record_groups(flow: &str, groups: &GroupTotals) {
    for (cluster, watching) in [("source", &groups.source), ("target", &groups.target)] {
        let labels = [flow, cluster, &watching.way, &watching.state];
        set(&n::GROUPS_WATCHED, &labels, 1.0);
    }
    for (state, number) in &groups.groups {
        set(&n::GROUPS, &[flow, state], *number as f64);
    }
    for (reason, positions) in &groups.waiting {
        set(
            &n::GROUP_POSITIONS_WAITING,
            &[flow, reason],
            *positions as f64,
        );
    }
    set(
        &n::GROUP_REREAD_RECORDS,
        &[flow],
        groups.reread_records as f64,
    );
    count(&n::GROUP_COMMITS, &[flow], groups.commits);
    let bounds = DELAY_BOUNDS_MS.iter().map(ToString::to_string);
    let bounds = bounds.chain(["+Inf".to_owned()]);
    for (bound, number) in bounds.zip(&groups.delay_buckets) {
        count(&n::GROUP_DELAY_BUCKET, &[flow, &bound], *number);
    }
    count(&n::GROUP_DELAY_SUM, &[flow], groups.delay_sum_ms);
    let total = groups.delay_buckets.last().copied().unwrap_or(0);
    count(&n::GROUP_DELAY_COUNT, &[flow], total);
}

fn record_partition(flow: &str, topic: &str, partition: &PartitionStatus) {
    let number = partition.partition.to_string();
    let labels = [flow, topic, number.as_str()];
    for (metric, value) in [
        (&n::PARTITION_LAG_RECORDS, partition.lag_records),
        (&n::PARTITION_SOURCE_POSITION, partition.source_position),
        (&n::PARTITION_TARGET_POSITION, partition.target_position),
        (&n::PARTITION_SOURCE_STABLE_END, partition.source_stable_end),
    ] {
        if let Some(value) = value {
            set(metric, &labels, value as f64);
        }
    }
    set(&n::PARTITION_LAG_BYTES, &labels, partition.lag_bytes as f64);
    set(&n::PARTITION_LAG_SECONDS, &labels, partition.lag_seconds);
    let no_progress = partition.no_progress_seconds;
    set(&n::PARTITION_NO_PROGRESS_SECONDS, &labels, no_progress);
    let counters = &partition.counters;
    count(&n::PARTITION_RECORDS, &labels, counters.records);
    count(&n::PARTITION_BYTES, &labels, counters.bytes);
    for (kind, batches) in batches_by_kind(counters) {
        count(
            &n::PARTITION_BATCHES,
            &[flow, topic, &number, kind],
            batches,
        );
    }
    count(&n::PARTITION_HOLES_FILLED, &labels, counters.holes_filled);
    count(&n::PARTITION_GAP_OFFSETS, &labels, counters.gap_offsets);
    if partition.missed_deletes.is_some() {
        set(&n::PARTITION_MISSED_DELETES, &labels, 1.0);
    }
}

fn batches_by_kind(counters: &Counters) -> [(&'static str, u64); 3] {
    [
        ("passed", counters.batches_passed),
        ("coalesced", counters.batches_coalesced),
        ("opened", counters.batches_opened),
    ]
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn set(metric: &Metric, values: &[&str], value: f64) {
    debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
    gauge!(metric.name, labels(metric, values)).set(value);
}

fn count(metric: &Metric, values: &[&str], value: u64) {
    debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
    counter!(metric.name, labels(metric, values)).absolute(value);
}

fn labels(metric: &Metric, values: &[&str]) -> Vec<Label> {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    metric
        .labels
        .iter()
        .zip(values)
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect()
}
